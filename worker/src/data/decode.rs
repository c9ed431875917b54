//! Image files to pixels.

use std::path::Path;

use image::{DynamicImage, ImageReader};
use qpipe::stages::data::Color;

use super::pixels::Pixels;
use crate::{Error, Result};

/// Reads a JPEG, PNG or BMP file; the content decides which, not the name.
pub(super) fn decode(path: &Path, color: Color) -> Result<Pixels> {
    let reader = ImageReader::open(path).map_err(|error| Error::io(path, &error))?;
    let reader = reader.with_guessed_format().map_err(|error| Error::io(path, &error))?;
    let image = reader.decode().map_err(|error| {
        Error::user(format!("{}: the image does not decode: {error}", path.display()))
            .help("replace or remove the file; JPEG, PNG and BMP are read")
    })?;
    Ok(convert(image, color))
}

/// As Pillow's `convert`: gray is ITU-R 601-2 luma in 16-bit fixed point, transparency is dropped.
fn convert(image: DynamicImage, color: Color) -> Pixels {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let gray = matches!(
        image,
        DynamicImage::ImageLuma8(_)
            | DynamicImage::ImageLumaA8(_)
            | DynamicImage::ImageLuma16(_)
            | DynamicImage::ImageLumaA16(_)
    );
    let (channels, bytes) = match color {
        Color::Gray if gray => (1, image.into_luma8().into_raw()),
        Color::Gray => (1, image.into_rgb8().pixels().map(|p| luma(p.0)).collect()),
        Color::Rgb => (3, image.into_rgb8().into_raw()),
    };
    Pixels { height, width, channels, bytes }
}

fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luma_is_pillows() {
        // Image.new("RGB", (1, 1), c).convert("L").getpixel((0, 0)) for the colours named.
        for (rgb, gray) in
            [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([255, 255, 255], 255)]
        {
            assert_eq!(luma(rgb), gray, "{rgb:?}");
        }
    }

    #[test]
    fn each_format_is_read_whatever_its_name() {
        let folder = tempfile::tempdir().expect("folder");
        let rgb =
            image::RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8 * 40, y as u8 * 90, 7]));
        for format in [image::ImageFormat::Png, image::ImageFormat::Bmp] {
            let path = folder.path().join("image.jpg");
            rgb.save_with_format(&path, format).expect("writes");
            let pixels = decode(&path, Color::Rgb).expect("reads");
            assert_eq!((pixels.height, pixels.width, pixels.channels), (2, 3, 3));
            assert_eq!(pixels.at(1, 2), [80, 90, 7]);
            assert_eq!(decode(&path, Color::Gray).expect("reads").at(1, 2), [luma([80, 90, 7])]);
        }
    }

    #[test]
    fn what_does_not_decode_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("broken.png");
        std::fs::write(&path, b"\x89PNG\r\n\x1a\nnothing").expect("writes");
        let error = decode(&path, Color::Rgb).expect_err("broken");
        assert!(error.message.contains("broken.png"), "{}", error.message);
    }
}
