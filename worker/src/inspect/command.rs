//! The worker's part of `qpipe model`.

use std::path::Path;

use qpipe::stages::export_onnx::DEFAULT_OPSET;
use qpipe::task::{Failure, UsableModel};

use super::{Difference, Lint, Summary};
use crate::engine;
use crate::graph::Model;
use crate::interp::{check_image_inputs, check_trainable, take_apart};
use crate::quant::calibrate::check_calibration;
use crate::quant::finalize;
use crate::quant::prepare::prepare;
use crate::{Error, Result, onnx, passes};

/// What is to be printed, and whether there is anything to look at: two models that differ, something that the linter finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Text or JSON.
    pub text: String,
    /// What `--exit-code` asks for.
    pub found: bool,
}

/// Does `inspect FILE [--json]`, `diff A B [--json]`, `lint FILE [--target RUNTIME] [--json]`, or `trainable FILE…
/// calibratable FILE… buildable FILE… feedable FILE…`, which is always JSON.
///
/// # Errors
/// A file that cannot be read; arguments that say neither.
pub fn run(arguments: &[&str]) -> Result<Told> {
    let json = arguments.last() == Some(&"--json");
    let given = &arguments[..arguments.len() - usize::from(json)];
    let (text, found) = match given {
        ["inspect", file] => {
            let summary = Summary::read(Path::new(file))?;
            (if json { summary.json()? } else { summary.text() }, false)
        }
        [word, ..] if check_of(word).is_some() => (usable(given)?, false),
        ["diff", a, b] => {
            let difference = Difference::read(Path::new(a), Path::new(b))?;
            (if json { difference.json()? } else { difference.text() }, !difference.same)
        }
        ["lint", file] | ["lint", file, "--target", _] => {
            let lint = Lint::read(Path::new(file), given.get(3).copied())?;
            (if json { lint.json()? } else { lint.text() }, !lint.findings.is_empty())
        }
        _ => {
            return Err(Error::user(
                "expected `inspect FILE`, `diff FILE FILE` or `lint FILE`, and `--json`",
            )
            .help("qpipe model --help"));
        }
    };
    let text = if text.ends_with('\n') { text } else { text + "\n" };
    Ok(Told { text, found })
}

/// What is checked of a model.
type Check = fn(&mut Model) -> Result<()>;

/// Ends words that ask about what `export-onnx` makes of a file.
const ONCE_EXPORTED: &str = "-once-exported";

/// The form in which `export-onnx` writes a model of which nothing more is said.
fn export(model: &mut Model) -> Result<()> {
    passes::simplify(model)?;
    passes::fold_batch_norm(model)?;
    let opset = passes::least_opset(&model.graph)?.max(DEFAULT_OPSET.into());
    if model.opset() <= opset {
        passes::set_opset(model, opset)?;
    }
    finalize::finalize(model, None)
}

/// The check that a word asks for.
fn check_of(word: &str) -> Option<Check> {
    match word.strip_suffix(ONCE_EXPORTED).unwrap_or(word) {
        "trainable" => Some(|model| {
            onnx::check_numbers(model)?;
            check_image_inputs(model)?;
            take_apart(model);
            check_trainable(model).map(|_| ())
        }),
        "calibratable" => Some(|model| {
            // What is no number has no batch either.
            onnx::check_numbers(model)?;
            check_image_inputs(model)?;
            prepare(model)?;
            check_calibration(model)
        }),
        // An engine's note says how large its images are; the output's shape is found by running it.
        "buildable" => Some(|model| {
            let [input] = &model.graph.inputs[..] else { return Ok(()) };
            engine::image_of(input).map(|_| ())
        }),
        "feedable" => Some(|model| {
            onnx::check_numbers(model)?;
            check_image_inputs(model)
        }),
        _ => None,
    }
}

/// Whether the models of files pass checks, as the stages read them: a list of [`UsableModel`]. Each word holds for the files behind it, which
/// have absolute paths. No data is read.
fn usable(arguments: &[&str]) -> Result<String> {
    let (mut told, mut asked) = (Vec::new(), None);
    for &argument in arguments {
        if let Some(check) = check_of(argument) {
            asked = Some((argument, check));
            continue;
        }
        let Some((word, check)) = asked else { continue };
        let path = Path::new(argument);
        let checked = onnx::read(path).and_then(|mut model| {
            let formed = passes::inference_form(&mut model);
            let formed = formed.and_then(|_| {
                // What the export itself refuses depends on its settings too.
                if word.ends_with(ONCE_EXPORTED) && export(&mut model).is_err() {
                    return Ok(());
                }
                check(&mut model)
            });
            formed.map_err(|error| error.at(path.display()))
        });
        let refused = checked.err().map(Failure::from);
        told.push(UsableModel { word: word.to_owned(), file: path.to_path_buf(), refused });
    }
    serde_json::to_string(&told).map_err(|error| Error::bug(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, DType, Dim, Graph, Model, Node, TensorData, ValueInfo};

    #[test]
    fn each_file_is_told_whether_it_can_be_trained() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for (name, last) in [("good", "Relu"), ("bad", "Shape")] {
            let value = |name| ValueInfo::f32(name, vec![Dim::Unknown; 4]);
            let weight = TensorData::f32(&[1, 1, 1, 1], &[1.0]);
            let conv = Node::new("conv", "Conv", &["x", "w"], &["a"]);
            let graph = Graph {
                nodes: vec![conv, Node::new("last", last, &["a"], &["y"])],
                inputs: vec![value("x")],
                outputs: vec![value("y")],
                initializers: [("w".to_owned(), weight)].into_iter().collect(),
                ..Graph::default()
            };
            onnx::write_one_file(&Model::new(graph, 17), Path::new(&path(name))).unwrap();
        }
        let files = ["good", "bad", "missing"].map(path);
        let [good_path, bad_path, missing] = files.each_ref().map(String::as_str);
        let text = run(&["trainable", good_path, bad_path, missing]).unwrap().text;
        let told: Vec<UsableModel> = serde_json::from_str(&text).unwrap();
        let why = told.iter().map(|told| told.refused.as_ref().map(|it| it.message.clone()));
        let [None, Some(bad), Some(missing)] = &why.collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        assert!(bad.contains("node \"last\" (Shape), opset 17: this operator has no gradient"));
        assert!(bad.starts_with(&files[1]) && missing.contains("missing"), "{text}");
        // Calibration stops at nothing that only gradients do.
        let words = ["trainable", bad_path, "calibratable", good_path, bad_path];
        let text = run(&words).unwrap().text;
        let told: Vec<UsableModel> = serde_json::from_str(&text).unwrap();
        let found: Vec<_> =
            told.iter().map(|it| (it.word.as_str(), it.refused.is_some())).collect();
        let expected = [("trainable", true), ("calibratable", false), ("calibratable", false)];
        assert_eq!(found, expected, "{text}");
        // Bytes of an image are no numbers that were normalized.
        let mut bytes = onnx::read(Path::new(good_path)).unwrap();
        bytes.graph.inputs[0].dtype = Some(DType::U8);
        onnx::write_one_file(&bytes, Path::new(&path("bytes"))).unwrap();
        let text = run(&["calibratable", &path("bytes")]).unwrap().text;
        assert!(text.contains("its input `x` is of uint8"), "{text}");
        let text = run(&["feedable", &path("bytes"), good_path]).unwrap().text;
        assert_eq!(text.matches("its input `x` is of uint8").count(), 1, "{text}");
        // An engine is of images of one size.
        let text = run(&["buildable", good_path]).unwrap().text;
        assert!(text.contains("the model's input `x` must be [batch, channels"), "{text}");
        assert!(text.contains("image_size = 224"), "{text}");
        let mut model = onnx::read(Path::new(good_path)).unwrap();
        let sizes = [Dim::Unknown, Dim::Fixed(3), Dim::Fixed(8), Dim::Fixed(8)];
        model.graph.inputs[0].shape = Some(sizes.to_vec());
        onnx::write_one_file(&model, Path::new(good_path)).unwrap();
        let told: Vec<UsableModel> =
            serde_json::from_str(&run(&["buildable", good_path]).unwrap().text).unwrap();
        assert_eq!(told[0].refused, None);
    }

    /// Weights behind a Cast are none in the file, and are in what `export-onnx` makes of it.
    #[test]
    fn what_an_export_folds_is_asked_for_by_a_word_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("half.onnx");
        let value = |name| ValueInfo::f32(name, vec![Dim::Unknown; 2]);
        let two = TensorData { dtype: DType::F16, shape: vec![1, 1], bytes: vec![0, 64].into() };
        let graph = Graph {
            nodes: vec![
                Node::new("cast", "Cast", &["w"], &["wide"]).with("to", Attribute::Int(1)),
                Node::new("fc", "MatMul", &["x", "wide"], &["y"]),
            ],
            inputs: vec![value("x")],
            outputs: vec![value("y")],
            initializers: [("w".to_owned(), two)].into_iter().collect(),
            ..Graph::default()
        };
        onnx::write_one_file(&Model::new(graph, 17), &path).unwrap();
        let path = path.to_str().unwrap();
        let words = ["trainable", path, "trainable-once-exported", path];
        let told: Vec<UsableModel> = serde_json::from_str(&run(&words).unwrap().text).unwrap();
        let refused = told[0].refused.as_ref().unwrap();
        assert!(refused.message.ends_with("its weights are float16: training starts from float"));
        assert_eq!((told[1].word.as_str(), &told[1].refused), (words[2], &None));
        // `inspect` said that it can be trained, `train` refused it.
        let text = run(&["inspect", path]).unwrap().text;
        let line = "  trainable: no, 0 of 0 parameters: its weights are float16: training starts from float\n";
        assert!(text.contains(line), "{text}");
    }

    /// Strings as numbers, then a layer: each node by itself is executed.
    #[test]
    fn a_model_of_strings_is_neither_trained_nor_calibrated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("strings.onnx");
        let value = |name| ValueInfo::f32(name, vec![Dim::Unknown; 2]);
        let graph = Graph {
            nodes: vec![
                Node::new("cast", "Cast", &["x"], &["a"]).with("to", Attribute::Int(1)),
                Node::new("fc", "Gemm", &["a", "w"], &["y"]),
            ],
            // Name; type: tensor_type: elem_type = 8.
            inputs: vec![ValueInfo {
                dtype: None,
                shape: None,
                opaque: Some(b"\x0a\x01x\x12\x04\x0a\x02\x08\x08".to_vec()),
                ..value("x")
            }],
            outputs: vec![value("y")],
            initializers: [("w".to_owned(), TensorData::f32(&[1, 1], &[1.0]))]
                .into_iter()
                .collect(),
            ..Graph::default()
        };
        onnx::write_one_file(&Model::new(graph, 17), &path).unwrap();
        let path = path.to_str().unwrap();
        let text = run(&["trainable", path, "calibratable", path]).unwrap().text;
        let told: Vec<UsableModel> = serde_json::from_str(&text).unwrap();
        let why = "its input `x` is a tensor of strings, and what is fed to it are numbers";
        assert_eq!(told.len(), 2);
        for told in told {
            assert_eq!(told.refused.unwrap().message, format!("{path}: {why}"));
        }
        let text = run(&["inspect", path]).unwrap().text;
        for line in [
            "  input: x string, rank unknown\n".to_owned(),
            format!("  executable: no, 2 of 2 nodes: {why}\n"),
            "  trainable: no, 1 of 1 parameters: it cannot be executed\n".to_owned(),
            format!(
                "  quantizable for onnxruntime: no, 0 of 2 nodes: `calibrate` and `export-onnx` run it: {why}\n"
            ),
        ] {
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
