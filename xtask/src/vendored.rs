//! An archive of the sources from which ctwatch is built without network: the commit, the sources of every crate, and
//! the probes as they were compiled here, because few have a toolchain for them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use ctwatch_provision::{
    machine::Machine,
    process::{cargo, output, root, run},
};
use serde_json::{Value, json};

/// What it is built for. Of crates for other systems (Windows' are half of all) only the manifests are in it, because
/// Cargo reads those.
const TARGETS: [&str; 5] = [
    "bpfel-unknown-none",
    "x86_64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-gnu",
    "armv7-unknown-linux-gnueabihf",
];

const CRATES: &str = "vendor";

/// The commit's files: what is changed and not committed is not in it.
pub(crate) fn write(
    version: &str,
    time: &str,
    probes: &[(Machine, PathBuf)],
    to: &Path,
) -> Result<PathBuf> {
    let name = format!("ctwatch-{version}");
    let scratch = to.join("vendored");
    let folder = scratch.join(&name);
    fs::create_dir_all(&folder)?;
    committed(&folder)?;
    for (machine, probes) in probes {
        // Where build.rs of ctwatch looks for them.
        let place = folder.join("ctwatch").join(format!("probes-{}.o", machine.name()));
        fs::copy(probes, place).context("the probes are not in the archive")?;
    }
    let mut vendor = cargo();
    vendor.args(["vendor", "--quiet", "--locked", "--versioned-dirs"]).arg(folder.join(CRATES));
    output(&mut vendor).context("cargo gathers no sources of crates")?;
    for package in left_out(&metadata()?)? {
        hollow(&folder.join(CRATES).join(package))?;
    }
    let config = folder.join(".cargo/config.toml");
    let configured = fs::read_to_string(&config)?;
    fs::write(&config, configured + &from_folder())?;
    let place = to.join(format!("{name}-vendored.tar.xz"));
    packed(&scratch, &name, time, &place)?;
    fs::remove_dir_all(&scratch)?;
    Ok(place)
}

/// For Cargo: crates come from the folder.
fn from_folder() -> String {
    format!(
        "\n[source.crates-io]\nreplace-with = \"vendored\"\n\n[source.vendored]\ndirectory = \"{CRATES}\"\n"
    )
}

fn committed(folder: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["archive", "--format=tar", "HEAD"]);
    let mut git = git.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let files = git.stdout.take().context("git writes no archive")?;
    tar::Archive::new(files).unpack(folder)?;
    ensure!(git.wait()?.success(), "git wrote no archive");
    Ok(())
}

/// As cargo knows all crates, and those that any of these targets needs.
fn metadata() -> Result<Value> {
    let mut asked = cargo();
    asked.args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
    for target in TARGETS {
        asked.args(["--filter-platform", target]);
    }
    Ok(serde_json::from_str(&output(&mut asked)?)?)
}

/// Folders of crates that are locked, and that nothing is built from.
fn left_out(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    let folder = |name: &str, version: &str| format!("{name}-{version}");
    let needed: BTreeSet<String> = packages
        .iter()
        .filter_map(|one| Some(folder(one["name"].as_str()?, one["version"].as_str()?)))
        .collect();
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    let of_lock = lock.split("[[package]]").skip(1).filter(|one| one.contains("\nsource = "));
    let mut left_out = Vec::new();
    for package in of_lock {
        let value = |key: &str| {
            let mut lines = package.lines().filter_map(|line| line.split_once(" = "));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim_matches('"'))
        };
        let (Some(name), Some(version)) = (value("name"), value("version")) else {
            bail!("Cargo.lock has a package without a name: {package}");
        };
        let folder = folder(name, version);
        if !needed.contains(&folder) {
            left_out.push(folder);
        }
    }
    Ok(left_out)
}

/// Its manifest stays, and a library of nothing. Cargo compares the files of a crate when it compiles it, which it does
/// not with this one, and the whole crate's checksum with Cargo.lock.
fn hollow(folder: &Path) -> Result<()> {
    const SUMS: &str = ".cargo-checksum.json";
    const MANIFEST: &str = "Cargo.toml";
    let sums = folder.join(SUMS);
    let text = fs::read_to_string(&sums).with_context(|| format!("no {}", sums.display()))?;
    let mut known: Value = serde_json::from_str(&text)?;
    known["files"] = json!({});
    let manifest = fs::read(folder.join(MANIFEST))?;
    fs::remove_dir_all(folder)?;
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join(MANIFEST), manifest)?;
    fs::write(folder.join("src/lib.rs"), "")?;
    fs::write(sums, known.to_string())?;
    Ok(())
}

/// The same bytes from the same files, in order, of nobody, of the commit's time.
fn packed(scratch: &Path, name: &str, time: &str, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.current_dir(scratch).args(["--create", "--sort=name", "--format=gnu", "--numeric-owner"]);
    tar.args(["--owner=0", "--group=0", "--mode=u+rw,go=rX"]).arg(format!("--mtime=@{time}"));
    // One thread: more of them cut the file elsewhere.
    tar.arg("--use-compress-program=xz --threads=1 -6").arg("--file").arg(to).arg(name);
    run(&mut tar).context("tar and xz pack no sources")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_whole_and_windows_is_left_out() {
        let left_out = left_out(&metadata().unwrap()).unwrap();
        let has = |name: &str| {
            left_out.iter().any(|it| it.rsplit_once('-').is_some_and(|(it, _)| it == name))
        };
        assert!(has("windows-sys") && has("windows_x86_64_gnu"), "{left_out:?}");
        // Of the executable, of the probes, of tests, and of another machine.
        for needed in
            ["aya", "aya-ebpf", "tokio", "tokio-rustls", "ring", "tempfile", "libfuzzer-sys"]
        {
            assert!(!has(needed), "{needed} is left out");
        }
    }

    #[test]
    fn a_hollow_crate_keeps_its_checksum() {
        let folder = std::env::temp_dir().join(format!("ctwatch-hollow-{}", std::process::id()));
        fs::create_dir_all(folder.join("lib")).unwrap();
        fs::write(folder.join("Cargo.toml"), "[package]").unwrap();
        fs::write(folder.join("lib/large.a"), "1").unwrap();
        let sums = folder.join(".cargo-checksum.json");
        fs::write(&sums, r#"{"files":{"lib/large.a":"00"},"package":"abc"}"#).unwrap();
        hollow(&folder).unwrap();
        assert!(folder.join("src/lib.rs").is_file() && !folder.join("lib").exists());
        let sums: Value = serde_json::from_str(&fs::read_to_string(sums).unwrap()).unwrap();
        assert_eq!(sums, json!({ "files": {}, "package": "abc" }));
        fs::remove_dir_all(folder).unwrap();
    }
}
