//! What lint says of a graph, and what ONNX Runtime makes of it: each layer that is found is one of float there, and no other.

use std::collections::BTreeMap;
use std::path::Path;

use qpipe::stages::insert_qdq::Target;
use qpipe_worker::graph::{Attribute, DType, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::onnx;
use qpipe_worker::quant::lint::lint;

use crate::python;

/// Counts of the operators that ONNX Runtime runs of each file, or why it refuses it.
const KERNELS: &str = r#"
import collections, json, sys
import onnx, onnxruntime
found = {}
for path in sys.argv[1:]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = path + ".optimized"
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        found[path] = {str(error): 1}
        continue
    nodes = onnx.load(path + ".optimized", load_external_data=False).graph.node
    found[path] = collections.Counter(node.op_type for node in nodes)
print(json.dumps(found))
"#;

/// A graph of an input `x` [1, 4, 8, 8]; a value is called as the node that makes it.
struct Draft {
    graph: Graph,
    /// The zero point of activations, of its type.
    zero: TensorData,
}

impl Draft {
    fn new() -> Self {
        let inputs = vec![ValueInfo::f32("x", [1, 4, 8, 8].map(Dim::Fixed).to_vec())];
        Self { graph: Graph { inputs, ..Graph::default() }, zero: TensorData::u8(&[], &[128]) }
    }

    fn constant(&mut self, name: &str, data: TensorData) -> String {
        self.graph.initializers.insert(name.to_owned(), data);
        name.to_owned()
    }

    fn node(&mut self, operator: &str, name: &str, inputs: &[&str]) -> String {
        self.graph.nodes.push(Node::new(name, operator, inputs, &[name]));
        name.to_owned()
    }

    fn with(&mut self, key: &str, value: Attribute) {
        let last = self.graph.nodes.last_mut().expect("a node");
        last.attributes.insert(key.to_owned(), value);
    }

    /// A pair on `value`, called after it and `tag`.
    fn pair_of(&mut self, value: &str, tag: &str, scale: f32, zero: TensorData) -> String {
        let name = |what: &str| format!("{value}{tag}_{what}");
        let scale = self.constant(&name("scale"), TensorData::f32(&[], &[scale]));
        let zero = self.constant(&name("zero"), zero);
        let q = self.node("QuantizeLinear", &name("q"), &[value, &scale, &zero]);
        self.node("DequantizeLinear", &name("dq"), &[&q, &scale, &zero])
    }

    fn pair(&mut self, value: &str) -> String {
        self.pair_of(value, "", 0.05, self.zero.clone())
    }

    /// A pair whose least integer is 0.
    fn positive(&mut self, value: &str, scale: f32) -> String {
        self.pair_of(value, "", scale, TensorData::u8(&[], &[0]))
    }

    /// A convolution of 4 channels to 4 by integers: the readers of its output come next.
    fn conv(&mut self, name: &str, input: &str) -> String {
        let weight = self.weight(name);
        self.node("Conv", name, &[input, &weight]);
        self.with("pads", Attribute::Ints(vec![1; 4]));
        name.to_owned()
    }

    fn weight(&mut self, name: &str) -> String {
        let part = |what: &str| format!("{name}_w{what}");
        let values: Vec<f32> = (0..144).map(|index| (index as f32 * 0.7).sin()).collect();
        let w = self.constant(&part(""), TensorData::f32(&[4, 4, 3, 3], &values));
        let scale = self.constant(&part("_scale"), TensorData::f32(&[4], &[0.01; 4]));
        let zero = self.constant(&part("_zero"), TensorData::i8(&[4], &[0; 4]));
        let q = self.node("QuantizeLinear", &part("_q"), &[&w, &scale, &zero]);
        self.with("axis", Attribute::Int(0));
        let dq = self.node("DequantizeLinear", &part("_dq"), &[&q, &scale, &zero]);
        self.with("axis", Attribute::Int(0));
        dq
    }

    /// A convolution of the quantized input.
    fn first(&mut self) -> String {
        let x = self.pair("x");
        self.conv("c", &x)
    }

    /// A second one, whose output has its pair.
    fn second(&mut self, name: &str, input: &str) {
        let made = self.conv(name, input);
        let made = self.pair(&made);
        self.output(&made);
    }

    fn output(&mut self, name: &str) {
        self.graph.outputs.push(ValueInfo { shape: None, ..ValueInfo::f32(name, Vec::new()) });
    }

    fn clip(&mut self, input: &str, low: f32, high: Option<f32>) -> String {
        let low = self.constant("low", TensorData::f32(&[], &[low]));
        let high = high.map(|high| self.constant("high", TensorData::f32(&[], &[high])));
        let inputs: Vec<&str> = [input, &low].into_iter().chain(high.as_deref()).collect();
        self.node("Clip", "clip", &inputs)
    }

    fn max_pool(&mut self, input: &str) -> String {
        self.node("MaxPool", "pool", &[input]);
        self.with("kernel_shape", Attribute::Ints(vec![2, 2]));
        "pool".to_owned()
    }
}

type Case = (&'static str, Draft);
/// A case's name, rules and nodes that lint finds, and the operators that ONNX Runtime runs.
type Held = (&'static str, Vec<(&'static str, String)>, BTreeMap<String, usize>);
/// Adds what reads a value.
type Make = fn(&mut Draft, &str) -> String;

fn case(name: &'static str, make: impl FnOnce(&mut Draft)) -> Case {
    let mut draft = Draft::new();
    make(&mut draft);
    (name, draft)
}

/// What lint finds for ONNX Runtime in each, by rules and nodes, and what that runs.
fn held(cases: Vec<Case>) -> Vec<Held> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut paths = Vec::new();
    let found: Vec<_> = cases
        .into_iter()
        .map(|(name, draft)| {
            let model = Model::new(draft.graph, 21);
            let path = folder.path().join(format!("{}.onnx", paths.len()));
            onnx::write(&model, &path).expect("writes");
            paths.push(path);
            let found = lint(&model.graph, Some(Target::Onnxruntime));
            let found = found.into_iter().map(|finding| {
                println!("{name}: {} {}: {}", finding.rule, finding.node, finding.what);
                (finding.rule, finding.node)
            });
            (name, found.collect::<Vec<_>>())
        })
        .collect();
    let arguments: Vec<&Path> = paths.iter().map(AsRef::as_ref).collect();
    let printed = python::run(KERNELS, &arguments);
    let mut kernels: BTreeMap<String, BTreeMap<String, usize>> =
        serde_json::from_str(&printed).expect("counts");
    let paths = paths.iter().map(|path| path.display().to_string());
    let kernels = paths.map(|path| kernels.remove(&path).expect("each file"));
    found.into_iter().zip(kernels).map(|((name, found), kernels)| (name, found, kernels)).collect()
}

/// Convolutions that ONNX Runtime runs as integers, and those that it runs in float.
fn convolutions(kernels: &BTreeMap<String, usize>) -> [usize; 2] {
    let count = |name: &str| kernels.get(name).copied().unwrap_or(0);
    [count("QLinearConv"), count("Conv") + count("FusedConv")]
}

fn fused() -> Vec<Case> {
    let turned = |draft: &mut Draft, input: &str| {
        draft.node("Transpose", "turned", &[input]);
        draft.with("perm", Attribute::Ints(vec![0, 1, 3, 2]));
        "turned".to_owned()
    };
    let mut cases = vec![
        case("a pair", |draft| {
            let c = draft.first();
            let c = draft.pair(&c);
            draft.second("d", &c);
        }),
        case("one QuantizeLinear, two DequantizeLinear", |draft| {
            let c = draft.first();
            let c = draft.pair(&c);
            draft.node("DequantizeLinear", "again", &["c_q", "c_scale", "c_zero"]);
            draft.second("d", &c);
            draft.second("e", "again");
        }),
        case("two QuantizeLinear of the same constants", |draft| {
            let c = draft.first();
            let one = draft.pair(&c);
            draft.node("QuantizeLinear", "q", &["c", "c_scale", "c_zero"]);
            draft.node("DequantizeLinear", "other", &["q", "c_scale", "c_zero"]);
            draft.second("d", &one);
            draft.second("e", "other");
        }),
        case("a pair without a zero point behind a Relu", |draft| {
            let c = draft.first();
            draft.node("Relu", "r", &[&c]);
            draft.constant("s", TensorData::f32(&[], &[0.05]));
            draft.node("QuantizeLinear", "q", &["r", "s"]);
            draft.node("DequantizeLinear", "dq", &["q", "s"]);
            draft.output("dq");
        }),
        case("a Clip of 6 with the scale of 6", |draft| {
            let c = draft.first();
            let clip = draft.clip(&c, 0.0, Some(6.0));
            let clip = draft.positive(&clip, 6.0 / 255.0);
            draft.output(&clip);
        }),
        case("a Clip that is rounded to the last integer", |draft| {
            let c = draft.first();
            let clip = draft.clip(&c, 0.0, Some(6.0));
            let clip = draft.positive(&clip, 6.006 / 255.0);
            draft.output(&clip);
        }),
        case("a Clip from below", |draft| {
            let c = draft.first();
            let clip = draft.clip(&c, -6.401, None);
            let clip = draft.pair(&clip);
            draft.output(&clip);
        }),
        case("Clip and Relu", |draft| {
            let c = draft.first();
            let clip = draft.clip(&c, -9.0, Some(6.0));
            draft.node("Relu", "r", &[&clip]);
            let r = draft.positive("r", 6.0 / 255.0);
            draft.output(&r);
        }),
        case("Relu, Transpose and MaxPool", |draft| {
            let c = draft.first();
            draft.node("Relu", "r", &[&c]);
            let turned = turned(draft, "r");
            let pool = draft.max_pool(&turned);
            let pool = draft.positive(&pool, 0.05);
            draft.output(&pool);
        }),
        case("Transpose and Relu", |draft| {
            let c = draft.first();
            let turned = turned(draft, &c);
            draft.node("Relu", "r", &[&turned]);
            let r = draft.positive("r", 0.05);
            draft.output(&r);
        }),
    ];
    for operator in ["Identity", "Dropout"] {
        cases.push(case(operator, |draft| {
            let c = draft.first();
            draft.node(operator, "m", &[&c]);
            draft.node("Relu", "r", &["m"]);
            let r = draft.positive("r", 0.05);
            draft.output(&r);
        }));
    }
    cases
}

fn float() -> Vec<Case> {
    let behind = |name, made: Make| {
        case(name, move |draft| {
            let c = draft.first();
            let made = made(draft, &c);
            let made = draft.pair(&made);
            draft.output(&made);
        })
    };
    vec![
        case("an output of the graph", |draft| {
            let c = draft.first();
            draft.output(&c);
        }),
        case("an Identity that is an output of the graph", |draft| {
            let c = draft.first();
            draft.node("Identity", "y", &[&c]);
            draft.output("y");
        }),
        case("a pair and an output of the graph", |draft| {
            let c = draft.first();
            let pair = draft.pair(&c);
            draft.output(&c);
            draft.second("d", &pair);
        }),
        case("a pair and a reader in float", |draft| {
            let c = draft.first();
            let pair = draft.pair(&c);
            draft.node("Sigmoid", "s", &[&c]);
            draft.output("s");
            draft.second("d", &pair);
        }),
        case("two pairs of the same values", |draft| {
            let c = draft.first();
            let one = draft.pair(&c);
            let other = draft.pair_of(&c, "_other", 0.05, TensorData::u8(&[], &[128]));
            draft.second("d", &one);
            draft.second("e", &other);
        }),
        case("pairs before and behind a Relu", |draft| {
            let c = draft.first();
            let before = draft.pair(&c);
            draft.node("Relu", "r", &[&c]);
            let behind = draft.positive("r", 0.05);
            draft.second("d", &before);
            draft.second("e", &behind);
        }),
        case("a Transpose that two read", |draft| {
            let c = draft.first();
            draft.node("Transpose", "t", &[&c]);
            let pair = draft.pair("t");
            draft.node("Sigmoid", "s", &["t"]);
            draft.output("s");
            draft.output(&pair);
        }),
        behind("a Relu with another zero point", |draft, c| draft.node("Relu", "r", &[c])),
        behind("a Clip within the pair's range", |draft, c| draft.clip(c, -6.0, Some(6.0))),
        case("a Clip half a step within", |draft| {
            let c = draft.first();
            let clip = draft.clip(&c, 0.0, Some(6.0));
            let clip = draft.positive(&clip, 6.02 / 255.0);
            draft.output(&clip);
        }),
        case("a Clip of computed bounds", |draft| {
            draft.graph.inputs.push(ValueInfo::f32("bound", Vec::new()));
            let c = draft.first();
            draft.node("Clip", "clip", &[&c, "bound"]);
            let clip = draft.positive("clip", 0.05);
            draft.output(&clip);
        }),
        case("a MaxPool before the Relu", |draft| {
            let c = draft.first();
            let pool = draft.max_pool(&c);
            draft.node("Relu", "r", &[&pool]);
            let r = draft.positive("r", 0.05);
            draft.output(&r);
        }),
        behind("a Flatten", |draft, c| draft.node("Flatten", "f", &[c])),
        behind("a LeakyRelu", |draft, c| draft.node("LeakyRelu", "l", &[c])),
        behind("means", |draft, c| draft.node("GlobalAveragePool", "g", &[c])),
        behind("an addition", |draft, c| draft.node("Add", "a", &[c, c])),
    ]
}

/// The convolution `c` is told of where it runs in float, and only there.
#[test]
fn convolutions_whose_output_is_read_in_float_are_found_and_are_float() {
    let integers = fused();
    let expected = integers.len();
    for (at, (name, found, kernels)) in
        held(integers.into_iter().chain(float()).collect()).into_iter().enumerate()
    {
        let found: Vec<&str> = found
            .iter()
            .filter(|(rule, _)| *rule == "unquantized-output")
            .map(|(_, node)| node.as_str())
            .collect();
        let [_, floats] = convolutions(&kernels);
        let told: &[&str] = if at < expected { &[] } else { &["c"] };
        assert_eq!((&found[..], floats), (told, told.len()), "{name}: {kernels:?}");
    }
}

/// A convolution or a product of what `make` gives from `x`, between pairs of a type.
fn typed(name: &'static str, zero: TensorData, make: Make) -> Case {
    case(name, |draft| {
        draft.zero = zero;
        let x = draft.pair("x");
        let made = make(draft, &x);
        let made = draft.pair(&made);
        draft.output(&made);
    })
}

/// What computes between pairs of 16 bits is told of, and no operator of the optimized graph computes with integers; the same with 8 bits is not.
#[test]
fn integers_of_sixteen_bits_are_found_and_are_float() {
    let makes: [(&str, Make); 6] = [
        ("Conv", |draft, x| draft.conv("made", x)),
        ("Add", |draft, x| draft.node("Add", "made", &[x, x])),
        ("Concat", |draft, x| {
            draft.node("Concat", "made", &[x, x]);
            draft.with("axis", Attribute::Int(1));
            "made".to_owned()
        }),
        ("Sigmoid", |draft, x| draft.node("Sigmoid", "made", &[x])),
        ("MatMul", |draft, x| draft.node("MatMul", "made", &[x, x])),
        ("GlobalAveragePool", |draft, x| draft.node("GlobalAveragePool", "made", &[x])),
    ];
    let sixteen = |dtype| TensorData { dtype, shape: Vec::new(), bytes: vec![0; 2].into() };
    let (wide, short) = (sixteen(DType::U16), sixteen(DType::I16));
    let mut cases = Vec::new();
    for (name, make) in makes {
        cases.push(typed(name, TensorData::u8(&[], &[128]), make));
        cases.push(typed(name, wide.clone(), make));
        cases.push(typed(name, short.clone(), make));
    }
    for (at, (name, found, kernels)) in held(cases).into_iter().enumerate() {
        let integers = kernels.keys().filter(|operator| operator.starts_with("QLinear")).count();
        let expected: &[_] =
            if at % 3 == 0 { &[] } else { &[("wide-integers", "made".to_owned())] };
        assert_eq!(
            (&found[..], integers),
            (expected, usize::from(at % 3 == 0)),
            "{name}: {kernels:?}"
        );
    }
    // What moves elements moves those of 16 bits too.
    let turned = typed("Transpose", wide.clone(), |draft, x| draft.node("Transpose", "made", &[x]));
    let mixed = case("8 bits to 16", |draft| {
        let c = draft.first();
        let c = draft.pair_of(&c, "", 0.05, wide);
        draft.output(&c);
    });
    let found = held(vec![turned, mixed]);
    assert_eq!(found[0].1, []);
    assert_eq!(found[0].2.values().sum::<usize>(), 3, "{:?}", found[0].2);
    assert_eq!(found[1].1, [("wide-integers", "c".to_owned())]);
    assert_eq!(convolutions(&found[1].2), [0, 1]);
}

/// Casts to float16 and scales of float16 leave a convolution in float; a Cast to float32 is none.
#[test]
fn pairs_of_float16_are_found_and_their_layers_are_float() {
    let cast = |draft: &mut Draft, name: &str, input: &str, to: DType| {
        draft.node("Cast", name, &[input]);
        draft.with("to", Attribute::Int(to.onnx().into()));
        name.to_owned()
    };
    let between = |to| {
        move |draft: &mut Draft| {
            let x = draft.pair("x");
            let x = cast(draft, "x_cast", &x, to);
            let w = draft.weight("c");
            let w = cast(draft, "w_cast", &w, to);
            draft.node("Conv", "c", &[&x, &w]);
            let c = cast(draft, "c_cast", "c", DType::F32);
            let c = draft.pair(&c);
            draft.output(&c);
        }
    };
    let half = case("float16", between(DType::F16));
    let found = held(vec![half, case("float32", between(DType::F32))]);
    assert_eq!(found[0].1, [("float16-pair", "c".to_owned())]);
    assert_eq!(convolutions(&found[0].2), [0, 1], "{:?}", found[0].2);
    assert_eq!(found[1].1, []);
    assert_eq!(convolutions(&found[1].2), [1, 0], "{:?}", found[1].2);
}

#[test]
fn tensorrts_own_operators_are_found_and_refused() {
    let own = case("trt", |draft| {
        draft.constant("s", TensorData::f32(&[], &[0.1]));
        draft.node("TRT_FP8QuantizeLinear", "q", &["x", "s"]);
        draft.graph.nodes[0].domain = "trt".to_owned();
        draft.output("q");
    });
    let found = held(vec![own]);
    assert_eq!(found[0].1, [("tensorrt-operator", "q".to_owned())]);
    let said = found[0].2.keys().next().expect("refused");
    assert!(said.contains("TRT_FP8QuantizeLinear"), "{said}");
}
