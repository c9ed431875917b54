//! A graph in the making: a seeded source of choices, constants in the forms that exporters have, and the extents of all values.

use qpipe_worker::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A float value and its extents behind the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub name: String,
    pub shape: Vec<i64>,
}

/// A graph in the making.
pub struct Draft {
    pub graph: Graph,
    /// 17, where axes of reductions are attributes, or 20, where they are inputs.
    pub opset: i64,
    /// All float values, in the order in which they were made.
    pub values: Vec<Value>,
    rng: ChaCha8Rng,
    /// Weights that further layers may read too.
    weights: Vec<(String, Vec<i64>)>,
}

impl Draft {
    /// Only the input, `[n, 1, side, side]`.
    pub fn new(seed: u64, side: i64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let opset = if rng.random_range(0..4) == 0 { 20 } else { 17 };
        let dims = [Dim::Named("n".to_owned()), Dim::Fixed(1), Dim::Fixed(side), Dim::Fixed(side)];
        let inputs = vec![ValueInfo::f32("input", dims.to_vec())];
        let graph = Graph { name: format!("random_{seed}"), inputs, ..Graph::default() };
        let values = vec![Value { name: "input".to_owned(), shape: vec![1, side, side] }];
        Self { graph, opset, values, rng, weights: Vec::new() }
    }

    pub fn below(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count)
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn fresh(&self, base: &str) -> String {
        format!("{base}_{}", self.graph.nodes.len() + self.graph.initializers.len())
    }

    /// Adds a constant; its name.
    pub fn constant(&mut self, data: TensorData) -> String {
        let name = self.fresh("c");
        // Some exporters write nodes in place of initializers.
        if self.chance(10) {
            let node = Node::new(&format!("{name}_node"), "Constant", &[], &[&name]);
            self.graph.nodes.push(node.with("value", Attribute::Tensor(data)));
        } else {
            self.graph.initializers.insert(name.clone(), data);
        }
        name
    }

    pub fn ints(&mut self, values: &[i64]) -> String {
        self.constant(TensorData::i64(&[values.len() as i64], values))
    }

    pub fn number(&mut self, value: f32) -> String {
        let shape: &[i64] = if self.chance(50) { &[] } else { &[1] };
        self.constant(TensorData::f32(shape, &[value]))
    }

    fn gaussian(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| self.rng.random_range(0.0_f32..1.0)).sum();
        sum - 6.0
    }

    /// Normally distributed numbers.
    pub fn random(&mut self, shape: &[i64], mean: f32, deviation: f32) -> Vec<f32> {
        (0..shape.iter().product::<i64>()).map(|_| mean + deviation * self.gaussian()).collect()
    }

    pub fn random_constant(&mut self, shape: &[i64], mean: f32, deviation: f32) -> String {
        let values = self.random(shape, mean, deviation);
        self.constant(TensorData::f32(shape, &values))
    }

    /// A weight with a gain of about 1; `channels` is the axis of its output channels, some of which are small, few of which are 0. Another layer's,
    /// or behind a node that computes it of constants, now and then.
    pub fn weight(&mut self, shape: &[i64], fan: i64, channels: usize) -> String {
        let same: Vec<String> = self
            .weights
            .iter()
            .filter(|(_, own)| own == shape)
            .map(|(name, _)| name.clone())
            .collect();
        if !same.is_empty() && self.chance(25) {
            let index = self.below(same.len());
            return same[index].clone();
        }
        let mut values = self.random(shape, 0.0, (1.0 / fan as f32).sqrt());
        let inner: usize = shape[channels + 1..].iter().product::<i64>() as usize;
        let count = shape[channels] as usize;
        let factors: Vec<f32> = (0..count)
            .map(|_| match self.below(20) {
                0 => 0.0,
                1..=4 => 0.1,
                _ => 1.0,
            })
            .collect();
        for (index, value) in values.iter_mut().enumerate() {
            *value *= factors[index / inner % count];
        }
        let name = match self.below(10) {
            0 => {
                let stored = self.constant(TensorData::f32(shape, &values));
                self.raw("Identity", &[&stored])
            }
            1 => self.turned(shape, &values),
            2 => {
                let stored = self.constant(TensorData::f32(shape, &values));
                let half = self.number(1.5);
                self.raw("Mul", &[&stored, &half])
            }
            _ => self.constant(TensorData::f32(shape, &values)),
        };
        self.weights.push((name.clone(), shape.to_vec()));
        name
    }

    /// Stored with its first two axes exchanged, and turned back by a node.
    fn turned(&mut self, shape: &[i64], values: &[f32]) -> String {
        let (rows, columns) = (shape[0] as usize, shape[1] as usize);
        let inner = values.len() / (rows * columns);
        let mut stored = Vec::with_capacity(values.len());
        for column in 0..columns {
            for row in 0..rows {
                let start = (row * columns + column) * inner;
                stored.extend_from_slice(&values[start..start + inner]);
            }
        }
        let mut extents = shape.to_vec();
        extents.swap(0, 1);
        let stored = self.constant(TensorData::f32(&extents, &stored));
        let mut order: Vec<i64> = (0..shape.len() as i64).collect();
        order.swap(0, 1);
        let name = self.raw("Transpose", &[&stored]);
        self.set("perm", Attribute::Ints(order));
        name
    }

    /// Adds a node whose output is no candidate for later ones; its output's name.
    pub fn raw(&mut self, op: &str, inputs: &[&str]) -> String {
        let name = self.fresh(&op.to_lowercase());
        self.graph.nodes.push(Node::new(&format!("{name}_node"), op, inputs, &[&name]));
        name
    }

    /// Adds a node that gives one float value of these extents behind the batch.
    pub fn node(&mut self, op: &str, inputs: &[&str], shape: &[i64]) -> Value {
        let name = self.raw(op, inputs);
        self.made(&name, shape)
    }

    /// Adds a node that gives float values of these extents.
    pub fn nodes(&mut self, op: &str, inputs: &[&str], shapes: &[Vec<i64>]) -> Vec<Value> {
        let name = self.fresh(&op.to_lowercase());
        let outputs: Vec<String> = (0..shapes.len()).map(|part| format!("{name}_{part}")).collect();
        let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
        self.graph.nodes.push(Node::new(&format!("{name}_node"), op, inputs, &names));
        outputs.iter().zip(shapes).map(|(name, shape)| self.made(name, shape)).collect()
    }

    fn made(&mut self, name: &str, shape: &[i64]) -> Value {
        let value = Value { name: name.to_owned(), shape: shape.to_vec() };
        self.values.push(value.clone());
        value
    }

    /// Gives the last node an attribute.
    pub fn set(&mut self, key: &str, value: Attribute) {
        let node = self.graph.nodes.last_mut().expect("a node was added");
        node.attributes.insert(key.to_owned(), value);
    }

    /// A value that fits, later ones rather than earlier ones.
    pub fn choose(&mut self, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        let found: Vec<Value> = self.values.iter().filter(|value| fits(value)).cloned().collect();
        let last = found.len().checked_sub(1)?;
        let index = if self.chance(60) { last } else { self.below(last + 1) };
        found.into_iter().nth(index)
    }

    /// The model: what nothing reads becomes outputs, three at most, so that the rest is dead; now and then one that is read too.
    pub fn finish(mut self) -> Model {
        let consumers = self.graph.consumers();
        let (read, unread): (Vec<Value>, Vec<Value>) = self.values[1..]
            .iter()
            .cloned()
            .partition(|value| consumers.contains_key(value.name.as_str()));
        let mut outputs: Vec<Value> = unread.into_iter().rev().take(3).collect();
        if !read.is_empty() && self.chance(25) {
            let index = self.below(read.len());
            outputs.push(read[index].clone());
        }
        self.graph.outputs = outputs
            .iter()
            .map(|value| {
                let own = value.shape.iter().map(|&extent| Dim::Fixed(extent));
                let dims = std::iter::once(Dim::Named("n".to_owned())).chain(own).collect();
                ValueInfo::f32(&value.name, dims)
            })
            .collect();
        Model::new(self.graph, self.opset)
    }
}
