//! Fine-tuning with the real worker in its three ways on one small network: frozen scales, learned ones (LSQ), and a teacher.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::project::Project;
use crate::training::project;

/// `DATA` stands for the folder of Fashion-MNIST.
const PIPELINE: &str = r#"
[data.train]
format = "idx"
path = "DATA/train-images-idx3-ubyte.gz"
limit = 2000
transform = [{ normalize = { mean = [0.286], std = [0.353] } }]

[data.valid]
format = "idx"
path = "DATA/t10k-images-idx3-ubyte.gz"
limit = 200
transform = [{ normalize = { mean = [0.286], std = [0.353] } }]

[stages.fp32]
kind = "train"
model = { arch = "resnet", blocks = [1, 1], channels = [8, 16], stem = "small-stride2", in_channels = 1, classes = 10, image_size = 28 }
train = "data.train"
valid = "data.valid"
epochs = 1
batch_size = 50
optimizer = { kind = "sgd", lr = 0.1 }

[stages.ranges]
kind = "calibrate"
model = "fp32.model"
data = "data.train"
samples = 100
methods = ["max"]

[stages.ptq]
kind = "insert-qdq"
model = "fp32.model"
ranges = "ranges"
method = "max"
target = "onnxruntime"
"#;

/// A stage that fine-tunes, with what it has beside the others.
fn finetune(name: &str, more: &str) -> String {
    format!(
        "\n[stages.{name}]\nkind = \"finetune\"\nmodel = \"ptq.model\"\ntrain = \"data.train\"\nvalid = \"data.valid\"\nrecipe = \"custom\"\n\
         epochs = 1\nbatch_size = 50\noptimizer = {{ kind = \"sgd\", lr = 0.02 }}\n{more}\n"
    )
}

/// What the log of a stage says.
fn log(project: &Project, stage: &str) -> String {
    let runs = std::fs::read_dir(project.path("cache/logs")).unwrap();
    let logs = runs.flat_map(|run| std::fs::read_dir(run.unwrap().path()).unwrap());
    let own = logs
        .map(|log| log.unwrap().path())
        .filter(|path| path.file_stem().is_some_and(|name| name.to_string_lossy() == stage));
    own.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// Names of the constants in which a model differs from the one that was fine-tuned.
fn changed(project: &Project, stage: &str) -> BTreeSet<String> {
    let file = |stage: &str| format!("cache/view/p/{stage}/model.onnx");
    let said = project.qpipe(&["model", "diff", &file("ptq"), &file(stage), "--json"]);
    let difference: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(difference["removed_nodes"].as_array().unwrap().is_empty(), "{difference}");
    let changed = difference["changed_initializers"].as_array().unwrap().iter();
    changed.map(|tensor| tensor["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn scales_are_learned_and_a_teacher_is_followed() {
    let taught = r#"teacher = "fp32.model"
distillation = { labels = 0.2, logits = 1.0, temperature = 2.0, features = 0.05, layers = ["layer2.*"] }"#;
    let stages = [("frozen", ""), ("lsq", "scales = \"lsq\""), ("taught", taught)];
    let stages = stages.map(|(name, more)| finetune(name, more)).concat();
    let project = project(&(PIPELINE.to_owned() + &stages));
    project.run(&[]);

    let parameters = |stage: &str| -> usize {
        let log = log(&project, stage);
        assert!(log.contains("epoch 1/1: train loss "), "{stage}: {log}");
        assert!(log.contains("2000 training and 200 validation images of 10 classes"), "{log}");
        let line = log.lines().find(|line| line.contains(" parameters; ")).unwrap();
        let before = line.split(" parameters; ").next().unwrap();
        before.split_whitespace().last().unwrap().parse().unwrap()
    };
    let history = |stage: &str| -> Value {
        let text = project.artifact(&format!("{stage}/history.json"));
        let epochs: Value = serde_json::from_str(&text).unwrap();
        // Otherwise the model is the one that came, and nothing below says anything.
        assert!(epochs[1]["valid_top1"].as_f64() > epochs[0]["valid_top1"].as_f64(), "{epochs}");
        epochs[1].clone()
    };
    let [frozen, lsq, taught] = ["frozen", "lsq", "taught"].map(|stage| {
        let metrics = history(stage);
        (changed(&project, stage), parameters(stage), metrics["train_loss"].as_f64().unwrap())
    });
    let scales = |names: &BTreeSet<String>| names.iter().filter(|n| n.contains("scale")).count();
    assert!(!frozen.0.is_empty() && scales(&frozen.0) == 0, "frozen: {:?}", frozen.0);
    // Of seven weights, with one for each of 82 output channels, and of ten computed values.
    assert_eq!(scales(&lsq.0), 17, "learned: {:?}", lsq.0);
    assert_eq!((lsq.1 - frozen.1, taught.1), (82 + 10, frozen.1), "scales are parameters");
    assert_eq!(scales(&taught.0), 0, "the teacher changes what weights become: {:?}", taught.0);
    let model =
        |stage: &str| std::fs::read(project.path(&format!("cache/view/p/{stage}/model.onnx")));
    let [one, two, three] = ["frozen", "lsq", "taught"].map(|stage| model(stage).unwrap());
    assert!(one != two && one != three && two != three, "three ways, three models");
    assert!(frozen.2 != lsq.2 && (frozen.2 - taught.2).abs() > 1e-3, "another loss is minimized");

    let again = project.run(&[]);
    assert!(again.stdout.contains("0 ran, 6 cached"), "{again:?}");
    project.verify();
}
