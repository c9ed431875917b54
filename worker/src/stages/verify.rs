//! `verify`: whether export and engine compute what was trained.

use std::collections::HashMap;
use std::path::Path;

use qpipe::stages::contract::Metrics;
use qpipe::stages::verify::Verify;
use serde_json::json;
use tch::Tensor;

use super::Context;
use super::model::{check_images, model, write_json};
use crate::analysis::{Budget, Comparison, Seen, common};
use crate::data::{Dataset, Loader, Order, permutation};
use crate::engine::{self, Engine, Note, Threads, Unfused};
use crate::graph::{Dim, Model};
use crate::{Error, Result, onnx, passes, torch};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Verify = context.config()?;
    let mut reference = model(context, &config.model)?;
    passes::simplify(&mut reference)?;
    passes::fold_batch_norm(&mut reference)?;
    let path = context.need("onnx")?;
    let exported = onnx::read(path)?;
    let (spec, paths) = context.data("data")?;
    let dataset = Dataset::open(spec, paths)?;
    let batch = fixed_batch(&exported).unwrap_or(config.batch_size as usize);
    passes::set_batch(&mut reference, None)?;
    check_images(&reference, &dataset)?;
    let names = common(&reference, &exported);
    if !exported.graph.outputs.iter().all(|output| names.contains(&output.name)) {
        return Err(Error::user(format!(
            "{}: its outputs are not those of `model`",
            path.display()
        ))
        .help("`onnx` is the export of `model`: give both the same variant"));
    }
    let mut forms = Forms::new(context, &exported, &names)?;
    let mut simulation = Seen::new(&reference, &names)?;
    let mut chosen = permutation(dataset.len(), context.task.seed, 0);
    chosen.truncate(usize::try_from(config.samples).unwrap_or(usize::MAX));
    let (total, mut done) = (chosen.len() as u64, 0);
    for images in Loader::new(&dataset, batch, Order::Subset(chosen), false, context.task.threads) {
        let images = images?.images;
        // The rest that does not fill a fixed batch is left out.
        if fixed_batch(&exported).is_some_and(|batch| images.size()[0] != batch as i64) && done > 0
        {
            break;
        }
        let (_, expected) = simulation.run(&images)?;
        forms.step(&images, &expected, &exported)?;
        done += images.size()[0] as u64;
        context.events.progress(done, total, "images", "");
    }
    let budget = Budget { sqnr_db: config.min_sqnr_db, agreement: config.min_agreement };
    let mut metrics = Metrics::from([
        ("samples".to_owned(), json!(done)),
        ("values".to_owned(), json!(names.len())),
    ]);
    let mut held = Ok(());
    for (key, comparison) in forms.compared() {
        held = held.and(comparison.hold(&exported, budget));
        metrics.insert(format!("{key}_sqnr_db"), json!(comparison.worst_sqnr()));
        let outputs = exported.graph.outputs.iter();
        let agreement = outputs
            .filter_map(|output| comparison.values.iter().find(|step| step.tensor == output.name))
            .map(|step| step.fidelity.agreement);
        metrics.insert(format!("{key}_agreement"), json!(agreement.reduce(f64::min)));
    }
    held?;
    let comparisons: Vec<&Comparison> =
        forms.compared().map(|(_, comparison)| &*comparison).collect();
    write_json(&comparisons, context.output("values")?)?;
    write_json(&metrics, context.output("metrics")?)?;
    Ok(metrics)
}

fn fixed_batch(model: &Model) -> Option<usize> {
    match model.graph.inputs.first()?.shape.as_ref()?.first()? {
        Dim::Fixed(batch) => usize::try_from(*batch).ok(),
        _ => None,
    }
}

/// The forms of the model that are compared with the simulation.
struct Forms {
    exported: (Comparison, Seen),
    unfused: (Comparison, Unfused),
    engine: Option<(Comparison, Note, Box<dyn Engine>)>,
    names: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Forms {
    fn new(context: &Context, exported: &Model, names: &[String]) -> Result<Self> {
        let scratch = context.output("values")?.parent().unwrap_or(Path::new("."));
        let folder = tempfile::tempdir_in(scratch).map_err(|error| Error::io(scratch, &error))?;
        let engine = match context.input("engine") {
            None => None,
            Some(path) => {
                let (note, engine) = engine::load(path, &Threads::Free(context.task.threads))?;
                Some((Comparison::new("the engine"), note, engine))
            }
        };
        let unfused = Unfused::load(exported, names, folder.path(), context.task.threads)?;
        Ok(Self {
            exported: (
                Comparison::new("the exported file on libtorch"),
                Seen::new(exported, names)?,
            ),
            unfused: (Comparison::new("the exported file on ONNX Runtime without fusion"), unfused),
            engine,
            names: names.to_vec(),
            _folder: folder,
        })
    }

    fn step(
        &mut self,
        images: &Tensor,
        expected: &HashMap<String, Tensor>,
        exported: &Model,
    ) -> Result<()> {
        let (_, found) = self.exported.1.run(images)?;
        self.exported.0.add(expected, &found)?;
        let shape = images.size();
        let floats = torch::tensor_data(images)?.to_f32()?;
        let tensor = |shape: &[i64], values: &[f32]| {
            Ok::<_, Error>(Tensor::f_from_slice(values)?.f_reshape(shape)?)
        };
        let values = self.unfused.1.run(&floats, &shape)?;
        let found = self
            .names
            .iter()
            .zip(&values)
            .map(|(name, (shape, values))| Ok((name.clone(), tensor(shape, values)?)));
        self.unfused.0.add(expected, &found.collect::<Result<_>>()?)?;
        if let Some((comparison, note, engine)) = &mut self.engine {
            let count = shape[0] as usize;
            let logits = engine.run(&floats, count)?;
            let output = exported
                .graph
                .outputs
                .first()
                .map(|output| output.name.clone())
                .unwrap_or_default();
            let logits = tensor(&[shape[0], note.classes as i64], &logits)?;
            comparison.add(expected, &HashMap::from([(output, logits)]))?;
        }
        Ok(())
    }

    fn compared(&mut self) -> impl Iterator<Item = (&'static str, &mut Comparison)> {
        let engine = self.engine.as_mut().map(|(comparison, ..)| ("engine", comparison));
        [("export", &mut self.exported.0), ("onnxruntime", &mut self.unfused.0)]
            .into_iter()
            .chain(engine)
    }
}
