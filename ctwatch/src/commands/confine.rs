//! Verbs that read what strangers may have made reach nothing but that, and what they write.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rustix::process::{getegid, geteuid};

use super::top::settings;
use crate::{
    cli::Command,
    host::{
        kernel::{privileges::try_without, sandbox},
        machine::{files, zone},
    },
};

/// Files of a folder that are looked at to know whether reading takes a privilege.
const MOST: usize = 10_000;

/// What such a verb opens.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reach {
    reads: Vec<PathBuf>,
    /// The folder of what it writes.
    writes: Option<PathBuf>,
}

impl Reach {
    /// `None` of a verb that looks at this machine.
    pub fn of(command: &Command) -> Option<Self> {
        let reads = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| Self { reads: vec![path.clone()], writes: None })
        };
        match command {
            Command::Watch(args) => reads(&args.past.from),
            // A screen and a report are written where it was started.
            Command::Top(args) => args.past.from.as_ref().map(|path| {
                let reads = std::iter::once(path.clone()).chain(settings::there(args)).collect();
                Self { reads, writes: Some(PathBuf::from(".")) }
            }),
            Command::Census(args) => reads(&args.from),
            Command::Doctor(args) if !args.diff.is_empty() => {
                Some(Self { reads: args.diff.clone(), writes: None })
            }
            Command::Doctor(args) => reads(&args.then.from),
            Command::Incidents(args) => reads(&Some(args.of.from.clone())),
            Command::Report(args) => {
                let is_file = args.output != Path::new("-");
                let writes = is_file.then(|| folder(&args.output));
                Some(Self { reads: vec![args.of.from.clone()], writes })
            }
            Command::Record(args) => args
                .cut
                .as_ref()
                .map(|into| Self { reads: vec![args.folder.clone()], writes: Some(folder(into)) }),
            Command::Check(args) => reads(&args.from),
            Command::Trace(_) | Command::Collect(_) | Command::Serve(_) => None,
        }
    }

    /// Before there is a second thread: each has its own bounds, and hands them on to those that it
    /// starts.
    pub fn confine(&self) -> Result<()> {
        // How local time is told may be said by any file: it is read before.
        zone::local();
        let reads: Vec<&Path> = self.reads.iter().map(PathBuf::as_path).collect();
        // Where the kernel cannot, it goes on as it is: docs/privileges.md says so.
        let _ = sandbox::confine(&reads, self.writes.as_deref())?;
        try_without(|| {
            self.reads.iter().all(|path| is_readable(path))
                && self.writes.as_ref().is_none_or(|folder| is_writable(folder))
        })
    }
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// With what this process may do now. What is not there is not to be read.
fn is_readable(path: &Path) -> bool {
    let opens = |path: &Path| match files::open(path) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    let Ok(about) = fs::metadata(path) else { return opens(path) };
    if !about.is_dir() {
        // What is neither is refused later, and not opened here.
        return !about.is_file() || opens(path);
    }
    let Ok(entries) = fs::read_dir(path) else { return false };
    entries.take(MOST + 1).enumerate().all(|(number, entry)| {
        let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
        number < MOST && entry.is_ok_and(|entry| !is_file(&entry) || opens(&entry.path()))
    })
}

/// By its owner and its mode: nothing is tried in a folder of others.
fn is_writable(folder: &Path) -> bool {
    let Ok(about) = fs::metadata(folder) else { return true };
    let may = |bit: u32| about.mode() & bit != 0;
    if about.uid() == geteuid().as_raw() {
        may(0o200)
    } else if about.gid() == getegid().as_raw() {
        may(0o020)
    } else {
        may(0o002)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn reach(line: &str) -> Option<Reach> {
        let words = line.split(' ').map(Into::into).collect();
        let cli = Cli::of(words).unwrap();
        Reach::of(&cli.command.unwrap_or(Command::Watch(cli.watch)))
    }

    #[test]
    fn verbs_that_read_files_reach_these() {
        for line in
            ["--from a", "watch --from a", "census --from a", "doctor --from a", "check --from a"]
        {
            let reach = reach(&format!("ctwatch {line}")).unwrap();
            assert_eq!((reach.reads, reach.writes), (vec!["a".into()], None), "{line}");
        }
        let reach_of = reach("ctwatch report --from a -o b/c.html").unwrap();
        assert_eq!(reach_of.writes, Some("b".into()));
        assert_eq!(reach("ctwatch report -o c.html").unwrap().writes, Some(".".into()));
        assert_eq!(reach("ctwatch report -o -").unwrap().writes, None);
        let reach_of = reach("ctwatch record a --cut b/c --mask").unwrap();
        assert_eq!((reach_of.reads, reach_of.writes), (vec!["a".into()], Some("b".into())));
        for line in
            ["ctwatch", "ctwatch doctor", "ctwatch record a", "ctwatch check", "ctwatch serve"]
        {
            assert_eq!(reach(line), None, "{line}");
        }
    }
}
