//! A decoded image.

/// A decoded image, `[H, W, C]` interleaved, 8 bits a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pixels {
    pub height: usize,
    pub width: usize,
    /// 1 gray, 3 RGB.
    pub channels: usize,
    pub bytes: Vec<u8>,
}

impl Pixels {
    /// A black image.
    pub fn black(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels, bytes: vec![0; height * width * channels] }
    }

    /// The pixel in row `y` and column `x`.
    pub fn at(&self, y: usize, x: usize) -> &[u8] {
        let start = (y * self.width + x) * self.channels;
        &self.bytes[start..start + self.channels]
    }

    /// The window of `height` × `width` whose upper left corner is at (`top`, `left`), which may lie
    /// outside: what is not in the image is black.
    pub fn window(&self, top: isize, left: isize, height: usize, width: usize) -> Self {
        if (top, left, height, width) == (0, 0, self.height, self.width) {
            return self.clone();
        }
        let mut out = Self::black(height, width, self.channels);
        let from = left.clamp(0, self.width as isize);
        let to = (left + width as isize).clamp(from, self.width as isize);
        let row = (to - from) as usize * self.channels;
        for y in 0..height {
            let source = top + y as isize;
            if source < 0 || source >= self.height as isize || row == 0 {
                continue;
            }
            let start = (source as usize * self.width + from as usize) * self.channels;
            let target = (y * width + (from - left) as usize) * self.channels;
            out.bytes[target..target + row].copy_from_slice(&self.bytes[start..start + row]);
        }
        out
    }

    /// Left and right exchanged.
    pub fn mirror(&mut self) {
        for row in self.bytes.chunks_exact_mut(self.width * self.channels) {
            row.reverse();
            // The channels of each pixel are now backwards.
            if self.channels > 1 {
                row.chunks_exact_mut(self.channels).for_each(<[u8]>::reverse);
            }
        }
    }
    /// Top and bottom exchanged.
    pub fn flip(&mut self) {
        let row = self.width * self.channels;
        for y in 0..self.height / 2 {
            let (upper, lower) = self.bytes.split_at_mut((self.height - 1 - y) * row);
            upper[y * row..][..row].swap_with_slice(&mut lower[..row]);
        }
    }
}
