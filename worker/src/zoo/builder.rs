//! Writes layers, named as PyTorch's modules are, into a graph.

use qpipe::stages::model_source::ZooModel;

use super::build::{INPUT, OPSET, OUTPUT};
use super::init::Init;
use crate::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};

/// A value of the graph under construction: its name and its channels.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub name: String,
    pub channels: u32,
}

/// A convolution without bias; padding keeps the extent at stride 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    pub channels: u32,
    pub kernel: u32,
    pub stride: u32,
    pub groups: u32,
}

/// Appends layers; every layer's parameters carry its name.
pub(super) struct Builder {
    graph: Graph,
    init: Init,
}

impl Builder {
    pub fn new(name: &str, seed: u64) -> Self {
        let graph = Graph { name: name.to_owned(), ..Graph::default() };
        Self { graph, init: Init::new(seed) }
    }

    /// The network's input.
    pub fn input(&self, config: &ZooModel) -> Value {
        Value { name: INPUT.to_owned(), channels: config.in_channels }
    }

    fn push(&mut self, node: Node, channels: u32) -> Value {
        let name = node.outputs[0].clone();
        self.graph.nodes.push(node);
        Value { name, channels }
    }

    fn node(&mut self, name: &str, op_type: &str, inputs: &[&str]) -> Node {
        Node::new(name, op_type, inputs, &[&format!("{name}.output")])
    }

    fn parameter(&mut self, name: String, tensor: TensorData) -> String {
        self.graph.initializers.insert(name.clone(), tensor);
        name
    }

    /// `NAME.weight` of shape `[channels, in / groups, kernel, kernel]`, Kaiming normal, fan-out.
    pub fn conv(&mut self, name: &str, x: &Value, conv: Conv) -> Value {
        let Conv { channels, kernel, stride, groups } = conv;
        let shape = [channels, x.channels / groups, kernel, kernel].map(i64::from);
        let fan_out = i64::from(channels / groups * kernel * kernel);
        let weight = format!("{name}.weight");
        let tensor = self.init.kaiming_normal(&weight, &shape, fan_out);
        let weight = self.parameter(weight, tensor);
        let pad = i64::from((kernel - 1) / 2);
        let node = self
            .node(name, "Conv", &[&x.name, &weight])
            .with("dilations", Attribute::Ints(vec![1, 1]))
            .with("group", Attribute::Int(i64::from(groups)))
            .with("kernel_shape", Attribute::Ints(vec![i64::from(kernel); 2]))
            .with("pads", Attribute::Ints(vec![pad; 4]))
            .with("strides", Attribute::Ints(vec![i64::from(stride); 2]));
        self.push(node, channels)
    }

    /// `NAME.weight` 1, `.bias` 0, `.running_mean` 0, `.running_var` 1; ε 1e-5, momentum 0.9 (PyTorch's 0.1).
    pub fn batch_norm(&mut self, name: &str, x: &Value) -> Value {
        let mut inputs = vec![x.name.clone()];
        for (part, value) in
            [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
        {
            let tensor =
                TensorData::f32(&[i64::from(x.channels)], &vec![value; x.channels as usize]);
            inputs.push(self.parameter(format!("{name}.{part}"), tensor));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let node = self
            .node(name, "BatchNormalization", &inputs)
            .with("epsilon", Attribute::Float(1e-5))
            .with("momentum", Attribute::Float(0.9));
        self.push(node, x.channels)
    }

    pub fn relu(&mut self, name: &str, x: &Value) -> Value {
        let node = self.node(name, "Relu", &[&x.name]);
        self.push(node, x.channels)
    }

    /// min(max(x, 0), 6), a Clip.
    pub fn relu6(&mut self, name: &str, x: &Value) -> Value {
        let low = self.parameter("relu6.min".to_owned(), TensorData::f32(&[], &[0.0]));
        let high = self.parameter("relu6.max".to_owned(), TensorData::f32(&[], &[6.0]));
        let node = self.node(name, "Clip", &[&x.name, &low, &high]);
        self.push(node, x.channels)
    }

    pub fn add(&mut self, name: &str, a: &Value, b: &Value) -> Value {
        let node = self.node(name, "Add", &[&a.name, &b.name]);
        self.push(node, a.channels)
    }

    /// 3×3, stride 2, padding 1.
    pub fn max_pool(&mut self, name: &str, x: &Value) -> Value {
        let node = self
            .node(name, "MaxPool", &[&x.name])
            .with("kernel_shape", Attribute::Ints(vec![3, 3]))
            .with("pads", Attribute::Ints(vec![1; 4]))
            .with("strides", Attribute::Ints(vec![2, 2]));
        self.push(node, x.channels)
    }

    /// Mean over height and width, flattened: `[N, C, H, W]` → `[N, C]`.
    pub fn global_pool(&mut self, x: &Value) -> Value {
        let node = self.node("avgpool", "GlobalAveragePool", &[&x.name]);
        let x = self.push(node, x.channels);
        let node = self.node("flatten", "Flatten", &[&x.name]).with("axis", Attribute::Int(1));
        self.push(node, x.channels)
    }

    /// The head: `NAME.weight` `[classes, C]`, `NAME.bias` `[classes]`; its output is the model's.
    /// `std` is that of normal start weights and a zero bias; without it both are uniform as in
    /// `torch.nn.Linear`.
    pub fn head(&mut self, name: &str, x: &Value, classes: u32, std: Option<f64>) {
        let shape = [i64::from(classes), i64::from(x.channels)];
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let bound = 1.0 / f64::from(x.channels).sqrt();
        let tensors = match std {
            Some(std) => (
                self.init.normal(&weight, &shape, std),
                TensorData::f32(&shape[..1], &vec![0.0; classes as usize]),
            ),
            None => (
                self.init.uniform(&weight, &shape, bound),
                self.init.uniform(&bias, &shape[..1], bound),
            ),
        };
        let (weight, bias) = (self.parameter(weight, tensors.0), self.parameter(bias, tensors.1));
        let node = Node::new(name, "Gemm", &[&x.name, &weight, &bias], &[OUTPUT])
            .with("transB", Attribute::Int(1));
        self.push(node, classes);
    }

    /// The model, its input and output declared.
    pub fn finish(mut self, config: &ZooModel) -> Model {
        let batch = Dim::Named("batch".to_owned());
        let side = Dim::Fixed(i64::from(config.image_size));
        let channels = Dim::Fixed(i64::from(config.in_channels));
        self.graph.inputs =
            vec![ValueInfo::f32(INPUT, vec![batch.clone(), channels, side.clone(), side])];
        let classes = Dim::Fixed(i64::from(config.classes));
        self.graph.outputs = vec![ValueInfo::f32(OUTPUT, vec![batch, classes])];
        Model::new(self.graph, OPSET)
    }
}
