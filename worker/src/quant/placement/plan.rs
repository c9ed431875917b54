//! The plan: sites with their scales, and what becomes of each layer.

use qpipe::stages::calibrate::Method;
use qpipe::stages::formats::Granularity;
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::tensorrt_version::TensorrtVersion;
use serde::Serialize;

use super::sites::reason;
use super::{Policy, Selection, Site, Sites, View, policy};
use crate::graph::Graph;
use crate::quant::formats::Formats;
use crate::quant::grid::Grid;
use crate::quant::ranges::Ranges;
use crate::quant::scheme::{Scheme, Seen};
use crate::quant::weights::grid;
use crate::{Error, Result};

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
    /// Types of weights and activations.
    pub formats: Formats,
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
    pub zero_point: i64,
    /// `int8`, `uint8` or `float8e4m3fn`.
    pub dtype: &'static str,
    /// `per-tensor`.
    pub granularity: Granularity,
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
    /// `int8`, `int4` or `float8e4m3fn`.
    pub dtype: &'static str,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Axis along which scales differ: of the output channels, or, for blocks, of the input channels; `None`: one scale for all.
    pub axis: Option<i64>,
    /// Elements of a block along that axis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<i64>,
    /// Count of output channels.
    pub channels: i64,
    /// The integers that stand for 0: one where it is the same for all scales, else one a scale.
    pub zero_points: Vec<i64>,
    /// The input that reads it.
    #[serde(skip)]
    pub site: Site,
    /// The scales and all zero points, for insertion.
    #[serde(skip)]
    pub grid: Grid,
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
    let selection = &in_types(request, &view, selection);
    let sites = sites_of(request, &view, selection, version)?;
    let mut tensors = Vec::new();
    for name in computed(graph) {
        let Some(readers) = sites.tensors.get(name) else { continue };
        let Some(scheme) = request.formats.activation(policy, &view, name) else { continue };
        // Values that have one scale share the range of all.
        let members = match sites.group(name) {
            Some(group) => computed(graph).filter(|value| group.contains(*value)).collect(),
            None => vec![name],
        };
        let mut shared: Option<(&str, Seen)> = None;
        for member in members {
            let own = sites.range_of(member, |name| (policy.range_of)(&view, name));
            let seen = match (policy.bounds)(&view, own) {
                Some((low, high)) => Seen {
                    amax: high.max(-low),
                    abs_max: high.max(-low),
                    bounds: Some((low, high)),
                },
                None => ranges.seen(own, request.method)?,
            };
            shared = Some(match shared {
                Some((range_of, most)) if most.amax >= seen.amax => (range_of, most.with(seen)),
                Some((_, most)) => (own, most.with(seen)),
                None => (own, seen),
            });
        }
        let Some((range_of, seen)) = shared else { continue };
        let (scale, zero_point) = scheme.parameters(seen).ok_or_else(|| {
            Error::user(format!("the ranges have no `min` and `max` of tensor \"{range_of}\", from which its zero point follows"))
                .key("ranges")
                .help("`calibrate` writes them; or quantize symmetrically: activations = { symmetric = true }")
        })?;
        let label = |site: &Site| graph.nodes[site.0].label().to_owned();
        tensors.push(TensorPlan {
            tensor: name.to_owned(),
            range_of: (range_of != name).then(|| range_of.to_owned()),
            amax: seen.amax,
            scale,
            zero_point,
            dtype: scheme.dtype.name(),
            granularity: Granularity::PerTensor,
            readers: readers.iter().map(label).collect(),
            sites: readers.clone(),
            scheme,
        });
    }
    let mut weights = Vec::new();
    for &(site, axis) in &sites.weights {
        let node = &graph.nodes[site.0];
        let weight = &node.inputs[site.1];
        let grid = grid(graph, &tensors, &request.formats, site, axis)?;
        let mut zero_points = grid.zero_points.clone();
        if zero_points.iter().all(|&zero| Some(zero) == zero_points.first().copied()) {
            zero_points.truncate(1);
        }
        weights.push(WeightPlan {
            weight: weight.clone(),
            layer: node.label().to_owned(),
            dtype: grid.dtype.name(),
            granularity: grid.groups.granularity(),
            axis: grid.groups.axis,
            block_size: grid.groups.block_size,
            channels: graph.initializers[weight].shape[axis as usize],
            zero_points,
            site,
            grid,
        });
    }
    Ok(Plan {
        target: request.target,
        method: request.method,
        tensors,
        weights,
        layers: layers(graph, &sites, selection),
    })
}

/// What would become of each node of a prepared float graph under a runtime's rules, all layers allowed.
pub fn survey(graph: &Graph, policy: &Policy) -> Vec<LayerPlan> {
    let (view, selection) = (View::of(graph), Selection::all(graph));
    layers(graph, &policy.place(&view, &selection), &selection)
}

/// Where the rules have pairs in the types that are asked for.
pub(super) fn sites(
    graph: &Graph,
    request: &Request,
    selection: &Selection,
    version: TensorrtVersion,
) -> Result<Sites> {
    let view = View::of(graph);
    sites_of(request, &view, &in_types(request, &view, selection), version)
}

fn sites_of(
    request: &Request,
    view: &View,
    selection: &Selection,
    version: TensorrtVersion,
) -> Result<Sites> {
    let placed = policy(request.target)?.place_for(view, selection, version);
    Ok(fitting(placed, view.graph, request))
}

/// What the types leave in float is so before any rule is asked: who reads its output depends on it.
fn in_types(request: &Request, view: &View, selection: &Selection) -> Selection {
    let (formats, target) = (&request.formats, request.target);
    selection.unless(|index| formats.refuses_stack(target, view, index))
}

/// Names of all computed values, in the order of the graph.
fn computed(graph: &Graph) -> impl Iterator<Item = &str> {
    let inputs = graph.inputs.iter().map(|input| input.name.as_str());
    inputs.chain(graph.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str))
}

/// What is left of the sites where activations stay float, or the runtime cannot take a weight in the type that is asked for.
fn fitting(mut sites: Sites, graph: &Graph, request: &Request) -> Sites {
    let formats = &request.formats;
    let mut refused = Vec::new();
    sites.weights.retain(|&((index, input), axis)| {
        let node = &graph.nodes[index];
        let shape = &graph.initializers[&node.inputs[input]].shape;
        let reason = formats.refuses(request.target, node, shape, axis);
        reason.map(|reason| refused.push((index, reason))).is_none()
    });
    if !formats.quantizes_activations() {
        let weighted = |index: &usize| sites.weights.iter().any(|(site, _)| site.0 == *index);
        let others = sites.quantized.iter().copied().filter(|index| !weighted(index));
        let reason = || "it has no weight, and activations stay float".to_owned();
        let others: Vec<(usize, String)> = others.map(|index| (index, reason())).collect();
        let known = |index: usize| refused.iter().any(|(node, _)| *node == index);
        let others: Vec<_> = others.into_iter().filter(|(index, _)| !known(*index)).collect();
        refused.extend(others);
        sites.tensors.clear();
    }
    sites.quantized.retain(|index| refused.iter().all(|(node, _)| node != index));
    sites.refused.extend(refused);
    sites
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
