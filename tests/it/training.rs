//! Training with the real worker: the same bytes each time, also after a kill; bad data and bad models.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::pipelines::root;
use crate::project::{Project, Said};

/// Two epochs on a few images; `DATA` stands for the folder of Fashion-MNIST.
const PIPELINE: &str = r#"
[data.train]
format = "idx"
path = "DATA/train-images-idx3-ubyte.gz"
limit = 2000
transform = [{ random_crop = { size = 28, padding = 2 } }, { normalize = { mean = [0.286], std = [0.353] } }]

[data.valid]
format = "idx"
path = "DATA/t10k-images-idx3-ubyte.gz"
limit = 500

[stages.fp32]
kind = "train"
model = { arch = "resnet", blocks = [1, 1], channels = [8, 16], stem = "small-stride2", in_channels = 1, classes = 10, image_size = 28 }
train = "data.train"
valid = "data.valid"
epochs = 3
batch_size = 50
optimizer = { kind = "sgd", lr = 0.05 }
"#;

/// A pipeline with the real worker, whose text has `DATA` for the folder of Fashion-MNIST.
pub fn project(text: &str) -> Project {
    let worker = Path::new(env!("CARGO_BIN_EXE_qpipe")).with_file_name("qpipe-worker");
    assert!(worker.is_file(), "no qpipe-worker: build all with `cargo test --workspace`");
    let data = root().join(".deps/data/fashion-mnist");
    assert!(data.is_dir(), "no data: run `make deps` first");
    Project::new(&text.replace("DATA", &data.display().to_string()))
}

fn model(project: &Project) -> Vec<u8> {
    std::fs::read(project.path("cache/view/p/fp32/model.onnx")).unwrap()
}

#[test]
fn a_training_gives_the_same_bytes_also_after_its_worker_was_killed() {
    let whole = project(PIPELINE);
    whole.run(&[]);
    // What of a data set's table has changed is told, not that its digest did.
    let why = |set: &str| whole.qpipe(&["why", "p.toml", "fp32", "--set", set]).stdout;
    let said = why("data.train.limit=1900");
    assert!(said.contains("\n  data.train.limit: 2000 → 1900\n"), "{said}");
    assert!(!said.contains("data train changed"), "{said}");
    let said = why(
        "data.train.transform=[{ random_crop = { size = 28, padding = 3 } }, { normalize = { mean = [0.286], std = [0.353] } }]",
    );
    assert!(said.contains("\n  data.train.transform.0.random_crop.padding: 2 → 3\n"), "{said}");

    let killed = project(PIPELINE);
    let mut run = killed.command(&["run", "p.toml", "--json"]);
    let mut run = run.stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(run.stdout.take().unwrap()).lines();
    // After the first epoch, in the middle of the second.
    let mut seen = false;
    for line in lines.map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line).unwrap();
        let text = event.to_string();
        seen |= text.contains("epoch 1/3: ");
        if seen && text.contains("epoch 2/3, loss") {
            kill_worker(run.id());
            break;
        }
    }
    assert!(seen, "the first epoch was told");
    assert_ne!(run.wait().unwrap().code(), Some(0));
    assert!(!killed.path("cache/view/p/fp32/model.onnx").exists(), "nothing half-written is shown");
    killed.run(&[]);
    let log = logs(&killed);
    assert!(log.contains("going on after epoch 1"), "{log}");
    assert!(model(&whole) == model(&killed), "the resumed training differs");
    killed.verify();
}

/// Kills the child of `runner` that is a worker.
fn kill_worker(runner: u32) {
    let tasks = std::fs::read_dir(format!("/proc/{runner}/task")).unwrap();
    let mut killed = 0;
    for task in tasks {
        let children = task.unwrap().path().join("children");
        for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            crate::project::signal(child.parse().unwrap(), libc::SIGKILL);
            killed += 1;
        }
    }
    assert_eq!(killed, 1);
}

fn logs(project: &Project) -> String {
    let mut text = String::new();
    for run in std::fs::read_dir(project.path("cache/logs")).unwrap() {
        for log in std::fs::read_dir(run.unwrap().path()).unwrap() {
            text.push_str(&std::fs::read_to_string(log.unwrap().path()).unwrap());
        }
    }
    text
}

/// Runs a pipeline that must fail in its stage; what it says.
fn fails(project: &Project) -> Said {
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    // The cache is as it was: nothing is recorded, and all that is there is whole.
    let records = project.read("cache/journal").lines().filter(|l| l.starts_with("r\t")).count();
    assert_eq!(records, 0, "{said:?}");
    project.verify();
    said
}

#[test]
fn the_device_is_part_of_the_key_and_one_that_is_not_there_is_told() {
    let project = project(&PIPELINE.replace("epochs = 3", "epochs = 1\nmax_steps = 3"));
    let with = |line: &str| format!("{}\n{line}\n", project.read("p.toml").trim_end());
    let plain = project.read("p.toml");
    let auto = with("device = \"auto\"");
    let missing = with("device = \"cuda:99\"");
    let cpu = with("device = \"cpu\"\ndeterministic = true");
    let runs = |text: &str| {
        std::fs::write(project.path("p.toml"), text).unwrap();
        project.qpipe(&["run", "p.toml"])
    };
    assert_eq!(runs(&plain).code, Some(0));
    let first = model(&project);
    assert!(logs(&project).contains(" idle "), "{}", logs(&project));
    let again = runs(&auto);
    assert!(again.stdout.contains("0 ran, 1 cached"), "{again:?}");
    let refused = runs(&missing);
    let told = refused.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("qpipe doctor") && told.contains("device = \"auto\""), "{told}");
    // Whether there is no GPU at all, or there are fewer.
    assert_eq!(refused.code, Some(3), "{told}");
    assert!(told.contains("and libtorch finds none") || told.contains("asks for GPU 99"), "{told}");
    let other = runs(&cpu);
    assert_eq!(other.code, Some(0), "{other:?}");
    let keys = project.read("cache/journal").lines().filter(|l| l.starts_with("r\t")).count();
    assert_eq!(keys, 2, "another key");
    if !logs(&project).contains("libtorch computes on") {
        assert!(model(&project) == first, "on a CPU they are the same bytes");
    }
}

#[test]
fn validation_images_that_the_model_does_not_take_are_told_before_the_first_epoch() {
    let resized = "limit = 500\ntransform = [{ resize = [32, 32] }]";
    let project = project(&PIPELINE.replace("limit = 500", resized));
    let said = fails(&project);
    assert!(
        said.stderr
            .contains("validation data: the model takes images 28 pixels high, the data's are 32"),
        "{said:?}"
    );
    assert!(!said.stderr.contains("epoch 1"), "{said:?}");
}

#[test]
fn a_loss_that_is_not_a_number_is_told_with_its_step() {
    let project = project(&PIPELINE.replace("lr = 0.05", "lr = 1e30"));
    let said = fails(&project);
    assert!(said.stderr.contains("the loss is "), "{}", said.stderr);
    assert!(said.stderr.contains("in epoch 1, step "), "{}", said.stderr);
    assert!(said.stderr.contains("lower the learning rate"), "{}", said.stderr);
    // That of the last step shows in the validation alone.
    let last = PIPELINE.replace("lr = 0.05", "lr = 1e38");
    let said = fails(&self::project(&last.replace("epochs = 3", "epochs = 1\nmax_steps = 1")));
    assert!(said.stderr.contains("the validation loss is not finite after epoch 1"), "{said:?}");
}

#[test]
fn bad_data_is_told_with_its_file_and_index() {
    // A label beyond the model's classes.
    let said = fails(&project(&PIPELINE.replace("classes = 10", "classes = 7")));
    assert!(said.stderr.contains("train-images-idx3-ubyte.gz"), "{}", said.stderr);
    assert!(said.stderr.contains("out of range: the model has 7 outputs"), "{}", said.stderr);

    // A truncated file.
    let cut = project(&PIPELINE.replace("DATA/t10k", "cut/t10k"));
    let data = root().join(".deps/data/fashion-mnist");
    std::fs::create_dir(cut.path("cut")).unwrap();
    for name in ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"] {
        let bytes = std::fs::read(data.join(name)).unwrap();
        let end = if name.contains("images") { bytes.len() / 2 } else { bytes.len() };
        std::fs::write(cut.path("cut").join(name), &bytes[..end]).unwrap();
    }
    let said = fails(&cut);
    assert!(said.stderr.contains("cut/t10k-images-idx3-ubyte.gz"), "{}", said.stderr);

    // A class without images, then an image that does not decode.
    let folder = PIPELINE
        .replace("format = \"idx\"", "format = \"image-folder\"\ncolor = \"gray\"")
        .replace("DATA/train-images-idx3-ubyte.gz", "images")
        .replace("DATA/t10k-images-idx3-ubyte.gz", "images");
    let images = project(&folder);
    std::fs::create_dir_all(images.path("images/empty")).unwrap();
    images.write("images/full/0.png", "no image");
    let said = fails(&images);
    assert!(said.stderr.contains("images/empty"), "{}", said.stderr);
    images.write("images/empty/1.png", "no image either");
    let said = fails(&images);
    assert!(said.stderr.contains(".png"), "{}", said.stderr);
}

#[test]
fn an_operator_that_cannot_be_executed_is_told_with_its_node() {
    let program = "
import sys, onnx
from onnx import helper as h, TensorProto as T
node = h.make_node('STFT', ['x', 'x'], ['y'], name='spectrum')
value = lambda name, shape: h.make_tensor_value_info(name, T.FLOAT, shape)
graph = h.make_graph([node], 'g', [value('x', ['n', 1, 28, 28])], [value('y', ['n', 10])])
onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid('', 17)]), sys.argv[1])
";
    let text = PIPELINE.replace(
        "{ arch = \"resnet\", blocks = [1, 1], channels = [8, 16], stem = \"small-stride2\", in_channels = 1, classes = 10, image_size = 28 }",
        "{ onnx = \"strange.onnx\" }",
    );
    let project = project(&text);
    let made = std::process::Command::new("python3")
        .env("PYTHONPATH", root().join(".deps/python"))
        .args(["-c", program])
        .arg(project.path("strange.onnx"))
        .status()
        .unwrap();
    assert!(made.success(), "run `make deps-test` first");
    let said = fails(&project);
    assert!(said.stderr.contains("node \"spectrum\" (STFT)"), "{}", said.stderr);
}

#[test]
fn ranges_that_lack_a_tensor_are_told_with_the_line_of_the_pipeline_file() {
    let text = "
[stages.ptq]
kind = \"insert-qdq\"
model = { arch = \"resnet\", blocks = [1, 1], channels = [8, 16], stem = \"small-stride2\", in_channels = 1, classes = 10, image_size = 28 }
ranges = { file = \"ranges.json\" }
method = \"custom\"
target = \"tensorrt\"
";
    let project = project(text);
    project.write("ranges.json", "{\"version\": 2, \"tensors\": []}");
    let said = fails(&project);
    let line = 1 + std::fs::read_to_string(project.path("p.toml"))
        .unwrap()
        .lines()
        .position(|line| line.starts_with("ranges"))
        .unwrap();
    let expected = format!("p.toml:{line}: the ranges have none of tensor \"input\"");
    assert!(said.stderr.contains(&expected), "{}", said.stderr);
}
