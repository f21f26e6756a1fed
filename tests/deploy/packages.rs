//! Packages for distributions: what is in them, and what they leave.

use std::{
    env::var_os,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Needs, Test, read, root, said};

/// A folder of `cargo xtask dist`, and one that was made of the same after it.
pub(crate) const PACKAGES: Needs = Needs::Variable("CTWATCH_DIST");
const AGAIN: Needs = Needs::Variable("CTWATCH_DIST_AGAIN");
const PROGRAM: Needs = Needs::Variable("CTWATCH_BIN");
const DPKG: Needs = Needs::Program("dpkg");

pub(crate) const TESTS: &[Test] = &[
    Test { name: "packages_are_the_same_twice", needs: &[PACKAGES, AGAIN], run: same },
    Test { name: "a_package_comes_and_goes", needs: &[PACKAGES, DPKG], run: comes_and_goes },
    Test { name: "a_package_changes_no_setting", needs: &[PACKAGES, DPKG], run: no_setting },
    Test { name: "the_list_of_what_is_linked_is_whole", needs: &[PACKAGES], run: linked },
    Test { name: "it_runs_without_being_installed", needs: &[PROGRAM], run: without_installing },
    Test { name: "bash_completes_verbs_and_options", needs: &[PACKAGES, DPKG], run: completes },
];

pub(crate) fn folder() -> Result<PathBuf> {
    Ok(var_os("CTWATCH_DIST").context("no packages")?.into())
}

fn of_kind(ending: &str) -> Result<PathBuf> {
    let files = fs::read_dir(folder()?)?.flatten().map(|entry| entry.path());
    let mut found = files.filter(|file| file.to_string_lossy().ends_with(ending));
    found.next().with_context(|| format!("no {ending}"))
}

fn same() -> Result<()> {
    let sums = read(&folder()?.join("SHA256SUMS"))?;
    let again = PathBuf::from(var_os("CTWATCH_DIST_AGAIN").context("no second time")?);
    ensure!(sums == read(&again.join("SHA256SUMS"))?, "{sums}");
    ensure!(sums.lines().count() == 7, "{sums}");
    for kind in [".deb", ".rpm", ".apk", ".ipk", "-oci.tar", ".cdx.json"] {
        ensure!(sums.lines().filter(|line| line.ends_with(kind)).count() == 1, "{kind}: {sums}");
    }
    let mut check = Command::new("sha256sum");
    said(check.current_dir(folder()?).args(["--check", "--quiet", "SHA256SUMS"])).map(|_| ())
}

/// A root of its own, with dpkg's database and nothing else.
struct CleanRoot(tempfile::TempDir);

impl CleanRoot {
    fn new() -> Result<Self> {
        let root = tempfile::tempdir()?;
        for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
            fs::create_dir_all(root.path().join(folder))?;
        }
        fs::write(root.path().join("var/lib/dpkg/status"), "")?;
        Ok(Self(root))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dpkg(&self, args: &[&str], package: &Path) -> Result<String> {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--root").arg(self.0.path()).arg("--log=/dev/null");
        // There is no shell in it: the package's scripts are run outside, and know where by DPKG_ROOT.
        dpkg.args(["--force-not-root", "--force-script-chrootless", "--force-bad-path"]);
        said(dpkg.args(args).arg(package))
    }
}

/// Installed, upgraded, removed and purged; what the operator recorded stays.
fn comes_and_goes() -> Result<()> {
    let root = CleanRoot::new()?;
    let deb = of_kind(".deb")?;
    root.dpkg(&["--install"], &deb)?;
    let program = root.path("usr/bin/ctwatch");
    let version = said(Command::new(&program).arg("--version"))?;
    ensure!(version.trim() == concat!("ctwatch ", env!("CARGO_PKG_VERSION")), "{version}");
    let there = [
        "usr/share/man/man8/ctwatch.8.gz",
        "usr/share/man/man8/ctwatch-doctor.8.gz",
        "usr/share/man/man5/ctwatch-record.5.gz",
        "usr/share/bash-completion/completions/ctwatch",
        "usr/share/zsh/vendor-completions/_ctwatch",
        "usr/share/fish/vendor_completions.d/ctwatch.fish",
        "usr/lib/systemd/system/ctwatch.service",
        "usr/lib/systemd/system-preset/50-ctwatch.preset",
        "usr/share/doc/ctwatch/copyright",
        "usr/share/doc/ctwatch/changelog.gz",
    ];
    for path in there {
        ensure!(root.path(path).is_file(), "no {path}");
    }
    // Off until the operator says otherwise.
    ensure!(!root.path("etc/systemd").exists(), "a unit is enabled");
    let segment = root.path("var/lib/ctwatch/ctwatch-000001-20261126T030000Z.ndjson.gz");
    fs::create_dir_all(segment.parent().context("no folder")?)?;
    fs::write(&segment, "recorded")?;
    root.dpkg(&["--install"], &deb)?;
    ensure!(read(&segment)? == "recorded", "an upgrade touched it");
    root.dpkg(&["--remove"], Path::new("ctwatch"))?;
    ensure!(!program.exists() && read(&segment)? == "recorded", "it is not as it was");
    root.dpkg(&["--purge"], Path::new("ctwatch"))?;
    ensure!(read(&segment)? == "recorded", "a purge touched it");
    for path in there {
        ensure!(!root.path(path).exists(), "{path} is left");
    }
    Ok(())
}

fn no_setting() -> Result<()> {
    let listed = said(Command::new("dpkg-deb").arg("--contents").arg(of_kind(".deb")?))?;
    for folder in ["etc/", "sysctl.d", "modprobe.d", "modules-load.d", "cron", "rc.d"] {
        ensure!(!listed.contains(folder), "{folder}: {listed}");
    }
    // One that anybody but root may write is another's.
    ensure!(!listed.lines().any(|line| line.get(8..9) == Some("w")), "{listed}");
    ensure!(listed.lines().all(|line| line.contains("root/root")), "{listed}");
    Ok(())
}

fn linked() -> Result<()> {
    let sbom: Value = serde_json::from_str(&read(&of_kind(".cdx.json")?)?)?;
    ensure!(sbom["bomFormat"] == "CycloneDX" && sbom["specVersion"] == "1.6", "{sbom}");
    let components = sbom["components"].as_array().context("nothing is linked")?;
    let names: Vec<&str> = components.iter().filter_map(|one| one["name"].as_str()).collect();
    for name in ["aya", "clap", "tokio", "serde_json", "ring", "rustls"] {
        ensure!(names.contains(&name), "no {name}: {names:?}");
    }
    let root = CleanRoot::new()?;
    root.dpkg(&["--install"], &of_kind(".deb")?)?;
    let copyright = read(&root.path("usr/share/doc/ctwatch/copyright"))?;
    for one in components {
        let (name, version) = (one["name"].as_str(), one["version"].as_str());
        let line = format!("{} {}: ", name.context("no name")?, version.context("no version")?);
        ensure!(copyright.contains(&line), "copyright does not name {line}");
        let hash = one["hashes"][0]["content"].as_str();
        ensure!(hash.is_some_and(|hash| hash.len() == 64), "{one}");
    }
    Ok(())
}

fn completes() -> Result<()> {
    let root = CleanRoot::new()?;
    root.dpkg(&["--install"], &of_kind(".deb")?)?;
    let completions = root.path("usr/share/bash-completion/completions/ctwatch");
    let complete = |words: &str, at: usize| -> Result<String> {
        let script = format!(
            "source \"$0\"; COMP_WORDS=({words}); COMP_CWORD={at}; \
             _ctwatch ctwatch \"${{COMP_WORDS[{at}]}}\" \"${{COMP_WORDS[{at}-1]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        said(Command::new("bash").args(["--norc", "-c", &script]).arg(&completions))
    };
    ensure!(complete("ctwatch doc", 1)?.trim() == "doctor");
    ensure!(complete("ctwatch census --netn", 2)?.trim() == "--netns");
    Ok(())
}

/// The line of docs/deploy.md, by a shell of this host: it exits as ctwatch does, and leaves no file.
fn without_installing() -> Result<()> {
    let docs = read(&root().join("docs/deploy.md"))?;
    let mut lines = docs.lines().filter_map(|line| line.strip_prefix("ssh root@HOST '"));
    let line = lines.next().context("docs/deploy.md has no such line")?;
    let (script, _) = line.split_once("' < ").context("it reads no file")?;
    let program = var_os("CTWATCH_BIN").context("no ctwatch")?;
    for (args, status) in [("--version", 0), ("--nonsense", 2), ("check --from /nowhere", 3)] {
        let folder = tempfile::tempdir()?;
        let script = script.replace(" doctor", &format!(" {args}"));
        let mut sh = Command::new("sh");
        sh.args(["-c", &script]).env("TMPDIR", folder.path()).stdin(fs::File::open(&program)?);
        let ended = sh.output()?;
        ensure!(ended.status.code() == Some(status), "{args}: {ended:?}");
        ensure!(fs::read_dir(folder.path())?.next().is_none(), "{args} leaves a file");
    }
    Ok(())
}
