//! Files that are damaged, hostile or no model at all: each a clear error.

use std::path::Path;

use qpipe_worker::graph::{DType, Graph, Model, Node, ValueInfo};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::{Result, onnx, passes};

use tch::Tensor;

use crate::python::project;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = project().join("fuzz/corpus/onnx");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn named(name: &str) -> Vec<u8> {
    corpus().into_iter().find(|file| file.0 == name).unwrap().1
}

fn read(bytes: &[u8]) -> Result<Model> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, bytes).unwrap();
    onnx::read(&path)
}

/// A node that asks for more than the address space of a process.
#[test]
fn too_little_memory_is_told_with_the_node_and_harms_nothing() {
    let value = |name: &str| ValueInfo { shape: None, ..ValueInfo::f32(name, Vec::new()) };
    let graph = Graph {
        nodes: vec![Node::new("copies", "Tile", &["x", "times"], &["y"])],
        inputs: vec![value("x"), ValueInfo { dtype: Some(DType::I64), ..value("times") }],
        outputs: vec![value("y")],
        ..Graph::default()
    };
    let mut program = Program::compile(&Model::new(graph, 17), &Options::default()).unwrap();
    let mut run = |times: i64| {
        let inputs = [Tensor::from_slice(&[2.5_f32]), Tensor::from_slice(&[times])];
        program.forward(&inputs, Mode::Eval, &mut |_, _| Ok(()))
    };
    let error = run(1 << 46).expect_err("256 TiB");
    assert!(error.out_of_memory && error.message.starts_with("node \"copies\" (Tile"), "{error}");
    assert!(error.message.contains(" 256.00 TiB more were wanted; of its "), "{error}");
    assert_eq!(run(3).unwrap()[0].size(), [3]);
}

#[test]
fn each_has_a_clear_error() {
    for (name, expected) in [
        ("negative", "value `x`: its type has a negative extent: -5"),
        ("negative_tensor", "tensor `w`: has a negative extent"),
        ("overflow", "tensor `w`: is too large"),
        ("short", "tensor `w`: has 5 bytes of data, but shape [3] of float needs 12"),
        ("external", "not a count of bytes|lies outside of the model's folder"),
        ("truncated", "is not valid protobuf"),
        ("not_utf8", "not UTF-8"),
        ("gzip", "it is not an ONNX model, but compressed with gzip"),
        ("png", "it is not an ONNX model, but a PNG image"),
        ("lfs", "a pointer of Git LFS: run `git lfs pull`"),
        ("empty", "the file is empty"),
        ("deep", "nested deeper than 100 messages"),
    ] {
        let error = read(&named(name)).expect_err(name);
        let found = expected.split('|').any(|part| error.message.contains(part));
        assert!(found, "{name}: {error}");
        assert!(error.message.contains("m.onnx"), "{error}");
    }
    for (name, expected) in [
        ("cycle", "node \"a\" (Add): its input `b` depends on its own output"),
        ("undefined", "its input `w` is not defined"),
        ("twice", "another node has this name too"),
    ] {
        let error = onnx::check(&read(&named(name)).unwrap()).expect_err(name);
        assert!(error.message.contains(expected), "{name}: {error}");
    }
    // Nodes in another order than the standard's: runtimes read such files too.
    onnx::check(&read(&named("unsorted")).unwrap()).unwrap();
    // A dense form of 2^60 elements: kept as it is, never made.
    let sparse = read(&named("sparse")).unwrap();
    assert!(sparse.graph.opaque_initializers["sp"].sparse);
}

/// A model whose weight of 12 bytes lies where `entries` say.
fn external(entries: &[(&str, &str)]) -> Vec<u8> {
    let text = |number: u8, text: &[u8]| [&[number << 3 | 2, text.len() as u8], text].concat();
    let mut tensor = [&[0x08, 3, 0x10, 1][..], &text(8, b"w"), &[0x70, 1]].concat();
    for (key, value) in entries {
        let entry = [text(1, key.as_bytes()), text(2, value.as_bytes())].concat();
        tensor.extend(text(13, &entry));
    }
    [vec![0x08, 8], text(7, &text(5, &tensor))].concat()
}

#[test]
fn external_data_stays_in_the_models_folder_and_in_its_file() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(root.path().join("outside"), [0; 64]).unwrap();
    std::fs::write(folder.join("inside"), [0; 64]).unwrap();
    std::os::unix::fs::symlink("../outside", folder.join("link")).unwrap();
    std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
    std::fs::create_dir(folder.join("below")).unwrap();
    let path = folder.join("m.onnx");
    let read = |entries: &[(&str, &str)]| {
        std::fs::write(&path, external(entries)).unwrap();
        onnx::read(&path)
    };
    let (offset, length) = (("offset", "52"), ("length", "12"));
    assert!(read(&[("location", "inside"), offset, length]).is_ok());
    let absolute = root.path().join("outside").display().to_string();
    let outside = "lies outside of the model's folder";
    for (location, expected) in [
        ("../outside", outside),
        ("./../outside", outside),
        ("below/../../outside", outside),
        (&absolute, outside),
        ("link", outside),
        ("up/outside", outside),
        ("missing", "No such file"),
        ("below", "is not a file"),
        ("", "without a `location`"),
        ("in\0side", "NUL"),
    ] {
        let error = read(&[("location", location), length]).expect_err(location);
        assert!(error.message.contains(expected), "{location}: {error}");
        assert!(error.message.contains("tensor `w`"), "{error}");
    }
    let inside = ("location", "inside");
    for (offset, length, expected) in [
        ("53", "12", "asks for 12 at offset 53"),
        ("65", "0", "asks for 0 at offset 65"),
        ("18446744073709551615", "12", "asks for 12 at offset"),
        ("18446744073709551616", "12", "not a count of bytes"),
        ("-1", "12", "not a count of bytes"),
        ("0", "64", "has 64 bytes of data"),
    ] {
        let error = read(&[inside, ("offset", offset), ("length", length)]).expect_err(offset);
        assert!(error.message.contains(expected), "{offset}: {error}");
    }
    let error = onnx::parse(external(&[inside]).into()).unwrap_err();
    assert!(error.message.contains("is not in a file itself"), "{error}");
}

#[test]
fn what_is_no_file_is_an_error() {
    let error = onnx::read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err();
    assert!(error.message.contains("it is not a file"), "{error}");
}

/// Billions of nodes of a few bytes would be some hundred bytes each in memory.
#[test]
fn huge_counts_are_refused() {
    let node = [0x0a, 3, 0x22, 1, b'R'];
    let count = (1 << 22) + 1;
    let length = node.len() * count;
    let varint = |mut n: usize| {
        let mut bytes = Vec::new();
        while n > 127 {
            bytes.push(n as u8 | 128);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    };
    let bytes = [&[0x08, 8, 0x3a][..], &varint(length), &node.repeat(count)].concat();
    assert!(onnx::parse(bytes.into()).unwrap_err().message.contains("more than 4194304 nodes"));
}

/// The corpus of the fuzz target `onnx`, and changes of it from fixed seeds.
#[test]
fn the_corpus_and_what_is_like_it_is_borne() {
    let corpus = corpus();
    let mut state = 0u64;
    let mut below = |end: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end.max(1)
    };
    for (_, bytes) in &corpus {
        onnx::fuzzing::onnx(bytes);
        for _ in 0..300 {
            let mut bytes = bytes.clone();
            for _ in 0..=below(3) {
                let at = below(bytes.len());
                let (other, kind) = (&corpus[below(corpus.len())].1, below(4));
                match kind {
                    0 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
                    1 if !bytes.is_empty() => bytes[at] = [0, 1, 127, 128, 255][below(5)],
                    2 => drop(bytes.drain(at..(at + below(16)).min(bytes.len()))),
                    _ => {
                        let from = below(other.len());
                        let to = (from + below(64)).min(other.len());
                        drop(bytes.splice(at..at, other[from..to].iter().copied()));
                    }
                }
            }
            onnx::fuzzing::onnx(&bytes);
        }
    }
}

/// Constants that ask for 2^60 elements are not computed when constants are folded; what runs them says so.
#[test]
fn giant_constants_are_not_folded() {
    for name in ["fill", "range"] {
        let mut model = read(&named(name)).unwrap();
        let nodes = model.graph.nodes.len();
        passes::simplify(&mut model).unwrap();
        assert_eq!(model.graph.nodes.len(), nodes, "{name}");
        let _ = Program::compile(&model, &Options::default());
    }
}

/// What is read of damaged files is simplified and compiled, or refused.
#[test]
fn damaged_models_are_compiled_or_refused() {
    let mut compiled = 0;
    for (_, bytes) in corpus() {
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(mut model) = onnx::parse(bytes.into()) else { continue };
            compiled += usize::from(Program::compile(&model, &Options::default()).is_ok());
            if passes::inference_form(&mut model).is_ok() {
                let _ = passes::fold_batch_norm(&mut model);
                let _ = passes::set_batch(&mut model, Some(2));
                let _ = Program::compile(&model, &Options::default());
            }
        }
    }
    assert!(compiled > 1000, "{compiled}");
}
