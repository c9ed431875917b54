//! Blocks of transformers, of tokens `[T, D]`.

use qpipe_worker::graph::Attribute;

use super::draft::{Draft, Value};
use super::layers::linear_to;
use super::pooling::mean;

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

/// LayerNormalization, as an operator or written out.
pub fn layer_norm(draft: &mut Draft, input: &Value) -> Option<()> {
    normalized(draft, input).map(drop)
}

fn normalized(draft: &mut Draft, input: &Value) -> Option<Value> {
    let width = *input.shape.last()?;
    if width < 3 {
        return None;
    }
    let shape = input.shape.clone();
    let scale = draft.random_constant(&[width], 1.0, 0.2);
    let shift = draft.random_constant(&[width], 0.0, 0.2);
    if draft.chance(60) {
        let inputs: &[&str] =
            if draft.chance(80) { &[&input.name, &scale, &shift] } else { &[&input.name, &scale] };
        let made = draft.node("LayerNormalization", inputs, &shape);
        draft.set("axis", Attribute::Int(-1));
        return Some(made);
    }
    let mut row = shape.clone();
    *row.last_mut()? = 1;
    let centre = mean(draft, input, &[-1], true, &row);
    let centred = draft.node("Sub", &[&input.name, &centre.name], &shape);
    let square = if draft.chance(50) {
        let two = draft.number(2.0);
        draft.node("Pow", &[&centred.name, &two], &shape)
    } else {
        draft.node("Mul", &[&centred.name, &centred.name], &shape)
    };
    let variance = mean(draft, &square, &[-1], true, &row);
    let least = draft.number(1e-5);
    let sum = draft.raw("Add", &[&variance.name, &least]);
    let deviation = draft.raw("Sqrt", &[&sum]);
    let quotient = draft.node("Div", &[&centred.name, &deviation], &shape);
    let scaled = draft.node("Mul", &[&quotient.name, &scale], &shape);
    Some(draft.node("Add", &[&scaled.name, &shift], &shape))
}

/// Attention, with a residual addition around it or none.
pub fn attention(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[tokens, width] = &input.shape[..] else { return None };
    if width % 2 != 0 || tokens > 36 || width > 16 {
        return None;
    }
    let inner = if draft.chance(60) { normalized(draft, input)? } else { input.clone() };
    let heads = draft.pick(&[1, 2]);
    let parts = match draft.below(3) {
        0 => {
            let all = linear_to(draft, &inner, 3 * width)?;
            let shape = vec![tokens, width];
            if draft.chance(50) {
                let sizes = draft.ints(&[width; 3]);
                let parts = draft.nodes(
                    "Split",
                    &[&all.name, &sizes],
                    &[shape.clone(), shape.clone(), shape],
                );
                draft.set("axis", Attribute::Int(-1));
                parts
            } else {
                (0..3)
                    .map(|part| {
                        let ends =
                            [part * width, (part + 1) * width, 2].map(|value| draft.ints(&[value]));
                        draft.node(
                            "Slice",
                            &[&all.name, &ends[0], &ends[1], &ends[2]],
                            &[tokens, width],
                        )
                    })
                    .collect()
            }
        }
        _ => {
            let mut parts = Vec::new();
            for _ in 0..3 {
                parts.push(linear_to(draft, &inner, width)?);
            }
            parts
        }
    };
    let apart = draft.ints(&[0, tokens, heads, width / heads]);
    let mut by_head = Vec::new();
    for (part, order) in parts.iter().zip([[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]]) {
        let made = draft.raw("Reshape", &[&part.name, &apart]);
        by_head.push(draft.raw("Transpose", &[&made]));
        draft.set("perm", ints(&order));
    }
    let root = draft.number(((width / heads) as f32).sqrt());
    let scaled = if draft.chance(30) {
        let query = draft.raw("Div", &[&by_head[0], &root]);
        draft.raw("MatMul", &[&query, &by_head[1]])
    } else {
        let scores = draft.raw("MatMul", &[&by_head[0], &by_head[1]]);
        draft.raw("Div", &[&scores, &root])
    };
    let scaled = if draft.chance(25) {
        let mask: Vec<f32> = (0..tokens * tokens)
            .map(|at| if at % tokens > at / tokens { -1e9 } else { 0.0 })
            .collect();
        let mask = draft.constant(qpipe_worker::graph::TensorData::f32(&[tokens, tokens], &mask));
        draft.raw("Add", &[&scaled, &mask])
    } else {
        scaled
    };
    let probabilities = draft.raw("Softmax", &[&scaled]);
    draft.set("axis", Attribute::Int(-1));
    let mixed = draft.raw("MatMul", &[&probabilities, &by_head[2]]);
    let turned = draft.raw("Transpose", &[&mixed]);
    draft.set("perm", ints(&[0, 2, 1, 3]));
    let together = draft.ints(&[0, tokens, width]);
    let joined = draft.node("Reshape", &[&turned, &together], &[tokens, width]);
    let made = linear_to(draft, &joined, width)?;
    if draft.chance(70) {
        draft.node("Add", &[&input.name, &made.name], &[tokens, width]);
    }
    Some(())
}

/// Two layers with an activation or a gate between them, and the value before them.
pub fn mlp(draft: &mut Draft, input: &Value) -> Option<()> {
    let width = *input.shape.last()?;
    let inner = if draft.chance(60) { normalized(draft, input)? } else { input.clone() };
    let up = linear_to(draft, &inner, 16)?;
    let bent = if draft.chance(30) {
        let gate = linear_to(draft, &inner, 16)?;
        let share = draft.raw("Sigmoid", &[&gate.name]);
        draft.node("Mul", &[&up.name, &share], &up.shape)
    } else {
        super::activations::activation(draft, &up)?;
        draft.values.last()?.clone()
    };
    let down = linear_to(draft, &bent, width)?;
    draft.node("Add", &[&input.name, &down.name], &input.shape);
    Some(())
}

pub fn softmax(draft: &mut Draft, input: &Value) -> Option<()> {
    if *input.shape.last()? < 2 {
        return None;
    }
    draft.node("Softmax", &[&input.name], &input.shape);
    draft.set("axis", Attribute::Int(-1));
    Some(())
}
