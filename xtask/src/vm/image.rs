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
    /// A root file system with systemd. It is booted in place of the guest's, and the job is a service of it.
    pub(crate) system: Option<PathBuf>,
}

/// Where PID 1 looks for that file system.
const SYSTEM: &str = "system/";
/// Starts the job when everything else was started.
const UNIT: &str = "\
[Unit]
Description=What this machine is for
After=multi-user.target
[Service]
ExecStart=/job/init
StandardOutput=null
";
const UNITS: &str = "etc/systemd/system";

/// Writes an archive of what is in a guest and of a kernel's modules, with `init` as PID 1.
pub(crate) fn write(to: &Path, guest: &Path, modules: &Path, init: &Path, job: &Job) -> Result<()> {
    let mut archive = Archive::create(to)?;
    let within = match &job.system {
        None => {
            for place in ["dev", "proc", "sys", "run", "tmp", "job", "etc", "mnt"] {
                archive.directory(place)?;
            }
            archive.folder(guest, "")?;
            archive.folder(modules, "")?;
            ""
        }
        Some(system) => {
            for place in ["dev", "system", "system/job"] {
                archive.directory(place)?;
            }
            archive.folder(system, SYSTEM)?;
            // Its /lib is a link.
            archive.folder(modules, "system/usr/")?;
            let (units, name) = (format!("{SYSTEM}{UNITS}"), "ctwatch-vm.service");
            let wants = format!("{units}/multi-user.target.wants");
            archive.directory(&wants)?;
            archive.bytes(&format!("{units}/{name}"), UNIT.as_bytes(), 0o644)?;
            archive.link(&format!("{wants}/{name}"), &format!("../{name}"))?;
            archive.file(init, "system/job/init")?;
            SYSTEM
        }
    };
    archive.file(init, "init")?;
    let env: Vec<String> = job.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    for (name, lines) in [("argv", &job.argv), ("env", &env), ("modules", &job.modules)] {
        archive.bytes(&format!("{within}job/{name}"), lines.join("\n").as_bytes(), 0o644)?;
    }
    for (at, text) in &job.texts {
        archive.bytes(&format!("{within}{at}"), text.as_bytes(), 0o644)?;
    }
    for (from, at) in &job.files {
        archive.file(from, &format!("{within}{}", at.trim_start_matches('/')))?;
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

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, ModeFileType::Symlink, 0o777, target.as_bytes())
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
                let target = target.to_string_lossy();
                self.link(&name, &target)?;
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
