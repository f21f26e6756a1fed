//! Packages, opened by their formats: what machine they say that they are for, and what machine the executable in them
//! is for.

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;
use serde_json::Value;

use crate::{
    Test,
    packages::{PACKAGES, folder},
};

pub(crate) const TESTS: &[Test] =
    &[Test { name: "packages_are_of_their_machine", needs: &[PACKAGES], run: opened }];

/// A machine, and what it is called by those who take packages.
struct Called {
    name: &'static str,
    /// The class of ELF, the machine, and flags that must be there.
    elf: (u8, u16, u32),
    deb: &'static str,
    rpm: &'static str,
    apk: &'static str,
    ipk: &'static str,
    oci: (&'static str, Option<&'static str>),
}

const MACHINES: [Called; 3] = [
    Called {
        name: "x86_64",
        elf: (2, 62, 0),
        deb: "amd64",
        rpm: "x86_64",
        apk: "x86_64",
        ipk: "x86_64",
        oci: ("amd64", None),
    },
    Called {
        name: "aarch64",
        elf: (2, 183, 0),
        deb: "arm64",
        rpm: "aarch64",
        apk: "aarch64",
        ipk: "arm64",
        oci: ("arm64", None),
    },
    Called {
        name: "armv7",
        // Floating point by registers, which the others' "hf" and "hl" are.
        elf: (1, 40, 0x400),
        deb: "armhf",
        rpm: "armv7hl",
        apk: "armv7",
        ipk: "armhf",
        oci: ("arm", Some("v7")),
    },
];

const PROGRAM: &str = "usr/bin/ctwatch";

fn opened() -> Result<()> {
    let folder = folder()?;
    let mut found = 0;
    for called in MACHINES {
        let base = format!("ctwatch-{}-{}", env!("CARGO_PKG_VERSION"), called.name);
        let bare = folder.join(&base);
        if bare.is_file() {
            found += 1;
            judge(&folder, &base, &called).with_context(|| called.name)?;
        }
    }
    ensure!(found > 0, "no executable is in {}", folder.display());
    let bare = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        MACHINES.iter().any(|called| name.ends_with(&format!("-{}", called.name)))
    };
    let all = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).filter(bare).count();
    ensure!(all == found, "of {all} executables {found} were looked at");
    Ok(())
}

fn judge(folder: &Path, base: &str, called: &Called) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let executable = fs::read(folder.join(base))?;
    is_static(&executable, called)?;
    let read =
        |name: &str| fs::read(folder.join(name)).with_context(|| format!("{name} is not there"));

    let name = format!("ctwatch_{version}-1_{}.deb", called.deb);
    let deb = ar(&read(&name)?)?;
    let control = text(&unpacked(&deb["control.tar.gz"])?, "control")?;
    says(&control, &format!("Architecture: {}", called.deb)).context(name.clone())?;
    ensure!(unpacked(&deb["data.tar.gz"])?[PROGRAM] == executable, "another is in {name}");

    let name = format!("ctwatch_{version}-1_{}.ipk", called.ipk);
    let ipk = unpacked(&read(&name)?)?;
    let control = text(&unpacked(&ipk["control.tar.gz"])?, "control")?;
    says(&control, &format!("Architecture: {}", called.ipk)).context(name.clone())?;
    ensure!(unpacked(&ipk["data.tar.gz"])?[PROGRAM] == executable, "another is in {name}");

    let name = format!("ctwatch_{version}-r1_{}.apk", called.apk);
    let apk = unpacked(&read(&name)?)?;
    says(&text(&apk, ".PKGINFO")?, &format!("arch = {}", called.apk)).context(name.clone())?;
    ensure!(apk[PROGRAM] == executable, "another is in {name}");

    let name = format!("ctwatch-{version}-1.{}.rpm", called.rpm);
    let (arch, payload) = rpm(&read(&name)?).with_context(|| name.clone())?;
    ensure!(arch == called.rpm, "{name} is for {arch}");
    let holds = memchr::memmem::find(&payload, &executable).is_some();
    ensure!(holds, "another is in {name}");

    let name = format!("{base}-oci.tar");
    let layout = files_of(&read(&name)?)?;
    let blob = |described: &Value| -> Result<&Vec<u8>> {
        let digest = described["digest"].as_str().context("no digest")?;
        let path = format!("blobs/{}", digest.replace(':', "/"));
        layout.get(&path).with_context(|| format!("no {path}"))
    };
    let index: Value = serde_json::from_slice(&layout["index.json"])?;
    let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])?)?;
    let config: Value = serde_json::from_slice(blob(&manifest["config"])?)?;
    for place in [&index["manifests"][0]["platform"], &config] {
        let platform = (place["architecture"].as_str(), place["variant"].as_str());
        ensure!(platform == (Some(called.oci.0), called.oci.1), "{name}: {place}");
    }
    let layer = unpacked(blob(&manifest["layers"][0])?)?;
    ensure!(layer["ctwatch"] == executable, "another is in {name}");
    Ok(())
}

/// It is of that machine, and needs no loader.
fn is_static(executable: &[u8], called: &Called) -> Result<()> {
    let number = |at: usize, bytes: usize| -> Result<u64> {
        let bytes = executable.get(at..at + bytes).context("it is cut off")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let (class, machine, flags) = called.elf;
    ensure!(executable.starts_with(&[0x7f, b'E', b'L', b'F', class, 1]), "it is another ELF");
    ensure!(number(18, 2)? == u64::from(machine), "it is for another machine");
    let is_64 = class == 2;
    let has = number(if is_64 { 48 } else { 36 }, 4)?;
    ensure!(has & u64::from(flags) == u64::from(flags), "its flags are {has:#x}");
    let first = usize::try_from(if is_64 { number(32, 8)? } else { number(28, 4)? })?;
    let sizes = if is_64 { 54 } else { 42 };
    let (size, count) =
        (usize::try_from(number(sizes, 2)?)?, usize::try_from(number(sizes + 2, 2)?)?);
    ensure!(count > 0, "it has nothing to load");
    for header in 0..count {
        const PT_INTERP: u64 = 3;
        ensure!(number(first + header * size, 4)? != PT_INTERP, "it needs a loader");
    }
    Ok(())
}

type Files = BTreeMap<String, Vec<u8>>;

/// A tar, or several behind each other, as .apk has them.
fn files_of(tar: &[u8]) -> Result<Files> {
    let mut archive = tar::Archive::new(tar);
    archive.set_ignore_zeros(true);
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(path, content);
    }
    Ok(files)
}

fn unpacked(gzip: &[u8]) -> Result<Files> {
    files_of(&inflated(gzip)?)
}

fn inflated(gzip: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(gzip).read_to_end(&mut plain)?;
    Ok(plain)
}

fn text(files: &Files, name: &str) -> Result<String> {
    let content = files.get(name).with_context(|| format!("no {name}"))?;
    Ok(String::from_utf8(content.clone())?)
}

fn says(text: &str, line: &str) -> Result<()> {
    ensure!(text.lines().any(|it| it == line), "it does not say {line}:\n{text}");
    Ok(())
}

/// Debian's packages are such an archive: a line of 60 bytes before each file.
fn ar(archive: &[u8]) -> Result<Files> {
    let mut rest = archive.strip_prefix(b"!<arch>\n").context("no ar")?;
    let mut files = BTreeMap::new();
    while let Some((header, behind)) = rest.split_at_checked(60) {
        let name = std::str::from_utf8(&header[..16])?.trim_end().trim_end_matches('/');
        let size: usize = std::str::from_utf8(&header[48..58])?.trim_end().parse()?;
        let content = behind.get(..size).context("it is cut off")?;
        files.insert(name.to_owned(), content.to_vec());
        rest = behind.get(size + size % 2..).unwrap_or_default();
    }
    Ok(files)
}

/// The architecture that its header states, and the archive behind it.
/// <https://rpm-software-management.github.io/rpm/manual/format_v4.html>
fn rpm(package: &[u8]) -> Result<(String, Vec<u8>)> {
    const LEAD: u64 = 96;
    const ARCH: u32 = 1022;
    let mut reader = Cursor::new(package);
    reader.set_position(LEAD);
    header(&mut reader)?;
    // The first one, of signatures, is filled up.
    reader.set_position(reader.position().next_multiple_of(8));
    let (index, store) = header(&mut reader)?;
    let entry = index.chunks_exact(16).find(|entry| entry[..4] == ARCH.to_be_bytes());
    let entry = entry.context("it states no architecture")?;
    let offset = usize::try_from(u32::from_be_bytes(entry[8..12].try_into()?))?;
    let arch = store.get(offset..).and_then(|rest| rest.split(|byte| *byte == 0).next());
    let arch = String::from_utf8(arch.context("it is cut off")?.to_vec())?;
    let payload = package.get(usize::try_from(reader.position())?..).context("it is cut off")?;
    Ok((arch, inflated(payload)?))
}

/// Entries of 16 bytes, and what they point to.
fn header(reader: &mut Cursor<&[u8]>) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut begin = [0; 16];
    reader.read_exact(&mut begin)?;
    ensure!(begin.starts_with(&[0x8e, 0xad, 0xe8, 1]), "no header of rpm");
    let length = |at: usize| -> Result<usize> {
        Ok(usize::try_from(u32::from_be_bytes(begin[at..at + 4].try_into()?))?)
    };
    let (mut index, mut store) = (vec![0; length(8)? * 16], vec![0; length(12)?]);
    reader.read_exact(&mut index)?;
    reader.read_exact(&mut store)?;
    Ok((index, store))
}
