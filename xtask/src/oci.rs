//! An image for containers, as the Open Container Initiative defines it: a layer with a few files, what to start,
//! and a layout of both in a tar. No clock and no order of a folder goes into it.
//! <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>

use std::{
    collections::BTreeSet,
    io::{Cursor, Write},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A file of the image, which belongs to root.
pub(crate) struct File<'a> {
    pub(crate) path: &'a str,
    pub(crate) mode: u32,
    pub(crate) content: Vec<u8>,
}

/// What is stored by its checksum.
struct Blob {
    sha256: String,
    content: Vec<u8>,
}

impl Blob {
    fn of(content: Vec<u8>) -> Result<Self> {
        Ok(Self { sha256: sha256(&content)?, content })
    }

    fn json(value: &Value) -> Result<Self> {
        Self::of(serde_json::to_vec(value)?)
    }

    fn described(&self, media_type: &str) -> Value {
        let digest = format!("sha256:{}", self.sha256);
        json!({ "mediaType": media_type, "digest": digest, "size": self.content.len() })
    }
}

/// The tar. It starts the first file, which must need no other.
pub(crate) fn image(files: &[File]) -> Result<Vec<u8>> {
    let File { path: program, content, .. } = files.first().context("no files")?;
    let platform = Platform::of(content)?;
    let plain = tar(files)?;
    let diff_id = format!("sha256:{}", sha256(&plain)?);
    let layer = Blob::of(gzip(&plain)?)?;
    let mut config = json!({
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{program}")],
            "Cmd": ["serve"],
            "Labels": {
                "org.opencontainers.image.title": program,
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created_by": "cargo xtask image" }],
    });
    platform.put_into(&mut config);
    let config = Blob::json(&config)?;
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.described(CONFIG),
        "layers": [layer.described(LAYER)],
    }))?;
    let mut described = manifest.described(MANIFEST);
    described["platform"] = json!({ "os": "linux" });
    platform.put_into(&mut described["platform"]);
    described["annotations"] =
        json!({ "org.opencontainers.image.ref.name": env!("CARGO_PKG_VERSION") });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [described] });
    let blobs: Vec<_> = [manifest, config, layer]
        .into_iter()
        .map(|blob| (format!("blobs/sha256/{}", blob.sha256), blob.content))
        .collect();
    let file = |path, content| File { path, mode: 0o644, content };
    let mut files = vec![
        file("oci-layout", serde_json::to_vec(&json!({ "imageLayoutVersion": "1.0.0" }))?),
        file("index.json", serde_json::to_vec(&index)?),
    ];
    files.extend(blobs.iter().map(|(path, content)| file(path.as_str(), content.clone())));
    tar(&files)
}

/// A machine, as images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Platform {
    architecture: &'static str,
    variant: Option<&'static str>,
}

impl Platform {
    /// Of an executable for Linux that brings its C library with it.
    fn of(executable: &[u8]) -> Result<Self> {
        const PT_INTERP: usize = 3;
        let number = |at: usize, bytes: usize| {
            let bytes = executable.get(at..at + bytes).context("it is cut off")?;
            let digits = bytes.iter().rev().map(|byte| usize::from(*byte));
            anyhow::Ok(digits.fold(0, |number, byte| number << 8 | byte))
        };
        // Little endian. Where the program headers are, in so many bytes, and their size.
        let (place, bytes, size) = match executable.get(..6) {
            Some(b"\x7fELF\x02\x01") => (32, 8, 54),
            Some(b"\x7fELF\x01\x01") => (28, 4, 42),
            _ => bail!("it is no executable"),
        };
        let (first, size, count) = (number(place, bytes)?, number(size, 2)?, number(size + 2, 2)?);
        for header in 0..count {
            let place = first.checked_add(header * size).filter(|at| *at < executable.len());
            let kind = number(place.context("it is cut off")?, 4)?;
            ensure!(kind != PT_INTERP, "it is not static: it needs a loader");
        }
        let (architecture, variant) = match (number(18, 2)?, bytes) {
            (62, 8) => ("amd64", None),
            (183, 8) => ("arm64", None),
            // No other is made.
            (40, 4) => ("arm", Some("v7")),
            (machine, _) => bail!("it is for machine {machine} of ELF, which has no name here"),
        };
        Ok(Self { architecture, variant })
    }

    fn put_into(self, object: &mut Value) {
        object["architecture"] = json!(self.architecture);
        if let Some(variant) = self.variant {
            object["variant"] = json!(variant);
        }
    }
}

/// With the folders that they are in, each before what is in it.
fn tar(files: &[File]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    for file in files {
        for (end, _) in file.path.match_indices('/') {
            let folder = &file.path[..=end];
            if folders.insert(folder) {
                append(&mut tar, folder, 0o755, tar::EntryType::Directory, &[])?;
            }
        }
        append(&mut tar, file.path, file.mode, tar::EntryType::Regular, &file.content)?;
    }
    Ok(tar.into_inner()?)
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    kind: tar::EntryType,
    content: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(u64::try_from(content.len())?);
    tar.append_data(&mut header, path, Cursor::new(content))?;
    Ok(())
}

/// Without a name and a time in its header.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(content)?;
    Ok(gzip.finish()?)
}

fn sha256(content: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start sha256sum")?;
    // It prints when it has read all, so neither waits for the other.
    child.stdin.take().context("sha256sum has no input")?.write_all(content)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "sha256sum failed ({})", output.status);
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    /// As much of an executable as is looked at, with one program header.
    fn executable(machine: u16, kind: u32) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01".to_vec();
        header.resize(64, 0);
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        header[32] = 64;
        header[54] = 56;
        header[56] = 1;
        header.extend(kind.to_le_bytes());
        header
    }

    /// The same of 32 bits.
    fn executable_32(machine: u16, kind: u32) -> Vec<u8> {
        let mut header = b"\x7fELF\x01\x01".to_vec();
        header.resize(52, 0);
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        header[28] = 52;
        header[42] = 32;
        header[44] = 1;
        header.extend(kind.to_le_bytes());
        header
    }

    #[test]
    fn what_needs_a_loader_is_no_image() {
        let named = |bytes: Vec<u8>| {
            let platform = Platform::of(&bytes).unwrap();
            (platform.architecture, platform.variant)
        };
        assert_eq!(named(executable(62, 1)), ("amd64", None));
        assert_eq!(named(executable(183, 1)), ("arm64", None));
        assert_eq!(named(executable_32(40, 1)), ("arm", Some("v7")));
        let complaints = [
            (executable(62, 3), "not static"),
            (executable_32(40, 3), "not static"),
            (executable_32(62, 1), "machine 62"),
            (executable(3, 1), "machine 3"),
            (executable(62, 1)[..60].to_vec(), "cut off"),
            (executable(62, 1)[..66].to_vec(), "cut off"),
            (b"#!/bin/sh\n".to_vec(), "no executable"),
        ];
        for (bytes, complaint) in complaints {
            let error = Platform::of(&bytes).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    fn files() -> Vec<File<'static>> {
        let file = |path, mode, content: &[u8]| File { path, mode, content: content.to_vec() };
        vec![
            file("ctwatch", 0o755, &executable(62, 1)),
            file("usr/share/doc/ctwatch/LICENSE", 0o644, b"MIT"),
        ]
    }

    fn unpacked(tar: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
            let path = entry.path().unwrap().display().to_string();
            (path, (entry.header().mode().unwrap(), content))
        });
        entries.collect()
    }

    #[test]
    fn the_same_files_are_the_same_bytes() {
        assert_eq!(image(&files()).unwrap(), image(&files()).unwrap());
    }

    #[test]
    fn a_layout_leads_to_the_files() {
        let layout = unpacked(&image(&files()).unwrap());
        let json = |path: &str| -> Value { serde_json::from_slice(&layout[path].1).unwrap() };
        let blob = |described: &Value| {
            let digest = described["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let path = format!("blobs/sha256/{digest}");
            assert_eq!(described["size"], layout[&path].1.len());
            assert_eq!(sha256(&layout[&path].1).unwrap(), digest);
            path
        };
        assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
        let manifest = json(&blob(&json("index.json")["manifests"][0]));
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/ctwatch"]));
        let mut layer = Vec::new();
        let packed = &layout[&blob(&manifest["layers"][0])].1;
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut layer).unwrap();
        let diff_id = format!("sha256:{}", sha256(&layer).unwrap());
        assert_eq!(config["rootfs"]["diff_ids"], json!([diff_id]));
        let files = unpacked(&layer);
        assert_eq!(files["ctwatch"], (0o755, executable(62, 1)));
        let folders = files.keys().filter(|path| path.ends_with('/')).count();
        assert_eq!((files.len(), folders), (6, 4));
    }
}
