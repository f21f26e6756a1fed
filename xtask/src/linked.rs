//! What is linked into the executable: its licences, and a list of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::process::{output, root};
use serde_json::{Value, json};

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
    pub(crate) fn read() -> Result<Self> {
        let metadata = metadata()?;
        let checksums = checksums(&fs::read_to_string(root().join("Cargo.lock"))?);
        let wanted = linked(&metadata)?;
        let mut crates = Vec::new();
        for package in metadata["packages"].as_array().context("cargo names no packages")? {
            let id = package["id"].as_str().unwrap_or_default();
            // Ours has its own licence.
            if !wanted.contains(id) || package["source"].is_null() {
                continue;
            }
            let of = |key: &str| package[key].as_str().map(str::to_owned);
            let (name, version) =
                (of("name").context("no name")?, of("version").context("no version")?);
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

fn metadata() -> Result<Value> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).args(["metadata", "--format-version", "1", "--locked"]);
    let host = output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    cargo.args(["--filter-platform", host.trim()]);
    Ok(serde_json::from_str(&output(&mut cargo)?)?)
}

/// The ids of what ctwatch depends on, but for what only tests, builds and macros are compiled of.
fn linked(metadata: &Value) -> Result<BTreeSet<String>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo resolves nothing")?;
    let nodes: BTreeMap<&str, &Value> =
        nodes.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    let is_macro = |id: &str| {
        let package = packages.iter().find(|package| package["id"] == id);
        let mut targets =
            package.and_then(|package| package["targets"].as_array()).into_iter().flatten();
        targets.any(|target| target["kind"][0] == "proc-macro")
    };
    let ours = packages.iter().find(|package| package["name"] == "ctwatch");
    let first = ours.and_then(|package| package["id"].as_str()).context("there is no ctwatch")?;
    let mut found = BTreeSet::new();
    let mut next = vec![first.to_owned()];
    while let Some(id) = next.pop() {
        if is_macro(&id) || !found.insert(id.clone()) {
            continue;
        }
        let deps = nodes.get(id.as_str()).and_then(|node| node["deps"].as_array());
        for dep in deps.into_iter().flatten() {
            let mut kinds = dep["dep_kinds"].as_array().into_iter().flatten();
            if kinds.any(|kind| kind["kind"].is_null()) {
                next.extend(dep["pkg"].as_str().map(str::to_owned));
            }
        }
    }
    Ok(found)
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
        let linked = Linked::read().unwrap();
        let has = |name: &str| linked.0.iter().any(|one| one.name == name);
        assert!(has("aya") && has("tokio") && has("clap_builder"), "what is linked in");
        assert!(!has("tempfile") && !has("clap_derive"), "for tests, and macros");
        let without: Vec<&str> = linked
            .0
            .iter()
            .filter(|one| one.checksum.is_none())
            .map(|one| one.name.as_str())
            .collect();
        assert!(without.is_empty(), "{without:?}");
    }
}
