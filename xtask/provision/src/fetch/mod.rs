//! Fetching and building what is missing, into `target/provision`.

mod apt;
mod cache;
mod chromium;
mod crates;
mod cross;
mod debian;
mod debian_rust;
mod duckdb;
mod guest;
mod kernels;
mod kubernetes;
mod minimum;
mod nfpm;
mod owners;
mod prometheus_client;
mod pypi;
mod qemu;
mod sos;
mod tools;

use std::{
    fs::{self, File, TryLockError},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ctwatch_provision::{
    Thing,
    crates::{BPF_LINKER, CARGO_DENY},
    process::{output, root},
    tools::{CLANG, JUDGES, RIVALS, TOOLS},
};

use cache::Cache;

pub(super) fn fetch(thing: &Thing) -> Result<()> {
    let store = &Store::open()?;
    match thing {
        Thing::BpfLinker => crates::build(store, thing, &BPF_LINKER),
        Thing::CargoDeny => crates::build(store, thing, &CARGO_DENY),
        Thing::Chromium => chromium::provide(store),
        Thing::Clang => tools::provide(store, thing, &[CLANG]),
        Thing::Cross(machine) => cross::provide(store, *machine),
        Thing::Debian => debian::provide(store),
        Thing::DebianRust => debian_rust::provide(store),
        Thing::DuckDb => duckdb::provide(store),
        Thing::Guest(machine) => guest::provide(store, *machine),
        Thing::Judges => tools::provide(store, thing, JUDGES),
        Thing::Kernel(name) => kernels::provide(store, name),
        Thing::Kubernetes => kubernetes::provide(store),
        Thing::MinimumRust => minimum::provide(store),
        Thing::Nfpm => nfpm::provide(store),
        Thing::Owners => owners::provide(store),
        Thing::PrometheusClient => prometheus_client::provide(store),
        Thing::Qemu => qemu::provide(store, thing, "qemu-system-x86"),
        Thing::QemuArm => qemu::provide(store, thing, "qemu-system-arm"),
        Thing::QemuUser => qemu::provide(store, thing, "qemu-user-static"),
        Thing::Rivals => tools::provide(store, thing, RIVALS),
        Thing::Sos => sos::provide(store),
        Thing::Tools => tools::provide(store, thing, TOOLS),
    }
}

/// `target/provision`. What is made there is kept in a cache outside the clone too.
struct Store {
    dir: PathBuf,
    cache: Cache,
}

/// What a folder's content depends on, beside its name: another of that is another folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    /// It brings all it needs.
    Itself,
    /// The packages that are installed here are left out.
    ThisMachine,
    /// It goes with this version of something else.
    With(String),
    /// As `ThisMachine`, and these are all that was asked for.
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
            Self::With(version) => version.clone(),
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
    fn open() -> Result<Self> {
        let dir = root().join("target/provision");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir, cache: Cache::of_this_user() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Two processes at once would fetch into each other's folders. One lock for each name, so that a
    /// compiler does not wait for kernels.
    fn lock(&self, name: &str) -> Result<File> {
        let path = self.path(&format!("{name}.lock"));
        let lock =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            say(&format!("another xtask is fetching {name}: waiting for it"));
        }
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(lock)
    }

    /// The folder of this thing, from the cache, or made by `make`.
    fn folder(&self, thing: &Thing, of: Of, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.folder_where(thing, of, |_| true, make)
    }

    /// The same where the folder that is there may lack something, which `is_complete` knows. It is
    /// made in a temporary one, renamed when it is whole: what an interruption leaves behind is never
    /// taken for the thing itself.
    fn folder_where(
        &self,
        thing: &Thing,
        of: Of,
        is_complete: impl FnOnce(&Path) -> bool,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let name = &thing.folder();
        let folder = self.path(name);
        let _alone = self.lock(name)?;
        if folder.is_dir() {
            if is_complete(&folder) {
                return Ok(());
            }
            self.forget(name)?;
        }
        let kept = of.name(name)?;
        let age = self.cache.age(&kept);
        let is_old = matches!(of, Of::Newest(fresh) if age.is_some_and(|age| age > fresh));
        let from_cache = |partial: &Path| Ok(self.cache.restore(&kept, partial));
        if !is_old && self.whole(name, from_cache)? {
            return Ok(());
        }
        let started = Instant::now();
        let made = self.whole(name, |partial| make(partial).map(|()| true));
        match made {
            Ok(_) => {
                say(&format!("{name}: there, after {:.0} s", started.elapsed().as_secs_f64()));
                self.cache.keep(&kept, &folder);
                Ok(())
            }
            Err(error) if is_old && self.whole(name, from_cache)? => {
                say(&format!("{name} is an old one, from the cache: {error:#}"));
                Ok(())
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
