//! Opens what strangers send: a folder, a tar archive, or one file, each of them plain or packed by gzip or
//! xz; what it is, its first bytes say, and not its name. Hands over the files in it, one after the other.
//!
//! Nothing is written, and no file outside is opened: links are not followed, names that lead out are left
//! out. Everything is bounded, and what is left out is counted and named.

mod budget;
mod folder;
mod packing;
mod piece;
mod tar;
mod xz;

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::fd::OwnedFd,
    path::Path,
};

use anyhow::{Context, Result, bail};

use self::{
    budget::{Budget, Metered},
    packing::{Packing, decoded, is_tar, started},
    piece::hand_over,
};
pub use self::{
    budget::{LeftOut, UnpackLimits, Unpacked},
    piece::Each,
};
use crate::host::machine::files;

/// What of it is opened already: from here on no path is looked up.
pub enum Opened {
    Folder(OwnedFd),
    /// With its name.
    File(File, String),
    /// With a name too.
    Stream(Box<dyn Read>, String),
}

impl Opened {
    /// `-` is standard input.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stream(Box::new(io::stdin()), "-".to_owned()));
        }
        let place = path.display();
        let file = files::open(path).with_context(|| format!("cannot open {place}"))?;
        let about = file.metadata().with_context(|| format!("cannot look at {place}"))?;
        if about.is_dir() {
            return Ok(Self::Folder(file.into()));
        }
        if !about.is_file() {
            bail!("{place} is neither a folder nor a file; `-` reads standard input");
        }
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Self::File(file, name.to_string_lossy().into_owned()))
    }

    /// Hands over each file in it. What cannot be read of it is in what is returned.
    pub fn unpack(self, limits: UnpackLimits, each: &mut Each<'_>) -> Result<Unpacked> {
        let budget = Budget::new(limits);
        match self {
            Self::Folder(folder) => folder::walk(&folder, &budget, each)?,
            Self::File(file, name) => stream(&name, file, &budget, each)?,
            Self::Stream(source, name) => stream(&name, source, &budget, each)?,
        }
        Ok(budget.unpacked())
    }
}

/// Whether it is an archive, packed or not. It is read from its begin again afterwards.
pub fn is_archive(file: &mut File) -> io::Result<bool> {
    let budget = Budget::new(UnpackLimits::default());
    let found = (|| -> io::Result<bool> {
        let (start, whole) = started(&mut *file)?;
        match Packing::of(&start) {
            Packing::Plain => Ok(is_tar(&start)),
            Packing::Other(_) => Ok(false),
            packing => Ok(is_tar(&started(decoded(packing, whole, &budget)?)?.0)),
        }
    })();
    file.rewind()?;
    // What cannot be unpacked says so when it is read.
    Ok(found.unwrap_or(false))
}

/// One stream of bytes: an archive, or a single file.
fn stream(name: &str, source: impl Read, budget: &Budget, each: &mut Each<'_>) -> Result<()> {
    let opened = (|| {
        let (start, whole) = started(source)?;
        let packing = Packing::of(&start);
        let unpacked = Metered::new(decoded(packing, whole, budget)?, budget);
        started(unpacked)
    })();
    let (start, whole) = opened.with_context(|| format!("cannot read {name}"))?;
    if is_tar(&start) {
        tar::walk(whole, budget, each)
    } else if let Some(what) = Packing::of(&start).named() {
        bail!("{name} is {what}, which is not opened: unpack it, and name the folder")
    } else {
        hand_over(name, whole, budget, each)
    }
}

#[cfg(test)]
mod tests;
