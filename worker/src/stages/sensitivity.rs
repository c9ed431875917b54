//! `sensitivity`: what quantizing each layer costs.

use qpipe::stages::contract::Metrics;
use qpipe::stages::sensitivity::Sensitivity;
use serde_json::json;

use super::Context;
use super::model::{check_images, model, write_json};
use crate::analysis::{self, Options};
use crate::quant::formats::Formats;
use crate::quant::placement::Request;
use crate::quant::prepare::prepare;
use crate::quant::ranges::Ranges;
use crate::{Error, Result};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Sensitivity = context.config()?;
    let mut model = model(context, &config.model)?;
    prepare(&mut model)?;
    let ranges = Ranges::read(context.need("ranges")?).map_err(|error| error.key("ranges"))?;
    let dataset = context.dataset("data")?;
    check_images(&model, &dataset, config.batch_size as usize)?;
    let mut measure = config.measure.clone();
    measure.sort_unstable();
    measure.dedup();
    let options = Options {
        request: Request {
            target: config.target,
            method: config.method,
            include: config.include.as_deref(),
            exclude: &config.exclude,
            formats: Formats::of(config.weights, config.activations, config.per_channel),
        },
        version: config.version().map_err(super::insert_qdq::unknown_version)?,
        measure: &measure,
        samples: context.samples(config.samples, &dataset),
        batch_size: config.batch_size as usize,
        seed: context.task.seed,
        threads: context.task.threads,
    };
    let report = analysis::measure(&model, &ranges, &dataset, &options, &|done, total| {
        context.events.progress(done, total, "images", "");
    })?;
    report.not_finite().into_iter().for_each(|told| context.events.warn(told));
    write_json(&report, context.output("sensitivity")?)?;
    for (port, text) in
        [("table", analysis::markdown(&report)), ("picture", analysis::svg(&report))]
    {
        let path = context.output(port)?;
        std::fs::write(path, text).map_err(|error| Error::io(path, &error))?;
    }
    let worst: Vec<&str> = report.layers.iter().take(5).map(|layer| layer.node.as_str()).collect();
    context.events.log(format!("most sensitive first: {}", worst.join(", ")));
    let mut metrics = Metrics::from([
        ("samples".to_owned(), json!(report.samples)),
        ("layers".to_owned(), json!(report.layers.len())),
        ("sqnr_db".to_owned(), json!(report.quantized.fidelity.sqnr_db)),
        ("worst".to_owned(), json!(worst.first())),
    ]);
    let fidelity = report.quantized.fidelity;
    let (key, figure) =
        if report.logits { ("agreement", fidelity.agreement) } else { ("cosine", fidelity.cosine) };
    metrics.insert(key.to_owned(), json!(figure));
    if let (Some(float), Some(quantized)) = (report.float.top1, report.quantized.top1) {
        metrics.insert("float_top1".to_owned(), json!(float));
        metrics.insert("top1".to_owned(), json!(quantized));
    }
    Ok(metrics)
}
