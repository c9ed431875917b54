//! Fuzz target: the files of the input index.

use super::{HEADER, Root};

/// The body of an index file, behind its header and its checksum; and a whole file.
///
/// # Panics
///
/// Where what was read is not what is read after it was written.
pub fn index(bytes: &[u8]) {
    check(bytes);
    check(&[HEADER, &crc32fast::hash(bytes).to_le_bytes(), bytes].concat());
}

fn check(file: &[u8]) {
    let Some((folder, root)) = Root::parse(file) else { return };
    let (again, read) = Root::parse(&root.bytes(&folder)).expect("what is written is read");
    assert_eq!((again, read.whole), (folder, root.whole));
    assert_eq!(read.entries, root.entries);
    assert!(root.entries.capacity() <= file.len(), "memory for what is not there");
}
