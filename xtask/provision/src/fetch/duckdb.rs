//! DuckDB's command line from PyPI.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::{
    Thing,
    duckdb::{PROGRAM, VERSION},
    process::output,
};

use super::{Of, Store, pypi, say};

/// Of the archives of that version: for x86_64, and for aarch64. pip takes no other.
const SHA256: [&str; 2] = [
    "9797555bd39095d730eb0d0b3bf29e95e148c96a4cdce1e363f01c7bf7003a44",
    "9b03301a14310a4ef7f86386e87b36954fe099ed762c8a81f94f7bd0ba073542",
];

pub(super) fn provide(store: &Store) -> Result<()> {
    store
        .folder(&Thing::DuckDb, Of::Itself, unpack)
        .context("cannot fetch DuckDB from PyPI, which takes python3 with pip")
}

fn unpack(dir: &Path) -> Result<()> {
    say(&format!("fetching DuckDB {VERSION} from PyPI, for target/ only: 21 MB, 62 MB unpacked"));
    let files = pypi::unpack(dir, &format!("duckdb-cli=={VERSION}"), &SHA256)?;
    let program = dir.join(PROGRAM);
    fs::rename(files.join("duckdb_cli").join(PROGRAM), &program)
        .context("the package holds no program")?;
    fs::remove_dir_all(&files)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let said = output(Command::new(&program).arg("--version"))?;
    ensure!(said.contains(&format!("v{VERSION} ")), "PyPI brought {said}");
    Ok(())
}
