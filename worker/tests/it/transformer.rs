//! Small vision transformers, written node by node in the forms that exporters have.

use qpipe_worker::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};

/// Width of tokens, tokens, heads, and the width inside an MLP.
pub const WIDTH: i64 = 32;
const TOKENS: i64 = 16;
const HEADS: i64 = 4;
const INNER: i64 = 64;

/// How a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// LayerNormalization, one MatMul each for queries, keys and values, a bias added behind it.
    Operators,
    /// Normalizations written out, one MatMul for all three, taken apart by Reshape, Transpose and Gather.
    WrittenOut,
    /// RMSNormalization, an MLP with a SiLU gate, queries, keys and values by Split.
    Rms,
}

/// Builds a graph; weights are random with a gain of about 1.
struct Builder {
    graph: Graph,
    state: u32,
}

impl Builder {
    fn uniform(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.state >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn random(&mut self, name: &str, shape: &[i64], around: f32, spread: f32) -> String {
        let count = shape.iter().product::<i64>();
        let values: Vec<f32> = (0..count).map(|_| around + spread * self.uniform()).collect();
        self.graph.initializers.insert(name.to_owned(), TensorData::f32(shape, &values));
        name.to_owned()
    }

    fn weight(&mut self, name: &str, shape: &[i64], inputs: i64) -> String {
        self.random(name, shape, 0.0, (3.0 / inputs as f32).sqrt())
    }

    fn ints(&mut self, values: &[i64]) -> String {
        let name = format!("ints_{}", self.graph.initializers.len());
        let data = TensorData::i64(&[values.len() as i64], values);
        self.graph.initializers.insert(name.clone(), data);
        name
    }

    fn number(&mut self, value: f32) -> String {
        let name = format!("number_{}", self.graph.initializers.len());
        self.graph.initializers.insert(name.clone(), TensorData::f32(&[], &[value]));
        name
    }

    fn node(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[&str],
        with: &[(&str, Attribute)],
    ) -> String {
        let mut node = Node::new(name, op, inputs, &[&format!("{name}.out")]);
        for (key, value) in with {
            node = node.with(key, value.clone());
        }
        let output = node.outputs[0].clone();
        self.graph.nodes.push(node);
        output
    }

    fn linear(&mut self, name: &str, x: &str, (inputs, outputs): (i64, i64)) -> String {
        let weight = self.weight(&format!("{name}.weight"), &[inputs, outputs], inputs);
        let bias = self.random(&format!("{name}.bias"), &[outputs], 0.0, 0.2);
        let made = self.node(name, "MatMul", &[x, &weight], &[]);
        self.node(&format!("{name}.add"), "Add", &[&bias, &made], &[])
    }

    fn norm(&mut self, name: &str, x: &str, form: Form) -> String {
        let scale = self.random(&format!("{name}.weight"), &[WIDTH], 1.0, 0.3);
        if form == Form::Rms {
            return self.node(name, "RMSNormalization", &[x, &scale], &[]);
        }
        let shift = self.random(&format!("{name}.bias"), &[WIDTH], 0.0, 0.2);
        if form == Form::Operators {
            return self.node(name, "LayerNormalization", &[x, &scale, &shift], &[]);
        }
        let axes = self.ints(&[-1]);
        let (two, epsilon) = (self.number(2.0), self.number(1e-5));
        let part = |part: &str| format!("{name}.{part}");
        let mean = self.node(&part("mean"), "ReduceMean", &[x, &axes], &[]);
        let centred = self.node(&part("sub"), "Sub", &[x, &mean], &[]);
        let square = self.node(&part("pow"), "Pow", &[&centred, &two], &[]);
        let variance = self.node(&part("variance"), "ReduceMean", &[&square, &axes], &[]);
        let safe = self.node(&part("safe"), "Add", &[&variance, &epsilon], &[]);
        let root = self.node(&part("sqrt"), "Sqrt", &[&safe], &[]);
        let normal = self.node(&part("div"), "Div", &[&centred, &root], &[]);
        let scaled = self.node(name, "Mul", &[&normal, &scale], &[]);
        self.node(&part("add"), "Add", &[&scaled, &shift], &[])
    }

    fn transpose(&mut self, name: &str, x: &str, order: &[i64]) -> String {
        self.node(name, "Transpose", &[x], &[("perm", Attribute::Ints(order.to_vec()))])
    }

    /// Queries, keys and values `[N, heads, tokens, width of a head]`.
    fn heads(&mut self, name: &str, x: &str, form: Form) -> [String; 3] {
        let each = WIDTH / HEADS;
        let split = self.ints(&[-1, TOKENS, HEADS, each]);
        if form == Form::Operators {
            return ["q", "k", "v"].map(|part| {
                let made = self.linear(&format!("{name}.{part}"), x, (WIDTH, WIDTH));
                let apart =
                    self.node(&format!("{name}.{part}.apart"), "Reshape", &[&made, &split], &[]);
                self.transpose(&format!("{name}.{part}.heads"), &apart, &[0, 2, 1, 3])
            });
        }
        let all = self.linear(&format!("{name}.qkv"), x, (WIDTH, 3 * WIDTH));
        if form == Form::WrittenOut {
            let shape = self.ints(&[-1, TOKENS, 3, HEADS, each]);
            let apart = self.node(&format!("{name}.apart"), "Reshape", &[&all, &shape], &[]);
            let first = self.transpose(&format!("{name}.first"), &apart, &[2, 0, 3, 1, 4]);
            return [0, 1, 2].map(|part| {
                let index = format!("{name}.index.{part}");
                self.graph.initializers.insert(index.clone(), TensorData::i64(&[], &[part]));
                self.node(&format!("{name}.part.{part}"), "Gather", &[&first, &index], &[])
            });
        }
        let lengths = self.ints(&[WIDTH; 3]);
        let parts = ["q", "k", "v"].map(|part| format!("{name}.{part}"));
        let outputs: Vec<&str> = parts.iter().map(String::as_str).collect();
        let node = Node::new(&format!("{name}.split"), "Split", &[&all, &lengths], &outputs)
            .with("axis", Attribute::Int(-1));
        self.graph.nodes.push(node);
        parts.map(|part| {
            let apart = self.node(&format!("{part}.apart"), "Reshape", &[&part, &split], &[]);
            self.transpose(&format!("{part}.heads"), &apart, &[0, 2, 1, 3])
        })
    }

    fn block(&mut self, name: &str, x: &str, form: Form) -> String {
        let part = |part: &str| format!("{name}.{part}");
        let normal = self.norm(&part("norm1"), x, form);
        let [q, k, v] = self.heads(&part("attention"), &normal, form);
        let k = self.transpose(&part("attention.turned"), &k, &[0, 1, 3, 2]);
        let scores = self.node(&part("attention.scores"), "MatMul", &[&q, &k], &[]);
        let root = self.number(((WIDTH / HEADS) as f32).sqrt());
        let scores = self.node(&part("attention.scaled"), "Div", &[&scores, &root], &[]);
        let last = [("axis", Attribute::Int(-1))];
        let share = self.node(&part("attention.softmax"), "Softmax", &[&scores], &last);
        let mixed = self.node(&part("attention.mixed"), "MatMul", &[&share, &v], &[]);
        let mixed = self.transpose(&part("attention.back"), &mixed, &[0, 2, 1, 3]);
        let shape = self.ints(&[-1, TOKENS, WIDTH]);
        let mixed = self.node(&part("attention.together"), "Reshape", &[&mixed, &shape], &[]);
        let made = self.linear(&part("attention.proj"), &mixed, (WIDTH, WIDTH));
        let x = self.node(&part("add1"), "Add", &[x, &made], &[]);
        let normal = self.norm(&part("norm2"), &x, form);
        let inner = self.linear(&part("fc1"), &normal, (WIDTH, INNER));
        let inner = if form == Form::Rms {
            let gate = self.linear(&part("gate"), &normal, (WIDTH, INNER));
            let share = self.node(&part("sigmoid"), "Sigmoid", &[&gate], &[]);
            let gate = self.node(&part("silu"), "Mul", &[&gate, &share], &[]);
            self.node(&part("gated"), "Mul", &[&gate, &inner], &[])
        } else {
            self.node(&part("gelu"), "Gelu", &[&inner], &[])
        };
        let made = self.linear(&part("fc2"), &inner, (INNER, WIDTH));
        self.node(&part("add2"), "Add", &[&x, &made], &[])
    }
}

/// A vision transformer for images `[N, 1, 28, 28]` with a block of each form; logits `[N, 10]`.
pub fn transformer(forms: &[Form]) -> Model {
    let mut builder = Builder { graph: Graph::default(), state: 17 };
    let shape = vec![Dim::Named("N".to_owned()), Dim::Fixed(1), Dim::Fixed(28), Dim::Fixed(28)];
    builder.graph.inputs.push(ValueInfo::f32("images", shape));
    let weight = builder.weight("patches.weight", &[WIDTH, 1, 7, 7], 49);
    let square = |name: &'static str| (name, Attribute::Ints(vec![7, 7]));
    let with = [square("kernel_shape"), square("strides")];
    let patches = builder.node("patches", "Conv", &["images", &weight], &with);
    let shape = builder.ints(&[-1, WIDTH, TOKENS]);
    let tokens = builder.node("flat", "Reshape", &[&patches, &shape], &[]);
    let mut tokens = builder.transpose("tokens", &tokens, &[0, 2, 1]);
    for (index, form) in forms.iter().enumerate() {
        tokens = builder.block(&format!("block{index}"), &tokens, *form);
    }
    let normal = builder.norm("norm", &tokens, Form::Operators);
    let axes = builder.ints(&[1]);
    let with = [("keepdims", Attribute::Int(0))];
    let mean = builder.node("mean", "ReduceMean", &[&normal, &axes], &with);
    let weight = builder.weight("head.weight", &[10, WIDTH], WIDTH);
    let bias = builder.random("head.bias", &[10], 0.0, 0.1);
    builder.graph.nodes.push(
        Node::new("head", "Gemm", &[&mean, &weight, &bias], &["logits"])
            .with("transB", Attribute::Int(1)),
    );
    let shape = vec![Dim::Named("N".to_owned()), Dim::Fixed(10)];
    builder.graph.outputs.push(ValueInfo::f32("logits", shape));
    Model::new(builder.graph, 23)
}

/// Multiplies a few channels of the normalizations before attention and MLP, as large transformers have them. With `compensated`, the weights that
/// read them are divided by as much, so that the model computes the same.
pub fn with_outliers(model: &mut Model, factor: f32, compensated: bool) {
    const OUTLIERS: [usize; 2] = [5, 19];
    let width = WIDTH as usize;
    for (name, data) in &mut model.graph.initializers {
        let norm = name.contains(".norm");
        let reads = ["q", "k", "v", "qkv", "fc1", "gate"]
            .iter()
            .any(|part| name.ends_with(&format!(".{part}.weight")));
        if !(norm || reads && compensated) {
            continue;
        }
        let row = data.len() / width;
        let mut values = data.to_f32().expect("floats");
        for channel in OUTLIERS {
            for value in &mut values[channel * row..(channel + 1) * row] {
                *value = if norm { *value * factor } else { *value / factor };
            }
        }
        *data = TensorData::f32(&data.shape.clone(), &values);
    }
}
