//! Which flags a version of trtexec takes: the table, and what is chosen from it.
//!
//! Read from `trtexec --help` of 8.5 to 11.1, and held to it by the tests of `help_texts.rs` (`recorded/README.md`). A wish
//! that a version fulfils by default has a row without flags; one that it cannot fulfil has none.

use qpipe::stages::build_engine::Precision;

use super::Version;
use super::pairs::Pairs;
use crate::{Error, Result};

/// Something that is wanted of trtexec and said differently by versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// INT8 kernels where the model has Q/DQ pairs.
    Int8,
    /// FP8 kernels where the model has such pairs.
    Float8,
    /// Weights of INT4 where the model has such pairs.
    Int4,
    /// FP16 kernels where the model says float.
    Fp16,
    /// All types, whatever is fastest.
    Best,
    /// Build, and measure nothing.
    BuildOnly,
    /// Launch the engine as a CUDA graph.
    CudaGraph,
    /// Enqueue kernel by kernel.
    NoCudaGraph,
    /// Wait for the GPU in a loop: steadier times.
    SpinWait,
    /// Copy inputs and outputs in each run, and time it.
    Transfers,
}

struct Row {
    wish: Wish,
    /// First version with it: major, minor.
    from: (u32, u32),
    /// First version without it.
    until: (u32, u32),
    flags: &'static [&'static str],
}

const ALL: (u32, u32) = (0, 0);
const NEVER: (u32, u32) = (u32::MAX, 0);

const TABLE: &[Row] = &[
    // Since 11 networks are strongly typed: the types are those of the ONNX file.
    Row { wish: Wish::Int8, from: ALL, until: (11, 0), flags: &["--int8"] },
    // 10.1 is the first release whose sources have it.
    Row { wish: Wish::Float8, from: (8, 6), until: (11, 0), flags: &["--fp8"] },
    Row { wish: Wish::Int4, from: (10, 1), until: (11, 0), flags: &["--int4"] },
    Row { wish: Wish::Fp16, from: ALL, until: (11, 0), flags: &["--fp16"] },
    Row { wish: Wish::Best, from: ALL, until: (11, 0), flags: &["--best"] },
    Row { wish: Wish::BuildOnly, from: ALL, until: (8, 6), flags: &["--buildOnly"] },
    Row { wish: Wish::BuildOnly, from: (8, 6), until: NEVER, flags: &["--skipInference"] },
    Row { wish: Wish::CudaGraph, from: ALL, until: (11, 0), flags: &["--useCudaGraph"] },
    Row { wish: Wish::CudaGraph, from: (11, 0), until: NEVER, flags: &[] },
    Row { wish: Wish::NoCudaGraph, from: ALL, until: (11, 0), flags: &[] },
    Row { wish: Wish::NoCudaGraph, from: (11, 0), until: NEVER, flags: &["--noCudaGraph"] },
    Row { wish: Wish::SpinWait, from: ALL, until: (11, 0), flags: &["--useSpinWait"] },
    Row { wish: Wish::SpinWait, from: (11, 0), until: NEVER, flags: &[] },
    Row { wish: Wish::Transfers, from: ALL, until: (11, 0), flags: &[] },
    Row { wish: Wish::Transfers, from: (11, 0), until: NEVER, flags: &["--includeDataTransfers"] },
];

/// The flags for a wish; `None`: this version cannot do it.
pub fn of(version: Version, wish: Wish) -> Option<Vec<String>> {
    let number = (version.major, version.minor);
    let row = TABLE.iter().find(|row| row.wish == wish && (row.from..row.until).contains(&number));
    row.map(|row| row.flags.iter().map(|&flag| flag.to_owned()).collect())
}

/// What a precision asks for beside the types of pairs.
fn wishes(precision: Precision) -> &'static [Wish] {
    match precision {
        Precision::Fp16 | Precision::Int8 => &[Wish::Fp16],
        Precision::Best | Precision::Implicit => &[Wish::Best],
        // TensorRT's float has TF32 anyway.
        Precision::Fp32 | Precision::Int8Fp32 | Precision::Tf32 => &[],
    }
}

/// What the types of pairs ask for, of versions up to 10.
///
/// # Errors
/// Pairs of a type for which this version has no flag, or none beside the others.
fn of_pairs(version: Version, wanted: Precision, pairs: Pairs) -> Result<Vec<Wish>> {
    let refuse = |reason: String, help: &str| Err(Error::user(reason).help(help).key("model"));
    for (there, wish, name, least) in [
        (pairs.float8, Wish::Float8, "float8 (--fp8)", "8.6"),
        (pairs.int4, Wish::Int4, "int4 (--int4)", "10.1"),
    ] {
        if there && of(version, wish).is_none() {
            return refuse(
                format!(
                    "the model has Q/DQ pairs of {name}, which TensorRT {version} does not have"
                ),
                &format!(
                    "build with TensorRT {least} or later, or quantize it to int8 (`insert-qdq` without `weights` and `activations`)"
                ),
            );
        }
    }
    // Both parsers and builders of all versions refuse it.
    if pairs.float8 && (pairs.int8 || wanted == Precision::Best) {
        return if pairs.int8 {
            refuse(
                format!(
                    "the model has Q/DQ pairs of int8 and of float8: trtexec of TensorRT {version} does not take --int8 and --fp8 together"
                ),
                "quantize it to one of them, or build with TensorRT 11, which takes all types from the file",
            )
        } else {
            Err(Error::user(format!(
                "precision = \"best\" of a model with Q/DQ pairs of float8: trtexec of TensorRT {version} does not take --fp8 beside --best, which has INT8"
            ))
            .help("leave `precision` out: it is --fp8 --fp16 then")
            .key("precision"))
        };
    }
    // `--best` has INT8.
    let int8 = pairs.int8 && wanted != Precision::Best;
    let wishes = [(int8, Wish::Int8), (pairs.float8, Wish::Float8), (pairs.int4, Wish::Int4)];
    Ok(wishes.into_iter().filter(|(there, _)| *there).map(|(_, wish)| wish).collect())
}

/// The flags of a precision for a model with these types of Q/DQ pairs, or none; from version 11 on none.
///
/// # Errors
/// A precision that the model or this version does not have.
pub fn precision(version: Version, precision: Precision, pairs: Pairs) -> Result<Vec<String>> {
    let quantized = pairs.any();
    let refuse = |reason: String, help: &str| Err(Error::user(reason).help(help).key("precision"));
    let name = precision.name();
    if precision == Precision::Tf32 {
        return refuse(
            "precision = \"tf32\" belongs to backend \"torch\"".to_owned(),
            "use \"fp32\", which has TF32 on; flags = [\"--noTF32\"] turns it off",
        );
    }
    if precision == Precision::Implicit {
        return match (quantized, of(version, Wish::Best)) {
            (true, _) => refuse(
                "precision = \"implicit\" of a model with Q/DQ pairs, which say what is INT8"
                    .to_owned(),
                "build the float model, or use \"best\"",
            ),
            (false, None) => refuse(
                format!(
                    "precision = \"implicit\" on TensorRT {version}: it has no INT8 without Q/DQ pairs any more"
                ),
                "compare with TensorRT 8.5 to 10",
            ),
            (false, Some(flags)) => Ok(flags),
        };
    }
    if !quantized && matches!(precision, Precision::Int8 | Precision::Int8Fp32 | Precision::Best) {
        return refuse(
            format!(
                "precision = \"{name}\" of a model without Q/DQ pairs: trtexec would make up the ranges of its tensors"
            ),
            "quantize it with `insert-qdq` (target = \"tensorrt\"), or use \"fp16\" or \"fp32\"; to time what TensorRT would do by itself: \"implicit\"",
        );
    }
    if version.major >= 11 {
        return match precision {
            // What is FP16 is so in the file (`typed.rs`).
            Precision::Fp16 if quantized => refuse(
                "precision = \"fp16\" of a model with Q/DQ pairs, which say what is INT8"
                    .to_owned(),
                "use \"int8\", whose rest is FP16, or build the float model",
            ),
            Precision::Fp32 | Precision::Fp16 | Precision::Int8 | Precision::Int8Fp32 => {
                Ok(Vec::new())
            }
            Precision::Best | Precision::Tf32 | Precision::Implicit => refuse(
                format!(
                    "precision = \"{name}\" on TensorRT {version}: it takes all types from the ONNX file and has no such flag"
                ),
                "leave `precision` out, or build with TensorRT 8.5 to 10",
            ),
        };
    }
    if quantized && matches!(precision, Precision::Fp32 | Precision::Fp16) {
        return refuse(
            format!(
                "precision = \"{name}\" of a model with Q/DQ pairs: TensorRT {version} reads them with INT8 enabled only"
            ),
            "use \"int8\", \"int8-fp32\" or \"best\", or build the float model",
        );
    }
    let pairs = of_pairs(version, precision, pairs)?;
    let flags = pairs.iter().chain(wishes(precision)).filter_map(|&wish| of(version, wish));
    Ok(flags.flatten().collect())
}

/// Those of `flags` that `more` does not have, with whatever value: trtexec refuses a flag that is given twice.
pub fn without(mut flags: Vec<String>, more: &[String]) -> Vec<String> {
    flags.retain(|flag| !names(more, flag));
    flags
}

/// What `tune` tries: lists of flags, the first what is built without it.
///
/// `more`: flags that the pipeline gives to all of them.
///
/// # Errors
/// A model that this version does not build.
pub fn candidates(version: Version, pairs: Pairs, more: &[String]) -> Result<Vec<Vec<String>>> {
    let quantized = pairs.any();
    let precisions: &[Precision] = match (version.major >= 11, quantized) {
        (true, _) => &[Precision::Fp32],
        (false, true) => &[Precision::Int8, Precision::Int8Fp32, Precision::Best],
        (false, false) => &[Precision::Fp32, Precision::Fp16],
    };
    let usual = precision(version, precisions[0], pairs)?;
    let others = precisions[1..].iter().filter_map(|&it| precision(version, it, pairs).ok());
    let lists = std::iter::once(usual).chain(others);
    let mut lists: Vec<Vec<String>> = lists.map(|flags| without(flags, more)).collect();
    // Since 8.6 the builder can be told to search longer; the default is 3.
    // Where the pipeline says how long, that holds.
    let longest = "--builderOptimizationLevel=5";
    if version >= Version::new(8, 6, 0) && !names(more, longest) {
        let mut longer = lists[0].clone();
        longer.push(longest.to_owned());
        lists.push(longer);
    }
    Ok(lists)
}

/// Whether a list of flags has the flag of `argument`, with whatever value.
pub fn names(list: &[String], argument: &str) -> bool {
    let name = |argument: &str| argument.split('=').next().map(str::to_owned);
    list.iter().any(|other| name(other) == name(argument))
}

/// `--minShapes=…`, `--optShapes=…` and `--maxShapes=…` of an input `[batch, C, H, W]` whose batch is free.
pub fn profile(input: &str, extents: [usize; 3], batches: [u32; 3]) -> Vec<String> {
    let shapes = ["min", "opt", "max"].iter().zip(batches);
    shapes
        .map(|(which, batch)| format!("--{which}Shapes={}", shape(input, extents, batch as usize)))
        .collect()
}

/// `--shapes=…` for a run of an engine whose batch is free.
pub fn shapes(input: &str, extents: [usize; 3], batch: usize) -> String {
    format!("--shapes={}", shape(input, extents, batch))
}

/// `--loadInputs=…` of a file in the folder where trtexec runs. The tensor's name stands in quotes, since there may be a colon in it.
pub fn inputs(input: &str, file: &str) -> String {
    format!("--loadInputs='{input}':{file}")
}

/// `input:8x3x224x224`; a name with a colon in it stands in single quotes.
fn shape(input: &str, [channels, height, width]: [usize; 3], batch: usize) -> String {
    let name = quoted(input);
    format!("{name}:{batch}x{channels}x{height}x{width}")
}

/// A tensor's name where trtexec expects `name:value`.
fn quoted(name: &str) -> String {
    if name.contains(':') { format!("'{name}'") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V85: Version = Version::new(8, 5, 3);
    const V86: Version = Version::new(8, 6, 1);
    const V10: Version = Version::new(10, 3, 0);
    const V11: Version = Version::new(11, 0, 0);
    const FLOAT: Pairs = Pairs { int8: false, float8: false, int4: false };
    const INT8: Pairs = Pairs { int8: true, ..FLOAT };
    const FLOAT8: Pairs = Pairs { float8: true, ..FLOAT };
    const INT4: Pairs = Pairs { int4: true, ..FLOAT };

    fn flags(version: Version, wish: Wish) -> String {
        of(version, wish).unwrap().join(" ")
    }

    #[test]
    fn each_version_is_asked_in_its_words() {
        assert_eq!(flags(V85, Wish::BuildOnly), "--buildOnly");
        assert_eq!(flags(V86, Wish::BuildOnly), "--skipInference");
        assert_eq!(flags(V10, Wish::CudaGraph), "--useCudaGraph");
        assert_eq!(flags(V11, Wish::CudaGraph), "");
        assert_eq!(flags(V11, Wish::NoCudaGraph), "--noCudaGraph");
        assert_eq!(flags(V10, Wish::Transfers), "");
        assert_eq!(flags(V11, Wish::Transfers), "--includeDataTransfers");
        assert_eq!(of(V11, Wish::Fp16), None);
    }

    #[test]
    fn precisions_of_quantized_models() {
        let of = |version, wanted| precision(version, wanted, INT8).map(|flags| flags.join(" "));
        assert_eq!(of(V85, Precision::Int8).unwrap(), "--int8 --fp16");
        assert_eq!(of(V10, Precision::Int8Fp32).unwrap(), "--int8");
        assert_eq!(of(V86, Precision::Best).unwrap(), "--best");
        assert_eq!(of(V11, Precision::Int8).unwrap(), "");
        for (version, wanted, word) in [
            (V85, Precision::Fp16, "INT8 enabled only"),
            (V11, Precision::Best, "types from the ONNX file"),
        ] {
            let error = of(version, wanted).unwrap_err();
            assert!(error.message.contains(word), "{error}");
            assert_eq!(error.key, Some("precision"));
        }
    }

    /// Which versions have them: `recorded/help-*.txt`.
    #[test]
    fn pairs_of_other_types_have_flags_of_their_own() {
        let of = |version, wanted, pairs| precision(version, wanted, pairs).map(|it| it.join(" "));
        assert_eq!(of(V86, Precision::Int8, FLOAT8).unwrap(), "--fp8 --fp16");
        assert_eq!(of(V10, Precision::Int8Fp32, FLOAT8).unwrap(), "--fp8");
        assert_eq!(of(V10, Precision::Int8, INT4).unwrap(), "--int4 --fp16");
        let both = Pairs { int8: true, ..INT4 };
        assert_eq!(of(V10, Precision::Int8, both).unwrap(), "--int8 --int4 --fp16");
        assert_eq!(of(V10, Precision::Best, both).unwrap(), "--int4 --best");
        assert_eq!(of(V11, Precision::Int8, FLOAT8).unwrap(), "");
        let lists = candidates(V10, FLOAT8, &[]).unwrap();
        let lists: Vec<String> = lists.iter().map(|flags| flags.join(" ")).collect();
        assert_eq!(lists, ["--fp8 --fp16", "--fp8", "--fp8 --fp16 --builderOptimizationLevel=5"]);

        let v10_0 = Version::new(10, 0, 1);
        for (version, wanted, pairs, words, key) in [
            (
                V85,
                Precision::Int8,
                FLOAT8,
                "float8 (--fp8), which TensorRT 8.5.3 does not have",
                "model",
            ),
            (
                v10_0,
                Precision::Int8,
                INT4,
                "int4 (--int4), which TensorRT 10.0.1 does not",
                "model",
            ),
            (
                V10,
                Precision::Int8,
                Pairs { int8: true, ..FLOAT8 },
                "--int8 and --fp8 together",
                "model",
            ),
            (V10, Precision::Best, FLOAT8, "does not take --fp8 beside --best", "precision"),
        ] {
            let error = of(version, wanted, pairs).unwrap_err();
            assert!(error.message.contains(words), "{error}");
            assert_eq!(error.key, Some(key));
        }
        assert!(candidates(V85, FLOAT8, &[]).unwrap_err().message.contains("does not have"));
    }

    #[test]
    fn a_float_model_is_not_given_made_up_ranges() {
        for wanted in [Precision::Int8, Precision::Int8Fp32, Precision::Best] {
            let error = precision(V85, wanted, FLOAT).unwrap_err();
            assert!(error.message.contains("without Q/DQ pairs"), "{error}");
        }
        assert_eq!(precision(V85, Precision::Fp16, FLOAT).unwrap(), ["--fp16"]);
        assert!(precision(V11, Precision::Fp32, FLOAT).unwrap().is_empty());
    }

    #[test]
    fn what_tensorrt_would_do_by_itself_is_asked_for_by_name() {
        assert_eq!(precision(V85, Precision::Implicit, FLOAT).unwrap(), ["--best"]);
        let pairs = precision(V85, Precision::Implicit, INT8).unwrap_err();
        assert!(pairs.message.contains("with Q/DQ pairs"), "{pairs}");
        let gone = precision(V11, Precision::Implicit, FLOAT).unwrap_err();
        assert!(gone.message.contains("11.0.0"), "{gone}");
    }

    #[test]
    fn tuning_tries_what_the_version_has() {
        let of = |version, pairs| -> Vec<String> {
            let lists = candidates(version, pairs, &[]).unwrap();
            lists.iter().map(|flags| flags.join(" ")).collect()
        };
        assert_eq!(of(V85, INT8), ["--int8 --fp16", "--int8", "--best"]);
        assert_eq!(of(V85, FLOAT), ["", "--fp16"]);
        assert_eq!(of(V10, INT8).last().unwrap(), "--int8 --fp16 --builderOptimizationLevel=5");
        assert_eq!(of(V11, INT8), ["", "--builderOptimizationLevel=5"]);
        // What the pipeline says holds for all.
        let said = ["--builderOptimizationLevel=4".to_owned()];
        assert_eq!(candidates(V11, INT8, &said).unwrap(), [Vec::<String>::new()]);
        let said = ["--int4".to_owned()];
        assert_eq!(candidates(V10, INT4, &said).unwrap()[0], ["--fp16"]);
        assert!(names(&said, "--int4=x") && !names(&said, "--int") && !names(&[], "--fp16"));
    }

    #[test]
    fn shapes_of_a_profile() {
        let flags = profile("input", [3, 224, 224], [1, 8, 32]);
        assert_eq!(flags[0], "--minShapes=input:1x3x224x224");
        assert_eq!(flags[2], "--maxShapes=input:32x3x224x224");
        assert_eq!(inputs("onnx::in:0", "0-input.raw"), "--loadInputs='onnx::in:0':0-input.raw");
        assert_eq!(shapes("onnx::in:0", [1, 2, 3], 4), "--shapes='onnx::in:0':4x1x2x3");
    }
}
