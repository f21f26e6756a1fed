//! Virtual machines for other kernels than this machine's: an image in memory, one job, a verdict.

pub(crate) mod image;
pub(crate) mod machine;
pub(crate) mod parts;
