//! `insert-qdq`: Q/DQ pairs by the rules of a runtime.

use qpipe::stages::contract::Metrics;
use qpipe::stages::insert_qdq::InsertQdq;
use serde_json::json;

use super::{
    Context,
    model::{model, write_json, write_model},
};
use crate::analysis::Report;
use crate::quant::insert::insert;
use crate::quant::placement::{Request, Selection, plan_selected};
use crate::quant::prepare::prepare;
use crate::quant::ranges::Ranges;
use crate::{Error, Result};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: InsertQdq = context.config()?;
    let mut model = model(context, &config.model)?;
    prepare(&mut model)?;
    let ranges = Ranges::read(context.need("ranges")?)?;
    let request = Request {
        target: config.target,
        method: config.method,
        include: config.include.as_deref(),
        exclude: &config.exclude,
        per_channel: config.per_channel,
    };
    let mut selection = Selection::of(&model.graph, request.include, request.exclude)?;
    if let (Some(path), Some(count)) = (context.input("sensitivity"), config.float_layers) {
        let report = Report::read(path)?;
        for layer in report.layers.iter().take(count as usize) {
            let own = |node: &crate::graph::Node| node.label() == layer.node;
            let index = model.graph.nodes.iter().position(own).ok_or_else(|| {
                Error::user(format!("{}: the model has no layer \"{}\"", path.display(), layer.node))
                    .help("the sensitivities are another model's: measure those of the one that is quantized")
            })?;
            selection = selection.without(index);
            context.events.log(format!("{} ({}) stays in float", layer.node, layer.op));
        }
    }
    let plan = plan_selected(&model.graph, &ranges, &request, &selection)?;
    let quantized = plan.layers.iter().filter(|layer| layer.quantized).count();
    if quantized == 0 {
        return Err(Error::user("no layer is left to quantize")
            .help("`include` and `exclude` leave none that the target's rules cover"));
    }
    insert(&mut model, &plan)?;
    write_model(&model, context.output("model")?)?;
    write_json(&plan, context.output("plan")?)?;
    Ok(Metrics::from([
        ("tensors".to_owned(), json!(plan.tensors.len())),
        ("weights".to_owned(), json!(plan.weights.len())),
        ("layers".to_owned(), json!(quantized)),
    ]))
}
