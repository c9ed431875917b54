//! Rotation, to the bytes of Pillow's `Image.rotate(degrees, BILINEAR)`, which torchvision's `RandomRotation` calls.

use super::pixels::Pixels;

/// Where in the input the centre (x, y) of an output pixel comes from: row 0 gives `x = a·x + b·y + c`, row 1 gives y. As Pillow has it, sine and
/// cosine are rounded to 15 digits.
pub(super) fn matrix(degrees: f64, (height, width): (usize, usize)) -> [[f64; 3]; 2] {
    let (sine, cosine) = (-degrees.rem_euclid(360.0).to_radians()).sin_cos();
    let (centre_x, centre_y) = (width as f64 / 2.0, height as f64 / 2.0);
    let row = |a: f64, b: f64, centre: f64| {
        let (a, b) = (fifteen_digits(a), fifteen_digits(b));
        [a, b, a * -centre_x + b * -centre_y + centre]
    };
    [row(cosine, sine, centre_x), row(-sine, cosine, centre_y)]
}

/// Python's `round(value, 15)`.
fn fifteen_digits(value: f64) -> f64 {
    format!("{value:.15}").parse().unwrap_or(value)
}

/// Rotates counter-clockwise about the centre, bilinear, black outside; the extent stays.
pub(super) fn rotate(pixels: &Pixels, degrees: f64) -> Pixels {
    let Pixels { height, width, channels, .. } = *pixels;
    let rows = matrix(degrees, (height, width));
    let mut out = Pixels::black(height, width, channels);
    for y in 0..height {
        for x in 0..width {
            let (out_x, out_y) = (x as f64 + 0.5, y as f64 + 0.5);
            let [from_x, from_y] = rows.map(|[a, b, c]| a * out_x + b * out_y + c);
            if !(0.0..width as f64).contains(&from_x) || !(0.0..height as f64).contains(&from_y) {
                continue;
            }
            let start = (y * width + x) * channels;
            sample(pixels, from_y - 0.5, from_x - 0.5, &mut out.bytes[start..start + channels]);
        }
    }
    out
}

/// The value between pixel centres, what is behind the point cut off; beyond the outermost centres, theirs.
fn sample(pixels: &Pixels, y: f64, x: f64, out: &mut [u8]) {
    let clamp = |value: f64, count: usize| value.clamp(0.0, count as f64 - 1.0) as usize;
    let (y0, x0) = (y.floor(), x.floor());
    let (dy, dx) = (y - y0, x - x0);
    let rows = [clamp(y0, pixels.height), clamp(y0 + 1.0, pixels.height)];
    let columns = [clamp(x0, pixels.width), clamp(x0 + 1.0, pixels.width)];
    let between = |from: f64, to: f64, share: f64| from + (to - from) * share;
    for (channel, out) in out.iter_mut().enumerate() {
        let at =
            |row: usize, column: usize| f64::from(pixels.at(rows[row], columns[column])[channel]);
        let [top, bottom] = [0, 1].map(|row| between(at(row, 0), at(row, 1), dx));
        *out = between(top, bottom, dy) as u8;
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn gray(height: usize, width: usize, bytes: &[u8]) -> Pixels {
        Pixels { height, width, channels: 1, bytes: bytes.to_vec() }
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

    #[test]
    fn bytes_are_pillows() {
        // np.asarray(Image.fromarray(a).rotate(25, Image.BILINEAR)) of a[y, x] = (37 y² + 91 x + 11 x y) mod 256, 4 rows of 5.
        let value = |index: usize| {
            let (y, x) = (index / 5, index % 5);
            (37 * y * y + 91 * x + 11 * x * y) as u8
        };
        let bytes: Vec<u8> = (0..20).map(value).collect();
        assert_eq!(
            rotate(&gray(4, 5, &bytes), 25.0).bytes,
            [
                0, 157, 86, 108, 187, 44, 150, 205, 153, 98, 48, 71, 99, 180, 119, 146, 104, 137,
                102, 0
            ]
        );
    }

    #[test]
    fn whole_images_are_pillows() {
        // The first 8 bytes of hashlib.sha256(image.rotate(degrees, Image.BILINEAR).tobytes()), pixels being upper bytes of
        // x ← 1664525 x + 1013904223 mod 2³², from 12345 on.
        let image = |height: usize, width: usize, channels: usize| {
            let mut state = 12345_u32;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            let bytes = (0..height * width * channels).map(|_| next()).collect();
            Pixels { height, width, channels, bytes }
        };
        let cases = [
            (-170.3, "0db8423bdf1d5c59", "7821fc2600d6f35d"),
            (-45.0, "9aec035ca8bb92bc", "38e303aff5aff15d"),
            (0.0, "2f0738d9e09f1fc2", "b5ecba00c88ed829"),
            (0.1, "af1886825e7fb336", "cebdb88f2ee16dc4"),
            (12.7, "f267f2c92199b8f9", "7e37aa24b42e4013"),
            (90.0, "9896a97de2dec5a0", "4038f999e1603100"),
            (123.456, "71f9eb9dda764bfa", "943b41b97d852415"),
        ];
        for (degrees, colour, gray) in cases {
            for (image, expected) in [(image(31, 46, 3), colour), (image(40, 40, 1), gray)] {
                let digest = Sha256::digest(rotate(&image, degrees).bytes);
                let found: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(found, expected, "{degrees} degrees, {} channels", image.channels);
            }
        }
    }
}
