//! A model to a [`Program`].

use std::collections::{HashMap, HashSet};

use tch::Tensor;

use super::declared::Declared;
use super::fuse::{self, Pair};
use super::parameters::{self, Parameter, Role};
use super::prepare;
use super::program::{Constant, Options, Program, Source, Step};
use super::spare::Spare;
use super::types::Types;
use crate::graph::{DType, Graph, Model, Node, TensorData};
use crate::ops::{self, Kernel};
use crate::{Error, Result, torch};

impl Program {
    /// Compiles a model. Nothing is folded, except that a quantization and the dequantization
    /// that undoes it become one step.
    ///
    /// # Errors
    /// What cannot be executed, with its node, operator and opset; a watched name that no value has.
    pub fn compile(model: &Model, options: &Options) -> Result<Self> {
        let opset = prepare::opset(model)?;
        let written = constant_nodes(&model.graph)?;
        let mut constants: HashMap<&str, &TensorData> =
            written.iter().map(|(name, data)| (*name, data)).collect();
        constants.extend(model.graph.initializers.iter().map(|(n, data)| (n.as_str(), data)));
        let watched = options.watch.iter().map(String::as_str).collect();
        let pairs = fuse::pairs(&model.graph, &constants, &watched)?;
        let mut compiler = Compiler {
            model,
            graph: &model.graph,
            opset,
            options,
            types: Types::of(&model.graph, &constants),
            constants,
            sources: HashMap::new(),
            spare: Spare::default(),
            learned: HashSet::new(),
            program: Self {
                steps: Vec::new(),
                constants: Vec::new(),
                parameters: Vec::new(),
                statistics: Vec::new(),
                followed: Vec::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                watched: Vec::new(),
                slots: Vec::new(),
                channels_last: options.channels_last,
                device: options.device,
            },
        };
        compiler.inputs();
        compiler.nodes(&pairs)?;
        compiler.outputs()?;
        compiler.watch()?;
        compiler.parameters();
        compiler.last_uses();
        compiler.spare.mark(&mut compiler.program);
        Ok(compiler.program)
    }
}

/// A kernel that does in training what it does at inference.
fn at_inference(kernel: Kernel) -> Kernel {
    Box::new(move |arguments| {
        kernel(&ops::Arguments { training: false, spare: arguments.spare, ..*arguments })
    })
}

/// The values of `Constant` nodes.
fn constant_nodes(graph: &Graph) -> Result<Vec<(&str, TensorData)>> {
    let nodes = graph.nodes.iter().filter(|node| node.is_constant());
    nodes
        .map(|node| {
            let name = node.outputs.first().map_or("", String::as_str);
            let data = node.constant().map_err(|error| error.at(node.place()))?;
            Ok((name, data))
        })
        .collect()
}

pub(super) struct Compiler<'a> {
    model: &'a Model,
    pub(super) graph: &'a Graph,
    opset: i64,
    pub(super) options: &'a Options,
    types: Types<'a>,
    pub(super) constants: HashMap<&'a str, &'a TensorData>,
    sources: HashMap<&'a str, Source>,
    spare: Spare,
    /// Names of the scales that are learned.
    pub(super) learned: HashSet<&'a str>,
    pub(super) program: Program,
}

impl<'a> Compiler<'a> {
    fn slot(&mut self, name: &'a str) -> usize {
        let slot = self.program.slots.len();
        self.program.slots.push(None);
        self.sources.insert(name, Source::Slot(slot));
        slot
    }

    fn inputs(&mut self) {
        for input in &self.graph.inputs {
            let slot = self.slot(&input.name);
            self.program.inputs.push((slot, Declared::of(input)));
        }
    }

    /// Where a value is; a constant is made into a tensor when it is first asked for.
    pub(super) fn source(&mut self, name: &'a str) -> Result<Source> {
        if let Some(&source) = self.sources.get(name) {
            return Ok(source);
        }
        let data = self.constants.get(name).ok_or_else(|| {
            Error::user(format!("`{name}` is not defined, or of a type that is not supported"))
        })?;
        // Shapes, axes and indices are read by the CPU.
        let device = if data.dtype == DType::I64 { tch::Device::Cpu } else { self.options.device };
        let tensor = torch::to_tensor(data, device)
            .map_err(|error| error.at(format!("constant `{name}`")))?;
        let laid_out = self.options.channels_last && tensor.dim() == 4;
        let tensor = if laid_out { torch::channels_last(&tensor)? } else { tensor };
        let source = Source::Constant(self.program.constants.len());
        self.program.constants.push(Constant { name: name.to_owned(), tensor });
        self.sources.insert(name, source);
        Ok(source)
    }

    fn nodes(&mut self, pairs: &HashMap<usize, Pair>) -> Result<()> {
        let by_output: HashMap<&str, (usize, &Pair)> = pairs
            .iter()
            .map(|(&index, pair)| (self.graph.nodes[index].outputs[0].as_str(), (index, pair)))
            .collect();
        for (index, node) in self.graph.nodes.iter().enumerate() {
            if node.is_constant() || pairs.contains_key(&index) {
                continue;
            }
            let place = self.model.place(node);
            let pair = node.input(0).and_then(|name| by_output.get(name));
            let done = match pair {
                Some(&(quantize, pair)) if node.op_type == "DequantizeLinear" => {
                    self.fake_quantize(&self.graph.nodes[quantize], pair, index, place.clone())
                }
                _ => self.node(node, place.clone()),
            };
            done.map_err(|error| error.at(place))?;
        }
        Ok(())
    }

    fn node(&mut self, node: &'a Node, place: String) -> Result<()> {
        let device = self.options.device;
        let kernel = prepare::kernel(node, self.opset, device, &self.constants, &self.types)?;
        let kernel = self.types.wrapping(node, kernel);
        let statistics = ops::running_statistics(node);
        let frozen = self.options.frozen_statistics && !statistics.is_empty();
        let kernel = if frozen { at_inference(kernel) } else { kernel };
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(if name.is_empty() { Source::Nothing } else { self.source(name)? });
        }
        for &index in statistics.iter().filter(|_| !frozen) {
            match inputs.get(index) {
                Some(&Source::Constant(c)) if !self.program.statistics.contains(&c) => {
                    self.program.statistics.push(c);
                }
                _ => {}
            }
        }
        self.step(kernel, inputs, &node.outputs, place);
        self.spare.note(node, &self.program);
        Ok(())
    }

    /// The step of a pair runs once, at its first dequantization; the others read the same slot.
    fn fake_quantize(
        &mut self,
        quantize: &'a Node,
        pair: &Pair,
        index: usize,
        place: String,
    ) -> Result<()> {
        let node = &self.graph.nodes[index];
        if index != pair.first {
            let first = self.source(&self.graph.nodes[pair.first].outputs[0])?;
            self.sources.insert(&node.outputs[0], first);
            return Ok(());
        }
        let input = quantize.input(0).ok_or_else(|| Error::user("input 0 is missing"))?;
        let mut inputs = vec![self.source(input)?];
        let (kernel, scale) = self.scaled(quantize, &pair.fake)?;
        inputs.extend(scale);
        self.step(kernel, inputs, &node.outputs, place);
        Ok(())
    }

    fn step(&mut self, kernel: Kernel, inputs: Vec<Source>, outputs: &'a [String], place: String) {
        let outputs = outputs
            .iter()
            .map(|name| if name.is_empty() { None } else { Some(self.slot(name)) })
            .collect();
        let (watched, last_use) = (Vec::new(), Vec::new());
        let spare = None;
        self.program.steps.push(Step { kernel, inputs, outputs, watched, last_use, spare, place });
    }

    fn outputs(&mut self) -> Result<()> {
        for output in &self.graph.outputs {
            let source = self.source(&output.name)?;
            self.program.outputs.push(source);
        }
        Ok(())
    }

    fn watch(&mut self) -> Result<()> {
        for (index, name) in self.options.watch.iter().enumerate() {
            let source = self.source(name).map_err(|error| error.at("watched values"))?;
            let step = self.program.steps.iter_mut().find_map(|step| {
                let slot = step.outputs.iter().flatten();
                let slot = slot.copied().find(|&slot| source == Source::Slot(slot))?;
                Some((step, slot))
            });
            match step {
                Some((step, slot)) => step.watched.push((index, slot)),
                None => self.program.watched.push((index, source)),
            }
        }
        Ok(())
    }

    fn parameters(&mut self) {
        let names: HashSet<&str> = self.constants.keys().copied().collect();
        let roles = parameters::roles(self.graph, &names);
        for constant in &self.program.constants {
            let trainable = matches!(constant.tensor.kind(), tch::Kind::Float | tch::Kind::Double);
            let name = constant.name.as_str();
            let learned = self.learned.contains(name).then_some(Role::Scale);
            if let (true, Some(role)) = (trainable, learned.or(roles.get(name).copied())) {
                let tensor: Tensor = constant.tensor.shallow_clone();
                self.program.parameters.push(Parameter {
                    name: constant.name.clone(),
                    tensor,
                    role,
                });
            }
        }
    }

    /// Frees each slot after the last step that reads it, or that makes it for nobody.
    fn last_uses(&mut self) {
        let mut seen: HashSet<usize> = HashSet::new();
        let slot = |source: &Source| match source {
            Source::Slot(slot) => Some(*slot),
            _ => None,
        };
        seen.extend(self.program.outputs.iter().filter_map(slot));
        for step in self.program.steps.iter_mut().rev() {
            let touched = step.inputs.iter().filter_map(slot);
            for slot in touched.chain(step.outputs.iter().flatten().copied()) {
                if seen.insert(slot) {
                    step.last_use.push(slot);
                }
            }
        }
    }
}
