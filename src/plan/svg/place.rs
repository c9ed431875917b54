//! How high a vertex stands: near its neighbours, without overlaps, in its layer's order.

use super::layout::Net;

/// Between two boxes of a layer.
const GAP: f64 = 18.0;
/// How much more a track is kept straight than a box.
const STRAIGHT: f64 = 4.0;
/// Sweeps over all layers.
const SWEEPS: usize = 16;

/// The middle of each vertex; the drawing begins at 0.
pub(super) fn place(net: &Net, layers: &[Vec<usize>]) -> Vec<f64> {
    let mut around = vec![Vec::new(); net.vertices.len()];
    for &(from, to) in &net.links {
        let bare = |vertex: usize| net.vertices[vertex].item.is_none();
        let weight = if bare(from) && bare(to) { STRAIGHT } else { 1.0 };
        around[from].push((to, weight));
        around[to].push((from, weight));
    }
    let mut middles = vec![0.0; net.vertices.len()];
    for layer in layers {
        settle(net, layer, &vec![(0.0, 1.0); layer.len()], &mut middles);
    }
    let sweeps = if net.links.len() > 20_000 { SWEEPS / 4 } else { SWEEPS };
    for sweep in 0..sweeps {
        // Towards one side at a time first, so that a shift passes through all layers at once.
        let both = sweep + 4 >= sweeps;
        let forth = sweep % 2 == 0;
        for step in 0..layers.len() {
            let layer = if forth { step } else { layers.len() - 1 - step };
            let wish = |&vertex: &usize| {
                let wanted = |&&(other, _): &&(usize, f64)| {
                    both || (net.vertices[other].layer < layer) == forth
                };
                let (mut sum, mut weight) = (0.0, 0.0);
                for (other, pull) in around[vertex].iter().filter(wanted) {
                    sum += pull * middles[*other];
                    weight += pull;
                }
                if weight > 0.0 { (sum / weight, weight) } else { (middles[vertex], 0.1) }
            };
            let wishes: Vec<(f64, f64)> = layers[layer].iter().map(wish).collect();
            settle(net, &layers[layer], &wishes, &mut middles);
        }
    }
    let top = |(vertex, middle): (usize, &f64)| middle - net.vertices[vertex].height / 2.0;
    let top = middles.iter().enumerate().map(top).fold(f64::INFINITY, f64::min);
    middles.iter_mut().for_each(|middle| *middle -= top);
    middles
}

/// Brings a layer's vertices as near to what each wishes (place, weight) as their order and their
/// heights allow: least squares by pooling adjacent violators.
fn settle(net: &Net, layer: &[usize], wishes: &[(f64, f64)], middles: &mut [f64]) {
    // Places less the room that the vertices above need: these must not decrease.
    let mut offsets = Vec::with_capacity(layer.len());
    let mut offset = 0.0;
    let mut last: Option<usize> = None;
    for &vertex in layer {
        if let Some(above) = last {
            let (a, b) = (net.vertices[above], net.vertices[vertex]);
            let bare = a.item.is_none() && b.item.is_none();
            let gap = if bare { GAP / 3.0 } else { GAP };
            offset += f64::midpoint(a.height, b.height) + gap;
        }
        offsets.push(offset);
        last = Some(vertex);
    }
    // Mean, weight and length of each pool.
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for (&(wish, weight), offset) in wishes.iter().zip(&offsets) {
        let mut pool = (wish - offset, weight, 1);
        while let Some(&above) = pools.last() {
            if above.0 <= pool.0 {
                break;
            }
            let weight = above.1 + pool.1;
            pool = ((above.0 * above.1 + pool.0 * pool.1) / weight, weight, above.2 + pool.2);
            pools.pop();
        }
        pools.push(pool);
    }
    let mut position = 0;
    for (mean, _, length) in pools {
        for _ in 0..length {
            middles[layer[position]] = mean + offsets[position];
            position += 1;
        }
    }
}
