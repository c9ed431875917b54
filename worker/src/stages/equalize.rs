//! `equalize`: the weights of neighbouring layers brought to like ranges.

use qpipe::stages::contract::Metrics;
use qpipe::stages::equalize::{Equalize, Relu6};
use serde_json::json;

use super::{
    Context,
    model::{model, write_model},
};
use crate::quant::ladder::{Activation6, equalize};
use crate::quant::prepare::prepare;
use crate::{Error, Result};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Equalize = context.config()?;
    let mut model = model(context, &config.model)?;
    prepare(&mut model).map_err(|error| error.key("model"))?;
    let bounded = match config.relu6 {
        Relu6::Keep => Activation6::Keep,
        Relu6::Relu => Activation6::Relu,
    };
    let found = equalize(&mut model, bounded)?;
    if !found.in_the_way.is_empty() {
        context.events.warn(format!(
            "{} activation(s) with a bound stand between layers that so are not equalized, such as {}: relu6 = \"relu\" replaces those from 0 to a constant",
            found.in_the_way.len(),
            found.in_the_way[0]
        ));
    }
    if found.pairs.is_empty() {
        return Err(Error::user("no two layers of the model can be equalized")
            .key("model")
            .help("two Conv, Gemm or MatMul with only Relu, LeakyRelu, PRelu, poolings and Flatten between them can; relu6 = \"relu\" adds those around a ReLU6"));
    }
    for pair in &found.pairs {
        let (least, greatest) = pair.factors;
        context.events.log(format!(
            "{} → {}: channels divided by {least:.3} to {greatest:.3}",
            pair.first, pair.second
        ));
    }
    write_model(&model, context.output("model")?)?;
    Ok(Metrics::from([
        ("pairs".to_owned(), json!(found.pairs.len())),
        ("replaced".to_owned(), json!(found.replaced.len())),
    ]))
}
