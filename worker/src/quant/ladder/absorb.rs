//! High biases of a layer absorbed by the next one (Nagel et al. 2019, section 4.1.3, <https://arxiv.org/abs/1906.04721>).
//!
//! Equalization may make biases large, and with them the range of activations. Where `x ≥ c`, `relu(x − c) = relu(x) − c`: `c` is taken from the first
//! layer's bias, and `W c` is added to that of the second. With a value of mean `β` and deviation `γ`, `c = max(0, β − 3 γ)` is below nearly
//! all of it. The model computes the same, but for values below `c`.

use std::collections::HashMap;

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::equalize::{Link, readers};
use super::layer_values::LayerValues;
use super::weighted::Layout;
use crate::Result;
use crate::data::{Dataset, Loader, Order, permutation};
use crate::graph::{Graph, Model, Node};
use crate::interp::{Mode, Options, Program};
use crate::passes::Folded;

/// How a channel is distributed before the activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Its mean.
    pub mean: f64,
    /// Its standard deviation.
    pub deviation: f64,
}

/// What became of the bias between two layers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Absorbed {
    /// The layer whose bias got smaller.
    pub first: String,
    /// The layer that absorbed it.
    pub second: String,
    /// Channels that something was taken from.
    pub channels: usize,
    /// The most that was.
    pub most: f64,
    /// Why the pair was left as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<&'static str>,
}

/// Deviations below the mean at which nearly nothing is.
const DEVIATIONS: f64 = 3.0;

/// Those of the values that layers make, from the normalizations that were folded into them: shift and scale.
///
/// # Errors
/// Constants of another type than float32.
pub fn moments_of_norms(folded: &[Folded]) -> Result<HashMap<String, Vec<Moments>>> {
    let each = folded.iter().map(|folded| {
        let [scale, shift] = [0, 1].map(|index| folded.constants[index].to_f32());
        let each = scale?.into_iter().zip(shift?).map(|(scale, shift)| Moments {
            mean: f64::from(shift),
            deviation: f64::from(scale.abs()),
        });
        Ok((folded.output.clone(), each.collect()))
    });
    each.collect()
}

/// Those of the values that all layers of a prepared model make of calibration images, `batch_size` at once.
///
/// # Errors
/// What data and model refuse.
pub fn measured_moments(
    model: &Model,
    dataset: &Dataset,
    (samples, batch_size, seed, threads): (usize, usize, u64, usize),
    progress: &dyn Fn(u64, u64),
) -> Result<HashMap<String, Vec<Moments>>> {
    let _no_grad = tch::no_grad_guard();
    let mut axes = HashMap::new();
    for node in &model.graph.nodes {
        if let Some(layout) = Layout::of(&model.graph, node)? {
            axes.insert(node.outputs[0].clone(), if layout.is_convolution() { 1 } else { -1 });
        }
    }
    let mut watch: Vec<String> = axes.keys().cloned().collect();
    watch.sort_unstable();
    let mut program =
        Program::compile(model, &Options { watch: watch.clone(), ..Options::default() })?;
    // Of each value: how often each channel was seen, sums and sums of squares.
    let mut sums: Vec<(f64, Option<(Tensor, Tensor)>)> =
        watch.iter().map(|_| (0.0, None)).collect();
    let mut chosen = permutation(dataset.len(), seed, 0);
    chosen.truncate(samples);
    let (total, mut done) = (chosen.len() as u64, 0);
    for images in Loader::new(dataset, batch_size, Order::Subset(chosen), false, threads) {
        let images = images?.images;
        done += images.size()[0] as u64;
        program.forward(&[images], Mode::Eval, &mut |index, value| {
            let rows = value.f_to_kind(Kind::Double)?.f_movedim_int(axes[&watch[index]], 0)?;
            let rows = rows.f_reshape([rows.size()[0], -1])?;
            let sum =
                |rows: &Tensor| rows.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
            let (once, twice) = (sum(&rows)?, sum(&rows.f_square()?)?);
            let (count, known) = &mut sums[index];
            *count += rows.size()[1] as f64;
            *known = Some(match known.take() {
                Some((a, b)) => (a.f_add(&once)?, b.f_add(&twice)?),
                None => (once, twice),
            });
            Ok(())
        })?;
        progress(done, total);
    }
    let mut found = HashMap::new();
    for (name, (count, sums)) in watch.into_iter().zip(sums) {
        let Some((once, twice)) = sums else { continue };
        let list = |sums: Tensor| {
            Ok::<Vec<f64>, crate::Error>(Vec::try_from(sums.f_to_device(Device::Cpu)?)?)
        };
        let each = list(once)?.into_iter().zip(list(twice)?).map(|(once, twice)| {
            let mean = once / count;
            Moments { mean, deviation: (twice / count - mean * mean).max(0.0).sqrt() }
        });
        found.insert(name, each.collect());
    }
    Ok(found)
}

/// Absorbs what is high in the bias of a pair's first layer, after both were equalized. `moments` are those of the model before.
///
/// # Errors
/// An attribute of another type than the standard's.
pub(super) fn absorb(
    graph: &Graph,
    link: &Link,
    layers: &mut HashMap<usize, LayerValues>,
    moments: &HashMap<String, Vec<Moments>>,
) -> Result<Absorbed> {
    let (first, second) = (&graph.nodes[link.first], &graph.nodes[link.second]);
    let (labels, output) = ([first.label(), second.label()], &first.outputs[0]);
    let mut found = Absorbed {
        first: labels[0].to_owned(),
        second: labels[1].to_owned(),
        channels: 0,
        most: 0.0,
        left: in_the_way(graph, link, layers)?,
    };
    let known = moments.get(output).filter(|known| known.len() == link.factors.len());
    if found.left.is_none() && known.is_none() {
        found.left = Some("no statistics are known of it: give `data`");
    }
    let (None, Some(known)) = (found.left, known) else { return Ok(found) };
    let high: Vec<f64> = known
        .iter()
        .zip(&link.factors)
        .map(|(own, factor)| {
            let high = (own.mean - DEVIATIONS * own.deviation) / factor;
            if high.is_finite() { high.max(0.0) } else { 0.0 }
        })
        .collect();
    if let Some(bias) = layers.get_mut(&link.first).and_then(|first| first.bias.as_mut()) {
        bias.iter_mut().zip(&high).for_each(|(bias, high)| *bias -= high);
    }
    if let Some(second) = layers.get_mut(&link.second) {
        let mut bias = second.bias.take().unwrap_or_else(|| vec![0.0; second.layout.outputs]);
        for (element, weight) in second.weight.iter().enumerate() {
            let (output, input) = second.layout.channels(element);
            bias[output] += weight * high[input / link.repeat];
        }
        second.bias = Some(bias);
    }
    found.channels = high.iter().filter(|high| **high > 0.0).count();
    found.most = high.iter().copied().fold(0.0, f64::max);
    Ok(found)
}

/// Why nothing can be absorbed between two layers.
fn in_the_way(
    graph: &Graph,
    link: &Link,
    layers: &HashMap<usize, LayerValues>,
) -> Result<Option<&'static str>> {
    let (first, second) = (&graph.nodes[link.first], &graph.nodes[link.second]);
    let mut relus = 0;
    for node in link.between.iter().map(|&index| &graph.nodes[index]) {
        match node.op_type.as_str() {
            "Relu" => relus += 1,
            // Each element is one of those before, or a mean of them.
            "Identity" | "MaxPool" | "GlobalMaxPool" | "GlobalAveragePool" | "Flatten" => {}
            _ => return Ok(Some("something else than a Relu stands between")),
        }
    }
    if relus != 1 {
        return Ok(Some("no Relu stands between"));
    }
    if !plain(first)? || !plain(second)? {
        return Ok(Some("a factor of a Gemm stands before the bias"));
    }
    if layers[&link.first].bias.is_none() {
        return Ok(Some("the first layer has no constant bias"));
    }
    let own = second.input(2).is_none_or(|name| readers(graph, name).len() == 1);
    if second.op_type == "MatMul"
        || !own
        || (second.input(2).is_some() && layers[&link.second].bias.is_none())
    {
        return Ok(Some("the second layer has no constant bias of its own"));
    }
    let padded = second.ints("pads")?.is_some_and(|pads| pads.iter().any(|&pad| pad != 0))
        || !["NOTSET", "VALID"].contains(&second.text("auto_pad", "NOTSET")?);
    if padded || second.op_type == "ConvTranspose" {
        return Ok(Some("the second layer is padded with zeros, where nothing would be taken off"));
    }
    Ok(None)
}

/// Whether the bias is added as it is.
fn plain(node: &Node) -> Result<bool> {
    let one =
        |name: &str| Ok::<_, crate::Error>((node.float(name, 1.0)? - 1.0).abs() < f32::EPSILON);
    Ok(node.op_type != "Gemm" || (one("alpha")? && one("beta")?))
}
