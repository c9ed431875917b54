//! One folder a class, as torchvision's `ImageFolder`: classes and files sorted by name, folders
//! below a class included.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qpipe::stages::data::{Color, DataSpec};
use qpipe::stages::image_files::{is_image, is_litter};

use super::decode::decode;
use super::formats::Source;
use super::pixels::Pixels;
use crate::{Error, Result};

struct ImageFolder {
    root: PathBuf,
    files: Vec<PathBuf>,
    labels: Vec<usize>,
    classes: Vec<String>,
    /// Whether the data set lists them.
    listed: bool,
    color: Color,
    ignored: Vec<PathBuf>,
    /// Classes of which there is no image.
    empty: Vec<String>,
}

/// Lists the images of each class; they are decoded when asked for.
pub(super) fn open(spec: &DataSpec, paths: &BTreeMap<String, PathBuf>) -> Result<Box<dyn Source>> {
    let root =
        paths.get("path").ok_or_else(|| Error::bug("image-folder data without port `path`"))?;
    if !root.is_dir() {
        return Err(Error::user(format!(
            "{}: expected a folder with one folder a class",
            root.display()
        )));
    }
    let found = folders(root)?;
    let classes = match &spec.classes {
        Some(classes) => classes.clone(),
        None => found.clone(),
    };
    if classes.is_empty() {
        return Err(Error::user(format!("{}: no class folder in it", root.display()))
            .help("put the images of each class into a folder named as the class"));
    }
    let mut source = ImageFolder {
        root: root.clone(),
        files: Vec::new(),
        labels: Vec::new(),
        classes: classes.clone(),
        listed: spec.classes.is_some(),
        color: spec.color.unwrap_or(spec.default_color()),
        ignored: Vec::new(),
        empty: Vec::new(),
    };
    for (label, class) in classes.iter().enumerate() {
        let folder = root.join(class);
        if !folder.is_dir() {
            return Err(Error::user(format!(
                "{}: no folder for class \"{class}\"; there are: {}",
                root.display(),
                found.join(", ")
            ))
            .help("correct `classes` of the data set, or name the folder so; a class without images has an empty folder"));
        }
        let before = source.files.len();
        collect(&folder, &mut source.files, &mut source.ignored)?;
        let added = source.files.len() - before;
        // A class that is listed keeps its index, whether there are images of it or not.
        if added == 0 && spec.classes.is_none() {
            return Err(Error::user(format!(
                "{}: the class folder has no image in it",
                folder.display()
            ))
            .help(
                "JPEG, PNG and BMP files are read; remove the folder if it is no class, or list the classes in `classes`, where such a folder \
                 keeps its class's index",
            ));
        }
        if added == 0 {
            source.empty.push(class.clone());
        }
        source.labels.extend(std::iter::repeat_n(label, added));
    }
    if source.files.is_empty() {
        return Err(Error::user(format!("{}: no image in its class folders", root.display()))
            .help("JPEG, PNG and BMP files are read"));
    }
    Ok(Box::new(source))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |error: std::io::Error| Error::io(folder, &error);
    let mut entries = std::fs::read_dir(folder)
        .map_err(io)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(io))
        .collect::<Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

/// Names of the folders in `root`, hidden ones left out.
fn folders(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for path in entries(root)?.into_iter().filter(|path| path.is_dir()) {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Error::user(format!("{}: the folder's name is not UTF-8", path.display()))
        })?;
        if !name.starts_with('.') {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Image files in a folder and those below it, sorted by name, and files that are none.
///
/// # Errors
/// A folder that cannot be read.
pub(super) fn collect(
    folder: &Path,
    files: &mut Vec<PathBuf>,
    ignored: &mut Vec<PathBuf>,
) -> Result<()> {
    for path in entries(folder)? {
        if path.is_dir() {
            collect(&path, files, ignored)?;
            continue;
        }
        if is_litter(&path) {
            continue;
        }
        if is_image(&path) { files.push(path) } else { ignored.push(path) }
    }
    Ok(())
}

impl Source for ImageFolder {
    fn labels(&self) -> &[usize] {
        &self.labels
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn classes_found(&self) -> bool {
        !self.listed
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
        let mut notes = ignored(&self.root, &self.ignored);
        if !self.empty.is_empty() {
            let classes = self.empty.join(", ");
            notes.push(format!("{}: no image of class {classes}", self.root.display()));
        }
        notes
    }
}

/// A remark on files that are no images, if there are any.
pub(super) fn ignored(root: &Path, files: &[PathBuf]) -> Vec<String> {
    let Some(first) = files.first() else { return Vec::new() };
    vec![format!(
        "{}: ignored {} file(s) that are no JPEG, PNG or BMP, such as {}",
        root.display(),
        files.len(),
        first.display()
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("folder");
        for (index, file) in files.iter().enumerate() {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
            if file.ends_with('/') {
                continue;
            }
            let image = image::GrayImage::from_pixel(2, 2, image::Luma([index as u8]));
            image.save_with_format(&path, image::ImageFormat::Png).expect("writes");
        }
        root
    }

    fn open_folder(root: &Path, classes: Option<&[&str]>) -> Result<Box<dyn Source>> {
        let mut spec = serde_json::json!({ "format": "image-folder", "path": "@input" });
        if let Some(classes) = classes {
            spec["classes"] = classes.into();
        }
        let spec = serde_json::from_value(spec).expect("a spec");
        open(&spec, &BTreeMap::from([("path".to_owned(), root.to_owned())]))
    }

    #[test]
    fn classes_and_files_are_sorted() {
        let root =
            folder(&["PNEUMONIA/b.png", "PNEUMONIA/a.JPG", "NORMAL/z/1.bmp", "NORMAL/notes.txt"]);
        let source = open_folder(root.path(), None).expect("opens");
        assert_eq!(source.classes(), ["NORMAL", "PNEUMONIA"]);
        assert_eq!(source.labels(), [0, 1, 1]);
        assert!(source.name(0).ends_with("NORMAL/z/1.bmp"));
        assert!(source.name(1).ends_with("a.JPG") && source.name(2).ends_with("b.png"));
        assert_eq!(source.pixels(2).expect("decodes").at(0, 0), [0, 0, 0]);
        assert!(
            source.notes()[0].contains("ignored 1 file") && source.notes()[0].contains("notes.txt")
        );
    }

    #[test]
    fn classes_given_choose_folders_and_their_order() {
        let root = folder(&["a/1.png", "b/1.png", "c/1.png"]);
        let source = open_folder(root.path(), Some(&["c", "a"])).expect("opens");
        assert_eq!(source.labels(), [0, 1]);
        assert!(source.name(0).ends_with("c/1.png"));
        let error = open_folder(root.path(), Some(&["a", "x"])).err().expect("no such folder");
        assert!(error.message.contains("class \"x\"; there are: a, b, c"), "{}", error.message);
    }

    #[test]
    fn an_empty_class_folder_is_refused_unless_its_class_is_listed() {
        let root = folder(&["a/1.png", "c/1.png"]);
        std::fs::create_dir(root.path().join("b")).expect("makes");
        let error = open_folder(root.path(), None).err().expect("empty");
        assert!(error.message.contains("/b: the class folder has no image"), "{}", error.message);
        let source = open_folder(root.path(), Some(&["a", "b", "c"])).expect("listed");
        assert_eq!(source.labels(), [0, 2]);
        assert!(source.notes()[0].ends_with("no image of class b"), "{:?}", source.notes());
        let error = open_folder(root.path(), Some(&["b"])).err().expect("nothing at all");
        assert!(error.message.contains("no image in its class folders"), "{}", error.message);
    }

    #[test]
    fn what_systems_leave_in_folders_is_neither_image_nor_worth_a_remark() {
        let root = folder(&["a/1.png"]);
        for name in [".DS_Store", "Thumbs.db", "._1.png", "._1.jpg"] {
            std::fs::write(root.path().join("a").join(name), "no image").expect("writes");
        }
        let source = open_folder(root.path(), None).expect("opens");
        assert_eq!(source.labels(), [0]);
        assert!(source.notes().is_empty(), "{:?}", source.notes());
        std::fs::write(root.path().join("a/2.webp"), "an image").expect("writes");
        let source = open_folder(root.path(), None).expect("opens");
        assert!(source.notes()[0].contains("2.webp"), "{:?}", source.notes());
    }
}
