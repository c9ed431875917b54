//! What TensorRT-RTX makes of a float graph with our placement: its layers with the types that they read and write.

use std::collections::BTreeMap;

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::graph::Model;
use qpipe_worker::onnx;
use qpipe_worker::passes;
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Plan, plan, watched};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::quant::ranges::{Range, Ranges, VERSION};

use super::build;
use super::draft::BATCH;

/// A layer of the engine, as the builder logs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The names of the nodes in it, as far as TensorRT keeps them.
    pub name: String,
    /// What computes it: `correlation`, `gemm`, `kgen` (generated from pointwise operators), …
    pub kind: String,
    /// Types of what it reads, without constants.
    pub reads: Vec<String>,
    /// Types of what it writes.
    pub writes: Vec<String>,
}

/// The plan of a graph, and what became of it.
pub struct Verdict {
    pub plan: Plan,
    pub lines: Vec<Line>,
}

/// A different range for each value, so that no two scales are the same by chance.
fn ranges(model: &Model) -> Ranges {
    let range = |(index, tensor): (usize, String)| {
        let amax = 1.0 + index as f32 / 8.0;
        Range { tensor, amax: BTreeMap::from([(Method::Max, amax)]), ..Range::default() }
    };
    let tensors = watched(&model.graph).into_iter().enumerate().map(range).collect();
    Ranges { version: VERSION, calibration: None, tensors }
}

/// Places pairs for TensorRT-RTX, and builds.
pub fn verdict(mut model: Model) -> Verdict {
    let folder = tempfile::tempdir().expect("a folder");
    let outputs = model.graph.outputs.clone();
    prepare(&mut model).expect("prepares");
    let request = crate::quant::request(Target::TensorrtRtx);
    let plan = plan(&model.graph, &ranges(&model), &request).expect("plans");
    insert(&mut model, &plan).expect("inserts");
    finalize(&mut model, None).expect("finalizes");
    passes::set_batch(&mut model, Some(BATCH as u32)).expect("sets the batch");
    model.graph.outputs = outputs;
    onnx::check(&model).expect("the standard's rules");
    build(&model, folder.path()).expect("TensorRT-RTX takes it");
    let log = std::fs::read_to_string(folder.path().join("layers.log")).expect("the log");
    if std::env::var_os("QPIPE_RTX_LOG").is_some() {
        println!("{log}");
    }
    let lines: Vec<Line> = log.lines().map(line).collect();
    Verdict { plan, lines }
}

fn line(text: &str) -> Line {
    let (name, rest) = text.strip_prefix("Name: ").and_then(|text| text.split_once(", LayerType: ")).expect("a layer");
    let (kind, rest) = rest.split_once(", Inputs: ").expect("inputs");
    let (inputs, rest) = rest.split_once(", Constants: ").unwrap_or((rest, rest));
    let outputs = rest.split_once("Outputs: ").map_or("", |(_, outputs)| outputs);
    let types = |text: &str| {
        let words = text.split("Datatype: ").skip(1);
        words.map(|word| word.split([',', ' ']).next().unwrap_or_default().to_lowercase()).collect()
    };
    Line { name: name.to_owned(), kind: kind.to_owned(), reads: types(inputs), writes: types(outputs) }
}
