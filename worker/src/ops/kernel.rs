//! What an operator is given to prepare a node, and what it gives back.

use tch::{Device, Tensor};

use crate::graph::{DType, Node, TensorData};
use crate::shapes::Rule;
use crate::{Error, Result, torch};

/// A node to prepare: its attributes are read once, before anything runs.
pub struct Prepare<'a> {
    /// The node.
    pub node: &'a Node,
    /// The operator set that the model imports.
    pub opset: i64,
    /// Where it will run.
    pub device: Device,
    /// Its inputs, where they are constants.
    pub constants: Vec<Option<&'a TensorData>>,
    /// The element types of its inputs, where they are known.
    pub types: Vec<Option<DType>>,
}

impl<'a> Prepare<'a> {
    /// Input `index`, if it is a constant.
    pub fn constant(&self, index: usize) -> Option<&'a TensorData> {
        self.constants.get(index).copied().flatten()
    }

    /// The element type of input `index`, if it is known.
    pub fn dtype(&self, index: usize) -> Option<DType> {
        self.types.get(index).copied().flatten()
    }

    /// Refuses an attribute that is present with another value than `only`.
    pub fn require_int(&self, name: &str, only: i64) -> Result<()> {
        match self.node.int(name, only)? {
            value if value == only => Ok(()),
            value => Err(Error::user(format!("`{name}` = {value} is not supported, only {only}"))),
        }
    }

    /// Integers from input `index`, or before `since` from attribute `name`: where newer opsets moved an
    /// attribute to an input. `None`: the input is computed only at run time, or left out.
    pub fn moved_ints(&self, name: &str, since: i64) -> Result<Option<Vec<i64>>> {
        if self.opset >= since { Ok(None) } else { Ok(self.node.ints(name)?.map(<[i64]>::to_vec)) }
    }
}

/// The elements of a small input that the processor reads: of a constant before anything runs, since a GPU would be waited for in each pass, which no CUDA
/// graph can hold.
pub struct Few {
    index: usize,
    known: Option<Vec<f64>>,
}

impl Few {
    /// Of input `index`.
    pub fn new(prepare: &Prepare, index: usize) -> Self {
        let read = |data: &TensorData| doubles(&torch::to_tensor(data, Device::Cpu)?);
        Self { index, known: prepare.constant(index).and_then(|data| read(data).ok()) }
    }

    /// The elements, row by row; `None` where the input is left out.
    pub fn of(&self, arguments: &Arguments) -> Result<Option<Vec<f64>>> {
        match &self.known {
            Some(known) => Ok(Some(known.clone())),
            None => arguments.optional(self.index).map(doubles).transpose(),
        }
    }

    /// The first of them, if there is one.
    pub fn first(&self, arguments: &Arguments) -> Result<Option<f64>> {
        Ok(self.of(arguments)?.and_then(|all| all.first().copied()))
    }
}

fn doubles(tensor: &Tensor) -> Result<Vec<f64>> {
    let row = tensor.f_to_kind(tch::Kind::Double)?.f_reshape([-1])?.f_to_device(Device::Cpu)?;
    Ok(Vec::try_from(row)?)
}

/// What a prepared node is given to run.
pub struct Arguments<'a> {
    /// Its inputs; `None` where one is left out.
    pub tensors: &'a [Option<&'a Tensor>],
    /// Whether BatchNormalization takes the batch's statistics and Dropout drops.
    pub training: bool,
    /// The input that nobody reads afterwards, so that the output may take its memory.
    pub spare: Option<usize>,
}

impl<'a> Arguments<'a> {
    /// Inputs as they are for inference; none is spare.
    pub fn of(tensors: &'a [Option<&'a Tensor>]) -> Self {
        Self { tensors, training: false, spare: None }
    }

    /// Input `index` to be changed in place, where its memory is spare.
    pub fn spare(&self, index: usize) -> Option<Tensor> {
        if self.spare == Some(index) {
            self.optional(index).map(Tensor::shallow_clone)
        } else {
            None
        }
    }

    /// Input `index`, which the operator cannot do without.
    pub fn get(&self, index: usize) -> Result<&'a Tensor> {
        self.optional(index).ok_or_else(|| Error::user(format!("input {index} is missing")))
    }

    /// Input `index`, or `None` where it is left out.
    pub fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.tensors.get(index).copied().flatten()
    }

    /// Input `index` as integers.
    pub fn ints(&self, index: usize) -> Result<Option<Vec<i64>>> {
        self.optional(index).map(ints).transpose()
    }

    /// Input `index` as float32.
    pub fn floats(&self, index: usize) -> Result<Option<Vec<f32>>> {
        self.optional(index).map(floats).transpose()
    }
}

/// The elements of an integer tensor.
pub fn ints(tensor: &Tensor) -> Result<Vec<i64>> {
    torch::tensor_data(&tensor.f_to_kind(tch::Kind::Int64)?)?.to_i64()
}

/// The elements of a tensor as float32, row by row.
pub fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    torch::tensor_data(&tensor.f_to_kind(tch::Kind::Float)?)?.to_f32()
}

/// A prepared node: inputs to outputs.
pub type Kernel = Box<dyn Fn(&Arguments) -> Result<Vec<Tensor>> + Send>;

/// A kernel with one output.
pub fn single(run: impl Fn(&Arguments) -> Result<Tensor> + Send + 'static) -> Result<Kernel> {
    Ok(Box::new(move |arguments| Ok(vec![run(arguments)?])))
}

/// One operator of the table.
pub struct Op {
    /// Its name in the standard's own domain.
    pub name: &'static str,
    /// The opsets in which its definition changed, from the first that is implemented to the last.
    pub since: &'static [i64],
    /// The last opset in whose definition it is executed; `None`: all that are known.
    pub until: Option<i64>,
    /// Reads the attributes of a node and gives what runs it.
    pub prepare: fn(&Prepare) -> Result<Kernel>,
    /// What of its definition is refused, for the table in the documentation; empty: nothing.
    pub limits: &'static str,
    /// Whether a loss behind it says anything about what is before it.
    pub gradient: Gradient,
    /// What follows for the shapes of its outputs; `None`: nothing.
    pub shapes: Option<Rule>,
}

/// What an operator lets through to what is before it, when a model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradient {
    /// The gradient with respect to its floating inputs.
    Flows,
    /// Nothing: its outputs are integers, truth values or constant by pieces.
    Stops,
}

impl Op {
    /// An operator that is executed as the standard says, and through which gradients flow.
    pub const fn new(
        name: &'static str,
        since: &'static [i64],
        prepare: fn(&Prepare) -> Result<Kernel>,
    ) -> Self {
        Self {
            name,
            since,
            until: None,
            prepare,
            limits: "",
            gradient: Gradient::Flows,
            shapes: None,
        }
    }

    /// Says what of the definition is refused.
    pub const fn limits(mut self, limits: &'static str) -> Self {
        self.limits = limits;
        self
    }

    /// Says after which opset it is not executed: the standard dropped it, or changed it.
    pub const fn until(mut self, opset: i64) -> Self {
        self.until = Some(opset);
        self
    }

    /// Whether it is executed as `opset` defines it.
    pub fn is_in(&self, opset: i64) -> bool {
        self.since[0] <= opset && self.until.is_none_or(|until| opset <= until)
    }

    /// Says that no gradient flows through it.
    pub const fn without_gradient(mut self) -> Self {
        self.gradient = Gradient::Stops;
        self
    }

    /// Says how the shapes of its outputs follow from its inputs.
    pub const fn shapes(mut self, rule: Rule) -> Self {
        self.shapes = Some(rule);
        self
    }

    /// Where the standard defines it.
    pub fn address(&self) -> String {
        format!("https://onnx.ai/onnx/operators/onnx__{}.html", self.name)
    }
}

/// Axis `axis` of a tensor of rank `rank`, counted from the front.
pub fn axis_from_front(axis: i64, rank: usize) -> Result<i64> {
    let rank = rank as i64;
    let from_front = if axis < 0 { axis + rank } else { axis };
    if (0..rank.max(1)).contains(&from_front) {
        Ok(from_front)
    } else {
        Err(Error::user(format!("axis {axis} of a tensor of rank {rank}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_read_before_anything_runs() {
        let node = Node::new("n", "Pad", &["x", "p", "v"], &["y"]);
        let large = TensorData::i64(&[1], &[(1 << 40) + 1]);
        let prepare = Prepare {
            node: &node,
            opset: 17,
            device: Device::Cpu,
            constants: vec![None, None, Some(&large)],
            types: vec![None; 3],
        };
        let [computed, constant] = [1, 2].map(|index| Few::new(&prepare, index));
        let given = Tensor::from_slice(&[2.5_f32, 3.0]).view([2, 1]);
        let tensors = [Some(&given); 3];
        let arguments = Arguments::of(&tensors);
        assert_eq!(computed.of(&arguments).unwrap(), Some(vec![2.5, 3.0]));
        assert_eq!(constant.first(&arguments).unwrap(), Some(1_099_511_627_777.0));
        assert_eq!(constant.first(&Arguments::of(&[])).unwrap(), Some(1_099_511_627_777.0));
        assert_eq!(computed.of(&Arguments::of(&[])).unwrap(), None);
    }
}
