//! A model on ONNX Runtime whose inner values are seen: the file as it stands, or what the runtime made of it.

use std::path::Path;

use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionOutputs};
use ort::value::TensorRef;

use super::onnxruntime::{refused, session};
use super::{Note, Threads};
use crate::graph::{DType, Graph, Model, Node, ValueInfo};
use crate::{Error, Result, onnx};

/// A value of a run: its name in the exported model, shape and elements row by row.
pub struct Value {
    /// Name in the exported model.
    pub name: String,
    /// Extents.
    pub shape: Vec<i64>,
    /// Elements.
    pub elements: Vec<f32>,
}

/// A session that gives inner values.
pub struct Tapped {
    session: Session,
    input: String,
    taps: Vec<Tap>,
}

/// A value of the session's model, and what it is in the exported one.
#[derive(Clone, Debug, PartialEq)]
struct Tap {
    /// Its name in the session's model.
    own: String,
    /// Name of the value that it stands for.
    name: String,
    /// Of integers: scale and zero point.
    quantized: Option<Quantized>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Quantized {
    dtype: DType,
    scale: f32,
    zero_point: i32,
}

impl Tapped {
    /// `model` without any optimization, each node by itself; the float values `names` are seen. A file of it is made in `folder`.
    ///
    /// # Errors
    /// What the runtime refuses.
    pub fn unfused(model: &Model, names: &[String], folder: &Path, threads: usize) -> Result<Self> {
        let tap = |name: &String| Tap { own: name.clone(), name: name.clone(), quantized: None };
        let input = model.graph.inputs.first().map(|input| input.name.clone()).unwrap_or_default();
        Self::load(model.clone(), input, names.iter().map(tap).collect(), folder, threads)
    }

    /// The engine in `engine`, built from the file `exported`: what its integer kernels give is seen. Float values keep neither name nor
    /// layout there. `None`: nothing is seen, a float engine.
    ///
    /// # Errors
    /// An engine that is gone; what the runtime refuses.
    pub fn fused(
        engine: &Path,
        note: &Note,
        exported: &Model,
        folder: &Path,
        threads: usize,
    ) -> Result<Option<Self>> {
        let optimized = onnx::read(&engine.join(&note.file))?;
        let taps = taps(&optimized.graph, &exported.graph);
        if taps.is_empty() {
            return Ok(None);
        }
        Self::load(optimized, note.input_name.clone(), taps, folder, threads).map(Some)
    }

    fn load(
        mut shown: Model,
        input: String,
        taps: Vec<Tap>,
        folder: &Path,
        threads: usize,
    ) -> Result<Self> {
        for tap in taps.iter().filter(|tap| !shown.graph.is_output(&tap.own)).collect::<Vec<_>>() {
            let dtype = tap.quantized.map_or(DType::F32, |quantized| quantized.dtype);
            let name = tap.own.clone();
            shown.graph.outputs.push(ValueInfo {
                name,
                dtype: Some(dtype),
                shape: None,
                opaque: None,
            });
        }
        let file = tempfile::Builder::new().suffix(".onnx").tempfile_in(folder);
        let path = file.map_err(|error| Error::io(folder, &error))?.into_temp_path();
        onnx::write_one_file(&shown, &path)?;
        let mut builder = session(&Threads::Free(threads), GraphOptimizationLevel::Disable)?;
        let session = builder
            .commit_from_file(&path)
            .map_err(|error| refused("cannot load the model with its inner values", error))?;
        Ok(Self { session, input, taps })
    }

    /// Runs images of `shape`; the values that are seen.
    ///
    /// # Errors
    /// What the runtime refuses.
    pub fn run(&mut self, images: &[f32], shape: &[i64]) -> Result<Vec<Value>> {
        let tensor = TensorRef::from_array_view((shape, images))
            .map_err(|error| refused("refuses the images", error))?;
        let inputs = ort::inputs![self.input.as_str() => tensor];
        let outputs =
            self.session.run(inputs).map_err(|error| refused("cannot run the model", error))?;
        self.taps.iter().map(|tap| tap.value(&outputs)).collect()
    }
}

impl Tap {
    fn value(&self, outputs: &SessionOutputs) -> Result<Value> {
        let output = &outputs[self.own.as_str()];
        let wrong = |error| refused("gave values of another type", error);
        let (shape, elements) = match self.quantized {
            None => {
                let (shape, values) = output.try_extract_tensor::<f32>().map_err(wrong)?;
                (shape.to_vec(), values.to_vec())
            }
            Some(Quantized { dtype, scale, zero_point }) => {
                let real = |integer: i32| (integer - zero_point) as f32 * scale;
                if dtype == DType::I8 {
                    let (shape, values) = output.try_extract_tensor::<i8>().map_err(wrong)?;
                    (shape.to_vec(), values.iter().map(|&value| real(value.into())).collect())
                } else {
                    let (shape, values) = output.try_extract_tensor::<u8>().map_err(wrong)?;
                    (shape.to_vec(), values.iter().map(|&value| real(value.into())).collect())
                }
            }
        };
        let name = self.name.clone();
        Ok(Value { name, shape, elements })
    }
}

/// The integer values of the runtime's graph, and what they are in the exported one: a fused node keeps the name of the layer that it
/// began with, and gives what the QuantizeLinear behind that layer gives.
fn taps(optimized: &Graph, exported: &Graph) -> Vec<Tap> {
    // Names of nodes are optional, and need not be unique.
    let by_name = |name: &str| {
        let mut named = exported.nodes.iter().enumerate().filter(|(_, node)| node.name == name);
        let (index, _) = named.next()?;
        (!name.is_empty() && named.next().is_none()).then_some(index)
    };
    let fused = optimized.nodes.iter().filter(|node| node.op_type.starts_with("QLinear"));
    let tap = |node: &Node| {
        let layer = by_name(&node.name).or_else(|| by_name(layer_name(&node.name)));
        // A fused node may also give the very value that a QuantizeLinear gave.
        let same = |quantize: &&Node| quantize.outputs == node.outputs;
        let quantizers = || exported.nodes.iter().filter(|node| node.op_type == "QuantizeLinear");
        let quantize = match layer {
            Some(layer) => quantizer(exported, layer)?,
            None => quantizers().find(same)?,
        };
        let real = dequantized(exported, quantize)?;
        Some(Tap {
            own: node.outputs.first()?.clone(),
            name: real.to_owned(),
            quantized: Some(written(optimized, node).or_else(|| quantized(exported, quantize))?),
        })
    };
    fused.filter_map(tap).collect()
}

/// The name that a fused node was given one of its own after: `conv1_token_3` is of `conv1`.
fn layer_name(name: &str) -> &str {
    match name.rsplit_once("_token_") {
        Some((layer, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => layer,
        _ => name,
    }
}

/// What may stand between a layer and the QuantizeLinear of its kernel's output, by element. ONNX Runtime also moves a QuantizeLinear in
/// front of a Transpose or a Reshape (`qdq_propagation`): what the kernel gives then has another order than the value behind it.
const BY_ELEMENT: &[&str] =
    &["Add", "Clip", "Dropout", "HardSigmoid", "Identity", "LeakyRelu", "Relu", "Sigmoid", "Tanh"];

/// The QuantizeLinear that a layer's output goes to, itself or through nodes of [`BY_ELEMENT`] that alone read it.
fn quantizer(graph: &Graph, layer: usize) -> Option<&Node> {
    let consumers = graph.consumers();
    let mut output = graph.nodes[layer].outputs.first()?;
    for _ in 0..graph.nodes.len() {
        let &[reader] = consumers.get(output.as_str())?.as_slice() else { return None };
        let reader = &graph.nodes[reader];
        if reader.op_type == "QuantizeLinear" {
            return Some(reader);
        }
        if !BY_ELEMENT.contains(&&*reader.op_type) {
            return None;
        }
        output = reader.outputs.first()?;
    }
    None
}

fn dequantized<'a>(graph: &'a Graph, quantize: &Node) -> Option<&'a str> {
    let integers = quantize.outputs.first()?;
    let reads =
        |node: &&Node| node.op_type == "DequantizeLinear" && node.input(0) == Some(integers);
    Some(graph.nodes.iter().find(reads)?.outputs.first()?)
}

/// Scale and zero point of a QuantizeLinear of a whole tensor to 8 bits.
fn quantized(graph: &Graph, quantize: &Node) -> Option<Quantized> {
    of_initializers(graph, quantize, 1)
}

/// What a fused node writes. The runtime may have made uint8 of the file's int8, its zero point 128 more.
fn written(optimized: &Graph, node: &Node) -> Option<Quantized> {
    let scale = match &*node.op_type {
        "QLinearConcat" => 0,
        "QLinearAveragePool"
        | "QLinearGlobalAveragePool"
        | "QLinearLeakyRelu"
        | "QLinearReduceMean"
        | "QLinearSigmoid"
        | "QLinearSoftmax" => 3,
        "QLinearAdd" | "QLinearConv" | "QLinearMatMul" | "QLinearMul" => 6,
        "QLinearWhere" => 7,
        _ => return None,
    };
    of_initializers(optimized, node, scale)
}

/// The scale that is a node's input `scale`, and the zero point that follows it.
fn of_initializers(graph: &Graph, node: &Node, scale: usize) -> Option<Quantized> {
    let zero_point = graph.initializers.get(node.input(scale + 1)?)?;
    let &[scale] = graph.initializers.get(node.input(scale)?)?.to_f32().ok()?.as_slice() else {
        return None;
    };
    let &[zero] = zero_point.whole_numbers()?.as_slice() else { return None };
    let dtype = zero_point.dtype;
    let zero_point = i32::try_from(zero).ok()?;
    matches!(dtype, DType::I8 | DType::U8).then_some(Quantized { dtype, scale, zero_point })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::TensorData;

    /// A product whose output goes through an operator to a QuantizeLinear.
    fn behind(op_type: &str) -> Option<String> {
        let graph = Graph {
            nodes: vec![
                Node::new("product", "MatMul", &["x", "w"], &["p"]),
                Node::new("between", op_type, &["p"], &["b"]),
                Node::new("q", "QuantizeLinear", &["b", "s", "z"], &["integers"]),
            ],
            ..Graph::default()
        };
        quantizer(&graph, 0).map(|node| node.name.clone())
    }

    /// ONNX Runtime makes uint8 of int8 activations, at the same scale.
    #[test]
    fn an_integer_kernel_gives_the_type_that_the_runtime_made_of_it() {
        let mut exported = Graph {
            nodes: vec![
                Node::new("layer", "Conv", &["x", "w"], &["y"]),
                Node::new("q", "QuantizeLinear", &["y", "s", "z"], &["integers"]),
                Node::new("d", "DequantizeLinear", &["integers", "s", "z"], &["real"]),
            ],
            ..Graph::default()
        };
        let mut optimized = Graph {
            nodes: vec![Node::new(
                "layer",
                "QLinearConv",
                &["x", "xs", "xz", "w", "ws", "wz", "s", "z"],
                &["own"],
            )],
            ..Graph::default()
        };
        for graph in [&mut exported, &mut optimized] {
            graph.initializers.insert("s".to_owned(), TensorData::f32(&[], &[0.5]));
        }
        exported.initializers.insert("z".to_owned(), TensorData::i8(&[], &[-3]));
        optimized.initializers.insert("z".to_owned(), TensorData::u8(&[], &[125]));
        let [tap] = &taps(&optimized, &exported)[..] else { panic!("one value is seen") };
        assert_eq!((tap.own.as_str(), tap.name.as_str()), ("own", "real"));
        let quantized = Quantized { dtype: DType::U8, scale: 0.5, zero_point: 125 };
        assert_eq!(tap.quantized, Some(quantized));
    }

    /// As onnxruntime's own preparation leaves them where it takes a function apart: the first of them was taken for each.
    #[test]
    fn nodes_without_a_name_are_not_taken_for_one_another() {
        let names = |graph: &Graph| -> Vec<String> {
            let fused =
                Node::new("", "QLinearMul", &["x", "xs", "xz", "w", "ws", "wz", "s", "z"], &["q2"]);
            let optimized = Graph {
                nodes: vec![fused],
                initializers: graph.initializers.clone(),
                ..Graph::default()
            };
            taps(&optimized, graph).into_iter().map(|tap| tap.name).collect()
        };
        let mut graph = Graph::default();
        for (op_type, number) in [("HardSigmoid", 1), ("Mul", 2)] {
            let value = |name: &str| format!("{name}{number}");
            let [y, q, real] = ["y", "q", "real"].map(value);
            graph.nodes.push(Node::new("", op_type, &["x"], &[&y]));
            graph.nodes.push(Node::new("", "QuantizeLinear", &[&y, "s", "z"], &[&q]));
            graph.nodes.push(Node::new("", "DequantizeLinear", &[&q, "s", "z"], &[&real]));
        }
        graph.initializers.insert("s".to_owned(), TensorData::f32(&[], &[0.5]));
        graph.initializers.insert("z".to_owned(), TensorData::u8(&[], &[3]));
        assert_eq!(names(&graph), ["real2"]);
        // A value of another name may be any of them.
        graph.nodes[4].outputs[0] = "other".to_owned();
        graph.nodes[5].inputs[0] = "other".to_owned();
        assert!(names(&graph).is_empty());
    }

    #[test]
    fn an_integer_kernel_gives_what_stands_in_another_order_behind_a_transpose() {
        assert_eq!(behind("Relu").as_deref(), Some("q"));
        // ONNX Runtime moves the QuantizeLinear in front of these.
        for op_type in ["Transpose", "Reshape", "Squeeze", "MaxPool"] {
            assert_eq!(behind(op_type), None, "{op_type}");
        }
    }
}
