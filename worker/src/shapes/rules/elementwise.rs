//! Element by element, with broadcasting.

use super::super::Extent;
use super::super::fact::{Asked, Fact, shown};
use crate::{Error, Result};

/// The first input's shape and elements: Identity and its like.
pub fn same(asked: &Asked) -> Result<Vec<Fact>> {
    Ok(vec![asked.inputs.first().cloned().unwrap_or_default()])
}

/// The first input's shape, its elements changed.
pub fn same_as_first(asked: &Asked) -> Result<Vec<Fact>> {
    Ok(vec![Fact { elements: None, ..asked.inputs.first().cloned().unwrap_or_default() }])
}

/// The first input's shape, and two single numbers, scale and zero point: DynamicQuantizeLinear.
pub fn quantized_with_parameters(asked: &Asked) -> Result<Vec<Fact>> {
    let single = Fact { shape: Some(Vec::new()), ..Fact::default() };
    Ok([same_as_first(asked)?, vec![single.clone(), single]].concat())
}

/// The first input's shape, and again for the mask: Dropout.
pub fn dropout(asked: &Asked) -> Result<Vec<Fact>> {
    let input = asked.inputs.first().cloned().unwrap_or_default();
    Ok(vec![input.clone(), Fact { elements: None, ..input }])
}

/// Cast: elements stay what they are where they are whole numbers of at least 32 bits.
pub fn cast(asked: &Asked) -> Result<Vec<Fact>> {
    // 6, 7: int32, int64. As a name in opset 1, which is not worth reading.
    let whole = asked.opset >= 6 && matches!(asked.node.int("to", 0)?, 6 | 7);
    if whole { same(asked) } else { same_as_first(asked) }
}

/// All inputs broadcast.
pub fn broadcast(asked: &Asked) -> Result<Vec<Fact>> {
    if asked.opset < 7 && asked.node.attributes.contains_key("broadcast") {
        return same_as_first(asked);
    }
    let mut shape = match asked.shape(0) {
        Some(shape) => shape.to_vec(),
        None => return Ok(vec![Fact::default()]),
    };
    for index in 1..asked.inputs.len() {
        let Some(other) = asked.shape(index) else { return Ok(vec![Fact::default()]) };
        shape = joined(asked, &shape, other)?;
    }
    Ok(vec![Fact::shaped(shape)])
}

/// The broadcast of two shapes.
pub(super) fn joined(asked: &Asked, a: &[Extent], b: &[Extent]) -> Result<Vec<Extent>> {
    let rank = a.len().max(b.len());
    let one = Extent::from(1);
    let at = |shape: &[Extent], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .map_or_else(|| one.clone(), |axis| shape[axis].clone())
    };
    (0..rank)
        .map(|axis| {
            let (x, y) = (at(a, axis), at(b, axis));
            Ok(match (x.number(), y.number()) {
                _ if x == y => x,
                (Some(1), _) => y,
                (_, Some(1)) => x,
                (Some(_), Some(_)) => {
                    return Err(Error::user(format!(
                        "shapes {} and {} do not broadcast",
                        shown(a),
                        shown(b)
                    )));
                }
                // The other is the same, or 1.
                (Some(_), None) => x,
                (None, Some(_)) => y,
                (None, None) => asked.free(0, axis),
            })
        })
        .collect()
}

/// Elements of inputs, each as many as the result has: a single one goes with all of the others, which are of one shape.
fn aligned<'a, const N: usize>(
    asked: &'a Asked,
    inputs: [usize; N],
) -> Option<Vec<[&'a Extent; N]>> {
    let several =
        inputs.iter().filter(|&&index| asked.elements(index).is_some_and(|e| e.len() != 1));
    let mut shapes = several.map(|&index| asked.shape(index));
    if let Some(first) = shapes.next()
        && shapes.any(|shape| shape != first)
    {
        return None;
    }
    let counts = inputs.map(|index| asked.elements(index).map(<[Extent]>::len));
    let count = counts
        .into_iter()
        .try_fold(1, |most, count| Some(if count? == 1 { most } else { count? }))?;
    (0..count)
        .map(|place| {
            let at = inputs.map(|index| {
                let elements = asked.elements(index)?;
                elements.get(if elements.len() == 1 { 0 } else { place })
            });
            at.into_iter().collect::<Option<Vec<_>>>()?.try_into().ok()
        })
        .collect()
}

fn arithmetic(
    asked: &Asked,
    run: impl Fn(&Extent, &Extent) -> Option<Extent>,
) -> Result<Vec<Fact>> {
    let mut facts = broadcast(asked)?;
    facts[0].elements =
        aligned(asked, [0, 1]).and_then(|all| all.into_iter().map(|[a, b]| run(a, b)).collect());
    Ok(facts)
}

/// Add.
pub fn add(asked: &Asked) -> Result<Vec<Fact>> {
    arithmetic(asked, Extent::plus)
}

/// Sub.
pub fn subtract(asked: &Asked) -> Result<Vec<Fact>> {
    arithmetic(asked, Extent::minus)
}

/// Mul.
pub fn multiply(asked: &Asked) -> Result<Vec<Fact>> {
    arithmetic(asked, Extent::times)
}

/// Div: of whole numbers the quotient is cut towards 0, which is its floor where it is not negative.
pub fn divide(asked: &Asked) -> Result<Vec<Fact>> {
    arithmetic(asked, |a, b| {
        if b.number() != Some(0)
            && let Some(quotient) = a.divided(b)
        {
            return Some(quotient);
        }
        if a.is_natural() { a.floor_div(b.number()?) } else { None }
    })
}

/// Mod: of numbers, with the divisor's sign or with the dividend's.
pub fn modulo(asked: &Asked) -> Result<Vec<Fact>> {
    let sign_of_dividend = asked.node.int("fmod", 0)? != 0;
    arithmetic(asked, |a, b| {
        let (a, b) = (a.number()?, b.number()?);
        let rest = a.checked_rem(b)?;
        let moved = !sign_of_dividend && rest != 0 && (rest < 0) != (b < 0);
        Some(if moved { rest + b } else { rest }.into())
    })
}

/// Equal.
pub fn equal(asked: &Asked) -> Result<Vec<Fact>> {
    arithmetic(asked, |a, b| {
        if a == b {
            Some(1.into())
        } else if a.never_equals(b) {
            Some(0.into())
        } else {
            None
        }
    })
}

/// Not.
pub fn not(asked: &Asked) -> Result<Vec<Fact>> {
    let mut facts = same(asked)?;
    let inverse = |element: &Extent| Extent::from(1).minus(element);
    facts[0].elements =
        asked.elements(0).and_then(|elements| elements.iter().map(inverse).collect());
    Ok(facts)
}

/// Where.
pub fn where_(asked: &Asked) -> Result<Vec<Fact>> {
    let mut facts = broadcast(asked)?;
    let choose = |[condition, a, b]: [&Extent; 3]| {
        Some(if condition.number()? == 0 { b.clone() } else { a.clone() })
    };
    facts[0].elements =
        aligned(asked, [0, 1, 2]).and_then(|all| all.into_iter().map(choose).collect());
    Ok(facts)
}
