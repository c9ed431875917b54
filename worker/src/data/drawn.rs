//! What a geometric step does to one image: drawn once, and done to its bytes here or, of a whole batch, on a GPU ([`super::on_device`]).

use qpipe::stages::data::{RandomCrop, RandomResizedCrop, Size, Transform};
use rand_chacha::ChaCha8Rng;

use super::letterbox::fitted;
use super::pixels::Pixels;
use super::random::{unit, up_to};
use super::resample::resize;
use super::rotate::rotate;
use crate::{Error, Result};

/// What a step does to one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Drawn {
    /// Nothing.
    Same,
    /// Takes this window; what of it is not in the image is black.
    Window { top: isize, left: isize, height: usize, width: usize },
    /// Takes this window, all of it in the image, and resizes it to height and width `to`.
    Resized { top: usize, left: usize, height: usize, width: usize, to: (usize, usize) },
    /// Exchanges left and right.
    Mirror,
    /// Exchanges top and bottom.
    Flip,
    /// Turns it about its centre, degrees counter-clockwise.
    Turn(f64),
}

impl Drawn {
    /// Draws what `step` does to an image of `size` (height, width). Without a generator mirror and rotation are left out, and a random window is the
    /// middle one. `None`: a step that changes the scale of all images alike, of which nothing is drawn.
    ///
    /// # Errors
    /// A window that is larger than the image.
    pub fn of(
        step: &Transform,
        size: (usize, usize),
        generator: Option<&mut ChaCha8Rng>,
    ) -> Result<Option<Self>> {
        Ok(Some(match (step, generator) {
            (Transform::Resize(_) | Transform::Letterbox(_), _) => return Ok(None),
            (Transform::CenterCrop(wanted), _) => center(size, *wanted),
            (Transform::RandomCrop(crop), None) => center(size, crop.size),
            (Transform::RandomCrop(crop), Some(generator)) => random(size, crop, generator)?,
            (Transform::RandomResizedCrop(crop), None) => {
                resized(size, fitted(extent(crop.size), size), crop.size)
            }
            (Transform::RandomResizedCrop(crop), Some(generator)) => {
                random_resized(size, crop, generator)
            }
            (Transform::RandomVerticalFlip(probability), Some(generator)) => {
                if unit(generator) < *probability { Self::Flip } else { Self::Same }
            }
            (Transform::RandomHorizontalFlip(probability), Some(generator)) => {
                if unit(generator) < *probability { Self::Mirror } else { Self::Same }
            }
            (Transform::RandomRotation(degrees), Some(generator)) => {
                Self::Turn((unit(generator) * 2.0 - 1.0) * degrees)
            }
            (
                Transform::RandomHorizontalFlip(_)
                | Transform::RandomVerticalFlip(_)
                | Transform::RandomRotation(_)
                | Transform::Normalize(_),
                _,
            ) => Self::Same,
        }))
    }

    /// Does it.
    pub fn apply(self, mut pixels: Pixels) -> Pixels {
        match self {
            Self::Same => pixels,
            Self::Window { top, left, height, width } => pixels.window(top, left, height, width),
            Self::Mirror => {
                pixels.mirror();
                pixels
            }
            Self::Resized { top, left, height, width, to } => {
                resize(pixels.window(top as isize, left as isize, height, width), to.0, to.1)
            }
            Self::Flip => {
                pixels.flip();
                pixels
            }
            Self::Turn(degrees) => rotate(&pixels, degrees),
        }
    }

    /// Height and width of what it makes of an image of `size`.
    pub fn size(self, size: (usize, usize)) -> (usize, usize) {
        match self {
            Self::Window { height, width, .. } => (height, width),
            Self::Resized { to, .. } => to,
            Self::Same | Self::Mirror | Self::Flip | Self::Turn(_) => size,
        }
    }

    /// Whether it leaves less to copy: done before an image goes elsewhere.
    pub fn cuts(self) -> bool {
        matches!(self, Self::Window { .. } | Self::Resized { .. })
    }
}

/// Height and width.
pub(super) fn extent(size: Size) -> (usize, usize) {
    let [height, width] = size.height_width();
    (height as usize, width as usize)
}

/// torchvision's rule for odd differences: padding first, its smaller half left and above; then the
/// window's corner, halves rounded to even.
fn center((found_height, found_width): (usize, usize), size: Size) -> Drawn {
    let (height, width) = extent(size);
    let start = |found: usize, wanted: usize| {
        if wanted > found {
            -((wanted - found) as isize / 2)
        } else {
            ((found - wanted) as f64 / 2.0).round_ties_even() as isize
        }
    };
    Drawn::Window {
        top: start(found_height, height),
        left: start(found_width, width),
        height,
        width,
    }
}

fn random(
    (found_height, found_width): (usize, usize),
    crop: &RandomCrop,
    generator: &mut ChaCha8Rng,
) -> Result<Drawn> {
    let (height, width) = extent(crop.size);
    let padding = crop.padding as usize;
    let room = |found: usize, wanted: usize| (found + 2 * padding).checked_sub(wanted);
    let (Some(rows), Some(columns)) = (room(found_height, height), room(found_width, width)) else {
        return Err(Error::user(format!(
            "random_crop of {height}×{width} pixels is larger than the image of {found_height}×{found_width} with padding {padding}"
        ))
        .help("put a `resize` before it, or raise `padding`"));
    };
    let top = up_to(generator, rows) as isize - padding as isize;
    let left = up_to(generator, columns) as isize - padding as isize;
    Ok(Drawn::Window { top, left, height, width })
}

/// The window of `extent` in the middle.
fn resized(found: (usize, usize), extents: (usize, usize), size: Size) -> Drawn {
    let ((top, left), (height, width)) =
        (((found.0 - extents.0) / 2, (found.1 - extents.1) / 2), extents);
    Drawn::Resized { top, left, height, width, to: extent(size) }
}

/// `get_params` of torchvision's `RandomResizedCrop`,
/// <https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.RandomResizedCrop.html>, with numbers of our own.
fn random_resized(
    found: (usize, usize),
    crop: &RandomResizedCrop,
    generator: &mut ChaCha8Rng,
) -> Drawn {
    let (found_height, found_width) = found;
    let area = (found_height * found_width) as f64;
    let [least, most] = crop.ratio;
    let within = |[from, to]: [f64; 2], part: f64| from + (to - from) * part;
    let side = |square: f64| square.sqrt().round_ties_even() as usize;
    for _ in 0..10 {
        let area = area * within(crop.scale, unit(generator));
        let ratio = within([least.ln(), most.ln()], unit(generator)).exp();
        let (height, width) = (side(area / ratio), side(area * ratio));
        if (1..=found_height).contains(&height) && (1..=found_width).contains(&width) {
            let top = up_to(generator, found_height - height);
            let left = up_to(generator, found_width - width);
            return Drawn::Resized { top, left, height, width, to: extent(crop.size) };
        }
    }
    let ratio = found_width as f64 / found_height as f64;
    let whole = |side: f64, end: usize| (side.round_ties_even() as usize).clamp(1, end);
    let extents = if ratio < least {
        (whole(found_width as f64 / least, found_height), found_width)
    } else if ratio > most {
        (found_height, whole(found_height as f64 * most, found_width))
    } else {
        found
    };
    resized(found, extents, crop.size)
}

#[cfg(test)]
mod tests {
    use super::super::random::generator;
    use super::*;

    fn crop(more: &serde_json::Value) -> Transform {
        let mut crop = serde_json::json!({ "size": [6, 4] });
        crop.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(serde_json::json!({ "random_resized_crop": crop })).unwrap()
    }

    /// Corner and extent of a window that is resized.
    fn window(step: &Transform, size: (usize, usize), seed: Option<u64>) -> [usize; 4] {
        let mut random = seed.map(|seed| generator(seed, 0, 0));
        match Drawn::of(step, size, random.as_mut()).unwrap() {
            Some(Drawn::Resized { top, left, height, width, to: (6, 4) }) => {
                [top, left, height, width]
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn random_windows_are_spread_as_torchvisions() {
        // Of 20,000 draws of get_params: mean part of the area, its quantiles at 0.1 and 0.9; mean and deviation of the logarithm of the ratio.
        let cases = [
            ((375, 500), serde_json::json!({}), [0.4348, 0.150, 0.737, 0.0315, 0.1635]),
            // Here many draws do not fit.
            ((200, 600), serde_json::json!({}), [0.2230, 0.106, 0.353, 0.0432, 0.1676]),
            (
                (300, 300),
                serde_json::json!({ "scale": [0.25, 0.5], "ratio": [0.5, 2.0] }),
                [0.3761, 0.275, 0.475, -0.0018, 0.3983],
            ),
        ];
        for (size, more, expected) in cases {
            let step = crop(&more);
            let Transform::RandomResizedCrop(bounds) = &step else { panic!("{step:?}") };
            let count = 10_000;
            let (mut areas, mut logs, mut tops) = (Vec::new(), Vec::new(), Vec::new());
            for seed in 0..count {
                let [top, left, height, width] = window(&step, size, Some(seed));
                assert!(top + height <= size.0 && left + width <= size.1);
                let area = (height * width) as f64 / (size.0 * size.1) as f64;
                let ratio = width as f64 / height as f64;
                // But for the rounding of both sides.
                let slack = 1.0 + 1.0 / height.min(width) as f64;
                assert!(area > bounds.scale[0] / slack && area < bounds.scale[1] * slack, "{area}");
                assert!(ratio > bounds.ratio[0] / slack && ratio < bounds.ratio[1] * slack);
                areas.push(area);
                logs.push(ratio.ln());
                tops.push(top as f64 / (size.0 - height).max(1) as f64);
            }
            let mean = |values: &[f64]| values.iter().sum::<f64>() / count as f64;
            areas.sort_by(f64::total_cmp);
            let at = |part: f64| areas[(part * count as f64) as usize];
            let square = logs.iter().map(|log| log * log).sum::<f64>() / count as f64;
            let deviation = (square - mean(&logs).powi(2)).sqrt();
            let found = [mean(&areas), at(0.1), at(0.9), mean(&logs), deviation];
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 0.02, "{size:?}: {found} for {expected}");
            }
            assert!((mean(&tops) - 0.5).abs() < 0.04, "{}", mean(&tops));
        }
    }

    #[test]
    fn where_no_window_fits_it_is_torchvisions_in_the_middle() {
        // get_params of images (w, h) with scale=(1, 1), ratio=(3/4, 4/3): (i, j, h, w).
        let step = crop(&serde_json::json!({ "scale": [1.0, 1.0] }));
        assert_eq!(window(&step, (100, 601), Some(1)), [0, 234, 100, 133]);
        assert_eq!(window(&step, (601, 100), Some(1)), [234, 0, 133, 100]);
    }

    #[test]
    fn without_training_a_resized_window_is_the_largest_of_the_sizes_ratio() {
        let step = crop(&serde_json::json!({}));
        assert_eq!(window(&step, (60, 90), None), [0, 25, 60, 40]);
        assert_eq!(window(&step, (91, 40), None), [15, 0, 60, 40]);
        assert_eq!(window(&step, (1, 1), None), [0, 0, 1, 1]);
    }
}
