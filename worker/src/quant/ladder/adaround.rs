//! AdaRound: learned rounding of a weight (Nagel et al. 2020, <https://arxiv.org/abs/2004.10568>).
//!
//! Each weight goes to one of its two neighbours on the grid. Which one is learned: `w = s clamp(⌊w/s⌋ + h(v))` with the rectified sigmoid
//! `h(v) = clamp(1.2 σ(v) − 0.1, 0, 1)`, so that what the layer makes of inputs of the quantized model before it is near to what the float
//! layer makes of float inputs, the activation included. A penalty `λ Σ (1 − |2 h − 1|^β)` drives `h` to 0 or 1, with β from flat to steep.
//!
//! What is learned at once may be a layer, or all layers of a residual block (BRECQ, Li et al. 2021, <https://arxiv.org/abs/2102.05426>): then
//! roundings of one layer make up for those of another, and the gradient goes through the quantized activations between them.

use tch::{Device, Kind, Tensor};

use super::dropping::Dropping;
use super::layer::Layer;
use crate::data::permutation;
use crate::graph::{Graph, TensorData};
use crate::{Result, torch};

/// How to learn.
#[derive(Clone, Copy, Debug)]
pub struct Adaround {
    /// What is learned at once.
    pub unit: Unit,
    /// Probability with which an activation stays float in a step, element by element, 0…1.
    pub drop: f64,
    /// Steps a layer, or a block.
    pub iterations: u64,
    /// Learning rate (Adam).
    pub lr: f64,
    /// Rows of the calibration data a step.
    pub batch_size: usize,
    /// λ.
    pub regularization: f64,
    /// β at the end of the warm-up and at the end.
    pub beta: [f64; 2],
    /// Share of the steps without penalty, 0…1.
    pub warm_up: f64,
}

/// What is learned at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// One layer, against what it makes in the float model.
    Layer,
    /// All layers of a residual block, against what the block makes; layers outside of blocks alone.
    Block,
}

/// What is learned at once, as a function of its input and of the weights of its layers.
pub(super) trait Forward {
    /// Runs it. With `dropping`, quantizations inside are left out where that says so.
    ///
    /// # Errors
    /// What a node refuses.
    fn run(
        &mut self,
        input: &Tensor,
        weights: &[Tensor],
        dropping: Option<&mut Dropping>,
    ) -> Result<Tensor>;
}

/// What is learned from: rows of all calibration images.
pub(super) struct Examples {
    /// What the quantized model before makes.
    pub input: Tensor,
    /// What the float model makes at the same place; needed where quantization is dropped.
    pub float: Option<Tensor>,
    /// What the float model makes behind.
    pub output: Tensor,
}

impl Examples {
    /// All batches in one tensor, where the process computes.
    ///
    /// # Errors
    /// Batches of different shapes.
    pub fn whole(batches: &[Tensor]) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        Ok(Tensor::f_cat(batches, 0)?.f_to_device(torch::device())?)
    }
}

/// The grid of a weight: its scale, made to broadcast, and where it lies.
struct Grid {
    scale: Tensor,
    /// The lower neighbour of each weight.
    floor: Tensor,
    /// How far each is above it, 0…1.
    above: Tensor,
    /// Least and greatest integer.
    range: (f64, f64),
}

/// Stretch of the sigmoid beyond 0…1.
const STRETCH: (f64, f64) = (-0.1, 1.1);
/// Adam's decay of moments, and its ε.
const ADAM: (f64, f64, f64) = (0.9, 0.999, 1e-8);

impl Grid {
    fn of(graph: &Graph, layer: &Layer) -> Result<Self> {
        let read = |name: &str| torch::to_tensor(&graph.initializers[name], torch::device());
        let (weight, scale) = (read(&layer.weight)?, read(&layer.scale)?);
        let scale = layer.grouping.spread(&scale, &weight)?;
        let steps = weight.f_div(&scale)?;
        let floor = steps.f_floor()?;
        let above = steps.f_sub(&floor)?;
        Ok(Self { scale, floor, above, range: layer.range })
    }

    /// The weights when each goes up by `up`, 0…1.
    fn weight(&self, up: &Tensor) -> Result<Tensor> {
        Ok(self.floor.f_add(up)?.f_clamp(self.range.0, self.range.1)?.f_mul(&self.scale)?)
    }

    fn nearest(&self) -> Result<Tensor> {
        // As a quantization rounds: ties to the even.
        let steps = self.floor.f_add(&self.above)?.f_round()?;
        self.weight(&steps.f_sub(&self.floor)?)
    }
}

/// What learning gave.
pub(super) struct Learned {
    /// The weights, on the grid: quantization gives exactly these integers.
    pub weights: Vec<TensorData>,
    /// Mean squared error of the output with the nearest integers, and with these.
    pub error: (f64, f64),
}

/// A weight whose rounding is learned.
struct Rounding {
    grid: Grid,
    /// `v`.
    soft: Tensor,
    adam: Adam,
}

impl Rounding {
    fn of(graph: &Graph, layer: &Layer) -> Result<Self> {
        let grid = Grid::of(graph, layer)?;
        let (low, high) = STRETCH;
        // The inverse of `h`: learning starts where the float weights are.
        let start = grid.above.f_sub_scalar(low)?.f_reciprocal()?.f_mul_scalar(high - low)?;
        let soft = start.f_sub_scalar(1.0)?.f_log()?.f_neg()?.f_set_requires_grad(true)?;
        let adam = Adam::new(&soft)?;
        Ok(Self { grid, soft, adam })
    }

    fn learned(&self) -> Result<Tensor> {
        self.grid.weight(&rectified(&self.soft)?.f_ge(0.5)?.f_to_kind(Kind::Float)?)
    }
}

/// Learns the rounding of the weights of `layers`, which `forward` is given in this order, batch by batch. The same seed gives the same weights.
/// `step` is told after each step.
///
/// # Errors
/// What the layers refuse; values that are not finite.
pub(super) fn learn(
    graph: &Graph,
    layers: &[&Layer],
    forward: &mut dyn Forward,
    examples: &Examples,
    options: &Adaround,
    seed: u64,
    step: &mut dyn FnMut(),
) -> Result<Learned> {
    let mut roundings: Vec<Rounding> =
        layers.iter().map(|layer| Rounding::of(graph, layer)).collect::<Result<_>>()?;
    let Examples { input, float, output } = examples;
    let rows = input.size().first().copied().unwrap_or(0) as usize;
    let channels = layers.last().map_or(1.0, |layer| layer.channels as f64);
    let mut dropping = Dropping::new(options.drop, seed);
    let mut order = Order { rows, seed, epoch: 0, left: Vec::new() };
    for iteration in 0..options.iterations {
        let chosen = Tensor::f_from_slice(&order.next(options.batch_size))?;
        let chosen = chosen.f_to_device(torch::device())?;
        let (mut x, y) = (input.f_index_select(0, &chosen)?, output.f_index_select(0, &chosen)?);
        if let Some(float) = float.as_ref().filter(|_| dropping.is_on()) {
            x = dropping.mix(&float.f_index_select(0, &chosen)?, &x)?;
        }
        let ups: Vec<Tensor> =
            roundings.iter().map(|own| rectified(&own.soft)).collect::<Result<_>>()?;
        let weights = roundings.iter().zip(&ups).map(|(own, up)| own.grid.weight(up));
        let weights: Vec<Tensor> = weights.collect::<Result<_>>()?;
        let inside = Some(&mut dropping).filter(|dropping| dropping.is_on());
        let made = forward.run(&x, &weights, inside)?;
        // A sum over channels, a mean over the rest, as λ is meant.
        let mut loss = made.f_sub(&y)?.f_square()?.f_mean(Kind::Float)?.f_mul_scalar(channels)?;
        if let Some(beta) = beta(options, iteration) {
            for up in &ups {
                let sure =
                    up.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?.f_abs()?.f_pow_tensor_scalar(beta)?;
                let penalty = sure.f_neg()?.f_add_scalar(1.0)?.f_sum(Kind::Float)?;
                loss = loss.f_add(&penalty.f_mul_scalar(options.regularization)?)?;
            }
        }
        let softs: Vec<&Tensor> = roundings.iter().map(|own| &own.soft).collect();
        let gradients = Tensor::f_run_backward(&[&loss], &softs, false, false)?;
        for (own, gradient) in roundings.iter_mut().zip(&gradients) {
            own.adam.step(&mut own.soft, gradient, options.lr)?;
        }
        step();
    }
    let _no_grad = tch::no_grad_guard();
    let nearest = roundings.iter().map(|own| own.grid.nearest()).collect::<Result<Vec<_>>>()?;
    let learned = roundings.iter().map(Rounding::learned).collect::<Result<Vec<_>>>()?;
    let before = error(forward, &nearest, input, output, options.batch_size)?;
    let after = error(forward, &learned, input, output, options.batch_size)?;
    // Not better: as it was. A NaN is not better.
    let (weights, after) = if after < before { (learned, after) } else { (nearest, before) };
    let weights = weights.into_iter().zip(layers).map(|(weight, layer)| {
        let values: Vec<f32> =
            Vec::try_from(weight.f_to_device(Device::Cpu)?.f_contiguous()?.f_view([-1])?)?;
        Ok(TensorData::f32(&graph.initializers[&layer.weight].shape, &values))
    });
    Ok(Learned { weights: weights.collect::<Result<_>>()?, error: (before, after) })
}

/// `h(v)`.
fn rectified(soft: &Tensor) -> Result<Tensor> {
    let (low, high) = STRETCH;
    Ok(soft.f_sigmoid()?.f_mul_scalar(high - low)?.f_add_scalar(low)?.f_clamp(0.0, 1.0)?)
}

/// β of a step; `None`: still without penalty.
fn beta(options: &Adaround, iteration: u64) -> Option<f64> {
    let share = iteration as f64 / options.iterations.max(1) as f64;
    let [first, last] = options.beta;
    let done = (share - options.warm_up) / (1.0 - options.warm_up).max(f64::EPSILON);
    (share >= options.warm_up)
        .then(|| last + 0.5 * (first - last) * (1.0 + (done * std::f64::consts::PI).cos()))
}

/// Mean squared error of what is made with weights, all activations quantized.
fn error(
    forward: &mut dyn Forward,
    weights: &[Tensor],
    input: &Tensor,
    output: &Tensor,
    batch: usize,
) -> Result<f64> {
    let (mut sum, mut start) = (0.0, 0);
    let rows = input.size()[0];
    while start < rows {
        let count = (batch.max(1) as i64).min(rows - start);
        let made = forward.run(&input.f_narrow(0, start, count)?, weights, None)?;
        let difference = made.f_sub(&output.f_narrow(0, start, count)?)?;
        sum += difference.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        start += count;
    }
    Ok(sum / output.numel().max(1) as f64)
}

/// Rows in random order, each once an epoch.
struct Order {
    rows: usize,
    seed: u64,
    epoch: u64,
    left: Vec<usize>,
}

impl Order {
    fn next(&mut self, count: usize) -> Vec<i64> {
        let count = count.min(self.rows);
        if self.left.len() < count {
            self.left = permutation(self.rows, self.seed, self.epoch);
            self.epoch += 1;
        }
        let chosen = self.left.split_off(self.left.len() - count);
        chosen.into_iter().map(|row| row as i64).collect()
    }
}

/// Adam (Kingma and Ba 2015) of one tensor.
struct Adam {
    mean: Tensor,
    square: Tensor,
    steps: i32,
}

impl Adam {
    fn new(value: &Tensor) -> Result<Self> {
        let zeros = || value.f_detach()?.f_zeros_like();
        Ok(Self { mean: zeros()?, square: zeros()?, steps: 0 })
    }

    fn step(&mut self, value: &mut Tensor, gradient: &Tensor, lr: f64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let (decay, slow, epsilon) = ADAM;
        self.steps += 1;
        let _ = self.mean.f_mul_scalar_(decay)?.f_add_(&gradient.f_mul_scalar(1.0 - decay)?)?;
        let square = gradient.f_square()?.f_mul_scalar(1.0 - slow)?;
        let _ = self.square.f_mul_scalar_(slow)?.f_add_(&square)?;
        let mean = self.mean.f_div_scalar(1.0 - decay.powi(self.steps))?;
        let root = self.square.f_div_scalar(1.0 - slow.powi(self.steps))?.f_sqrt()?;
        let by = mean.f_div(&root.f_add_scalar(epsilon)?)?.f_mul_scalar(lr)?;
        let _ = value.f_sub_(&by)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_penalty_comes_after_the_warm_up_and_gets_steep() {
        let options = Adaround {
            unit: Unit::Layer,
            drop: 0.0,
            iterations: 100,
            lr: 0.01,
            batch_size: 4,
            regularization: 0.01,
            beta: [20.0, 2.0],
            warm_up: 0.2,
        };
        assert_eq!(beta(&options, 19), None);
        assert_eq!(beta(&options, 20), Some(20.0));
        assert_eq!(beta(&options, 60).map(f64::round), Some(11.0));
        assert!(beta(&options, 99).is_some_and(|beta| beta < 2.1));
    }

    #[test]
    fn each_row_comes_once_an_epoch() {
        let mut order = Order { rows: 6, seed: 3, epoch: 0, left: Vec::new() };
        let mut epoch = || {
            let mut rows = [order.next(2), order.next(2), order.next(2)].concat();
            let unsorted = rows.clone();
            rows.sort_unstable();
            assert_eq!(rows, [0, 1, 2, 3, 4, 5]);
            unsorted
        };
        assert_ne!(epoch(), epoch());
    }
}
