//! A folder, walked by what is open: between two looks nothing in it can be turned into something else.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::Result;
use rustix::{
    fs::{Dir, FileType, Mode, OFlags, Stat, fstat, openat},
    io::Errno,
};

use super::{
    budget::{Budget, Metered},
    piece::{Each, piece},
    tar::inside,
};

pub(super) fn walk(folder: &OwnedFd, budget: &Budget, each: &mut Each<'_>) -> Result<()> {
    let about = fstat(folder)?;
    Walk { top: about, budget }.folder(folder, "", each)
}

struct Walk<'a> {
    top: Stat,
    budget: &'a Budget,
}

impl Walk<'_> {
    fn folder(&self, folder: impl AsFd, path: &str, each: &mut Each<'_>) -> Result<()> {
        let unread = |error: Errno| self.budget.fail(path, &io::Error::from(error));
        let entries = match Dir::read_from(folder.as_fd()) {
            Ok(entries) => entries,
            Err(error) => {
                unread(error);
                return Ok(());
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    unread(error);
                    return Ok(());
                }
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if !self.budget.enter() {
                return Ok(());
            }
            let path = match path {
                "" => name.to_string_lossy().into_owned(),
                path => format!("{path}/{}", name.to_string_lossy()),
            };
            if let Err(why) = inside(&path, self.budget) {
                self.budget.leave_out(&path, why);
                continue;
            }
            // Where the file system says it. What is opened is looked at once more.
            if let Some(why) = not_opened(entry.file_type()) {
                self.budget.leave_out(&path, why);
                continue;
            }
            let flags = OFlags::RDONLY
                | OFlags::NOFOLLOW
                | OFlags::NONBLOCK
                | OFlags::NOCTTY
                | OFlags::CLOEXEC;
            match openat(&folder, name, flags, Mode::empty()) {
                Ok(file) => self.opened(file, &path, each)?,
                Err(Errno::LOOP) => self.budget.leave_out(&path, LINK),
                Err(error) => self.budget.fail(&path, &error.into()),
            }
            if self.budget.is_over() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn opened(&self, file: OwnedFd, path: &str, each: &mut Each<'_>) -> Result<()> {
        let about = match fstat(&file) {
            Ok(about) => about,
            Err(error) => {
                self.budget.fail(path, &error.into());
                return Ok(());
            }
        };
        let kind = FileType::from_raw_mode(about.st_mode);
        if let Some(why) = not_opened(kind) {
            self.budget.leave_out(path, why);
        } else if kind == FileType::Directory {
            // As /proc in /.
            if about.st_dev != self.top.st_dev {
                self.budget.leave_out(path, "other file systems are not looked into");
                return Ok(());
            }
            return self.folder(file, path, each);
        } else if about.st_nlink > 1 && about.st_uid != self.top.st_uid {
            // Such a second name may be anything's.
            self.budget.leave_out(path, "links to files of other users are not followed");
        } else {
            let file = Metered::new(File::from(file), self.budget);
            return piece(path, file, self.budget, each);
        }
        Ok(())
    }
}

const LINK: &str = "links are not followed";

fn not_opened(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile | FileType::Directory | FileType::Unknown => None,
        FileType::Symlink => Some(LINK),
        _ => Some("devices and pipes are not opened"),
    }
}
