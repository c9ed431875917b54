//! Method `best`: for each tensor the method whose int8 changes what is computed from it least.
//!
//! The error of a method at a tensor `x` is, over the layers `f` (Conv, ConvTranspose, Gemm, MatMul with a constant weight)
//! that read it,
//!
//! `Σ_f Σ ‖f(Q(x), Q(W)) − f(x, W)‖² / Σ ‖f(x, W)‖²`
//!
//! with sums over images inside: the noise to signal ratio of the layer's output when this input alone is quantized (int8,
//! scale `amax / 127`), the layer's weight with a scale for each output channel, and everything before the layer is float. A tensor that no such
//! layer reads is its own output: `‖Q(x) − x‖² / ‖x‖²`. Errors of other layers are left out on purpose: a choice then
//! depends on no other choice, so none of them is a search over combinations.

use std::collections::BTreeMap;

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use tch::{Kind, Tensor};

use super::grid::channel_amax;
use super::placement::{Selection, View, policy};
use super::ranges::Range;
use super::scheme::{INT8, to_int8};
use crate::Result;
use crate::graph::{Graph, Model, TensorData, ValueInfo};
use crate::interp::{Mode, Options, Program};

/// A layer by itself: in float, and with its weight rounded to int8.
struct Layer {
    float: Program,
    rounded: Program,
}

/// Sums over images.
#[derive(Clone, Copy, Default)]
struct Sums {
    noise: f64,
    signal: f64,
}

impl Sums {
    fn ratio(self) -> f64 {
        // Without a signal any noise is infinitely much.
        match (self.noise, self.signal) {
            (0.0, _) => 0.0,
            (noise, signal) => noise / signal,
        }
    }
}

/// The methods' errors at a tensor.
struct Judged {
    layers: Vec<Layer>,
    /// Scale of each method.
    scales: BTreeMap<Method, f64>,
    /// For each scale, by its bits, the sums at each layer.
    sums: BTreeMap<u64, Vec<Sums>>,
}

/// The methods' errors at all tensors.
pub struct Judge {
    tensors: Vec<Judged>,
}

impl Judge {
    /// For the ranges of a prepared model, each with the methods to choose from.
    ///
    /// # Errors
    /// A layer that cannot be executed, a weight that is not float.
    pub fn new(model: &Model, ranges: &[Range]) -> Result<Self> {
        let view = View::of(&model.graph);
        let sites = policy(Target::Tensorrt)?.place(&view, &Selection::all(&model.graph));
        let mut tensors = Vec::with_capacity(ranges.len());
        for range in ranges {
            let reads = |node: usize| model.graph.nodes[node].input(0) == Some(&range.tensor);
            let readers = sites.weights.iter().filter(|((node, _), _)| reads(*node));
            let layers = readers.map(|&((node, _), axis)| layer(model, node, axis as usize));
            let scale = |amax: f32| f64::from(INT8.scale(amax, range.abs_max()));
            tensors.push(Judged {
                layers: layers.collect::<Result<_>>()?,
                scales: range.amax.iter().map(|(&method, &amax)| (method, scale(amax))).collect(),
                sums: BTreeMap::new(),
            });
        }
        Ok(Self { tensors })
    }

    /// Takes the values of the tensor with that index for some images.
    ///
    /// # Errors
    /// What a layer refuses.
    pub fn add(&mut self, tensor: usize, values: &Tensor) -> Result<()> {
        let judged = &mut self.tensors[tensor];
        let run = |program: &mut Program, values: &Tensor| -> Result<Tensor> {
            let mut made =
                program.forward(&[values.shallow_clone()], Mode::Eval, &mut |_, _| Ok(()))?;
            Ok(made.swap_remove(0))
        };
        let mut expected = Vec::new();
        for layer in &mut judged.layers {
            expected.push(run(&mut layer.float, values)?);
        }
        // Methods that agree are run once.
        let scales: BTreeMap<u64, f64> =
            judged.scales.values().map(|&scale| (scale.to_bits(), scale)).collect();
        for (bits, scale) in scales {
            let quantized = values.f_fake_quantize_per_tensor_affine(scale, 0, -128, 127)?;
            let count = judged.layers.len().max(1);
            let sums = judged.sums.entry(bits).or_insert_with(|| vec![Sums::default(); count]);
            if judged.layers.is_empty() {
                add(&mut sums[0], &quantized, values)?;
            }
            for ((layer, expected), sums) in judged.layers.iter_mut().zip(&expected).zip(sums) {
                add(sums, &run(&mut layer.rounded, &quantized)?, expected)?;
            }
        }
        Ok(())
    }

    /// Adds [`Method::Best`], and the error of each method, to the ranges it was made with.
    pub fn finish(self, ranges: &mut [Range]) {
        for (judged, range) in self.tensors.into_iter().zip(ranges) {
            let error = |scale: &f64| {
                let sums = judged.sums.get(&scale.to_bits());
                sums.map_or(0.0, |sums| sums.iter().map(|sums| sums.ratio()).sum::<f64>())
            };
            let errors: BTreeMap<Method, f64> =
                judged.scales.iter().map(|(&method, scale)| (method, error(scale))).collect();
            // The first of equals.
            let least = errors.iter().min_by(|a, b| a.1.total_cmp(b.1));
            if let Some(amax) = least.and_then(|(method, _)| range.amax.get(method)).copied() {
                range.amax.insert(Method::Best, amax);
            }
            // JSON has no infinity; nothing is known of a tensor of zeros.
            range.error = Some(errors.into_iter().filter(|(_, error)| error.is_finite()).collect());
        }
    }
}

fn add(sums: &mut Sums, found: &Tensor, expected: &Tensor) -> Result<()> {
    let square = |tensor: &Tensor| -> Result<f64> {
        Ok(tensor.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?)
    };
    sums.noise += square(&found.f_sub(expected)?)?;
    sums.signal += square(expected)?;
    Ok(())
}

/// Node `index` as a model of its own, whose weight has its output channels along `axis`.
fn layer(model: &Model, index: usize, axis: usize) -> Result<Layer> {
    let node = &model.graph.nodes[index];
    let value = |name: &str| ValueInfo { shape: None, ..ValueInfo::f32(name, Vec::new()) };
    let known = |name: &&String| model.graph.initializers.contains_key(name.as_str());
    let constants = node.inputs.iter().filter(known);
    let graph = Graph {
        nodes: vec![node.clone()],
        inputs: vec![value(&node.inputs[0])],
        outputs: vec![value(&node.outputs[0])],
        initializers: constants
            .map(|name| (name.clone(), model.graph.initializers[name].clone()))
            .collect(),
        ..Graph::default()
    };
    let mut alone = Model::new(graph, model.opset());
    let float = Program::compile(&alone, &Options::default())?;
    if let Some(weight) = alone.graph.initializers.get_mut(&node.inputs[1]) {
        *weight = rounded(weight, axis).map_err(|error| error.at(node.place()))?;
    }
    Ok(Layer { float, rounded: Program::compile(&alone, &Options::default())? })
}

/// A weight rounded to int8 with a scale for each output channel.
fn rounded(weight: &TensorData, axis: usize) -> Result<TensorData> {
    let mut values = weight.to_f32()?;
    let amax = channel_amax(&values, &weight.shape, axis);
    let largest = amax.iter().copied().fold(0.0, f32::max);
    let inner = weight.shape[axis + 1..].iter().product::<i64>().max(1) as usize;
    for (index, row) in values.chunks_mut(inner).enumerate() {
        let scale = INT8.scale(amax[index % amax.len().max(1)], largest);
        row.iter_mut().for_each(|value| *value = f32::from(to_int8(*value, scale)) * scale);
    }
    Ok(TensorData::f32(&weight.shape, &values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    /// `y = x · (1, ½)`, whose weight int8 holds exactly; nothing reads `y`.
    fn model() -> Model {
        let graph = Graph {
            nodes: vec![Node::new("fc", "MatMul", &["x", "w"], &["y"])],
            inputs: vec![ValueInfo { shape: None, ..ValueInfo::f32("x", Vec::new()) }],
            outputs: vec![ValueInfo { shape: None, ..ValueInfo::f32("y", Vec::new()) }],
            initializers: [("w".to_owned(), TensorData::f32(&[2, 1], &[127.0, 0.0]))]
                .into_iter()
                .collect(),
            ..Graph::default()
        };
        Model::new(graph, 17)
    }

    fn judged(tensor: &str, values: &[f32]) -> Range {
        let range = Range {
            tensor: tensor.to_owned(),
            amax: BTreeMap::from([(Method::Max, 127.0), (Method::Mse, 12.7)]),
            ..Range::default()
        };
        let mut ranges = [range];
        let mut judge = Judge::new(&model(), &ranges).unwrap();
        let values = Tensor::from_slice(values).view([-1, 2]);
        // In two batches.
        for row in values.split(1, 0) {
            judge.add(0, &row).unwrap();
        }
        judge.finish(&mut ranges);
        let [range] = ranges;
        range
    }

    #[test]
    fn the_layers_output_decides_and_not_the_tensor() {
        // The second column is large, but no output depends on it: steps of 0.1 serve the first best.
        let values = [0.26, 127.0, 0.74, 127.0];
        let range = judged("x", &values);
        assert_eq!(range.amax[&Method::Best], 12.7);
        let error = range.error.unwrap();
        // 0.26 becomes 0 and 0.74 becomes 1 at steps of 1; 0.3 and 0.7 at steps of 0.1.
        let signal = 0.26 * 0.26 + 0.74 * 0.74;
        assert!((error[&Method::Max] - 2.0 * 0.26 * 0.26 / signal).abs() < 1e-5, "{error:?}");
        assert!((error[&Method::Mse] - 2.0 * 0.04 * 0.04 / signal).abs() < 1e-5, "{error:?}");

        // Read by no layer, the same values are their own output, and clipping them costs most.
        let range = judged("y", &values);
        assert_eq!(range.amax[&Method::Best], 127.0);
        assert!(range.error.unwrap()[&Method::Mse] > 0.5);
    }

    #[test]
    fn of_equal_errors_the_first_method_wins_and_zeros_have_no_error() {
        let range = judged("x", &[0.0, 0.0]);
        assert_eq!(range.amax[&Method::Best], 127.0);
        assert_eq!(range.error.unwrap(), BTreeMap::from([(Method::Max, 0.0), (Method::Mse, 0.0)]));
    }

    #[test]
    fn weights_are_rounded_by_channel() {
        let weight = TensorData::f32(&[2, 2], &[127.0, 0.4, 1.27, 0.004]);
        let found = rounded(&weight, 0).unwrap().to_f32().unwrap();
        assert_eq!(found[..2], [127.0, 0.0]);
        assert!((found[2] - 1.27).abs() < 1e-6 && found[3] == 0.0);
        let found = rounded(&weight, 1).unwrap().to_f32().unwrap();
        assert!((found[1] - 0.4).abs() < 1e-6 && (found[2] - 1.0).abs() < 1e-6, "{found:?}");
    }
}
