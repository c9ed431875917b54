//! The stages as a directed acyclic graph, producers before users.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::path::{Path, PathBuf};

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::config::{Origin, Pipeline, StageCell};

/// The stages of a pipeline in an order in which each follows what it needs.
///
/// Stages are named by their position in [`Pipeline::stages`]; the graph has a node for each at the
/// same position, and an edge from producer to user with the user's port.
#[derive(Debug)]
pub struct Plan<'p> {
    pub(super) pipeline: &'p Pipeline,
    pub(super) graph: DiGraph<(), String>,
    pub(super) order: Vec<usize>,
    pub(super) selected: Vec<bool>,
    /// Position of each stage by its id.
    ids: HashMap<&'p str, usize>,
    /// Positions of the cells of each stage by its name.
    names: HashMap<&'p str, Vec<usize>>,
}

impl<'p> Plan<'p> {
    /// The plan of all stages. Among stages that are free to run, the file's order holds.
    ///
    /// # Panics
    ///
    /// If the pipeline has a cycle or a dangling reference: [`crate::config`] refuses both.
    pub fn new(pipeline: &'p Pipeline) -> Self {
        let mut graph = DiGraph::new();
        let mut ids = HashMap::with_capacity(pipeline.stages.len());
        let mut names: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, cell) in pipeline.stages.iter().enumerate() {
            graph.add_node(());
            ids.insert(cell.id.as_str(), index);
            names.entry(cell.name.as_str()).or_default().push(index);
        }
        for (index, cell) in pipeline.stages.iter().enumerate() {
            for input in &cell.inputs {
                if let Origin::Stage { id, .. } = &input.origin {
                    let producer = NodeIndex::new(ids[id.as_str()]);
                    graph.add_edge(producer, NodeIndex::new(index), input.port.clone());
                }
            }
        }
        let order = topological(&graph);
        assert_eq!(order.len(), pipeline.stages.len(), "config refuses cycles");
        let selected = vec![true; order.len()];
        Self { pipeline, graph, order, selected, ids, names }
    }

    /// The pipeline that it was made from.
    pub fn pipeline(&self) -> &'p Pipeline {
        self.pipeline
    }

    /// The stage at a position.
    pub fn stage(&self, index: usize) -> &'p StageCell {
        &self.pipeline.stages[index]
    }

    /// The position of the stage or cell of that id.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.ids.get(id).copied()
    }

    /// Positions of a stage's cells by the stage's name, in file order; none: there is no such stage.
    pub(super) fn cells(&self, name: &str) -> &[usize] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    /// Positions of the selected stages, producers first.
    pub fn order(&self) -> impl Iterator<Item = usize> {
        self.order.iter().copied().filter(|&index| self.selected[index])
    }

    /// The stages that `index` takes something from, in file order, each once.
    pub fn producers(&self, index: usize) -> Vec<usize> {
        self.neighbours(index, Direction::Incoming)
    }

    /// The stages that take something from `index`, in file order, each once.
    pub fn users(&self, index: usize) -> Vec<usize> {
        self.neighbours(index, Direction::Outgoing)
    }

    /// The user's files and folders that the selected stages read, each once; the pipeline's own
    /// files are not among them.
    pub fn inputs(&self) -> BTreeSet<&'p Path> {
        let mut paths = BTreeSet::new();
        for index in self.order() {
            for input in &self.stage(index).inputs {
                match &input.origin {
                    Origin::Stage { .. } => {}
                    Origin::Path(path) => {
                        paths.insert(path.as_path());
                    }
                    Origin::Data(name) => {
                        let data = self.pipeline.data.get(name);
                        let of_data = data.into_iter().flat_map(|data| data.paths.values());
                        paths.extend(of_data.map(PathBuf::as_path));
                    }
                }
            }
        }
        paths
    }

    fn neighbours(&self, index: usize, direction: Direction) -> Vec<usize> {
        let around = self.graph.neighbors_directed(NodeIndex::new(index), direction);
        let mut around: Vec<usize> = around.map(NodeIndex::index).collect();
        around.sort_unstable();
        around.dedup();
        around
    }
}

/// Kahn's algorithm; the lowest free index comes first. Nodes on a cycle are left out.
fn topological(graph: &DiGraph<(), String>) -> Vec<usize> {
    let mut missing: Vec<usize> = graph
        .node_indices()
        .map(|node| graph.edges_directed(node, Direction::Incoming).count())
        .collect();
    let free = (0..missing.len()).filter(|&node| missing[node] == 0);
    let mut free: BinaryHeap<Reverse<usize>> = free.map(Reverse).collect();
    let mut order = Vec::with_capacity(missing.len());
    while let Some(Reverse(node)) = free.pop() {
        order.push(node);
        for user in graph.neighbors_directed(NodeIndex::new(node), Direction::Outgoing) {
            missing[user.index()] -= 1;
            if missing[user.index()] == 0 {
                free.push(Reverse(user.index()));
            }
        }
    }
    order
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::ResolvedInput;
    use crate::stages::contract::PortType;
    use crate::stages::execution::Execution;

    /// A pipeline of commands from lines such as `b[1] < a data.x /path`.
    pub(crate) fn pipeline(lines: &[&str]) -> Pipeline {
        let kind = crate::stages::kind("command").expect("the kind exists");
        let stages = lines.iter().enumerate().map(|(line, text)| {
            let (id, inputs) = text.split_once(" < ").unwrap_or((text, ""));
            let inputs = inputs.split_whitespace().enumerate().map(|(port, origin)| {
                let origin = if let Some(name) = origin.strip_prefix("data.") {
                    Origin::Data(name.to_owned())
                } else if origin.starts_with('/') {
                    Origin::Path(PathBuf::from(origin))
                } else {
                    let (id, port) = (origin.to_owned(), "out".to_owned());
                    Origin::Stage { id, port, kind: PortType::File }
                };
                ResolvedInput { port: format!("in{port}"), origin }
            });
            let (name, cell) = id.split_once('[').unwrap_or((id, ""));
            let values = cell.trim_end_matches(']').split(',').filter(|value| !value.is_empty());
            let table = toml::toml! { run = "true" outputs = { out = "out" } };
            StageCell {
                id: id.to_owned(),
                name: name.to_owned(),
                cell: values.map(|value| ("variant".to_owned(), value.into())).collect(),
                point: None,
                seed: 0,
                kind,
                stage: (kind.parse)(table.into()).expect("a valid command"),
                execution: Execution::default(),
                secrets: Vec::new(),
                inputs: inputs.collect(),
                facts: Vec::new(),
                file: Path::new("/p/test.toml").into(),
                line: line + 1,
                keys: Vec::new(),
                model_place: None,
            }
        });
        Pipeline {
            name: "test".to_owned(),
            seed: 0,
            file: PathBuf::from("/p/test.toml"),
            files: Vec::new(),
            folder: PathBuf::from("/p"),
            data: BTreeMap::new(),
            stages: stages.collect(),
            arguments: Vec::new(),
            profiles: Vec::new(),
            remote: None,
            slurm: crate::config::Slurm::default(),
            guards: Vec::new(),
            sweep: None,
            sources: None,
        }
    }

    pub(in crate::plan) fn ids<'p>(plan: &Plan<'p>) -> Vec<&'p str> {
        plan.order().map(|index| plan.stage(index).id.as_str()).collect()
    }

    #[test]
    fn order_is_the_files_unless_a_stage_stands_before_its_producer() {
        let pipeline = pipeline(&["z", "late < early", "a", "early < z", "end < late a"]);
        assert_eq!(ids(&Plan::new(&pipeline)), ["z", "a", "early", "late", "end"]);
    }

    #[test]
    fn inputs_are_the_files_of_selected_stages() {
        let mut pipeline = pipeline(&["a < /p/a data.x", "b < a /p/b", "c < /p/a"]);
        let spec = serde_json::json!({ "format": "idx", "path": "@input" });
        let spec = serde_json::from_value(spec).expect("a data set");
        let paths =
            ["path", "labels"].map(|port| (port.to_owned(), PathBuf::from(format!("/d/{port}"))));
        pipeline.data.insert("x".to_owned(), crate::config::Data { spec, paths: paths.into() });
        let mut plan = Plan::new(&pipeline);
        let inputs = |plan: &Plan<'_>| -> Vec<String> {
            plan.inputs().iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(inputs(&plan), ["/d/labels", "/d/path", "/p/a", "/p/b"]);
        plan.select(&["c".to_owned()]).expect("it is there");
        assert_eq!(inputs(&plan), ["/p/a"]);
    }

    #[test]
    fn a_producer_used_twice_is_one_neighbour() {
        let pipeline = pipeline(&["a", "b < a a"]);
        let plan = Plan::new(&pipeline);
        assert_eq!(plan.producers(1), [0]);
        assert_eq!(plan.users(0), [1]);
    }
}
