//! Resizing and rotation.

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::pixels::Pixels;
use crate::{Error, Result};

/// Bilinear with antialiasing, the convolution that Pillow and torchvision resize by.
pub(super) fn resize(pixels: Pixels, height: usize, width: usize) -> Result<Pixels> {
    if (pixels.height, pixels.width) == (height, width) {
        return Ok(pixels);
    }
    let kind = if pixels.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let failed = |error: &dyn std::fmt::Display| Error::bug(format!("resize: {error}"));
    let source = Image::from_vec_u8(pixels.width as u32, pixels.height as u32, pixels.bytes, kind);
    let source = source.map_err(|error| failed(&error))?;
    let mut target = Image::new(width as u32, height as u32, kind);
    let algorithm = ResizeAlg::Convolution(FilterType::Bilinear);
    let options = ResizeOptions::new().resize_alg(algorithm);
    Resizer::new().resize(&source, &mut target, &options).map_err(|error| failed(&error))?;
    Ok(Pixels { height, width, channels: pixels.channels, bytes: target.into_vec() })
}

/// Rotates counter-clockwise about the centre, bilinear, black outside; the extent stays.
pub(super) fn rotate(pixels: &Pixels, degrees: f64) -> Pixels {
    let Pixels { height, width, channels, .. } = *pixels;
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let (centre_y, centre_x) = (height as f64 / 2.0, width as f64 / 2.0);
    let mut out = Pixels::black(height, width, channels);
    for y in 0..height {
        for x in 0..width {
            // The centre of the output pixel, turned back into the input.
            let (dy, dx) = (y as f64 + 0.5 - centre_y, x as f64 + 0.5 - centre_x);
            let from_x = cosine * dx - sine * dy + centre_x;
            let from_y = sine * dx + cosine * dy + centre_y;
            if !(0.0..width as f64).contains(&from_x) || !(0.0..height as f64).contains(&from_y) {
                continue;
            }
            let start = (y * width + x) * channels;
            sample(pixels, from_y - 0.5, from_x - 0.5, &mut out.bytes[start..start + channels]);
        }
    }
    out
}

/// The value between pixel centres; beyond the outermost centres, theirs.
fn sample(pixels: &Pixels, y: f64, x: f64, out: &mut [u8]) {
    let clamp = |value: f64, count: usize| value.clamp(0.0, count as f64 - 1.0) as usize;
    let (y0, x0) = (y.floor(), x.floor());
    let (dy, dx) = (y - y0, x - x0);
    let rows = [clamp(y0, pixels.height), clamp(y0 + 1.0, pixels.height)];
    let columns = [clamp(x0, pixels.width), clamp(x0 + 1.0, pixels.width)];
    for (channel, out) in out.iter_mut().enumerate() {
        let at =
            |row: usize, column: usize| f64::from(pixels.at(rows[row], columns[column])[channel]);
        let top = at(0, 0) * (1.0 - dx) + at(0, 1) * dx;
        let bottom = at(1, 0) * (1.0 - dx) + at(1, 1) * dx;
        *out = (top * (1.0 - dy) + bottom * dy).round() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(height: usize, width: usize, bytes: &[u8]) -> Pixels {
        Pixels { height, width, channels: 1, bytes: bytes.to_vec() }
    }

    #[test]
    fn halving_weighs_by_the_widened_triangle() {
        // Pillow: Image.fromarray([[0, 40, 80, 120]]).resize((2, 1), BILINEAR). The triangle of half
        // width 2 about input coordinate 1 weighs the centres 0.5, 1.5, 2.5 by 3:3:1.
        let out = resize(gray(1, 4, &[0, 40, 80, 120]), 1, 2).expect("resizes");
        assert_eq!(out.bytes, [29, 91]);
    }

    #[test]
    fn enlarging_interpolates_between_centres() {
        // Centres of the output lie at 0.25, 0.75, 1.25, 1.75 of two pixels with centres 0.5, 1.5.
        let out = resize(gray(1, 2, &[0, 100]), 1, 4).expect("resizes");
        assert_eq!(out.bytes, [0, 25, 75, 100]);
    }

    #[test]
    fn a_quarter_turn_is_exact_and_counter_clockwise() {
        let out = rotate(&gray(2, 2, &[1, 2, 3, 4]), 90.0);
        assert_eq!(out.bytes, [2, 4, 1, 3]);
        let out = rotate(&gray(2, 2, &[1, 2, 3, 4]), 180.0);
        assert_eq!(out.bytes, [4, 3, 2, 1]);
    }

    #[test]
    fn what_comes_from_outside_is_black() {
        let out = rotate(&gray(5, 5, &[200; 25]), 45.0);
        assert_eq!(out.at(0, 0), [0]);
        assert_eq!(out.at(2, 2), [200]);
    }
}
