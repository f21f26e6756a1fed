//! One file per command.

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod dist;
pub(crate) mod fuzz;
pub(crate) mod image;
pub(crate) mod installed;
pub(crate) mod lab;
pub(crate) mod lint;
pub(crate) mod live;
pub(crate) mod matrix;
pub(crate) mod release;
pub(crate) mod run;
pub(crate) mod test;
pub(crate) mod vm;
