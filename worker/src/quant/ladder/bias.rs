//! Empirical bias correction (Nagel et al. 2019, section 4.2 and appendix D, <https://arxiv.org/abs/1906.04721>).
//!
//! Rounding shifts the mean of what a layer makes, channel by channel; the shift over calibration images is taken from the bias.

use tch::{Device, Kind, Tensor};

use super::layer::{Layer, own_bias};
use super::walk::Walk;
use crate::Result;
use crate::graph::TensorData;

/// How far the means of channels were from the float layer's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shift {
    /// Largest over channels, by the standard deviation of what the float layer makes: no unit.
    pub largest: f64,
    /// Whether the bias was corrected: a MatMul may have none.
    pub corrected: bool,
}

/// Compares the outputs of a layer that has just run in both walks, and corrects the quantized one's bias and outputs.
pub(super) fn correct(float: &Walk, quantized: &mut Walk, layer: &Layer) -> Result<Shift> {
    let _no_grad = tch::no_grad_guard();
    let output = quantized.graph().nodes[layer.node].outputs[0].clone();
    let (expected, square) = moments(&float.values(&output)?, layer.output_axis)?;
    let (found, _) = moments(&quantized.values(&output)?, layer.output_axis)?;
    let difference = expected.f_sub(&found)?;
    let mean = expected.f_mean(Kind::Double)?.f_double_value(&[])?;
    let deviation = (square - mean * mean).max(0.0).sqrt();
    let largest = difference.f_abs()?.f_max()?.f_double_value(&[])?;
    let largest = if deviation > 0.0 { largest / deviation } else { 0.0 };
    let Some(bias) = own_bias(quantized.graph_mut(), layer)? else {
        return Ok(Shift { largest, corrected: false });
    };
    let difference: Vec<f64> = Vec::try_from(difference.f_to_device(Device::Cpu)?.f_contiguous()?)?;
    let data = &quantized.graph().initializers[&bias.name];
    let values = data.to_f32()?;
    let corrected: Vec<f32> = values
        .iter()
        .zip(&difference)
        .map(|(&value, &shift)| (f64::from(value) + shift) as f32)
        .collect();
    let by: Vec<f32> =
        corrected.iter().zip(&values).map(|(after, before)| after - before).collect();
    let data = TensorData::f32(&data.shape.clone(), &corrected);
    quantized.graph_mut().initializers.insert(bias.name, data);
    if bias.behind {
        // It is added by a node that has not run yet.
        return Ok(Shift { largest, corrected: true });
    }
    let mut shape = vec![1_i64; quantized.values(&output)?.first().map_or(0, Tensor::dim)];
    let axis = if layer.output_axis < 0 {
        shape.len().saturating_sub(1)
    } else {
        layer.output_axis as usize
    };
    if let Some(extent) = shape.get_mut(axis) {
        *extent = -1;
    }
    quantized.shift(&output, &Tensor::f_from_slice(&by)?.f_reshape(&shape)?)?;
    Ok(Shift { largest, corrected: true })
}

/// The mean of each channel over all batches and places, `[C]` in double precision, and the mean of all squares.
fn moments(batches: &[Tensor], axis: i64) -> Result<(Tensor, f64)> {
    let (mut sum, mut square, mut count) = (None::<Tensor>, 0.0, 0);
    for batch in batches {
        let channels = batch.f_movedim_int(axis, 0)?.f_flatten(1, -1)?.f_to_kind(Kind::Double)?;
        square += channels.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        let each = channels.f_sum_dim_intlist(1, false, Kind::Double)?;
        count += channels.size()[1];
        sum = Some(match sum {
            Some(sum) => sum.f_add(&each)?,
            None => each,
        });
    }
    let sum = sum.ok_or_else(|| crate::Error::bug("no batch"))?;
    let all = (count * sum.size()[0]).max(1) as f64;
    Ok((sum.f_div_scalar(count.max(1) as f64)?, square / all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Model, Node, ValueInfo};
    use crate::quant::ladder::layer::{layers, without_pairs};

    /// A Linear of three dimensions as PyTorch exports it, its weight rounded coarsely; the bias is that of another one too where `shared`.
    fn linear(shared: bool) -> Model {
        let mut nodes = vec![
            Node::new("q", "QuantizeLinear", &["w", "s", "z"], &["wq"]),
            Node::new("d", "DequantizeLinear", &["wq", "s", "z"], &["wd"]),
            Node::new("fc", "MatMul", &["x", "wd"], &["p"]),
            Node::new("add", "Add", &["b", "p"], &["y"]),
        ];
        if shared {
            nodes.push(Node::new("more", "Add", &["y", "b"], &["y2"]));
        }
        let output = if shared { "y2" } else { "y" };
        let constants = [
            ("w", TensorData::f32(&[2, 3], &[0.3, 0.9, -0.7, 0.2, -0.4, 0.6])),
            ("s", TensorData::f32(&[], &[0.5])),
            ("z", TensorData::i8(&[], &[0])),
            ("b", TensorData::f32(&[3], &[1.0, -1.0, 0.5])),
        ];
        let graph = Graph {
            nodes,
            inputs: vec![ValueInfo::f32("x", Vec::new())],
            outputs: vec![ValueInfo::f32(output, Vec::new())],
            initializers: constants
                .map(|(name, data)| (name.to_owned(), data))
                .into_iter()
                .collect(),
            ..Graph::default()
        };
        Model::new(graph, 17)
    }

    /// The constant behind a matrix product is its bias: that of a Linear of three dimensions was left as it was.
    #[test]
    fn a_bias_that_is_added_behind_a_product_is_corrected() {
        for shared in [false, true] {
            let model = linear(shared);
            let output = model.graph.outputs[0].name.clone();
            let batches = [Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 6, 2])];
            let mut float = Walk::new(without_pairs(&model), &batches).unwrap();
            let mut quantized = Walk::new(model, &batches).unwrap();
            let [layer] = &layers(quantized.graph()).unwrap()[..] else { panic!("one layer") };
            float.advance(layer.node + 1).unwrap();
            quantized.advance(layer.node + 1).unwrap();
            let shift = correct(&float, &mut quantized, layer).unwrap();
            assert!(shift.corrected && shift.largest > 0.1, "{shift:?}");
            let end = quantized.graph().nodes.len();
            float.advance(end).unwrap();
            quantized.advance(end).unwrap();
            let mean = |walk: &Walk| moments(&walk.values(&output).unwrap(), -1).unwrap().0;
            let off = (mean(&float) - mean(&quantized)).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{off}");
            // What another node adds is not touched.
            let kept = &quantized.graph().initializers["b"];
            assert_eq!(kept.to_f32().unwrap() == [1.0, -1.0, 0.5], shared);
        }
    }

    #[test]
    fn what_is_added_elsewhere_is_no_bias() {
        let bias = |change: &dyn Fn(&mut Graph)| {
            let mut graph = linear(false).graph;
            change(&mut graph);
            let [layer] = &layers(&graph).unwrap()[..] else { panic!("one layer") };
            own_bias(&mut graph, layer).unwrap().map(|bias| bias.name)
        };
        assert_eq!(bias(&|_| ()).as_deref(), Some("b"));
        assert_eq!(bias(&|graph| graph.outputs.push(ValueInfo::f32("p", Vec::new()))), None);
        let twice = Node::new("other", "Relu", &["p"], &["r"]);
        assert_eq!(bias(&|graph| graph.nodes.push(twice.clone())), None);
        let places = TensorData::f32(&[3, 1], &[1.0, 2.0, 3.0]);
        assert_eq!(
            bias(&|graph| drop(graph.initializers.insert("b".to_owned(), places.clone()))),
            None
        );
    }
}
