//! Whether a JPEG file is whole (ITU-T T.81, annex B).

/// Whether the marker of the image's end is there. Thumbnails lie within segments, which are passed over by their length.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        // To the next marker: 0xFF and a code. Between segments there is nothing else; in a scan 0xFF is followed by 0, and restarts
        // (0xD0 to 0xD7) belong to the data.
        let Some(at) = rest.iter().position(|&byte| byte == 0xff) else { return false };
        rest = &rest[at + 1..];
        match rest.first() {
            None => return false,
            Some(0xd9) => return true,
            // Padding: the code comes after further 0xFF.
            Some(0xff) => {}
            Some(0x00 | 0x01 | 0xd0..=0xd8) => rest = &rest[1..],
            Some(_) => {
                let Some(&[high, low]) = rest.get(1..3) else { return false };
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(behind) = rest.get(1 + length..) else { return false };
                rest = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    /// A segment with its length.
    fn segment(code: u8, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u16 + 2).to_be_bytes();
        [&[0xff, code][..], &length, content].concat()
    }

    #[test]
    fn the_end_is_that_of_the_image_not_of_its_thumbnail() {
        let thumbnail = segment(0xe1, &[0xff, 0xd8, 1, 2, 0xff, 0xd9]);
        let scan = [segment(0xda, &[0; 4]), vec![7, 0xff, 0x00, 0xff, 0xd3, 9]].concat();
        let start = vec![0xff, 0xd8];
        let end = vec![0xff, 0xd9];
        assert!(!is_whole(&[start.clone(), thumbnail.clone(), scan.clone()].concat()));
        // Several scans, and padding before a marker.
        let padded = [vec![0xff], end].concat();
        assert!(is_whole(&[start.clone(), thumbnail, scan.clone(), scan, padded].concat()));
        assert!(!is_whole(&[start.clone(), segment(0xe1, &[0; 9])[..8].to_vec()].concat()));
        assert!(!is_whole(&start));
    }
}
