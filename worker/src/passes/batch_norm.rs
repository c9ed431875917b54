//! BatchNormalization folded into the convolution before it (Jacob et al. 2018, section 3.2,
//! <https://arxiv.org/abs/1712.05877>).
//!
//! `y = γ (conv(x) − μ) / √(σ² + ε) + β` is a convolution with the weights `w k` and the bias
//! `(b − μ) k + β`, where `k = γ / √(σ² + ε)` for each output channel; computed in double precision.
//!
//! Weights behind a Q/DQ pair with a scale for each output channel keep their integers: the scale is multiplied by `|k|`, and where `k` is
//! negative the integers change their sign. Int8 has no +128: a weight that was clipped to −128 there becomes +127.

use crate::graph::{DType, Graph, Model, Node, TensorData};
use crate::{Error, Result};

/// Folds each BatchNormalization whose input is made by a Conv, ConvTranspose or Gemm for it alone. The layer's
/// output takes the normalization's name. Returns how many were folded.
///
/// # Errors
/// Constants whose shapes do not fit together.
pub fn fold_batch_norm(model: &mut Model) -> Result<usize> {
    Ok(fold_and_tell(model)?.len())
}

/// What a normalization that was folded had been, and its layer.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The value that the layer makes now, and the normalization made before.
    pub output: String,
    /// The value between the two.
    pub inner: String,
    /// The layer's weight.
    pub weight: TensorData,
    /// The layer's bias.
    pub bias: Option<TensorData>,
    /// By what each output channel was multiplied.
    pub factor: Vec<f64>,
    /// The normalization.
    pub norm: Node,
    /// Its constants: scale, shift, mean and variance.
    pub constants: Vec<TensorData>,
}

impl Folded {
    /// By what the scales of the folded weight are to be multiplied to be those of the weight before. A channel that was multiplied by 0
    /// says nothing of its scale: there it is to hold the weight.
    fn scale_factors(&self, graph: &Graph, quantize: usize, axis: usize) -> Result<Vec<f64>> {
        const LEVELS: f64 = 127.0;
        let scales = graph.initializers[&graph.nodes[quantize].inputs[1]].to_f32()?;
        let inner: usize = self.weight.shape[axis + 1..].iter().map(|&n| n as usize).product();
        let mut amax = vec![0.0_f32; scales.len()];
        for (index, value) in self.weight.to_f32()?.into_iter().enumerate() {
            let channel = &mut amax[index / inner.max(1) % scales.len()];
            *channel = channel.max(value.abs());
        }
        let each = self.factor.iter().zip(scales).zip(amax);
        Ok(each
            .map(|((&factor, scale), amax)| match factor {
                0.0 if amax > 0.0 => f64::from(amax) / LEVELS / f64::from(scale),
                0.0 => 1.0,
                factor => 1.0 / factor,
            })
            .collect())
    }
}

/// The same as [`fold_batch_norm`]; what was folded.
///
/// # Errors
/// Constants whose shapes do not fit together.
pub fn fold_and_tell(model: &mut Model) -> Result<Vec<Folded>> {
    let graph = &mut model.graph;
    let mut folded = Vec::new();
    let mut index = 0;
    while index < graph.nodes.len() {
        let Some(layer) = foldable(graph, index) else {
            index += 1;
            continue;
        };
        let norm = graph.nodes[index].clone();
        folded.push(fold(graph, layer, &norm).map_err(|error| error.at(norm.place()))?);
        graph.nodes.remove(index);
    }
    super::remove_dead(model)?;
    Ok(folded)
}

/// The layer that the normalization at `index` folds into.
fn foldable(graph: &Graph, index: usize) -> Option<usize> {
    let norm = &graph.nodes[index];
    if norm.op_type != "BatchNormalization" || !norm.domain.is_empty() {
        return None;
    }
    if norm.outputs.is_empty() || norm.outputs.iter().skip(1).any(|name| !name.is_empty()) {
        return None;
    }
    let value = norm.input(0)?;
    if graph.is_output(value) {
        return None;
    }
    let readers = graph.nodes.iter().flat_map(|node| &node.inputs).filter(|name| *name == value);
    if readers.count() != 1 {
        return None;
    }
    let layer = graph.nodes[..index]
        .iter()
        .position(|node| node.outputs.first().is_some_and(|o| o == value))?;
    let node = &graph.nodes[layer];
    let known = matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm");
    let constant = |node: &Node, i: usize| {
        node.input(i)
            .and_then(|name| graph.initializers.get(name))
            .is_some_and(|data| data.dtype == DType::F32)
    };
    // Gemm's factors and a grouped ConvTranspose's layout are rare enough to leave such layers as they are.
    let plain = match node.op_type.as_str() {
        "Gemm" => ["alpha", "beta"]
            .iter()
            .all(|name| node.float(name, 1.0).is_ok_and(|value| value == 1.0)),
        "ConvTranspose" => node.int("group", 1).is_ok_and(|group| group == 1),
        _ => true,
    };
    let bias = node.input(2).is_none() || constant(node, 2);
    let weight = constant(node, 1) || quantized_weight(graph, node).is_some();
    let ready = known && plain && weight && bias && (1..5).all(|i| constant(norm, i));
    ready.then_some(layer)
}

/// The Q/DQ pair of a layer's weight: the positions of its nodes. Its weight and its scales, one for each output channel, are constants
/// that nothing else reads.
fn quantized_weight(graph: &Graph, layer: &Node) -> Option<(usize, usize)> {
    let alone = |name: &str, readers: usize| {
        graph.nodes.iter().flat_map(|node| &node.inputs).filter(|input| *input == name).count()
            == readers
    };
    let maker = |name: &str, op: &str| {
        let node = graph.nodes.iter().position(|node| node.outputs.iter().any(|o| o == name))?;
        (graph.nodes[node].op_type == op && alone(name, 1)).then_some(node)
    };
    let dequantize = maker(layer.input(1)?, "DequantizeLinear")?;
    let quantize = maker(graph.nodes[dequantize].input(0)?, "QuantizeLinear")?;
    let weight = graph.nodes[quantize].input(0)?;
    let data = graph.initializers.get(weight).filter(|data| data.dtype == DType::F32)?;
    let scale = graph.nodes[quantize].input(1)?;
    let scales = graph.initializers.get(scale)?;
    let same = graph.nodes[dequantize].input(1) == Some(scale);
    let axis = output_axis(layer).ok()?;
    let rank = data.shape.len() as i64;
    let along = [quantize, dequantize].iter().all(|&node| {
        let own = graph.nodes[node].int("axis", 1).unwrap_or(1);
        (if own < 0 { own + rank } else { own }) == axis as i64
            && graph.nodes[node].int("block_size", 0).is_ok_and(|size| size == 0)
    });
    let each = scales.shape == [*data.shape.get(axis)?] && scales.dtype == DType::F32;
    let zeros = graph.nodes[quantize].input(2).and_then(|name| graph.initializers.get(name));
    let symmetric = zeros.is_none_or(|zeros| zeros.bytes.iter().all(|&byte| byte == 0));
    (same && along && each && symmetric && alone(weight, 1) && alone(scale, 2))
        .then_some((quantize, dequantize))
}

/// Axis of the output channels in the weight of a layer that is foldable.
pub(super) fn output_axis(layer: &Node) -> Result<usize> {
    Ok(match layer.op_type.as_str() {
        "ConvTranspose" => 1,
        "Gemm" => usize::from(layer.int("transB", 0)? == 0),
        _ => 0,
    })
}

fn fold(graph: &mut Graph, layer: usize, norm: &Node) -> Result<Folded> {
    let pair = quantized_weight(graph, &graph.nodes[layer]);
    let read = |name: &str| graph.initializers[name].to_f32();
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| read(&norm.inputs[i]));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    let epsilon = f64::from(norm.float("epsilon", 1e-5)?);
    let node = &graph.nodes[layer];
    let weight_name = match pair {
        Some((quantize, _)) => graph.nodes[quantize].inputs[0].clone(),
        None => node.inputs[1].clone(),
    };
    let weight = &graph.initializers[&weight_name];
    let axis = output_axis(node)?;
    let channels = weight.shape.get(axis).copied().unwrap_or(0) as usize;
    if [gamma.len(), beta.len(), mean.len(), variance.len()] != [channels; 4] {
        return Err(Error::user(format!(
            "scale, shift, mean and variance of {}, {}, {} and {} values behind a layer of {channels} channels",
            gamma.len(),
            beta.len(),
            mean.len(),
            variance.len()
        )));
    }
    let factor: Vec<f64> = gamma
        .iter()
        .zip(&variance)
        .map(|(&gamma, &variance)| f64::from(gamma) / (f64::from(variance) + epsilon).sqrt())
        .collect();
    let folded = Folded {
        output: norm.outputs[0].clone(),
        inner: norm.inputs[0].clone(),
        weight: weight.clone(),
        bias: node.input(2).map(|name| graph.initializers[name].clone()),
        factor: factor.clone(),
        norm: norm.clone(),
        constants: (1..5).map(|i| graph.initializers[&norm.inputs[i]].clone()).collect(),
    };
    let bias = match node.input(2) {
        Some(name) => broadcast(read(name)?, channels)?,
        None => vec![0.0; channels],
    };
    let bias: Vec<f32> = (0..channels)
        .map(|c| {
            ((f64::from(bias[c]) - f64::from(mean[c])) * factor[c] + f64::from(beta[c])) as f32
        })
        .collect();
    let inner: usize = weight.shape[axis + 1..].iter().map(|&extent| extent as usize).product();
    let weights: Vec<f32> = weight
        .to_f32()?
        .into_iter()
        .enumerate()
        .map(|(i, value)| (f64::from(value) * factor[i / inner.max(1) % channels]) as f32)
        .collect();
    let weights = TensorData::f32(&weight.shape.clone(), &weights);
    let weight_name = match pair {
        Some((quantize, _)) => {
            rescale(graph, quantize, &factor)?;
            graph.initializers.insert(weight_name.clone(), weights);
            weight_name
        }
        None => replace(graph, &weight_name, weights),
    };
    let bias = TensorData::f32(&[channels as i64], &bias);
    let old_bias = graph.nodes[layer].input(2).map(str::to_owned);
    let bias_name = old_bias.unwrap_or_else(|| bias_name(&weight_name));
    let bias_name = replace(graph, &bias_name, bias);
    let node = &mut graph.nodes[layer];
    let weight_input = if pair.is_some() { node.inputs[1].clone() } else { weight_name };
    node.inputs.truncate(1);
    node.inputs.extend([weight_input, bias_name]);
    node.outputs[0].clone_from(&norm.outputs[0]);
    Ok(folded)
}

/// Multiplies the scales of a pair by the magnitudes of factors; a factor of 0 makes weights of 0, which any scale holds.
fn rescale(graph: &mut Graph, quantize: usize, factor: &[f64]) -> Result<()> {
    let name = graph.nodes[quantize].inputs[1].clone();
    let scales = graph.initializers[&name].to_f32()?;
    let scaled = scales.iter().zip(factor).map(|(&scale, factor)| {
        let scaled = (f64::from(scale) * factor.abs()) as f32;
        if scaled >= f32::MIN_POSITIVE { scaled } else { scale }
    });
    let scaled: Vec<f32> = scaled.collect();
    let data = TensorData::f32(&graph.initializers[&name].shape.clone(), &scaled);
    graph.initializers.insert(name, data);
    Ok(())
}

/// Puts normalizations that were folded back behind their layers, whose weights may have Q/DQ pairs meanwhile: the scales of those are
/// divided by what the weights were multiplied by, so that the model computes the same.
///
/// # Errors
/// A layer that is not there any more; a pair with one scale for all channels, which has none to divide for each.
pub fn unfold_batch_norm(model: &mut Model, folded: &[Folded]) -> Result<()> {
    let graph = &mut model.graph;
    for own in folded {
        let made = |node: &Node| node.outputs.first().is_some_and(|output| *output == own.output);
        let layer = graph.nodes.iter().position(made);
        let layer = layer.ok_or_else(|| Error::bug(format!("`{}` is not made", own.output)))?;
        let pair = quantized_weight(graph, &graph.nodes[layer]);
        let weight = match pair {
            Some((quantize, _)) => {
                let factor =
                    own.scale_factors(graph, quantize, output_axis(&graph.nodes[layer])?)?;
                rescale(graph, quantize, &factor)?;
                graph.nodes[quantize].inputs[0].clone()
            }
            None => graph.nodes[layer].inputs[1].clone(),
        };
        if !graph.initializers.contains_key(&weight) {
            return Err(Error::user("its weight has one scale for all channels")
                .at(graph.nodes[layer].place())
                .help("normalizations stay only behind weights with a scale for each channel: per_channel = true"));
        }
        graph.initializers.insert(weight, own.weight.clone());
        let bias = graph.nodes[layer].inputs.pop().unwrap_or_default();
        if let Some(data) = &own.bias {
            graph.initializers.insert(bias.clone(), data.clone());
            graph.nodes[layer].inputs.push(bias);
        }
        graph.nodes[layer].outputs[0].clone_from(&own.inner);
        for (name, data) in own.norm.inputs[1..].iter().zip(&own.constants) {
            graph.initializers.insert(name.clone(), data.clone());
        }
        graph.nodes.insert(layer + 1, own.norm.clone());
    }
    super::remove_dead(model)?;
    Ok(())
}

/// `conv1.weight` has `conv1.bias`.
pub(super) fn bias_name(weight: &str) -> String {
    weight
        .strip_suffix("weight")
        .map_or_else(|| format!("{weight}_bias"), |stem| format!("{stem}bias"))
}

fn broadcast(bias: Vec<f32>, channels: usize) -> Result<Vec<f32>> {
    match bias.len() {
        1 => Ok(vec![bias[0]; channels]),
        length if length == channels => Ok(bias),
        length => Err(Error::user(format!("a bias of {length} values for {channels} channels"))),
    }
}

/// Stores a constant under `name`, or under a fresh one where others read what stands there.
pub(super) fn replace(graph: &mut Graph, name: &str, data: TensorData) -> String {
    let readers =
        graph.nodes.iter().flat_map(|node| &node.inputs).filter(|input| *input == name).count();
    let free = !graph.initializers.contains_key(name) && graph.fresh_name(name) != name;
    let name = if readers > 1 || free { graph.fresh_name(name) } else { name.to_owned() };
    graph.initializers.insert(name.clone(), data);
    name
}
