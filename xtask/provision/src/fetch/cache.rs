//! What was provisioned once, kept outside the clone: one archive for each folder of the store, with
//! its checksum beside it. Deleting any of it, at any time, costs a download or a build and nothing
//! else.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};

use super::say;
use ctwatch_provision::process::output;

/// Names the folder; empty turns the cache off.
const VARIABLE: &str = "CTWATCH_CACHE";

/// `None` inside where there is no such folder, or where it is not wanted.
#[derive(Clone, Debug)]
pub(super) struct Cache(Option<PathBuf>);

impl Cache {
    /// `$CTWATCH_CACHE`, else `ctwatch-xtask` where this user's caches are.
    pub(super) fn of_this_user() -> Self {
        Self(folder(
            env::var_os(VARIABLE).map(PathBuf::from),
            env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
            env::var_os("HOME").map(PathBuf::from),
        ))
    }

    /// How long ago this was put there.
    pub(super) fn age(&self, name: &str) -> Option<Duration> {
        let made = self.archive(name)?.metadata().ok()?.modified().ok()?;
        SystemTime::now().duration_since(made).ok()
    }

    /// Unpacks what is kept under this name into `to`, which is empty. Answers whether there was
    /// any that is whole; what is not is removed.
    pub(super) fn restore(&self, name: &str, to: &Path) -> bool {
        let Some(archive) = self.archive(name).filter(|archive| archive.is_file()) else {
            return false;
        };
        match unpack(&archive, to) {
            Ok(()) => true,
            Err(error) => {
                say(&format!("{name} in the cache is not used, and removed: {error:#}"));
                for file in [checksum_of(&archive), archive] {
                    let _ = fs::remove_file(file);
                }
                false
            }
        }
    }

    /// Keeps what is in `from`. A cache that cannot be written is no reason to stop.
    pub(super) fn keep(&self, name: &str, from: &Path) {
        let Some(archive) = self.archive(name) else { return };
        if let Err(error) = pack(&archive, from) {
            say(&format!("{name} is not kept for other clones: {error:#}"));
        }
    }

    fn archive(&self, name: &str) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(format!("{name}.tar")))
    }
}

fn folder(
    named: Option<PathBuf>,
    caches: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    if let Some(named) = named {
        return Some(named).filter(|named| !named.as_os_str().is_empty());
    }
    // A relative one is to be ignored, by the specification of these variables.
    let caches = caches.filter(|caches| caches.is_absolute());
    let caches = caches.or_else(|| Some(home.filter(|home| home.is_absolute())?.join(".cache")))?;
    Some(caches.join("ctwatch-xtask"))
}

fn checksum_of(archive: &Path) -> PathBuf {
    archive.with_extension("tar.sha256")
}

fn sha256(file: &Path) -> Result<String> {
    let said = output(Command::new("sha256sum").arg("--zero").arg(file))?;
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

fn unpack(archive: &Path, to: &Path) -> Result<()> {
    let expected = fs::read_to_string(checksum_of(archive)).context("it has no checksum")?;
    ensure!(sha256(archive)? == expected.trim(), "its checksum is another one");
    output(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(to)).map(|_| ())
}

/// The checksum comes last, so what was interrupted has none.
fn pack(archive: &Path, from: &Path) -> Result<()> {
    let dir = archive.parent().context("no folder")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let partial = archive.with_extension(format!("partial-{}", std::process::id()));
    let made = || {
        output(Command::new("tar").arg("-cf").arg(&partial).arg("-C").arg(from).arg("."))?;
        let checksum = sha256(&partial)?;
        let _ = fs::remove_file(checksum_of(archive));
        fs::rename(&partial, archive)?;
        fs::write(checksum_of(archive), checksum)?;
        Ok(())
    };
    made().inspect_err(|_: &anyhow::Error| {
        let _ = fs::remove_file(&partial);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = env::temp_dir().join(format!("xtask-cache-{name}-{}", std::process::id()));
            fs::create_dir_all(dir.join("from")).unwrap();
            fs::write(dir.join("from/file"), "content").unwrap();
            Self(dir)
        }

        fn cache(&self) -> Cache {
            Cache(Some(self.0.join("cache")))
        }

        fn to(&self, name: &str) -> PathBuf {
            let to = self.0.join(name);
            fs::create_dir_all(&to).unwrap();
            to
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_kept_comes_back() {
        let scratch = Scratch::new("back");
        let to = scratch.to("to");
        assert!(!scratch.cache().restore("thing", &to), "nothing is there yet");
        scratch.cache().keep("thing", &scratch.0.join("from"));
        assert!(scratch.cache().restore("thing", &to));
        assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "content");
        assert!(scratch.cache().age("thing").unwrap() < Duration::from_secs(600));
    }

    #[test]
    fn a_changed_archive_is_removed() {
        let scratch = Scratch::new("changed");
        scratch.cache().keep("thing", &scratch.0.join("from"));
        let archive = scratch.0.join("cache/thing.tar");
        let mut bytes = fs::read(&archive).unwrap();
        bytes[600] ^= 1;
        fs::write(&archive, bytes).unwrap();
        assert!(!scratch.cache().restore("thing", &scratch.to("to")));
        assert!(!archive.exists());
    }

    #[test]
    fn an_archive_without_checksum_is_removed() {
        let scratch = Scratch::new("bare");
        scratch.cache().keep("thing", &scratch.0.join("from"));
        fs::remove_file(scratch.0.join("cache/thing.tar.sha256")).unwrap();
        assert!(!scratch.cache().restore("thing", &scratch.to("to")));
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_passed_over() {
        let scratch = Scratch::new("full");
        let nowhere = Cache(Some(scratch.0.join("from/file/below")));
        nowhere.keep("thing", &scratch.0.join("from"));
        assert!(!nowhere.restore("thing", &scratch.to("to")));
    }

    #[test]
    fn the_folder_is_the_one_that_was_named() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(folder(path("/a"), path("/b"), path("/c")), path("/a"));
        assert_eq!(folder(path(""), path("/b"), path("/c")), None);
        assert_eq!(folder(None, path("/b"), path("/c")), path("/b/ctwatch-xtask"));
        assert_eq!(folder(None, path("b"), path("/c")), path("/c/.cache/ctwatch-xtask"));
        assert_eq!(folder(None, None, None), None);
    }
}
