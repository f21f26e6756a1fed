//! Rendering what was seen. Nothing here measures or computes what is shown.

pub mod aside;
mod drop;
pub mod escape;
pub mod html;
pub mod json;
pub mod openmetrics;
pub mod services;
mod taken;
pub mod text;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod golden;

pub use drop::DropLine;
