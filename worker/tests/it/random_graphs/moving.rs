//! What gives elements other places and extents.

use qpipe_worker::graph::Attribute;

use super::draft::{Draft, Value};

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

/// An image's positions as tokens, `[H · W, C]`.
pub fn to_tokens(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[channels, height, width] = &input.shape[..] else { return None };
    if height * width > 64 {
        return None;
    }
    let shape = draft.ints(&[0, channels, -1]);
    let flat = draft.node("Reshape", &[&input.name, &shape], &[channels, height * width]);
    draft.node("Transpose", &[&flat.name], &[height * width, channels]);
    draft.set("perm", ints(&[0, 2, 1]));
    Some(())
}

/// Tokens as an image, where they fill a square.
pub fn to_image(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[tokens, width] = &input.shape[..] else { return None };
    let side = (1..=8).find(|side| side * side == tokens)?;
    let turned = draft.node("Transpose", &[&input.name], &[width, tokens]);
    draft.set("perm", ints(&[0, 2, 1]));
    let shape = draft.ints(&[0, width, side, side]);
    draft.node("Reshape", &[&turned.name, &shape], &[width, side, side]);
    Some(())
}

/// Tokens and their width exchanged, as in an MLP-Mixer.
pub fn exchange(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[tokens, width] = &input.shape[..] else { return None };
    draft.node("Transpose", &[&input.name], &[width, tokens]);
    draft.set("perm", ints(&[0, 2, 1]));
    Some(())
}

/// All elements in a row.
pub fn flatten(draft: &mut Draft, input: &Value) -> Option<()> {
    let count: i64 = input.shape.iter().product();
    if count > 256 || input.shape.len() < 2 {
        return None;
    }
    if draft.chance(50) {
        draft.node("Flatten", &[&input.name], &[count]);
    } else {
        let shape = draft.ints(&[0, -1]);
        let shape = if draft.chance(50) { draft.ints(&[0, count]) } else { shape };
        draft.node("Reshape", &[&input.name, &shape], &[count]);
    }
    Some(())
}

/// A vector as an image of one position.
pub fn unsqueeze(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[width] = &input.shape[..] else { return None };
    let axes = draft.ints(&[2, 3]);
    draft.node("Unsqueeze", &[&input.name, &axes], &[width, 1, 1]);
    Some(())
}

/// An image of one position as a vector.
pub fn squeeze(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[channels, 1, 1] = &input.shape[..] else { return None };
    let axes = draft.ints(&[2, 3]);
    draft.node("Squeeze", &[&input.name, &axes], &[channels]);
    Some(())
}

/// Channels of two groups interleaved, as in a ShuffleNet.
pub fn shuffle(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[channels, height, width] = &input.shape[..] else { return None };
    if channels % 2 != 0 {
        return None;
    }
    let apart = draft.ints(&[0, 2, channels / 2, height, width]);
    let apart = draft.raw("Reshape", &[&input.name, &apart]);
    let turned = draft.raw("Transpose", &[&apart]);
    draft.set("perm", ints(&[0, 2, 1, 3, 4]));
    let together = draft.ints(&[0, channels, height, width]);
    draft.node("Reshape", &[&turned, &together], &input.shape);
    Some(())
}

pub fn depth_to_space(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[channels, height, width] = &input.shape[..] else { return None };
    if draft.chance(50) {
        if channels % 4 != 0 || height > 8 {
            return None;
        }
        draft.node("DepthToSpace", &[&input.name], &[channels / 4, 2 * height, 2 * width]);
    } else {
        if channels > 4 || height % 2 != 0 || width % 2 != 0 {
            return None;
        }
        draft.node("SpaceToDepth", &[&input.name], &[4 * channels, height / 2, width / 2]);
    }
    draft.set("blocksize", Attribute::Int(2));
    Some(())
}

/// One of the tokens, by number.
pub fn gather(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[tokens, width] = &input.shape[..] else { return None };
    let index = draft.below(tokens as usize) as i64;
    let index = draft.constant(qpipe_worker::graph::TensorData::i64(&[], &[index]));
    draft.node("Gather", &[&input.name, &index], &[width]);
    draft.set("axis", Attribute::Int(1));
    Some(())
}
