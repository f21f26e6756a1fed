//! The archive that a kernel unpacks into memory and runs from.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

/// What a machine is to do, and the files that takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    /// With none there is a shell.
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) modules: Vec<String>,
    /// Files of this machine, and where they are to be in the other.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Files that are only there: where, and what is in them.
    pub(crate) texts: Vec<(String, String)>,
    /// For how many CPUs its kernel is to have room, where that is more than there are.
    pub(crate) possible_cpus: Option<u32>,
}

/// Writes an archive of these folders, on top of each other, with `init` as PID 1.
pub(crate) fn write(to: &Path, folders: &[&Path], init: &Path, job: &Job) -> Result<()> {
    let mut archive = Archive::create(to)?;
    for place in ["dev", "proc", "sys", "run", "tmp", "job", "etc", "mnt"] {
        archive.directory(place)?;
    }
    for folder in folders {
        archive.folder(folder, "")?;
    }
    archive.file(init, "init")?;
    let env: Vec<String> = job.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    for (name, lines) in [("argv", &job.argv), ("env", &env), ("modules", &job.modules)] {
        archive.bytes(&format!("job/{name}"), lines.join("\n").as_bytes(), 0o644)?;
    }
    for (at, text) in &job.texts {
        archive.bytes(at, text.as_bytes(), 0o644)?;
    }
    for (from, at) in &job.files {
        archive.file(from, at.trim_start_matches('/'))?;
    }
    archive.finish()
}

struct Archive {
    out: BufWriter<File>,
    /// Each entry has a number of its own: equal ones would be one file with many names.
    entries: u32,
}

impl Archive {
    fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { out: BufWriter::with_capacity(1 << 20, file), entries: 0 })
    }

    fn entry(&mut self, name: &str, kind: ModeFileType, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let entry = Builder::new(name).ino(self.entries).mode(mode).set_mode_file_type(kind);
        let mut writer = entry.write(&mut self.out, u32::try_from(content.len())?);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, ModeFileType::Directory, 0o755, b"")
    }

    fn bytes(&mut self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        self.entry(name, ModeFileType::Regular, mode, content)
    }

    fn file(&mut self, from: &Path, name: &str) -> Result<()> {
        let read = || -> std::io::Result<(Vec<u8>, u32)> {
            Ok((fs::read(from)?, fs::metadata(from)?.permissions().mode() & 0o7777))
        };
        let (content, mode) = read().with_context(|| format!("cannot read {}", from.display()))?;
        self.bytes(name, &content, mode)
    }

    fn folder(&mut self, from: &Path, to: &str) -> Result<()> {
        let entries = fs::read_dir(from).with_context(|| format!("no {}", from.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = format!("{to}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                let target = target.to_string_lossy().into_owned();
                self.entry(&name, ModeFileType::Symlink, 0o777, target.as_bytes())?;
            } else if kind.is_dir() {
                self.directory(&name)?;
                self.folder(&entry.path(), &format!("{name}/"))?;
            } else if kind.is_file() {
                self.file(&entry.path(), &name)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        trailer(self.out)?.flush().context("cannot write the image")
    }
}
