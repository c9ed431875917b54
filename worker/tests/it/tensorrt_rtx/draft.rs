//! Small float graphs for TensorRT-RTX: a value is called as the node that makes it.

use qpipe_worker::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};

/// Images of a batch.
pub const BATCH: i64 = 2;
/// Channels of every value but where a graph says otherwise: whole vectors of integer kernels.
pub const CHANNELS: i64 = 32;
/// Height and width of the input.
pub const SIDE: i64 = 16;

/// A graph in the making; its input is `x` [2, 32, 16, 16].
pub struct Draft {
    graph: Graph,
    state: u32,
}

impl Draft {
    pub fn new() -> Self {
        Self::of([CHANNELS, SIDE, SIDE])
    }

    /// One whose input has that shape behind the batch.
    pub fn of([channels, height, width]: [i64; 3]) -> Self {
        let shape = [BATCH, channels, height, width].map(Dim::Fixed).to_vec();
        let graph = Graph {
            name: "drafted".to_owned(),
            inputs: vec![ValueInfo::f32("x", shape)],
            ..Graph::default()
        };
        Self { graph, state: 7 }
    }

    /// A constant of random numbers from −1 to 1.
    pub fn random(&mut self, name: &str, shape: &[i64]) {
        let mut next = || {
            self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| next()).collect();
        self.graph.initializers.insert(name.to_owned(), TensorData::f32(shape, &values));
    }

    /// The same from 0.5 to 1.5.
    pub fn positive(&mut self, name: &str, shape: &[i64]) {
        self.random(name, shape);
        let data = &self.graph.initializers[name];
        let values = data.to_f32().expect("floats").into_iter().map(|value| 1.0 + value / 2.0);
        let data = TensorData::f32(shape, &values.collect::<Vec<f32>>());
        self.graph.initializers.insert(name.to_owned(), data);
    }

    pub fn number(&mut self, name: &str, value: f32) {
        self.graph.initializers.insert(name.to_owned(), TensorData::f32(&[], &[value]));
    }

    pub fn ints(&mut self, name: &str, values: &[i64]) {
        let data = TensorData::i64(&[values.len() as i64], values);
        self.graph.initializers.insert(name.to_owned(), data);
    }

    pub fn node(&mut self, name: &str, operator: &str, inputs: &[&str]) -> &mut Node {
        self.graph.nodes.push(Node::new(name, operator, inputs, &[name]));
        self.graph.nodes.last_mut().expect("it was just added")
    }

    pub fn with(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        self.node(name, operator, inputs).attributes.extend(attributes);
    }

    /// A convolution of 3×3 with a bias, from 32 channels to 32.
    pub fn conv(&mut self, name: &str, input: &str) {
        self.conv_of(name, input, [CHANNELS, CHANNELS], 1, 1);
    }

    /// One with other channels, groups and stride.
    pub fn conv_of(
        &mut self,
        name: &str,
        input: &str,
        [from, to]: [i64; 2],
        groups: i64,
        stride: i64,
    ) {
        let (weight, bias) = (format!("{name}_w"), format!("{name}_b"));
        self.random(&weight, &[to, from / groups, 3, 3]);
        self.random(&bias, &[to]);
        let attributes = [
            ("pads", Attribute::Ints(vec![1; 4])),
            ("strides", Attribute::Ints(vec![stride; 2])),
            ("group", Attribute::Int(groups)),
        ];
        self.with(name, "Conv", &[input, &weight, &bias], &attributes);
    }

    /// A convolution of 1×1 with a bias.
    pub fn pointwise(&mut self, name: &str, input: &str, [from, to]: [i64; 2]) {
        let (weight, bias) = (format!("{name}_w"), format!("{name}_b"));
        self.random(&weight, &[to, from, 1, 1]);
        self.random(&bias, &[to]);
        self.node(name, "Conv", &[input, &weight, &bias]);
    }

    /// A product with a constant matrix and a bias behind it: `NAME_product` and `NAME`.
    pub fn linear(&mut self, name: &str, input: &str, shape: [i64; 2]) {
        let [weight, bias, product] = ["w", "b", "product"].map(|part| format!("{name}_{part}"));
        self.random(&weight, &shape);
        self.random(&bias, &shape[1..]);
        self.node(&product, "MatMul", &[input, &weight]);
        self.node(name, "Add", &[&product, &bias]);
    }

    /// Both halves of the channels.
    pub fn halves(&mut self, input: &str, names: [&str; 2]) {
        let node = Node::new(&format!("{input}_split"), "Split", &[input], &names);
        self.graph.nodes.push(node.with("axis", Attribute::Int(1)));
    }

    /// GELU with Erf, as exporters write it out: `NAME_…` and `NAME`.
    pub fn gelu(&mut self, name: &str, input: &str) {
        let part = |part: &str| format!("{name}_{part}");
        for (constant, value) in [("root", 2.0_f32.sqrt()), ("one", 1.0), ("half", 0.5)] {
            self.number(&part(constant), value);
        }
        self.node(&part("scaled"), "Div", &[input, &part("root")]);
        self.node(&part("erf"), "Erf", &[&part("scaled")]);
        self.node(&part("more"), "Add", &[&part("erf"), &part("one")]);
        self.node(&part("product"), "Mul", &[input, &part("more")]);
        self.node(name, "Mul", &[&part("product"), &part("half")]);
    }

    /// The model; its outputs with their shapes behind the batch.
    pub fn end(mut self, outputs: &[(&str, &[i64])]) -> Model {
        let output = |(name, shape): &(&str, &[i64])| {
            let shape = std::iter::once(&BATCH).chain(*shape).map(|&extent| Dim::Fixed(extent));
            ValueInfo::f32(name, shape.collect())
        };
        self.graph.outputs = outputs.iter().map(output).collect();
        Model::new(self.graph, 17)
    }
}
