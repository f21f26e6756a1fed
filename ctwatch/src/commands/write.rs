//! The files of fixes, written into a folder and nowhere else.

use std::{
    fs::File,
    io::Write,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{Dir, Mode, OFlags, fstat, mkdir, mkdirat, open, openat},
    io::Errno,
    process::geteuid,
};

use crate::{
    output::{doctor, escape::escaped},
    report::Finding,
};

/// Says which file goes where.
const README: &str = "README";

/// A folder for files, opened: whatever becomes of its name meanwhile, they go there.
pub(super) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    /// Made, or there, empty and nobody else's: so there is nothing to overwrite, and no link that
    /// leads out of it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let place = escaped(&path.display().to_string());
        match mkdir(path, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => made.with_context(|| format!("cannot make {place}"))?,
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty())
            .with_context(|| format!("cannot open {place}: name a folder that is new"))?;
        let status = fstat(&fd)?;
        let is_shared = status.st_mode & 0o022 != 0 || status.st_uid != geteuid().as_raw();
        ensure!(!is_shared, "others may write into {place}: name a folder that is new");
        for entry in Dir::read_from(&fd).with_context(|| format!("cannot list {place}"))? {
            let name = entry?;
            let is_empty = matches!(name.file_name().to_bytes(), b"." | b"..");
            ensure!(is_empty, "{place} is not empty: name a folder that is new");
        }
        Ok(Self { path: path.to_owned(), fd })
    }

    pub(super) fn write(&self, findings: &[Finding]) -> Result<Vec<PathBuf>> {
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
        Ok(written)
    }

    fn put(&self, inside: &Path, content: &str) -> Result<()> {
        let written = (|| -> std::io::Result<()> {
            let mut folder = self.fd.try_clone()?;
            for name in inside.parent().into_iter().flat_map(Path::components) {
                match mkdirat(&folder, name.as_os_str(), Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) | Ok(()) => {}
                    Err(error) => return Err(error.into()),
                }
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                folder = openat(&folder, name.as_os_str(), flags, Mode::empty())?;
            }
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let name = inside.file_name().unwrap_or_default();
            let file = openat(&folder, name, flags, Mode::from_raw_mode(0o644))?;
            File::from(file).write_all(content.as_bytes())
        })();
        let place = self.path.join(inside);
        written.with_context(|| format!("cannot write {}", escaped(&place.display().to_string())))
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
    use crate::report::{self, Fix, Severity};

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
        symlink("/tmp", &link).unwrap();
        assert!(files(&link, &[]).is_err());
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
