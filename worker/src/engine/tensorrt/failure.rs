//! Why trtexec failed, in words that name our node, flag or machine.

use std::os::unix::process::ExitStatusExt;

use super::pairs::Pairs;
use super::{Ended, Log, Program};
use crate::Error;
use crate::graph::{Model, Node};

/// Where no GPU is.
pub fn no_gpu() -> Error {
    Error::machine("no NVIDIA GPU is visible here: TensorRT builds, times and runs an engine on the GPU that it is for").help(
        "run the pipeline on the machine with that GPU (nvidia-smi must list it; CUDA_VISIBLE_DEVICES and --gpus must not hide it), here or through Slurm; \
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
    if let Some(words) = log.said("Invalid usage") {
        return Error::user(format!("{runtime} does not take its flags: {words}")).key("flags");
    }
    if let Some(words) = log.said("Saving engine to file failed") {
        return Error::machine(format!("{runtime} {what}: {words}"))
            .help("it is written into the folder of the cache: is there room on its disk, and may it be written?");
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
    let telling = telling(log);
    if !ended.status.signal().is_some_and(|signal| OURS.contains(&signal))
        && let Some(error) = no_memory(log, &telling, &format!("{runtime} {what}"))
    {
        return error;
    }
    if let Some(signal) = ended.status.signal() {
        let last = telling.last().copied().or(log.loose.last().map(String::as_str));
        let last = last.unwrap_or("it said no error");
        return Error::machine(format!("{runtime} {what}: trtexec was ended by signal {signal}: {last}"))
            .help("signal 6 is an abort of its own, often for a library that is missing (libcudnn, libcublas); signal 9 often a lack of memory");
    }
    // The first is the cause, the last the consequence; that memory was short for a trial of the builder is the cause of nothing but a node without a kernel.
    let no_kernel = telling.iter().find(|line| line.contains(NO_KERNEL));
    let cause = no_kernel.or(telling.iter().find(|line| !speaks_of_memory(line)));
    let cause = cause.copied().or(log.loose.last().map(String::as_str)).map(str::to_owned);
    let cause =
        cause.unwrap_or_else(|| format!("trtexec ended with {} and no error", ended.status));
    let pairs = model.is_some_and(|model| Pairs::of(&model.graph).any());
    let pairs = if pairs {
        "it takes Q/DQ pairs placed for TensorRT: insert-qdq with target = \"tensorrt\"; "
    } else {
        ""
    };
    Error::user(format!("{runtime} {what}: {cause}"))
        .help(format!("{pairs}the log of the stage has all that it said"))
}

/// A layer that the builder found no kernel for.
const NO_KERNEL: &str = "Could not find any implementation for node";

/// What was said of why it failed: errors without those that builds have too which succeed, and without those that only follow from another. All,
/// where nothing else is left.
fn telling(log: &Log) -> Vec<&str> {
    /// Kernels that the builder tried and left out (since 10), and a cache without which it goes on.
    const HARMLESS: &[&str] = &[
        "Skipping tactic",
        "myelinCache.h::deserializeFromBuffer",
        "timing cache will not be used",
    ];
    /// Of trtexec's own, down to its end, and of the builder that gives nothing.
    const CONSEQUENCES: &[&str] = &[
        "Engine could not be created from network",
        "Building engine failed",
        "Failed to create engine from model",
        "Engine set up failed",
        "Inference set up failed",
        "Assertion engine != nullptr failed",
    ];
    let without = |words: &[&[&str]]| -> Vec<&str> {
        let known = |line: &str| words.iter().copied().flatten().any(|part| line.contains(part));
        log.errors.iter().map(String::as_str).filter(|line| !known(line)).collect()
    };
    let tries = [without(&[HARMLESS, CONSEQUENCES]), without(&[HARMLESS]), without(&[])];
    tries.into_iter().find(|lines| !lines.is_empty()).unwrap_or_default()
}

fn speaks_of_memory(line: &str) -> bool {
    const WORDS: &[&str] =
        &["OutOfMemory", "out of memory", "insufficient memory", "cudaErrorMemoryAllocation"];
    WORDS.iter().any(|words| line.contains(words))
}

/// A GPU without enough memory. The builder goes on where a trial of it finds none, so that words of it stand in builds too that succeed, or fail of
/// something else: they are the cause where they stand last, or where a node has no kernel.
fn no_memory(log: &Log, telling: &[&str], failed: &str) -> Option<Error> {
    const LESS: &str = "end what else uses the GPU's memory (nvidia-smi lists it), or take a smaller batch; \
                        flags = [\"--memPoolSize=workspace:N\"] holds the builder's trials to N MiB";
    let no_kernel = telling.iter().find(|line| line.contains(NO_KERNEL));
    let all = log.errors.iter().chain(&log.loose).map(String::as_str);
    let short = match no_kernel {
        Some(_) => all.into_iter().find(|line| speaks_of_memory(line)),
        None => {
            let last = telling.last().copied().or(log.loose.last().map(String::as_str));
            last.filter(|line| speaks_of_memory(line))
        }
    };
    if let Some(line) = short {
        return Some(
            Error::machine(format!("{failed}: the GPU has too little free memory: {line}"))
                .help(LESS),
        );
    }
    let line = no_kernel.filter(|line| line.contains("insufficient workspace"))?;
    Some(
        Error::machine(format!("{failed}: no kernel fits into the memory that the builder may take: {line}"))
            .help(format!("raise `--memPoolSize=workspace:N` in `flags` or leave it out, since all of the GPU's memory is the default; where it is not there: {LESS}")),
    )
}

/// Signals that come from outside.
const OURS: &[i32] = &[libc::SIGKILL, libc::SIGTERM, libc::SIGINT];

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
        // What it says of no node has an empty name and number -1.
        let name = name.filter(|name| !name.is_empty());
        let named = name.and_then(|name| nodes.iter().find(|node| node.name == name));
        named.or_else(|| nodes.get(number?))?
    };
    // `[6] creator && "Plugin not found, …"`: a line of its own behind the place, since 10.
    let numbered = |line: &&str| {
        let code = line.trim().strip_prefix('[').and_then(|rest| rest.split_once("] "));
        code.is_some_and(|(code, _)| {
            !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let lines = log.errors.iter().chain(&log.loose).map(String::as_str);
    let numbered = lines.into_iter().find(numbered);
    let reason = ["Assertion failed", "Invalid Node", "but must have type", "ERROR: ", "In node "]
        .iter()
        .find_map(|words| log.said(words).filter(|line| !line.ends_with(':')))
        .or(numbered);
    let name = super::layers::name_in_engine(node);
    Some(
        Error::user(format!("node \"{name}\" ({}): {}", node.op_type, reason.unwrap_or("it gave no reason").trim()))
            .help("`qpipe model lint FILE` tells what TensorRT does not take of Q/DQ pairs; insert-qdq with target = \"tensorrt\" places them as it wants")
            .key("model"),
    )
}

/// Whether it may be the timing cache that a run failed of: an abort, or errors about it.
pub fn of_cache(ended: &Ended) -> Option<String> {
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
        let program =
            Program { path: "trtexec".into(), version: Version::new(8, 5, 3), own: false };
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
        // The newest parsers', of NVIDIA's program and of ours, which stamps each line.
        for reason in ["[t] [E] [6] creator", "[6] creator"] {
            let newest = format!(
                "[t] [E] [TRT] ModelImporter.cpp:140: While parsing node number 1 [NonZero -> \"b\"]:\n\
                 [t] [E] [TRT] ModelImporter.cpp:151: ERROR: onnxOpCheckers.cpp:998 In function checkFallback:\n{reason} && \"Plugin not found\"\n"
            );
            let error = told(&newest, FAILED);
            assert!(
                error.message.ends_with("(NonZero): [6] creator && \"Plugin not found\""),
                "{error}"
            );
        }
        let nowhere = "[t] [E] In node -1 with name:  and operator:  (importInitializers): INVALID_GRAPH: no such file\n";
        let error = told(nowhere, FAILED);
        assert!(!error.message.contains("node \""), "{error}");
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
        let error = told(
            "[t] [E] Invalid usage, setting fp16 mode is not allowed if graph is strongly typed.\n",
            FAILED,
        );
        assert_eq!(error.key, Some("flags"), "{error}");
        let error = told("[t] [E] Saving engine to file failed.\n", FAILED);
        assert!(matches!(error.blame, qpipe::task::Blame::Machine), "{error}");
        assert!(error.help.as_deref().unwrap().contains("room on its disk"), "{error}");
        let error = told("[t] [E] first\n[t] [E] last\n", FAILED);
        assert_eq!(error.message, "TensorRT 8.5.3 cannot build the model: first");
    }

    /// Errors as builds have them too that succeed, of 8.5 (`recorded/timing-cache-without-cudnn.log`) and of 10.
    const HARMLESS: &str = "[t] [E] [TRT] 1: [myelinCache.h::deserializeFromBuffer::52] Error Code 1: Myelin (Myelin error from unknown graph)\n\
        [t] [E] Error[9]: Error Code: 9: Skipping tactic 0x00000000000003e8 due to exception misaligned address\n";
    const CONSEQUENCES: &str = "[t] [E] Error[2]: [builder.cpp::buildSerializedNetwork::751] Error Code 2: Internal Error (Assertion engine != nullptr failed. )\n\
        [t] [E] Engine could not be created from network\n[t] [E] Building engine failed\n\
        [t] [E] Failed to create engine from model or file.\n[t] [E] Engine set up failed\n";
    const OUT: &str = "[t] [E] [TRT] 2: [virtualMemoryBuffer.cpp::resizePhysical::127] Error Code 2: OutOfMemory (Requested size was 8589934592 bytes.)\n";
    const NODE: &str = "[t] [E] [TRT] 10: [optimizer.cpp::computeCosts::3728] Error Code 10: Internal Error (Could not find any implementation for node /conv1/Conv";

    #[test]
    fn a_gpu_without_memory_is_told_from_a_model_that_is_at_fault() {
        let error = told(&format!("{HARMLESS}{OUT}{NODE}.)\n{CONSEQUENCES}"), FAILED);
        assert!(
            error.message.starts_with("TensorRT 8.5.3 cannot build the model: the GPU has too little free memory: 2: [virtualMemoryBuffer"),
            "{error}"
        );
        assert!(error.help.as_deref().unwrap().contains("smaller batch"), "{error}");
        let error = told(&format!("{HARMLESS}{OUT}"), FAILED);
        assert!(error.message.contains("too little free memory"), "{error}");
        let error = told("Cuda failure: out of memory\n", 6);
        assert!(error.message.contains("too little free memory"), "{error}");

        let workspace = "due to insufficient workspace. See verbose log for requested sizes.)\n";
        let error = told(&format!("{HARMLESS}{NODE} {workspace}{CONSEQUENCES}"), FAILED);
        assert!(error.message.contains("no kernel fits into the memory"), "{error}");
        assert!(error.help.as_deref().unwrap().contains("--memPoolSize=workspace"), "{error}");
    }

    #[test]
    fn what_stands_in_good_builds_too_is_no_cause() {
        let cause = "Error[4]: [network.cpp::validate::1] Error Code 4: API Usage Error (x)";
        let error = told(&format!("{HARMLESS}{OUT}[t] [E] {cause}\n{CONSEQUENCES}"), FAILED);
        assert_eq!(error.message, format!("TensorRT 8.5.3 cannot build the model: {cause}"));
        let error = told(&format!("{HARMLESS}{NODE}.)\n{CONSEQUENCES}"), FAILED);
        assert!(error.message.contains("Could not find any implementation for"), "{error}");
        // The model has no pairs that could be placed otherwise.
        assert!(!error.help.as_deref().unwrap().contains("insert-qdq"), "{error}");
        // Better than nothing.
        let error = told(CONSEQUENCES, FAILED);
        assert!(error.message.contains("Assertion engine != nullptr"), "{error}");
        assert!(told(HARMLESS, FAILED).message.contains("myelinCache"));
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
