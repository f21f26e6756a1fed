//! One file per command.

pub(crate) mod build;
pub(crate) mod lint;
pub(crate) mod run;
pub(crate) mod test;
