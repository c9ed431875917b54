//! The interpreter beside PyTorch eager: the same networks, batches, threads and libtorch, a step of one and a step of the
//! other in turn. `make deps-test`, then `cargo bench -p qpipe-worker --bench pytorch`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::{onnx, passes};
use tch::{Kind, Reduction, Tensor};

/// Steps of each; the first are not counted.
const STEPS: usize = 25;
const WARM_UP: usize = 5;

fn median(mut milliseconds: Vec<f64>) -> f64 {
    milliseconds.drain(..WARM_UP);
    milliseconds.sort_by(f64::total_cmp);
    milliseconds[milliseconds.len() / 2]
}

/// One step of ours, milliseconds.
fn step(program: &mut Program, images: &Tensor, labels: &Tensor, train: bool) -> f64 {
    let start = Instant::now();
    let images = [images.shallow_clone()];
    if train {
        for parameter in program.parameters() {
            // As PyTorch's `zero_grad`, which forgets them.
            let mut gradient = parameter.tensor.grad();
            if gradient.defined() {
                let _ = gradient.zero_();
            }
        }
        let made = program.forward(&images, Mode::Train, &mut |_, _| Ok(())).expect("runs");
        let loss = made[0].cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0);
        loss.backward();
    } else {
        let made = tch::no_grad(|| program.forward(&images, Mode::Eval, &mut |_, _| Ok(())));
        made.expect("runs");
    }
    start.elapsed().as_secs_f64() * 1000.0
}

fn compare(network: &str, side: i64) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a project");
    let deps = project.join(".deps");
    let folder = tempfile::tempdir().expect("a folder");
    let path = std::env::join_paths([deps.join("pytorch"), deps.join("python")]).expect("paths");
    let libraries = [deps.join("pytorch/stubs"), deps.join("native/nvidia/cu13/lib")];
    let mut python = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
        .env("PYTHONPATH", path)
        .env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths"))
        .arg(project.join("worker/tests/models/timing.py"))
        .args([folder.path().as_os_str(), network.as_ref(), side.to_string().as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python starts");
    let mut ask = python.stdin.take().expect("piped");
    let mut lines = BufReader::new(python.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("an answer").expect("text");
    while line() != "ready" {}
    let images = Tensor::randn([8, 3, side, side], (Kind::Float, tch::Device::Cpu));
    let labels = Tensor::randint(1000, [8], (Kind::Int64, tch::Device::Cpu));
    for (what, train) in [("forward", false), ("train", true)] {
        let file = if train { "train.onnx" } else { "eval.onnx" };
        let mut model = onnx::read(&folder.path().join(file)).expect("a model");
        passes::inference_form(&mut model).expect("a form");
        let mut program = Program::compile(&model, &Options::default()).expect("compiles");
        program.train(train);
        let (mut own, mut plain, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..STEPS {
            own.push(step(&mut program, &images, &labels, train));
            for (layout, times) in [("contiguous", &mut plain), ("channels_last", &mut last)] {
                writeln!(ask, "{what} {layout}").expect("python listens");
                times.push(line().parse().expect("milliseconds"));
            }
        }
        let (own, plain, last) = (median(own), median(plain), median(last));
        println!(
            "{network:13} {side:3} {what:8} {own:7.1} ms   PyTorch {plain:7.1} ms ({:.2})   channels-last {last:7.1} ms ({:.2})",
            own / plain,
            own / last,
        );
    }
    drop(ask);
    let _ = python.wait();
}

fn main() {
    tch::set_num_threads(2);
    for network in ["resnet18", "mobilenet_v2"] {
        for side in [64, 224] {
            compare(network, side);
        }
    }
}
