//! What building and testing need and this machine may lack, fetched into `target/provision`.
//!
//! Nothing outside of it is changed, and nothing of it needs root.

mod apt;
pub(crate) mod bpf;
mod cache;
pub(crate) mod crates;
mod debian_rust;
pub(crate) mod guest;
pub(crate) mod kernels;
pub(crate) mod owners;
pub(crate) mod qemu;
pub(crate) mod tools;

use std::{
    fs::{self, File, TryLockError},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::process::{output, root};
use cache::Cache;

/// `target/provision`, locked: two runs at once would fetch into each other's folders. What is made
/// there is kept in a cache outside the clone too.
pub(crate) struct Store {
    dir: PathBuf,
    cache: Cache,
    _lock: Arc<File>,
}

/// What a folder's content depends on, beside its name: another of that is another folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    /// It brings all it needs.
    Itself,
    /// The packages that are installed here are left out.
    ThisMachine,
    /// The same, and these are all that was asked for.
    Programs(String),
    /// It is built here.
    ThisCompiler,
    /// Debian's newest of a kind: looked for again when it was found this long ago.
    Newest(Duration),
}

impl Of {
    fn what(&self) -> Result<String> {
        Ok(match self {
            Self::Itself | Self::Newest(_) => String::new(),
            Self::Programs(names) => Self::ThisMachine.what()? + names,
            Self::ThisMachine => {
                let format = "--showformat=${Package} ${Version} ${db:Status-Status}\n";
                output(Command::new("dpkg-query").args(["--show", format]))?
            }
            // With the C library that it is linked to.
            Self::ThisCompiler => {
                let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
                let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
                output(Command::new(rustc).arg("-vV"))? + &system
            }
        })
    }

    /// The name in the cache.
    fn name(&self, name: &str) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        (self.what()?, std::env::consts::ARCH).hash(&mut hasher);
        Ok(format!("{name}-{:016x}", hasher.finish()))
    }
}

impl Store {
    pub(crate) fn open() -> Result<Self> {
        let dir = root().join("target/provision");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { _lock: lock(&dir)?, dir, cache: Cache::of_this_user() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder `name`, from the cache, or made by `make`; in a temporary one, renamed when it is
    /// whole: what an interruption leaves behind is never taken for the thing itself.
    fn folder(
        &self,
        name: &str,
        of: Of,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let folder = self.path(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        let kept = of.name(name)?;
        let age = self.cache.age(&kept);
        let is_old = matches!(of, Of::Newest(fresh) if age.is_some_and(|age| age > fresh));
        let from_cache = |partial: &Path| Ok(self.cache.restore(&kept, partial));
        if !is_old && self.whole(name, from_cache)? {
            return Ok(folder);
        }
        let started = Instant::now();
        let made = self.whole(name, |partial| make(partial).map(|()| true));
        match made {
            Ok(_) => {
                say(&format!("{name}: there, after {:.0} s", started.elapsed().as_secs_f64()));
                self.cache.keep(&kept, &folder);
                Ok(folder)
            }
            Err(error) if is_old && self.whole(name, from_cache)? => {
                say(&format!("{name} is an old one, from the cache: {error:#}"));
                Ok(folder)
            }
            Err(error) => Err(error),
        }
    }

    /// The folder `name` by `make`, where that answers that it made one.
    fn whole(&self, name: &str, make: impl FnOnce(&Path) -> Result<bool>) -> Result<bool> {
        let partial = self.path(&format!("{name}.partial"));
        remove(&partial)?;
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        let made = make(&partial)?;
        if made {
            fs::rename(&partial, self.path(name))
                .with_context(|| format!("cannot rename {}", partial.display()))?;
        } else {
            remove(&partial)?;
        }
        Ok(made)
    }

    /// The folder `name`, which is out of date as soon as it is made: in no cache.
    fn passing(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.path(name);
        if !folder.is_dir() {
            self.whole(name, |partial| make(partial).map(|()| true))?;
        }
        Ok(folder)
    }

    /// As if it had never been fetched.
    fn forget(&self, name: &str) -> Result<()> {
        remove(&self.path(name))
    }
}

/// Held by this process as long as any of its threads has a store.
fn lock(dir: &Path) -> Result<Arc<File>> {
    static LOCK: Mutex<Weak<File>> = Mutex::new(Weak::new());
    let mut held = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lock) = held.upgrade() {
        return Ok(lock);
    }
    let lock = File::create(dir.join("lock"))
        .with_context(|| format!("cannot make a lock file in {}", dir.display()))?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        say("another xtask is at work in target/provision: waiting for it");
    }
    lock.lock().context("cannot lock target/provision")?;
    let lock = Arc::new(lock);
    *held = Arc::downgrade(&lock);
    Ok(lock)
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
