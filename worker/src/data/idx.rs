//! MNIST's IDX format, plain or gzip (<https://yann.lecun.com/exdb/mnist/>): a magic number of two
//! zero bytes, the type (8: unsigned byte) and the rank, then extents, big-endian, then the bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use qpipe::stages::data::{Color, DataSpec};

use super::formats::Source;
use super::pixels::Pixels;
use crate::{Error, Result};

struct Idx {
    path: PathBuf,
    height: usize,
    width: usize,
    channels: usize,
    /// `[N, H, W]`.
    bytes: Vec<u8>,
    labels: Vec<usize>,
    classes: Vec<String>,
}

/// Opens an images file and its labels file; both stay in memory.
pub(super) fn open(spec: &DataSpec, paths: &BTreeMap<String, PathBuf>) -> Result<Box<dyn Source>> {
    let port = |port: &str| {
        paths.get(port).ok_or_else(|| Error::bug(format!("idx data without port `{port}`")))
    };
    let (path, labels_path) = (port("path")?, port("labels")?);
    let (extents, bytes) = read(path, 3)?;
    let (_, labels) = read(labels_path, 1)?;
    let [count, height, width] = extents[..] else {
        return Err(Error::bug("idx rank was checked"));
    };
    if count != labels.len() {
        return Err(Error::user(format!(
            "{} has {count} images, {} has {} labels: expected as many",
            path.display(),
            labels_path.display(),
            labels.len()
        ))
        .help("take both files from one archive"));
    }
    if count == 0 || height == 0 || width == 0 {
        return Err(Error::user(format!("{}: no image in it", path.display())));
    }
    let classes = classes(spec, &labels, labels_path)?;
    let channels = match spec.color.unwrap_or(spec.default_color()) {
        Color::Gray => 1,
        Color::Rgb => 3,
    };
    let labels = labels.into_iter().map(usize::from).collect();
    Ok(Box::new(Idx { path: path.clone(), height, width, channels, bytes, labels, classes }))
}

fn classes(spec: &DataSpec, labels: &[u8], path: &Path) -> Result<Vec<String>> {
    let Some(classes) = &spec.classes else {
        let last = labels.iter().copied().max().unwrap_or(0);
        return Ok((0..=last).map(|class| class.to_string()).collect());
    };
    if let Some(index) = labels.iter().position(|&label| usize::from(label) >= classes.len()) {
        return Err(Error::user(format!(
            "{}: label {} of image {index} is out of range: there are {} classes, numbered from 0",
            path.display(),
            labels[index],
            classes.len()
        ))
        .help("correct `classes` of the data set, or the labels file"));
    }
    Ok(classes.clone())
}

/// Extents and content of a file of unsigned bytes.
fn read(path: &Path, rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let io = |error: &std::io::Error| Error::io(path, error);
    let file = std::fs::read(path).map_err(|error| io(&error))?;
    let mut bytes = Vec::new();
    if file.starts_with(&[0x1f, 0x8b]) {
        MultiGzDecoder::new(&file[..]).read_to_end(&mut bytes).map_err(|error| {
            Error::user(format!("{}: truncated or damaged gzip: {error}", path.display()))
                .help("fetch the file again")
        })?;
    } else {
        bytes = file;
    }
    parse(&bytes, rank).map_err(|error| error.at(path.display()))
}

fn parse(bytes: &[u8], rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let header = 4 + 4 * rank;
    let what = if rank == 3 { "images" } else { "labels" };
    if bytes.len() < header {
        return Err(Error::user(format!(
            "truncated IDX file: {} bytes, its header alone has {header}",
            bytes.len()
        ))
        .help("fetch the file again"));
    }
    let magic = [0, 0, 8, rank as u8];
    if bytes[..4] != magic {
        return Err(Error::user(format!(
            "not an IDX file of {what}: expected the magic number {magic:02x?}, found {:02x?}",
            &bytes[..4]
        ))
        .help("`path` is the images file (idx3-ubyte), `labels` the labels file (idx1-ubyte)"));
    }
    let extent = |c: &[u8]| u32::from_be_bytes(c.try_into().expect("four bytes")) as usize;
    let extents: Vec<usize> = bytes[4..header].chunks_exact(4).map(extent).collect();
    let expected = extents.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    let found = bytes.len() - header;
    match expected {
        Some(expected) if expected == found => Ok((extents, bytes[header..].to_vec())),
        _ => {
            let place = match expected {
                Some(expected) if found < expected => {
                    let item: usize = extents[1..].iter().product();
                    format!(
                        "truncated IDX file: it ends in item {} of {}",
                        found / item,
                        extents[0]
                    )
                }
                _ => "the IDX file's size and header disagree".to_owned(),
            };
            Err(Error::user(format!(
                "{place}; extents {extents:?} need {} bytes, found {found}",
                expected.map_or("too many".to_owned(), |expected| expected.to_string())
            ))
            .help("fetch the file again"))
        }
    }
}

impl Source for Idx {
    fn labels(&self) -> &[usize] {
        &self.labels
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn pixels(&self, index: usize) -> Result<Cow<'_, Pixels>> {
        let size = self.height * self.width;
        let gray = &self.bytes[index * size..(index + 1) * size];
        let bytes = match self.channels {
            1 => gray.to_vec(),
            channels => {
                gray.iter().flat_map(|&value| std::iter::repeat_n(value, channels)).collect()
            }
        };
        let Self { height, width, channels, .. } = *self;
        Ok(Cow::Owned(Pixels { height, width, channels, bytes }))
    }

    fn name(&self, index: usize) -> String {
        format!("{}, image {index}", self.path.display())
    }

    fn size(&self) -> Option<(usize, usize)> {
        Some((self.height, self.width))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(rank: u8, extents: &[u32], content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, rank];
        bytes.extend(extents.iter().flat_map(|extent| extent.to_be_bytes()));
        bytes.extend(content);
        bytes
    }

    fn spec(classes: Option<&[&str]>) -> DataSpec {
        let mut spec = serde_json::json!({ "format": "idx", "path": "@input" });
        if let Some(classes) = classes {
            spec["classes"] = classes.into();
        }
        serde_json::from_value(spec).expect("a spec")
    }

    fn open_files(
        images: &[u8],
        labels: &[u8],
        classes: Option<&[&str]>,
    ) -> Result<Box<dyn Source>> {
        let folder = tempfile::tempdir().expect("folder");
        let mut paths = BTreeMap::new();
        for (port, name, bytes) in
            [("path", "t-images-idx3", images), ("labels", "t-labels-idx1", labels)]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("writes");
            paths.insert(port.to_owned(), path);
        }
        open(&spec(classes), &paths)
    }

    fn refused(images: &[u8], labels: &[u8], classes: Option<&[&str]>, parts: &[&str]) {
        let error = open_files(images, labels, classes).err().expect("refused");
        for part in parts {
            assert!(error.message.contains(part), "{:?} not in: {}", part, error.message);
        }
    }

    fn images() -> Vec<u8> {
        file(3, &[2, 1, 3], &[1, 2, 3, 4, 5, 6])
    }

    #[test]
    fn images_and_labels_are_read_plain_and_compressed() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&images()).expect("compresses");
        for images in [images(), encoder.finish().expect("compresses")] {
            let source = open_files(&images, &file(1, &[2], &[0, 2]), None).expect("opens");
            assert_eq!(source.labels(), [0, 2]);
            assert_eq!(source.classes(), ["0", "1", "2"]);
            assert_eq!(source.size(), Some((1, 3)));
            let pixels = source.pixels(1).expect("image");
            assert_eq!(pixels.bytes, [4, 5, 6]);
        }
    }

    #[test]
    fn a_truncated_file_is_refused() {
        let labels = file(1, &[2], &[0, 1]);
        let images = images();
        refused(&images[..images.len() - 1], &labels, None, &["t-images-idx3", "item 1 of 2"]);
        refused(&images[..10], &labels, None, &["t-images-idx3", "its header alone has 16"]);
        refused(&images, &labels[..9], None, &["t-labels-idx1", "item 1 of 2"]);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&images).expect("compresses");
        let gzip = encoder.finish().expect("compresses");
        refused(&gzip[..gzip.len() - 9], &labels, None, &["t-images-idx3", "gzip"]);
    }

    #[test]
    fn every_field_of_the_header_is_checked() {
        let labels = file(1, &[2], &[0, 1]);
        refused(&labels.repeat(4), &labels, None, &["t-images-idx3", "[00, 00, 08, 03]"]);
        let mut float = images();
        float[2] = 0x0d;
        refused(&float, &labels, None, &["found [00, 00, 0d, 03]"]);
        let longer = [images(), vec![0]].concat();
        refused(&longer, &labels, None, &["size and header disagree", "found 7"]);
        let huge = file(3, &[u32::MAX, u32::MAX, u32::MAX], &[0]);
        refused(&huge, &labels, None, &["t-images-idx3"]);
        refused(&file(3, &[0, 28, 28], &[]), &file(1, &[0], &[]), None, &["no image"]);
    }

    #[test]
    fn counts_must_agree() {
        refused(
            &images(),
            &file(1, &[3], &[0, 1, 1]),
            None,
            &["2 images", "3 labels", "t-images-idx3", "t-labels-idx1"],
        );
    }

    #[test]
    fn a_label_out_of_range_is_named() {
        let labels = file(1, &[2], &[0, 7]);
        refused(
            &images(),
            &labels,
            Some(&["a", "b"]),
            &["t-labels-idx1", "label 7 of image 1", "2 classes"],
        );
    }
}
