//! The form in which a Q/DQ model is exported for a runtime, one file each.

mod means;
mod onnxruntime;
mod rows;
mod signs;
mod table;
mod tensorrt;
#[cfg(test)]
mod tests;
mod weights;

pub use rows::keep_products;
pub use table::finalize;
pub use weights::store_weights;
