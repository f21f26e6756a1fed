//! The files of fixes, written into a folder and nowhere else.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{output::doctor, report::Finding};

/// Says which file goes where.
const README: &str = "README";

/// Below a folder that is made, or is there and empty: so there is nothing to overwrite, and no
/// link that leads out of it.
pub(super) fn files(folder: &Path, findings: &[Finding]) -> Result<Vec<PathBuf>> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let place = folder.display();
            let mut there = fs::read_dir(folder).with_context(|| format!("cannot list {place}"))?;
            ensure!(there.next().is_none(), "{place} is not empty: name a folder that is new");
        }
        made => made.with_context(|| format!("cannot make {}", folder.display()))?,
    }
    let mut written: Vec<PathBuf> = Vec::new();
    for file in findings.iter().flat_map(|finding| &finding.fixes).flat_map(|fix| &fix.files) {
        let path = folder.join(inside(&file.path)?);
        // Two findings may be cured by the same.
        if !written.contains(&path) {
            put(&path, &file.content)?;
            written.push(path);
        }
    }
    let path = folder.join(README);
    put(&path, &doctor::readme(findings))?;
    written.push(path);
    Ok(written)
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

fn put(path: &Path, content: &str) -> Result<()> {
    let written = (|| {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(content.as_bytes())
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{File, Fix, Severity};

    fn finding(path: &str) -> Finding {
        let file = File { path: path.to_owned(), content: "x\n".to_owned() };
        let fix = Fix {
            title: "cure".to_owned(),
            now: Vec::new(),
            files: vec![file.clone(), file],
            breaks: String::new(),
            undo: Vec::new(),
            expect: String::new(),
        };
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
}
