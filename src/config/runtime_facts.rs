//! Facts of the machine that a stage's result depends on: those of its own contract, and of the runtime that it runs.
//!
//! A stage that takes an engine runs it. Which runtime that needs only the stage that built it says: figures of TensorRT belong to its
//! version, GPU and driver, and need no ONNX Runtime.

use std::collections::HashMap;

use super::pipeline::{Origin, StageCell};
use crate::stages::contract::{Fact, PortType, Runs};

/// Writes to each stage what it depends on.
pub fn tell(cells: &mut [StageCell]) {
    let own: HashMap<String, Vec<Fact>> =
        cells.iter().map(|cell| (cell.id.clone(), cell.stage.facts())).collect();
    for cell in cells {
        let mut facts = cell.stage.facts();
        // The runner itself and a user's program start no runtime that is known here.
        let inputs = cell.inputs.iter().filter(|_| cell.kind.runs == Runs::Worker);
        for input in inputs {
            let Origin::Stage { id, kind: PortType::Engine, .. } = &input.origin else { continue };
            let of_engine = own.get(id).into_iter().flatten();
            facts.extend(of_engine.clone());
            // It builds without a GPU; what runs the engine has one.
            facts.extend(
                of_engine.filter(|fact| **fact == Fact::TensorRtRtx).map(|_| Fact::NvidiaGpu),
            );
        }
        facts.sort_unstable();
        facts.dedup();
        cell.facts = facts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    /// What makes sure that a figure is never taken for another machine's, or for another runtime's.
    #[test]
    fn what_runs_an_engine_depends_on_its_runtime() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        let mut text =
            "[data.d]\nformat = \"idx\"\npath = \"images.gz\"\nlabels = \"labels.gz\"\n".to_owned();
        for (name, backend) in [
            ("ort", "onnxruntime"),
            ("trt", "tensorrt"),
            ("rtx", "tensorrt-rtx"),
            ("torch", "torch"),
        ] {
            text += &format!(
                "[stages.{name}]\nkind = \"build-engine\"\nmodel = {{ onnx = \"net.onnx\" }}\nbackend = \"{backend}\"\n\
                 [stages.{name}_time]\nkind = \"benchmark\"\nengine = \"{name}.engine\"\n\
                 [stages.{name}_test]\nkind = \"evaluate\"\nengine = \"{name}.engine\"\ndata = \"data.d\"\n"
            );
        }
        for name in ["net.onnx", "images.gz", "labels.gz"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::write(&file, text).unwrap();
        let pipeline = load(&file, &crate::config::Overrides::default()).unwrap();
        let facts =
            |id: &str| pipeline.stages.iter().find(|cell| cell.id == id).unwrap().facts.clone();
        use Fact::{Cpu, Host, Libtorch, NvidiaGpu, OnnxRuntime, TensorRt, TensorRtRtx};
        assert_eq!(facts("ort_time"), [Cpu, Host, OnnxRuntime]);
        assert_eq!(facts("trt_time"), [Cpu, Host, TensorRt]);
        assert_eq!(facts("rtx"), [TensorRtRtx]);
        assert_eq!(facts("rtx_time"), [Cpu, Host, TensorRtRtx, NvidiaGpu]);
        assert_eq!(facts("rtx_test"), [TensorRtRtx, NvidiaGpu]);
        assert_eq!(facts("torch_time"), [Cpu, Host, Libtorch]);
        assert_eq!(facts("ort_test"), [Cpu, OnnxRuntime]);
        assert_eq!(facts("trt_test"), [TensorRt]);
        assert_eq!(facts("torch_test"), [Libtorch]);
    }
}
