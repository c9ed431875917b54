//! What a graph is made of: each part, how many extents its input has behind the batch, and how often it is tried.

use qpipe_worker::graph::Model;

use super::draft::{Draft, Value};
use super::{activations, joining, layers, moving, pooling, tokens};

/// Adds nodes behind a value; `None` where it does not fit. What was added before that is dead.
type Part = fn(&mut Draft, &Value) -> Option<()>;

const ANY: &[usize] = &[1, 2, 3];

const PARTS: &[(Part, &[usize], usize)] = &[
    (layers::block, &[3], 10),
    (layers::conv, &[3], 6),
    (layers::norm, &[3], 2),
    (layers::conv_transpose, &[3], 2),
    (layers::gemm, &[1], 10),
    (layers::linear, ANY, 4),
    (activations::activation, ANY, 8),
    (joining::residual, ANY, 6),
    (joining::residual_block, &[3], 4),
    (joining::constant, ANY, 3),
    (joining::squeeze_excite, &[3], 3),
    (joining::concat, ANY, 5),
    (joining::split, ANY, 3),
    (joining::slice, ANY, 3),
    (pooling::pool, &[3], 5),
    (pooling::global, &[3], 2),
    (pooling::mean_of_axis, &[2, 3], 1),
    (pooling::resize, &[3], 3),
    (pooling::pad, &[3], 2),
    (moving::to_tokens, &[3], 3),
    (moving::to_image, &[2], 3),
    (moving::exchange, &[2], 2),
    (moving::flatten, &[2, 3], 1),
    (moving::unsqueeze, &[1], 2),
    (moving::squeeze, &[3], 2),
    (moving::shuffle, &[3], 2),
    (moving::depth_to_space, &[3], 2),
    (moving::gather, &[2], 1),
    (tokens::layer_norm, &[1, 2], 4),
    (tokens::attention, &[2], 8),
    (tokens::mlp, &[1, 2], 5),
    (tokens::softmax, &[1, 2], 1),
];

/// The model of a seed: an image `[n, 1, side, side]` into 3 to 12 parts.
pub fn model(seed: u64, side: i64) -> Model {
    let mut draft = Draft::new(seed, side);
    let count = 3 + draft.below(10);
    let all: usize = PARTS.iter().map(|part| part.2).sum();
    // The first is a layer, most often with an activation, so that there is something to quantize.
    let input = draft.values[0].clone();
    layers::block(&mut draft, &input).expect("it fits an image");
    let mut added = 0;
    for _ in 0..200 {
        let mut place = draft.below(all);
        let part = PARTS.iter().find(|part| {
            let found = place < part.2;
            place = place.saturating_sub(part.2);
            found
        });
        let (add, ranks, _) = part.expect("the places are those of the parts");
        let Some(input) = draft.choose(|value| ranks.contains(&value.shape.len())) else {
            continue;
        };
        added += usize::from(add(&mut draft, &input).is_some());
        if added == count {
            break;
        }
    }
    draft.finish()
}
