//! What TensorRT-RTX makes of a float graph with our placement: its layers with the types that they read and write.

use std::collections::BTreeMap;

use qpipe::stages::build_engine::Precision;
use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::graph::Model;
use qpipe_worker::onnx;
use qpipe_worker::ops::WEIGHTED;
use qpipe_worker::passes;
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Plan, plan, watched};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::quant::ranges::{Range, Ranges, VERSION};

use super::build_for;
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

impl Verdict {
    /// Generated kernels in the order of the engine, by the operators in them: rounding is `MulMinMaxRounCast`, its reverse `CastMul`.
    pub fn generated(&self) -> Vec<&str> {
        let kernels = self.lines.iter().filter_map(|line| line.name.strip_prefix("__myl_"));
        kernels.map(|name| name.split("_myl").next().unwrap_or(name)).collect()
    }

    /// The layer that computes a node.
    fn of(&self, node: &str) -> &Line {
        let named = |line: &&Line| line.nodes().any(|name| name == node);
        self.lines.iter().find(named).unwrap_or_else(|| panic!("{node}: {:#?}", self.lines))
    }

    /// Holds each Conv, ConvTranspose, Gemm and MatMul to the plan: INT8 where that quantizes it, float where not. Those of
    /// `attention` are one kernel with what is between them.
    pub fn agrees(&self, attention: &[&str]) {
        let layers: Vec<_> =
            self.plan.layers.iter().filter(|layer| WEIGHTED.contains(&layer.op.as_str())).collect();
        assert!(!layers.is_empty());
        for layer in layers {
            let name = if attention.contains(&layer.node.as_str()) {
                "_gemm_mha_v2"
            } else {
                layer.node.as_str()
            };
            let line = self.of(name);
            let expected = if layer.quantized { "int8" } else { "float" };
            assert!(!line.reads.is_empty(), "{}: {line:?}", layer.node);
            assert!(line.reads.iter().all(|read| read == expected), "{}: {line:?}", layer.node);
        }
    }

    /// What the layer of that kind reads and writes.
    pub fn types(&self, kind: &str) -> (Vec<&str>, Vec<&str>) {
        let line = self.lines.iter().find(|line| line.kind == kind);
        let line = line.unwrap_or_else(|| panic!("{kind}: {:#?}", self.lines));
        (
            line.reads.iter().map(String::as_str).collect(),
            line.writes.iter().map(String::as_str).collect(),
        )
    }
}

impl Line {
    /// The nodes that it is called after: `a_product_U9+b_myl0_3` are `a_product` and `b`.
    fn nodes(&self) -> impl Iterator<Item = &str> {
        let names = self.name.rsplit_once("_myl").map_or(self.name.as_str(), |(names, _)| names);
        names.split('+').map(|name| match name.rsplit_once("_U") {
            Some((node, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => node,
            _ => name,
        })
    }
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

/// Places pairs for TensorRT-RTX, and builds for the RTX 40 series.
pub fn verdict(model: Model) -> Verdict {
    verdict_for(89, None, model)
}

/// The same for another compute capability, and with what is not INT8 in the type of `precision`.
pub fn verdict_for(capability: u32, precision: Option<Precision>, mut model: Model) -> Verdict {
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
    build_for(capability, precision, &model, folder.path()).expect("TensorRT-RTX takes it");
    let log = std::fs::read_to_string(folder.path().join("layers.log")).expect("the log");
    let lines: Vec<Line> = log.lines().map(line).collect();
    Verdict { plan, lines }
}

fn line(text: &str) -> Line {
    let (name, rest) = text
        .strip_prefix("Name: ")
        .and_then(|text| text.split_once(", LayerType: "))
        .expect("a layer");
    let (kind, rest) = rest.split_once(", Inputs: ").expect("inputs");
    let (inputs, rest) = rest.split_once(", Constants: ").unwrap_or((rest, rest));
    let outputs = rest.split_once("Outputs: ").map_or("", |(_, outputs)| outputs);
    let types = |text: &str| {
        let words = text.split("Datatype: ").skip(1);
        words.map(|word| word.split([',', ' ']).next().unwrap_or_default().to_lowercase()).collect()
    };
    Line {
        name: name.to_owned(),
        kind: kind.to_owned(),
        reads: types(inputs),
        writes: types(outputs),
    }
}
