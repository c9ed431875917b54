//! A first convolution of stride 2 in blocks of 2×2 pixels: the same integers in the same sums, from runs of bytes that are four times as long.
//!
//! ONNX Runtime's integer convolution gathers what each output reads by copies of one pixel's channels, one for each element of the kernel: of RGB images
//! 49 copies of 3 bytes in a 7×7 kernel. Where its products are fast (VNNI) these copies are most of a first layer. With the 2×2 pixels of a block as channels
//! ([`SpaceToDepth`](https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html) of the quantized image) the kernel is 4×4, its stride 1, and there are 16 copies of
//! 12 bytes. Elements that are new in the kernel are zeros. docs/placement.md has what it gains.

use std::collections::HashMap;

use crate::graph::{Attribute, DType, Dim, Graph, Model, Node, TensorData};

/// Side of a block, which is the stride that it replaces.
const BLOCK: i64 = 2;

/// Channels up to which a copy is short.
const FEW_CHANNELS: i64 = 4;

/// Elements of a kernel from which on its copies cost more than the blocks do. Smaller ones were not measured.
const LARGE_KERNEL: i64 = 9;

/// ONNX Runtime's kernel of `SpaceToDepth` for uint8 is of this opset.
const OPSET: i64 = 13;

/// The model with its first convolutions in blocks; `None` where there is none of stride 2 and few channels.
pub(super) fn in_blocks(model: &Model) -> Option<Model> {
    let stems = |graph: &Graph| -> Vec<Stem> {
        (0..graph.nodes.len()).filter_map(|index| Stem::of(graph, index)).collect()
    };
    let stems = (model.opset() >= OPSET).then(|| stems(&model.graph))?;
    (!stems.is_empty()).then(|| {
        let mut model = model.clone();
        // From behind, so that indices in front stay what they are.
        let read: Vec<_> =
            stems.into_iter().rev().flat_map(|stem| stem.rewrite(&mut model.graph)).collect();
        for value in read {
            drop_unread(&mut model.graph, &value);
        }
        model
    })
}

/// A convolution of a quantized image that can be computed in blocks.
struct Stem {
    /// Index of the convolution, and of the nodes that dequantize its input and its weight.
    conv: usize,
    values: usize,
    weight: usize,
    /// The kernel in blocks, `[M, 4 C, rows, columns]`.
    kernel: TensorData,
    /// Of the convolution in blocks.
    pads: [i64; 4],
}

impl Stem {
    fn of(graph: &Graph, conv: usize) -> Option<Self> {
        let node = &graph.nodes[conv];
        let ints = |name: &str| node.ints(name).ok();
        let plain = node.op_type == "Conv"
            && node.domain.is_empty()
            && node.int("group", 1).ok()? == 1
            && node.text("auto_pad", "NOTSET").ok()? == "NOTSET"
            && ints("strides")? == Some(&[BLOCK; 2])
            && ints("dilations")?.is_none_or(|dilations| dilations == [1; 2]);
        let &[top, left, bottom, right] = ints("pads")?.unwrap_or(&[0; 4]) else { return None };
        if !plain {
            return None;
        }
        let producers = graph.producers();
        let dequantize = |input: usize| {
            let index = *producers.get(node.input(input)?)?;
            (graph.nodes[index].op_type == "DequantizeLinear").then_some(index)
        };
        let (values, weight) = (dequantize(0)?, dequantize(1)?);
        let [channels, height, width] = image(graph, &producers, &graph.nodes[values])?;
        let kernel = stored_kernel(graph, &graph.nodes[weight])?;
        let &[_, inputs, rows, columns] = &kernel.shape[..] else { return None };
        if channels > FEW_CHANNELS || inputs != channels || rows * columns < LARGE_KERNEL {
            return None;
        }
        let [rows, columns] =
            [Side::of(height, rows, [top, bottom])?, Side::of(width, columns, [left, right])?];
        Some(Self {
            conv,
            values,
            weight,
            kernel: blocked(kernel, &rows, &columns)?,
            pads: [rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]],
        })
    }

    /// Puts the convolution in blocks; the values that it read before.
    fn rewrite(self, graph: &mut Graph) -> Vec<String> {
        let [mut values, mut weight] =
            [self.values, self.weight].map(|index| graph.nodes[index].clone());
        let read = graph.nodes[self.conv].inputs[..2].to_vec();
        let blocks = graph.fresh_name(&format!("{}_in_blocks", values.inputs[0]));
        let to_blocks = Node::new(&blocks, "SpaceToDepth", &[&values.inputs[0]], &[&blocks])
            .with("blocksize", Attribute::Int(BLOCK));
        let stored = graph.fresh_name(&format!("{}_in_blocks", weight.inputs[0]));
        graph.initializers.insert(stored.clone(), self.kernel.clone());
        values.inputs[0] = blocks;
        weight.inputs[0] = stored;
        for node in [&mut values, &mut weight] {
            node.name = graph.fresh_name(&format!("{}_in_blocks", node.label()));
            node.outputs[0] = graph.fresh_name(&format!("{}_in_blocks", node.outputs[0]));
        }
        let conv = &mut graph.nodes[self.conv];
        conv.inputs[0].clone_from(&values.outputs[0]);
        conv.inputs[1].clone_from(&weight.outputs[0]);
        conv.attributes.insert("strides".to_owned(), Attribute::Ints(vec![1; 2]));
        conv.attributes.insert("pads".to_owned(), Attribute::Ints(self.pads.to_vec()));
        let extents = self.kernel.shape[2..].to_vec();
        conv.attributes.insert("kernel_shape".to_owned(), Attribute::Ints(extents));
        graph.nodes.splice(self.conv..self.conv, [to_blocks, values, weight]);
        read
    }
}

/// Removes the node that makes `value`, and the constant that it dequantizes, where nobody reads them.
fn drop_unread(graph: &mut Graph, value: &str) {
    let unread = |graph: &Graph, value: &str| {
        !graph.is_output(value) && !graph.consumers().contains_key(value)
    };
    if let Some(&index) = graph.producers().get(value)
        && unread(graph, value)
    {
        let node = graph.nodes.remove(index);
        if unread(graph, &node.inputs[0]) {
            graph.initializers.shift_remove(&node.inputs[0]);
        }
    }
}

/// Extents `[C, H, W]` of an input of the graph whose 8-bit integers `node` dequantizes, by one scale.
fn image(graph: &Graph, producers: &HashMap<&str, usize>, node: &Node) -> Option<[i64; 3]> {
    let zero = graph.initializers.get(node.input(2)?)?;
    let quantize = &graph.nodes[*producers.get(node.input(0)?)?];
    if quantize.op_type != "QuantizeLinear" || zero.dtype != DType::U8 || zero.len() != 1 {
        return None;
    }
    let input = graph.inputs.iter().find(|input| Some(&*input.name) == quantize.input(0))?;
    match &input.shape.as_ref()?[..] {
        [_, Dim::Fixed(channels), Dim::Fixed(height), Dim::Fixed(width)] => {
            Some([*channels, *height, *width])
        }
        _ => None,
    }
}

/// The int8 constant that `node` dequantizes by scales of its first axis, without zero points.
fn stored_kernel<'a>(graph: &'a Graph, node: &Node) -> Option<&'a TensorData> {
    let constant = |index: usize| graph.initializers.get(node.input(index)?);
    let (kernel, scale) = (constant(0)?, constant(1)?);
    let by_rows = scale.len() == 1 || node.int("axis", 1).ok()? == 0;
    let zeros = constant(2).is_none_or(|zero| zero.bytes.iter().all(|&byte| byte == 0));
    let plain = !node.attributes.contains_key("block_size");
    (kernel.dtype == DType::I8 && by_rows && zeros && plain).then_some(kernel)
}

/// One of the two directions, in blocks.
struct Side {
    /// Zeros in front of the kernel, so that its first element is the first of a block: 0 or 1.
    shift: i64,
    /// Blocks of the kernel.
    taps: i64,
    /// Blocks of padding in front and behind.
    pads: [i64; 2],
}

impl Side {
    /// Output `o` reads pixels `2 o − pads[0]` to `2 o − pads[0] + taps − 1`; `None` where pixels do not fill whole blocks, where blocks at the end are not read
    /// at all, or where an output may read padding alone.
    fn of(extent: i64, taps: i64, pads: [i64; 2]) -> Option<Self> {
        if !pads.iter().all(|pad| (0..taps).contains(pad)) {
            return None;
        }
        let outputs = (extent.checked_add(pads[0] + pads[1])? - taps).div_euclid(BLOCK) + 1;
        let shift = pads[0].rem_euclid(BLOCK);
        let before = (pads[0] + shift) / BLOCK;
        let taps = (taps + shift + BLOCK - 1) / BLOCK;
        let behind = outputs - 1 + taps - before - extent / BLOCK;
        let whole = extent % BLOCK == 0 && outputs > 0 && behind >= 0;
        whole.then_some(Self { shift, taps, pads: [before, behind] })
    }
}

/// The kernel `[M, C, kh, kw]` as `[M, 4 C, rows, columns]`: channels of a block are its first row's two pixels, then the second's.
fn blocked(kernel: &TensorData, rows: &Side, columns: &Side) -> Option<TensorData> {
    let &[outputs, channels, height, width] = &kernel.shape[..] else { return None };
    let values = kernel.to_i8().ok()?;
    let shape = [outputs, channels * BLOCK * BLOCK, rows.taps, columns.taps];
    let mut moved = vec![0; shape.iter().product::<i64>() as usize];
    let mut from = values.into_iter();
    for output in 0..outputs {
        for channel in 0..channels {
            for (row, column) in (0..height).flat_map(|row| (0..width).map(move |c| (row, c))) {
                let (row, column) = (row + rows.shift, column + columns.shift);
                let within = (row % BLOCK * BLOCK + column % BLOCK) * channels + channel;
                let block = (output * shape[1] + within) * shape[2] + row / BLOCK;
                moved[(block * shape[3] + column / BLOCK) as usize] = from.next()?;
            }
        }
    }
    Some(TensorData::i8(&shape, &moved))
}

#[cfg(test)]
pub(super) mod tests {
    use ort::session::builder::GraphOptimizationLevel;
    use ort::value::TensorRef;

    use super::*;
    use crate::engine::{Threads, onnxruntime};
    use crate::onnx;

    /// A convolution of `[N, channels, side, side]` images, as it is exported for ONNX Runtime.
    pub(crate) fn network(channels: i64, side: i64, kernel: [i64; 2], pads: [i64; 4]) -> Model {
        let outputs = 5;
        let mut graph = Graph {
            nodes: vec![
                Node::new("q", "QuantizeLinear", &["x", "s", "z"], &["xq"]),
                Node::new("d", "DequantizeLinear", &["xq", "s", "z"], &["xd"]),
                Node::new("wd", "DequantizeLinear", &["w", "ws", "wz"], &["wf"])
                    .with("axis", Attribute::Int(0)),
                Node::new("conv", "Conv", &["xd", "wf"], &["y"])
                    .with("strides", Attribute::Ints(vec![2, 2]))
                    .with("pads", Attribute::Ints(pads.to_vec())),
                Node::new("yq", "QuantizeLinear", &["y", "ys", "z"], &["yi"]),
                Node::new("yd", "DequantizeLinear", &["yi", "ys", "z"], &["yf"]),
            ],
            ..Graph::default()
        };
        let shape = [outputs, channels, kernel[0], kernel[1]];
        let count: i64 = shape.iter().product();
        let weight: Vec<i8> = (0..count).map(|i| (i * 37 % 127 - 63) as i8).collect();
        let mut constant = |name: &str, data| graph.initializers.insert(name.to_owned(), data);
        constant("w", TensorData::i8(&shape, &weight));
        constant("ws", TensorData::f32(&[outputs], &[0.01, 0.02, 0.011, 0.013, 0.017]));
        constant("wz", TensorData::i8(&[outputs], &[0; 5]));
        constant("s", TensorData::f32(&[], &[0.02]));
        constant("ys", TensorData::f32(&[], &[0.05]));
        constant("z", TensorData::u8(&[], &[128]));
        let dims = [channels, side, side].map(Dim::Fixed);
        let free = std::iter::once(Dim::Named("batch".to_owned()));
        graph.inputs.push(crate::graph::ValueInfo::f32("x", free.chain(dims).collect()));
        graph.outputs.push(crate::graph::ValueInfo::f32("yf", vec![Dim::Unknown; 4]));
        Model::new(graph, 17)
    }

    /// What ONNX Runtime gives for two images of noise.
    fn run(model: &Model, level: GraphOptimizationLevel) -> (Vec<i64>, Vec<f32>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        onnx::write_one_file(model, &path).unwrap();
        let mut builder = onnxruntime::session(&Threads::Free(1), level).unwrap();
        let mut session = builder.commit_from_file(&path).unwrap();
        let shape =
            model.graph.inputs[0].shape.as_ref().unwrap()[1..].iter().map(|dim| match dim {
                Dim::Fixed(extent) => *extent as usize,
                other => panic!("{other:?}"),
            });
        let shape: Vec<usize> = std::iter::once(2).chain(shape).collect();
        let images = crate::bench::noise(shape.iter().product());
        let images = TensorRef::from_array_view((shape, &images[..])).unwrap();
        let outputs = session.run(ort::inputs!["x" => images]).unwrap();
        let (shape, values) = outputs["yf"].try_extract_tensor::<f32>().unwrap();
        (shape.to_vec(), values.to_vec())
    }

    #[test]
    fn sums_are_the_same_in_blocks() {
        let cases: [(i64, i64, [i64; 2], [i64; 4]); 7] = [
            (3, 32, [3, 3], [1, 1, 1, 1]),
            (3, 32, [7, 7], [3, 3, 3, 3]),
            (3, 20, [5, 5], [1, 1, 2, 2]),
            (1, 28, [5, 7], [2, 3, 2, 3]),
            (4, 12, [5, 5], [0; 4]),
            (3, 16, [6, 6], [2, 2, 2, 2]),
            (3, 18, [5, 6], [2, 5, 0, 1]),
        ];
        for (channels, side, kernel, pads) in cases {
            let model = network(channels, side, kernel, pads);
            let blocks = in_blocks(&model).unwrap();
            let ops: Vec<&str> = blocks.graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
            assert_eq!(ops.iter().filter(|op| **op == "SpaceToDepth").count(), 1);
            assert_eq!(ops.len(), model.graph.nodes.len() + 1, "{ops:?}");
            let levels = [GraphOptimizationLevel::Disable, GraphOptimizationLevel::All];
            for level in levels {
                let expected = run(&model, level);
                assert!(expected.1.iter().any(|value| value.abs() > 0.5));
                assert_eq!(run(&blocks, level), expected, "{kernel:?} {pads:?}");
            }
        }
    }

    #[test]
    fn what_is_not_a_first_convolution_of_stride_two_is_left() {
        let model = network(3, 16, [5, 5], [2; 4]);
        assert!(in_blocks(&model).is_some());
        let changed = |change: fn(&mut Model)| {
            let mut model = model.clone();
            change(&mut model);
            in_blocks(&model)
        };
        for (name, value) in [
            ("strides", Attribute::Ints(vec![2, 1])),
            ("dilations", Attribute::Ints(vec![2, 2])),
            ("auto_pad", Attribute::String(b"SAME_UPPER".to_vec())),
        ] {
            let mut model = model.clone();
            model.graph.nodes[3].attributes.insert(name.to_owned(), value);
            assert_eq!(in_blocks(&model), None);
        }
        assert_eq!(changed(|model| model.opsets[0].version = 12), None);
        // An odd side, many channels, a small kernel, padding of a hostile file.
        assert_eq!(in_blocks(&network(3, 16, [5, 5], [i64::MAX, 0, 0, 0])), None);
        assert_eq!(in_blocks(&network(3, 15, [5, 5], [2; 4])), None);
        assert_eq!(in_blocks(&network(8, 16, [5, 5], [2; 4])), None);
        assert_eq!(in_blocks(&network(3, 16, [2, 2], [0; 4])), None);
        assert_eq!(changed(|model| model.graph.nodes[0].inputs[0] = "other".to_owned()), None);
        let zero = |model: &mut Model| {
            let zeros = TensorData::i8(&[5], &[0, 1, 0, 0, 0]);
            model.graph.initializers.insert("wz".to_owned(), zeros);
        };
        assert_eq!(changed(zero), None);
    }

    #[test]
    fn what_others_read_stays() {
        let mut model = network(3, 16, [5, 5], [2; 4]);
        model.graph.nodes.push(Node::new("again", "Relu", &["xd"], &["r"]));
        let blocks = in_blocks(&model).unwrap();
        let read = |name: &str| blocks.graph.producers().contains_key(name);
        assert!(read("xd") && !read("wf"));
        assert!(!blocks.graph.initializers.contains_key("w"));
    }
}
