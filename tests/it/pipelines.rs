//! The pipeline files of the project, from the first stage to the table, with the real worker, small.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A run of one of the project's pipelines with a cache of its own.
pub struct Pipeline {
    pub folder: tempfile::TempDir,
    file: PathBuf,
    arguments: Vec<String>,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Pipeline {
    /// The pipeline `name`, copied beside its cache, since a run writes its lock file there.
    pub fn of(name: &str, overrides: &[&str]) -> Self {
        let worker = Path::new(env!("CARGO_BIN_EXE_qpipe")).with_file_name("qpipe-worker");
        assert!(worker.is_file(), "no qpipe-worker: build all with `cargo test --workspace`");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pipelines")).unwrap();
        let file = folder.path().join("pipelines").join(format!("{name}.toml"));
        std::fs::copy(root().join("pipelines").join(format!("{name}.toml")), &file).unwrap();
        // What `make deps` fetched is found from the copy too.
        std::os::unix::fs::symlink(root().join(".deps"), folder.path().join(".deps")).unwrap();
        let arguments = overrides.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        let arguments = arguments.collect();
        Self { folder, file, arguments }
    }

    pub fn command(&self, command: &str, more: &[&str]) -> Command {
        let mut made = Command::new(env!("CARGO_BIN_EXE_qpipe"));
        made.arg(command).arg(&self.file).args(&self.arguments).args(more);
        made.env("QPIPE_CACHE", self.folder.path().join("cache"));
        made.env("NO_COLOR", "1").env_remove("QPIPE_WORKER");
        made.env("QPIPE_MACHINE", self.folder.path().join(".machine"));
        made
    }

    /// Runs it; standard output, of a run that succeeds.
    pub fn run(&self, more: &[&str]) -> String {
        let output = self.command("run", more).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Stage and action of each stage, as `plan` says with more overrides.
    pub fn plan(&self, more: &[&str]) -> Vec<(String, String)> {
        let output = self.command("plan", &[&["--json"], more].concat()).output().unwrap();
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |stage: &Value, key: &str| stage[key].as_str().unwrap().to_owned();
        let stages = plan["stages"].as_array().unwrap().iter();
        stages.map(|stage| (text(stage, "stage"), text(stage, "action"))).collect()
    }

    pub fn artifact(&self, name: &str) -> PathBuf {
        // As `[pipeline] name` writes it.
        let pipeline = self.file.file_stem().unwrap().to_str().unwrap().replace('_', "-");
        self.folder.path().join("cache/view").join(pipeline).join(name)
    }

    pub fn json(&self, name: &str) -> Value {
        let path = self.artifact(name);
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&bytes).unwrap()
    }
}

/// Runs a Python program of this folder with the packages that `make deps-test` fetched.
fn python(program: &str, arguments: &[&Path]) -> Value {
    let packages = root().join(".deps/python");
    assert!(packages.join("onnx").is_dir(), "no Python packages: run `make deps-test` first");
    let output = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
        .env("PYTHONPATH", packages)
        .arg(root().join("tests/it").join(program))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

const VARIANTS: [&str; 6] =
    ["fp32", "ptq[max]", "ptq[percentile]", "ptq[entropy]", "ptq[mse]", "qat"];

/// The quickstart on a part of the training images and all test images: the table, the truth of its
/// numbers, and what runs again after a change.
#[test]
fn the_quickstart_tells_the_truth_and_runs_once() {
    let pipeline = Pipeline::of(
        "quickstart",
        &["data.train.limit=9000", "params.epochs=1", "stages.bench.seconds=0.05"],
    );
    let said = pipeline.run(&[]);
    for title in ["FP32", "PTQ max", "PTQ percentile", "PTQ entropy", "PTQ mse", "QAT"] {
        assert!(said.contains(title), "{said}");
    }
    agreement(&pipeline);
    int8_is_what_runs(&pipeline);

    let again = pipeline.run(&[]);
    assert!(again.contains("0 ran, "), "{again}");
    let table = |said: &str| said.split("artifacts in").next().unwrap_or_default().to_owned();
    assert_eq!(table(&said), table(&again), "the table of a cached run is the same");

    let plan = pipeline.plan(&["--set", "stages.qat.batch_size=64"]);
    for (stage, action) in &plan {
        let after = stage == "qat" || stage.ends_with("[qat]") || stage == "report";
        assert_eq!(action == "cached", !after, "{stage}: {action}");
    }
}

/// Simulation, exported file in Python's onnxruntime, and engine: the same figures.
fn agreement(pipeline: &Pipeline) {
    let (apart, same) = (0.003, 0.99);
    let labels = root().join(".deps/data/fashion-mnist/t10k-labels-idx1-ubyte.gz");
    let images = root().join(".deps/data/fashion-mnist/t10k-images-idx3-ubyte.gz");
    for variant in VARIANTS {
        let simulated = pipeline.json(&format!("simulated[{variant}]/metrics.json"));
        let measured = pipeline.json(&format!("measured[{variant}]/metrics.json"));
        let top1 = |metrics: &Value| metrics["top1"].as_f64().unwrap();
        assert_eq!(simulated["samples"], 10_000);
        assert!((top1(&simulated) - top1(&measured)).abs() <= apart, "{variant}");
        assert!(top1(&measured) > 0.7, "{variant}: {measured}");
        let agreement = python(
            "agreement.py",
            &[
                &pipeline.artifact(&format!("onnx[{variant}]/model.onnx")),
                &pipeline.artifact(&format!("simulated[{variant}]/logits.npy")),
                &pipeline.artifact(&format!("measured[{variant}]/logits.npy")),
                &images,
                &labels,
            ],
        );
        let figure = |key: &str| agreement[key].as_f64().unwrap();
        assert!(figure("simulation_same_class") >= 0.999, "{variant}: {agreement}");
        assert!(figure("simulation_sqnr_db") >= 45.0, "{variant}: {agreement}");
        assert!(figure("engine_same_class") >= same, "{variant}: {agreement}");
        assert!(figure("engine_difference") <= 1e-4, "{variant}: {agreement}");
        assert!((figure("top1") - top1(&simulated)).abs() <= apart, "{variant}: {agreement}");
    }
}

/// ONNX Runtime fused all of the quantized networks, and nothing of the float one, to integer kernels.
fn int8_is_what_runs(pipeline: &Pipeline) {
    for variant in VARIANTS {
        let layers = pipeline.json(&format!("engine[{variant}]/layers.json"));
        let layers = layers.as_array().unwrap();
        let of = |kind: &str| layers.iter().filter(|layer| layer["kind"] == kind).count();
        if variant == "fp32" {
            assert_eq!((of("QLinearConv"), of("QuantizeLinear")), (0, 0));
        } else {
            assert_eq!((of("QLinearConv"), of("QLinearAdd"), of("QGemm")), (9, 3, 1), "{variant}");
            assert_eq!((of("Conv"), of("Gemm"), of("Add")), (0, 0, 0), "{variant}");
        }
    }
}

/// A search, what it chose in the model behind it, and the same from the file as a committed one.
#[test]
fn layers_are_searched_and_what_was_chosen_is_quantized() {
    let pipeline = Pipeline::of(
        "mixed_precision",
        &[
            "params.images=1000",
            "params.epochs=1",
            "data.test.limit=200",
            "stages.sens.samples=32",
            "stages.search.samples=64",
            "stages.search.max_engines=4",
            "stages.search.seconds=0.02",
            "stages.search.min_agreement=0.0",
            "stages.search.max_loss=100",
            "stages.bench.seconds=0.02",
        ],
    );
    let said = pipeline.run(&[]);
    assert!(said.contains("PTQ, mixed"), "{said}");
    let folder = pipeline.folder.path().join("cache/view/mixed_precision");
    let json = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    };
    let pareto = json("search/pareto.json");
    let candidates = pareto["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 4, "{pareto}");
    // All keep such limits: the fastest is chosen.
    assert_eq!(pareto["chosen"], candidates[0]["name"]);
    let float = candidates[0]["float_layers"].as_array().unwrap();
    let plan = json("mixed/plan.json");
    let layers = plan["layers"].as_array().unwrap().iter();
    let quantized = layers.filter(|layer| layer["quantized"] == true);
    assert!(quantized.clone().all(|layer| !float.contains(&layer["node"])), "{plan}");
    assert_eq!(
        quantized.count() + float.len(),
        pareto["layers"].as_array().unwrap().len(),
        "{plan}"
    );
    let again = pipeline.run(&[]);
    assert!(again.contains("0 ran, "), "{again}");

    // From the file beside the pipeline: the same model, without the search.
    let model = || std::fs::read(folder.join("mixed/model.onnx")).unwrap();
    let searched = model();
    let kept = pipeline.folder.path().join("pipelines/kept.toml");
    std::fs::copy(folder.join("search/chosen.toml"), kept).unwrap();
    let set = "stages.mixed.exclude_from={ file = \"kept.toml\" }";
    let output = pipeline.command("run", &["mixed", "--set", set]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("mixed: done"), "{said}");
    assert!(!said.contains("search: "), "{said}");
    assert!(model() == searched, "the same layers, another model");
}

/// The study's experiment on a few images that this test draws.
#[test]
fn the_study_runs_on_a_small_image_folder() {
    let pipeline = Pipeline::of(
        "resnet50_qat",
        &[
            "params.data=../xray",
            "params.max_steps=2",
            "params.epochs=1",
            "params.batch_size=4",
            "params.samples=8",
            "params.image_size=64",
            "stages.bench.iterations=2",
            "stages.bench.warmup=1",
            "stages.bench.seconds=0",
        ],
    );
    for (split, count) in [("train", 8), ("test", 4)] {
        for (class, brightness) in [("NORMAL", 60), ("PNEUMONIA", 170)] {
            let folder = pipeline.folder.path().join("xray").join(split).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let image = bitmap(80 + index, 72, brightness);
                std::fs::write(folder.join(format!("{index}.bmp")), image).unwrap();
            }
        }
    }
    let said = pipeline.run(&["--profile", "cpu"]);
    for title in ["FP32", "PTQ", "QAT"] {
        assert!(said.contains(title), "{said}");
    }
    let report = pipeline.json("report/report.json");
    assert_eq!(report["rows"].as_array().unwrap().len(), 3, "{report}");
    for (variant, batch) in [("fp32", 1), ("qat", 32)] {
        let bench = pipeline.json(&format!("bench[{variant},{batch}]/metrics.json"));
        assert_eq!(bench["batches"][0]["batch"], batch, "{bench}");
    }
    let confusion = pipeline.json("measured[qat]/confusion.json");
    assert_eq!(confusion["classes"], serde_json::json!(["NORMAL", "PNEUMONIA"]));
    let counts = confusion["counts"].as_array().unwrap().iter();
    let rows: Vec<u64> =
        counts.map(|row| row.as_array().unwrap().iter().filter_map(Value::as_u64).sum()).collect();
    assert_eq!(rows, [4, 4]);
}

/// A BMP file of 24 bits, with a gradient so that no two pixels are alike.
fn bitmap(width: usize, height: usize, brightness: u8) -> Vec<u8> {
    let row = (3 * width).next_multiple_of(4);
    let size = 54 + row * height;
    let mut bytes = b"BM".to_vec();
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend([0; 4]);
    for word in [54, 40, width as u32, height as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    for y in 0..height {
        let value = |x: usize| brightness.wrapping_add(((x * 3 + y * 5) % 64) as u8);
        let mut pixels: Vec<u8> = (0..width).flat_map(|x| [value(x); 3]).collect();
        pixels.resize(row, 0);
        bytes.extend(pixels);
    }
    bytes
}
