//! Geometric steps of a whole batch, on the GPU that computes with it.
//!
//! Each gives the bytes that [`Drawn::apply`] gives on the CPU, to the last one: where a pixel comes from, and what lies between four of them, is
//! computed in float64 by the same operations in the same order, each rounded for itself. So a training does not depend on where its images were turned.

use tch::{Device, Kind, Scalar, Tensor};

use super::drawn::Drawn;
use super::rotate::matrix;
use crate::{Error, Result, torch};

/// Values that a rotation computes at once, at most; a handful of float64 tensors of so many are alive meanwhile.
const AT_ONCE: i64 = 1 << 23;

/// Does `steps`, each with what it does to each image, to bytes `[N, H, W, C]`.
///
/// # Errors
/// libtorch's.
pub(super) fn apply(mut images: Tensor, steps: &[Vec<Drawn>]) -> Result<Tensor> {
    for step in steps {
        images = match step.iter().find(|drawn| **drawn != Drawn::Same) {
            None => images,
            Some(Drawn::Mirror) => exchange(&images, 2, step)?,
            Some(Drawn::Flip) => exchange(&images, 1, step)?,
            Some(Drawn::Window { .. }) => window(&images, step)?,
            Some(Drawn::Resized { .. }) => return Err(Error::bug("a window to resize on a GPU")),
            Some(Drawn::Turn(_) | Drawn::Same) => turn(&images, step)?,
        };
    }
    Ok(images)
}

/// Exchanges the two ends of an axis, of images to which something is done.
fn exchange(images: &Tensor, axis: i64, step: &[Drawn]) -> Result<Tensor> {
    let mask: Vec<u8> = step.iter().map(|drawn| u8::from(*drawn != Drawn::Same)).collect();
    let mask = torch::sent(&mask, &[step.len() as i64, 1, 1, 1], images.device())?;
    Ok(images.f_flip([axis])?.f_where_self(&mask.f_ne(0)?, images)?)
}

fn window(images: &Tensor, step: &[Drawn]) -> Result<Tensor> {
    let device = images.device();
    let (mut tops, mut lefts, mut size) = (Vec::new(), Vec::new(), (0, 0));
    for drawn in step {
        if let Drawn::Window { top, left, height, width } = *drawn {
            tops.push(top as i64);
            lefts.push(left as i64);
            size = (height as i64, width as i64);
        }
    }
    let count = step.len() as i64;
    let places = |starts: &[i64], extent: i64, shape: [i64; 3]| -> Result<Tensor> {
        let starts = torch::sent(starts, &[count, 1], device)?;
        let places = starts.f_add(&Tensor::f_arange(extent, (Kind::Int64, device))?)?;
        Ok(places.f_reshape(shape)?)
    };
    let rows = places(&tops, size.0, [count, size.0, 1])?;
    let columns = places(&lefts, size.1, [count, 1, size.1])?;
    let (height, width) = extents(images);
    let inside = within(&rows, height)?.f_logical_and(&within(&columns, width)?)?;
    let taken = take(images, &rows.f_clamp(0, height - 1)?, &columns.f_clamp(0, width - 1)?)?;
    Ok(taken.f_mul(&inside.f_unsqueeze(-1)?)?)
}

fn turn(images: &Tensor, step: &[Drawn]) -> Result<Tensor> {
    let (height, width) = extents(images);
    let each = height * width * images.size()[3];
    let chunk = (AT_ONCE / each.max(1)).max(1) as usize;
    let parts = step.chunks(chunk).enumerate().map(|(index, step)| {
        turn_part(&images.f_narrow(0, (index * chunk) as i64, step.len() as i64)?, step)
    });
    Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}

/// As [`super::rotate::rotate`].
fn turn_part(images: &Tensor, step: &[Drawn]) -> Result<Tensor> {
    let device = images.device();
    let (height, width) = extents(images);
    let angle = |drawn: &Drawn| if let Drawn::Turn(degrees) = drawn { *degrees } else { 0.0 };
    let size = (height as usize, width as usize);
    let matrices: Vec<_> = step.iter().map(|drawn| matrix(angle(drawn), size)).collect();
    let of_images = |row: usize, column: usize| {
        let values: Vec<f64> = matrices.iter().map(|matrix| matrix[row][column]).collect();
        torch::sent(&values, &[step.len() as i64, 1, 1], device)
    };
    let centres = |count: i64, shape: [i64; 3]| -> Result<Tensor> {
        let whole = Tensor::f_arange(count, (Kind::Double, device))?;
        Ok(whole.f_add_scalar(0.5)?.f_reshape(shape)?)
    };
    let (x, y) = (centres(width, [1, 1, width])?, centres(height, [1, height, 1])?);
    let from = |row: usize| -> Result<Tensor> {
        let sum = of_images(row, 0)?.f_mul(&x)?.f_add(&of_images(row, 1)?.f_mul(&y)?)?;
        Ok(sum.f_add(&of_images(row, 2)?)?)
    };
    let (from_x, from_y) = (from(0)?, from(1)?);
    let inside = within(&from_y, height)?.f_logical_and(&within(&from_x, width)?)?;
    let rows = Between::of(&from_y.f_sub_scalar(0.5)?, height)?;
    let columns = Between::of(&from_x.f_sub_scalar(0.5)?, width)?;
    let row = |row: &Tensor| -> Result<Tensor> {
        columns.mixed(&take(images, row, &columns.before)?, &take(images, row, &columns.behind)?)
    };
    let values = rows.mixed(&row(&rows.before)?, &row(&rows.behind)?)?;
    // The conversion cuts off what is behind the point.
    Ok(values.f_mul(&inside.f_unsqueeze(-1)?)?.f_to_kind(Kind::Uint8)?)
}

/// Between which two pixels places on an axis lie.
struct Between {
    /// Indices, `[N, H, W]`.
    before: Tensor,
    behind: Tensor,
    /// Share of the second, `[N, H, W, 1]`.
    share: Tensor,
}

impl Between {
    fn of(places: &Tensor, count: i64) -> Result<Self> {
        let floor = places.f_floor()?;
        let index = |places: &Tensor| -> Result<Tensor> {
            Ok(places.f_clamp(0.0, count as f64 - 1.0)?.f_to_kind(Kind::Int64)?)
        };
        let share = places.f_sub(&floor)?.f_unsqueeze(-1)?;
        Ok(Self { before: index(&floor)?, behind: index(&floor.f_add_scalar(1.0)?)?, share })
    }

    fn mixed(&self, before: &Tensor, behind: &Tensor) -> Result<Tensor> {
        let before = before.f_to_kind(Kind::Double)?;
        let step = behind.f_to_kind(Kind::Double)?.f_sub(&before)?;
        Ok(before.f_add(&step.f_mul(&self.share)?)?)
    }
}

fn extents(images: &Tensor) -> (i64, i64) {
    let size = images.size();
    (size[1], size[2])
}

/// Whether places are in 0…`count`, the end left out.
fn within(places: &Tensor, count: i64) -> Result<Tensor> {
    let count: Scalar = count.into();
    Ok(places.f_ge(0)?.f_logical_and(&places.f_lt(count)?)?)
}

/// Pixels of each image at `rows` and `columns`, which broadcast to `[N, H, W]`: `[N, H, W, C]`.
fn take(images: &Tensor, rows: &Tensor, columns: &Tensor) -> Result<Tensor> {
    let [count, height, width, channels] = <[i64; 4]>::try_from(images.size()).unwrap_or_default();
    let device: Device = images.device();
    let first = Tensor::f_arange(count, (Kind::Int64, device))?.f_mul_scalar(height * width)?;
    let index =
        rows.f_mul_scalar(width)?.f_add(columns)?.f_add(&first.f_reshape([count, 1, 1])?)?;
    let shape = [index.size(), vec![channels]].concat();
    let pixels = images.f_reshape([count * height * width, channels])?;
    Ok(pixels.f_index_select(0, &index.f_reshape([-1])?)?.f_reshape(shape)?)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::super::pixels::Pixels;
    use super::super::random::generator;
    use super::super::transform::Transforms;
    use super::*;

    #[test]
    fn a_batch_has_the_bytes_of_its_images() {
        check(Device::Cpu);
    }

    #[test]
    #[ignore = "needs a GPU"]
    fn a_batch_on_a_gpu_has_the_bytes_of_its_images() {
        torch::open_cuda();
        assert!(tch::Cuda::is_available(), "{}", torch::why_no_gpu());
        check(Device::Cuda(0));
    }

    fn check(device: Device) {
        let flip = serde_json::json!({ "random_horizontal_flip": 0.5 });
        let over = serde_json::json!({ "random_vertical_flip": 0.5 });
        let turn = serde_json::json!({ "random_rotation": 170.0 });
        let crop = serde_json::json!({ "random_crop": { "size": [9, 14], "padding": 3 } });
        let middle = serde_json::json!({ "center_crop": [21, 8] });
        for steps in [
            vec![&flip],
            vec![&over],
            vec![&turn],
            vec![&crop, &flip, &over],
            vec![&flip, &crop, &turn],
            vec![&turn, &middle, &turn, &flip],
        ] {
            let parsed: Vec<_> =
                steps.iter().map(|step| serde_json::from_value((*step).clone()).unwrap()).collect();
            for (channels, seed) in (1..=3).step_by(2).flat_map(|c| (0..4).map(move |s| (c, s))) {
                let transforms = Transforms::new(&parsed, channels);
                let (height, width) = (11 + seed as usize, 16);
                let image = |index: u64| {
                    let mut random = generator(seed, 7, index);
                    let bytes = (0..height * width * channels).map(|_| random.random()).collect();
                    Pixels { height, width, channels, bytes }
                };
                let images: Vec<Pixels> = (0..6).map(image).collect();
                let each = |index: usize| generator(seed, 1, index as u64);
                let expected: Vec<Pixels> = images
                    .iter()
                    .enumerate()
                    .map(|(index, image)| {
                        transforms.apply_rest(image.clone(), Some(&mut each(index))).unwrap()
                    })
                    .collect();
                let drawn: Vec<Vec<Drawn>> = (0..images.len())
                    .map(|index| transforms.draw((height, width), &mut each(index)).unwrap())
                    .collect();
                let by_step: Vec<Vec<Drawn>> = (0..drawn[0].len())
                    .map(|step| drawn.iter().map(|drawn| drawn[step]).collect())
                    .collect();
                let bytes = images.iter().flat_map(|image| image.bytes.clone()).collect::<Vec<_>>();
                let shape = [images.len(), height, width, channels].map(|n| n as i64);
                let batch = torch::sent(&bytes, &shape, device).unwrap();
                let found = apply(batch, &by_step).unwrap();
                let size = [expected[0].height, expected[0].width].map(|n| n as i64);
                assert_eq!(found.size()[1..3], size);
                let found = Vec::<u8>::try_from(found.reshape([-1])).unwrap();
                let expected: Vec<u8> =
                    expected.iter().flat_map(|image| image.bytes.clone()).collect();
                assert!(found == expected, "{steps:?}, {channels} channels");
            }
        }
    }
}
