//! Start weights from a file: safetensors, or a state dict that `torch.save` wrote.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::pickle;
use crate::graph::{DType, Graph, TensorData};
use crate::{Error, Result};

/// Tensors of a file by name.
pub(super) type Tensors = BTreeMap<String, TensorData>;

/// Replaces `graph`'s parameters by the file's. `module.` in front of names (`DataParallel`) is
/// dropped, `num_batches_tracked` ignored. A file without the head (`fc` or `classifier.1`) leaves
/// the head as it was drawn, for another set of classes.
pub(super) fn load(graph: &mut Graph, path: &Path) -> Result<()> {
    let tensors = read(path)?;
    let tensors: Tensors = tensors
        .into_iter()
        .map(|(name, tensor)| (name.strip_prefix("module.").unwrap_or(&name).to_owned(), tensor))
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .collect();
    check(graph, &tensors).map_err(|error| error.at(path.display()))?;
    for (name, tensor) in tensors {
        let tensor = as_f32(&tensor).map_err(|error| error.at(format!("tensor {name}")))?;
        graph.initializers.insert(name, tensor);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Tensors> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(path, &error))?;
    let tensors = if path.extension().is_some_and(|extension| extension == "safetensors") {
        read_safetensors(&bytes)
    } else {
        pickle::read_state_dict(&bytes)
    };
    tensors.map_err(|error| error.at(path.display()))
}

fn read_safetensors(bytes: &[u8]) -> Result<Tensors> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| Error::user(format!("not a safetensors file: {error}")))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            Dtype::I64 => DType::I64,
            other => {
                return Err(Error::user(format!(
                    "tensor {name} is of type {other:?}: expected a float type"
                )));
            }
        };
        let shape = view.shape().iter().map(|&extent| extent as i64).collect();
        let bytes = bytes::Bytes::copy_from_slice(view.data());
        tensors.insert(name.to_owned(), TensorData { dtype, shape, bytes });
    }
    Ok(tensors)
}

fn as_f32(tensor: &TensorData) -> Result<TensorData> {
    let halves = || {
        tensor.bytes.chunks_exact(2).map(|c| u16::from_le_bytes(c.try_into().expect("two bytes")))
    };
    let values: Vec<f32> = match tensor.dtype {
        DType::F32 => return Ok(tensor.clone()),
        DType::F16 => halves().map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
        DType::BF16 => halves().map(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
        DType::F64 => {
            let chunks = tensor.bytes.chunks_exact(8);
            chunks.map(|c| f64::from_le_bytes(c.try_into().expect("eight bytes")) as f32).collect()
        }
        other => {
            return Err(Error::user(format!("expected a float type, found {}", other.name())));
        }
    };
    Ok(TensorData::f32(&tensor.shape, &values))
}

/// Compares names and shapes; all that does not fit is told in one error.
fn check(graph: &Graph, tensors: &Tensors) -> Result<()> {
    let parameter = |name: &str| {
        [".weight", ".bias", ".running_mean", ".running_var"].iter().any(|end| name.ends_with(end))
    };
    let expected: BTreeMap<&str, &TensorData> = graph
        .initializers
        .iter()
        .filter(|(name, _)| parameter(name))
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let head = graph.nodes.iter().rfind(|node| node.op_type == "Gemm");
    let head: Vec<&str> =
        head.map_or(Vec::new(), |node| (1..3).filter_map(|i| node.input(i)).collect());
    let new_head = head.iter().all(|name| !tensors.contains_key(*name));

    let mut lines = Vec::new();
    let missing = expected.keys().filter(|name| !tensors.contains_key(**name));
    for name in missing.filter(|name| !(new_head && head.contains(name))) {
        lines.push(format!("missing    {name}{}", nearest(name, tensors.keys())));
    }
    for name in tensors.keys().filter(|name| !expected.contains_key(name.as_str())) {
        lines.push(format!("unexpected {name}{}", nearest(name, expected.keys())));
    }
    let mut only_head = lines.is_empty();
    for (name, found) in tensors {
        if let Some(expected) = expected.get(name.as_str()).filter(|e| e.shape != found.shape) {
            only_head &= head.contains(&name.as_str());
            lines.push(format!(
                "shape of   {name}: expected {:?}, found {:?}",
                expected.shape, found.shape
            ));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    const SHOWN: usize = 24;
    let more = lines.len().saturating_sub(SHOWN);
    let count = lines.len();
    lines.truncate(SHOWN);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    let error =
        Error::user(format!("{count} tensor(s) do not fit the network:\n  {}", lines.join("\n  ")));
    Err(error.help(if only_head {
        "the head is of another number of classes: set `classes` to the file's, or remove the head's tensors from the file to start with a new head"
    } else {
        "check `arch`, `blocks`, `channels`, `stem` and `in_channels` against the network that was saved"
    }))
}

/// ` (nearest: NAME)`, the most similar of `names`, if any is similar.
fn nearest<S: AsRef<str>>(name: &str, names: impl Iterator<Item = S>) -> String {
    names
        .map(|other| (strsim::osa_distance(name, other.as_ref()), other))
        .filter(|(distance, other)| *distance * 3 <= name.len() && other.as_ref() != name)
        .min_by_key(|(distance, _)| *distance)
        .map_or(String::new(), |(_, other)| format!(" (nearest: {})", other.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use qpipe::stages::model_source::{Arch, ZooModel};

    use super::super::build;
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    fn tiny(classes: u32) -> ZooModel {
        ZooModel {
            arch: Arch::Resnet,
            in_channels: 1,
            classes,
            image_size: 32,
            blocks: Some(vec![1, 1, 1, 1]),
            channels: Some(vec![4, 8, 12, 16]),
            stem: None,
            weights: None,
        }
    }

    #[test]
    fn a_state_dict_and_safetensors_give_the_same_model() {
        let pth = build(&tiny(3), Some(&fixture("tiny_resnet.pth")), 0).expect("reads");
        let file = fixture("tiny_resnet.safetensors");
        let safe = build(&tiny(3), Some(&file), 1).expect("reads");
        assert_eq!(pth, safe);
        let bytes = std::fs::read(&file).expect("fixture");
        let saved = SafeTensors::deserialize(&bytes).expect("fixture");
        for name in ["conv1.weight", "layer2.0.downsample.1.running_var", "fc.bias"] {
            let saved = saved.tensor(name).expect(name);
            assert_eq!(&pth.graph.initializers[name].bytes[..], saved.data(), "{name}");
        }
    }

    #[test]
    fn all_that_does_not_fit_is_listed() {
        let mut config = tiny(3);
        config.channels = Some(vec![4, 8, 12, 20]);
        config.blocks = Some(vec![1, 1, 2, 1]);
        let error = build(&config, Some(&fixture("tiny_resnet.pth")), 0).expect_err("does not fit");
        for line in [
            "tiny_resnet.pth",
            "missing    layer3.1.conv1.weight (nearest: layer3.0.conv1.weight)",
            "shape of   fc.weight: expected [3, 20], found [3, 16]",
        ] {
            assert!(error.message.contains(line), "{}", error.message);
        }
        config.blocks = Some(vec![1, 1, 1]);
        config.channels = Some(vec![4, 8, 16]);
        let error = build(&config, Some(&fixture("tiny_resnet.pth")), 0).expect_err("does not fit");
        assert!(error.message.contains("unexpected layer4.0.bn1.bias"), "{}", error.message);
    }

    #[test]
    fn a_head_of_other_classes_says_what_to_do() {
        let error =
            build(&tiny(5), Some(&fixture("tiny_resnet.pth")), 0).expect_err("does not fit");
        assert!(error.message.contains("fc.weight: expected [5, 16], found [3, 16]"));
        assert!(error.help.expect("help").contains("classes"));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let bytes = std::fs::read(fixture("tiny_resnet.pth")).expect("fixture");
        let path = folder.path().join("cut.pth");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
        let error = build(&tiny(3), Some(&path), 0).expect_err("damaged");
        assert!(error.message.contains("cut.pth"), "{}", error.message);
        std::fs::write(&path, b"nothing of the kind").expect("writes");
        let error = build(&tiny(3), Some(&path), 0).expect_err("damaged");
        assert!(error.message.contains("torch.save"), "{}", error.message);
    }
}
