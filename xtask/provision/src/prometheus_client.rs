//! Prometheus' own reader of metrics in Python, of one version: it judges what `ctwatch serve` serves.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::Thing;

pub const VERSION: &str = "0.26.0";

/// The folder that Python is to look into.
pub fn provide() -> Result<PathBuf> {
    Thing::PrometheusClient.provide().context("prometheus_client could not be had")
}
