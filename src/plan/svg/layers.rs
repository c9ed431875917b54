//! Which layer an item belongs to: one more than the last of those that it takes from.

use super::layout::Item;

/// The layer of each item, from 0. Every edge goes to a later layer.
pub(super) fn layers(items: &[Item], edges: &[(usize, usize)]) -> Vec<usize> {
    let groups = items.iter().map(|item| item.group + 1).max().unwrap_or(0);
    let grouped: Vec<(usize, usize)> =
        edges.iter().map(|&(from, to)| (items[from].group, items[to].group)).collect();
    let mut layers = match longest(groups, &grouped) {
        Some(of_group) => items.iter().map(|item| of_group[item.group]).collect(),
        // Cells of one stage depend on cells of another both ways: each goes where it can.
        None => longest(items.len(), edges).unwrap_or_else(|| vec![0; items.len()]),
    };
    let mut earliest = vec![usize::MAX; items.len()];
    for &(from, to) in edges {
        earliest[from] = earliest[from].min(layers[to]);
    }
    for (index, item) in items.iter().enumerate() {
        if item.source && earliest[index] != usize::MAX {
            layers[index] = earliest[index] - 1;
        }
    }
    layers
}

/// The longest path to each node; `None`: there is a cycle.
fn longest(nodes: usize, edges: &[(usize, usize)]) -> Option<Vec<usize>> {
    let mut users = vec![Vec::new(); nodes];
    let mut missing = vec![0_usize; nodes];
    for &(from, to) in edges {
        users[from].push(to);
        missing[to] += 1;
    }
    let mut open: Vec<usize> = (0..nodes).filter(|&node| missing[node] == 0).collect();
    let (mut layers, mut seen) = (vec![0; nodes], 0);
    while let Some(node) = open.pop() {
        seen += 1;
        for &user in &users[node] {
            layers[user] = layers[user].max(layers[node] + 1);
            missing[user] -= 1;
            if missing[user] == 0 {
                open.push(user);
            }
        }
    }
    (seen == nodes).then_some(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(groups: &[(usize, bool)]) -> Vec<Item> {
        let item = |&(group, source): &_| Item { group, source, width: 1.0, height: 1.0 };
        groups.iter().map(item).collect()
    }

    #[test]
    fn cells_share_a_layer_and_sources_stand_before_their_users() {
        // data 0 → a 1 → m[x] 2; m[y] 3 takes from late data 4.
        let items = items(&[(0, true), (1, false), (2, false), (2, false), (3, true)]);
        assert_eq!(layers(&items, &[(0, 1), (1, 2), (4, 3)]), [0, 1, 2, 2, 1]);
    }

    #[test]
    fn cells_that_depend_on_cells_of_their_own_stage_are_a_chain() {
        let items = items(&[(0, false), (1, false), (0, false)]);
        assert_eq!(layers(&items, &[(0, 1), (1, 2)]), [0, 1, 2]);
    }
}
