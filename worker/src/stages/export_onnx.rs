//! `export-onnx`: the file that is deployed.

use qpipe::stages::contract::Metrics;
use qpipe::stages::export_onnx::{Batch, ExportOnnx};
use serde_json::json;
use tch::Tensor;

use super::{
    Context,
    model::{model, write_model},
};
use crate::analysis::{Budget, Comparison, Seen, common};
use crate::graph::{Dim, Model};
use crate::interp::{Mode, Options, Program};
use crate::{Error, Result, passes, quant};

/// Largest batch with which an exported model is run once; a larger one is trusted to differ in nothing.
const TRIED: i64 = 4;

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: ExportOnnx = context.config()?;
    let mut model = model(context, &config.model)?;
    passes::simplify(&mut model)?;
    passes::fold_batch_norm(&mut model)?;
    let before = model.clone();
    passes::set_opset(&mut model, i64::from(config.opset))?;
    quant::finalize::finalize(&mut model, config.target)?;
    if config.verify {
        compare(&before, &model, context.task.seed)?;
    }
    let batch = match config.batch {
        Batch::Fixed(batch) => Some(batch),
        Batch::Dynamic => None,
    };
    passes::set_batch(&mut model, batch)?;
    try_out(&mut model)?;
    let path = context.output("model")?;
    write_model(&model, path)?;
    let bytes = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?.len();
    let count = |op: &str| model.graph.nodes.iter().filter(|node| node.op_type == op).count();
    Ok(Metrics::from([
        ("nodes".to_owned(), json!(model.graph.nodes.len())),
        ("quantize_linear".to_owned(), json!(count("QuantizeLinear"))),
        ("dequantize_linear".to_owned(), json!(count("DequantizeLinear"))),
        ("bytes".to_owned(), json!(bytes)),
    ]))
}

/// Images with which the exported model is compared.
const COMPARED: i64 = 4;

/// What is lost of a value, at most. Rounding of biases to integers alone gives 30 dB and more, 20 dB in deep networks that were hardly
/// trained; a collapse gives 0.
const BUDGET: Budget = Budget { sqnr_db: 10.0, agreement: 0.0 };

/// Compares each value of the exported model with the one before, on normally distributed images; not for inputs whose size is free.
fn compare(before: &Model, after: &Model, seed: u64) -> Result<()> {
    let Some(shape) = before.graph.inputs.first().and_then(|input| input.shape.as_ref()) else {
        return Ok(());
    };
    let extents = shape.iter().enumerate().map(|(axis, dim)| match dim {
        Dim::Fixed(extent) => Some(if axis == 0 { (*extent).min(COMPARED) } else { *extent }),
        _ => (axis == 0).then_some(COMPARED),
    });
    let Some(extents) =
        extents.collect::<Option<Vec<i64>>>().filter(|_| before.graph.inputs.len() == 1)
    else {
        return Ok(());
    };
    let [mut before, mut after] = [before.clone(), after.clone()];
    for model in [&mut before, &mut after] {
        passes::set_batch(model, None)?;
    }
    tch::manual_seed(i64::from_ne_bytes(seed.to_ne_bytes()));
    let images = Tensor::f_randn(&extents, (tch::Kind::Float, tch::Device::Cpu))?;
    let names = common(&before, &after);
    let mut comparison = Comparison::new("the exported model");
    comparison.add(
        &Seen::new(&before, &names)?.run(&images)?.1,
        &Seen::new(&after, &names)?.run(&images)?.1,
    )?;
    comparison.hold(&after, BUDGET)
}

/// Runs the model once, which shows that its shapes fit at this batch, and notes the shape of its output.
fn try_out(model: &mut Model) -> Result<()> {
    let mut program = Program::compile(model, &Options::default())?;
    let mut images = Vec::new();
    let mut batch = 2;
    for input in &model.graph.inputs {
        let extents = input.shape.iter().flatten().enumerate().map(|(axis, dim)| match dim {
            Dim::Fixed(extent) if axis == 0 => (*extent).min(TRIED),
            Dim::Fixed(extent) => *extent,
            _ => 2,
        });
        let extents: Vec<i64> = extents.collect();
        batch = extents.first().copied().unwrap_or(1);
        images.push(Tensor::f_zeros(&extents, (tch::Kind::Float, tch::Device::Cpu))?);
    }
    let _no_grad = tch::no_grad_guard();
    let outputs = program.forward(&images, Mode::Eval, &mut |_, _| Ok(()))?;
    let first = model.graph.inputs.first().and_then(|input| input.shape.as_ref()?.first().cloned());
    for (output, value) in model.graph.outputs.iter_mut().zip(&outputs) {
        let mut shape: Vec<Dim> = value.size().into_iter().map(Dim::Fixed).collect();
        if let (Some(own), Some(given)) = (shape.first_mut(), &first) {
            if *own != Dim::Fixed(batch) {
                return Err(Error::user(format!(
                    "output `{}` has {own:?} rows for {batch} images: the batch is fixed somewhere inside the model",
                    output.name
                ))
                .help("export it from PyTorch with a dynamic batch axis"));
            }
            own.clone_from(given);
        }
        output.shape = Some(shape);
    }
    Ok(())
}
