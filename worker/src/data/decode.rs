//! Image files to pixels.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader};
use qpipe::stages::data::Color;

use super::jpeg;
use super::pixels::Pixels;
use crate::{Error, Result};

/// Reads a JPEG, PNG or BMP file; the content decides which, not the name.
pub(super) fn decode(path: &Path, color: Color) -> Result<Pixels> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(path, &error))?;
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let reader = reader.map_err(|error| Error::io(path, &error))?;
    let broken = |reason: &dyn std::fmt::Display| {
        Error::user(format!("{}: the image does not decode: {reason}", path.display()))
            .help("replace or remove the file; JPEG, PNG and BMP are read")
    };
    // The decoder fills up what is missing with grey.
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg::is_whole(&bytes) {
        return Err(broken(&"the file is truncated"));
    }
    let image = reader.decode().map_err(|error| broken(&error))?;
    Ok(convert(image, color))
}

/// As Pillow's `convert`: gray is ITU-R 601-2 luma in 16-bit fixed point, transparency is dropped. Images of 16 bits differ:
/// gray ones are scaled to 8, where Pillow cuts them off at 255, and of colours the nearest of 8 bits is taken, where it takes the upper half.
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
        for format in [ImageFormat::Png, ImageFormat::Bmp] {
            let path = folder.path().join("image.jpg");
            rgb.save_with_format(&path, format).expect("writes");
            let pixels = decode(&path, Color::Rgb).expect("reads");
            assert_eq!((pixels.height, pixels.width, pixels.channels), (2, 3, 3));
            assert_eq!(pixels.at(1, 2), [80, 90, 7]);
            assert_eq!(decode(&path, Color::Gray).expect("reads").at(1, 2), [luma([80, 90, 7])]);
        }
    }

    #[test]
    fn a_truncated_jpeg_is_refused_as_pillow_refuses_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.jpg");
        let noise = |x: u32, y: u32| image::Rgb([(x * 37 + y * 91) as u8, (x * y) as u8, x as u8]);
        image::RgbImage::from_fn(64, 48, noise).save(&path).expect("writes");
        let whole = std::fs::read(&path).expect("reads");
        assert_eq!(decode(&path, Color::Rgb).expect("whole").width, 64);
        for length in [whole.len() / 2, whole.len() - 40, whole.len() - 2] {
            std::fs::write(&path, &whole[..length]).expect("writes");
            let error = decode(&path, Color::Rgb).expect_err("truncated");
            assert!(
                error.message.contains("a.jpg: the image does not decode: the file is truncated")
            );
        }
        // What stands behind its end does no harm.
        std::fs::write(&path, [&whole[..], b"more"].concat()).expect("writes");
        assert_eq!(decode(&path, Color::Rgb).expect("whole").width, 64);
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
