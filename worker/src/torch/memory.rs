//! Too little memory, in words that help.

use serde_json::Value;

use crate::Error;

/// The error of a text of libtorch that is one of too little memory, of a GPU or of the machine.
pub(super) fn out_of_memory(text: &str) -> Option<Error> {
    let message = if let Some(rest) = after(text, "CUDA out of memory.") {
        let wanted = between(rest, "Tried to allocate ", ". ");
        let gpu = between(rest, "GPU ", " has").filter(|gpu| gpu.parse::<u32>().is_ok());
        let total = between(rest, "total capacity of ", " of which");
        let free = between(rest, "of which ", " is free");
        let ours = between(rest, "this process has ", " memory in use");
        let mut message = format!(
            "the GPU{} has too little memory",
            gpu.map_or(String::new(), |gpu| format!(" (cuda:{gpu})"))
        );
        if let Some(wanted) = wanted {
            message += &format!(": {wanted} more were wanted");
        }
        if let (Some(total), Some(free)) = (total, free) {
            message += &format!("; of its {total} {free} are free");
        }
        if let Some(ours) = ours {
            message += &format!(", {ours} are this stage's");
        }
        message
    } else if text.contains("DefaultCPUAllocator") && text.contains("tried to allocate") {
        let bytes = between(text, "you tried to allocate ", " bytes")?.parse::<u64>().ok()?;
        format!("the machine has too little memory: {} more were wanted{}", size(bytes), free())
    } else if GPU.iter().any(|sign| text.contains(sign)) {
        "the GPU has too little memory".to_owned()
    } else {
        return None;
    };
    Some(Error { out_of_memory: true, ..Error::user(message) })
}

/// How libraries below libtorch say it; they tell no figures.
const GPU: &[&str] = &[
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
];

/// Adds to an error of too little memory the batch size of the stage's configuration, and what needs less; leaves others.
pub fn explain(error: Error, kind: &str, config: &Value) -> Error {
    if !error.out_of_memory {
        return error;
    }
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let Some(batch) = number("batch_size") else {
        return error.help(
            "other processes may hold it; device = \"cpu\" computes in the machine's memory",
        );
    };
    let message = format!("{} (batch_size = {batch})", error.message);
    let half = batch / 2;
    let trains = ["train", "finetune"].contains(&kind);
    let mut help = match (half, trains) {
        (0, _) => "batch_size is 1 already: smaller images need less".to_owned(),
        (_, false) => format!("a smaller batch needs less, such as batch_size = {half}"),
        (_, true) => {
            let batches = 2 * number("accumulate").unwrap_or(1);
            format!(
                "a smaller batch needs less: batch_size = {half} with accumulate = {batches} has as many images a step"
            )
        }
    };
    if trains && config.get("amp").is_none() {
        help += "; amp = \"bf16\" halves what is kept for gradients";
    }
    help += "; other processes may hold memory, too";
    Error { message, ..error }.help(help).key("batch_size")
}

fn after<'a>(text: &'a str, sign: &str) -> Option<&'a str> {
    text.split_once(sign).map(|(_, rest)| rest)
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    let rest = after(text, before)?;
    let end =
        rest.find(behind).or_else(|| (behind == ". ").then(|| rest.trim_end_matches('.').len()))?;
    Some(rest[..end].trim())
}

/// Bytes, in the units of libtorch's messages.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (bytes.max(1).ilog2() / 10) as usize;
    match power.checked_sub(1).and_then(|unit| units.get(unit)) {
        Some(unit) => format!("{:.2} {unit}", bytes as f64 / f64::from(power as u32 * 10).exp2()),
        None => format!("{bytes} bytes"),
    }
}

/// What the system says of its memory.
fn free() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    match (line("MemTotal:"), line("MemAvailable:")) {
        (Some(total), Some(free)) => {
            format!("; of its {} {} are free", size(total << 10), size(free << 10))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use qpipe::task::Blame;
    use serde_json::json;
    use tch::{Device, Kind, Tensor};

    use super::*;

    /// As PyTorch 2.11 says it.
    const CUDA: &str = "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 1 has a total capacity of 14.57 GiB of which 1.58 GiB is free. Process 2493055 has 12.02 GiB memory in use. Including non-PyTorch memory, this process has 966.00 MiB memory in use. Of the allocated memory 734.07 MiB is allocated by PyTorch, and 33.93 MiB is reserved by PyTorch but unallocated.";

    #[test]
    fn a_gpu_that_is_full_is_told_with_its_figures_and_what_to_do() {
        let error = out_of_memory(CUDA).unwrap().at("node \"conv1\" (Conv)");
        assert_eq!(
            error.message,
            "node \"conv1\" (Conv): the GPU (cuda:1) has too little memory: 1.95 GiB more were wanted; of its 14.57 GiB 1.58 GiB are free, 966.00 MiB are this stage's"
        );
        assert_eq!(error.blame, Blame::User);
        let config = json!({ "batch_size": 64, "accumulate": 2 });
        let error = explain(error, "train", &config);
        assert!(error.message.ends_with("(batch_size = 64)"), "{}", error.message);
        assert_eq!(error.key, Some("batch_size"));
        let help = error.help.unwrap();
        assert!(help.contains("batch_size = 32 with accumulate = 4"), "{help}");
        assert!(help.contains("amp = \"bf16\""), "{help}");
    }

    #[test]
    fn what_a_stage_does_not_have_is_not_recommended() {
        let help =
            |kind, config| explain(out_of_memory(CUDA).unwrap(), kind, &config).help.unwrap();
        let evaluate = help("evaluate", json!({ "batch_size": 3 }));
        assert!(evaluate.contains("batch_size = 1"), "{evaluate}");
        assert!(!evaluate.contains("accumulate") && !evaluate.contains("amp"), "{evaluate}");
        let mixed = help("finetune", json!({ "batch_size": 8, "amp": "bf16" }));
        assert!(mixed.contains("accumulate = 2") && !mixed.contains("amp ="), "{mixed}");
        assert!(help("train", json!({ "batch_size": 1 })).contains("1 already"));
        assert!(help("export-onnx", json!({})).contains("device = \"cpu\""));
    }

    #[test]
    fn forms_without_figures_are_known_and_other_errors_are_left() {
        for text in [
            "CUDA out of memory. ",
            "CUDA out of memory. Tried to allocate 20.00 MiB.",
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ] {
            let error = out_of_memory(text).expect(text);
            assert!(
                error.message.starts_with("the GPU has too little memory"),
                "{}",
                error.message
            );
        }
        let error = out_of_memory("CUDA out of memory. Tried to allocate 20.00 MiB.").unwrap();
        assert!(error.message.ends_with(": 20.00 MiB more were wanted"), "{}", error.message);
        assert!(out_of_memory("The size of tensor a (3) must match").is_none());
        let other = explain(Error::user("x"), "train", &json!({ "batch_size": 4 }));
        assert_eq!((other.message.as_str(), other.help), ("x", None));
    }

    #[test]
    fn a_real_allocation_that_cannot_succeed_is_told() {
        // More than the address space of a process.
        let made = Tensor::f_empty([1 << 46], (Kind::Double, Device::Cpu));
        let error = Error::from(made.expect_err("512 TiB"));
        assert!(error.out_of_memory, "{}", error.message);
        let start = "the machine has too little memory: 512.00 TiB more were wanted; of its ";
        assert!(error.message.starts_with(start), "{}", error.message);
        // And what fits is computed afterwards.
        assert_eq!(
            Tensor::ones([2], (Kind::Double, Device::Cpu)).sum(Kind::Double).double_value(&[]),
            2.0
        );
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([size(0), size(1023), size(1024)], ["0 bytes", "1023 bytes", "1.00 KiB"]);
        assert_eq!(size(3 << 29), "1.50 GiB");
        assert_eq!(size(u64::MAX), "16.00 EiB");
    }
}
