//! What is linked into the executable: its licences, and a list of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::{
    machine::Machine,
    process::{cargo, output, root},
};
use serde_json::{Value, json};

use crate::commands::build::WITH_TLS;

/// A crate of somebody else's.
struct Crate {
    name: String,
    version: String,
    license: String,
    checksum: Option<String>,
    /// Texts of licences that it carries.
    texts: Vec<String>,
}

pub(crate) struct Linked(Vec<Crate>);

impl Linked {
    /// On that machine, with all that packages have.
    pub(crate) fn read(machine: Machine) -> Result<Self> {
        let metadata = metadata(machine)?;
        let checksums = checksums(&fs::read_to_string(root().join("Cargo.lock"))?);
        let wanted = linked(machine)?;
        let mut crates = Vec::new();
        for package in metadata["packages"].as_array().context("cargo names no packages")? {
            let of = |key: &str| package[key].as_str().map(str::to_owned);
            let (name, version) =
                (of("name").context("no name")?, of("version").context("no version")?);
            // Ours has its own licence.
            if !wanted.contains(&named(&name, &version)) || package["source"].is_null() {
                continue;
            }
            let manifest = PathBuf::from(of("manifest_path").context("no place")?);
            let folder = manifest.parent().context("no place")?;
            crates.push(Crate {
                license: of("license").with_context(|| format!("{name} names no licence"))?,
                checksum: checksums.get(&(name.clone(), version.clone())).cloned(),
                texts: texts(folder)?,
                name,
                version,
            });
        }
        ensure!(!crates.is_empty(), "cargo says that nothing is linked in");
        crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(Self(crates))
    }

    /// As /usr/share/doc/PACKAGE/copyright: our licences, then every text that a crate carries, once.
    pub(crate) fn copyright(&self) -> Result<String> {
        let mut out = String::from(
            "ctwatch is licensed under either of MIT or Apache-2.0, as you like. The programs in the kernel are \
             \"Dual MIT/GPL\".\n\n",
        );
        for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
            out.push_str(&fs::read_to_string(root().join(file))?);
            out.push('\n');
        }
        out.push_str("\nThe executable contains these crates:\n\n");
        let mut texts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for one in &self.0 {
            let _ = writeln!(out, "{} {}: {}", one.name, one.version, one.license);
            for text in &one.texts {
                texts.entry(text).or_default().push(format!("{} {}", one.name, one.version));
            }
        }
        for (text, of) in texts {
            let _ = write!(out, "\n{}\n{}:\n\n{text}\n", "-".repeat(78), of.join(", "));
        }
        Ok(out)
    }

    /// CycloneDX 1.6.
    pub(crate) fn sbom(&self, version: &str) -> Result<String> {
        let component = |one: &Crate| {
            let purl = format!("pkg:cargo/{}@{}", one.name, one.version);
            let mut component = json!({
                "type": "library",
                "bom-ref": purl,
                "name": one.name,
                "version": one.version,
                "purl": purl,
                // Cargo still takes what older crates have: `MIT/Apache-2.0`.
                "licenses": [{ "expression": one.license.replace('/', " OR ") }],
            });
            if let Some(checksum) = &one.checksum {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
            }
            component
        };
        let components: Vec<Value> = self.0.iter().map(component).collect();
        let bom = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": { "component": {
                "type": "application",
                "bom-ref": format!("pkg:cargo/ctwatch@{version}"),
                "name": "ctwatch",
                "version": version,
                "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            } },
            "components": components,
        });
        Ok(serde_json::to_string_pretty(&bom)? + "\n")
    }
}

fn metadata(machine: Machine) -> Result<Value> {
    let mut asked = cargo();
    asked.args(["metadata", "--format-version", "1", "--locked", "--features", "ctwatch/tls"]);
    asked.args(["--filter-platform", machine.target()]);
    Ok(serde_json::from_str(&output(&mut asked)?)?)
}

/// What ctwatch is linked of on that machine, by name and version: not what only tests, builds and macros are
/// compiled of, nor features that only those want, which cargo's metadata has.
fn linked(machine: Machine) -> Result<BTreeSet<String>> {
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--package", "ctwatch", "--target", machine.target()]);
    tree.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    // `tokio v1.54.1`, and behind it where it comes from or that it stood there before.
    let of = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        Some(named(name, rest.split(' ').next()?))
    };
    let printed = output(tree.args(WITH_TLS))?;
    printed.lines().map(|line| of(line).with_context(|| format!("cargo tree: {line}"))).collect()
}

fn named(name: &str, version: &str) -> String {
    format!("{name} {version}")
}

/// Files whose names say so, sorted.
fn texts(folder: &Path) -> Result<Vec<String>> {
    let is_license = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file()
            && ["LICENSE", "LICENCE", "COPYING", "NOTICE"].iter().any(|word| name.starts_with(word))
    };
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| is_license(path));
    files.sort();
    let text = |path: &PathBuf| Ok(String::from_utf8_lossy(&fs::read(path)?).trim().to_owned());
    files.iter().map(text).collect()
}

/// By name and version, as Cargo.lock has them.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let mut lines = package.lines().filter_map(|line| line.split_once(" = "));
            let (_, value) = lines.find(|(name, _)| *name == key)?;
            Some(value.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), sum);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_has_a_licence_and_a_checksum() {
        for machine in Machine::ALL {
            let linked = Linked::read(machine).unwrap();
            let has = |name: &str| linked.0.iter().any(|one| one.name == name);
            assert!(has("aya") && has("tokio") && has("clap_builder"), "what is linked in");
            assert!(has("rustls") && has("ring") && has("bcrypt"), "what packages have");
            assert!(!has("tempfile") && !has("clap_derive"), "for tests, and macros");
            let bare = linked.0.iter().find(|one| one.checksum.is_none() || one.license.is_empty());
            assert!(bare.is_none(), "{}", bare.unwrap().name);
        }
    }
}
