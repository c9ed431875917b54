//! What `engine.json` says of an engine.

use std::path::Path;

use qpipe::stages::build_engine::Precision;
use serde::{Deserialize, Serialize};

use super::tensorrt::Gpu;
use crate::graph::{Dim, Model, ValueInfo};
use crate::{Error, Result};

/// What `engine.json` says of an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Version of this file's layout.
    pub version: u32,
    /// Runtime, such as `onnxruntime`.
    pub backend: String,
    /// Version of the runtime that built it.
    pub runtime: String,
    /// The engine's file in the same folder.
    pub file: String,
    /// Fixed batch, `None` where it is free.
    pub batch: Option<usize>,
    /// Name of the input, float `[batch, C, H, W]`.
    pub input_name: String,
    /// Channels, height and width of an image.
    pub input: [usize; 3],
    /// Name of the first output, float `[batch, classes]` or `[batch, …]`.
    pub output_name: String,
    /// Values of an image in it: of a classifier the count of classes.
    pub classes: usize,
    /// Its extents behind the batch, where it is not `[batch, classes]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shape: Vec<usize>,
    /// Further outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<FurtherOutput>,
    /// Operator that makes the first output, where it gives probabilities in place of logits: `Softmax` or `Sigmoid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// Whether it is of a model with Q/DQ pairs, or computes in INT8 without ([`OnGpu::made_up_ranges`]).
    pub quantized: bool,
    /// Of an engine for a GPU: what it was built for, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_gpu: Option<OnGpu>,
    /// The types that it may compute in, where they were said: of an engine for libtorch always, of one for TensorRT where the pipeline says them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Of an engine whose layout is a processor's: of which kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
}

/// An output of an engine behind the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherOutput {
    /// Its name.
    pub name: String,
    /// Its extents behind the batch.
    pub shape: Vec<usize>,
}

/// What is known of an engine for a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnGpu {
    /// The GPU that it was built on, and for.
    pub gpu: Gpu,
    /// Flags that decided what was built.
    pub flags: Vec<String>,
    /// Least, usual and greatest batch, where it is free.
    pub batches: Option<[u32; 3]>,
    /// What the runtime advised when it was built.
    pub advice: Vec<String>,
    /// Whether it was built with the machine's timing cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timing_cache: bool,
    /// Whether it computes in INT8 with ranges that nobody measured: good for its speed alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made_up_ranges: bool,
}

/// What a runtime made of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name; of several that were fused, the runtime's choice.
    pub name: String,
    /// What computes it, such as `QLinearConv`.
    pub kind: String,
    /// Element type that it computes in, such as `int8`.
    pub precision: String,
}

fn fixed(dim: &Dim) -> Option<usize> {
    match dim {
        Dim::Fixed(extent) => usize::try_from(*extent).ok(),
        _ => None,
    }
}

/// The batch of a model's input, `None` where it is free, and the extents of its images: channels, height, width.
///
/// # Errors
/// An input that is no image of one size.
pub fn image_of(input: &ValueInfo) -> Result<(Option<usize>, [usize; 3])> {
    let shape = input.shape.as_deref().unwrap_or_default();
    let extents: Vec<Option<usize>> = shape.iter().map(fixed).collect();
    let &[batch, Some(channels), Some(height), Some(width)] = &extents[..] else {
        return Err(Error::user(format!(
            "the model's input `{}` must be [batch, channels, height, width] with the last three fixed",
            input.name
        ))
        .help(
            "say the size of the images where a stage reads the file: model = { onnx = \"…\", image_size = 224 }, or [height, width]",
        ));
    };
    Ok((batch, [channels, height, width]))
}

impl Note {
    /// Images of one run where there are `count`: the engine's own batch where it is fixed, else as many as there are and as it takes.
    pub fn run_of(&self, count: usize) -> usize {
        match (self.batch, self.on_gpu.as_ref().and_then(|on| on.batches)) {
            (Some(batch), _) => batch,
            (None, Some([least, _, most])) => {
                count.clamp(least as usize, (most as usize).max(least as usize))
            }
            (None, None) => count,
        }
    }

    /// Name of the file in an engine's folder.
    pub const FILE: &'static str = "engine.json";
    const VERSION: u32 = 2;

    /// The note of a model that a backend is about to build.
    ///
    /// # Errors
    /// A model that does not take one image of known extents, or whose outputs are of unknown extents.
    pub fn of(model: &Model, backend: &str, runtime: String, file: &str) -> Result<Self> {
        let ([input], [output, more @ ..]) = (&model.graph.inputs[..], &model.graph.outputs[..])
        else {
            return Err(Error::user(format!(
                "the model has {} inputs and {} outputs: expected one input, and an output",
                model.graph.inputs.len(),
                model.graph.outputs.len()
            )));
        };
        let (batch, image) = image_of(input)?;
        let behind = |output: &ValueInfo| -> Result<Vec<usize>> {
            let dims = output.shape.as_deref().unwrap_or_default().get(1..).unwrap_or_default();
            let extents: Option<Vec<usize>> = dims.iter().map(fixed).collect();
            extents.filter(|extents| !extents.is_empty()).ok_or_else(|| {
                Error::user(format!(
                    "the model's output `{}` must be [batch, classes] or [batch, …] with all but the batch fixed",
                    output.name
                ))
                .help("export it with `export-onnx`, which writes its shape; boxes that were suppressed already are as many as there are")
            })
        };
        let shape = behind(output)?;
        let more = more
            .iter()
            .map(|output| Ok(FurtherOutput { name: output.name.clone(), shape: behind(output)? }));
        let more = more.collect::<Result<_>>()?;
        Ok(Self {
            version: Self::VERSION,
            backend: backend.to_owned(),
            runtime,
            file: file.to_owned(),
            batch,
            input_name: input.name.clone(),
            input: image,
            output_name: output.name.clone(),
            classes: shape.iter().product(),
            ending: model
                .graph
                .ending()
                .map(|node| node.op_type.clone())
                .filter(|op| matches!(op.as_str(), "Softmax" | "Sigmoid")),
            quantized: model.graph.nodes.iter().any(|node| node.op_type == "DequantizeLinear"),
            shape: if shape.len() == 1 { Vec::new() } else { shape },
            more,
            on_gpu: None,
            precision: None,
            processor: None,
        })
    }

    /// Name of each output, and its extents behind the batch.
    pub fn outputs(&self) -> Vec<(&str, Vec<usize>)> {
        let shape = if self.shape.is_empty() { vec![self.classes] } else { self.shape.clone() };
        let more = self.more.iter().map(|output| (output.name.as_str(), output.shape.clone()));
        std::iter::once((self.output_name.as_str(), shape)).chain(more).collect()
    }

    /// Whether its one output is `[batch, classes]`.
    pub fn is_classifier(&self) -> bool {
        self.shape.is_empty() && self.more.is_empty()
    }

    /// Reads the note in an engine's folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::FILE);
        let text = std::fs::read(&path).map_err(|error| Error::io(&path, &error))?;
        let note: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::user(format!("{}: {error}", path.display())))?;
        if note.version != Self::VERSION {
            return Err(Error::user(format!(
                "{}: version {}, expected {}",
                path.display(),
                note.version,
                Self::VERSION
            )));
        }
        Ok(note)
    }
}
