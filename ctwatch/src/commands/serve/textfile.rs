//! The same in a file, for boxes where no port may be opened: node_exporter's textfile collector reads it. A
//! thread of its own writes it, so that a disk never stops the watching.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use anyhow::{Context, Result};

use super::current::{Board, Pages};
use crate::{
    output::{aside, openmetrics::format::Format},
    threads,
};

const NAME: &str = "ctwatch.prom";
/// The collector reads no file that is called so.
const BESIDE: &str = ".ctwatch.prom.new";

pub(super) struct Textfile {
    wake: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Textfile {
    /// A folder that cannot be written into is known at once.
    pub(super) fn start(folder: &Path, board: &Arc<Board>) -> Result<Self> {
        let place = || format!("cannot write into {}", folder.display());
        let probe = folder.join(BESIDE);
        write(&probe, b"").with_context(place)?;
        fs::remove_file(&probe).with_context(place)?;
        let (wake, woken) = mpsc::sync_channel(1);
        let mut pages = Pages::new(Arc::clone(board), String::new());
        let folder = folder.to_owned();
        let thread = threads::start("textfile", move || {
            let (path, beside) = (folder.join(NAME), folder.join(BESIDE));
            let mut said = None;
            for () in woken {
                let Ok(page) = pages.metrics(Format::Text) else { continue };
                let written = write(&beside, &page).and_then(|()| fs::rename(&beside, &path));
                tell(&path, written.err().map(|error| error.to_string()), &mut said);
            }
            // What is not watched any more is not to be read.
            let _ = fs::remove_file(&beside);
            let _ = fs::remove_file(&path);
        })?;
        Ok(Self { wake: Some(wake), thread: Some(thread) })
    }

    /// Where the last is not written yet, this one waits for no other.
    pub(super) fn write(&self) {
        if let Some(wake) = &self.wake {
            let _ = wake.try_send(());
        }
    }

    /// Takes it away.
    pub(super) fn end(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Once, as long as it stays so.
fn tell(path: &Path, why: Option<String>, said: &mut Option<String>) {
    if why == *said {
        return;
    }
    match &why {
        Some(why) => aside::say(&format!("cannot write {}: {why}", path.display())),
        None => aside::say(&format!("writing {} again", path.display())),
    }
    *said = why;
}

/// Whole, and for everybody to read.
fn write(path: &PathBuf, bytes: &[u8]) -> std::io::Result<()> {
    // One that was killed may have left it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file =
        File::options().write(true).create_new(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(bytes)
}
