//! Debian packages, unpacked instead of installed: private package lists, no root.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::{Store, say};
use crate::process::{find, output, run};

pub(super) struct Apt<'a> {
    store: &'a Store,
}

impl<'a> Apt<'a> {
    /// Private package lists, fetched where there are none yet.
    pub(super) fn open(store: &'a Store) -> Result<Self> {
        ensure!(
            find("apt-get").is_some() && find("dpkg").is_some(),
            "this machine has no apt-get and dpkg"
        );
        let apt = Self { store };
        let lists = store.folder("apt", |dir| {
            say("fetching Debian's package lists (about 14 MB)");
            for folder in ["lists/partial", "cache/archives/partial"] {
                fs::create_dir_all(dir.join(folder))?;
            }
            run(apt.command("apt-get", dir).args(["-qq", "update"]))
        });
        lists.context("cannot fetch package lists")?;
        Ok(apt)
    }

    fn command(&self, program: &str, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-o")
            .arg(format!("Dir::State::Lists={}", dir.join("lists").display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", dir.join("cache").display()))
            // The locks are root's; ours is on target/provision.
            .args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"])
            .env("LC_ALL", "C");
        command
    }

    fn ask(&self, program: &str, args: &[&str]) -> Result<String> {
        output(self.command(program, &self.store.path("apt")).args(args))
    }

    /// All packages that `package` depends on, in any number of steps.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let text = self.ask(
            "apt-cache",
            &[
                "depends",
                "--recurse",
                "--no-recommends",
                "--no-suggests",
                "--no-conflicts",
                "--no-breaks",
                "--no-replaces",
                "--no-enhances",
                package,
            ],
        )?;
        Ok(packages_at_line_start(&text))
    }

    /// What would have to be installed so that these packages work here.
    pub(super) fn missing_for(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut args = vec!["-s", "install", "--no-install-recommends"];
        args.extend(packages);
        Ok(to_be_installed(&self.ask("apt-get", &args)?))
    }

    /// Downloads the packages and unpacks them below `root`.
    pub(super) fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        let archives = root.join("archives.partial");
        fs::create_dir_all(&archives)?;
        run(self
            .command("apt-get", &self.store.path("apt"))
            .args(["-qq", "download"])
            .args(packages)
            .current_dir(&archives))
        .with_context(|| {
            format!(
                "cannot download {}; if the package lists are old, remove {}",
                packages.join(" "),
                self.store.path("apt").display()
            )
        })?;
        let mut unpacked = 0;
        for archive in fs::read_dir(&archives)? {
            let archive = archive?.path();
            if archive.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg").arg("-x").arg(&archive).arg(root))?;
                unpacked += 1;
            }
        }
        if unpacked != packages.len() {
            bail!("{} packages were asked for, {unpacked} came", packages.len());
        }
        fs::remove_dir_all(&archives).context("cannot remove downloaded archives")
    }
}

/// `apt-cache depends` writes each package at the start of a line and what it needs indented;
/// `<virtual>` packages are nothing that can be fetched.
fn packages_at_line_start(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with([' ', '<', '|']));
    lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// `Inst nftables (1.0.6-2 Debian:12.5/stable [amd64])`
fn to_be_installed(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_the_lines_that_are_not_indented() {
        let text = "rustc-web\n  Depends: libc6\n |Depends: x\nlibllvm22\n<virtual>\n";
        assert_eq!(packages_at_line_start(text), ["rustc-web", "libllvm22"]);
    }

    #[test]
    fn a_simulated_installation_names_its_packages() {
        let text = "Reading package lists...\nInst nftables (1.0.6-2 Debian)\nConf nftables (x)\n";
        assert_eq!(to_be_installed(text), ["nftables"]);
    }
}
