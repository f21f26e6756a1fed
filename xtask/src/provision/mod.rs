//! What building and testing need and this machine may lack, fetched into `target/provision`.
//!
//! Nothing outside of it is changed, and nothing of it needs root.

mod apt;
pub(crate) mod bpf;
pub(crate) mod crates;
mod debian_rust;
pub(crate) mod guest;
pub(crate) mod kernels;
pub(crate) mod qemu;
pub(crate) mod tools;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};

use crate::process::root;

/// `target/provision`, locked: two runs at once would fetch into each other's folders.
pub(crate) struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    pub(crate) fn open() -> Result<Self> {
        let dir = root().join("target/provision");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let lock = File::create(dir.join("lock"))
            .with_context(|| format!("cannot make a lock file in {}", dir.display()))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            say("another xtask is at work in target/provision: waiting for it");
        }
        lock.lock().context("cannot lock target/provision")?;
        Ok(Self { dir, _lock: lock })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder `name`, made by `make` in a temporary one and renamed when it is whole: what an
    /// interruption leaves behind is never taken for the thing itself.
    fn folder(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.path(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        let partial = self.path(&format!("{name}.partial"));
        remove(&partial)?;
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        let started = Instant::now();
        make(&partial)?;
        fs::rename(&partial, &folder)
            .with_context(|| format!("cannot rename {}", partial.display()))?;
        say(&format!("{name}: there, after {:.0} s", started.elapsed().as_secs_f64()));
        Ok(folder)
    }

    /// As if it had never been fetched.
    fn forget(&self, name: &str) -> Result<()> {
        remove(&self.path(name))
    }
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// One line about what is being fetched.
fn say(what: &str) {
    eprintln!("xtask: {what}");
}
