//! Products of matrices.

use std::collections::HashMap;

use super::super::Extent;
use super::super::fact::{Asked, Fact, must_equal, shown};
use super::elementwise::joined;
use crate::{Error, Result};

/// Gemm: `[M, K]`, `[K, N]` to `[M, N]`, each transposed where its attribute says so.
pub fn gemm(asked: &Asked) -> Result<Vec<Fact>> {
    let transposed = |name| Ok::<_, Error>(asked.node.int(name, 0)? != 0);
    let sides = |index: usize, transposed: bool| match asked.shape(index) {
        None => Ok(None),
        Some([a, b]) if transposed => Ok(Some((b, a))),
        Some([a, b]) => Ok(Some((a, b))),
        Some(shape) => {
            Err(Error::user(format!("input {index} of shape {}, expected a matrix", shown(shape))))
        }
    };
    let (a, b) = (sides(0, transposed("transA")?)?, sides(1, transposed("transB")?)?);
    if let (Some((_, inner)), Some((other, _))) = (a, b) {
        fit(asked, inner, other)?;
    }
    let rows = a.map_or_else(|| asked.free(0, 0), |a| a.0.clone());
    let columns = b.map_or_else(|| asked.free(0, 1), |b| b.1.clone());
    Ok(vec![Fact::shaped(vec![rows, columns])])
}

fn fit(asked: &Asked, inner: &Extent, other: &Extent) -> Result<()> {
    must_equal(inner, other, || {
        let of = |index| asked.shape(index).map_or_else(String::new, shown);
        format!("a product of {} and {}: {inner} and {other} differ", of(0), of(1))
    })
}

/// MatMul, as NumPy's.
pub fn matmul(asked: &Asked) -> Result<Vec<Fact>> {
    product_of(asked, 0, 1)
}

/// QLinearMatMul: scales and zero points stand between the two.
pub fn qlinear_matmul(asked: &Asked) -> Result<Vec<Fact>> {
    product_of(asked, 0, 3)
}

fn product_of(asked: &Asked, first: usize, second: usize) -> Result<Vec<Fact>> {
    let (Some(a), Some(b)) = (asked.shape(first), asked.shape(second)) else {
        return Ok(vec![Fact::default()]);
    };
    let (Some(inner), false) = (a.last(), b.is_empty()) else {
        return Err(Error::user("a product with a scalar"));
    };
    let other = &b[b.len().saturating_sub(2)];
    must_equal(inner, other, || {
        format!("a product of {} and {}: {inner} and {other} differ", shown(a), shown(b))
    })?;
    let stack = |shape: &[Extent]| shape[..shape.len().saturating_sub(2)].to_vec();
    let mut shape = joined(asked, &stack(a), &stack(b))?;
    if a.len() > 1 {
        shape.push(a[a.len() - 2].clone());
    }
    if b.len() > 1 {
        shape.push(b[b.len() - 1].clone());
    }
    Ok(vec![Fact::shaped(shape)])
}

/// Einsum, of equations without ellipses.
pub fn einsum(asked: &Asked) -> Result<Vec<Fact>> {
    let equation: String =
        asked.node.text("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let Some((inputs, output)) = equation.split_once("->").filter(|_| !equation.contains('.'))
    else {
        return Ok(vec![Fact::default()]);
    };
    let mut extents: HashMap<char, Extent> = HashMap::new();
    for (index, labels) in inputs.split(',').enumerate() {
        let Some(shape) = asked.shape(index) else { return Ok(vec![Fact::default()]) };
        if labels.chars().count() != shape.len() {
            return Err(Error::user(format!(
                "`{labels}` of `equation` for a shape {}",
                shown(shape)
            )));
        }
        for (label, extent) in labels.chars().zip(shape) {
            let known = extents.entry(label).or_insert_with(|| extent.clone());
            if known.number() == Some(1) {
                *known = extent.clone();
            } else if extent.number() != Some(1) {
                must_equal(known, extent, || {
                    format!("`{label}` of `equation` is {known} and {extent}")
                })?;
            }
        }
    }
    let shape: Option<Vec<Extent>> =
        output.chars().map(|label| extents.get(&label).cloned()).collect();
    Ok(vec![Fact { shape, elements: None }])
}
