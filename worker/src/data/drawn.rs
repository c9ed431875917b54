//! What a geometric step does to one image: drawn once, and done to its bytes here or, of a whole batch, on a GPU ([`super::on_device`]).

use qpipe::stages::data::{RandomCrop, Size, Transform};
use rand_chacha::ChaCha8Rng;

use super::pixels::Pixels;
use super::random::{unit, up_to};
use super::resample::rotate;
use crate::{Error, Result};

/// What a step does to one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Drawn {
    /// Nothing.
    Same,
    /// Takes this window; what of it is not in the image is black.
    Window { top: isize, left: isize, height: usize, width: usize },
    /// Exchanges left and right.
    Mirror,
    /// Turns it about its centre, degrees counter-clockwise.
    Turn(f64),
}

impl Drawn {
    /// Draws what `step` does to an image of `size` (height, width). Without a generator mirror and rotation are left out, and a random window is the
    /// middle one. `None`: a step that changes scale, of which nothing is drawn.
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
            (Transform::RandomHorizontalFlip(probability), Some(generator)) => {
                if unit(generator) < *probability { Self::Mirror } else { Self::Same }
            }
            (Transform::RandomRotation(degrees), Some(generator)) => {
                Self::Turn((unit(generator) * 2.0 - 1.0) * degrees)
            }
            (
                Transform::RandomHorizontalFlip(_)
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
            Self::Turn(degrees) => rotate(&pixels, degrees),
        }
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
