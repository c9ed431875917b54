//! Pairs written as operators of TensorRT's or ONNX Runtime's own, made into the standard's.
//!
//! NVIDIA's quantizer writes them for opsets that have no float8 (before 19) and no int4 or blocks (before 21): `TRT_FP8QuantizeLinear`,
//! `TRT_FP8DequantizeLinear` and the same with `INT4`; with `axis`, `block_size` and inputs as the standard's, but the type is that of
//! the name, and a zero point is left out. Behind a `TRT_FP8QuantizeLinear` values are float8e4m3fn, although files call them uint8.
//! <https://github.com/onnx/onnx-tensorrt/blob/main/onnxOpImporters.cpp> reads all of them with one function.
//!
//! onnxruntime's quantizer writes QuantizeLinear and DequantizeLinear of the domain `com.microsoft` for types of 16 and 4 bits before opset 21, and for all where
//! `UseQDQContribOps` asks for it; they mean what the standard's do
//! (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QuantizeLinear>).

use super::opset::is_of_16_bits;
use super::{OPSET_OF_BLOCKS, least_opset, opset_of, raise_opset};
use crate::graph::{Attribute, DType, Graph, Model, Node, TensorData};

/// Domains in which files have them; TensorRT's parser goes by the name alone.
const DOMAINS: [&str; 3] = ["trt", "trt.plugins", ""];

/// That of ONNX Runtime's.
const MICROSOFT: &str = "com.microsoft";

/// Their names, what they are in the standard, and the type; `None`: that of the stored values.
const OPERATORS: [(&str, &str, Option<DType>); 6] = [
    ("TRT_FP8QuantizeLinear", "QuantizeLinear", Some(DType::F8E4M3FN)),
    ("TRT_FP8DequantizeLinear", "DequantizeLinear", Some(DType::F8E4M3FN)),
    ("TRT_INT4QuantizeLinear", "QuantizeLinear", Some(DType::I4)),
    ("TRT_INT4DequantizeLinear", "DequantizeLinear", Some(DType::I4)),
    ("QuantizeLinear", "QuantizeLinear", None),
    ("DequantizeLinear", "DequantizeLinear", None),
];

/// `axis` and `block_size`.
type Blocks = [(&'static str, i64); 2];

/// What a node is in the standard, and the type of the stored values, where its operator is one of TensorRT's or ONNX Runtime's.
fn standard(node: &Node) -> Option<(&'static str, Option<DType>)> {
    let known = DOMAINS.contains(&node.domain.as_str()) || node.domain == MICROSOFT;
    let row = OPERATORS.iter().find(|row| known && row.0 == node.op_type)?;
    let own = !node.domain.is_empty() || row.0 != row.1;
    own.then_some((row.1, row.2))
}

/// Whether a node is one half of such a pair of TensorRT's.
pub fn is_tensorrt_pair(node: &Node) -> bool {
    node.domain != MICROSOFT && standard(node).is_some()
}

/// Makes the standard's QuantizeLinear and DequantizeLinear of such pairs, with a zero point of their type. The model gets an opset that has their
/// types, unless an operator of it means something else there. Returns how many nodes there were.
pub fn to_standard_pairs(model: &mut Model) -> usize {
    let graph = &model.graph;
    let pairs: Vec<usize> =
        (0..graph.nodes.len()).filter(|&index| standard(&graph.nodes[index]).is_some()).collect();
    if pairs.is_empty() {
        return 0;
    }
    // While both nodes of a pair have their names.
    let blocks: Vec<_> =
        pairs.iter().map(|&index| block_attributes(graph, &graph.nodes[index])).collect();
    // Before the nodes are the standard's, which has no such types and attributes in its older opsets.
    let mut raised = model.clone();
    for &index in &pairs {
        DOMAINS[0].clone_into(&mut raised.graph.nodes[index].domain);
    }
    if raise_opset(&mut raised, wanted_opset(graph, &pairs, &blocks)).is_ok() {
        *model = raised;
    }
    let graph = &mut model.graph;
    for (&index, blocks) in pairs.iter().zip(blocks) {
        let Some((op_type, dtype)) = standard(&graph.nodes[index]) else { continue };
        if let Some(dtype) = dtype {
            if graph.nodes[index].input(2).is_none() {
                let zero = zero_point(graph, index, dtype);
                let inputs = &mut graph.nodes[index].inputs;
                inputs.truncate(2);
                inputs.push(zero);
            }
            name_type(graph, index, dtype);
        }
        let node = &mut graph.nodes[index];
        op_type.clone_into(&mut node.op_type);
        node.domain.clear();
        for (name, value) in blocks.into_iter().flatten() {
            node.attributes.insert(name.to_owned(), Attribute::Int(value));
        }
    }
    let used = |domain: &str| model.graph.nodes.iter().any(|node| node.domain == domain);
    model.opsets.retain(|set| !set.domain.starts_with("trt") || used(&set.domain));
    pairs.len()
}

/// The opset whose QuantizeLinear and DequantizeLinear have the types and blocks of these nodes.
fn wanted_opset(graph: &Graph, pairs: &[usize], blocks: &[Option<Blocks>]) -> i64 {
    let nodes = || pairs.iter().map(|&index| &graph.nodes[index]);
    let blocked = blocks.iter().any(Option::is_some)
        || nodes().any(|node| node.int("block_size", 0).is_ok_and(|size| size != 0));
    let types = nodes().filter_map(|node| standard(node)?.1).map(opset_of).max().unwrap_or(1);
    let stored = least_opset(graph).unwrap_or(1);
    let wide = nodes().any(|node| is_of_16_bits(graph, node));
    types.max(stored).max(if blocked || wide { OPSET_OF_BLOCKS } else { 1 })
}

/// Says of what lies between the nodes of a pair that it is of their type, whatever the file calls it.
fn name_type(graph: &mut Graph, index: usize, dtype: DType) {
    let node = &graph.nodes[index];
    let dequantizes = node.op_type.ends_with("DequantizeLinear");
    let Some(name) =
        (if dequantizes { node.inputs.first() } else { node.outputs.first() }).cloned()
    else {
        return;
    };
    let infos = graph.value_infos.iter_mut().chain(&mut graph.outputs);
    infos.filter(|info| info.name == name).for_each(|info| info.dtype = Some(dtype));
    if let Some(data) = graph.initializers.get_mut(&name)
        && data.dtype.bits() == dtype.bits()
    {
        data.dtype = dtype;
    }
}

/// The constant of that name: an initializer, or what a `Constant` node holds.
fn constant<'a>(graph: &'a Graph, name: &str) -> Option<&'a TensorData> {
    let held = || {
        let node = graph
            .nodes
            .iter()
            .find(|node| node.is_constant() && node.outputs.iter().any(|output| output == name))?;
        node.tensor("value").ok()?
    };
    graph.initializers.get(name).or_else(held)
}

/// Name of a zero point of the shape of a node's scale.
fn zero_point(graph: &mut Graph, index: usize, dtype: DType) -> String {
    let scale = graph.nodes[index].input(1).and_then(|name| constant(graph, name));
    let (shape, count) = scale.map_or((Vec::new(), 1), |data| (data.shape.clone(), data.len()));
    let bytes = vec![0; dtype.byte_count(count).unwrap_or(0)];
    let name = graph.fresh_name(&format!("{}_zero_point", graph.nodes[index].label()));
    graph.initializers.insert(name.clone(), TensorData { dtype, shape, bytes: bytes.into() });
    name
}

/// The attributes of blocks where shapes alone say them: a scale of the value's rank, smaller along one axis.
fn block_attributes(graph: &Graph, node: &Node) -> Option<Blocks> {
    if node.attributes.contains_key("block_size") {
        return None;
    }
    let blocks = &constant(graph, node.input(1)?)?.shape;
    if blocks.len() < 2 {
        return None;
    }
    let mut value = node.input(0)?;
    // The weight itself may stand before the other node of the pair.
    if let Some(quantize) =
        graph.nodes.iter().find(|other| other.outputs.iter().any(|output| output == value))
        && quantize.op_type.ends_with("QuantizeLinear")
    {
        value = quantize.input(0)?;
    }
    let shape = &constant(graph, value)?.shape;
    if shape.len() != blocks.len() {
        return None;
    }
    let axis = (0..shape.len()).find(|&axis| shape[axis] != blocks[axis])?;
    let size = shape[axis].checked_div(blocks[axis])?;
    Some([("axis", axis as i64), ("block_size", size)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{OperatorSet, ValueInfo};
    use crate::interp::{Mode, Options, Program};

    fn model(nodes: Vec<Node>, initializers: Vec<(&str, TensorData)>) -> Model {
        let value = |name: &str| ValueInfo { shape: None, ..ValueInfo::f32(name, Vec::new()) };
        let graph = Graph {
            nodes,
            inputs: vec![value("x")],
            outputs: vec![value("y")],
            initializers: initializers.into_iter().map(|(n, d)| (n.to_owned(), d)).collect(),
            value_infos: vec![ValueInfo { dtype: Some(DType::U8), ..value("q") }],
            ..Graph::default()
        };
        let mut model = Model::new(graph, 17);
        model.opsets.push(OperatorSet { domain: "trt".to_owned(), version: 1 });
        model
    }

    fn trt(op: &str, inputs: &[&str], output: &str) -> Node {
        Node { domain: "trt".to_owned(), ..Node::new(output, op, inputs, &[output]) }
    }

    fn run(model: &Model, x: &[f32]) -> Vec<f32> {
        let mut program = Program::compile(model, &Options::default()).unwrap();
        let x = tch::Tensor::from_slice(x);
        let made = program.forward(&[x], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0);
        Vec::<f32>::try_from(made.reshape([-1])).unwrap()
    }

    #[test]
    fn pairs_of_float8_are_those_of_the_standard() {
        let mut model = model(
            vec![
                trt("TRT_FP8QuantizeLinear", &["x", "s"], "q"),
                trt("TRT_FP8DequantizeLinear", &["q", "s"], "y"),
            ],
            vec![("s", TensorData::f32(&[], &[0.5]))],
        );
        assert_eq!(to_standard_pairs(&mut model), 2);
        let names: Vec<(&str, &str)> = model
            .graph
            .nodes
            .iter()
            .map(|node| (node.domain.as_str(), node.op_type.as_str()))
            .collect();
        assert_eq!(names, [("", "QuantizeLinear"), ("", "DequantizeLinear")]);
        assert_eq!((model.opset(), model.opsets.len()), (19, 1));
        assert_eq!(model.graph.value_infos[0].dtype, Some(DType::F8E4M3FN));
        // 3 bits of mantissa: between 8 and 16 halves the step is 1 half, and 448 halves are the most.
        assert_eq!(run(&model, &[4.2, 0.3, 1000.0, -7.8]), [4.0, 0.3125, 224.0, -8.0]);
        assert_eq!(to_standard_pairs(&mut model), 0);
    }

    /// As onnxruntime writes activations of 16 bits before opset 21.
    #[test]
    fn pairs_of_onnxruntime_are_those_of_the_standard() {
        let microsoft = |op: &str, input: &str, output: &str| Node {
            domain: "com.microsoft".to_owned(),
            ..Node::new(output, op, &[input, "s", "z"], &[output])
        };
        let zero = TensorData {
            dtype: DType::U16,
            shape: Vec::new(),
            bytes: 1000_u16.to_le_bytes().to_vec().into(),
        };
        let mut model = model(
            vec![microsoft("QuantizeLinear", "x", "q"), microsoft("DequantizeLinear", "q", "y")],
            vec![("s", TensorData::f32(&[], &[0.5])), ("z", zero)],
        );
        model.graph.value_infos[0].dtype = Some(DType::U16);
        assert!(!is_tensorrt_pair(&model.graph.nodes[0]));
        assert_eq!(to_standard_pairs(&mut model), 2);
        assert!(model.graph.nodes.iter().all(|node| node.domain.is_empty()));
        assert_eq!(model.opset(), 21);
        assert_eq!(run(&model, &[4.2, -1000.0, 40000.0]), [4.0, -500.0, 32267.5]);
    }

    #[test]
    fn blocks_of_int4_follow_from_the_shapes() {
        // Elements of 4 bits, the first in the lowest: 1 to 4 and -1 to -4.
        let weight = TensorData {
            dtype: DType::I4,
            shape: vec![4, 2],
            bytes: vec![0x21, 0x43, 0xEF, 0xCD].into(),
        };
        let scale = TensorData::f32(&[2, 2], &[1.0, 10.0, 0.5, 5.0]);
        let add = Node::new("y", "Add", &["x", "w"], &["y"]);
        for (op, domain) in [
            ("TRT_INT4DequantizeLinear", "trt"),
            ("TRT_INT4DequantizeLinear", ""),
            ("DequantizeLinear", "trt"),
        ] {
            let mut dequantize = trt(op, &["stored", "s"], "w");
            domain.clone_into(&mut dequantize.domain);
            let mut model = model(
                vec![dequantize, add.clone()],
                vec![("stored", weight.clone()), ("s", scale.clone())],
            );
            assert_eq!(to_standard_pairs(&mut model), 1);
            assert_eq!(model.opset(), 21);
            assert_eq!(run(&model, &[0.0]), [1.0, 20.0, 3.0, 40.0, -0.5, -10.0, -1.5, -20.0]);
        }
    }
}
