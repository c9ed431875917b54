//! `insert-qdq`: Q/DQ pairs by the rules of a runtime.

use qpipe::stages::contract::Metrics;
use qpipe::stages::insert_qdq::{BatchNorm, InsertQdq};
use serde_json::json;

use super::{
    Context,
    model::{model, write_json, write_model},
};
use crate::analysis::Report;
use crate::graph::Graph;
use crate::interp::check_executable;
use crate::quant::formats::Formats;
use crate::quant::insert::insert;
use crate::quant::placement::{Plan, Request, Selection, nothing_left, plan_for, quantizes};
use crate::quant::prepare::prepare_and_tell;
use crate::quant::ranges::{Ranges, VERSION};
use crate::search::Chosen;
use crate::{Error, Result, passes};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: InsertQdq = context.config()?;
    let mut model = model(context, &config.model)?;
    let folded = prepare_and_tell(&mut model)?;
    // Its ranges or weights may be all that is wanted of it.
    if let Err(error) = check_executable(&model) {
        context.events.warn(format!(
            "{}: `evaluate`, `finetune` and `export-onnx` will refuse what is made of this model",
            error.message
        ));
    }
    let ranges = match context.input("ranges") {
        Some(path) => Ranges::read(path).map_err(|error| error.key("ranges"))?,
        // Only weights are quantized.
        None => Ranges { version: VERSION, calibration: None, tensors: Vec::new() },
    };
    let request = Request {
        target: config.target,
        method: config.method,
        include: config.include.as_deref(),
        exclude: &config.exclude,
        formats: Formats::of(config.weights, config.activations, config.per_channel),
    };
    let version = config.version().map_err(unknown_version)?;
    let named = Selection::of(&model.graph, request.include, request.exclude)?;
    let mut selection = named.clone();
    if let (Some(path), Some(count)) = (context.input("sensitivity"), config.float_layers) {
        let report = Report::read(path).map_err(|error| error.key("sensitivity"))?;
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
    if let Some(path) = context.input("exclude_from") {
        let chosen = Chosen::read(path)
            .and_then(|chosen| chosen.nodes(&model.graph))
            .map_err(|error| error.key("exclude_from"))?;
        selection = (0..chosen.len())
            .filter(|&index| chosen[index])
            .fold(selection, |selection, index| selection.without(index));
    }
    let plan = plan_for(&model.graph, &ranges, &request, &selection, version)?;
    let quantized = plan.layers.iter().filter(|layer| layer.quantized).count();
    if quantized == 0 && config.exclude_from.is_some() {
        context.events.warn_of(
            "exclude_from",
            "`exclude_from` leaves no layer to quantize: the model stays float",
        );
    } else if quantized == 0 {
        let lowered = config.float_layers.is_some_and(|count| count > 0)
            && quantizes(&model.graph, &request, &named, version)?;
        return Err(match lowered {
            true => Error::user("no layer is left to quantize")
                .help("`float_layers` leaves as many in float as can be quantized: lower it")
                .key("float_layers"),
            false => nothing_left(&plan, &model.graph, &request, version),
        });
    }
    remarks(&plan, &ranges, &model.graph)
        .into_iter()
        .for_each(|text| context.events.warn_of("ranges", text));
    insert(&mut model, &plan)?;
    if config.batch_norm == BatchNorm::Kept {
        passes::unfold_batch_norm(&mut model, &folded)?;
    }
    write_model(&model, context.output("model")?)?;
    write_json(&plan, context.output("plan")?)?;
    Ok(Metrics::from([
        ("tensors".to_owned(), json!(plan.tensors.len())),
        ("weights".to_owned(), json!(plan.weights.len())),
        ("layers".to_owned(), json!(quantized)),
    ]))
}

/// `check` says so before: this is for tasks that did not come through it.
pub(super) fn unknown_version(expected: String) -> Error {
    Error::user("a TensorRT of that version is not known").help(expected).key("tensorrt_version")
}

/// What is odd about the ranges but can be done.
fn remarks(plan: &Plan, ranges: &Ranges, graph: &Graph) -> Vec<String> {
    let mut remarks = Vec::new();
    let method = plan.method.name();
    for tensor in &plan.tensors {
        // No scale is that small, so that another was taken.
        if tensor.amax / tensor.scheme.levels() >= f32::MIN_POSITIVE {
            continue;
        }
        let whose = tensor.range_of.as_ref().unwrap_or(&tensor.tensor);
        let steps = tensor.scheme.levels() * tensor.scale;
        let amax = if tensor.amax == 0.0 { "0".to_owned() } else { format!("{:e}", tensor.amax) };
        remarks.push(format!(
            "tensor \"{whose}\": its amax by \"{method}\" is {amax}, so nothing of it would be left; {steps} is taken, the largest magnitude that was seen (1 where that is 0)"
        ));
    }
    let producers = graph.producers();
    let is_input = |name: &str| graph.inputs.iter().any(|input| input.name == name);
    let unknown = |name: &&str| !is_input(name) && !producers.contains_key(*name);
    let names = ranges.tensors.iter().map(|range| range.tensor.as_str());
    let strange: Vec<&str> = names.filter(unknown).collect();
    if !strange.is_empty() {
        remarks.push(format!(
            "{} tensor(s) of the ranges are none of the model's, such as \"{}\"; names are those after BatchNormalization and constants are folded",
            strange.len(),
            strange[0]
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use qpipe::stages::calibrate::Method;
    use qpipe::stages::insert_qdq::Target;

    use super::*;
    use crate::graph::{Model, Node, TensorData, ValueInfo};
    use crate::quant::fixture;
    use crate::quant::placement::plan;

    #[test]
    fn an_amax_of_0_and_tensors_of_another_model_are_named() {
        let graph = Graph {
            nodes: vec![Node::new("fc", "MatMul", &["x", "w"], &["y"])],
            inputs: vec![ValueInfo::f32("x", Vec::new())],
            initializers: [("w".to_owned(), TensorData::f32(&[1, 1], &[1.0]))]
                .into_iter()
                .collect(),
            ..Graph::default()
        };
        let model = Model::new(graph, 17);
        let remarks = |amax, other: &str| {
            let mut ranges = fixture::ranges(Method::Percentile, [("x", amax), (other, 1.0)]);
            ranges.tensors[0].max = Some(3.0);
            let request = fixture::request(Target::Tensorrt, Method::Percentile);
            let plan = plan(&model.graph, &ranges, &request).unwrap();
            remarks(&plan, &ranges, &model.graph)
        };
        assert!(remarks(2.0, "y").is_empty());
        let [zero, strange] = &remarks(0.0, "z")[..] else { panic!("two remarks") };
        assert!(zero.starts_with("tensor \"x\": its amax by \"percentile\" is 0"), "{zero}");
        assert!(zero.contains("; 3 is taken"), "{zero}");
        let [tiny] = &remarks(1e-38, "y")[..] else { panic!("one remark") };
        assert!(tiny.contains("is 1e-38, so nothing") && tiny.contains("; 3 is taken"), "{tiny}");
        assert!(strange.contains("such as \"z\""), "{strange}");
    }
}
