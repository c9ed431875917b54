//! What graphs are run on, and what runs them.

use std::collections::HashMap;
use std::path::Path;

use qpipe_worker::analysis::{Fidelity, Seen};
use qpipe_worker::data::{Dataset, Loader, Order};
use qpipe_worker::engine::Tapped;
use qpipe_worker::graph::Model;
use tch::Tensor;

/// Float values by name.
pub type Values = HashMap<String, Tensor>;

/// Images, and a folder for files.
pub struct World {
    pub folder: tempfile::TempDir,
    pub dataset: Dataset,
    pub images: Tensor,
}

/// Images that models are compared on.
const COMPARED: usize = 8;

impl World {
    /// Images of `side` pixels.
    pub fn new(side: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dataset = crate::quant::dataset(folder.path(), side);
        let mut loader = Loader::new(&dataset, COMPARED, Order::Sequential, false, 1);
        let images = loader.next().expect("a batch").expect("loads").images;
        drop(loader);
        Self { folder, dataset, images }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Values of a model by our interpreter.
    pub fn libtorch(&self, model: &Model, names: &[String]) -> Result<Values, String> {
        let mut seen = Seen::new(model, names).map_err(|error| error.to_string())?;
        Ok(seen.run(&self.images).map_err(|error| error.to_string())?.1)
    }

    /// The same by ONNX Runtime without any optimization.
    pub fn onnxruntime(&self, model: &Model, names: &[String]) -> Result<Values, String> {
        let text = |error: qpipe_worker::Error| error.to_string();
        let mut tapped = Tapped::unfused(model, names, self.path(), 1).map_err(text)?;
        self.values(&mut tapped)
    }

    /// What a session gives.
    pub fn values(&self, tapped: &mut Tapped) -> Result<Values, String> {
        let pixels = Vec::<f32>::try_from(self.images.contiguous().view([-1])).expect("floats");
        let values = tapped.run(&pixels, &self.images.size()).map_err(|error| error.to_string())?;
        let tensor = |value: qpipe_worker::engine::Value| {
            (value.name, Tensor::from_slice(&value.elements).reshape(&value.shape))
        };
        Ok(values.into_iter().map(tensor).collect())
    }
}

/// Names of a model's outputs.
pub fn outputs(model: &Model) -> Vec<String> {
    model.graph.outputs.iter().map(|output| output.name.clone()).collect()
}

/// The value that is furthest from what is expected, and its SQNR, dB; what is not a number, or has other extents, is infinitely far.
pub fn worst(expected: &Values, found: &Values) -> (String, f64) {
    let mut worst = (String::new(), f64::INFINITY);
    for (name, expected) in expected {
        let decibels = match found.get(name) {
            Some(found) if found.size() == expected.size() => sqnr(expected, found),
            _ => f64::NEG_INFINITY,
        };
        if decibels < worst.1 {
            worst = (name.clone(), decibels);
        }
    }
    worst
}

fn sqnr(expected: &Tensor, found: &Tensor) -> f64 {
    let is_finite = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) == 1;
    if !is_finite(expected) || !is_finite(found) {
        return f64::NEG_INFINITY;
    }
    let far = (expected - found).abs().max().double_value(&[]);
    // What is 0 but for rounding has no signal to compare with.
    if far < 1e-5 {
        return f64::INFINITY;
    }
    let mut fidelity = Fidelity::default();
    fidelity.add(expected, found).expect("of one shape");
    fidelity.figures().sqnr_db.unwrap_or(f64::INFINITY)
}
