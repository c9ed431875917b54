//! `SpaceToDepth`: `[N, C, H b, W b]` to `[N, b² C, H, W]`.
//! <https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html>
//!
//! Opsets: 1, 13.

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::ops::window::block_size;
use crate::shapes::rules;

pub const OP: Op = Op::new("SpaceToDepth", &[1, 13], |prepare| {
    let block = block_size(prepare.node)?;
    single(move |a| {
        let input = a.get(0)?;
        let size = input.size();
        let &[n, channels, height, width] = &size[..] else {
            return Err(Error::user(format!("an input of shape {size:?}, expected [N, C, H, W]")));
        };
        let (rows, columns) = (height / block, width / block);
        if rows * block != height || columns * block != width {
            return Err(Error::user(format!("{height}×{width} in blocks of {block}×{block}")));
        }
        let blocks = input.f_reshape([n, channels, rows, block, columns, block])?;
        let moved = blocks.f_permute([0, 3, 5, 1, 2, 4])?;
        Ok(moved.f_reshape([n, channels * block * block, rows, columns])?)
    })
})
.shapes(rules::space_to_depth);
