//! `cargo xtask image`: the executable alone, as an image for containers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ctwatch_provision::process::root;

use super::build;
use crate::oci;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    build: build::Options,
    /// Of this executable, which is static, instead of one that is built now
    #[arg(long, value_name = "FILE")]
    executable: Option<PathBuf>,
    /// Where to write it instead
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let ctwatch = match &args.executable {
        Some(executable) => executable.clone(),
        None => build::run(&args.build)?,
    };
    let place = root().join("target/release/ctwatch-oci.tar");
    let place = args.output.clone().unwrap_or(place);
    write(&ctwatch, &place)?;
    println!("{}", place.display());
    Ok(())
}

/// Of this executable.
pub(crate) fn write(ctwatch: &Path, to: &Path) -> Result<()> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut files = vec![oci::File { path: "ctwatch", mode: 0o755, content: read(ctwatch)? }];
    for (path, license) in [
        ("usr/share/doc/ctwatch/LICENSE-APACHE", "LICENSE-APACHE"),
        ("usr/share/doc/ctwatch/LICENSE-MIT", "LICENSE-MIT"),
    ] {
        files.push(oci::File { path, mode: 0o644, content: read(&root().join(license))? });
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let image = oci::image(&files)
        .with_context(|| format!("no image can be made of {}", ctwatch.display()))?;
    fs::write(to, image).with_context(|| format!("cannot write {}", to.display()))
}
