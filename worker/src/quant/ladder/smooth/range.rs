//! The largest magnitude of each channel that layers of a group read, over calibration images.

use tch::{Device, Kind, Tensor};

use super::Smoothing;
use super::follow::Followed;
use super::source::Source;
use crate::data::{Dataset, Loader, Order};
use crate::graph::Model;
use crate::interp::{Mode, Options, Program};
use crate::{Error, Result};

/// Of each group the largest magnitude of each channel of its source.
///
/// # Errors
/// Values that are not finite; what data and model refuse.
pub(super) fn ranges(
    model: &Model,
    groups: &[(Source, Followed)],
    dataset: &Dataset,
    (chosen, options): (&[usize], &Smoothing),
    progress: &dyn Fn(u64, u64),
) -> Result<Vec<Vec<f64>>> {
    let _no_grad = tch::no_grad_guard();
    let graph = &model.graph;
    let readers: Vec<(usize, &super::follow::Reader)> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, (_, followed))| followed.readers.iter().map(move |r| (group, r)))
        .collect();
    let mut watch: Vec<String> =
        readers.iter().map(|(_, reader)| graph.nodes[reader.node].inputs[0].clone()).collect();
    watch.sort_unstable();
    watch.dedup();
    let mut program =
        Program::compile(model, &Options { watch: watch.clone(), ..Options::default() })?;
    let mut most: Vec<Vec<f64>> =
        groups.iter().map(|(source, _)| vec![0.0; source.count]).collect();
    let order = Order::Subset(chosen.to_vec());
    let mut done = 0;
    for images in Loader::new(dataset, options.batch_size, order, false, options.threads) {
        let images = images?.images;
        done += images.size()[0] as u64;
        program.forward(&[images], Mode::Eval, &mut |index, value| {
            for (group, reader) in &readers {
                let node = &graph.nodes[reader.node];
                if node.inputs[0] != watch[index] {
                    continue;
                }
                let axis = if node.op_type.starts_with("Conv") { 1 } else { -1 };
                let found = magnitudes(value, axis)?;
                if let Some(bad) = found.iter().find(|value| !value.is_finite()) {
                    let message = format!("{bad} in its input, for a calibration image");
                    return Err(Error::user(message).at(node.place()));
                }
                for (channel, found) in reader.channels.iter().zip(found) {
                    let most = &mut most[*group][*channel];
                    *most = most.max(found);
                }
            }
            Ok(())
        })?;
        progress(done, chosen.len() as u64);
    }
    Ok(most)
}

/// The largest magnitude at each place of an axis.
fn magnitudes(value: &Tensor, axis: i64) -> Result<Vec<f64>> {
    let moved = value.f_abs()?.f_movedim_int(axis, 0)?.f_flatten(1, -1);
    let rows = match moved {
        Ok(rows) => rows.f_amax([1], false)?,
        // A vector.
        Err(_) => value.f_abs()?,
    };
    Ok(Vec::try_from(rows.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?)
}
