//! In which order layers are left in float, and how many of them are tried.

use serde::{Deserialize, Serialize};

/// What is known of a layer that may be quantized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Its node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Noise of the outputs over their signal, as a ratio of powers, that its quantization makes.
    pub noise: f64,
    /// Share of the model's multiply-adds, 0…1.
    pub work: f64,
    /// How much longer an engine takes in which it alone is float, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_ms: Option<f64>,
}

/// Shares of the latency below which a difference is none that a clock shows.
const RESOLUTION: f64 = 0.005;

impl Layer {
    /// How much longer an engine takes with it in float: measured, or by its share of what quantization saves in all.
    pub fn cost(&self, saved_ms: f64) -> f64 {
        self.cost_ms.unwrap_or(self.work * saved_ms.max(0.0))
    }
}

/// Layers in the order in which they are left in float, and how many of the first are faster so. Those come first; then come those whose
/// noise is the most for each millisecond that they cost. `quantized_ms` and `float_ms` are the latencies of the whole engines.
pub fn order(layers: &[Layer], quantized_ms: f64, float_ms: f64) -> (Vec<usize>, usize) {
    let least = RESOLUTION * quantized_ms;
    let cost = |index: usize| layers[index].cost(float_ms - quantized_ms);
    let (mut faster, mut rest): (Vec<usize>, Vec<usize>) =
        (0..layers.len()).partition(|&index| cost(index) < -least);
    faster.sort_by(|&a, &b| cost(a).total_cmp(&cost(b)));
    let gain = |index: usize| layers[index].noise / cost(index).max(least);
    rest.sort_by(|&a, &b| gain(b).total_cmp(&gain(a)));
    let free = faster.len();
    faster.extend(rest);
    (faster, free)
}

/// How many of the first of `count` layers are left in float: 1, 2, 4, 8, … and `free`, at most `room` numbers, ascending.
pub fn rungs(count: usize, free: usize, room: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1_usize), |rung| rung.checked_mul(2));
    let all: Vec<usize> = doubled.take_while(|&rung| rung < count).collect();
    let own = (1..count).contains(&free) && room > 0;
    let room = room - usize::from(own);
    let taken = all.len().min(room);
    // Evenly among them, the first and the last included.
    let at = |place: usize| if taken > 1 { place * (all.len() - 1) / (taken - 1) } else { 0 };
    let mut rungs: Vec<usize> = (0..taken).map(|place| all[at(place)]).collect();
    rungs.extend(own.then_some(free));
    rungs.sort_unstable();
    rungs.dedup();
    rungs
}

/// The knee of a curve, as the place of the point that is farthest from the line between the first and the last one, both axes scaled to
/// 0…1. Points are latency and signal to noise, in order; `None` of fewer than three.
pub fn knee(points: &[(f64, f64)]) -> Option<usize> {
    let (&first, &last) = (points.first()?, points.last()?);
    let scaled = |point: &(f64, f64)| {
        let part = |own: f64, from: f64, to: f64| {
            if (to - from).abs() > f64::EPSILON { (own - from) / (to - from) } else { 0.0 }
        };
        (part(point.0, first.0, last.0), part(point.1, first.1, last.1))
    };
    // Up and to the left is good.
    let above = |point: &(f64, f64)| {
        let (latency, sqnr) = scaled(point);
        sqnr - latency
    };
    let inner = 1..points.len().saturating_sub(1);
    inner.max_by(|&a, &b| above(&points[a]).total_cmp(&above(&points[b])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(noise: f64, work: f64, cost_ms: Option<f64>) -> Layer {
        Layer { node: String::new(), op: String::new(), noise, work, cost_ms }
    }

    #[test]
    fn most_noise_for_each_millisecond_comes_first_and_what_is_faster_in_float_before_it() {
        let layers = [
            layer(0.10, 0.5, Some(0.50)),
            layer(0.05, 0.1, Some(0.05)),
            layer(0.01, 0.1, Some(-0.10)),
            // By its share of 1 ms.
            layer(0.09, 0.3, None),
            layer(0.00, 0.0, Some(-0.20)),
            // Slower by what no clock shows.
            layer(0.02, 0.0, Some(0.001)),
        ];
        assert_eq!(order(&layers, 1.0, 2.0), (vec![4, 2, 5, 1, 3, 0], 2));
        // Where float is faster as a whole, what was not measured costs nothing.
        let unknown = [layer(0.1, 0.5, None), layer(0.2, 0.5, None)];
        assert_eq!(order(&unknown, 2.0, 1.0), (vec![1, 0], 0));
    }

    #[test]
    fn rungs_double_and_keep_to_their_room() {
        assert_eq!(rungs(54, 0, 20), [1, 2, 4, 8, 16, 32]);
        assert_eq!(rungs(54, 5, 20), [1, 2, 4, 5, 8, 16, 32]);
        assert_eq!(rungs(54, 4, 20), [1, 2, 4, 8, 16, 32]);
        assert_eq!(rungs(54, 0, 3), [1, 4, 32]);
        assert_eq!(rungs(54, 5, 1), [5]);
        assert_eq!(rungs(54, 5, 0), Vec::<usize>::new());
        assert_eq!(rungs(2, 2, 9), [1], "all of them is the float model");
        assert_eq!(rungs(1, 0, 9), Vec::<usize>::new());
    }

    #[test]
    fn the_knee_is_where_more_float_stops_to_pay() {
        let points = [(1.0, 10.0), (1.05, 18.0), (1.1, 26.0), (1.5, 28.0), (2.0, 30.0)];
        assert_eq!(knee(&points), Some(2));
        assert_eq!(knee(&points[..2]), None);
        assert_eq!(knee(&[(1.0, 1.0); 3]), Some(1), "no extent at all");
    }
}
