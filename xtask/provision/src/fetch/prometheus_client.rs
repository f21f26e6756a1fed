//! prometheus_client from PyPI: a package that needs no other.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::{
    Thing,
    process::{find, output, run},
    prometheus_client::VERSION,
};

use super::{Of, Store, say};

/// Of the archive of that version. pip takes no other.
const SHA256: &str = "fa93d06737aa02bacd05794768508bb97d2fbee28cb3bca04eaae92f0ca953d6";

pub(super) fn provide(store: &Store) -> Result<()> {
    store
        .folder(&Thing::PrometheusClient, Of::Itself, unpack)
        .context("cannot fetch prometheus_client from PyPI, which takes python3 with pip")
}

fn unpack(dir: &Path) -> Result<()> {
    ensure!(find("python3").is_some(), "this machine has no python3");
    say(&format!("fetching prometheus_client {VERSION} from PyPI, for target/ only"));
    let wanted = dir.join("requirements.txt");
    fs::write(&wanted, format!("prometheus-client=={VERSION} --hash=sha256:{SHA256}\n"))?;
    let archives = dir.join("archives");
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement"])
        .arg(&wanted)
        .arg("--dest")
        .arg(&archives))?;
    let archive = fs::read_dir(&archives)?.flatten().next().context("pip downloaded nothing")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(archive.path()).arg(dir))?;
    fs::remove_dir_all(&archives)?;
    let reads = "from prometheus_client.openmetrics import parser";
    output(Command::new("python3").args(["-c", reads]).env("PYTHONPATH", dir)).map(|_| ())
}
