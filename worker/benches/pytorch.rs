//! The interpreter beside PyTorch eager: the same networks, batches, threads and libtorch, a step of one and a step of the
//! other in turn. `make deps-test`, then `cargo bench -p qpipe-worker --bench pytorch`, with the names of some cases
//! behind `--` if not all are wanted: `resnet18`, `mobilenet_v2`, `64`, `224`, `forward`, `train`. `memory` instead shows the
//! peak memory of inference beside ONNX Runtime's, each in a process of its own.
//!
//! On a busy machine the least of many steps says most: it is the one that nothing else cut into.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::{onnx, passes};
use tch::{Kind, Reduction, Tensor};

/// Steps of each at most; the first are not counted.
const STEPS: usize = 45;
const WARM_UP: usize = 5;
/// A case ends after so long, with at least so many steps that count.
const LONGEST: Duration = Duration::from_secs(30);
const FEWEST: usize = 7;

/// How libgomp waits, here and in PyTorch's process: as workers do that qpipe starts. Its default spins, which on a busy
/// machine measures the machine.
const WAITING: (&str, &str) = ("GOMP_SPINCOUNT", "2000");

/// Least and median.
fn least_and_median(mut milliseconds: Vec<f64>) -> (f64, f64) {
    milliseconds.drain(..WARM_UP);
    milliseconds.sort_by(f64::total_cmp);
    (milliseconds[0], milliseconds[milliseconds.len() / 2])
}

/// One step of ours, milliseconds.
fn step(program: &mut Program, images: &Tensor, labels: &Tensor, train: bool) -> f64 {
    let start = Instant::now();
    let images = [images.shallow_clone()];
    if train {
        let made = program.forward(&images, Mode::Train, &mut |_, _| Ok(())).expect("runs");
        let loss = made[0].cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0);
        program.gradients(&loss).expect("gradients");
    } else {
        let made = tch::no_grad(|| program.forward(&images, Mode::Eval, &mut |_, _| Ok(())));
        made.expect("runs");
    }
    start.elapsed().as_secs_f64() * 1000.0
}

/// Python with PyTorch and ONNX Runtime, about to run a script of `tests/models`.
fn python(script: &str) -> Command {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a project");
    let deps = project.join(".deps");
    let path = std::env::join_paths([deps.join("pytorch"), deps.join("python")]).expect("paths");
    let libraries = [deps.join("pytorch/stubs"), deps.join("native/nvidia/cu13/lib")];
    let mut python = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    python
        .env("PYTHONPATH", path)
        .env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths"))
        .arg(project.join("worker/tests/models").join(script))
        .stderr(Stdio::null());
    python
}

/// A figure of this process's memory, MiB.
fn mib(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("a figure");
    kib.parse::<f64>().expect("a number") / 1024.0
}

/// What `ort_memory.py` does, here.
fn own_memory(file: &Path, side: i64) {
    let base = mib("VmRSS");
    let mut model = onnx::read(file).expect("a model");
    passes::inference_form(&mut model).expect("a form");
    let mut program = Program::compile(&model, &Options::default()).expect("compiles");
    drop(model);
    let images = Tensor::randn([8, 3, side, side], (Kind::Float, tch::Device::Cpu));
    for _ in 0..10 {
        step(&mut program, &images, &images, false);
    }
    println!("{base} {}", mib("VmHWM"));
}

fn memory(network: &str, side: i64) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut exporter = python("timing.py");
    exporter.arg(folder.path()).args([network, &side.to_string()]).stdin(Stdio::null());
    assert!(exporter.stdout(Stdio::null()).status().expect("python starts").success());
    let file = folder.path().join("eval.onnx");
    let measure = |command: &mut Command| {
        let output = command.arg(&file).arg(side.to_string()).output().expect("it starts");
        let text = String::from_utf8(output.stdout).expect("text");
        let figures: Vec<f64> = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        let [base, peak] = figures[..] else { panic!("{text}") };
        (base, peak)
    };
    let own = measure(Command::new(std::env::current_exe().expect("a path")).arg("memory-of"));
    let ort = measure(&mut python("ort_memory.py"));
    println!(
        "{network:13} {side:3} peak {:6.0} MiB (before the model {:.0})   ONNX Runtime {:6.0} MiB (before {:.0})   {:.2}",
        own.1,
        own.0,
        ort.1,
        ort.0,
        own.1 / ort.1
    );
}

fn compare(network: &str, side: i64, wanted: impl Fn(&str) -> bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut python = python("timing.py")
        .args([folder.path().as_os_str(), network.as_ref(), side.to_string().as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut ask = python.stdin.take().expect("piped");
    let mut lines = BufReader::new(python.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("an answer").expect("text");
    while line() != "ready" {}
    let images = Tensor::randn([8, 3, side, side], (Kind::Float, tch::Device::Cpu));
    let labels = Tensor::randint(1000, [8], (Kind::Int64, tch::Device::Cpu));
    for (what, train) in [("forward", false), ("train", true)] {
        if !wanted(what) {
            continue;
        }
        let file = if train { "train.onnx" } else { "eval.onnx" };
        let mut model = onnx::read(&folder.path().join(file)).expect("a model");
        passes::inference_form(&mut model).expect("a form");
        let mut program = Program::compile(&model, &Options::default()).expect("compiles");
        program.train(train);
        let (mut own, mut plain, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let start = Instant::now();
        for done in 0..STEPS {
            if done >= WARM_UP + FEWEST && start.elapsed() > LONGEST {
                break;
            }
            own.push(step(&mut program, &images, &labels, train));
            for (layout, times) in [("contiguous", &mut plain), ("channels_last", &mut last)] {
                writeln!(ask, "{what} {layout}").expect("python listens");
                times.push(line().parse().expect("milliseconds"));
            }
        }
        let [own, plain, last] = [own, plain, last].map(least_and_median);
        print!("{network:13} {side:3} {what:8} {:7.1} ms", own.0);
        for (name, other) in [("PyTorch", plain), ("channels-last", last)] {
            let (least, median) = (own.0 / other.0, own.1 / other.1);
            print!("   {name} {:7.1} ms ({least:.2}; medians {median:.2})", other.0);
        }
        println!();
    }
    drop(ask);
    let _ = python.wait();
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if std::env::var_os(WAITING.0).is_none() {
        // It is read when the library is loaded.
        let program = std::env::current_exe().expect("a path");
        let error = Command::new(program).args(words).env(WAITING.0, WAITING.1).exec();
        panic!("not started again: {error}");
    }
    tch::set_num_threads(2);
    if let [word, file, side] = &words[..]
        && word == "memory-of"
    {
        return own_memory(Path::new(file), side.parse().expect("a number"));
    }
    // Of each kind of name all, if none of them is given.
    let wanted = |kind: &[&str], name: &str| {
        let given = |name: &str| words.iter().any(|word| word == name);
        given(name) || !kind.iter().any(|name| given(name))
    };
    for network in ["resnet18", "mobilenet_v2"] {
        for side in [64, 224] {
            if wanted(&["resnet18", "mobilenet_v2"], network)
                && wanted(&["64", "224"], &side.to_string())
            {
                if words.iter().any(|word| word == "memory") {
                    memory(network, side);
                    continue;
                }
                compare(network, side, |what| wanted(&["forward", "train"], what));
            }
        }
    }
}
