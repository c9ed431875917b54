//! What a file is that is no ONNX model.

/// How files begin.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (
        b"PK\x03\x04",
        "a ZIP archive, as `torch.save` writes: export the model with `torch.onnx.export`",
    ),
    (b"\x89HDF\r\n\x1a\n", "HDF5, as Keras writes: convert the model with tf2onnx"),
    (b"\x80\x02", "a pickle of Python, as old versions of `torch.save` write"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS: run `git lfs pull`"),
    (b"<!DOCTYPE", "a web page: the download failed"),
    (b"<html", "a web page: the download failed"),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF document"),
];

/// Marks behind the first four bytes.
const MARKS: &[(&[u8], &str)] = &[
    (b"TFL3", "a TensorFlow Lite model: convert it with tf2onnx"),
    (b"ORTM", "in ONNX Runtime's own format: take the .onnx file that it was made of"),
    (b"ftyp", "a video"),
];

/// What the file is, for `it is …`.
pub fn recognize(bytes: &[u8]) -> Option<&'static str> {
    let start = BEGINNINGS.iter().find(|row| bytes.starts_with(row.0));
    let mark = || MARKS.iter().find(|row| bytes.get(4..8) == Some(row.0));
    let known = start.or_else(mark).map(|row| row.1);
    let head = &bytes[..bytes.len().min(512)];
    let printable = |byte: &u8| *byte >= b' ' || matches!(byte, b'\n' | b'\r' | b'\t');
    known.or_else(|| head.iter().all(printable).then_some("a text"))
}
