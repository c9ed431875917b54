//! What `train` and `finetune` share: the classifier, the loop, the outputs.

use serde_json::json;

use qpipe::stages::contract::Metrics;
use qpipe::stages::finetune::{Distillation, ScaleEma};
use qpipe::stages::training::{
    Amp, BestBy, ClassWeightRule, ClassWeights, EarlyStop, Optimizer, Schedule, WeightAverage,
};

use super::model::{write_json, write_model};
use super::{Context, Events};
use crate::data::Dataset;
use crate::graph::{Graph, Model};
use crate::interp::{Apart, Options, Scales, check_image_inputs, check_trainable, take_apart};
use crate::quant::placement::matches;
use crate::torch::Half;
use crate::train::{Classifier, Fit, Teacher, Watch};
use crate::{Error, Result, onnx};

/// Settings of a training that its contract names.
pub struct Settings {
    pub epochs: u32,
    pub batch_size: u32,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub label_smoothing: f64,
    pub class_weights: Option<ClassWeights>,
    pub max_steps: Option<u64>,
    pub epoch_zero: bool,
    pub accumulate: u32,
    pub average: Option<WeightAverage>,
    pub best_by: BestBy,
    pub early_stop: Option<EarlyStop>,
    pub clip_norm: Option<f64>,
    pub amp: Option<Amp>,
    pub scales: Scales,
    pub frozen_statistics: bool,
    pub scale_ema: Option<ScaleEma>,
    pub lesson: Option<Lesson>,
    pub cudnn_benchmark: Option<bool>,
}

/// What to learn from another model.
pub struct Lesson {
    pub teacher: Model,
    pub settings: Distillation,
}

/// Says what is trained apart though the file has it once, and what is trained as one.
fn tell_apart(context: &Context, apart: &Apart) {
    if let Some(first) = apart.made.first() {
        context.events.log(format!(
            "{} constants that the exporter merged, since they were equal, are trained apart: `{first}` is the first",
            apart.made.len()
        ));
    }
    if let Some((first, count)) = apart.tied.first() {
        context.events.warn(format!(
            "{} weights are read by several nodes each and trained as one: `{first}` by {count}, the first. That is right where the network shares them; of layers that merely began \
             with equal weights, as copies of a module do, exporters make one: give them weights of their own before the export",
            apart.tied.len()
        ));
    }
}

/// The weight of each class in the loss.
fn weights_of(weights: &ClassWeights, labels: &[usize], classes: usize) -> Result<Vec<f32>> {
    match weights {
        ClassWeights::Rule(ClassWeightRule::Balanced) => {
            let mut counts = vec![0_usize; classes];
            labels.iter().for_each(|&label| counts[label] += 1);
            let present = counts.iter().filter(|count| **count > 0).count();
            // Of a class without an image no weight is ever read.
            let weight = |count: usize| labels.len() as f64 / (present * count.max(1)) as f64;
            Ok(counts.into_iter().map(|count| weight(count) as f32).collect())
        }
        ClassWeights::Each(weights) if weights.len() == classes => {
            Ok(weights.iter().map(|weight| *weight as f32).collect())
        }
        ClassWeights::Each(weights) => Err(Error::user(format!(
            "{} weights of classes: the model has {classes} outputs",
            weights.len()
        ))
        .help("write one for each class, in their order, or \"balanced\"")
        .key("class_weights")),
    }
}

/// What of a schedule never comes in so many epochs.
fn never(schedule: &Schedule, epochs: u32) -> Vec<String> {
    let warm_up = match schedule {
        Schedule::Cosine { warmup_epochs, .. } | Schedule::Step { warmup_epochs, .. } => {
            *warmup_epochs
        }
        Schedule::Constant {} | Schedule::OneCycle { .. } => 0.0,
    };
    let mut lines = Vec::new();
    if warm_up > 0.0 && warm_up >= f64::from(epochs) {
        lines.push(format!(
            "schedule.warmup_epochs = {warm_up} of {epochs} epochs: the learning rate rises to the end and never falls"
        ));
    }
    if let Schedule::Step { epochs: falls, .. } = schedule {
        let late: Vec<&u32> = falls.iter().filter(|&&fall| fall >= epochs).collect();
        if !late.is_empty() {
            lines.push(format!(
                "schedule.epochs = {falls:?}: in {epochs} epochs the learning rate does not fall at {late:?}"
            ));
        }
    }
    lines
}

/// Operators that make probabilities of logits.
const ENDINGS: [&str; 2] = ["Softmax", "Sigmoid"];

/// Trains `model` and writes the outputs `model` and `history`.
pub fn train(context: &Context, mut model: Model, settings: Settings) -> Result<Metrics> {
    // Before any data is read: what cannot be trained needs none.
    onnx::check_numbers(&model)?;
    check_image_inputs(&model).map_err(|error| error.key("model"))?;
    tell_apart(context, &take_apart(&mut model));
    let trainable = check_trainable(&model)?;
    if let Some(first) = trainable.stored.first() {
        context.events.warn(format!(
            "weights of {} layers are stored as {}, and stay as they are: {} is the first",
            trainable.stored.len(),
            trainable.types(),
            model.graph.nodes[first.node].place()
        ));
    }
    let open = |port: &'static str| -> Result<Dataset> {
        let dataset = context.dataset(port)?;
        dataset.check_labels(usize::MAX).map_err(|error| error.key(port))?;
        Ok(dataset)
    };
    let other = settings.lesson.as_ref().map(|lesson| ("the teacher", &lesson.teacher));
    for (what, model) in std::iter::once(("the model", &model)).chain(other) {
        let ending = model.graph.ending().filter(|node| ENDINGS.contains(&&*node.op_type));
        if let Some(node) = ending {
            let (op, name) = (&node.op_type, node.label());
            context.events.warn(format!(
                "{what} ends in a {op}, node \"{name}\": the loss, which is the cross-entropy of logits, takes its probabilities for logits; gradients are small, and the loss never comes near 0. \
                 Take the file without that node: export the model without it, and leave it to whoever reads the logits"
            ));
        }
    }
    let (train, valid) = (open("train")?, open("valid")?);
    let shared = train.shared_with(&valid);
    if shared > 0 {
        context.events.warn(format!(
            "{shared} of {} validation images are training images too: `skip` and `limit` of both data sets leave them in both, so that the best epoch is the one that \
             learned them by heart",
            valid.len()
        ));
    }
    for line in never(&settings.schedule, settings.epochs) {
        context.events.warn(line);
    }
    let layers = match &settings.lesson {
        Some(lesson) => compared(&model.graph, &lesson.teacher.graph, &lesson.settings.layers)?,
        None => Vec::new(),
    };
    let mut watched: Vec<String> = layers.iter().map(|layer| layer.student.clone()).collect();
    if settings.scales == Scales::Followed {
        watched.extend(quantized(&model.graph));
    }
    let options = Options {
        watch: watched.clone(),
        scales: settings.scales,
        frozen_statistics: settings.frozen_statistics,
        ..Options::default()
    };
    let mut classifier = Classifier::with(model, &train, &options)?;
    let mut teacher = match settings.lesson {
        Some(lesson) => Some(
            teacher(lesson, &layers, &train, classifier.classes)
                .map_err(|error| error.at("the teacher"))?,
        ),
        None => None,
    };
    // Now, not after the first epoch.
    classifier.check(&valid).map_err(|error| error.at("validation data").key("valid"))?;
    for (port, dataset) in [("train", &train), ("valid", &valid)] {
        if let Some(fewer) = dataset.fewer_classes(classifier.classes) {
            context.events.warn_of(port, fewer);
        }
    }
    let images = settings.max_steps.map(|steps| steps.saturating_mul(settings.batch_size.into()));
    if let Some(images) = images.filter(|images| *images < valid.len() as u64) {
        context.events.log(format!(
            "`max_steps` ends each validation too: the first {images} of {} images are validated on",
            valid.len()
        ));
    }
    context.events.log(format!(
        "{} parameters; {} training and {} validation images of {} classes",
        classifier.program.parameters().iter().map(|p| p.tensor.numel()).sum::<usize>(),
        train.len(),
        valid.len(),
        classifier.classes
    ));
    let class_weights = match &settings.class_weights {
        Some(weights) => weights_of(weights, train.labels(), classifier.classes)?,
        None => Vec::new(),
    };
    if settings.class_weights == Some(ClassWeights::Rule(ClassWeightRule::Balanced)) {
        context.events.log(format!("weights of the classes: {class_weights:.3?}"));
    }
    let fit = Fit {
        train: &train,
        valid: &valid,
        epochs: settings.epochs,
        batch_size: settings.batch_size as usize,
        optimizer: settings.optimizer,
        schedule: settings.schedule,
        label_smoothing: settings.label_smoothing,
        class_weights: &class_weights,
        max_steps: settings.max_steps,
        epoch_zero: settings.epoch_zero,
        accumulate: settings.accumulate as usize,
        average: settings.average,
        best_by: settings.best_by,
        early_stop: settings.early_stop,
        clip_norm: settings.clip_norm,
        amp: settings.amp.map(|amp| match amp {
            Amp::Fp16 => Half::Float16,
            Amp::Bf16 => Half::Bfloat16,
        }),
        cuda_graph: true,
        cudnn_benchmark: settings.cudnn_benchmark,
        scale_ema: settings.scale_ema,
        watched: &watched,
        seed: context.task.seed,
        threads: context.task.threads,
        checkpoints: &context.task.checkpoints,
    };
    let fitted = fit.run(&mut classifier, teacher.as_mut(), &mut Told(context.events))?;
    classifier.program.write_back(&mut classifier.model)?;
    write_model(&classifier.model, context.output("model")?)?;
    write_json(&fitted.history, context.output("history")?)?;
    let best = &fitted.history[fitted.best];
    Ok(Metrics::from([
        ("epochs".to_owned(), json!(fitted.history.last().map_or(0, |epoch| epoch.epoch))),
        ("best_epoch".to_owned(), json!(best.epoch)),
        ("valid_loss".to_owned(), json!(best.valid_loss)),
        ("valid_top1".to_owned(), json!(best.valid_top1)),
    ]))
}

/// A layer whose outputs are compared with a teacher's.
struct Compared {
    layer: String,
    /// Its output here.
    student: String,
    /// The same in the teacher.
    teacher: String,
}

/// The layers that `patterns` name in both graphs.
fn compared(student: &Graph, teacher: &Graph, patterns: &[String]) -> Result<Vec<Compared>> {
    let mut layers: Vec<Compared> = Vec::new();
    for pattern in patterns {
        let mut both = false;
        let named = matches(student, pattern).map_err(|error| error.key("distillation"))?;
        for (node, _) in student.nodes.iter().zip(named).filter(|(_, named)| *named) {
            let label = node.label();
            let other = teacher
                .nodes
                .iter()
                .find(|other| other.label() == label && other.op_type == node.op_type);
            let outputs = (node.outputs.first(), other.and_then(|other| other.outputs.first()));
            let (Some(own), Some(other)) = outputs else { continue };
            both = true;
            let (student, teacher) = (normalized(student, own), normalized(teacher, other));
            if layers.iter().all(|known| known.student != student) {
                let (student, teacher) = (student.to_owned(), teacher.to_owned());
                layers.push(Compared { layer: label.to_owned(), student, teacher });
            }
        }
        if !both {
            return Err(Error::user(format!(
                "no layer of the teacher has the name and operator of one that matches \"{pattern}\""
            ))
            .help("the teacher must be the float model that was quantized, or one with the same names; leave other layers out of `layers`")
            .key("distillation"));
        }
    }
    Ok(layers)
}

/// What a layer makes, behind its BatchNormalization where one is all that reads it: in the other model it may be folded into the layer.
fn normalized<'a>(graph: &'a Graph, output: &'a str) -> &'a str {
    let mut readers =
        graph.nodes.iter().filter(|node| node.inputs.iter().any(|input| input == output));
    match (readers.next(), readers.next()) {
        (Some(node), None) if node.op_type == "BatchNormalization" && node.inputs[0] == output => {
            node.outputs.first().map_or(output, String::as_str)
        }
        _ => output,
    }
}

fn teacher(
    lesson: Lesson,
    layers: &[Compared],
    dataset: &Dataset,
    classes: usize,
) -> Result<Teacher> {
    let watch = layers.iter().map(|layer| layer.teacher.clone()).collect();
    let options = Options { watch, ..Options::default() };
    let own = Classifier::with(lesson.teacher, dataset, &options)?;
    if own.classes != classes {
        return Err(Error::user(format!(
            "it tells {} classes apart, the model {classes}",
            own.classes
        ))
        .help("learn from a model of the same classes"));
    }
    let layers = layers.iter().map(|layer| layer.layer.clone()).collect();
    Ok(Teacher { settings: lesson.settings, program: own.program, layers })
}

/// Values that are computed and quantized.
fn quantized(graph: &Graph) -> Vec<String> {
    let nodes = graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear");
    let mut names: Vec<String> = Vec::new();
    for name in nodes.filter_map(|node| node.input(0)) {
        if !graph.initializers.contains_key(name) && names.iter().all(|known| known != name) {
            names.push(name.to_owned());
        }
    }
    names
}

struct Told<'a>(&'a Events);

impl Watch for Told<'_> {
    fn progress(&mut self, done: u64, total: u64, message: &str) {
        self.0.progress(done, total, "steps", message);
    }

    fn log(&mut self, message: String) {
        self.0.log(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    fn graph(nodes: &[(&str, &str, &str)]) -> Graph {
        let nodes = nodes.iter().map(|(name, op, output)| Node::new(name, op, &["x"], &[output]));
        Graph { nodes: nodes.collect(), ..Graph::default() }
    }

    /// scikit-learn: `compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 1, 2, 2])`.
    #[test]
    fn balanced_weights_are_those_of_scikit_learn() {
        let balanced = ClassWeights::Rule(ClassWeightRule::Balanced);
        let labels = [0, 0, 0, 1, 2, 2];
        assert_eq!(weights_of(&balanced, &labels, 3).unwrap(), [2.0 / 3.0, 2.0, 1.0]);
        assert_eq!(weights_of(&balanced, &labels, 4).unwrap()[..3], [2.0 / 3.0, 2.0, 1.0]);
        let each = ClassWeights::Each(vec![1.0, 3.0]);
        assert_eq!(weights_of(&each, &labels[..3], 2).unwrap(), [1.0, 3.0]);
        let error = weights_of(&each, &labels, 3).unwrap_err();
        assert_eq!(error.message, "2 weights of classes: the model has 3 outputs");
        assert_eq!(error.key, Some("class_weights"));
    }

    #[test]
    fn what_of_a_schedule_never_comes_is_told() {
        let cosine = |warmup_epochs| Schedule::Cosine { final_factor: 0.0, warmup_epochs };
        assert_eq!(never(&cosine(2.0), 6), Vec::<String>::new());
        assert_eq!(never(&cosine(0.0), 0), Vec::<String>::new());
        assert!(
            never(&cosine(100.0), 6)[0].starts_with("schedule.warmup_epochs = 100 of 6 epochs")
        );
        let step = |epochs: &[u32], warmup_epochs| Schedule::Step {
            epochs: epochs.to_vec(),
            factor: 0.1,
            warmup_epochs,
        };
        assert_eq!(never(&step(&[3, 5], 1.0), 6), Vec::<String>::new());
        let lines = never(&step(&[3, 6, 60], 6.0), 6);
        assert_eq!(lines.len(), 2);
        assert!(
            lines[1].ends_with("in 6 epochs the learning rate does not fall at [6, 60]"),
            "{lines:?}"
        );
    }

    #[test]
    fn layers_are_compared_that_both_models_have() {
        let student = graph(&[
            ("a.conv", "Conv", "a"),
            ("a.conv_quantize", "QuantizeLinear", "q"),
            ("b.conv", "Conv", "b"),
            ("own", "Relu", "r"),
            ("c", "Conv", "c"),
        ]);
        let teacher =
            graph(&[("b.conv", "Conv", "other"), ("a.conv", "Conv", "a"), ("c", "Relu", "c")]);
        let names = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            let layers = compared(&student, &teacher, &patterns).map_err(|error| error.message)?;
            let of = |layer: Compared| (layer.layer, layer.student, layer.teacher);
            Ok::<Vec<_>, String>(layers.into_iter().map(of).collect())
        };
        let layer = |name: &str, own: &str, other: &str| {
            (name.to_owned(), own.to_owned(), other.to_owned())
        };
        let both = vec![layer("a.conv", "a", "a"), layer("b.conv", "b", "other")];
        assert_eq!(names(&["*.conv*"]), Ok(both.clone()));
        // A normalization that the student keeps is folded in the teacher; not where something else reads what is before it.
        let mut kept = student.clone();
        kept.nodes.push(Node::new("norm", "BatchNormalization", &["b"], &["n"]));
        let behind = |student: &Graph| {
            compared(student, &teacher, &["b.conv".to_owned()]).unwrap().remove(0).student
        };
        assert_eq!(behind(&kept), "n");
        kept.nodes.push(Node::new("more", "Relu", &["b"], &["m"]));
        assert_eq!(behind(&kept), "b");
        // Once each, whichever patterns name them.
        assert_eq!(names(&["a.conv", "op:Conv"]), Ok(both.clone()));
        assert_eq!(names(&["*.conv", "a.*"]), Ok(both));
        assert!(names(&["own"]).unwrap_err().contains("no layer of the teacher"));
        assert!(names(&["c"]).unwrap_err().contains("matches \"c\""), "another operator");
        assert!(names(&["nobody"]).unwrap_err().contains("no node of the model matches"));
    }
}
