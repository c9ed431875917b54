//! `verify`: whether export and engine compute what was trained.

use qpipe::stages::contract::Metrics;
use qpipe::stages::verify::{EngineValues, Verify};
use serde_json::json;

use super::Context;
use super::forms::{Forms, Wanted, fixed_batch};
use super::inner::Inner;
use super::model::{check_images, model, write_json};
use crate::analysis::{Budget, Comparison, Seen, common, floats};
use crate::data::{Loader, Order, permutation};
use crate::{Error, Result, onnx, passes};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Verify = context.config()?;
    let mut reference = model(context, &config.model)?;
    passes::simplify(&mut reference)?;
    passes::fold_batch_norm(&mut reference)?;
    let path = context.need("onnx")?;
    let exported = onnx::read(path)?;
    let dataset = context.dataset("data")?;
    let fixed = fixed_batch(&exported);
    let batch = fixed.unwrap_or(config.batch_size as usize);
    passes::set_batch(&mut reference, None)?;
    check_images(&reference, &dataset, batch)?;
    let names = common(&reference, &exported);
    if !exported.graph.outputs.iter().all(|output| names.contains(&output.name)) {
        return Err(Error::user(format!(
            "{}: its outputs are not those of `model`",
            path.display()
        ))
        .help("`onnx` is the export of `model`: give both the same variant"));
    }
    let chosen = permutation(dataset.len(), context.task.seed, 0);
    let first = Order::Subset(chosen[..1].to_vec());
    let first = Loader::new(&dataset, 1, first, false, 1).next();
    let first = first.ok_or_else(|| Error::bug("a data set without a sample"))??;
    let (_, values) = Seen::new(&reference, &names)?.run(&first.images)?;
    let names = floats(&names, &values);
    let engine = context.input("engine");
    let wanted = Wanted { libtorch: true, onnxruntime: true, engine, inner: true };
    let mut forms = Forms::new(context, &exported, &names, wanted)?;
    let mut simulation = Seen::new(&reference, &names)?;
    let most = usize::try_from(config.samples).unwrap_or(usize::MAX);
    let chosen = samples(chosen, most, fixed);
    let (total, mut done) = (chosen.len() as u64, 0);
    let mut shown = None;
    for images in Loader::new(&dataset, batch, Order::Subset(chosen), false, context.task.threads) {
        let images = images?.images;
        shown.get_or_insert_with(|| images.shallow_clone());
        let (_, expected) = simulation.run(&images)?;
        forms.step(&images, &expected)?;
        done += images.size()[0] as u64;
        context.events.progress(done, total, "images", "");
    }
    let budget = Budget {
        sqnr_db: config.min_sqnr_db,
        agreement: config.min_agreement,
        sudden_db: f64::NEG_INFINITY,
    };
    let mut metrics = Metrics::from([
        ("samples".to_owned(), json!(done.min(dataset.len() as u64))),
        ("values".to_owned(), json!(names.len())),
    ]);
    let images = shown.ok_or_else(|| Error::bug("a data set without a batch"))?;
    let inner = engine.map(|engine| Inner {
        context,
        engine,
        exported: &exported,
        reference: &reference,
        names: &names,
        images: &images,
    });
    let when = config.engine_values;
    forms.hold(context, budget, &|error| match &inner {
        Some(inner) if when != EngineValues::Never => inner.explain(error, budget),
        _ => error,
    })?;
    for (key, comparison) in forms.comparisons() {
        metrics.insert(format!("{key}_sqnr_db"), json!(comparison.worst_sqnr()));
        if let Some(agreement) = comparison.agreement(&exported) {
            metrics.insert(format!("{key}_agreement"), json!(agreement));
        }
    }
    let mut more = match &inner {
        Some(inner) if when == EngineValues::Always => inner.compare()?,
        _ => None,
    };
    if let Some(comparison) = &mut more {
        comparison.hold(&exported, budget)?;
        metrics.insert("engine_values_sqnr_db".to_owned(), json!(comparison.worst_sqnr()));
    }
    let comparisons: Vec<&Comparison> =
        forms.comparisons().map(|(_, comparison)| comparison).chain(&more).collect();
    write_json(&comparisons, context.output("values")?)?;
    write_json(&metrics, context.output("metrics")?)?;
    Ok(metrics)
}

/// The first `wanted` of a data set's images. Of a model of fixed batch they are whole batches, at least one; where there are too few images for
/// that they come again.
fn samples(mut images: Vec<usize>, wanted: usize, fixed: Option<usize>) -> Vec<usize> {
    let Some(batch) = fixed.filter(|batch| *batch > 0) else {
        images.truncate(wanted);
        return images;
    };
    let whole = wanted.min(images.len()) / batch * batch;
    images.into_iter().cycle().take(whole.max(batch)).collect()
}

#[cfg(test)]
mod tests {
    use super::samples;

    #[test]
    fn a_fixed_batch_is_filled() {
        let few = || (0..5).collect::<Vec<usize>>();
        assert_eq!(samples(few(), 3, None), [0, 1, 2]);
        assert_eq!(samples(few(), 64, None), [0, 1, 2, 3, 4]);
        assert_eq!(samples(few(), 64, Some(2)), [0, 1, 2, 3]);
        assert_eq!(samples(few(), 3, Some(4)), [0, 1, 2, 3], "one batch at least");
        assert_eq!(samples(few(), 64, Some(8)), [0, 1, 2, 3, 4, 0, 1, 2], "images come again");
    }
}
