//! The plan as a standalone SVG: layered from left to right, light and dark.

mod draw;
mod layers;
mod layout;
mod order;
mod place;
