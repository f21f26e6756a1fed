//! What building and testing need and this machine may lack, fetched into `target/provision`.
//!
//! Nothing outside of it is changed, and nothing of it needs root.

mod apt;
pub(crate) mod bpf;
pub(crate) mod crates;
pub(crate) mod tools;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
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
        let lock = File::create(dir.join("lock")).context("cannot make a lock file")?;
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
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        make(&partial)?;
        fs::rename(&partial, &folder)
            .with_context(|| format!("cannot rename {}", partial.display()))?;
        Ok(folder)
    }
}

/// One line about what is being fetched.
fn say(what: &str) {
    eprintln!("xtask: {what}");
}
