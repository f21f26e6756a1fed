//! The package, installed in a clean Debian and run as its unit: a virtual machine that systemd starts in.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use ctwatch_provision::{
    debian,
    process::{output, root},
};

use super::build::Inside;
use crate::{
    summary::{Counts, result},
    vm::{image::Job, machine::Clock, parts::Parts},
};

/// Debian 12's own; whatever Debian this machine has, its systemd runs on it.
pub(crate) const KERNEL: &str = "6.1";
/// On a machine that does much else. What does not come within the tests' own patience fails sooner.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// Where the packages are in the machine, by what the tests are told of them.
const PACKAGES: [(&str, &str); 2] =
    [("CTWATCH_DEB", "/job/ctwatch.deb"), ("CTWATCH_DEB_LATER", "/job/later.deb")];
/// Units of Debian's that have nothing to do here: an empty file in their place is a unit that cannot be started.
const MASKED: [&str; 7] = [
    "getty.target",
    "getty-static.service",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-timesyncd.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount",
];

/// What it takes.
pub(crate) struct Installed<'a> {
    pub(crate) tests: &'a Path,
    pub(crate) inside: &'a Inside,
    /// The folder that `cargo xtask dist` makes.
    pub(crate) packages: &'a Path,
    pub(crate) filter: Option<&'a str>,
}

impl Installed<'_> {
    /// What the tests print, as they print it, and what it comes to.
    pub(crate) fn run(&self, mut each: impl FnMut(&str)) -> Result<(Counts, bool)> {
        let parts = Parts::provide(&[KERNEL.to_owned()])?;
        let kernel = parts.kernels().first().context("no kernel")?;
        let deb = package(self.packages)?;
        let later = later(&deb)?;
        let mut argv = vec!["/job/installed".to_owned(), "--test-threads=1".to_owned()];
        argv.extend(self.filter.map(str::to_owned));
        let [(_, at), (_, later_at)] = PACKAGES;
        let job = Job {
            argv,
            env: PACKAGES.map(|(name, at)| (name.to_owned(), at.to_owned())).to_vec(),
            modules: Vec::new(),
            files: vec![
                (self.tests.to_owned(), "job/installed".to_owned()),
                (deb, at.to_owned()),
                (later, later_at.to_owned()),
            ],
            texts: MASKED
                .map(|unit| (format!("etc/systemd/system/{unit}"), String::new()))
                .to_vec(),
            possible_cpus: None,
            system: Some(debian::provide()?),
        };
        let mut counts = Counts::default();
        let code = parts.run_one(
            kernel,
            "installed",
            Clock::Real,
            &self.inside.init,
            &job,
            PATIENCE,
            |line| {
                counts.add(result(line).unwrap_or_default());
                each(line);
            },
        )?;
        Ok((counts, code == 0))
    }
}

fn package(folder: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let mut debs = files.filter(|file| file.extension().is_some_and(|ending| ending == "deb"));
    debs.next().with_context(|| format!("no .deb in {}", folder.display()))
}

/// The same package, of a version that comes after it.
fn later(deb: &Path) -> Result<PathBuf> {
    let folder = root().join("target/deploy/later");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    output(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(&folder))?;
    let control = folder.join("DEBIAN/control");
    let fields = fs::read_to_string(&control)?;
    let fields = fields.lines().map(|line| match line.strip_prefix("Version: ") {
        Some(version) => format!("Version: {version}+later\n"),
        None => format!("{line}\n"),
    });
    fs::write(&control, fields.collect::<String>())?;
    let later = folder.with_extension("deb");
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Zgzip", "-z1", "--build"]).arg(&folder).arg(&later);
    output(&mut build)?;
    Ok(later)
}
