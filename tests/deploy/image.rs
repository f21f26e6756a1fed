//! The image for containers, as those who run one read it.

use std::{env::var_os, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Needs, Test, said};

const IMAGE: Needs = Needs::Variable("CTWATCH_IMAGE");

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "skopeo_copies_the_image",
        needs: &[IMAGE, Needs::Program("skopeo")],
        run: copied,
    },
    Test {
        name: "umoci_unpacks_the_image",
        needs: &[IMAGE, Needs::Program("umoci")],
        run: unpacked,
    },
];

fn image() -> Result<PathBuf> {
    Ok(var_os("CTWATCH_IMAGE").context("no image")?.into())
}

fn copied() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = format!("oci-archive:{}", image()?.display());
    let skopeo = |args: &[&str]| -> Result<String> {
        let mut skopeo = Command::new("skopeo");
        said(skopeo.args(["--insecure-policy", "--tmpdir"]).arg(folder.path()).args(args))
    };
    let config: Value = serde_json::from_str(&skopeo(&["inspect", "--config", &archive])?)?;
    ensure!(config["os"] == "linux", "{config}");
    ensure!(config["config"]["Entrypoint"] == json!(["/ctwatch"]), "{config}");
    ensure!(config["config"]["Cmd"] == json!(["serve"]), "{config}");
    // It reads all, and compares the checksums.
    let to = format!("dir:{}", folder.path().join("copy").display());
    skopeo(&["copy", "--quiet", &archive, &to]).map(|_| ())
}

fn unpacked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (layout, bundle) = (folder.path().join("layout"), folder.path().join("bundle"));
    fs::create_dir(&layout)?;
    said(Command::new("tar").arg("-xf").arg(image()?).arg("-C").arg(&layout))?;
    let name = format!("{}:{}", layout.display(), env!("CARGO_PKG_VERSION"));
    said(Command::new("umoci").args(["unpack", "--rootless", "--image", &name]).arg(&bundle))?;
    let rootfs = bundle.join("rootfs");
    let program = rootfs.join("ctwatch");
    let ours = var_os("CTWATCH_BIN").context("no ctwatch")?;
    ensure!(fs::read(&program)? == fs::read(ours)?, "another program is in it");
    let mut top: Vec<_> = fs::read_dir(&rootfs)?.flatten().map(|entry| entry.file_name()).collect();
    top.sort();
    ensure!(top == ["ctwatch", "usr"], "{top:?}");
    // Alone: no library, no shell, no file beside it.
    if rustix::process::geteuid().is_root() {
        let version = said(Command::new("chroot").arg(&rootfs).args(["/ctwatch", "--version"]))?;
        ensure!(version.starts_with("ctwatch "), "{version}");
    }
    Ok(())
}
