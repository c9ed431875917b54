//! Images through an engine, in batches that it takes.

use tch::Tensor;

use crate::data::Dataset;
use crate::engine::{Engine, Note};
use crate::interp::CHANNELS_LAST;
use crate::{Error, Result};

/// Refuses a data set whose images an engine does not take. Images that may be of several sizes are held to the engine's by the loader.
pub(super) fn check_engine(note: &Note, dataset: &Dataset) -> Result<()> {
    let [channels, height, width] = note.input;
    let (h, w) = dataset.size_or((height, width));
    let found = [dataset.channels(), h, w];
    if found == note.input {
        return Ok(());
    }
    let error = Error::user(format!(
        "the engine takes images {channels}×{height}×{width}, the data's are {}×{h}×{w}",
        found[0]
    ));
    // Of three colors, or gray.
    let few = |extent: usize| extent == 1 || extent == 3;
    if few(width) && !few(channels) {
        return Err(error.help(CHANNELS_LAST).key("engine"));
    }
    let error = error.key("data");
    Err(match found[0] == channels {
        true => error.help(format!(
            "bring them to its size: transform = [{{ resize = [{height}, {width}] }}]"
        )),
        false => error.help("set `color` of the data set"),
    })
}

/// Runs as many images as there are, `[N, C, H, W]`; gives the values of each output, `[N, …]`. Where they are no whole batches of the engine
/// the last one is filled up; what the engine says of the filling is dropped.
pub(super) fn run_engine(
    engine: &mut dyn Engine,
    note: &Note,
    images: &Tensor,
) -> Result<Vec<Vec<f32>>> {
    let (size, image) = (images.size(), note.input.iter().product::<usize>());
    let count = size[0] as usize;
    if size[1..] != note.input.map(|extent| extent as i64) {
        let expected = note.input;
        return Err(Error::user(format!("the engine takes images {expected:?}, not {size:?}"))
            .help(format!(
                "bring them to its size: transform = [{{ resize = [{}, {}] }}]",
                expected[1], expected[2]
            )));
    }
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
