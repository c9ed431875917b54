//! The order of each layer: few crossings, by barycentres.

use super::layout::Net;

/// Sweeps over all layers, there and back.
const SWEEPS: usize = 12;
/// Links beyond which a few sweeps must do.
const MANY: usize = 20_000;

/// The vertices of each layer from top to bottom.
pub(super) fn order(net: &Net) -> Vec<Vec<usize>> {
    let mut layers = vec![Vec::new(); net.layers];
    for (index, vertex) in net.vertices.iter().enumerate() {
        layers[vertex.layer].push(index);
    }
    let mut before = vec![Vec::new(); net.vertices.len()];
    let mut after = vec![Vec::new(); net.vertices.len()];
    for &(from, to) in &net.links {
        before[to].push(from);
        after[from].push(to);
    }
    let mut place = vec![0; net.vertices.len()];
    layers.iter().for_each(|layer| note(layer, &mut place));
    let (mut best, mut least) = (layers.clone(), crossings(&layers, &after, &place));
    for sweep in 0..if net.links.len() > MANY { 2 } else { SWEEPS } {
        if least == 0 {
            break;
        }
        if sweep % 2 == 0 {
            layers.iter_mut().skip(1).for_each(|layer| sort(layer, &before, &mut place));
        } else {
            layers.iter_mut().rev().skip(1).for_each(|layer| sort(layer, &after, &mut place));
        }
        let now = crossings(&layers, &after, &place);
        if now < least {
            (best, least) = (layers.clone(), now);
        }
    }
    best
}

fn note(layer: &[usize], place: &mut [usize]) {
    layer.iter().enumerate().for_each(|(position, &vertex)| place[vertex] = position);
}

/// Sorts a layer by the mean place of each vertex's neighbours; one without any keeps its place.
fn sort(layer: &mut Vec<usize>, around: &[Vec<usize>], place: &mut [usize]) {
    let mut keyed: Vec<(f64, usize)> = layer
        .iter()
        .map(|&vertex| {
            let near = &around[vertex];
            let sum: usize = near.iter().map(|&other| place[other]).sum();
            let own = place[vertex] as f64;
            (if near.is_empty() { own } else { sum as f64 / near.len() as f64 }, vertex)
        })
        .collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    *layer = keyed.into_iter().map(|(_, vertex)| vertex).collect();
    note(layer, place);
}

/// Pairs of links that cross: inversions, counted with a Fenwick tree.
fn crossings(layers: &[Vec<usize>], after: &[Vec<usize>], place: &[usize]) -> usize {
    let mut count = 0;
    for pair in layers.windows(2) {
        let mut tree = vec![0_usize; pair[1].len() + 1];
        let mut seen = 0;
        for &vertex in &pair[0] {
            let ends = || after[vertex].iter().map(|&end| place[end] + 1);
            for end in ends() {
                let (mut index, mut not_after) = (end, 0);
                while index > 0 {
                    not_after += tree[index];
                    index &= index - 1;
                }
                count += seen - not_after;
            }
            for end in ends() {
                let mut index = end;
                while index < tree.len() {
                    tree[index] += 1;
                    index += index & index.wrapping_neg();
                }
                seen += 1;
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::layout::Vertex;
    use super::*;

    #[test]
    fn what_can_be_untangled_is() {
        let vertex = |layer| Vertex { item: Some(0), source: 0, layer, height: 1.0 };
        let net = Net {
            vertices: [0, 0, 0, 1, 1, 1].map(vertex).to_vec(),
            links: vec![(0, 5), (1, 4), (2, 3)],
            far: Vec::new(),
            layers: 2,
        };
        let after = [vec![5], vec![4], vec![3], vec![], vec![], vec![]];
        assert_eq!(crossings(&[vec![0, 1, 2], vec![3, 4, 5]], &after, &[0, 1, 2, 0, 1, 2]), 3);
        let layers = order(&net);
        let mut place = [0; 6];
        layers.iter().for_each(|layer| note(layer, &mut place));
        assert_eq!(crossings(&layers, &after, &place), 0);
    }
}
