//! Which files in a folder are images: what the worker reads, the runner looks for and cache keys leave out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "bmp"];

/// Whether a file's name ends as those of images that are read.
pub fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// Whether a file is one that systems leave in folders by themselves, or that keeps a folder in Git: no data of anybody's, whatever its
/// ending. `._a.jpg` is what macOS keeps about `a.jpg`.
pub fn is_litter(path: &Path) -> bool {
    const NAMES: [&str; 4] = [".ds_store", "thumbs.db", "desktop.ini", ".gitkeep"];
    path.file_name().is_some_and(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"._")
            || NAMES.iter().any(|litter| name.eq_ignore_ascii_case(litter.as_bytes()))
    })
}

/// Names of the folders in `root`, sorted, hidden ones left out: the classes where none are listed.
///
/// # Errors
///
/// A folder that cannot be read. Names that are no UTF-8 are left out.
pub fn class_folders(root: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        names
            .extend(name.filter(|name| !name.starts_with('.') && path.is_dir()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// How many images there are in folders and those below them, at most `most`.
///
/// # Errors
///
/// A folder that cannot be read.
pub fn count(folders: &[PathBuf], most: usize) -> std::io::Result<usize> {
    let mut found = 0;
    for folder in folders {
        found += below(folder, most - found, &mut Vec::new())?;
    }
    Ok(found)
}

/// `above`: the folders that this one lies in, by device and inode.
fn below(folder: &Path, most: usize, above: &mut Vec<(u64, u64)>) -> std::io::Result<usize> {
    let metadata = fs::metadata(folder)?;
    let identity = (metadata.dev(), metadata.ino());
    // A link to a folder above itself is refused where the folder is digested.
    if above.contains(&identity) {
        return Ok(0);
    }
    above.push(identity);
    let mut found = 0;
    for entry in fs::read_dir(folder)? {
        if found == most {
            break;
        }
        let path = entry?.path();
        if path.is_dir() {
            found += below(&path, most - found, above)?;
        } else {
            found += usize::from(is_image(&path) && !is_litter(&path));
        }
    }
    above.pop();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_their_names() {
        assert!(["a.png", "b/A.JPEG", "..jpg"].iter().all(|name| is_image(Path::new(name))));
        assert!(!["a.webp", "png", ".png", "a."].iter().any(|name| is_image(Path::new(name))));
        for name in ["._a.png", "d/.DS_Store", "THUMBS.DB", "Desktop.ini", ".gitkeep"] {
            assert!(is_litter(Path::new(name)), "{name}");
        }
        assert!(![".hidden", "_a.png", "gitkeep"].iter().any(|name| is_litter(Path::new(name))));
    }

    #[test]
    fn images_are_counted_up_to_what_matters() {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| root.path().join(name);
        fs::create_dir_all(place("cat/young")).unwrap();
        fs::create_dir_all(place(".git")).unwrap();
        for name in ["cat/a.png", "cat/._a.png", "cat/b.txt", "cat/young/c.jpg", "d.png"] {
            fs::write(place(name), "").unwrap();
        }
        std::os::unix::fs::symlink("..", place("cat/young/loop")).unwrap();
        assert_eq!(class_folders(root.path()).unwrap(), ["cat"]);
        assert_eq!(count(&[place("cat")], 9).unwrap(), 2);
        assert_eq!(count(&[place("cat"), root.path().to_owned()], 9).unwrap(), 5);
        assert_eq!(count(&[root.path().to_owned()], 2).unwrap(), 2);
        assert!(count(&[place("dog")], 2).is_err());
    }
}
