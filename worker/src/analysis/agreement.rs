//! Whether two forms of a model compute the same, value by value.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;
use tch::{Kind, Tensor};

use super::fidelity::Fidelity;
use super::layout::turned_to;
use super::report::Step;
use crate::graph::Model;
use crate::interp::{Mode, Options, Program};
use crate::{Error, Result};

/// Decibels that one node loses where it computes something else; rounding the other way costs less.
const SUDDEN: f64 = 6.0;

/// What float32 loses of the values that are added up, as a share of their root mean square: where they cancel out, as in the mean of centred
/// values, what is left is that alone, and is another on each runtime.
const ROUNDING: f64 = 1e-6;

/// How far off values may be.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Least SQNR of each value, dB.
    pub sqnr_db: f64,
    /// Least share of rows of the outputs whose largest element stays.
    pub agreement: f64,
    /// A value below the budget is refused only where its node loses so much, dB, against the worst value that it reads. Roundings that
    /// fall the other way add up along a deep network; what is computed wrongly is lost at once.
    pub sudden_db: f64,
}

/// A model whose values are seen.
pub struct Seen {
    program: Program,
    names: Vec<String>,
}

impl Seen {
    /// Compiles `model`; `names` are wanted.
    pub fn new(model: &Model, names: &[String]) -> Result<Self> {
        let options = Options { watch: names.to_vec(), ..Options::default() };
        Ok(Self { program: Program::compile(model, &options)?, names: names.to_vec() })
    }

    /// The outputs for these images, and the values, by name.
    pub fn run(&mut self, images: &Tensor) -> Result<(Vec<Tensor>, HashMap<String, Tensor>)> {
        let _no_grad = tch::no_grad_guard();
        let mut values = HashMap::new();
        let names = &self.names;
        let images = [images.shallow_clone()];
        let outputs = self.program.forward(&images, Mode::Eval, &mut |index, value| {
            values.insert(names[index].clone(), value.shallow_clone());
            Ok(())
        })?;
        Ok((outputs, values))
    }
}

/// Names of the float values that nodes of both graphs make, in the order of the second, outputs included.
pub fn common(reference: &Model, other: &Model) -> Vec<String> {
    let made = |model: &Model| -> Vec<String> {
        let nodes = model.graph.nodes.iter().filter(|node| node.op_type != "QuantizeLinear");
        nodes.flat_map(|node| node.outputs.clone()).filter(|name| !name.is_empty()).collect()
    };
    let first: HashSet<String> = made(reference).into_iter().collect();
    made(other).into_iter().filter(|name| first.contains(name)).collect()
}

/// Those of `names` whose values are float32: integers that are computed from shapes are not compared.
pub fn floats(names: &[String], values: &HashMap<String, Tensor>) -> Vec<String> {
    let is_float =
        |name: &&String| values.get(*name).is_some_and(|value| value.kind() == Kind::Float);
    names.iter().filter(is_float).cloned().collect()
}

/// What a form of a model gives.
#[derive(Debug, Default)]
pub struct Found {
    /// The values, by name.
    pub values: HashMap<String, Tensor>,
    /// Those of the middle of a runtime's own graph, whose axes it may have put in another order. All others have the order of the model.
    pub inner: HashSet<String>,
}

impl From<HashMap<String, Tensor>> for Found {
    fn from(values: HashMap<String, Tensor>) -> Self {
        Self { values, inner: HashSet::new() }
    }
}

/// Values of one form of a model against those of the reference.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was compared with the simulation: `the exported file on libtorch`.
    pub of: String,
    /// Its values, in the order of the graph.
    pub values: Vec<Step>,
    #[serde(skip)]
    sums: HashMap<String, Fidelity>,
    /// Values of shape `[N, classes]`: of others the place of the largest element says nothing.
    #[serde(skip)]
    rows: HashSet<String>,
    /// Values that are nothing but rounding ([`ROUNDING`]), of which each runtime has its own.
    #[serde(skip)]
    rounding: HashSet<String>,
}

impl Comparison {
    /// Nothing yet.
    pub fn new(of: &str) -> Self {
        Self {
            of: of.to_owned(),
            values: Vec::new(),
            sums: HashMap::new(),
            rows: HashSet::new(),
            rounding: HashSet::new(),
        }
    }

    /// Takes the values of a batch.
    ///
    /// # Errors
    /// Values of different shapes.
    pub fn add(&mut self, expected: &HashMap<String, Tensor>, found: &Found) -> Result<()> {
        for (name, expected) in expected.iter().filter(|(_, value)| value.kind() == Kind::Float) {
            let value = found.values.get(name).filter(|value| value.kind() == Kind::Float);
            let Some(value) = value else { continue };
            let turned = match found.inner.contains(name) {
                true => turned_to(expected, value)?,
                false => (value.size() == expected.size()).then(|| value.shallow_clone()),
            };
            let Some(found) = turned else {
                return Err(Error::user(format!(
                    "value \"{name}\": {} gives {:?}, the simulation {:?}",
                    self.of,
                    value.size(),
                    expected.size()
                )));
            };
            self.sums.entry(name.clone()).or_default().add(expected, &found)?;
            if expected.dim() == 2 {
                self.rows.insert(name.clone());
            }
        }
        Ok(())
    }

    /// Puts the values in the order of `model`'s graph, and refuses the first that is beyond its budget.
    ///
    /// # Errors
    /// That value, with its node, its figures and those of the value before it.
    pub fn hold(&mut self, model: &Model, budget: Budget) -> Result<()> {
        let nodes = model
            .graph
            .nodes
            .iter()
            .flat_map(|node| node.outputs.iter().map(move |output| (node, output)));
        self.values = nodes
            .filter_map(|(node, output)| {
                let fidelity = self.sums.get(output)?.figures();
                let (node, op) = (node.label().to_owned(), node.op_type.clone());
                Some(Step { tensor: output.clone(), node, op, fidelity })
            })
            .collect();
        self.rounding = self.rounding(model);
        let decibels = |step: &Step| step.fidelity.decibels();
        // What is NaN or infinite on one side alone is below any budget.
        let is_off = |step: &Step| {
            let agrees = !(model.graph.is_output(&step.tensor) && self.rows.contains(&step.tensor))
                || step.fidelity.agreement >= budget.agreement;
            let finite = step.fidelity.not_finite == 0;
            let held = finite && decibels(step) >= budget.sqnr_db && agrees;
            !held && !self.rounding.contains(&step.tensor)
        };
        let before = self.before(model);
        let is_off = |step: &Step| {
            let before = before.get(step.tensor.as_str()).copied().unwrap_or(f64::INFINITY);
            let slow = before - decibels(step) < budget.sudden_db;
            is_off(step) && !slow
        };
        let Some(index) = self.values.iter().position(is_off) else { return Ok(()) };
        let step = &self.values[index];
        let (behind, nodes) = self.behind(model, step);
        let worst = behind.into_iter().min_by(|a, b| decibels(a).total_cmp(&decibels(b)));
        let place = format!("node \"{}\" ({})", step.node, step.op);
        // What a runtime fuses gives no values in between.
        let place = match (nodes, worst) {
            (..2, _) => place,
            (_, Some(before)) => {
                format!("somewhere between \"{}\" and {place} ({nodes} nodes)", before.tensor)
            }
            (_, None) => format!("somewhere up to {place} ({nodes} nodes)"),
        };
        let previous = match worst {
            Some(before) => {
                format!("; \"{}\" before it has {:.1} dB", before.tensor, decibels(before))
            }
            None => String::new(),
        };
        let not_finite = match step.fidelity.not_finite {
            0 => String::new(),
            1 => "an element is NaN or infinite on one side alone, ".to_owned(),
            count => format!("{count} elements are NaN or infinite on one side alone, "),
        };
        Err(Error::user(format!(
            "{place}: \"{}\" of {} is not that of the simulation: {not_finite}SQNR {:.1} dB (at least {} are wanted), \
             {:.1} % of rows agree (at least {:.1} % for outputs){previous}",
            step.tensor,
            self.of,
            decibels(step),
            budget.sqnr_db,
            100.0 * step.fidelity.agreement,
            100.0 * budget.agreement
        ))
        .help(self.cause(index, nodes, &before, budget)))
    }

    /// The compared values from which one is computed, the nearest on each way back, and how many nodes compute it from them; pairs do not count.
    fn behind(&self, model: &Model, step: &Step) -> (Vec<&Step>, usize) {
        let producers = model.graph.producers();
        let mut open = vec![&step.tensor];
        let (mut nodes, mut found) = (BTreeSet::new(), Vec::new());
        while let Some(value) = open.pop() {
            let Some(&node) = producers.get(value.as_str()) else { continue };
            if nodes.insert(node) {
                for input in &model.graph.nodes[node].inputs {
                    match self.values.iter().find(|step| step.tensor == *input) {
                        Some(compared) => found.push(compared),
                        None => open.push(input),
                    }
                }
            }
        }
        let pairs = ["QuantizeLinear", "DequantizeLinear"];
        nodes.retain(|&node| !pairs.contains(&model.graph.nodes[node].op_type.as_str()));
        (found, nodes.len())
    }

    /// Why a value is off: one node that computes something else, or what is lost along many.
    fn cause(
        &self,
        index: usize,
        nodes: usize,
        before: &HashMap<&str, f64>,
        budget: Budget,
    ) -> String {
        let lost = |step: &Step| {
            let own = step.fidelity.decibels();
            before.get(step.tensor.as_str()).map(|before| before - own)
        };
        let all = "`values.json` of a run with lower budgets shows all values";
        let own = self.values[index].fidelity;
        if let Some(own) = own.sqnr_db.filter(|sqnr| *sqnr >= budget.sqnr_db && own.not_finite == 0)
        {
            return format!(
                "its SQNR is within the budget: in the other rows the two largest elements lie so close that an error of {own:.1} dB swaps them, as in those of an \
                 untrained model, or of images unlike those that it was trained on; a lower `min_agreement` lets it pass; {all}"
            );
        }
        if !lost(&self.values[index]).is_some_and(|lost| lost < SUDDEN) {
            return match nodes {
                ..2 => format!("the export or the runtime computes something else there; {all}"),
                _ => format!(
                    "the runtime gives no value in between: one of the {nodes} nodes computes something else, or the loss adds up along them, as roundings that fall \
                     the other way do; {all}"
                ),
            };
        }
        // Only where something was lost before: the first value that differs has lost all that it has lost at once.
        let finite = self.values[..=index].iter().filter_map(|step| Some((step, lost(step)?)));
        let most = finite
            .filter(|(_, lost)| lost.is_finite())
            .max_by(|(_, one), (_, other)| one.total_cmp(other));
        let most = most.map(|(step, lost)| {
            format!(", at most {lost:.1} dB in one node, \"{}\" ({})", step.node, step.op)
        });
        format!(
            "no node loses it at once: the loss adds up along the layers{}. Roundings that fall the other way do, and sums that saturate a little; \
             a lower budget lets it pass; {all}",
            most.unwrap_or_default()
        )
    }

    /// The least SQNR of what each node reads, by the names of its outputs; values that were not compared are as good as what they are made of.
    fn before<'m>(&self, model: &'m Model) -> HashMap<&'m str, f64> {
        let mut own: HashMap<&str, f64> = HashMap::new();
        let mut before = HashMap::new();
        for node in &model.graph.nodes {
            let inputs = node.inputs.iter().filter_map(|name| own.get(name.as_str()).copied());
            let least = inputs.fold(f64::INFINITY, f64::min);
            for output in &node.outputs {
                let compared = self.sums.get(output).filter(|_| !self.rounding.contains(output));
                let decibels = compared.map_or(least, |sums| sums.figures().decibels());
                own.insert(output, decibels);
                before.insert(output.as_str(), least);
            }
        }
        before
    }

    /// The least share of rows whose largest element stays, of outputs `[N, classes]` of `model`; `None`: it has no such output.
    pub fn agreement(&self, model: &Model) -> Option<f64> {
        let outputs = self
            .values
            .iter()
            .filter(|step| model.graph.is_output(&step.tensor) && self.rows.contains(&step.tensor));
        outputs.map(|step| step.fidelity.agreement).reduce(f64::min)
    }

    /// The values that are rounding of what they are computed from, as are those that are computed from such values alone.
    fn rounding(&self, model: &Model) -> HashSet<String> {
        let mut found = HashSet::new();
        // What rounding is reckoned from: a value's own size, or of one that is not known, or rounding itself, that of what it is made of.
        let mut sizes: HashMap<&str, f64> = HashMap::new();
        for node in &model.graph.nodes {
            let read = node.inputs.iter().filter_map(|name| sizes.get(name.as_str()).copied());
            let read = read.fold(0.0, f64::max);
            for output in &node.outputs {
                let is_rounding = |sums: &&Fidelity| {
                    let least = ROUNDING * read;
                    sums.signal_rms() <= 10.0 * least && sums.noise_rms() <= least
                };
                let sums = self.sums.get(output);
                if sums.filter(is_rounding).is_some() {
                    found.insert(output.clone());
                }
                let own = sums.filter(|sums| !is_rounding(sums)).map(Fidelity::signal_rms);
                sizes.insert(output, own.unwrap_or(read));
            }
        }
        found
    }

    /// The least SQNR of all values but those that are rounding alone; `None`: none differs.
    pub fn worst_sqnr(&self) -> Option<f64> {
        let differ = self.values.iter().filter(|step| !self.rounding.contains(&step.tensor));
        differ.filter_map(|step| step.fidelity.sqnr_db).min_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Node};

    #[test]
    fn what_is_rounding_alone_is_not_held_to_a_budget() {
        // x → mean (0 but for rounding) → half of it, and x → y.
        let node = |op: &str, from: &str, to: &str| Node::new(to, op, &[from], &[to]);
        let nodes = vec![
            node("Relu", "input", "x"),
            node("ReduceMean", "x", "mean"),
            node("Sqrt", "mean", "half"),
            node("Neg", "x", "y"),
        ];
        let graph = Graph { nodes, ..Graph::default() };
        let model = Model::new(graph, 17);
        let hold = |mean: [f32; 2], y: f32| {
            let values = |mean: f32, y: f32| {
                let value = |name: &str, value: f32| {
                    (name.to_owned(), Tensor::from_slice(&[value, value]).view([2, 1]))
                };
                HashMap::from([
                    value("x", 1.0),
                    value("mean", mean),
                    value("half", mean / 2.0),
                    value("y", y),
                ])
            };
            let mut comparison = Comparison::new("the engine");
            let found = Found::from(values(mean[1], y));
            comparison.add(&values(mean[0], 1.0), &found).unwrap();
            let budget = Budget { sqnr_db: 10.0, agreement: 0.0, sudden_db: f64::NEG_INFINITY };
            let held = comparison.hold(&model, budget).map_err(|error| error.message);
            held.map(|()| comparison.worst_sqnr())
        };
        assert_eq!(hold([3e-8, -5e-8], 1.0).unwrap(), None);
        assert!(hold([3e-8, -5e-8], 1.05).unwrap().is_some_and(|sqnr| sqnr > 20.0));
        for (mean, y, lost) in
            [([3e-8, -5e-5], 1.0, "mean"), ([3e-8, 0.0], 2.0, "y"), ([1e-3, 0.0], 1.0, "mean")]
        {
            let message = hold(mean, y).unwrap_err();
            assert!(message.starts_with(&format!("node \"{lost}\"")), "{message}");
        }
    }

    /// What a runtime fuses: of a chain of three nodes it gives the first value and the last.
    #[test]
    fn several_nodes_between_two_compared_values_are_told_as_such() {
        let node = |from: &str, to: &str| Node::new(to, "Relu", &[from], &[to]);
        let pair = Node::new("pair", "DequantizeLinear", &["a"], &["pair"]);
        let nodes = vec![node("x", "a"), pair, node("pair", "b"), node("b", "c"), node("c", "d")];
        let model = Model::new(Graph { nodes, ..Graph::default() }, 17);
        let hold = |seen: &[&str]| {
            let values = |last: f32| -> HashMap<String, Tensor> {
                let value = |name: &&str| {
                    let value = if *name == "d" { last } else { 1.0 };
                    ((*name).to_owned(), Tensor::from_slice(&[value, 1.0]).view([2, 1]))
                };
                seen.iter().map(value).collect()
            };
            let mut comparison = Comparison::new("the engine");
            comparison.add(&values(1.0), &Found::from(values(-1.0))).unwrap();
            let budget = Budget { sqnr_db: 10.0, agreement: 0.0, sudden_db: f64::NEG_INFINITY };
            comparison.hold(&model, budget).unwrap_err()
        };
        let error = hold(&["a", "d"]);
        let told = "somewhere between \"a\" and node \"d\" (Relu) (3 nodes): \"d\" of the engine";
        assert!(error.message.starts_with(told), "{error:?}");
        assert!(error.help.unwrap().contains("one of the 3 nodes"));
        let error = hold(&["d"]);
        assert!(
            error.message.starts_with("somewhere up to node \"d\" (Relu) (4 nodes)"),
            "{error:?}"
        );
        let error = hold(&["c", "d"]);
        assert!(error.message.starts_with("node \"d\" (Relu): "), "{error:?}");
        assert!(error.help.unwrap().contains("computes something else there"));
    }

    /// `x` goes through a mask of -∞, which one form may lose.
    #[test]
    fn infinities_of_both_forms_are_no_difference_and_of_one_are_refused() {
        let nodes = vec![Node::new("mask", "Add", &["x", "m"], &["y"])];
        let model = Model::new(Graph { nodes, ..Graph::default() }, 17);
        let hold = |expected: f32, found: f32| {
            let values = |value: f32| {
                HashMap::from([("y".to_owned(), Tensor::from_slice(&[value, 1.0]).view([1, 2]))])
            };
            let mut comparison = Comparison::new("the engine");
            comparison.add(&values(expected), &Found::from(values(found))).unwrap();
            let any = f64::NEG_INFINITY;
            let budget = Budget { sqnr_db: any, agreement: 0.0, sudden_db: any };
            let held = comparison.hold(&model, budget).map_err(|error| error.message);
            held.map(|()| comparison.worst_sqnr())
        };
        let infinite = f32::NEG_INFINITY;
        for same in [infinite, f32::INFINITY, f32::NAN] {
            assert_eq!(hold(same, same), Ok(None));
        }
        for (expected, found) in [(infinite, f32::MIN), (0.0, infinite), (0.0, f32::NAN)] {
            let message = hold(expected, found).unwrap_err();
            let told = "an element is NaN or infinite on one side alone, SQNR -999.0 dB";
            assert!(message.contains(told), "{message}");
        }
    }

    #[test]
    fn only_inner_values_of_a_runtime_are_turned() {
        let made = |value: Tensor| HashMap::from([("y".to_owned(), value)]);
        let expected = made(Tensor::arange(18, (Kind::Float, tch::Device::Cpu)).view([2, 3, 3]));
        let swapped = || made(expected["y"].transpose(1, 2));
        let sqnr = |found: &Found| {
            let mut comparison = Comparison::new("the engine");
            comparison.add(&expected, found).unwrap();
            comparison.sums["y"].figures().sqnr_db
        };
        let inner = HashSet::from(["y".to_owned()]);
        assert_eq!(sqnr(&Found { values: swapped(), inner }), None, "nothing differs");
        let as_it_is = sqnr(&Found::from(swapped())).unwrap();
        assert!(as_it_is < 20.0, "{as_it_is} dB");
        // Another shape is no form of the value.
        let last = Found::from(made(Tensor::zeros([2, 9], (Kind::Float, tch::Device::Cpu))));
        let refused = Comparison::new("the engine").add(&expected, &last).unwrap_err();
        assert!(refused.message.contains("[2, 9]"), "{}", refused.message);
    }
}
