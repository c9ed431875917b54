//! A folder of images without labels; folders below it included, sorted by name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use qpipe::stages::data::{Color, DataSpec};

use super::decode::decode;
use super::formats::Source;
use super::image_folder::{collect, ignored};
use super::pixels::Pixels;
use crate::{Error, Result};

struct Images {
    root: PathBuf,
    files: Vec<PathBuf>,
    /// As many zeros: nobody who needs labels is given them.
    labels: Vec<usize>,
    color: Color,
    ignored: Vec<PathBuf>,
}

/// Lists the images; they are decoded when asked for.
pub(super) fn open(spec: &DataSpec, paths: &BTreeMap<String, PathBuf>) -> Result<Box<dyn Source>> {
    let root = paths.get("path").ok_or_else(|| Error::bug("images without port `path`"))?;
    if !root.is_dir() {
        return Err(Error::user(format!("{}: expected a folder of images", root.display())));
    }
    let (mut files, mut ignored) = (Vec::new(), Vec::new());
    collect(root, &mut files, &mut ignored)?;
    if files.is_empty() {
        return Err(Error::user(format!("{}: no image in it", root.display()))
            .help("JPEG, PNG and BMP files are read, also in folders below it"));
    }
    let labels = vec![0; files.len()];
    let color = spec.color.unwrap_or(spec.default_color());
    Ok(Box::new(Images { root: root.clone(), files, labels, color, ignored }))
}

impl Source for Images {
    fn labels(&self) -> &[usize] {
        &self.labels
    }

    fn labelled(&self) -> bool {
        false
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn pixels(&self, index: usize) -> Result<Cow<'_, Pixels>> {
        decode(&self.files[index], self.color).map(Cow::Owned)
    }

    fn name(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }

    fn size(&self) -> Option<(usize, usize)> {
        None
    }

    fn notes(&self) -> Vec<String> {
        ignored(&self.root, &self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Dataset;
    use super::*;

    fn open_folder(root: &Path) -> Result<Dataset> {
        let spec = serde_json::json!({
            "format": "images", "path": "@input", "transform": [{ "letterbox": 4 }],
        });
        let spec = serde_json::from_value(spec).expect("a spec");
        Dataset::open(&spec, &BTreeMap::from([("path".to_owned(), root.to_owned())]))
    }

    #[test]
    fn all_images_below_a_folder_are_taken_and_none_has_a_label() {
        let root = tempfile::tempdir().expect("folder");
        std::fs::create_dir(root.path().join("b")).expect("makes");
        for name in ["c.png", "b/2.png", "a.JPG"] {
            let image = image::RgbImage::from_pixel(2, 1, image::Rgb([9, 9, 9]));
            image
                .save_with_format(root.path().join(name), image::ImageFormat::Png)
                .expect("writes");
        }
        std::fs::write(root.path().join("labels.txt"), "0").expect("writes");
        let data = open_folder(root.path()).expect("opens");
        assert_eq!((data.len(), data.size()), (3, Some((4, 4))));
        let ends = |index: usize, name: &str| data.name(index).ends_with(name);
        assert!(ends(0, "a.JPG") && ends(1, "b/2.png") && ends(2, "c.png"));
        assert!(data.notes()[0].contains("labels.txt"));
        let error = data.check_labels(1000).expect_err("no labels");
        assert!(error.message.contains("no labels"), "{}", error.message);
    }

    #[test]
    fn a_folder_without_images_is_refused() {
        let root = tempfile::tempdir().expect("folder");
        let error = open_folder(root.path()).err().expect("empty");
        assert!(error.message.contains("no image in it"), "{}", error.message);
    }
}
