//! A model to a file.

use std::io::Write;
use std::path::Path;

use super::encode;
use crate::graph::Model;
use crate::{Error, Result};

/// Protobuf's own limit of a message; no reader takes a larger one.
const LARGEST: usize = i32::MAX as usize;

/// The bytes of the model's file; the same model always gives the same bytes.
pub fn to_bytes(model: &Model) -> Result<Vec<u8>> {
    let weights: usize = model.graph.initializers.values().map(|data| data.bytes.len()).sum();
    let bytes = if weights > LARGEST { None } else { Some(encode::model(model)) };
    bytes.filter(|bytes| bytes.len() <= LARGEST).ok_or_else(|| {
        Error::user(format!(
            "the model has {weights} bytes of weights, more than an ONNX file holds"
        ))
        .help("one file of ONNX holds less than 2 GiB; use a smaller model, or float16 weights")
    })
}

/// Writes a model: to a temporary file beside `path` first, synced, then renamed.
///
/// # Errors
/// A model over 2 GiB; a folder that cannot be written to.
pub fn write(model: &Model, path: &Path) -> Result<()> {
    let bytes = to_bytes(model).map_err(|error| error.at(path.display()))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or_else(|| Path::new("."));
    let io = |error: std::io::Error| Error::io(path, &error);
    let mut builder = tempfile::Builder::new();
    // A temporary file is private by default; a model is readable like any file of the user's.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".model").tempfile_in(folder).map_err(io)?;
    file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Dim, Graph, Node, TensorData, ValueInfo};
    use crate::onnx;

    fn model() -> Model {
        let mut graph = Graph {
            name: "g".to_owned(),
            inputs: vec![ValueInfo::f32("x", vec![Dim::Named("batch".to_owned()), Dim::Fixed(2)])],
            outputs: vec![ValueInfo::f32("y", vec![Dim::Unknown, Dim::Fixed(3)])],
            ..Graph::default()
        };
        graph.initializers.insert("w".to_owned(), TensorData::f32(&[3, 2], &[1.0; 6]));
        graph
            .nodes
            .push(Node::new("fc", "Gemm", &["x", "w"], &["y"]).with("transB", Attribute::Int(1)));
        Model::new(graph, 17)
    }

    #[test]
    fn comes_back_equal_and_has_the_same_bytes_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        write(&model(), &path).unwrap();
        let first = std::fs::read(&path).unwrap();
        let back = onnx::read(&path).unwrap();
        assert_eq!(back, model());
        write(&back, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file left");
    }

    #[test]
    fn what_is_not_understood_comes_back() {
        let mut model = model();
        onnx::fields::append(&mut model.opaque, 25, b"a function");
        onnx::fields::append(&mut model.graph.opaque, 15, b"a sparse tensor");
        onnx::fields::append(&mut model.graph.nodes[0].opaque, 9, b"metadata");
        assert_eq!(onnx::parse(to_bytes(&model).unwrap().into()).unwrap(), model);
    }

    #[test]
    fn a_truncated_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.onnx");
        let bytes = to_bytes(&model()).unwrap();
        for length in [1, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = onnx::read(&path).unwrap_err();
            assert!(error.message.contains("cut.onnx"), "{error}");
        }
    }
}
