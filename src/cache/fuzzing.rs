//! Fuzz targets: lock files, action records, manifests; and what targets of the cache share.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::record::RecordWithoutKey;
use super::{ActionRecord, LockFile, LockedStage, Manifest, is_inside};

thread_local! {
    static FOLDER: TempDir = folder();
}

/// In memory where the system has such a place: a flush costs nothing there.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("there is room for a folder")
}

/// A path in this thread's folder for files of targets.
pub(crate) fn place(name: &str) -> PathBuf {
    FOLDER.with(|folder| folder.path().join(name))
}

/// A file with that content in this thread's folder.
pub(crate) fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = place(name);
    std::fs::write(&path, content).expect("there is room for a file");
    path
}

/// A lock file.
///
/// # Panics
///
/// Where what was read is not what is read after it was written.
pub fn lock_file(bytes: &[u8]) {
    match LockFile::from_bytes(bytes) {
        Ok(lock) => {
            same_after_writing(&lock);
            lock.stages.values().for_each(|stage| drop(stage.action_key()));
        }
        Err(reason) => assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}"),
    }
}

fn same_after_writing(lock: &LockFile) {
    let text = lock.text();
    let read = LockFile::from_bytes(text.as_bytes());
    assert_eq!(read.as_ref(), Ok(lock), "written as\n{text}");
}

/// The JSON of an action record.
///
/// # Panics
///
/// Where it is not read back, does not fit into a lock file, or a path in it leaves its folder.
pub fn record(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let whole = serde_json::from_str::<ActionRecord>(text);
    let Ok(record) = whole else { return };
    let json = serde_json::to_string(&record).expect("a record serialises to JSON");
    let again: ActionRecord = serde_json::from_str(&json).expect("its JSON is a record");
    assert_eq!(again, record);
    assert_eq!(again.key.digest(), record.key.digest());
    let part: RecordWithoutKey = serde_json::from_str(&json).expect("its JSON is a record");
    assert_eq!(part.with(record.key.clone()), record);
    for output in record.outputs.values().filter(|output| output.is_inside()) {
        stays_inside(&output.file);
    }
    // Seeds come from TOML, whose integers have 63 bits.
    if i64::try_from(record.key.seed).is_ok() {
        let stage = LockedStage::new(record.key.digest(), &record);
        assert!(stage.action_key().is_some() || record.key.format != super::ActionKey::FORMAT);
        let stages = [(record.stage.clone(), stage)].into();
        same_after_writing(&LockFile { set: Vec::new(), stages });
    }
}

/// The manifest of a folder.
///
/// # Panics
///
/// Where it has another form, or a path in it leaves the folder.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(manifest) = Manifest::parse(text) else { return };
    assert_eq!(manifest.text(), text, "a manifest has one form");
    manifest.bytes();
    for entry in &manifest.entries {
        assert!(is_inside(&entry.path));
        stays_inside(&entry.path);
    }
}

/// What the system makes of a path, not what we do: no part leads up or anew from the root.
fn stays_inside(path: &str) {
    let root = Path::new("/a/b");
    let joined = root.join(path);
    assert!(joined.starts_with(root) && joined != root, "{path}");
    let up = joined.components().any(|part| part == std::path::Component::ParentDir);
    assert!(!up && !path.contains('\0'), "{path}");
}
