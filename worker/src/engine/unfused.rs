//! A model on ONNX Runtime as it stands, without any optimization: each node by itself, every value to be seen.

use std::path::Path;

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::Threads;
use super::onnxruntime::{refused, session};
use crate::Result;
use crate::graph::{DType, Model, ValueInfo};
use crate::onnx;

/// Elements of a value, row by row, and its shape.
pub type Value = (Vec<i64>, Vec<f32>);

/// A session that gives the values that it was asked for.
pub struct Unfused {
    session: Session,
    input: String,
    names: Vec<String>,
}

impl Unfused {
    /// Loads `model`, from which the float values `names` are wanted; a file of it is made in `folder`.
    ///
    /// # Errors
    /// What the runtime refuses.
    pub fn load(model: &Model, names: &[String], folder: &Path, threads: usize) -> Result<Self> {
        let mut shown = model.clone();
        for name in names.iter().filter(|name| !model.graph.is_output(name)) {
            let info = ValueInfo {
                name: name.clone(),
                dtype: Some(DType::F32),
                shape: None,
                opaque: None,
            };
            shown.graph.outputs.push(info);
        }
        let path = folder.join("unfused.onnx");
        onnx::write_one_file(&shown, &path)?;
        let mut builder = session(&Threads::Free(threads), GraphOptimizationLevel::Disable)?;
        let session = builder
            .commit_from_file(&path)
            .map_err(|error| refused("cannot load the model without fusion", error))?;
        let input = model.graph.inputs.first().map(|input| input.name.clone()).unwrap_or_default();
        Ok(Self { session, input, names: names.to_vec() })
    }

    /// Runs images of `shape`; the values in the order in which they were asked for.
    pub fn run(&mut self, images: &[f32], shape: &[i64]) -> Result<Vec<Value>> {
        let tensor = TensorRef::from_array_view((shape, images))
            .map_err(|error| refused("refuses the images", error))?;
        let inputs = ort::inputs![self.input.as_str() => tensor];
        let outputs =
            self.session.run(inputs).map_err(|error| refused("cannot run the model", error))?;
        let value = |name: &String| {
            let (shape, values) = outputs[name.as_str()]
                .try_extract_tensor::<f32>()
                .map_err(|error| refused("gave no floats", error))?;
            Ok((shape.to_vec(), values.to_vec()))
        };
        self.names.iter().map(value).collect()
    }
}
