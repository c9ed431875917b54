//! `evaluate` of a detector: how far its boxes agree with those of the float model.

use qpipe::stages::contract::Metrics;
use qpipe::stages::evaluate::{BoxForm, Detection as Wanted, Evaluate};
use serde_json::json;
use tch::Tensor;

use super::Context;
use super::model::{check_images, model, write_json};
use super::run_engine::{check_engine, run_engine};
use crate::data::{Dataset, Loader, Order};
use crate::detection::{
    Agreement, Detection, Output, Settings, check_separate, check_single, decode, decode_separate,
};
use crate::engine::{self, Engine, Note, Threads};
use crate::graph::Model;
use crate::interp::{Mode, Options, Program};
use crate::quant::finalize;
use crate::{Error, Result, onnx, passes, torch};

/// Runs the stage.
pub(super) fn run(context: &Context, config: &Evaluate) -> Result<Metrics> {
    let dataset = context.dataset("data")?.read_once();
    let threads = context.task.threads;
    let mut subject = match &config.model {
        Some(source) => Detector::of_model(model(context, source)?, &dataset)?,
        None => Detector::of_engine(context.need("engine")?, &dataset, threads)?,
    };
    let path = context.need("reference")?;
    let reference = if path.is_dir() {
        Detector::of_engine(path, &dataset, threads)
    } else {
        let mut model = onnx::read(path)?;
        passes::inference_form(&mut model).map_err(|error| error.at(path.display()))?;
        Detector::of_model(model, &dataset)
    };
    let mut reference = reference.map_err(|error| error.at("the reference"))?;
    let wanted = config.detection.unwrap_or_default();
    let settings = Settings {
        confidence: wanted.confidence,
        nms_iou: wanted.nms_iou,
        most: wanted.max_boxes as usize,
    };
    let mut agreement = Agreement::new(settings);
    let batch = subject.batch().or(reference.batch()).unwrap_or(config.batch_size as usize);
    let (total, mut done) = (dataset.len() as u64, 0);
    let mut images = Vec::new();
    for loaded in Loader::new(&dataset, batch, Order::Sequential, false, threads) {
        let loaded = loaded?.images;
        let found = subject.boxes(&loaded, &wanted, settings.least_confidence())?;
        let expected = reference.boxes(&loaded, &wanted, settings.confidence);
        let expected = expected.map_err(|error| error.at("the reference"))?;
        if found.len() != expected.len() {
            return Err(Error::user("the outputs of model and reference differ in rows"));
        }
        for (found, expected) in found.into_iter().zip(expected) {
            let (found, expected) = agreement.add(found, expected);
            images.push(json!({ "expected": expected, "found": found }));
        }
        done += loaded.size()[0] as u64;
        context.events.progress(done, total, "images", "");
    }
    let figures = agreement.figures();
    if figures.expected == 0 {
        return Err(Error::user(format!(
            "the reference finds no box in {} images at confidence {}: there is nothing to agree with",
            figures.images, settings.confidence
        ))
        .help("lower it: detection = { confidence = 0.1 }; or check that `transform` gives the model what it was trained on")
        .key("reference"));
    }
    let metrics = Metrics::from([
        ("subject".to_owned(), json!(subject.subject())),
        ("backend".to_owned(), json!(subject.backend())),
        ("samples".to_owned(), json!(figures.images)),
        ("reference_boxes".to_owned(), json!(figures.expected)),
        ("boxes".to_owned(), json!(figures.found)),
        ("precision".to_owned(), json!(figures.precision)),
        ("recall".to_owned(), json!(figures.recall)),
        ("f1".to_owned(), json!(figures.f1)),
        ("map50".to_owned(), json!(figures.map50)),
        ("map".to_owned(), json!(figures.map)),
        ("mean_iou".to_owned(), json!(figures.mean_iou)),
        ("class_agreement".to_owned(), json!(figures.class_agreement)),
    ]);
    write_json(&metrics, context.output("metrics")?)?;
    write_json(&images, context.output("boxes")?)?;
    Ok(metrics)
}

/// What finds boxes.
enum Detector {
    /// With the batch that it keeps, if it does.
    Simulation(Box<Program>, Option<usize>),
    Engine(Box<Note>, Box<dyn Engine>),
}

impl Detector {
    /// The model as it is deployed, on libtorch.
    fn of_model(mut model: Model, dataset: &Dataset) -> Result<Self> {
        passes::simplify(&mut model)?;
        finalize::finalize(&mut model, None)?;
        passes::set_batch(&mut model, None)?;
        let own = passes::fixed_batch(&model).and_then(|own| usize::try_from(own).ok());
        check_images(&model, dataset, own.unwrap_or(1))?;
        let program = Program::compile(&model, &Options::default())?;
        Ok(Self::Simulation(Box::new(program), own))
    }

    fn of_engine(folder: &std::path::Path, dataset: &Dataset, threads: usize) -> Result<Self> {
        let (note, engine) = engine::load(folder, &Threads::Free(threads))?;
        check_engine(&note, dataset)?;
        Ok(Self::Engine(Box::new(note), engine))
    }

    fn batch(&self) -> Option<usize> {
        match self {
            Self::Simulation(_, own) => *own,
            Self::Engine(note, engine) => note.batch.map(|own| own * engine.at_once()),
        }
    }

    fn subject(&self) -> &'static str {
        match self {
            Self::Simulation(..) => "simulation",
            Self::Engine(..) => "engine",
        }
    }

    fn backend(&self) -> &str {
        match self {
            Self::Simulation(..) => "libtorch",
            Self::Engine(note, _) => &note.backend,
        }
    }

    /// The outputs for these images that are read of this form: the first, or both.
    fn outputs(&mut self, images: &Tensor, form: Option<BoxForm>) -> Result<Vec<Output>> {
        match self {
            Self::Simulation(program, _) => {
                let _no_grad = tch::no_grad_guard();
                let images = [images.shallow_clone()];
                let made = program.forward(&images, Mode::Eval, &mut |_, _| Ok(()))?;
                let shape = |value: &Tensor| -> Vec<usize> {
                    value.size().into_iter().map(|extent| extent as usize).collect()
                };
                let shapes: Vec<Vec<usize>> = made.iter().map(shape).collect();
                let read = check(form, &shapes)?;
                let values = shapes.into_iter().zip(&made).take(read);
                values
                    .map(|(shape, value)| Ok((shape, torch::tensor_data(value)?.to_f32()?)))
                    .collect()
            }
            Self::Engine(note, engine) => {
                let count = images.size()[0] as usize;
                let shapes = note.outputs().into_iter();
                let shapes: Vec<Vec<usize>> = shapes
                    .map(|(_, behind)| std::iter::once(count).chain(behind).collect())
                    .collect();
                let read = check(form, &shapes)?;
                let made = run_engine(engine.as_mut(), note, images)?;
                Ok(shapes.into_iter().zip(made).take(read).collect())
            }
        }
    }

    /// Boxes above `confidence` of each image.
    fn boxes(
        &mut self,
        images: &Tensor,
        wanted: &Wanted,
        confidence: f64,
    ) -> Result<Vec<Vec<Detection>>> {
        let outputs = self.outputs(images, wanted.form)?;
        if wanted.form == Some(BoxForm::Separate) {
            let [height, width] = [2, 3].map(|axis| images.size()[axis] as usize);
            return decode_separate(&outputs, wanted, [height, width], confidence);
        }
        let first = outputs.first().ok_or_else(|| Error::user("the model has no output"))?;
        decode(wanted.form, &first.0, &first.1, confidence)
    }
}

/// How many outputs are read of this form. Before they are: of other forms they may be no floats.
fn check(form: Option<BoxForm>, shapes: &[Vec<usize>]) -> Result<usize> {
    let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    match form {
        Some(BoxForm::Separate) => check_separate(&shapes).map(|()| 2),
        Some(_) => Ok(1),
        None => check_single(&shapes).map(|()| 1),
    }
}
