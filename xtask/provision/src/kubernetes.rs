//! kubectl, helm and the schemas of Kubernetes' objects, all of one version.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::Thing;

pub const VERSION: &str = "1.37";
/// Files of the folder.
pub const PROGRAMS: [&str; 2] = ["kubectl", "helm"];
/// A folder of it: a file for each kind of object.
pub const SCHEMAS: &str = "schemas";

/// The folder.
pub fn provide() -> Result<PathBuf> {
    Thing::Kubernetes.provide().context("kubectl and helm could not be had")
}
