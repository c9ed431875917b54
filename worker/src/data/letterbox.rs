//! What detectors of the YOLO family are given: the whole image, its ratio kept, in the middle of a grey frame.
//!
//! `LetterBox` of Ultralytics, <https://docs.ultralytics.com/reference/data/augment/>, with `auto=False`; only the resizing is that of
//! Pillow (antialiased), not of OpenCV.

use super::pixels::Pixels;
use super::resample::resize;

/// The grey of the frame, in all channels.
const GREY: u8 = 114;

/// Fits an image into `height` × `width` pixels.
pub(super) fn letterbox(pixels: Pixels, (height, width): (usize, usize)) -> Pixels {
    let inner = fitted((pixels.height, pixels.width), (height, width));
    let pixels = resize(pixels, inner.0, inner.1);
    if inner == (height, width) {
        return pixels;
    }
    let (top, left) = (before(height - inner.0), before(width - inner.1));
    let channels = pixels.channels;
    let mut out = Pixels { height, width, channels, bytes: vec![GREY; height * width * channels] };
    let row = inner.1 * channels;
    for (y, source) in pixels.bytes.chunks_exact(row).enumerate() {
        let start = ((top + y) * width + left) * channels;
        out.bytes[start..start + row].copy_from_slice(source);
    }
    out
}

/// Height and width of the image inside: the ratio kept, halves rounded to even as Python does, at least a pixel.
pub(super) fn fitted(
    (height, width): (usize, usize),
    (most_high, most_wide): (usize, usize),
) -> (usize, usize) {
    let scale = (most_high as f64 / height as f64).min(most_wide as f64 / width as f64);
    let side = |side: usize, most: usize| {
        ((side as f64 * scale).round_ties_even() as usize).clamp(1, most)
    };
    (side(height, most_high), side(width, most_wide))
}

/// Pixels of the frame above or left; of an odd count the smaller half (Ultralytics: `round(padding / 2 - 0.1)`).
fn before(padding: usize) -> usize {
    padding / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn white(height: usize, width: usize, channels: usize) -> Pixels {
        Pixels { height, width, channels, bytes: vec![255; height * width * channels] }
    }

    #[test]
    fn the_image_lies_in_the_middle_of_grey() {
        let out = letterbox(white(2, 4, 1), (8, 8));
        let rows: Vec<u8> = (0..8).map(|y| out.at(y, 0)[0]).collect();
        assert_eq!(rows, [114, 114, 255, 255, 255, 255, 114, 114]);
        // 5 pixels too many: two above, three below.
        let out = letterbox(white(1, 2, 3), (7, 4));
        let rows: Vec<u8> = (0..7).map(|y| out.at(y, 3)[2]).collect();
        assert_eq!(rows, [114, 114, 255, 255, 114, 114, 114]);
    }

    #[test]
    fn extents_are_those_of_ultralytics() {
        // round(h * r), r = min(640 / h, 640 / w).
        assert_eq!(fitted((480, 640), (640, 640)), (480, 640));
        assert_eq!(fitted((1080, 810), (640, 640)), (640, 480));
        assert_eq!(fitted((375, 500), (640, 640)), (480, 640));
        assert_eq!(fitted((333, 500), (640, 640)), (426, 640));
        assert_eq!(fitted((1, 2000), (640, 640)), (1, 640));
    }
}
