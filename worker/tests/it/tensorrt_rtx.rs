//! A real TensorRT-RTX engine from a Q/DQ graph, built without a GPU. Needs `make deps-tensorrt-rtx`.

mod draft;
mod graphs;
mod rules;
mod verdict;

use std::path::Path;

use qpipe::stages::build_engine::{Backend, Precision};
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::engine::{self, Build};
use qpipe_worker::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::{onnx, passes};

/// A convolution with Q/DQ pairs as the placement `tensorrt` writes them; `zero_point` of its input.
fn model(zero_point: TensorData) -> Model {
    let pair = |x: &str, scale: &str, zero: &str| {
        let (q, dq) = (format!("{x}_q"), format!("{x}_dq"));
        [
            Node::new(&q, "QuantizeLinear", &[x, scale, zero], &[&q]),
            Node::new(&dq, "DequantizeLinear", &[&q, scale, zero], &[&dq]),
        ]
    };
    let mut nodes: Vec<Node> = pair("x", "sx", "zx").into();
    let weight = pair("w", "sw", "zw").map(|node| node.with("axis", Attribute::Int(0)));
    nodes.extend(weight);
    nodes.push(Node::new("conv", "Conv", &["x_dq", "w_dq"], &["c"]));
    nodes.push(Node::new("pool", "GlobalAveragePool", &["c"], &["p"]));
    nodes.push(Node::new("flatten", "Flatten", &["p"], &["y"]));
    let weights: Vec<f32> = (0..8 * 4 * 9).map(|i| (i as f32 * 0.37).sin()).collect();
    let dims = |extents: &[i64]| extents.iter().map(|&extent| Dim::Fixed(extent)).collect();
    let graph = Graph {
        nodes,
        inputs: vec![ValueInfo::f32("x", dims(&[2, 4, 16, 16]))],
        outputs: vec![ValueInfo::f32("y", dims(&[2, 8]))],
        initializers: [
            ("w", TensorData::f32(&[8, 4, 3, 3], &weights)),
            ("sx", TensorData::f32(&[], &[0.02])),
            ("zx", zero_point),
            ("sw", TensorData::f32(&[8], &[1.0 / 127.0; 8])),
            ("zw", TensorData::i8(&[8], &[0; 8])),
        ]
        .map(|(name, data)| (name.to_owned(), data))
        .into(),
        ..Graph::default()
    };
    Model::new(graph, 17)
}

fn build(model: &Model, folder: &Path) -> qpipe_worker::Result<Vec<engine::Layer>> {
    build_in(None, model, folder)
}

/// With float parts as asked for, on the RTX 40 series.
fn build_in(
    precision: Option<Precision>,
    model: &Model,
    folder: &Path,
) -> qpipe_worker::Result<Vec<engine::Layer>> {
    build_for(89, precision, model, folder)
}

fn build_for(
    capability: u32,
    precision: Option<Precision>,
    model: &Model,
    folder: &Path,
) -> qpipe_worker::Result<Vec<engine::Layer>> {
    let path = folder.join("model.onnx");
    onnx::write(model, &path)?;
    let request = Build {
        path: &path,
        model,
        folder,
        batch: 2,
        compute_capability: Some(capability),
        threads: 2,
        precision,
        saturate: false,
        tensorrt: Default::default(),
        tell: &|_| (),
    };
    Ok(engine::build(Backend::TensorrtRtx, &request)?.layers)
}

#[test]
fn a_convolution_computes_in_int8() {
    let folder = tempfile::tempdir().unwrap();
    let layers = build(&model(TensorData::i8(&[], &[0])), folder.path()).unwrap();
    let conv = layers.iter().find(|layer| layer.kind == "correlation");
    assert_eq!(conv.map(|layer| layer.precision.as_str()), Some("int8"), "{layers:?}");
    assert!(std::fs::metadata(folder.path().join("model.engine")).unwrap().len() > 1000);
    // Where there is a GPU that it was built for, it runs; elsewhere the reason is told.
    match engine::load(folder.path(), &engine::Threads::Free(1)) {
        Ok((note, mut engine)) => {
            let batch = note.batch.unwrap_or(1);
            let images = vec![0.5; batch * note.input.iter().product::<usize>()];
            let outputs = engine.run(&images, batch).unwrap();
            assert!(!outputs[0].is_empty() && outputs[0].iter().all(|value| value.is_finite()));
        }
        Err(error) => {
            assert!(error.message.starts_with("TensorRT-RTX"), "{error}");
            let help = error.help.unwrap();
            assert!(help.contains("of the compute capability that it was built for"), "{help}");
        }
    }
}

/// A whole network whose float part was cast: TensorRT takes the file, the convolutions are INT8, and nothing but the borders is FP32.
#[test]
fn what_is_not_int8_is_float16_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = crate::quant::dataset(folder.path(), 28);
    let mut model = crate::verify::quantized(&dataset, Target::Tensorrt);
    qpipe_worker::quant::finalize::finalize(&mut model, None).unwrap();
    passes::set_batch(&mut model, Some(2)).unwrap();
    model.graph.outputs[0].shape = Some(vec![Dim::Fixed(2), Dim::Fixed(10)]);
    let convolutions = model.graph.nodes.iter().filter(|node| node.op_type == "Conv").count();
    let count = |layers: &[engine::Layer], kind: &str, precision: &str| {
        let of = layers.iter().filter(|layer| layer.precision == precision);
        of.filter(|layer| kind.is_empty() || layer.kind == kind).count()
    };
    let mixed = build_in(None, &model, folder.path()).unwrap();
    let half = build_in(Some(Precision::Int8), &model, folder.path()).unwrap();
    for layers in [&mixed, &half] {
        assert_eq!(count(layers, "correlation", "int8"), convolutions, "{layers:#?}");
    }
    assert_eq!(count(&mixed, "", "float16"), 0);
    assert!(count(&half, "", "float16") > 0, "{half:#?}");
    let mut float = crate::quant::small_resnet();
    passes::fold_batch_norm(&mut float).unwrap();
    passes::set_batch(&mut float, Some(2)).unwrap();
    float.graph.outputs[0].shape = Some(vec![Dim::Fixed(2), Dim::Fixed(10)]);
    let half = build_in(Some(Precision::Fp16), &float, folder.path()).unwrap();
    assert_eq!(count(&half, "correlation", "float16"), convolutions, "{half:#?}");
    assert!(!folder.path().join("float16.onnx").exists());
}

#[test]
fn a_zero_point_is_refused_in_tensorrts_words() {
    let folder = tempfile::tempdir().unwrap();
    let error = build(&model(TensorData::u8(&[], &[128])), folder.path()).unwrap_err();
    assert!(error.message.starts_with("TensorRT-RTX cannot"), "{error}");
    assert!(error.help.unwrap_or_default().contains("target = \"tensorrt-rtx\""));
    assert!(!folder.path().join("engine.json").exists());
}
