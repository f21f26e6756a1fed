//! prometheus_client from PyPI: a package that needs no other.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use ctwatch_provision::{Thing, process::output, prometheus_client::VERSION};

use super::{Of, Store, pypi, say};

/// Of the archive of that version. pip takes no other.
const SHA256: &str = "fa93d06737aa02bacd05794768508bb97d2fbee28cb3bca04eaae92f0ca953d6";
/// The part of it that is Python's.
const PACKAGE: &str = "prometheus_client";

pub(super) fn provide(store: &Store) -> Result<()> {
    store
        .folder(&Thing::PrometheusClient, Of::Itself, unpack)
        .context("cannot fetch prometheus_client from PyPI, which takes python3 with pip")
}

fn unpack(dir: &Path) -> Result<()> {
    say(&format!("fetching prometheus_client {VERSION} from PyPI, for target/ only"));
    let files = pypi::unpack(dir, &format!("prometheus-client=={VERSION}"), &[SHA256])?;
    fs::rename(files.join(PACKAGE), dir.join(PACKAGE)).context("the package holds no Python")?;
    fs::remove_dir_all(&files)?;
    let reads = "from prometheus_client.openmetrics import parser";
    output(Command::new("python3").args(["-c", reads]).env("PYTHONPATH", dir)).map(|_| ())
}
