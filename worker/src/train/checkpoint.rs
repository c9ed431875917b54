//! What a killed training goes on from: a safetensors file, written whole or not at all.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::Tensor;

use super::averages::Average;
use super::history::Epoch;
use super::optimizer::Optimizer;
use super::scaler::Scaler;
use crate::interp::Program;
use crate::{Error, Result};

/// A training between two epochs.
pub(super) struct Checkpoint {
    /// Epochs done.
    pub history: Vec<Epoch>,
    /// The best epoch's parameters and running statistics.
    pub best: Vec<(String, Tensor)>,
}

/// What a checkpoint keeps beside the program.
pub(super) struct Kept<'a> {
    pub optimizer: &'a Optimizer,
    pub average: Option<&'a Average>,
    pub scaler: Option<&'a Scaler>,
}

/// The same, to be put back.
pub(super) struct Parts<'a> {
    pub optimizer: &'a mut Optimizer,
    pub average: Option<&'a mut Average>,
    pub scaler: Option<&'a mut Scaler>,
}

const LAST: &str = "last.";
const BEST: &str = "best.";
const AVERAGE: &str = "average.";

fn file(folder: &Path) -> PathBuf {
    folder.join("training.safetensors")
}

/// Writes a checkpoint over the one before.
pub(super) fn save(
    folder: &Path,
    program: &Program,
    kept: &Kept,
    checkpoint: &Checkpoint,
) -> Result<()> {
    let (moments, steps) = kept.optimizer.state(program.parameters())?;
    let average = kept.average;
    let mut tensors: Vec<(String, Vec<u8>, Vec<usize>)> = Vec::new();
    let mut add = |prefix: &str, name: &str, tensor: &Tensor| -> Result<()> {
        let tensor = tensor.f_to_kind(tch::Kind::Float)?;
        let data = crate::torch::tensor_data(&tensor)?;
        let shape = data.shape.iter().map(|&extent| extent as usize).collect();
        tensors.push((format!("{prefix}{name}"), data.bytes.to_vec(), shape));
        Ok(())
    };
    for (name, tensor) in program.state()? {
        add(LAST, &name, &tensor)?;
    }
    for (name, tensor) in moments {
        add("", &name, &tensor)?;
    }
    for (name, tensor) in average.iter().flat_map(|average| &average.tensors) {
        add(AVERAGE, name, tensor)?;
    }
    for (name, tensor) in kept.scaler.iter().flat_map(|scaler| scaler.state()) {
        add("", name, tensor)?;
    }
    for (name, tensor) in &checkpoint.best {
        add(BEST, name, tensor)?;
    }
    let views = tensors.iter().map(|(name, bytes, shape)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)
            .map_err(|error| Error::bug(format!("checkpoint: {error}")))?;
        Ok((name.as_str(), view))
    });
    let views: Vec<_> = views.collect::<Result<_>>()?;
    let history = serde_json::to_string(&checkpoint.history)
        .map_err(|error| Error::bug(format!("checkpoint: {error}")))?;
    let averaged = average.map_or(0, |average| average.steps);
    let notes = [
        ("history".to_owned(), history),
        ("steps".to_owned(), steps.to_string()),
        ("averaged".to_owned(), averaged.to_string()),
    ];
    let bytes = safetensors::serialize(views, Some(notes.into_iter().collect()))
        .map_err(|error| Error::bug(format!("checkpoint: {error}")))?;
    let path = file(folder);
    let io = |error: std::io::Error| Error::io(&path, &error);
    let mut whole = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    std::io::Write::write_all(&mut whole, &bytes).map_err(io)?;
    whole.as_file().sync_all().map_err(io)?;
    whole.persist(&path).map_err(|error| io(error.error))?;
    Ok(())
}

/// Puts the checkpoint in `folder` back into program and optimizer; `None` where there is none, or it
/// is damaged: then the training begins anew.
pub(super) fn load(
    folder: &Path,
    program: &mut Program,
    parts: &mut Parts,
) -> Result<Option<Checkpoint>> {
    let Ok(bytes) = std::fs::read(file(folder)) else { return Ok(None) };
    let (Ok((_, header)), Ok(tensors)) =
        (SafeTensors::read_metadata(&bytes), SafeTensors::deserialize(&bytes))
    else {
        return Ok(None);
    };
    let note = |name: &str| header.metadata().as_ref().and_then(|notes| notes.get(name));
    let history = note("history").and_then(|text| serde_json::from_str(text).ok());
    let steps = note("steps").and_then(|text| text.parse().ok());
    let averaged = note("averaged").and_then(|text| text.parse().ok());
    let (Some(history), Some(steps), Some(averaged)) = (history, steps, averaged) else {
        return Ok(None);
    };
    let find = |name: &str| {
        let view = tensors.tensor(name).ok()?;
        let shape: Vec<i64> = view.shape().iter().map(|&extent| extent as i64).collect();
        Tensor::f_from_data_size(view.data(), &shape, tch::Kind::Float).ok()
    };
    let state = |prefix: &str| -> Vec<(String, Tensor)> {
        let names = tensors.names();
        let own = names.into_iter().filter_map(|name| Some((name.strip_prefix(prefix)?, name)));
        own.filter_map(|(name, full)| Some((name.to_owned(), find(full)?))).collect()
    };
    // The averages have the names and shapes of what they are of: loading them first tells whether they are whole.
    if let Some(average) = &mut parts.average {
        let tensors = state(AVERAGE);
        if program.load_state(&tensors).is_err() {
            return Ok(None);
        }
        average.restart(program, averaged)?;
    }
    if program.load_state(&state(LAST)).is_err() {
        return Ok(None);
    }
    let parameters = program.parameters();
    if !parts.optimizer.load(parameters, find, steps)? {
        return Ok(None);
    }
    if let Some(scaler) = &mut parts.scaler
        && !scaler.load(find)?
    {
        return Ok(None);
    }
    Ok(Some(Checkpoint { history, best: state(BEST) }))
}
