//! A line of the journal: its fields, its checksum, its end.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::{Digest, files};

/// A line to append.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line<'a> {
    /// See the module.
    Record { key: &'a Digest, label: &'a str, json: &'a str },
    /// See the module.
    Use { key: &'a Digest, label: &'a str },
    /// See the module.
    Drop { key: &'a Digest },
    /// See the module.
    Kept { key: &'a Digest },
    /// See the module; `number`: up to which record.
    Flushed { number: u64 },
}

/// A writer and the number behind its name.
pub(super) fn numbered(writer: &[u8]) -> Option<(&[u8], u64)> {
    let place = writer.iter().rposition(|byte| *byte == b'#')?;
    let number = std::str::from_utf8(&writer[place + 1..]).ok()?.parse().ok()?;
    Some((&writer[..place], number))
}

/// Whether a line's checksum is right.
pub(super) fn is_whole(line: &[u8]) -> bool {
    let sum = || {
        let sum = std::str::from_utf8(line.get(2..10)?).ok()?;
        // Only as it is written: digits in capitals are a flipped bit.
        let lower = !sum.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'+');
        let wanted = u32::from_str_radix(sum, 16).ok().filter(|_| lower)?;
        let tabs = line.get(1) == Some(&b'\t') && line.get(10) == Some(&b'\t');
        Some(tabs && checksum(line[0], &line[11..]) == wanted)
    };
    sum().unwrap_or(false)
}

/// What stands in a line as its checksum.
pub(super) fn checksum(kind: u8, rest: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&[kind]);
    hash.update(rest);
    hash.finalize()
}

/// Where a last line without an end begins; `None` if the file ends as it should.
pub(super) fn torn(file: &mut File) -> io::Result<Option<u64>> {
    let mut end = file.metadata()?.len();
    if end == 0 {
        return Ok(None);
    }
    let (last, mut block) = (end - 1, Vec::new());
    loop {
        let start = end.saturating_sub(4096);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        let newline = block.iter().rposition(|byte| *byte == b'\n');
        match newline.map(|newline| start + newline as u64) {
            Some(newline) if newline == last => return Ok(None),
            Some(newline) => return Ok(Some(newline + 1)),
            None if start == 0 => return Ok(Some(0)),
            None => end = start,
        }
    }
}

/// A label without what separates fields and lines.
pub(super) fn plain(label: &str) -> Cow<'_, str> {
    if label.contains(char::is_control) {
        label.replace(char::is_control, " ").into()
    } else {
        label.into()
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// Names this start of this machine; where the system does not tell, nothing of another process is
/// taken to be of the same start.
pub(crate) fn boot() -> String {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").ok().filter(|id| !id.is_empty());
    Digest::of(&id.unwrap_or_else(|| files::unique().into_bytes())).short()
}
