//! Extents: polynomials over named dimensions with integer coefficients, and floor divisions of such.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What an extent is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// A dimension with a name, such as `batch`: at least 1.
    Named(Arc<str>),
    /// The extent of an axis of an input of the graph, to which the file gives no name: at least 1.
    Input(Arc<str>, usize),
    /// The extent of an axis of a value, of which nothing more is known.
    Axis(Arc<str>, usize),
    /// An element of a value, of which nothing more is known, not even its sign.
    Element(Arc<str>, usize),
    /// The floor of an extent divided by an integer of at least 2.
    Floor(Box<Extent>, i64),
}

/// Terms of a polynomial, and what it may be nested: more is not kept track of, so that no model takes much time or stack.
const MOST: usize = 32;

/// A polynomial: the coefficient of each product of atoms; products and their atoms are sorted, no coefficient is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent(BTreeMap<Vec<Atom>, i64>);

impl Atom {
    fn depth(&self) -> usize {
        match self {
            Self::Floor(of, _) => 1 + of.depth(),
            _ => 0,
        }
    }
}

impl From<i64> for Extent {
    fn from(number: i64) -> Self {
        Self(if number == 0 { BTreeMap::new() } else { BTreeMap::from([(Vec::new(), number)]) })
    }
}

impl From<Atom> for Extent {
    fn from(atom: Atom) -> Self {
        Self(BTreeMap::from([(vec![atom], 1)]))
    }
}

impl Extent {
    /// The number, where it is one.
    pub fn number(&self) -> Option<i64> {
        match self.0.iter().next() {
            None => Some(0),
            Some((atoms, &number)) => (self.0.len() == 1 && atoms.is_empty()).then_some(number),
        }
    }

    fn depth(&self) -> usize {
        self.0.keys().flatten().map(Atom::depth).max().unwrap_or(0)
    }

    /// The sum; `None`: it overflows, or is too long to be kept.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let mut sum = self.0.clone();
        for (atoms, factor) in &other.0 {
            let own = sum.entry(atoms.clone()).or_default();
            *own = own.checked_add(*factor)?;
        }
        sum.retain(|_, factor| *factor != 0);
        (sum.len() <= MOST).then_some(Self(sum))
    }

    /// The product; `None`: it overflows, or is too long to be kept.
    pub fn times(&self, other: &Self) -> Option<Self> {
        let mut product = Self::default();
        for (a, x) in &self.0 {
            for (b, y) in &other.0 {
                let mut atoms = [&a[..], &b[..]].concat();
                if atoms.len() > MOST {
                    return None;
                }
                atoms.sort();
                let term = Self(BTreeMap::from([(atoms, x.checked_mul(*y)?)]));
                product = product.plus(&term)?;
            }
        }
        Some(product)
    }

    /// The difference; `None`: it overflows, or is too long to be kept.
    pub fn minus(&self, other: &Self) -> Option<Self> {
        self.plus(&other.times(&Self::from(-1))?)
    }

    /// The floor of the quotient by a positive integer; `None`: the divisor is none, or the result is too long to be kept.
    pub fn floor_div(&self, divisor: i64) -> Option<Self> {
        if divisor < 1 {
            return None;
        }
        let (mut whole, mut rest) = (BTreeMap::new(), BTreeMap::new());
        for (atoms, factor) in &self.0 {
            let parts =
                [(&mut whole, factor.div_euclid(divisor)), (&mut rest, factor.rem_euclid(divisor))];
            for (part, factor) in parts {
                if factor != 0 {
                    part.insert(atoms.clone(), factor);
                }
            }
        }
        let (whole, rest) = (Self(whole), Self(rest));
        if rest.number().is_some() {
            // Less than the divisor.
            return Some(whole);
        }
        // ⌊(⌊a/b⌋ + c) / d⌋ is ⌊(a + b c) / (b d)⌋: what is halved many times stays one division.
        let (of, divisor) = match rest.floor_and_number() {
            Some((of, by, number)) => {
                (of.plus(&Self::from(by.checked_mul(number)?))?, by.checked_mul(divisor)?)
            }
            None => (rest, divisor),
        };
        if of.depth() >= MOST {
            return None;
        }
        whole.plus(&Atom::Floor(Box::new(of), divisor).into())
    }

    /// `a`, `b`, `c` of ⌊a/b⌋ + c.
    fn floor_and_number(&self) -> Option<(&Self, i64, i64)> {
        let number = self.0.get(&Vec::new()).copied().unwrap_or(0);
        let mut others = self.0.iter().filter(|(atoms, _)| !atoms.is_empty());
        match (others.next()?, others.next()) {
            ((atoms, 1), None) => match &atoms[..] {
                [Atom::Floor(of, by)] => Some((of, *by, number)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The ceiling of the quotient by a positive integer; `None` as of [`Self::floor_div`].
    pub fn ceil_div(&self, divisor: i64) -> Option<Self> {
        self.plus(&Self::from(divisor.checked_sub(1)?))?.floor_div(divisor)
    }

    /// The quotient, where the division leaves nothing.
    pub fn divided(&self, divisor: &Self) -> Option<Self> {
        let order = |atoms: &Vec<Atom>| (atoms.len(), atoms.clone());
        let leading = |of: &Self| {
            of.0.iter().max_by_key(|(atoms, _)| order(atoms)).map(|(a, f)| (a.clone(), *f))
        };
        let (by, factor) = leading(divisor)?;
        let (mut rest, mut quotient) = (self.clone(), Self::default());
        while let Some((mut atoms, own)) = leading(&rest) {
            if own % factor != 0 {
                return None;
            }
            for atom in &by {
                let place = atoms.iter().position(|other| other == atom)?;
                atoms.remove(place);
            }
            let term = Self(BTreeMap::from([(atoms, own / factor)]));
            rest = rest.minus(&term.times(divisor)?)?;
            quotient = quotient.plus(&term)?;
        }
        Some(quotient)
    }

    /// Whether it is at least 0 whatever its dimensions are.
    pub fn is_natural(&self) -> bool {
        let natural = |atom: &Atom| match atom {
            Atom::Named(_) | Atom::Input(..) | Atom::Axis(..) => true,
            Atom::Element(..) => false,
            Atom::Floor(of, _) => of.is_natural(),
        };
        self.0.iter().all(|(atoms, factor)| *factor > 0 && atoms.iter().all(natural))
    }
}

impl Extent {
    /// Its value, where `value` gives those of all its atoms that are no divisions; `None` on overflow too.
    pub fn evaluate(&self, value: &dyn Fn(&Atom) -> Option<i64>) -> Option<i64> {
        let of = |atom: &Atom| match atom {
            Atom::Floor(of, by) => Some(of.evaluate(value)?.div_euclid(*by)),
            other => value(other),
        };
        self.0.iter().try_fold(0_i64, |sum, (atoms, &factor)| {
            let product =
                atoms.iter().try_fold(factor, |product, atom| product.checked_mul(of(atom)?))?;
            sum.checked_add(product)
        })
    }

    /// Whether the two differ whatever their dimensions are.
    pub fn never_equals(&self, other: &Self) -> bool {
        let positive = |a: &Self, b: &Self| {
            let rest = a.minus(b).and_then(|difference| difference.minus(&Self::from(1)));
            rest.is_some_and(|rest| rest.is_natural())
        };
        positive(self, other) || positive(other, self)
    }

    /// Whether it is made of nothing but numbers and dimensions of the graph's inputs.
    pub fn is_of_inputs(&self) -> bool {
        let of_inputs = |atom: &Atom| match atom {
            Atom::Named(_) | Atom::Input(..) => true,
            Atom::Axis(..) | Atom::Element(..) => false,
            Atom::Floor(of, _) => of.is_of_inputs(),
        };
        self.0.keys().flatten().all(of_inputs)
    }

    /// Its factor and the rest as text, where it is one term: 5 and `batch` of `5 batch`.
    pub fn single_term(&self) -> Option<(i64, String)> {
        let mut terms = self.0.iter();
        match (terms.next()?, terms.next()) {
            ((atoms, &factor), None) => {
                let names: Vec<String> = atoms.iter().map(Atom::to_string).collect();
                Some((factor, names.join(" ")))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Input(name, axis) => write!(f, "{name}[{axis}]"),
            Self::Axis(..) | Self::Element(..) => f.write_str("?"),
            Self::Floor(of, by) => write!(f, "⌊({of})/{by}⌋"),
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("0");
        }
        // The number stands last: `batch + 1`.
        for (index, (atoms, &factor)) in self.0.iter().rev().enumerate() {
            let sign = match (index, factor < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            f.write_str(sign)?;
            let factor = factor.unsigned_abs();
            let names: Vec<String> = atoms.iter().map(Atom::to_string).collect();
            match (factor, names.is_empty()) {
                (_, true) => write!(f, "{factor}")?,
                (1, false) => f.write_str(&names.join(" "))?,
                (_, false) => write!(f, "{factor} {}", names.join(" "))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Extent {
        Atom::Named(name.into()).into()
    }

    fn number(number: i64) -> Extent {
        number.into()
    }

    #[test]
    fn sums_and_products_are_in_one_form() {
        let (n, h) = (named("n"), named("h"));
        let left = n.plus(&number(2)).unwrap().times(&h.minus(&number(1)).unwrap()).unwrap();
        let right = n.times(&h).unwrap().plus(&h.times(&number(2)).unwrap()).unwrap();
        let right = right.minus(&n).unwrap().minus(&number(2)).unwrap();
        assert_eq!(left, right);
        assert_eq!(n.minus(&n).unwrap().number(), Some(0));
        assert_eq!(number(i64::MAX).plus(&number(1)), None);
    }

    #[test]
    fn divisions_of_divisions_are_one_division() {
        let h = named("h");
        // Three convolutions of kernel 3, stride 2, pad 1.
        let halved = |x: &Extent| {
            x.minus(&number(1)).unwrap().floor_div(2).unwrap().plus(&number(1)).unwrap()
        };
        let eighth = halved(&halved(&halved(&h)));
        for height in 1..100 {
            let half = |x: i64| (x - 1).div_euclid(2) + 1;
            assert_eq!(eighth.evaluate(&|_| Some(height)), Some(half(half(half(height)))));
        }
        assert_eq!(eighth.to_string(), "⌊(h + 7)/8⌋");
        assert_eq!(number(7).floor_div(2).unwrap().number(), Some(3));
        assert_eq!(number(-7).floor_div(2).unwrap().number(), Some(-4));
        assert_eq!(number(7).ceil_div(2).unwrap().number(), Some(4));
        assert_eq!(h.times(&number(6)).unwrap().floor_div(3), h.times(&number(2)));
    }

    #[test]
    fn exact_quotients() {
        let (n, h) = (named("n"), named("h"));
        let product = n.times(&h).unwrap().times(&number(49)).unwrap();
        assert_eq!(product.divided(&n.times(&number(7)).unwrap()), h.times(&number(7)));
        assert_eq!(product.divided(&number(5)), None);
        assert_eq!(product.divided(&number(0)), None);
        assert_eq!(n.divided(&h), None);
    }

    #[test]
    fn what_is_certain_to_differ() {
        let n = named("n");
        assert!(n.never_equals(&number(-1)));
        assert!(!n.never_equals(&number(5)));
        assert!(number(3).never_equals(&number(4)));
        assert!(n.plus(&number(2)).unwrap().never_equals(&n));
        let element: Extent = Atom::Element("x".into(), 0).into();
        assert!(!element.never_equals(&number(-1)));
    }

    #[test]
    fn long_and_deep_ones_are_given_up() {
        let mut sum = number(0);
        let long = (0..100).try_for_each(|i| {
            sum = sum.plus(&named(&i.to_string()))?;
            Some(())
        });
        assert!(long.is_none());
        let mut deep = named("h");
        let deep = (0..100).try_for_each(|_| {
            deep = deep.floor_div(2)?.times(&named("h"))?;
            Some(())
        });
        assert!(deep.is_none());
    }
}
