//! `DepthToSpace`: `[N, C b², H, W]` to `[N, C, H b, W b]`.
//! <https://onnx.ai/onnx/operators/onnx__DepthToSpace.html>
//!
//! Opsets: 1, 11 (`mode`), 13.

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::ops::window::block_size;
use crate::shapes::rules;

pub const OP: Op = Op::new("DepthToSpace", &[1, 11, 13], |prepare| {
    let block = block_size(prepare.node)?;
    // Which part of the channels counts the columns and rows of a block: the first or the last.
    let columns_first = match prepare.node.text("mode", "DCR")? {
        "DCR" => true,
        "CRD" => false,
        other => return Err(Error::user(format!("`mode` = {other} is not defined"))),
    };
    single(move |a| {
        let input = a.get(0)?;
        let size = input.size();
        let &[n, channels, height, width] = &size[..] else {
            return Err(Error::user(format!("an input of shape {size:?}, expected [N, C, H, W]")));
        };
        let rest = channels / (block * block);
        if rest * block * block != channels {
            return Err(Error::user(format!("{channels} channels for blocks of {block}×{block}")));
        }
        let (split, order) = if columns_first {
            ([n, block, block, rest, height, width], [0, 3, 4, 1, 5, 2])
        } else {
            ([n, rest, block, block, height, width], [0, 1, 4, 2, 5, 3])
        };
        let moved = input.f_reshape(split)?.f_permute(order)?;
        Ok(moved.f_reshape([n, rest, height * block, width * block])?)
    })
})
.shapes(rules::depth_to_space);
