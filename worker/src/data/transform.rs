//! Transforms, with torchvision's semantics.
//!
//! Geometry is done on 8-bit pixels, as torchvision does on Pillow images; conversion to float and
//! all `normalize` steps are one table look-up a byte, equal to `(x / 255 - mean) / std` in float.
//! What a geometric step adds is black even after a `normalize`.

use qpipe::stages::data::{Normalize, Size, Transform};
use rand_chacha::ChaCha8Rng;

use super::drawn::{Drawn, extent};
use super::letterbox::letterbox;
use super::pixels::Pixels;
use super::resample::resize;
use crate::{Error, Result};

/// The transforms of a data set.
pub(super) struct Transforms {
    steps: Vec<Transform>,
    /// Steps at the front that are the same for every epoch.
    fixed: usize,
    /// Normalized value of each byte, channel by channel.
    table: Vec<[f32; 256]>,
}

impl Transforms {
    pub fn new(transforms: &[Transform], channels: usize) -> Self {
        let geometric = |step: &&Transform| !matches!(step, Transform::Normalize(_));
        let steps: Vec<Transform> = transforms.iter().filter(geometric).cloned().collect();
        let fixed = |step: &Transform| {
            matches!(
                step,
                Transform::Resize(_) | Transform::Letterbox(_) | Transform::CenterCrop(_)
            )
        };
        let fixed = steps.iter().take_while(|step| fixed(step)).count();
        let mut table = vec![[0.0; 256]; channels];
        for (channel, table) in table.iter_mut().enumerate() {
            for (byte, value) in table.iter_mut().enumerate() {
                *value = byte as f32 / 255.0;
                for step in transforms {
                    if let Transform::Normalize(Normalize { mean, std }) = step {
                        let of = |values: &[f32]| values[channel.min(values.len() - 1)];
                        *value = (*value - of(mean)) / of(std);
                    }
                }
            }
        }
        Self { steps, fixed, table }
    }

    /// Whether [`Transforms::apply_fixed`] does anything.
    pub fn has_fixed(&self) -> bool {
        self.fixed > 0
    }

    /// The steps at the front that are the same in every epoch.
    pub fn apply_fixed(&self, mut pixels: Pixels) -> Result<Pixels> {
        for step in &self.steps[..self.fixed] {
            pixels = apply(step, pixels, None)?;
        }
        Ok(pixels)
    }

    /// The other steps. Without a generator mirror and rotation are left out, and a random window is
    /// the middle one.
    pub fn apply_rest(
        &self,
        mut pixels: Pixels,
        mut generator: Option<&mut ChaCha8Rng>,
    ) -> Result<Pixels> {
        for step in &self.steps[self.fixed..] {
            pixels = apply(step, pixels, generator.as_deref_mut())?;
        }
        Ok(pixels)
    }

    /// Whether a GPU does well to do the rest of the steps: behind windows that are cut before, there is one that is more than a copy of rows, and
    /// none that changes scale.
    pub fn suits_device(&self) -> bool {
        let cuts = |step: &&Transform| {
            matches!(
                step,
                Transform::CenterCrop(_)
                    | Transform::RandomCrop(_)
                    | Transform::RandomResizedCrop(_)
            )
        };
        let is_more = |step: &Transform| {
            matches!(
                step,
                Transform::RandomHorizontalFlip(_)
                    | Transform::RandomVerticalFlip(_)
                    | Transform::RandomRotation(_)
            )
        };
        let scales = |step: &Transform| {
            matches!(
                step,
                Transform::Resize(_) | Transform::Letterbox(_) | Transform::RandomResizedCrop(_)
            )
        };
        let mut rest = self.steps[self.fixed..].iter().skip_while(cuts);
        rest.clone().any(is_more) && !rest.any(scales)
    }

    /// What the rest of the steps does to an image of `size`, where the set suits a device.
    ///
    /// # Errors
    /// A window that is larger than the image.
    pub fn draw(&self, mut size: (usize, usize), generator: &mut ChaCha8Rng) -> Result<Vec<Drawn>> {
        let steps = self.steps[self.fixed..].iter().map(|step| {
            let drawn = Drawn::of(step, size, Some(generator))?;
            let drawn = drawn.ok_or_else(|| Error::bug("a step that changes scale"))?;
            size = drawn.size(size);
            Ok(drawn)
        });
        steps.collect()
    }

    /// Height and width of what comes out for images of `size`, `None` where it differs.
    pub fn output(&self, mut size: Option<(usize, usize)>) -> Option<(usize, usize)> {
        for step in &self.steps {
            size = match step {
                Transform::Resize(Size::Side(side)) => {
                    size.map(|size| shorter_side(size, *side as usize))
                }
                Transform::Resize(to) | Transform::Letterbox(to) | Transform::CenterCrop(to) => {
                    Some(extent(*to))
                }
                Transform::RandomCrop(crop) => Some(extent(crop.size)),
                Transform::RandomResizedCrop(crop) => Some(extent(crop.size)),
                _ => size,
            };
        }
        size
    }

    /// The normalized value of each byte, channel by channel.
    pub fn byte_values(&self) -> &[[f32; 256]] {
        &self.table
    }

    /// Appends the image as floats, `[C, H, W]`, normalized.
    pub fn append_floats(&self, pixels: &Pixels, out: &mut Vec<f32>) {
        for (channel, table) in self.table.iter().enumerate() {
            let bytes = pixels.bytes[channel..].iter().step_by(pixels.channels);
            out.extend(bytes.map(|&byte| table[usize::from(byte)]));
        }
    }
}

/// torchvision's rule: the longer side is rounded down.
fn shorter_side((height, width): (usize, usize), side: usize) -> (usize, usize) {
    if height <= width {
        (side, (side * width / height).max(1))
    } else {
        ((side * height / width).max(1), side)
    }
}

fn apply(step: &Transform, pixels: Pixels, generator: Option<&mut ChaCha8Rng>) -> Result<Pixels> {
    let size = (pixels.height, pixels.width);
    match (step, Drawn::of(step, size, generator)?) {
        (_, Some(drawn)) => Ok(drawn.apply(pixels)),
        (Transform::Resize(wanted), None) => {
            let (height, width) = match wanted {
                Size::Side(side) => shorter_side(size, *side as usize),
                Size::HeightWidth(_) => extent(*wanted),
            };
            Ok(resize(pixels, height, width))
        }
        (Transform::Letterbox(wanted), None) => Ok(letterbox(pixels, extent(*wanted))),
        (_, None) => Ok(pixels),
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::generator;
    use super::*;

    fn transforms(steps: serde_json::Value, channels: usize) -> Transforms {
        let steps: Vec<Transform> = serde_json::from_value(steps).expect("transforms");
        Transforms::new(&steps, channels)
    }

    /// 0, 1, 2, … row by row.
    fn counting(height: usize, width: usize) -> Pixels {
        let bytes = (0..height * width).map(|value| value as u8).collect();
        Pixels { height, width, channels: 1, bytes }
    }

    fn run(transforms: &Transforms, pixels: Pixels, epoch: Option<u64>) -> Pixels {
        let pixels = transforms.apply_fixed(pixels).expect("applies");
        let mut random = epoch.map(|epoch| generator(1, epoch, 0));
        transforms.apply_rest(pixels, random.as_mut()).expect("applies")
    }

    #[test]
    fn center_crop_cuts_and_pads_as_torchvision() {
        let crop = |steps, pixels| run(&transforms(steps, 1), pixels, None).bytes;
        assert_eq!(crop(serde_json::json!([{ "center_crop": 2 }]), counting(4, 4)), [5, 6, 9, 10]);
        // An odd difference of 1: round(0.5) is 0; of 3: round(1.5) is 2.
        assert_eq!(crop(serde_json::json!([{ "center_crop": [1, 2] }]), counting(1, 3)), [0, 1]);
        assert_eq!(crop(serde_json::json!([{ "center_crop": [1, 2] }]), counting(1, 5)), [2, 3]);
        // Padding of 3: one left, two right.
        let padded = crop(serde_json::json!([{ "center_crop": [1, 5] }]), {
            Pixels { bytes: vec![7, 8], ..counting(1, 2) }
        });
        assert_eq!(padded, [0, 7, 8, 0, 0]);
    }

    #[test]
    fn the_shorter_side_is_resized_the_longer_rounded_down() {
        assert_eq!(shorter_side((100, 151), 50), (50, 75));
        assert_eq!(shorter_side((151, 100), 50), (75, 50));
        let resize = transforms(serde_json::json!([{ "resize": 4 }]), 1);
        let out = run(&resize, counting(8, 10), None);
        assert_eq!((out.height, out.width), (4, 5));
        assert_eq!(resize.output(Some((8, 10))), Some((4, 5)));
        assert_eq!(resize.output(None), None);
    }

    #[test]
    fn mirror_happens_as_often_as_asked_and_keeps_channels() {
        let flip = transforms(serde_json::json!([{ "random_horizontal_flip": 0.25 }]), 1);
        let mirrored = (0..4000)
            .filter(|&epoch| run(&flip, counting(1, 3), Some(epoch)).bytes == [2, 1, 0])
            .count();
        assert!((900..1100).contains(&mirrored), "{mirrored}");
        let mut rgb = Pixels { height: 1, width: 2, channels: 3, bytes: vec![1, 2, 3, 4, 5, 6] };
        rgb.mirror();
        assert_eq!(rgb.bytes, [4, 5, 6, 1, 2, 3]);
    }

    #[test]
    fn a_flip_exchanges_top_and_bottom_as_often_as_asked() {
        let flip = transforms(serde_json::json!([{ "random_vertical_flip": 0.25 }]), 1);
        let flipped = (0..4000)
            .filter(|&epoch| run(&flip, counting(3, 2), Some(epoch)).bytes == [4, 5, 2, 3, 0, 1])
            .count();
        assert!((900..1100).contains(&flipped), "{flipped}");
        assert_eq!(run(&flip, counting(3, 2), None), counting(3, 2));
    }

    #[test]
    fn a_resized_window_is_what_a_crop_and_a_resize_make() {
        let crop =
            transforms(serde_json::json!([{ "random_resized_crop": { "size": [6, 4] } }]), 1);
        let image = counting(12, 20);
        let mut seen = std::collections::BTreeSet::new();
        for epoch in 0..50 {
            let step = &crop.steps[0];
            let drawn = Drawn::of(step, (12, 20), Some(&mut generator(1, epoch, 0))).unwrap();
            let Some(Drawn::Resized { top, left, height, width, .. }) = drawn else { panic!() };
            let window = image.window(top as isize, left as isize, height, width);
            let out = run(&crop, image.clone(), Some(epoch));
            assert_eq!(out, resize(window, 6, 4));
            seen.insert(out.bytes);
        }
        assert!(seen.len() > 40, "{}", seen.len());
        assert_eq!(crop.output(None), Some((6, 4)));
    }

    #[test]
    fn random_crop_reaches_every_window_and_none_else() {
        let crop =
            transforms(serde_json::json!([{ "random_crop": { "size": 2, "padding": 1 } }]), 1);
        let image = counting(2, 3);
        let mut seen = std::collections::BTreeSet::new();
        for epoch in 0..500 {
            seen.insert(run(&crop, image.clone(), Some(epoch)).bytes);
        }
        let windows = (-1..=1).flat_map(|top| (-1..=2).map(move |left| (top, left)));
        let all: std::collections::BTreeSet<_> =
            windows.map(|(top, left)| image.window(top, left, 2, 2).bytes).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn without_training_a_random_crop_is_the_middle() {
        let crop =
            transforms(serde_json::json!([{ "random_crop": { "size": 2, "padding": 4 } }]), 1);
        assert_eq!(run(&crop, counting(4, 4), None).bytes, [5, 6, 9, 10]);
    }

    #[test]
    fn a_crop_larger_than_the_image_is_refused() {
        let crop = transforms(serde_json::json!([{ "random_crop": { "size": 9 } }]), 1);
        let error = crop.apply_rest(counting(4, 4), Some(&mut generator(0, 0, 0))).expect_err("9");
        assert!(
            error.message.contains("9×9") && error.message.contains("4×4"),
            "{}",
            error.message
        );
    }

    #[test]
    fn normalize_is_channel_wise() {
        let normalize = transforms(
            serde_json::json!([{ "normalize": { "mean": [0.5, 0.25, 0.0], "std": [0.5] } }]),
            3,
        );
        let rgb = Pixels { height: 1, width: 2, channels: 3, bytes: vec![255, 0, 51, 0, 255, 102] };
        let mut out = Vec::new();
        normalize.append_floats(&rgb, &mut out);
        assert_eq!(out, [1.0, -1.0, -0.5, 1.5, 0.4, 0.8]);
    }
}
