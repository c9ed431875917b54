//! The file of `--exportLayerInfo` at `--profilingVerbosity=detailed`: what became of each layer.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::super::Layer;
use super::pairs::Types;
use crate::graph::{Graph, Node};
use crate::ops::WEIGHTED;
use crate::{Error, Result};

#[derive(Deserialize)]
struct File {
    #[serde(rename = "Layers")]
    layers: Vec<Entry>,
}

/// A layer, or only its name where the engine was not built with details.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Detailed(Box<Detailed>),
    Name(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Detailed {
    name: String,
    #[serde(default)]
    layer_type: String,
    #[serde(default)]
    inputs: Vec<Binding>,
    #[serde(default)]
    outputs: Vec<Binding>,
    #[serde(default)]
    weights: Option<Weights>,
    /// The kernel's name, such as `sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32_…`.
    #[serde(default)]
    tactic_name: String,
    /// Since 8.6: `[ONNX Layer: /conv1/Conv]`, one a node.
    #[serde(default)]
    metadata: String,
}

#[derive(Deserialize)]
struct Binding {
    #[serde(rename = "Format/Datatype", default)]
    format: String,
}

#[derive(Deserialize)]
struct Weights {
    #[serde(rename = "Type", default)]
    kind: String,
}

/// A weighted node behind Q/DQ pairs in the ONNX file, and what the engine computes it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The node's name in the ONNX file.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The engine's layer; `None`: none names the node, as in graphs that were compiled whole.
    pub layer: Option<String>,
    /// The type of the pair of its input: `int8`, `float8` or `int4`.
    #[serde(default)]
    pub meant: String,
    /// What that layer computes in, such as `int8` or `float32`.
    pub precision: Option<String>,
    /// The QuantizeLinear and DequantizeLinear nodes of its input and of its weight: those that stand alone in the engine where some do,
    /// since they were not fused, else all.
    pub pairs: Vec<String>,
}

/// What a layer file says of an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    /// Its layers, without those that compute nothing.
    pub layers: Vec<Layer>,
    /// What became of each weighted node behind Q/DQ pairs.
    pub planned: Vec<Planned>,
}

impl Layers {
    /// Reads a layer file of an engine that was built from `graph`.
    ///
    /// # Errors
    /// A text of another form.
    pub fn read(text: &[u8], graph: &Graph) -> Result<Self> {
        let file: File = serde_json::from_slice(text).map_err(|error| {
            Error::machine(format!("trtexec's --exportLayerInfo file: {error}"))
        })?;
        let entries: Vec<Detailed> = file.layers.into_iter().map(Detailed::of).collect();
        let mut places: HashMap<&str, Vec<&Detailed>> = HashMap::new();
        let mut alone = HashSet::new();
        for entry in &entries {
            let names = entry.nodes();
            if let [name] = names[..] {
                alone.insert(name);
            }
            for name in names {
                places.entry(name).or_default().push(entry);
            }
        }
        let planned = quantized(graph).into_iter().map(|(node, meant, pairs)| {
            let name = name_in_engine(node);
            let layer = places.get(name.as_str()).and_then(|found| computing(found));
            let unfused: Vec<&String> =
                pairs.iter().filter(|pair| alone.contains(pair.as_str())).collect();
            Planned {
                node: name.clone(),
                op: node.op_type.clone(),
                layer: layer.map(|layer| layer.name.clone()),
                meant: meant.to_owned(),
                precision: layer.and_then(Detailed::precision).map(str::to_owned),
                pairs: if unfused.is_empty() {
                    pairs
                } else {
                    unfused.into_iter().cloned().collect()
                },
            }
        });
        let planned = planned.collect();
        let layers = entries
            .iter()
            .filter(|entry| !["Constant", "NoOp"].contains(&entry.layer_type.as_str()));
        let layers = layers.map(|entry| Layer {
            name: entry.name.clone(),
            kind: entry.layer_type.clone(),
            precision: entry.precision().unwrap_or("unknown").to_owned(),
        });
        Ok(Self { layers: layers.collect(), planned })
    }
}

impl Planned {
    /// Whether the engine computes it in another type than that of its pairs.
    pub fn fell_back(&self) -> bool {
        self.precision.as_deref().is_some_and(|precision| precision != self.meant)
    }
}

impl Detailed {
    fn of(entry: Entry) -> Self {
        match entry {
            Entry::Detailed(detailed) => *detailed,
            Entry::Name(name) => Self {
                name,
                layer_type: String::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                weights: None,
                tactic_name: String::new(),
                metadata: String::new(),
            },
        }
    }

    /// Names of the ONNX nodes in it: what its metadata lists, else those of its name, `a + b + PWN(c)`; layers that were merged because they read
    /// the same stand side by side there, `a + b || c + d`.
    fn nodes(&self) -> Vec<&str> {
        let listed = self.metadata.split("[ONNX Layer: ").skip(1);
        let listed: Vec<&str> = listed
            .map(|rest| {
                rest.trim_end().trim_end_matches(['\u{1e}', '\u{1f}']).trim_end_matches(']')
            })
            .collect();
        if !listed.is_empty() {
            return listed;
        }
        let bare = |name: &'_ str| {
            name.strip_prefix("PWN(").and_then(|name| name.strip_suffix(')')).map(str::len)
        };
        let parts = self.name.split(" || ").flat_map(|merged| merged.split(" + "));
        parts.map(|part| bare(part).map_or(part, |length| &part[4..4 + length])).collect()
    }

    /// What it computes in: the type of its first input; of weights too where they are listed. Where the batch is free, TensorRT since 8.6 writes
    /// `N/A due to dynamic shapes` for types of values: there that of the weights, else of the kernel, tells it.
    fn precision(&self) -> Option<&'static str> {
        let first = self.inputs.first().or_else(|| self.outputs.first())?;
        let weights = self.weights.as_ref().and_then(|weights| datatype(&weights.kind));
        match datatype(&first.format) {
            Some("int8") => weights.or(Some("int8")),
            Some(input) => Some(input),
            None => weights.or_else(|| of_tactic(&self.tactic_name)),
        }
    }

    fn is_weighted(&self) -> bool {
        const KINDS: &[&str] = &["conv", "gemm", "matr", "correlation", "fusion", "fully"];
        let kind = self.layer_type.to_lowercase();
        self.weights.is_some() || KINDS.iter().any(|word| kind.contains(word))
    }
}

/// Of the layers that name a node the one that computes it.
fn computing<'a>(found: &[&'a Detailed]) -> Option<&'a Detailed> {
    const NOT: &[&str] = &["Constant", "NoOp", "Reformat"];
    let mut able = found.iter().filter(|layer| !NOT.contains(&layer.layer_type.as_str()));
    let first = able.clone().next();
    able.find(|layer| layer.is_weighted()).or(first).copied()
}

/// The type in texts such as `Thirty-two wide channel vectorized row major Int8 format`, `Row major linear FP32` or `Half`.
fn datatype(format: &str) -> Option<&'static str> {
    const TYPES: &[(&str, &str)] = &[
        ("int8", "int8"),
        ("bfloat16", "bfloat16"),
        ("bf16", "bfloat16"),
        ("fp16", "float16"),
        ("half", "float16"),
        ("fp8", "float8"),
        ("int4", "int4"),
        ("int32", "int32"),
        ("int64", "int64"),
        ("bool", "bool"),
        ("fp32", "float32"),
        ("float", "float32"),
    ];
    let format = format.to_lowercase();
    TYPES.iter().find(|(word, _)| format.contains(word)).map(|(_, name)| *name)
}

/// The type that a kernel reads, from the first part of its name that is made of two types: `i8i8`, `f16f16`, `tf32f32`, `e4m3bf16`.
fn of_tactic(name: &str) -> Option<&'static str> {
    const TYPES: &[(&str, &str)] = &[
        ("i8", "int8"),
        ("i32", "int32"),
        ("bf16", "bfloat16"),
        ("f16", "float16"),
        ("tf32", "float32"),
        ("f32", "float32"),
        ("e4m3", "float8"),
        ("e5m2", "float8"),
    ];
    name.split('_').find_map(|part| {
        let (_, first) = TYPES.iter().find(|(word, _)| {
            part.strip_prefix(word).is_some_and(|rest| TYPES.iter().any(|(word, _)| rest == *word))
        })?;
        Some(*first)
    })
}

/// A node's name as TensorRT's parser gives it: its own, or one from its first output.
pub fn name_in_engine(node: &Node) -> String {
    match (node.name.as_str(), node.outputs.first()) {
        ("", Some(output)) => format!("node_of_{output}"),
        (name, _) => name.to_owned(),
    }
}

/// Weighted nodes whose input and weight both come from a DequantizeLinear, each with the type of its input's pair, and the names of those nodes
/// and of the QuantizeLinear before them.
fn quantized(graph: &Graph) -> Vec<(&Node, &'static str, Vec<String>)> {
    let types = Types::of(graph);
    let maker =
        |value: Option<&String>, op: &str| types.maker(value?).filter(|node| node.op_type == op);
    let pair = |value: Option<&String>| {
        let dequantize = maker(value, "DequantizeLinear")?;
        let quantize = maker(dequantize.inputs.first(), "QuantizeLinear");
        let names: Vec<String> =
            quantize.into_iter().chain([dequantize]).map(name_in_engine).collect();
        Some((types.pair(dequantize), names))
    };
    let weighted = graph.nodes.iter().filter(|node| WEIGHTED.contains(&node.op_type.as_str()));
    weighted
        .filter_map(|node| {
            let (meant, mut pairs) = pair(node.inputs.first())?;
            pairs.extend(pair(node.inputs.get(1))?.1);
            Some((node, meant, pairs))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DType;
    use crate::quant::scheme::zero_points;

    const RECORDED: &str = include_str!("recorded/layers.json");

    /// A node behind pairs with names as in the recording.
    fn add(graph: &mut Graph, name: &str, op: &str) {
        let value = |part: &str| format!("{name}.{part}");
        for part in ["x", "w"] {
            let (from, q, dq) =
                (value(part), value(&format!("{part}_q")), value(&format!("{part}_dq")));
            graph.nodes.push(Node::new("", "QuantizeLinear", &[&from, "s", "z"], &[&q]));
            graph.nodes.push(Node::new("", "DequantizeLinear", &[&q, "s", "z"], &[&dq]));
        }
        graph.nodes.push(Node::new(name, op, &[&value("x_dq"), &value("w_dq")], &[&value("y")]));
    }

    #[test]
    fn all_layers_of_the_recorded_engine_are_int8() {
        let mut graph = Graph::default();
        add(&mut graph, "/conv1/Conv", "Conv");
        add(&mut graph, "/layer1/layer1.0/conv2/Conv", "Conv");
        add(&mut graph, "/fc/Gemm", "Gemm");
        graph.nodes.push(Node::new("/float/Conv", "Conv", &["a", "b"], &["c"]));
        let found = Layers::read(RECORDED.as_bytes(), &graph).unwrap();
        // 57 entries, 16 of them constants, one a squeeze that does nothing.
        assert_eq!(found.layers.len(), 40);
        assert_eq!(found.layers.iter().filter(|layer| layer.precision == "int8").count(), 23);
        let planned: Vec<_> =
            found.planned.iter().map(|it| (it.node.as_str(), it.precision.as_deref())).collect();
        assert_eq!(
            planned,
            [
                ("/conv1/Conv", Some("int8")),
                ("/layer1/layer1.0/conv2/Conv", Some("int8")),
                ("/fc/Gemm", Some("int8")),
            ]
        );
        assert!(found.planned[0].layer.as_ref().unwrap().ends_with("/conv1/Conv + /relu/Relu"));
    }

    /// As TensorRT 10 writes them: metadata, short types; a convolution that stayed float behind a pair that stands alone.
    #[test]
    fn what_fell_back_is_named_with_its_pairs() {
        let mut graph = Graph::default();
        add(&mut graph, "conv", "Conv");
        add(&mut graph, "gone", "MatMul");
        let text = r#"{"Layers": [
            {"Name": "q", "LayerType": "Reformat", "Metadata": "[ONNX Layer: node_of_conv.x_q]",
             "Inputs": [{"Format/Datatype": "Float"}], "Outputs": [{"Format/Datatype": "Int8"}]},
            {"Name": "__myl_Conv", "LayerType": "CaskConvolution",
             "Metadata": "[ONNX Layer: conv]\u001e[ONNX Layer: relu]",
             "Inputs": [{"Format/Datatype": "Half"}], "Outputs": [{"Format/Datatype": "Half"}]}],
            "Bindings": ["x", "y"]}"#;
        let found = Layers::read(text.as_bytes(), &graph).unwrap();
        let [conv, gone] = &found.planned[..] else { panic!("{found:?}") };
        assert_eq!(conv.precision.as_deref(), Some("float16"));
        assert_eq!(conv.pairs, ["node_of_conv.x_q"]);
        assert_eq!(
            (gone.layer.as_ref(), gone.precision.as_ref(), gone.pairs.len()),
            (None, None, 4)
        );
    }

    /// As TensorRT 8.5 writes two convolutions that read the same, computed by one kernel.
    #[test]
    fn layers_that_were_merged_side_by_side_are_both_found() {
        let mut graph = Graph::default();
        for name in ["a/Conv", "b/Conv"] {
            add(&mut graph, name, "Conv");
        }
        let text = r#"{"Layers": [
            {"Name": "a.w + node_of_a/Conv.w_q + a/Conv || b.w + node_of_b/Conv.w_q + b/Conv + PWN(b/Relu)", "LayerType": "CaskConvolution",
             "Inputs": [{"Format/Datatype": "Row major linear FP32"}], "Weights": {"Type": "Float", "Count": 2}}],
            "Bindings": ["x", "y"]}"#;
        let found = Layers::read(text.as_bytes(), &graph).unwrap();
        let planned = found.planned.iter().map(|it| it.precision.as_deref());
        assert_eq!(planned.collect::<Vec<_>>(), [Some("float32"); 2]);
    }

    /// As TensorRT since 8.6 writes an engine whose batch is free: no type of any value.
    #[test]
    fn weights_and_kernels_tell_the_type_where_the_batch_is_free() {
        let mut graph = Graph::default();
        for (name, op) in [("conv", "Conv"), ("float", "Conv"), ("attention", "MatMul")] {
            add(&mut graph, name, op);
        }
        let values = r#""Inputs": [{"Dimensions": [-1, 8], "Format/Datatype": "N/A due to dynamic shapes"}],
            "Outputs": [{"Dimensions": [-1, 8], "Format/Datatype": "N/A due to dynamic shapes"}]"#;
        let text = format!(
            r#"{{"Layers": [
            {{"Name": "copy", "LayerType": "Reformat", {values}, "Metadata": ""}},
            {{"Name": "a", "LayerType": "CaskConvolution", {values}, "Weights": {{"Type": "Int8", "Count": 2}},
              "TacticName": "sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32_nhwckrsc_nhwc", "Metadata": "[ONNX Layer: conv]"}},
            {{"Name": "b", "LayerType": "CaskConvolution", {values}, "Weights": {{"Type": "Half", "Count": 4}},
              "TacticName": "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16", "Metadata": "[ONNX Layer: float]"}},
            {{"Name": "c", "LayerType": "gemm", {values},
              "TacticName": "sm80_xmma_gemm_tf32f32_tf32f32_f32_tn_n", "Metadata": "[ONNX Layer: attention]"}}],
            "Bindings": ["x", "y"]}}"#
        );
        let found = Layers::read(text.as_bytes(), &graph).unwrap();
        let planned = found.planned.iter().map(|it| it.precision.as_deref());
        let planned: Vec<_> = planned.collect();
        assert_eq!(planned, [Some("int8"), Some("float16"), Some("float32")]);
        let listed: Vec<&str> = found.layers.iter().map(|it| it.precision.as_str()).collect();
        assert_eq!(listed, ["unknown", "int8", "float16", "float32"]);
    }

    #[test]
    fn kernels_name_the_type_that_they_read() {
        for (name, expected) in [
            ("sm80_xmma_fprop_implicit_gemm_interleaved_i8f32_i8i32_f32_nchw", Some("int8")),
            ("sm89_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n", Some("float8")),
            ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_nt_n", Some("bfloat16")),
            ("sm72_xmma_pooling_IMMA_NCxHW32_gap", None),
            ("", None),
        ] {
            assert_eq!(of_tactic(name), expected, "{name}");
        }
    }

    /// As TensorRT 10 writes a layer that computes in FP8.
    #[test]
    fn pairs_of_floats_are_meant_to_be_floats() {
        let mut graph = Graph::default();
        add(&mut graph, "conv", "Conv");
        add(&mut graph, "float", "Conv");
        graph.initializers.insert("z".to_owned(), zero_points(DType::F8E4M3FN, &[], &[0]));
        let text = r#"{"Layers": [
            {"Name": "a", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "FP8 NC/32HW32"}],
             "Outputs": [{"Format/Datatype": "FP8"}], "Weights": {"Type": "FP8", "Count": 2}, "Metadata": "[ONNX Layer: conv]"},
            {"Name": "b", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Half"}],
             "Outputs": [{"Format/Datatype": "Half"}], "Metadata": "[ONNX Layer: float]"}], "Bindings": []}"#;
        let found = Layers::read(text.as_bytes(), &graph).unwrap();
        let planned: Vec<_> =
            found.planned.iter().map(|it| (it.meant.as_str(), it.fell_back())).collect();
        assert_eq!(planned, [("float8", false), ("float8", true)]);
    }

    #[test]
    fn names_alone_say_nothing_of_types() {
        let found =
            Layers::read(br#"{"Layers": ["a + PWN(b)", "c"], "Bindings": []}"#, &Graph::default())
                .unwrap();
        assert_eq!(found.layers[0].precision, "unknown");
        let error = Layers::read(b"{}", &Graph::default()).unwrap_err();
        assert!(error.message.contains("Layers"), "{error}");
    }
}
