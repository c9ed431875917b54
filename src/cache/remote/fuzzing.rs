//! Fuzz targets: what a remote gives us.

use std::fs::{self, File};

use super::compress::{Content, Size, pack, unpack};
use super::envelope::{self, Fetched};
use super::failure::Failure;
use super::layout::Encoding;
use crate::cache::{ActionRecord, Digest, fuzzing, is_inside};

/// The file of a record; also the content of one, put into an envelope with the right digest.
///
/// # Panics
///
/// Where a record is believed that is of another key, names what lies outside, or is not read back.
pub fn remote_record(bytes: &[u8]) {
    let key = Digest::of(b"another key");
    assert!(envelope::open(bytes, &key).is_err(), "a record of another key is believed");
    let Ok(content) = std::str::from_utf8(bytes) else { return };
    let file = serde_json::json!({
        "format": 1, "sha256": Digest::of(bytes), "content": content,
    });
    let file = file.to_string();
    #[derive(serde::Deserialize)]
    struct Inner {
        record: ActionRecord,
    }
    let Ok(Inner { record }) = serde_json::from_slice(bytes) else {
        assert!(envelope::open(file.as_bytes(), &key).is_err(), "no record is believed");
        return;
    };
    let key = record.key.digest();
    let Ok(fetched) = envelope::open(file.as_bytes(), &key) else { return };
    let Fetched { record, executable } = &fetched;
    assert!(record.seconds.is_finite() && record.seconds >= 0.0);
    for (port, output) in &record.outputs {
        assert!(is_inside(port) && output.is_inside(), "{port}: {}", output.file);
    }
    for text in record.warnings.iter().chain([&record.stage, &record.host, &record.version]) {
        let obeyed = |letter: char| letter.is_control() && letter != '\n';
        assert!(!text.contains(obeyed), "a terminal would obey {text:?}");
    }
    let sealed = envelope::seal(record, executable.clone());
    assert_eq!(envelope::open(&sealed, &key).as_ref(), Ok(&fetched));
}

/// An object as it is stored: a byte for the encoding and two for the expected size stand before it.
///
/// # Panics
///
/// Where more is written than was expected, or another content than the digest's; and where what is
/// packed is not unpacked.
pub fn remote_object(bytes: &[u8]) {
    let Some(([encoding, low, high], stored)) = bytes.split_first_chunk::<3>() else { return };
    let encoding = if encoding & 1 == 0 { Encoding::Plain } else { Encoding::Zstd };
    let most = u64::from(u16::from_le_bytes([*low, *high]));
    let exact = bytes[0] & 2 == 0;
    let size = if exact { Size::Exactly(most) } else { Size::AtMost(most) };
    let file = File::open(fuzzing::file("stored", stored)).expect("it was written");
    let target = fuzzing::place("target");
    let open = |digest: &Digest| {
        let _ = fs::remove_file(&target);
        let result = unpack(&file, encoding, &target, digest, size);
        (result, fs::read(&target).expect("it was made"))
    };
    let (result, first) = open(&Digest::of(b"another object"));
    assert!(matches!(result, Err(Failure::Wrong(_))), "{result:?}");
    assert!(first.len() as u64 <= most + 1, "more is written than was expected");
    let (result, second) = open(&Digest::of(&first));
    assert_eq!(second, first);
    if result.is_ok() {
        let length = first.len() as u64;
        assert!(if exact { length == most } else { length <= most });
    }
    packed(stored);
}

/// Sends an object and fetches it again.
fn packed(content: &[u8]) {
    let (digest, bytes) = (Digest::of(content), content.len() as u64);
    let object = fuzzing::file("object", content);
    let folder = object.parent().unwrap_or(&object);
    let packed = pack(&object, &digest, bytes, folder).expect("it is whole");
    assert!(packed.bytes <= packed.encoding.most(bytes));
    let file = match packed.content {
        Content::Memory(bytes) => File::open(fuzzing::file("packed", &bytes)).expect("it is there"),
        Content::File(file) => file,
    };
    let target = fuzzing::place("unpacked");
    let _ = fs::remove_file(&target);
    unpack(&file, packed.encoding, &target, &digest, Size::Exactly(bytes)).expect("it is ours");
    assert_eq!(fs::read(&target).expect("it was made"), content);
}
