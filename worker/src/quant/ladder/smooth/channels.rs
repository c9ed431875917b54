//! Which channel each element of a value belongs to, and where operators move it.
//!
//! A value carries the numbers of channels in a tensor of its own shape (on one small batch). Operators that only move elements are run on those
//! numbers: what they do with reshapes, heads of attention and slices then needs no rule of its own.

use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use crate::graph::{Graph, Model, Node, ValueInfo};
use crate::interp::{Mode, Options, Program};
use crate::{Error, Result, torch};

/// All values of a model for a few images, by name.
pub(super) struct Values {
    values: HashMap<String, Tensor>,
    /// The model without its graph.
    shell: Model,
}

impl Values {
    /// Runs the model once and keeps what each node makes.
    ///
    /// # Errors
    /// What a node refuses.
    pub fn of(model: &Model, images: &Tensor) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let made = model.graph.nodes.iter().filter(|node| !node.is_constant());
        let made = made.flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
        let watch: Vec<String> = made.cloned().collect();
        let options = Options { watch: watch.clone(), channels_last: false, ..Options::default() };
        let mut program = Program::compile(model, &options)?;
        let mut values = HashMap::new();
        program.forward(&[images.shallow_clone()], Mode::Eval, &mut |index, value| {
            values.insert(watch[index].clone(), value.f_detach_copy()?);
            Ok(())
        })?;
        if let [input] = &model.graph.inputs[..] {
            values.insert(input.name.clone(), images.shallow_clone());
        }
        let shell = Model { graph: Graph::default(), ..model.clone() };
        Ok(Self { values, shell })
    }

    /// Extents of a value; `None`: a constant, or one that training alone makes.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.values.get(name).map(Tensor::size)
    }

    /// What a node makes when its first input is the numbers of channels, as operator `op`, which reads the same inputs.
    ///
    /// # Errors
    /// What it refuses.
    fn run(&self, graph: &Graph, node: &Node, op: &str, first: &Tensor) -> Result<Vec<Tensor>> {
        let mut own = node.clone();
        op.clone_into(&mut own.op_type);
        // A name of its own: the value may be read at another place of the node, too.
        let numbers = graph.fresh_name("channels");
        own.inputs[0].clone_from(&numbers);
        let (mut names, mut inputs) = (vec![numbers], vec![first.shallow_clone()]);
        let mut initializers = indexmap::IndexMap::new();
        for name in own.inputs[1..].iter().filter(|name| !name.is_empty()) {
            if let Some(data) = graph.initializers.get(name) {
                initializers.insert(name.clone(), data.clone());
            } else if !names.contains(name) {
                let value = self.values.get(name);
                let value = value.ok_or_else(|| Error::user(format!("`{name}` is not known")))?;
                inputs.push(value.f_to_device(Device::Cpu)?);
                names.push(name.clone());
            }
        }
        let info = |name: &String| ValueInfo {
            name: name.clone(),
            dtype: None,
            shape: None,
            opaque: None,
        };
        let outputs = own.outputs.iter().filter(|name| !name.is_empty()).map(info).collect();
        let inner = Graph {
            nodes: vec![own],
            inputs: names.iter().map(info).collect(),
            outputs,
            initializers,
            ..Graph::default()
        };
        let options = Options { channels_last: false, device: Device::Cpu, ..Options::default() };
        let model = Model { graph: inner, ..self.shell.clone() };
        let _no_grad = tch::no_grad_guard();
        Program::compile(&model, &options)?.forward(&inputs, Mode::Eval, &mut |_, _| Ok(()))
    }

    /// The channels of a node's outputs, where it only moves elements of its first input.
    ///
    /// # Errors
    /// What the node refuses.
    pub fn moved(&self, graph: &Graph, node: &Node, channels: &Channels) -> Result<Vec<Channels>> {
        let made = self.run(graph, node, &node.op_type, &channels.0)?;
        Ok(made.into_iter().map(Channels).collect())
    }

    /// The channels of what a reduction makes of its first input; `None`: it reduces over several of them.
    ///
    /// # Errors
    /// What the node refuses.
    pub fn reduced(
        &self,
        graph: &Graph,
        node: &Node,
        channels: &Channels,
    ) -> Result<Option<Channels>> {
        let [least, most] =
            ["ReduceMin", "ReduceMax"].map(|op| self.run(graph, node, op, &channels.0));
        let (least, most) = (least?.swap_remove(0), most?.swap_remove(0));
        Ok(least.f_equal(&most)?.then_some(Channels(most)))
    }
}

/// Numbers of channels in the shape of a value, float.
pub(super) struct Channels(Tensor);

impl Channels {
    /// Of a value of shape `shape`, whose channels are numbered along the axes that `own` has, counted from the right.
    ///
    /// # Errors
    /// Extents that do not broadcast.
    pub fn along(own: &[i64], shape: &[i64]) -> Result<Self> {
        let count = own.iter().product::<i64>();
        let numbers = Tensor::f_arange(count, (Kind::Float, Device::Cpu))?;
        Ok(Self(numbers.f_reshape(own)?.f_expand(shape, false)?.f_contiguous()?))
    }

    /// The same for what an elementwise operator makes, of shape `shape`.
    ///
    /// # Errors
    /// Extents that do not broadcast.
    pub fn broadcast(&self, shape: &[i64]) -> Result<Self> {
        Ok(Self(self.0.f_expand(shape, false)?.f_contiguous()?))
    }

    /// The same where each axis along which the channel is the same has extent 1, and the channel of each element.
    ///
    /// # Errors
    /// libtorch's.
    pub fn compact(&self) -> Result<(Vec<i64>, Vec<usize>)> {
        let mut least = self.0.shallow_clone();
        for axis in 0..least.dim() as i64 {
            let first = least.f_narrow(axis, 0, 1)?;
            if first.f_expand_as(&least)?.f_equal(&least)? {
                least = first;
            }
        }
        let numbers: Vec<f32> = Vec::try_from(least.f_contiguous()?.f_view([-1])?)?;
        Ok((least.size(), numbers.into_iter().map(|number| number as usize).collect()))
    }

    /// The channel at each place of one axis (negative: from the right), if it depends on nothing else.
    ///
    /// # Errors
    /// libtorch's.
    pub fn on_axis(&self, axis: i64) -> Result<Option<Vec<usize>>> {
        let rank = self.0.dim() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        let (shape, numbers) = self.compact()?;
        let alone = (0..rank).all(|other| other == axis || shape[other as usize] == 1);
        if !alone || !(0..rank).contains(&axis) {
            return Ok(None);
        }
        let extent = self.0.size()[axis as usize] as usize;
        Ok(Some(if numbers.len() == 1 { vec![numbers[0]; extent] } else { numbers }))
    }

    /// The channels of a value of shape `shape` that is made by a sum over one axis (negative: from the right) or over windows of all axes from
    /// `axes` on; `None`: the channel is not the same along them.
    ///
    /// # Errors
    /// Extents that do not broadcast.
    pub fn summed(&self, axes: std::ops::Range<i64>, shape: &[i64]) -> Result<Option<Self>> {
        let mut least = self.0.shallow_clone();
        for axis in axes {
            let first = least.f_narrow(axis, 0, 1)?;
            if !first.f_expand_as(&least)?.f_equal(&least)? {
                return Ok(None);
            }
            least = first;
        }
        Ok(Some(Self(least.f_expand(shape, false)?.f_contiguous()?)))
    }

    /// Rank of the value.
    pub fn rank(&self) -> i64 {
        self.0.dim() as i64
    }
}

/// A constant of the graph as a float tensor on the CPU.
///
/// # Errors
/// A type that libtorch does not have.
pub(super) fn constant(graph: &Graph, name: &str) -> Result<Tensor> {
    torch::to_tensor(&graph.initializers[name], Device::Cpu)
}
