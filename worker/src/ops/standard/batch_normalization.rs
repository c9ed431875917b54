//! `BatchNormalization`: per channel, (x − mean) / √(variance + `epsilon`) scale + bias (Ioffe and Szegedy 2015,
//! <https://arxiv.org/abs/1502.03167>). <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>
//!
//! Opsets: 1 and 6 (`is_test`, `spatial`), 7 (training where outputs besides the first are there), 9 (without `spatial`), 14
//! (`training_mode`), 15 (types). Refused: `spatial` = 0.
//!
//! Where the node says that it trains, it takes the batch's statistics and gives new running ones (of the biased
//! variance), as the standard says. Else the caller says: while training the batch's are taken, and the running
//! ones updated in place as PyTorch does (unbiased variance); ONNX's `momentum` is one less PyTorch's.

use tch::Tensor;

use crate::Result;
use crate::graph::Node;
use crate::ops::kernel::{Arguments, Kernel, Op, Prepare, single};
use crate::shapes::rules;

const NAME: &str = "BatchNormalization";

pub const OP: Op = Op::new(NAME, &[1, 6, 7, 9, 14, 15], prepare)
    .limits("`spatial` = 0")
    .shapes(rules::same_as_first);

const RUNNING_MEAN: usize = 3;
const RUNNING_VAR: usize = 4;

/// Indices of the inputs that a node changes in training: running mean and variance.
pub fn running_statistics(node: &Node) -> &'static [usize] {
    if node.op_type == NAME { &[RUNNING_MEAN, RUNNING_VAR] } else { &[] }
}

/// `[N, C, …]` and scale, bias, mean, variance of `[C]` to `[N, C, …]`.
fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let node = prepare.node;
    if prepare.opset < 9 {
        prepare.require_int("spatial", 1)?;
    }
    let epsilon = f64::from(node.float("epsilon", 1e-5)?);
    let momentum = f64::from(node.float("momentum", 0.9)?);
    let trains = match prepare.opset {
        14.. => node.int("training_mode", 0)? != 0,
        7.. => node.outputs.iter().skip(1).any(|name| !name.is_empty()),
        _ => node.int("is_test", 0)? == 0,
    };
    if trains {
        return Ok(Box::new(move |arguments| by_the_batch(arguments, momentum, epsilon)));
    }
    single(move |arguments| {
        let inputs = [1, 2, RUNNING_MEAN, RUNNING_VAR].map(|index| arguments.get(index));
        let [scale, bias, mean, variance] = inputs;
        let x = arguments.get(0)?;
        // One value has no variance: libtorch would divide by zero, and the running one stay NaN (PyTorch refuses it before). So does the last batch of
        // a data set, of one image, where its features are of one pixel: it is normalized by the running statistics, and leaves them.
        let has_variance = x.size().get(1).is_some_and(|&channels| x.numel() as i64 > channels);
        Ok(x.f_batch_norm(
            Some(scale?),
            Some(bias?),
            Some(mean?),
            Some(variance?),
            arguments.training && has_variance,
            1.0 - momentum,
            epsilon,
            true,
        )?)
    })
}

/// `[N, C, …]` normalized by its own statistics, the new running mean and variance, and before opset 14 those of the
/// batch, which nobody asks for after it.
fn by_the_batch(arguments: &Arguments, momentum: f64, epsilon: f64) -> Result<Vec<Tensor>> {
    let (x, scale, bias) = (arguments.get(0)?, arguments.get(1)?, arguments.get(2)?);
    let y = x.f_batch_norm(Some(scale), Some(bias), None, None, true, 0.0, epsilon, true)?;
    let axes: Vec<i64> = (0..x.dim() as i64).filter(|&axis| axis != 1).collect();
    let (variance, mean) = x.f_var_mean_correction(&axes[..], 0, false)?;
    let running = |index: usize, batch: &Tensor| {
        let old = arguments.get(index)?;
        let new = batch.f_to_kind(old.kind())?.f_mul_scalar(1.0 - momentum)?;
        Ok::<_, crate::Error>(old.f_mul_scalar(momentum)?.f_add(&new)?)
    };
    let outputs = (running(RUNNING_MEAN, &mean)?, running(RUNNING_VAR, &variance)?);
    Ok(vec![y, outputs.0, outputs.1, mean, variance])
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::graph::{Dim, Graph, Model, Node, TensorData, ValueInfo};
    use crate::interp::{Mode, Options, Program};

    /// A last batch of one image, features of one pixel: libtorch would leave NaN for all that follow.
    #[test]
    fn one_value_of_a_channel_leaves_the_running_statistics() {
        let mut graph = Graph {
            nodes: vec![Node::new("n", "BatchNormalization", &["x", "s", "b", "m", "v"], &["y"])],
            ..Graph::default()
        };
        for (name, values) in
            [("s", [1.0, 2.0]), ("b", [0.0, 1.0]), ("m", [1.0, 2.0]), ("v", [4.0, 1.0])]
        {
            graph.initializers.insert(name.to_owned(), TensorData::f32(&[2], &values));
        }
        let shape = || vec![Dim::Unknown, Dim::Fixed(2), Dim::Fixed(1), Dim::Fixed(1)];
        graph.inputs.push(ValueInfo::f32("x", shape()));
        graph.outputs.push(ValueInfo::f32("y", shape()));
        let mut program = Program::compile(&Model::new(graph, 17), &Options::default()).unwrap();
        let mut run = |images: i64, mode| {
            let x = Tensor::arange(2 * images, (Kind::Float, Device::Cpu));
            let x = x.view([images, 2, 1, 1]);
            let y = program.forward(&[x], mode, &mut |_, _| Ok(())).unwrap().remove(0);
            Vec::<f64>::try_from(y.view([-1])).unwrap()
        };
        // (0 − 1) / 2, 2 (1 − 2) / 1 + 1: by the statistics as they are, before and after.
        let near = |made: Vec<f64>| {
            assert!((made[0] + 0.5).abs() < 1e-4 && (made[1] + 1.0).abs() < 1e-4, "{made:?}");
        };
        near(run(1, Mode::Train));
        near(run(1, Mode::Eval));
        // Three images move them.
        run(3, Mode::Train);
        let moved = run(1, Mode::Eval);
        assert!(moved.iter().all(|value| value.is_finite()) && (moved[0] + 0.5).abs() > 1e-3);
    }
}
