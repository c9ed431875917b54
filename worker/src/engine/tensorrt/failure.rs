//! Why trtexec failed, in words that name our node, flag or machine.

use std::os::unix::process::ExitStatusExt;

use super::{Ended, Log, Program};
use crate::Error;
use crate::graph::{Model, Node};

/// Where no GPU is.
pub fn no_gpu() -> Error {
    Error::machine("no NVIDIA GPU is visible here: TensorRT builds, times and runs an engine on the GPU that it is for").help(
        "run the pipeline on the machine with that GPU (nvidia-smi must list it, CUDA_VISIBLE_DEVICES must not hide it), here or through Slurm; \
         a shared cache brings the results here. Without one, backend = \"onnxruntime\" runs on the CPU and \"tensorrt-rtx\" builds without a GPU",
    )
}

/// Why a run of `program` that was to do `what` failed; `model` is what it was given.
pub fn of(program: &Program, what: &str, ended: &Ended, model: Option<&Model>) -> Error {
    let (log, runtime) = (&ended.log, format!("TensorRT {}", program.version));
    if no_gpu_words(log) {
        return no_gpu();
    }
    if let Some(words) = log.said("CUDA driver version is insufficient") {
        return Error::machine(format!("NVIDIA's driver is too old for {runtime}: {words}"))
            .help("update the driver, or name the TensorRT of an older CUDA with TENSORRT_DIR");
    }
    if let Some(flag) = log.said("Unknown option: ") {
        // Its value stands behind it.
        let flag = flag.trim_start_matches("Unknown option: ");
        let flag = flag.split_whitespace().next().unwrap_or_default();
        return Error::user(format!("{runtime} has no flag {flag}"))
            .help(format!("`{} --help` lists what it has", program.path.display()))
            .key("flags");
    }
    if log.helped {
        let words = log.errors.first().map_or("it gave no reason", String::as_str);
        return Error::user(format!("{runtime} does not take its flags: {words}"))
            .help(format!("`{} --help` tells what each takes", program.path.display()))
            .key("flags");
    }
    if let Some(words) = foreign(log) {
        return Error::user(format!(
            "{runtime} {what}: the engine was built for another GPU or version: {words}"
        ))
        .help(
            "an engine runs on the GPU and the version of TensorRT that built it: build it here",
        );
    }
    if let Some(error) = model.and_then(|model| refused_node(log, model)) {
        return error.at(format!("{runtime} cannot read the model"));
    }
    if let Some(signal) = ended.status.signal() {
        let last = log
            .errors
            .last()
            .or(log.loose.last())
            .cloned()
            .unwrap_or_else(|| "it said no error".to_owned());
        return Error::machine(format!("{runtime} {what}: trtexec was ended by signal {signal}: {last}"))
            .help("signal 6 is an abort of its own, often for a library that is missing (libcudnn, libcublas); signal 9 often a lack of memory");
    }
    // The first is the cause, the last the consequence.
    let cause = log.errors.first().or(log.loose.last()).cloned();
    let cause =
        cause.unwrap_or_else(|| format!("trtexec ended with {} and no error", ended.status));
    Error::user(format!("{runtime} {what}: {cause}"))
        .help("it takes Q/DQ pairs placed for TensorRT: insert-qdq with target = \"tensorrt\"; the log of the stage has all that it said")
}

fn no_gpu_words(log: &Log) -> bool {
    const WORDS: &[&str] = &[
        "no CUDA-capable device",
        "Cannot find any available devices",
        "libcuda.so.1: cannot open",
    ];
    WORDS.iter().any(|words| log.said(words).is_some())
}

/// What is said of an engine of another GPU or another version.
fn foreign(log: &Log) -> Option<&str> {
    const WORDS: &[&str] = &[
        "generated on an incompatible device",
        "plan file is not compatible with this version",
        "Version tag does not match",
        "serializationVersion",
    ];
    WORDS.iter().find_map(|words| log.said(words))
}

/// The node that the ONNX parser refuses: `While parsing node number 3 [Conv -> "y"]:` up to 10.0, later
/// `In node 3 with name: conv and operator: Conv (function): CODE: reason`.
fn refused_node(log: &Log, model: &Model) -> Option<Error> {
    let nodes = &model.graph.nodes;
    let node: &Node = if let Some(line) = log.said("arsing node number ") {
        let rest = line.split_once("arsing node number ")?.1;
        let output = rest.split_once("-> \"").and_then(|(_, rest)| rest.split('"').next());
        let number = rest.split(' ').next()?.parse::<usize>().ok();
        let named = output.and_then(|output| {
            nodes.iter().find(|node| node.outputs.iter().any(|name| name == output))
        });
        named.or_else(|| nodes.get(number?))?
    } else {
        let line = log.said("In node ")?;
        let rest = line.split_once("In node ")?.1;
        let name =
            rest.split_once("with name: ").and_then(|(_, rest)| rest.split(" and operator").next());
        let number = rest.split(' ').next()?.parse::<usize>().ok();
        let named = name.and_then(|name| nodes.iter().find(|node| node.name == name));
        named.or_else(|| nodes.get(number?))?
    };
    let reason = ["Assertion failed", "Invalid Node", "but must have type", "ERROR: ", "In node "]
        .iter()
        .find_map(|words| log.said(words));
    let name = super::layers::name_in_engine(node);
    Some(
        Error::user(format!("node \"{name}\" ({}): {}", node.op_type, reason.unwrap_or("it gave no reason").trim()))
            .help("`qpipe model lint FILE` tells what TensorRT does not take of Q/DQ pairs; insert-qdq with target = \"tensorrt\" places them as it wants")
            .key("model"),
    )
}

/// Whether it may be the timing cache that a run failed of: an abort, or errors about it.
pub fn of_cache(ended: &Ended) -> Option<String> {
    const OURS: &[i32] = &[libc::SIGKILL, libc::SIGTERM, libc::SIGINT];
    if ended.status.success() || no_gpu_words(&ended.log) {
        return None;
    }
    match ended.status.signal() {
        Some(signal) if OURS.contains(&signal) => None,
        Some(signal) => Some(format!("trtexec was ended by signal {signal}")),
        None => {
            let said = ["iming cache", "imingCache"].iter().find_map(|words| ended.log.said(words));
            said.map(str::to_owned)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;
    use crate::engine::tensorrt::Version;
    use crate::graph::Graph;

    fn ended(text: &str, raw: i32) -> Ended {
        Ended { status: ExitStatus::from_raw(raw), log: Log::of(text) }
    }

    fn model() -> Model {
        let node = |name: &str, op: &str, output: &str| Node::new(name, op, &["x"], &[output]);
        let nodes = vec![node("first", "Relu", "a"), node("odd", "NonZero", "b")];
        Model::new(Graph { nodes, ..Graph::default() }, 17)
    }

    fn told(text: &str, raw: i32) -> Error {
        let program = Program { path: "trtexec".into(), version: Version::new(8, 5, 3) };
        of(&program, "cannot build the model", &ended(text, raw), Some(&model()))
    }

    const FAILED: i32 = 1 << 8;

    /// As 8.6.1 and 10.3 say it; times left out.
    #[test]
    fn the_node_that_the_parser_refuses_is_named() {
        let old = "[t] [E] [TRT] ModelImporter.cpp:726: While parsing node number 1 [NonZero -> \"b\"]:\n\
                   [t] [E] [TRT] ModelImporter.cpp:732: ERROR: builtin_op_importers.cpp:5428 In function importFallbackPluginImporter:\n\
                   [8] Assertion failed: creator && \"Plugin not found\"\n[t] [E] Failed to parse onnx file\n";
        let error = told(old, FAILED);
        assert_eq!(
            error.message,
            "TensorRT 8.5.3 cannot read the model: node \"odd\" (NonZero): [8] Assertion failed: creator && \"Plugin not found\""
        );
        let new = "[t] [E] In node 1 with name: odd and operator: NonZero (checkFallbackPluginImporter): INVALID_NODE: creator && \"Plugin not found\"\n";
        let error = told(new, FAILED);
        assert!(error.message.contains("node \"odd\" (NonZero): In node 1"), "{error}");
    }

    #[test]
    fn machines_flags_and_foreign_engines_are_told_apart() {
        let error = told("Cuda failure: no CUDA-capable device is detected\n", 6);
        assert!(error.message.starts_with("no NVIDIA GPU is visible here"), "{error}");
        let error =
            told("Cuda failure: CUDA driver version is insufficient for CUDA runtime version\n", 6);
        assert!(
            error.message.starts_with("NVIDIA's driver is too old for TensorRT 8.5.3"),
            "{error}"
        );
        let error = told("[t] [E] Unknown option: --fast \n", FAILED);
        assert_eq!(
            (error.message.as_str(), error.key),
            ("TensorRT 8.5.3 has no flag --fast", Some("flags"))
        );
        let error = told(
            "[t] [E] Error[6]: The engine plan file is generated on an incompatible device, expecting compute 9.0 got compute 8.9, please rebuild.\n",
            FAILED,
        );
        assert!(
            error.message.contains("built for another GPU")
                && error.message.contains("got compute 8.9"),
            "{error}"
        );
        let error = told("[t] [E] first\n[t] [E] last\n", FAILED);
        assert_eq!(error.message, "TensorRT 8.5.3 cannot build the model: first");
    }

    /// Before 10 the help text follows the error, since then it precedes it. It has words that look like a failure of the timing cache.
    #[test]
    fn a_command_line_that_is_refused_is_no_fault_of_the_cache() {
        let (old, new) =
            (include_str!("recorded/help-8.6.txt"), include_str!("recorded/help-11.1.txt"));
        assert!(old.contains("timing cache") && new.contains("timing cache"));
        let error = "[t] [E] Unknown tactic source: CUBLAS\n";
        for text in [format!("{error}{old}"), format!("{new}{error}")] {
            assert_eq!(of_cache(&ended(&text, FAILED)), None);
            let error = told(&text, FAILED);
            assert_eq!(
                error.message,
                "TensorRT 8.5.3 does not take its flags: Unknown tactic source: CUBLAS"
            );
            assert_eq!(error.key, Some("flags"));
        }
        let text = format!("{new}[t] [E] Unknown option: --fast 3\n");
        assert_eq!(told(&text, FAILED).message, "TensorRT 8.5.3 has no flag --fast");
    }

    #[test]
    fn only_what_may_be_the_caches_fault_is_tried_without_it() {
        assert_eq!(of_cache(&ended("", 6)).as_deref(), Some("trtexec was ended by signal 6"));
        assert_eq!(of_cache(&ended("", libc::SIGTERM)), None);
        assert_eq!(of_cache(&ended("Cuda failure: no CUDA-capable device is detected\n", 6)), None);
        assert_eq!(of_cache(&ended("[t] [E] Failed to parse onnx file\n", FAILED)), None);
        assert!(of_cache(&ended("[t] [E] TimingCache creation failed\n", FAILED)).is_some());
        assert_eq!(
            of_cache(&ended("[t] [E] Error[4]: The timing cache will not be used!\n", 0)),
            None
        );
    }
}
