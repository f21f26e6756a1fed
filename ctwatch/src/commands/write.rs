//! The files of fixes, written into a folder and nowhere else.

use std::{
    fs::File,
    io::Write,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{
        AtFlags, Dir, Mode, OFlags, fstat, mkdir, mkdirat, open, openat, renameat, rmdir, unlinkat,
    },
    io::Errno,
    process::geteuid,
};

use crate::{
    diagnosis::report::Finding,
    output::{escape::escaped, text::doctor},
};

/// Says which file goes where.
const README: &str = "README";

/// A folder for files, opened: whatever becomes of its name meanwhile, they go there. Unless all are
/// written, none is left, nor what was made for them.
pub(super) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
    is_new: bool,
    /// Below it, in the order in which they were made.
    made: Vec<(PathBuf, AtFlags)>,
    is_whole: bool,
}

impl Folder {
    /// Made, or there, empty and nobody else's: so there is nothing to overwrite, and no link that
    /// leads out of it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // Without what follows the last name, as a slash: with that, a link would be followed.
        let path: PathBuf = path.components().collect();
        let place = escaped(&path.display().to_string());
        let is_new = match mkdir(&path, Mode::RWXU) {
            Err(Errno::EXIST) => false,
            made => made.map(|()| true).with_context(|| format!("cannot make {place}"))?,
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open(&path, flags, Mode::empty())
            .with_context(|| format!("cannot open {place}: name a folder that is new"))?;
        let folder = Self { path, fd, is_new, made: Vec::new(), is_whole: false };
        let status = fstat(&folder.fd)?;
        let is_shared = status.st_mode & 0o022 != 0 || status.st_uid != geteuid().as_raw();
        ensure!(!is_shared, "others may write into {place}: name a folder that is new");
        for entry in Dir::read_from(&folder.fd).with_context(|| format!("cannot list {place}"))? {
            let name = entry?;
            let is_empty = matches!(name.file_name().to_bytes(), b"." | b"..");
            ensure!(is_empty, "{place} is not empty: name a folder that is new");
        }
        Ok(folder)
    }

    pub(super) fn write(mut self, findings: &[Finding]) -> Result<Vec<PathBuf>> {
        let mut written: Vec<(PathBuf, &str)> = Vec::new();
        for file in findings.iter().flat_map(|finding| &finding.fixes).flat_map(|fix| &fix.files) {
            let wanted = inside(&file.path)?;
            // Two findings may be cured by the same; those that want something else of one file
            // must all be seen.
            let is_another = |(path, content): &(PathBuf, &str), at: &Path| {
                path == at && *content != file.content
            };
            let mut inside = wanted.clone();
            let mut number = 1;
            while written.iter().any(|one| is_another(one, &inside)) {
                number += 1;
                inside.clone_from(&wanted);
                inside.as_mut_os_string().push(format!(".{number}"));
            }
            if !written.iter().any(|(path, _)| *path == inside) {
                self.put(&inside, &file.content)?;
                written.push((inside, &file.content));
            }
        }
        let mut written: Vec<PathBuf> =
            written.into_iter().map(|(inside, _)| self.path.join(inside)).collect();
        self.put(Path::new(README), &doctor::readme(findings))?;
        written.push(self.path.join(README));
        self.is_whole = true;
        Ok(written)
    }

    fn put(&mut self, inside: &Path, content: &str) -> Result<()> {
        let written = self.try_to_put(inside, content);
        let place = self.path.join(inside);
        written.with_context(|| format!("cannot write {}", escaped(&place.display().to_string())))
    }

    /// Whole or not at all: under another name, which then becomes its own.
    fn try_to_put(&mut self, inside: &Path, content: &str) -> std::io::Result<()> {
        let mut folder = self.fd.try_clone()?;
        let mut below = PathBuf::new();
        for name in inside.parent().into_iter().flat_map(Path::components) {
            below.push(name);
            match mkdirat(&folder, name.as_os_str(), Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => {}
                Ok(()) => self.made.push((below.clone(), AtFlags::REMOVEDIR)),
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = openat(&folder, name.as_os_str(), flags, Mode::empty())?;
        }
        let name = inside.file_name().unwrap_or_default();
        let mut unfinished = name.to_owned();
        unfinished.push(".unfinished");
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&folder, &unfinished, flags, Mode::from_raw_mode(0o644))?;
        self.made.push((below.join(&unfinished), AtFlags::empty()));
        let mut file = File::from(file);
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        renameat(&folder, &unfinished, &folder, name)?;
        if let Some((made, _)) = self.made.last_mut() {
            *made = below.join(name);
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_whole {
            return;
        }
        // What cannot be removed stays: why there is nothing else has been said.
        for (made, flags) in self.made.iter().rev() {
            let _ = unlinkat(&self.fd, made, *flags);
        }
        if self.is_new {
            let _ = rmdir(&self.path);
        }
    }
}

/// `/etc/sysctl.d/x.conf` as `etc/sysctl.d/x.conf`.
fn inside(path: &str) -> Result<PathBuf> {
    let mut inside = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => inside.push(name),
            _ => bail!("{path} leads elsewhere"),
        }
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::diagnosis::report::{self, Fix, Severity};

    fn files(folder: &Path, findings: &[Finding]) -> Result<Vec<PathBuf>> {
        Folder::open(folder)?.write(findings)
    }

    fn finding(path: &str) -> Finding {
        of_content(path, "x\n")
    }

    fn of_content(path: &str, content: &str) -> Finding {
        let file = report::File { path: path.to_owned(), content: content.to_owned() };
        let fix =
            Fix { title: "cure".to_owned(), files: vec![file.clone(), file], ..Fix::default() };
        Finding {
            id: "ill",
            severity: Severity::Info,
            title: "ill".to_owned(),
            evidence: Vec::new(),
            fixes: vec![fix],
            about: Vec::new(),
        }
    }

    #[test]
    fn files_are_written_once_and_only_below_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("new");
        let written = files(&folder, &[finding("/etc/a.d/b.conf")]).unwrap();
        assert_eq!(written, [folder.join("etc/a.d/b.conf"), folder.join("README")]);
        assert_eq!(fs::read_to_string(&written[0]).unwrap(), "x\n");
        let again = files(&folder, &[]).unwrap_err();
        assert!(again.to_string().contains("not empty"), "{again}");
        let elsewhere = files(&place.path().join("other"), &[finding("/etc/../../x")]);
        assert!(elsewhere.unwrap_err().to_string().contains("leads elsewhere"));
        let nowhere = files(&place.path().join("a/b"), &[]).unwrap_err();
        assert!(nowhere.to_string().contains("cannot make"), "{nowhere}");
    }

    #[test]
    fn no_link_leads_out_and_no_folder_of_others_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let (link, shared) = (place.path().join("link"), place.path().join("shared"));
        let empty = place.path().join("empty");
        fs::create_dir(&empty).unwrap();
        symlink(&empty, &link).unwrap();
        for ending in ["", "/", "//", "/."] {
            let mut wanted = link.clone().into_os_string();
            wanted.push(ending);
            assert!(files(Path::new(&wanted), &[]).is_err(), "{wanted:?}");
            assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "{wanted:?}");
        }
        fs::create_dir(&shared).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&shared, open).unwrap();
        let error = files(&shared, &[]).unwrap_err();
        assert!(error.to_string().contains("others may write"), "{error}");
        // Opened before it was swapped for a link.
        let (taken, moved) = (place.path().join("taken"), place.path().join("moved"));
        let folder = Folder::open(&taken).unwrap();
        fs::rename(&taken, &moved).unwrap();
        symlink(place.path(), &taken).unwrap();
        folder.write(&[finding("/etc/a")]).unwrap();
        assert!(moved.join("etc/a").is_file() && !place.path().join("etc").exists());
    }

    #[test]
    fn what_fails_leaves_nothing_behind() {
        let place = tempfile::tempdir().unwrap();
        // A file where the other wants a folder.
        let all = [finding("/etc/a"), finding("/var/x/y"), finding("/etc/a/b")];
        let new = place.path().join("new");
        let error = files(&new, &all).unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
        assert!(!new.exists());
        // One that was there stays, as empty as it was.
        fs::create_dir(&new).unwrap();
        assert!(files(&new, &all).is_err());
        assert_eq!(fs::read_dir(&new).unwrap().count(), 0);
        // And where nothing is written in the end, as the doctor failed.
        let other = place.path().join("other");
        drop(Folder::open(&other).unwrap());
        assert!(!other.exists());
    }

    #[test]
    fn all_that_want_something_else_of_one_file_are_written() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("new");
        let all = ["1\n", "2\n", "3\n", "2\n"].map(|content| of_content("/etc/a", content));
        let written = files(&folder, &all).unwrap();
        assert_eq!(written[..2], [folder.join("etc/a"), folder.join("etc/a.2")]);
        assert_eq!(written[2..], [folder.join("etc/a.3"), folder.join("README")]);
        assert_eq!(fs::read_to_string(&written[1]).unwrap(), "2\n");
    }
}
