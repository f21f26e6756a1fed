//! DuckDB's command line, of one version: what it answers must not depend on when it was fetched.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::Thing;

pub const VERSION: &str = "1.5.6";
/// The file in the folder.
pub const PROGRAM: &str = "duckdb";

pub fn provide() -> Result<PathBuf> {
    let folder = Thing::DuckDb.provide().context("DuckDB could not be had")?;
    Ok(folder.join(PROGRAM))
}
