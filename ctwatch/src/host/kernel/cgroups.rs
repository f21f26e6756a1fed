//! What cgroups are called: the kernel names them by number, which is the inode number of their
//! folder.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where the unified hierarchy is: alone, or beside those of version 1.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Somebody may make cgroups faster than it is worth looking for them.
const PATIENCE: Duration = Duration::from_secs(5);
/// A box has hundreds; what is beyond keeps its number.
const MOST: usize = 20_000;

#[derive(Debug, Default)]
pub struct Cgroups {
    known: HashMap<u64, String>,
    looked: Option<Instant>,
}

impl Cgroups {
    /// `/system.slice/ssh.service`, where it is known.
    pub fn name(&mut self, number: u64) -> Option<&str> {
        let rested = self.looked.is_none_or(|looked| looked.elapsed() >= PATIENCE);
        if !self.known.contains_key(&number) && rested {
            self.known = PLACES
                .iter()
                .find(|place| Path::new(place).join("cgroup.controllers").exists())
                .map(|place| look(Path::new(place)))
                .unwrap_or_default();
            self.looked = Some(Instant::now());
        }
        self.known.get(&number).map(String::as_str)
    }
}

/// All cgroups below this one, and itself.
fn look(root: &Path) -> HashMap<u64, String> {
    let mut known = HashMap::new();
    if let Ok(metadata) = fs::metadata(root) {
        known.insert(metadata.ino(), "/".to_owned());
    }
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // One that is gone again has nothing to add.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if known.len() >= MOST {
                return known;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
                known.insert(entry.ino(), format!("/{name}"));
                folders.push(path);
            }
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_known_by_the_number_of_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a.slice/b.service");
        fs::create_dir_all(&inner).unwrap();
        fs::write(root.path().join("cgroup.procs"), "1\n").unwrap();
        let known = look(root.path());
        let number = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(known[&number(root.path())], "/");
        assert_eq!(known[&number(&inner)], "/a.slice/b.service");
        assert_eq!(known.len(), 3);
    }
}
