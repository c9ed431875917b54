//! Why a request leaves nothing to quantize.

use qpipe::stages::tensorrt_version::TensorrtVersion;

use super::plan::sites;
use super::{Plan, Request, Selection};
use crate::graph::{DType, Graph};
use crate::ops::WEIGHTED;
use crate::{Error, Result};

/// Most reasons that are told.
const TOLD: usize = 3;

/// Whether the target's rules quantize any of the selected nodes in the types that are asked for.
///
/// # Errors
/// A target without rules.
pub fn quantizes(
    graph: &Graph,
    request: &Request,
    selection: &Selection,
    version: TensorrtVersion,
) -> Result<bool> {
    Ok(!sites(graph, request, selection, version)?.quantized.is_empty())
}

/// The error of a plan that quantizes nothing: why its layers stay float, and at the key that leaves them so.
pub fn nothing_left(
    plan: &Plan,
    graph: &Graph,
    request: &Request,
    version: TensorrtVersion,
) -> Error {
    let error = Error::user(format!("no layer is left to quantize: {}", reasons(plan)));
    let patterns = request.include.is_some() || !request.exclude.is_empty();
    let all = Selection::all(graph);
    if patterns && quantizes(graph, request, &all, version).unwrap_or(false) {
        let key = if request.exclude.is_empty() { "include" } else { "exclude" };
        let help = format!("`{key}` leaves none of those that the target's rules cover");
        return error.help(help).key(key);
    }
    if !matches!(request.formats.weights.dtype, DType::I7 | DType::I8) {
        let help = "weights of another type, or blocks of a size that divides the input channels (`block_size`), leave more: docs/formats.md says which runtime takes what";
        return error.help(help).key("weights");
    }
    error.help("docs/placement.md has the rules of each target")
}

/// Why layers with a weight stay float, the commonest reason first.
fn reasons(plan: &Plan) -> String {
    let mut reasons: Vec<(&str, &str, usize)> = Vec::new();
    for layer in &plan.layers {
        let reason = layer.reason.as_deref().filter(|_| WEIGHTED.contains(&layer.op.as_str()));
        let Some(reason) = reason else { continue };
        match reasons.iter_mut().find(|(known, _, _)| *known == reason) {
            Some((_, _, count)) => *count += 1,
            None => reasons.push((reason, &layer.node, 1)),
        }
    }
    if reasons.is_empty() {
        return "the model has no Conv, ConvTranspose, Gemm or MatMul".to_owned();
    }
    reasons.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    let told = reasons.iter().take(TOLD).map(|(reason, node, count)| match count {
        1 => format!("\"{node}\": {reason}"),
        _ => format!("\"{node}\" and {} more: {reason}", count - 1),
    });
    let mut told: Vec<String> = told.collect();
    if reasons.len() > TOLD {
        told.push("…".to_owned());
    }
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use qpipe::stages::calibrate::Method;
    use qpipe::stages::formats::{ActivationType, Activations, Granularity, WeightType, Weights};
    use qpipe::stages::insert_qdq::Target;

    use super::*;
    use crate::graph::{Model, Node, TensorData, ValueInfo};
    use crate::quant::fixture::{request, rising};
    use crate::quant::formats::Formats;
    use crate::quant::placement::plan_for;

    /// A product of 16 input channels, whose input is `x`.
    fn product(operator: &str) -> Model {
        let weight = TensorData::f32(&[16, 2], &[1.0; 32]);
        let graph = Graph {
            nodes: vec![Node::new("fc", operator, &["x", "w"], &["y"])],
            inputs: vec![ValueInfo::f32("x", Vec::new())],
            outputs: vec![ValueInfo::f32("y", Vec::new())],
            initializers: [("w".to_owned(), weight)].into_iter().collect(),
            ..Graph::default()
        };
        Model::new(graph, 17)
    }

    fn refused(operator: &str, request: &Request) -> Error {
        let (model, version) = (product(operator), TensorrtVersion::NEWEST);
        let selection = Selection::of(&model.graph, request.include, request.exclude).unwrap();
        let ranges = rising(&model.graph);
        let plan = plan_for(&model.graph, &ranges, request, &selection, version).unwrap();
        assert!(!quantizes(&model.graph, request, &selection, version).unwrap());
        nothing_left(&plan, &model.graph, request, version)
    }

    #[test]
    fn blame_goes_to_the_key_that_leaves_nothing() {
        let free = request(Target::Tensorrt, Method::Max);
        let weights = Weights {
            dtype: WeightType::Int4,
            granularity: Some(Granularity::PerBlock),
            block_size: Some(64),
            ..Weights::default()
        };
        let floats = Activations { dtype: Some(ActivationType::Float), ..Activations::default() };
        let blocks = Request { formats: Formats::of(Some(weights), Some(floats), true), ..free };
        let error = refused("MatMul", &blocks);
        assert_eq!(error.key, Some("weights"), "nothing is excluded: {error:?}");
        let told = "no layer is left to quantize: \"fc\": its 16 input channels are no whole number of blocks of 64, as TensorRT wants";
        assert_eq!(error.message, told);
        let exclude = ["fc".to_owned()];
        let error = refused("MatMul", &Request { exclude: &exclude, ..blocks });
        assert_eq!(error.key, Some("weights"), "it would stay float without that: {error:?}");
        let error = refused("MatMul", &Request { exclude: &exclude, ..free });
        assert_eq!(error.key, Some("exclude"));
        assert!(error.message.ends_with("\"fc\": excluded by \"fc\""), "{error:?}");
        let error = refused("Einsum", &free);
        assert_eq!(error.key, None);
        assert!(error.message.ends_with("the model has no Conv, ConvTranspose, Gemm or MatMul"));
    }
}
