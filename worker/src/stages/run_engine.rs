//! Images through an engine, in batches that it takes.

use tch::Tensor;

use crate::data::Dataset;
use crate::engine::{Engine, Note};
use crate::{Error, Result};

/// Refuses a data set whose images an engine does not take.
pub(super) fn check_engine(note: &Note, dataset: &Dataset) -> Result<()> {
    let [channels, height, width] = note.input;
    let expected = (Some((height, width)), channels);
    if (dataset.size(), dataset.channels()) == expected {
        return Ok(());
    }
    Err(Error::user(format!(
        "the engine takes images {channels}×{height}×{width}, the data's are {}×{}",
        dataset.channels(),
        dataset.size().map_or("of several sizes".to_owned(), |(h, w)| format!("{h}×{w}"))
    )))
}

/// Runs as many images as there are, `[N, C, H, W]`; gives the values of each output, `[N, …]`. Where they are no whole batches of the engine
/// the last one is filled up; what the engine says of the filling is dropped.
pub(super) fn run_engine(
    engine: &mut dyn Engine,
    note: &Note,
    images: &Tensor,
) -> Result<Vec<Vec<f32>>> {
    let count = images.size()[0] as usize;
    let image: usize = note.input.iter().product();
    let mut floats = vec![0.0_f32; count * image];
    let numel = floats.len();
    images.f_contiguous()?.f_copy_data(&mut floats, numel)?;
    let run = note.run_of(count);
    let outputs = note.outputs();
    let mut all = vec![Vec::new(); outputs.len()];
    let filled = |part: &[f32]| {
        let mut part = part.to_vec();
        part.resize(run * image, 0.0);
        part
    };
    let parts: Vec<Vec<f32>> = floats.chunks(run * image).map(filled).collect();
    let made = engine.run_all(&parts, run)?;
    for (part, made) in floats.chunks(run * image).zip(made) {
        let own = part.len() / image;
        for ((all, made), (_, shape)) in all.iter_mut().zip(made).zip(&outputs) {
            all.extend_from_slice(&made[..own * shape.iter().product::<usize>()]);
        }
    }
    Ok(all)
}
