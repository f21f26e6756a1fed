//! sos, which makes the archives that support teams ask for. It is laid over the root file system of
//! [`crate::owners`], which has Python and the programs that it calls.

use std::path::PathBuf;

use anyhow::Result;

use crate::Thing;

/// What is laid over it.
pub fn provide() -> Result<PathBuf> {
    Thing::Sos.provide()
}
