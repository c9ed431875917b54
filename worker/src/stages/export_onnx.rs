//! `export-onnx`: the file that is deployed.

use qpipe::stages::contract::Metrics;
use qpipe::stages::export_onnx::{Batch, DEFAULT_OPSET, ExportOnnx};
use qpipe::stages::insert_qdq::Target;
use serde_json::json;
use tch::Tensor;

use super::Context;
use super::forms::{BUDGET, Forms, Wanted, any_batch, random_images};
use super::model::{model, write_model};
use crate::analysis::{Comparison, Seen, common, floats};
use crate::graph::{DType, Dim, Model};
use crate::interp::{Mode, Options, Program};
use crate::{Error, Result, passes, quant, torch};

/// Largest batch with which an exported model is run once; a larger one is trusted to differ in nothing.
const TRIED: i64 = 4;

/// Height and width of the images with which a model is run once that leaves them free: the strides of detectors divide it.
const FREE_SIDE: i64 = 256;

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: ExportOnnx = context.config()?;
    let mut model = model(context, &config.model)?;
    passes::simplify(&mut model)?;
    let before = reference(&model)?;
    let opset = finalize(&mut model, config.opset, config.target)?;
    if opset > i64::from(config.opset.unwrap_or(DEFAULT_OPSET)) {
        context.events.log(format!("opset {opset}: the model's operators or types need it"));
    }
    let compared = if config.verify { compare(context, &before, &model)? } else { Metrics::new() };
    fix_batch(&mut model, config.batch)?;
    let path = context.output("model")?;
    write_model(&model, path)?;
    let bytes = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?.len();
    let count = |op: &str| model.graph.nodes.iter().filter(|node| node.op_type == op).count();
    let mut metrics = Metrics::from([
        ("nodes".to_owned(), json!(model.graph.nodes.len())),
        ("quantize_linear".to_owned(), json!(count("QuantizeLinear"))),
        ("dequantize_linear".to_owned(), json!(count("DequantizeLinear"))),
        ("bytes".to_owned(), json!(bytes)),
    ]);
    metrics.extend(compared);
    Ok(metrics)
}

/// What the exported model is compared with: folding scales the weights of layers before a BatchNormalization that was kept, and the values that go by their names.
fn reference(model: &Model) -> Result<Model> {
    let mut reference = model.clone();
    passes::fold_batch_norm(&mut reference)?;
    Ok(reference)
}

/// Brings a simplified model into its final form for `target`, of opset `wanted` or the next one that has its types, which is returned.
/// Where none is wanted it is the default, or the model's own where the model cannot be written in that.
pub fn finalize(model: &mut Model, wanted: Option<u32>, target: Option<Target>) -> Result<i64> {
    passes::fold_batch_norm(model)?;
    let least = passes::least_opset(&model.graph)?;
    let mut opset = least.max(i64::from(wanted.unwrap_or(DEFAULT_OPSET)));
    let own = model.opset();
    let set = match opset > own {
        // As `insert-qdq` does, where its types need it.
        true => passes::raise_opset(model, opset).map_err(|error| match least > own {
            true => error,
            false => {
                error.help(format!("write opset = {own}, or export the model with opset {opset}"))
            }
        }),
        false => passes::set_opset(model, opset),
    };
    match set {
        Err(_) if wanted.is_none() && model.opset() > opset => opset = model.opset(),
        Err(error) if wanted.is_some() => return Err(error.key("opset")),
        done => done?,
    }
    quant::finalize::finalize(model, target)?;
    Ok(opset)
}

/// Fixes or frees the batch of a model in its final form, and runs it once.
pub fn fix_batch(model: &mut Model, batch: Batch) -> Result<()> {
    let batch = match batch {
        Batch::Fixed(batch) => Some(batch),
        Batch::Dynamic => None,
    };
    passes::set_batch(model, batch).map_err(|error| error.key("batch"))?;
    if let (None, Some(own)) = (batch, passes::fixed_batch(model)) {
        return Err(Error::user(format!(
            "the file was exported for a batch of {own}, which a node of it keeps: its batch cannot be free"
        ))
        .help(format!("{}, or say batch = {own}", passes::EXPORT_ANY_BATCH))
        .key("batch"));
    }
    if batch.is_some() {
        quant::finalize::keep_products(model)?;
    }
    try_out(model)
}

/// Compares each value of the exported model with the one before, on normally distributed images, on libtorch and on ONNX Runtime without
/// fusion; not where the input's size is free.
fn compare(context: &Context, before: &Model, after: &Model) -> Result<Metrics> {
    let own = passes::fixed_batch(before);
    let (before, after) = (any_batch(before)?, any_batch(after)?);
    let Some(images) = random_images(&after, context.task.seed)? else { return Ok(Metrics::new()) };
    check_fed(&after)?;
    let names = common(&before, &after);
    let ran = Seen::new(&before, &names)?.run(&images);
    let (_, expected) = ran.map_err(|error| of_fixed_batch(error, own, images.size()[0]))?;
    let names = floats(&names, &expected);
    let wanted = Wanted { libtorch: true, onnxruntime: true, ..Wanted::default() };
    let mut forms = Forms::new(context, &after, &names, wanted)?;
    forms.step(&images, &expected)?;
    forms.hold(context, BUDGET, &|error| error)?;
    let worst = |(key, comparison): (&str, &Comparison)| {
        (format!("{key}_sqnr_db"), json!(comparison.worst_sqnr()))
    };
    Ok(forms.comparisons().map(worst).collect())
}

/// Refuses a model whose input is of another type than what it is run with here: ONNX Runtime takes no other.
fn check_fed(model: &Model) -> Result<()> {
    let [input] = &model.graph.inputs[..] else { return Ok(()) };
    let Some(dtype) = input.dtype.filter(|&dtype| dtype != DType::F32) else { return Ok(()) };
    Err(Error::user(format!(
        "its input `{}` is of {}, and the comparison of the file before and after feeds float32 numbers",
        input.name,
        dtype.name()
    ))
    .help("verify = false exports it without a comparison; export the model with a float32 input for all other stages")
    .key("model"))
}

/// What failed with `tried` images: a model of another batch may keep that one in its nodes.
fn of_fixed_batch(error: Error, own: Option<i64>, tried: i64) -> Error {
    match own.filter(|own| *own != tried) {
        Some(own) => error.help(format!(
            "the file was exported for a batch of {own}, and was run with {tried} images: a node of it keeps the batch of its export. Export it from PyTorch with a \
             dynamic batch axis (`dynamic_shapes`, or `dynamic_axes` and `input_names` of the older exporter)"
        )),
        None => error,
    }
}

/// Runs the model once, which shows that its shapes fit at this batch, and notes the shape of its output where nothing but the batch is free.
fn try_out(model: &mut Model) -> Result<()> {
    let mut program = Program::compile(model, &Options::default())?;
    let mut images = Vec::new();
    let mut batch = 2;
    let mut free = false;
    let kept = passes::fixed_batch(model).filter(|own| passes::kept_batch(model, *own).is_some());
    for input in &model.graph.inputs {
        let shape = input.shape.as_deref().unwrap_or_default();
        let extents = shape.iter().enumerate().map(|(axis, dim)| match (axis, dim) {
            (0, Dim::Fixed(extent)) => kept.unwrap_or(TRIED).min(*extent),
            (_, Dim::Fixed(extent)) => *extent,
            (2 | 3, _) if shape.len() == 4 => FREE_SIDE,
            _ => 2,
        });
        let extents: Vec<i64> = extents.collect();
        free |= shape.iter().skip(1).any(|dim| !matches!(dim, Dim::Fixed(_)));
        batch = extents.first().copied().unwrap_or(1);
        let kind = input.dtype.and_then(|dtype| torch::kind_of(dtype).ok());
        let kind = kind.unwrap_or(tch::Kind::Float);
        images.push(Tensor::f_zeros(&extents, (kind, tch::Device::Cpu))?);
    }
    let _no_grad = tch::no_grad_guard();
    let outputs = program.forward(&images, Mode::Eval, &mut |_, _| Ok(())).map_err(|error| {
        if !free {
            return error;
        }
        error.help(format!(
            "the model leaves the size of its images free, and was tried with {FREE_SIDE} pixels: say which it is for where a stage reads the file, model = {{ onnx = \"…\", \
             image_size = 224 }}"
        ))
    })?;
    let first = model.graph.inputs.first().and_then(|input| input.shape.as_ref()?.first().cloned());
    for (output, value) in model.graph.outputs.iter_mut().zip(&outputs) {
        let mut shape: Vec<Dim> = value.size().into_iter().map(Dim::Fixed).collect();
        if let (Some(own), Some(given)) = (shape.first_mut(), &first) {
            if *own != Dim::Fixed(batch) {
                return Err(Error::user(format!(
                    "output `{}` has {} rows for {batch} images: the batch is fixed somewhere inside the model",
                    output.name,
                    value.size()[0],
                ))
                .help("export it from PyTorch with a dynamic batch axis"));
            }
            own.clone_from(given);
        }
        // What follows from the size of these images holds for no others.
        if !free {
            output.shape = Some(shape);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Graph, Node, TensorData, ValueInfo};

    /// One node, in the opset that PyTorch exported it with; the opset that it is written in, or the refusal.
    fn written(op_type: &str, own: i64, wanted: Option<u32>) -> Result<i64> {
        let nodes = vec![Node::new("n", op_type, &["x", "axes"], &["y"])];
        let outputs = vec![ValueInfo::f32("y", Vec::new())];
        let mut model = Model::new(Graph { nodes, outputs, ..Graph::default() }, own);
        let opset = finalize(&mut model, wanted, None)?;
        assert_eq!(opset, model.opset());
        Ok(opset)
    }

    /// Three poolings by 4, and a product of what is left of 224 pixels where `dense`.
    fn of_any_size(dense: bool) -> Model {
        let mut graph = Graph::default();
        let named =
            |names: &[&str]| names.iter().map(|&name| Dim::Named(name.to_owned())).collect();
        let mut dims: Vec<Dim> = named(&["batch", "c", "h", "w"]);
        dims[1] = Dim::Fixed(2);
        graph.inputs.push(ValueInfo::f32("x", dims));
        for (index, (from, to)) in [("x", "a"), ("a", "b"), ("b", "p")].into_iter().enumerate() {
            let four = || Attribute::Ints(vec![4, 4]);
            let node = Node::new(&format!("pool{index}"), "MaxPool", &[from], &[to]);
            graph.nodes.push(node.with("kernel_shape", four()).with("strides", four()));
        }
        let mut output = "p";
        if dense {
            graph.nodes.push(Node::new("flat", "Flatten", &["p"], &["f"]));
            graph.nodes.push(Node::new("fc", "MatMul", &["f", "w"], &["y"]));
            graph.initializers.insert("w".to_owned(), TensorData::f32(&[18, 5], &[0.5; 90]));
            output = "y";
        }
        let shape =
            if dense { named(&["batch", "classes"]) } else { named(&["batch", "c", "u", "v"]) };
        graph.outputs.push(ValueInfo::f32(output, shape));
        Model::new(graph, 17)
    }

    #[test]
    fn what_follows_from_a_free_size_is_not_written_down() {
        let mut model = of_any_size(false);
        let before = model.graph.outputs[0].shape.clone();
        fix_batch(&mut model, Batch::Dynamic).unwrap();
        assert_eq!(model.graph.outputs[0].shape, before);
        passes::set_image_size(&mut model, [128, 192]).unwrap();
        fix_batch(&mut model, Batch::Fixed(3)).unwrap();
        let fixed: Vec<Dim> = [3, 2, 2, 3].map(Dim::Fixed).to_vec();
        assert_eq!(model.graph.outputs[0].shape, Some(fixed));
        // It is for images of one size, and does not say so.
        let error = fix_batch(&mut of_any_size(true), Batch::Dynamic).unwrap_err();
        assert!(error.help.as_ref().unwrap().contains("image_size = 224"), "{error:?}");
        let mut model = of_any_size(true);
        passes::set_image_size(&mut model, [224, 224]).unwrap();
        fix_batch(&mut model, Batch::Dynamic).unwrap();
        let rows = vec![Dim::Named("batch".to_owned()), Dim::Fixed(5)];
        assert_eq!(model.graph.outputs[0].shape, Some(rows));
    }

    /// Weights of a layer whose normalization is kept are not those of the file: their factor is folded into them.
    #[test]
    fn a_kept_normalization_is_no_difference() {
        let floats = |values: &[f32]| TensorData::f32(&[values.len() as i64], values);
        let constants = [
            ("w", TensorData::f32(&[2, 1, 1, 1], &[0.5, -1.0])),
            ("s", floats(&[0.01, 0.01])),
            ("z", TensorData::i8(&[2], &[0, 0])),
            ("gamma", floats(&[3.0, -2.0])),
            ("beta", floats(&[0.5, 0.0])),
            ("mean", floats(&[0.1, -0.2])),
            ("var", floats(&[1.0, 0.25])),
        ];
        let weight = |op: &str, from: &str, to: &str| {
            Node::new(to, op, &[from, "s", "z"], &[to]).with("axis", Attribute::Int(0))
        };
        let graph = Graph {
            nodes: vec![
                weight("QuantizeLinear", "w", "wq"),
                weight("DequantizeLinear", "wq", "wd"),
                Node::new("conv", "Conv", &["x", "wd"], &["c"]),
                Node::new(
                    "norm",
                    "BatchNormalization",
                    &["c", "gamma", "beta", "mean", "var"],
                    &["n"],
                ),
                Node::new("act", "Relu", &["n"], &["y"]),
            ],
            inputs: vec![ValueInfo::f32("x", [1, 1, 4, 4].map(Dim::Fixed).to_vec())],
            outputs: vec![ValueInfo::f32("y", Vec::new())],
            initializers: constants
                .map(|(name, data)| (name.to_owned(), data))
                .into_iter()
                .collect(),
            ..Graph::default()
        };
        let model = Model::new(graph, 17);
        let mut after = model.clone();
        finalize(&mut after, None, Some(Target::Onnxruntime)).unwrap();
        let before = reference(&model).unwrap();
        let names = common(&before, &after);
        assert!(names.contains(&"wd".to_owned()), "{names:?}");
        let images = Tensor::rand([1, 1, 4, 4], (tch::Kind::Float, tch::Device::Cpu));
        let values = |model: &Model| Seen::new(model, &names).unwrap().run(&images).unwrap().1;
        let (expected, found) = (values(&before), values(&after));
        for name in &names {
            let off = (&expected[name] - &found[name]).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{name}: {off}");
        }
    }

    #[test]
    fn a_batch_that_a_node_keeps_cannot_be_free() {
        let of_batch = |batch: i64| {
            let mut graph = Graph::default();
            let dims = |extents: &[i64]| extents.iter().copied().map(Dim::Fixed).collect();
            graph.inputs.push(ValueInfo::f32("x", dims(&[batch, 6, 2])));
            graph.outputs.push(ValueInfo::f32("y", dims(&[batch, 12])));
            for (name, shape) in [("s", [6 * batch, 2]), ("t", [batch, 12])] {
                graph.initializers.insert(name.to_owned(), TensorData::i64(&[2], &shape));
            }
            graph.nodes.push(Node::new("heads", "Reshape", &["x", "s"], &["h"]));
            graph.nodes.push(Node::new("row", "Reshape", &["h", "t"], &["y"]));
            Model::new(graph, 17)
        };
        // It is tried with its own batch, also where that is a great one.
        fix_batch(&mut of_batch(8), Batch::Fixed(8)).unwrap();
        let model = of_batch(1);
        fix_batch(&mut model.clone(), Batch::Fixed(1)).unwrap();
        let error = fix_batch(&mut model.clone(), Batch::Dynamic).unwrap_err();
        assert!(error.help.as_ref().unwrap().ends_with("or say batch = 1"), "{error:?}");
        let error = fix_batch(&mut model.clone(), Batch::Fixed(3)).unwrap_err();
        assert!(error.message.contains("node \"heads\""), "{error:?}");
    }

    /// ONNX Runtime's error of an input that is no float32 is not about what the user did.
    #[test]
    fn an_input_that_is_not_float32_is_tried_as_it_is_and_not_compared() {
        let mut model = of_any_size(false);
        let extents =
            [Dim::Named("batch".to_owned()), Dim::Fixed(2), Dim::Fixed(64), Dim::Fixed(64)];
        let input = &mut model.graph.inputs[0];
        (input.shape, input.dtype) = (Some(extents.to_vec()), Some(DType::F64));
        fix_batch(&mut model, Batch::Dynamic).unwrap();
        let error = check_fed(&model).unwrap_err();
        assert!(error.message.starts_with("its input `x` is of double, and"), "{error}");
        assert_eq!(
            (error.key, error.help.unwrap().starts_with("verify = false")),
            (Some("model"), true)
        );
        model.graph.inputs[0].dtype = Some(DType::F32);
        check_fed(&model).unwrap();
    }

    #[test]
    fn a_file_of_a_fixed_batch_is_told_as_such() {
        let dims = [Dim::Fixed(2), Dim::Fixed(3)];
        let inputs = vec![ValueInfo::f32("x", dims.to_vec())];
        let model = Model::new(Graph { inputs, ..Graph::default() }, 17);
        let error = |tried| {
            of_fixed_batch(Error::user("sizes must match"), passes::fixed_batch(&model), tried)
        };
        assert!(error(4).help.unwrap().starts_with("the file was exported for a batch of 2"));
        assert_eq!(error(2).help, None, "it failed for another reason");
    }

    #[test]
    fn without_an_opset_the_models_own_where_the_default_has_other_operators() {
        assert_eq!(written("Relu", 20, None).unwrap(), 17);
        assert_eq!(written("Relu", 13, None).unwrap(), 17);
        assert_eq!(written("Gelu", 20, None).unwrap(), 20);
        assert_eq!(written("ReduceMean", 18, None).unwrap(), 18);
        // Axes of reductions become inputs in a later opset, and no attributes in an earlier one.
        let axes = Attribute::Ints(vec![1]);
        let nodes = vec![Node::new("n", "ReduceMean", &["x"], &["y"]).with("axes", axes)];
        let outputs = vec![ValueInfo::f32("y", Vec::new())];
        let model = Model::new(Graph { nodes, outputs, ..Graph::default() }, 17);
        for opset in [19, 21] {
            let mut model = model.clone();
            assert_eq!(finalize(&mut model, Some(opset), None).unwrap(), i64::from(opset));
            assert_eq!(model.graph.nodes[0].inputs, ["x", "n_axes"]);
        }
        let error = written("GridSample", 17, Some(21)).unwrap_err();
        assert_eq!(
            error.help.as_deref(),
            Some("write opset = 17, or export the model with opset 21")
        );
        assert_eq!(error.key, Some("opset"));
        // Integers of 16 bits are pairs from opset 21 on.
        let zero = TensorData { dtype: DType::U16, shape: Vec::new(), bytes: vec![0; 2].into() };
        let mut graph = Graph::default();
        graph.nodes.push(Node::new("q", "QuantizeLinear", &["x", "s", "z"], &["i"]));
        graph.nodes.push(Node::new("d", "DequantizeLinear", &["i", "s", "z"], &["y"]));
        graph.outputs.push(ValueInfo::f32("y", Vec::new()));
        graph.initializers.insert("s".to_owned(), TensorData::f32(&[], &[1.0]));
        graph.initializers.insert("z".to_owned(), zero);
        assert_eq!(finalize(&mut Model::new(graph, 21), None, None).unwrap(), 21);
        let error = written("ReduceMean", 18, Some(17)).unwrap_err();
        assert_eq!(error.help.as_deref(), Some("write opset = 18"));
        // Its own opset is too old for pairs of each channel.
        assert!(written("Softmax", 11, None).is_err());
    }
}
