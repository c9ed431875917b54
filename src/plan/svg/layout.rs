//! A layered drawing after Sugiyama, Tagawa and Toda (<https://doi.org/10.1109/TSMC.1981.4308636>):
//! layers by longest path, fewer crossings by barycentres, positions by least squares.
//!
//! Edges that pass layers follow a track there, like a box without content. All edges from one box
//! share their tracks: they leave as one line and part where they must.

use super::{layers, order, place};

/// Height of a track's room.
const TRACK: f64 = 8.0;
/// Between the columns of two layers.
const GAP: f64 = 72.0;
/// Tracks at most: beyond, edges that pass layers are drawn straight across them.
const TRACKS: usize = 100_000;

/// What is to be placed.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Items of a group share a column, unless they depend on each other.
    pub group: usize,
    /// Nothing but a source: it stands close before its first user.
    pub source: bool,
    pub width: f64,
    pub height: f64,
}

/// Where an item went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    pub fn right(&self) -> f64 {
        self.x + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.y + self.height
    }

    fn middle(&self) -> f64 {
        self.y + self.height / 2.0
    }
}

/// A line from a box or a track's end to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub from: (f64, f64),
    pub to: (f64, f64),
    /// The item where it begins at last.
    pub source: usize,
    /// The item that it reaches; `None`: a track's.
    pub target: Option<usize>,
}

/// The drawing's geometry; all coordinates are positive.
#[derive(Debug)]
pub(super) struct Layout {
    /// In the order of the items.
    pub boxes: Vec<Rect>,
    pub lines: Vec<Line>,
    pub width: f64,
    pub height: f64,
}

/// An item or a track in its layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vertex {
    pub item: Option<usize>,
    /// The item itself, or the one whose edges the track carries.
    pub source: usize,
    pub layer: usize,
    pub height: f64,
}

/// The vertices, the links between those of neighbouring layers, and the edges without tracks.
pub(super) struct Net {
    pub vertices: Vec<Vertex>,
    pub links: Vec<(usize, usize)>,
    pub far: Vec<(usize, usize)>,
    pub layers: usize,
}

/// Places items; an edge goes from producer to user, and stands once.
pub(super) fn layout(items: &[Item], edges: &[(usize, usize)]) -> Layout {
    let net = net(items, edges);
    let layers = order::order(&net);
    let middles = place::place(&net, &layers);

    let mut columns = vec![(0.0, 0.0); net.layers];
    for vertex in &net.vertices {
        if let Some(item) = vertex.item {
            let width: &mut f64 = &mut columns[vertex.layer].1;
            *width = width.max(items[item].width);
        }
    }
    let mut x = 0.0;
    for column in &mut columns {
        column.0 = x;
        x += column.1 + GAP;
    }
    let rect = |vertex: usize| {
        let Vertex { layer, height, .. } = net.vertices[vertex];
        let (x, width) = columns[layer];
        Rect { x, y: middles[vertex] - height / 2.0, width, height }
    };
    let mut lines = Vec::new();
    for &(from, to) in net.links.iter().chain(&net.far) {
        let (start, end) = (rect(from), rect(to));
        lines.push(Line {
            from: (start.right(), start.middle()),
            to: (end.x, end.middle()),
            source: net.vertices[from].source,
            target: net.vertices[to].item,
        });
    }
    for (index, vertex) in net.vertices.iter().enumerate().skip(items.len()) {
        let track = rect(index);
        let (from, to) = ((track.x, track.middle()), (track.right(), track.middle()));
        lines.push(Line { from, to, source: vertex.source, target: None });
    }
    let boxes: Vec<Rect> = (0..items.len()).map(rect).collect();
    let height = boxes.iter().map(Rect::bottom).chain(lines.iter().map(|line| line.to.1));
    let height = height.fold(0.0, f64::max);
    Layout { boxes, lines, width: (x - GAP).max(0.0), height }
}

/// Vertices of the items first, in their order, then tracks.
fn net(items: &[Item], edges: &[(usize, usize)]) -> Net {
    let layer = layers::layers(items, edges);
    let item = |(index, item): (usize, &Item)| {
        let layer = layer[index];
        Vertex { item: Some(index), source: index, layer, height: item.height }
    };
    let mut net = Net {
        vertices: items.iter().enumerate().map(item).collect(),
        links: Vec::new(),
        far: Vec::new(),
        layers: layer.iter().max().map_or(0, |last| last + 1),
    };
    // How far each item's tracks reach.
    let mut reach = layer.clone();
    for &(from, to) in edges {
        reach[from] = reach[from].max(layer[to]);
    }
    let passed = reach.iter().zip(&layer).map(|(reach, layer)| (reach - layer).saturating_sub(1));
    if passed.sum::<usize>() > TRACKS {
        let (near, far) = edges.iter().partition(|&&(from, to)| layer[to] - layer[from] == 1);
        (net.links, net.far) = (near, far);
        return net;
    }
    let mut first = vec![0; items.len()];
    for index in 0..items.len() {
        first[index] = net.vertices.len();
        let mut before = index;
        for layer in layer[index] + 1..reach[index] {
            let track = net.vertices.len();
            net.vertices.push(Vertex { item: None, source: index, layer, height: TRACK });
            net.links.push((before, track));
            before = track;
        }
    }
    for &(from, to) in edges {
        let passed = layer[to] - layer[from] - 1;
        let last = if passed == 0 { from } else { first[from] + passed - 1 };
        net.links.push((last, to));
    }
    net
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// No two boxes, and no box and a track, overlap.
    pub(in crate::plan) fn assert_clear(layout: &Layout) {
        let mut rects: Vec<(usize, Rect)> = layout.boxes.iter().copied().enumerate().collect();
        let track = |line: &&Line| line.target.is_none() && line.from.1 == line.to.1;
        rects.extend(layout.lines.iter().filter(track).map(|line| {
            let (x, y) = line.from;
            (usize::MAX, Rect { x, y, width: line.to.0 - x, height: 0.0 })
        }));
        for (place, (index, a)) in rects.iter().enumerate() {
            assert!(a.x >= 0.0 && a.y >= -1e-6 && a.right() <= layout.width + 1e-6, "{a:?}");
            for (other, b) in &rects[place + 1..] {
                let beside = a.right() <= b.x || b.right() <= a.x;
                let above = a.bottom() <= b.y + 1e-6 || b.bottom() <= a.y + 1e-6;
                assert!(beside || above || *index == usize::MAX, "{index} {a:?}, {other} {b:?}");
            }
        }
    }

    fn items(groups: &[usize]) -> Vec<Item> {
        let item = |&group: &usize| Item { group, source: false, width: 80.0, height: 40.0 };
        groups.iter().map(item).collect()
    }

    #[test]
    fn a_diamond_is_straight_and_symmetric() {
        let layout = layout(&items(&[0, 1, 2, 3]), &[(0, 1), (0, 2), (1, 3), (2, 3)]);
        assert_clear(&layout);
        let [a, b, c, d] = layout.boxes[..] else { panic!("four boxes") };
        assert_eq!((a.y, b.x), (d.y, c.x));
        assert!((a.y - f64::midpoint(b.y, c.y)).abs() < 0.5, "{:?}", layout.boxes);
    }

    #[test]
    fn edges_past_a_layer_go_round_its_boxes() {
        // 0 → 1 → 2 and 0 → 2, 0 → 3 with 3 in the column of 2.
        let edges = [(0, 1), (1, 2), (0, 2), (0, 3), (1, 3)];
        let layout = layout(&items(&[0, 1, 2, 2]), &edges);
        assert_clear(&layout);
        let tracks = layout.lines.iter().filter(|line| line.from.1 == line.to.1);
        assert!(tracks.count() >= 1, "one track, shared");
        assert_eq!(layout.lines.iter().filter(|line| line.target.is_some()).count(), edges.len());
    }

    #[test]
    fn any_graph_is_drawn_without_overlaps() {
        let mut random = 1_u64;
        let mut below = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % limit
        };
        for size in [1, 2, 7, 30, 80] {
            let groups: Vec<usize> = (0..size).map(|_| below(1 + size / 3)).collect();
            let mut edges = std::collections::BTreeSet::new();
            for to in 1..size {
                for _ in 0..below(4) {
                    edges.insert((below(to), to));
                }
            }
            let edges: Vec<(usize, usize)> = edges.into_iter().collect();
            let mut items = items(&groups);
            for (index, item) in items.iter_mut().enumerate() {
                item.source = edges.iter().all(|&(_, to)| to != index) && index % 2 == 0;
                item.height = 20.0 + below(40) as f64;
            }
            assert_clear(&layout(&items, &edges));
        }
    }
}
