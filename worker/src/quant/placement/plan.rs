//! The plan: sites with their scales, and what becomes of each layer.

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::tensorrt_version::TensorrtVersion;
use serde::Serialize;

use super::sites::reason;
use super::{Policy, Selection, Site, Sites, View, policy};
use crate::Result;
use crate::graph::Graph;
use crate::quant::ranges::Ranges;
use crate::quant::scheme::Scheme;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Runtime whose rules hold.
    pub target: Target,
    /// Whose ranges are taken.
    pub method: Method,
    /// Only these layers.
    pub include: Option<&'a [String]>,
    /// Not these.
    pub exclude: &'a [String],
    /// A scale for each output channel of a weight.
    pub per_channel: bool,
}

/// Which values are quantized and how, which layers are and why others are not: `plan.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Runtime whose rules hold.
    pub target: Target,
    /// Whose ranges were taken.
    pub method: Method,
    /// Computed values, in the order of the graph.
    pub tensors: Vec<TensorPlan>,
    /// Weights, in the order of the graph.
    pub weights: Vec<WeightPlan>,
    /// All nodes, in the order of the graph.
    pub layers: Vec<LayerPlan>,
}

/// A computed value with a Q/DQ pair.
#[derive(Clone, Debug, Serialize)]
pub struct TensorPlan {
    /// Its name.
    pub tensor: String,
    /// The value whose range it has, where not its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_of: Option<String>,
    /// Where the method clips.
    pub amax: f32,
    /// What an integer step stands for.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: u8,
    /// `int8` or `uint8`.
    pub dtype: &'static str,
    /// Nodes that read it quantized.
    pub readers: Vec<String>,
    /// The same for insertion.
    #[serde(skip)]
    pub sites: Vec<Site>,
    /// The same for insertion.
    #[serde(skip)]
    pub scheme: Scheme,
}

/// A weight with a Q/DQ pair.
#[derive(Clone, Debug, Serialize)]
pub struct WeightPlan {
    /// Its name.
    pub weight: String,
    /// The layer that reads it.
    pub layer: String,
    /// Axis of the channels that have a scale each; `None`: one scale for all.
    pub axis: Option<i64>,
    /// Count of channels.
    pub channels: i64,
    /// The input that reads it.
    #[serde(skip)]
    pub site: Site,
    /// Axis of the channels that may have a scale each, whether or not they have.
    #[serde(skip)]
    pub channel_axis: i64,
}

/// What becomes of a node.
#[derive(Clone, Debug, Serialize)]
pub struct LayerPlan {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Whether it reads quantized values.
    pub quantized: bool,
    /// The target's rule that decided so; none: no rule covers it, or it was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Plans the quantization of a prepared float graph.
///
/// # Errors
/// A pattern that names nothing, a range that is missing.
pub fn plan(graph: &Graph, ranges: &Ranges, request: &Request) -> Result<Plan> {
    let selection = Selection::of(graph, request.include, request.exclude)?;
    plan_selected(graph, ranges, request, &selection)
}

/// The same for layers that were selected otherwise than by the request's patterns.
///
/// # Errors
/// A range that is missing.
pub fn plan_selected(
    graph: &Graph,
    ranges: &Ranges,
    request: &Request,
    selection: &Selection,
) -> Result<Plan> {
    plan_for(graph, ranges, request, selection, TensorrtVersion::NEWEST)
}

/// The same for a version of TensorRT; other runtimes' rules do not depend on it.
///
/// # Errors
/// A range that is missing.
pub fn plan_for(
    graph: &Graph,
    ranges: &Ranges,
    request: &Request,
    selection: &Selection,
    version: TensorrtVersion,
) -> Result<Plan> {
    let policy = policy(request.target)?;
    let view = View::of(graph);
    let sites = policy.place_for(&view, selection, version);
    let mut tensors = Vec::new();
    for name in values(graph) {
        let Some(readers) = sites.tensors.get(name) else { continue };
        let scheme = (policy.scheme)(&view, name);
        // Values that have one scale take the range of the one whose steps are widest.
        let members = match sites.group(name) {
            Some(group) => values(graph).filter(|value| group.contains(*value)).collect(),
            None => vec![name],
        };
        let mut widest: Option<(f32, &str, (f32, f32))> = None;
        for member in members {
            let range_of = (policy.range_of)(&view, member);
            let (amax, abs_max) = ranges.find(range_of, request.method)?;
            let scale = scheme.scale(amax, abs_max);
            if widest.is_none_or(|(most, ..)| scale > most) {
                widest = Some((scale, range_of, (amax, abs_max)));
            }
        }
        let Some((_, range_of, (amax, abs_max))) = widest else { continue };
        let label = |site: &Site| graph.nodes[site.0].label().to_owned();
        tensors.push(TensorPlan {
            tensor: name.to_owned(),
            range_of: (range_of != name).then(|| range_of.to_owned()),
            amax,
            scale: scheme.scale(amax, abs_max),
            zero_point: scheme.zero_point,
            dtype: scheme.dtype.name(),
            readers: readers.iter().map(label).collect(),
            sites: readers.clone(),
            scheme,
        });
    }
    let weights = sites.weights.iter().map(|&(site, axis)| {
        let node = &graph.nodes[site.0];
        let weight = &node.inputs[site.1];
        WeightPlan {
            weight: weight.clone(),
            layer: node.label().to_owned(),
            axis: request.per_channel.then_some(axis),
            channels: graph.initializers[weight].shape[axis as usize],
            site,
            channel_axis: axis,
        }
    });
    Ok(Plan {
        target: request.target,
        method: request.method,
        tensors,
        weights: weights.collect(),
        layers: layers(graph, &sites, selection),
    })
}

/// What would become of each node of a prepared float graph under a runtime's rules, all layers allowed.
pub fn survey(graph: &Graph, policy: &Policy) -> Vec<LayerPlan> {
    let (view, selection) = (View::of(graph), Selection::all(graph));
    layers(graph, &policy.place(&view, &selection), &selection)
}

/// Names of all computed values, in the order of the graph.
fn values(graph: &Graph) -> impl Iterator<Item = &str> {
    let inputs = graph.inputs.iter().map(|input| input.name.as_str());
    inputs.chain(graph.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str))
}

fn layers(graph: &Graph, sites: &Sites, selection: &Selection) -> Vec<LayerPlan> {
    let layer = |(index, node): (usize, &crate::graph::Node)| {
        let quantized = sites.quantized.contains(&index);
        LayerPlan {
            node: node.label().to_owned(),
            op: node.op_type.clone(),
            quantized,
            rule: sites.rules.get(&index).copied(),
            reason: (!quantized).then(|| reason(sites, selection, index)),
        }
    };
    graph.nodes.iter().enumerate().map(layer).collect()
}
