//! The operators of the standard's own domain, one file each, named as the operator in small letters.
//!
//! A file says what the operator computes, where it is specified, the opsets in which it changed and what of
//! it is refused; its `OP` reads a node's attributes once and gives the kernel that runs it. A new operator
//! is one file and one line below. (`make fmt` names these files to rustfmt, which does not look into macros.)

use super::Op;

macro_rules! operators {
    ($($file:ident)*) => {
        $(mod $file;)*
        /// Each file's operator.
        pub const ALL: &[&Op] = &[$(&$file::OP),*];
    };
}

operators! {
    not
}
