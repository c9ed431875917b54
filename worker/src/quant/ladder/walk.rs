//! A model run piece by piece: all batches up to one node, then on from there.
//!
//! Values that later nodes read are kept for all batches, so that each node runs once although layers are changed on the way.

use std::collections::{HashMap, HashSet};

use tch::Tensor;

use super::region::constants;
use crate::graph::{Graph, Model, ValueInfo};
use crate::interp::{Mode, Options, Program};
use crate::{Error, Result, passes};

/// A model that has run up to some node.
pub(super) struct Walk {
    model: Model,
    /// Nodes that read constants only, such as the pair of a weight: they run within each piece that reads them.
    constant: Vec<bool>,
    /// Of each batch the values that nodes from `next` on read, and outputs of the graph.
    live: Vec<HashMap<String, Tensor>>,
    next: usize,
}

impl Walk {
    /// A model of one input, given its batches, before its first node.
    ///
    /// # Errors
    /// A model of several inputs.
    pub fn new(model: Model, batches: &[Tensor]) -> Result<Self> {
        let [input] = &model.graph.inputs[..] else {
            return Err(Error::user(format!(
                "the model has {} inputs, expected one",
                model.graph.inputs.len()
            )));
        };
        let live = batches
            .iter()
            .map(|batch| HashMap::from([(input.name.clone(), batch.shallow_clone())]));
        let live = live.collect();
        let constant = constants(&model.graph);
        Ok(Self { model, constant, live, next: 0 })
    }

    /// The same walk, to go ahead alone.
    pub fn ahead(&self) -> Self {
        let shared = |live: &HashMap<String, Tensor>| {
            live.iter().map(|(name, value)| (name.clone(), value.shallow_clone())).collect()
        };
        Self {
            model: self.model.clone(),
            constant: self.constant.clone(),
            live: self.live.iter().map(shared).collect(),
            next: self.next,
        }
    }

    /// Its graph; nodes that have not run yet may get other constants.
    pub fn graph_mut(&mut self) -> &mut Graph {
        &mut self.model.graph
    }

    /// Its graph.
    pub fn graph(&self) -> &Graph {
        &self.model.graph
    }

    /// The model as it is now.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model, changed as it was.
    pub fn into_model(self) -> Model {
        self.model
    }

    /// Runs all nodes before node `to` that have not run yet.
    ///
    /// # Errors
    /// What a node refuses.
    pub fn advance(&mut self, to: usize) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        if to <= self.next {
            return Ok(());
        }
        let graph = &self.model.graph;
        let mut later: HashSet<&str> =
            graph.nodes[to..].iter().flat_map(|node| &node.inputs).map(String::as_str).collect();
        later.extend(graph.outputs.iter().map(|output| output.name.as_str()));
        let steps = || {
            (self.next..to).filter(|&index| !self.constant[index]).map(|index| &graph.nodes[index])
        };
        let mut made: Vec<&str> =
            steps().flat_map(|node| &node.outputs).map(String::as_str).collect();
        made.retain(|name| !name.is_empty() && later.contains(name));
        let mut read: Vec<&str> = Vec::new();
        for name in steps().flat_map(|node| &node.inputs).map(String::as_str) {
            if self.live.first().is_some_and(|live| live.contains_key(name))
                && !read.contains(&name)
            {
                read.push(name);
            }
        }
        if !made.is_empty() {
            let constants =
                graph.nodes.iter().zip(&self.constant).filter(|(_, is)| **is).map(|(node, _)| node);
            let info = |name: &&str| ValueInfo {
                name: (*name).to_owned(),
                dtype: None,
                shape: None,
                opaque: None,
            };
            let mut piece = Model {
                graph: Graph {
                    nodes: constants.chain(steps()).cloned().collect(),
                    inputs: read.iter().map(info).collect(),
                    outputs: made.iter().map(info).collect(),
                    initializers: graph.initializers.clone(),
                    opaque_initializers: graph.opaque_initializers.clone(),
                    ..Graph::default()
                },
                ..self.model.clone()
            };
            passes::remove_dead(&mut piece)?;
            let mut program = Program::compile(&piece, &Options::default())?;
            for live in &mut self.live {
                let inputs: Vec<Tensor> =
                    read.iter().map(|name| live[*name].shallow_clone()).collect();
                let outputs = program.forward(&inputs, Mode::Eval, &mut |_, _| Ok(()))?;
                live.extend(made.iter().map(|name| (*name).to_owned()).zip(outputs));
                live.retain(|name, _| later.contains(name.as_str()));
            }
        }
        self.next = to;
        Ok(())
    }

    /// A value that is still read, of each batch.
    ///
    /// # Errors
    /// One that is not kept.
    pub fn values(&self, name: &str) -> Result<Vec<Tensor>> {
        let value = |live: &HashMap<String, Tensor>| {
            let value = live.get(name).map(Tensor::shallow_clone);
            value.ok_or_else(|| Error::bug(format!("value `{name}` is not kept")))
        };
        self.live.iter().map(value).collect()
    }

    /// Adds a tensor that broadcasts to a value.
    ///
    /// # Errors
    /// A value that is not kept; shapes that do not fit.
    pub fn shift(&mut self, name: &str, by: &Tensor) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for live in &mut self.live {
            let value = live.get_mut(name);
            let value = value.ok_or_else(|| Error::bug(format!("value `{name}` is not kept")))?;
            *value = value.f_add(&by.f_to_device(value.device())?)?;
        }
        Ok(())
    }
}
