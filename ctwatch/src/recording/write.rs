//! Segments on a disk, written by a thread of its own: a disk that is slow, full or gone never stops the
//! watching.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, TrySendError},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock, statvfs};

use super::{
    MODE,
    keep::{Keep, Kept},
    line::{Line, RecordedOn, Segment},
    segment,
};
use crate::threads;

/// After so long, what was written is on the disk.
const SYNC: Duration = Duration::from_secs(10);
/// How often it is looked whether there is too much.
const TIDY: Duration = Duration::from_secs(60);
/// Lines that wait for the disk. More are not recorded.
const WAITING: usize = 512;
const LOCK: &str = "lock";
/// Incidents that are over, a line each; the file is begun anew when it is so long.
const INCIDENTS: &str = "incidents.ndjson";
const MOST_INCIDENTS: u64 = 16 << 20;

/// What is handed to the thread.
enum Job {
    /// A new segment begins.
    Segment(Timestamp),
    Line(Vec<u8>),
    Incident(Vec<u8>),
}

/// What the thread says of the disk.
#[derive(Debug, Default)]
struct Said {
    /// Why nothing is written now.
    broken: Option<String>,
    /// Lines that were not written since that was last asked.
    unwritten: u64,
}

type Shared = Arc<Mutex<Said>>;

/// A folder that is being recorded into.
pub struct RecordingFolder {
    jobs: Option<mpsc::SyncSender<Job>>,
    said: Shared,
    thread: Option<JoinHandle<()>>,
}

impl RecordingFolder {
    /// Opens or makes it, and locks it: one recorder writes there.
    pub fn open(path: &Path, keep: Keep, origin: RecordedOn) -> Result<Self> {
        let disk = Disk::open(path, keep, origin)?;
        let said = Shared::default();
        let (jobs, inbox) = mpsc::sync_channel(WAITING);
        let shared = Arc::clone(&said);
        let thread = threads::start("recorder", move || disk.run(&inbox, &shared))?;
        Ok(Self { jobs: Some(jobs), said, thread: Some(thread) })
    }

    pub fn begin(&self, time: Timestamp) {
        self.give(Job::Segment(time));
    }

    pub fn write(&self, line: Vec<u8>) {
        self.give(Job::Line(line));
    }

    /// Into a file of their own.
    pub fn incident(&self, line: Vec<u8>) {
        self.give(Job::Incident(line));
    }

    fn give(&self, job: Job) {
        let Some(jobs) = &self.jobs else { return };
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.said().lose("the disk takes nothing: it does not keep up, or hangs");
            }
            Err(TrySendError::Disconnected(_)) => {
                self.said().lose("the recording thread has ended")
            }
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing is written, if so.
    pub fn broken(&self) -> Option<String> {
        self.said().broken.clone()
    }

    /// Lines that were not written since this was last asked, when it is written again.
    pub fn take_unwritten(&self) -> u64 {
        std::mem::take(&mut self.said().unwritten)
    }
}

impl Drop for RecordingFolder {
    /// All that was handed over is on the disk then, or never will be.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Said {
    fn lose(&mut self, why: &str) {
        self.unwritten += 1;
        self.broken.get_or_insert_with(|| why.to_owned());
    }
}

struct Disk {
    folder: PathBuf,
    keep: Keep,
    origin: RecordedOn,
    /// Held for as long as it is recorded.
    _lock: File,
    writing: Option<Writing>,
    next: u64,
    tidied: Option<Instant>,
}

/// The segment that is being written.
struct Writing {
    file: File,
    path: PathBuf,
    /// Whole lines.
    bytes: u64,
    synced: Instant,
    is_synced: bool,
}

impl Disk {
    fn open(path: &Path, keep: Keep, origin: RecordedOn) -> Result<Self> {
        let place = path.display();
        match fs::DirBuilder::new().mode(0o750).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {place}")),
        }
        let about = fs::metadata(path).with_context(|| format!("cannot look at {place}"))?;
        ensure!(about.is_dir(), "{place} is no folder: name one to record into");
        ensure!(
            about.mode() & 0o022 == 0,
            "others may write into {place}: record into a folder that is only this user's"
        );
        let lock = lock(path)?;
        let mut disk = Self {
            folder: path.to_owned(),
            keep,
            origin,
            _lock: lock,
            writing: None,
            next: 1,
            tidied: None,
        };
        disk.take_over().with_context(|| format!("cannot record into {place}"))?;
        Ok(disk)
    }

    /// What a recorder left that was killed.
    fn take_over(&mut self) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(segment::UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        let files = segment::list(&self.folder)?;
        self.next = files.last().map_or(1, |last| last.number.saturating_add(1));
        for file in files.iter().filter(|file| !file.is_sealed) {
            seal(&file.path)?;
        }
        Ok(())
    }

    fn run(mut self, inbox: &mpsc::Receiver<Job>, said: &Shared) {
        loop {
            let done = match inbox.recv_timeout(SYNC) {
                Ok(Job::Segment(time)) => self.begin(time),
                Ok(Job::Line(line)) => self.line(&line),
                Ok(Job::Incident(line)) => self.incident(&line),
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            match done {
                Ok(true) => {
                    // Only a new segment is whole again.
                    said.broken = None;
                }
                Ok(false) if self.writing.is_some() => {}
                Ok(false) => said.unwritten += 1,
                Err(error) => {
                    said.broken = Some(format!("{error:#}"));
                    said.unwritten += 1;
                    self.writing = None;
                }
            }
        }
        let _ = self.sync();
    }

    /// Whether a segment has begun.
    fn begin(&mut self, time: Timestamp) -> Result<bool> {
        let before = self.writing.take();
        self.tidy(true);
        let (number, folder) = (self.next, &self.folder);
        let path = folder.join(segment::name(number, time));
        let place = path.display();
        let opened = OpenOptions::new().append(true).create_new(true).mode(MODE).open(&path);
        let file = opened.with_context(|| format!("cannot write {place}"))?;
        let mut writing = Writing { file, path, bytes: 0, synced: Instant::now(), is_synced: true };
        let header = Line::Segment(Segment::new(number, time, &self.origin)).text()?;
        if let Err(error) = writing.put(&header) {
            let _ = fs::remove_file(&writing.path);
            return Err(error);
        }
        self.next += 1;
        self.writing = Some(writing);
        if let Some(before) = before {
            before.sync()?;
            seal(&before.path)?;
            self.tidy(true);
        }
        Ok(true)
    }

    fn line(&mut self, line: &[u8]) -> Result<bool> {
        let Some(writing) = &mut self.writing else { return Ok(false) };
        writing.put(line)?;
        if writing.synced.elapsed() >= SYNC {
            self.sync()?;
        }
        self.tidy(false);
        Ok(false)
    }

    /// Into a file that grows: the one before is kept, and no other.
    fn incident(&self, line: &[u8]) -> Result<bool> {
        let path = self.folder.join(INCIDENTS);
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(MODE).custom_flags(libc::O_NOFOLLOW);
        let written = (|| {
            let mut file = options.open(&path)?;
            if file.metadata()?.len() >= MOST_INCIDENTS {
                fs::rename(&path, self.folder.join(format!("{INCIDENTS}.1")))?;
                file = options.open(&path)?;
            }
            file.write_all(line)
        })();
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(false)
    }

    fn sync(&mut self) -> Result<bool> {
        if let Some(writing) = self.writing.as_mut().filter(|writing| !writing.is_synced) {
            writing.sync()?;
            (writing.synced, writing.is_synced) = (Instant::now(), true);
        }
        Ok(false)
    }

    /// Removes what is more than may be kept. What cannot be removed now can be later.
    fn tidy(&mut self, now: bool) {
        if !now && self.tidied.is_some_and(|at| at.elapsed() < TIDY) {
            return;
        }
        self.tidied = Some(Instant::now());
        let Ok(mut files) = segment::list(&self.folder) else { return };
        files.retain(|file| self.writing.as_ref().is_none_or(|writing| writing.path != file.path));
        let time = |path: &Path| {
            let changed = fs::metadata(path).and_then(|about| about.modified());
            Timestamp::try_from(changed.unwrap_or_else(|_| SystemTime::now())).ok()
        };
        let kept = files.iter().filter_map(|file| {
            let time = time(&file.path)?;
            Some(Kept { number: file.number, bytes: file.bytes, time })
        });
        let kept: Vec<Kept> = kept.collect();
        let writing = self.writing.as_ref().map_or(0, |writing| writing.bytes);
        let free = statvfs(&self.folder).ok();
        let free = free.map(|of| of.f_bavail.saturating_mul(of.f_frsize));
        let excess = self.keep.excess(&kept, writing, free, Timestamp::now());
        for file in files.iter().filter(|file| excess.contains(&file.number)) {
            let _ = fs::remove_file(&file.path);
        }
    }
}

impl Writing {
    /// The whole line, or nothing of it.
    fn put(&mut self, line: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(line) {
            let _ = self.file.set_len(self.bytes);
            return Err(error).with_context(|| format!("cannot write {}", self.path.display()));
        }
        self.bytes += line.len() as u64;
        self.is_synced = false;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let synced = self.file.sync_data();
        synced.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path);
    let mut file = opened.with_context(|| format!("cannot write {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut by = String::new();
        let _ = (&mut file).take(32).read_to_string(&mut by);
        let by: String = by.chars().filter(char::is_ascii_digit).collect();
        bail!(
            "another ctwatch records into {} already (process {by}): stop it, or name another folder",
            folder.display()
        );
    }
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// From a plain segment to a finished one: whole, or not at all.
fn seal(plain: &Path) -> Result<()> {
    let sealed = segment::sealed(plain);
    let mut unfinished = sealed.clone().into_os_string();
    unfinished.push(segment::UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let done = compress(plain, &unfinished).and_then(|()| {
        fs::rename(&unfinished, &sealed)?;
        // That it has its name is to be on the disk before the other is gone.
        File::open(plain.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        fs::remove_file(plain)
    });
    if done.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    done.with_context(|| format!("cannot finish {}", plain.display()))
}

fn compress(plain: &Path, into: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(plain)?);
    let out = OpenOptions::new().write(true).create_new(true).mode(MODE).open(into)?;
    let mut gzip = GzEncoder::new(BufWriter::new(out), Compression::default());
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        match line.last() {
            None => break,
            Some(b'\n') => gzip.write_all(&line)?,
            // Its recorder was killed while it wrote: what there is of it says nothing.
            Some(_) => {
                let torn = Line::Torn { bytes: line.len() as u64 };
                gzip.write_all(&torn.text().map_err(io::Error::other)?)?;
                break;
            }
        }
    }
    let out = gzip.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    out.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::recording::read::Lines;

    fn open(folder: &Path, keep: Keep) -> Result<RecordingFolder> {
        RecordingFolder::open(folder, keep, RecordedOn::default())
    }

    fn line(number: u64) -> Vec<u8> {
        Line::LoadsLost { more: number }.text().unwrap()
    }

    /// What is in the recording, in its order.
    fn numbers(folder: &Path) -> Vec<String> {
        let mut lines = Lines::open(folder).unwrap();
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push(match line {
                Line::Segment(segment) => format!("segment {}", segment.number),
                Line::LoadsLost { more } => more.to_string(),
                Line::Torn { bytes } => format!("torn {bytes}"),
                other => format!("{other:?}"),
            });
        }
        found
    }

    fn files(folder: &Path) -> Vec<(u64, bool)> {
        let files = segment::list(folder).unwrap();
        files.iter().map(|file| (file.number, file.is_sealed)).collect()
    }

    #[test]
    fn what_was_written_is_read_in_its_order() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("rec");
        let recording = open(&folder, Keep::default()).unwrap();
        for number in 0..5 {
            if number % 2 == 0 {
                recording.begin(Timestamp::UNIX_EPOCH);
            }
            recording.write(line(number));
        }
        assert_eq!(recording.broken(), None);
        drop(recording);
        let all = ["segment 1", "0", "1", "segment 2", "2", "3", "segment 3", "4"];
        assert_eq!(numbers(&folder), all);
        assert_eq!(files(&folder), [(1, true), (2, true), (3, false)]);
        for file in segment::list(&folder).unwrap() {
            let mode = fs::metadata(&file.path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777 & !MODE, 0, "{file:?}");
        }
        // The next one goes on.
        let recording = open(&folder, Keep::default()).unwrap();
        recording.begin(Timestamp::UNIX_EPOCH);
        drop(recording);
        assert_eq!(files(&folder), [(1, true), (2, true), (3, true), (4, false)]);
        assert_eq!(numbers(&folder)[..8], all);
    }

    #[test]
    fn one_recorder_writes_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let first = open(place.path(), Keep::default()).unwrap();
        let error = open(place.path(), Keep::default()).err().unwrap().to_string();
        let me = std::process::id().to_string();
        assert!(error.contains("another ctwatch") && error.contains(&me), "{error}");
        drop(first);
        assert!(open(place.path(), Keep::default()).is_ok());
    }

    #[test]
    fn a_torn_line_is_told_and_nothing_else_lost() {
        let place = tempfile::tempdir().unwrap();
        let recording = open(place.path(), Keep::default()).unwrap();
        recording.begin(Timestamp::UNIX_EPOCH);
        recording.write(line(7));
        drop(recording);
        let path = segment::list(place.path()).unwrap()[0].path.clone();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"type\":\"ti").unwrap();
        assert_eq!(numbers(place.path()), ["segment 1", "7", "torn 11"]);
        // Left by one that was killed while it sealed.
        fs::write(place.path().join("ctwatch-000001-x.ndjson.gz.unfinished"), "x").unwrap();
        drop(open(place.path(), Keep::default()).unwrap());
        assert_eq!(files(place.path()), [(1, true)]);
        assert_eq!(numbers(place.path()), ["segment 1", "7", "torn 11"]);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "and the lock");
    }

    #[test]
    fn no_more_is_kept_than_was_said() {
        let place = tempfile::tempdir().unwrap();
        let keep = Keep { bytes: 3_000, free: 0, ..Keep::default() };
        let recording = open(place.path(), keep).unwrap();
        let mut random = 1_u64;
        for number in 0..40 {
            recording.begin(Timestamp::UNIX_EPOCH);
            let mut why = String::new();
            for _ in 0..20 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number);
                why += &random.to_string();
            }
            recording.write(Line::NoCensus { why }.text().unwrap());
        }
        drop(recording);
        let left = segment::list(place.path()).unwrap();
        let bytes: u64 = left.iter().map(|file| file.bytes).sum();
        assert!(bytes <= 3_000 + 1_200 && left.len() > 2, "{bytes}: {left:?}");
        assert_eq!(left.last().unwrap().number, 40);
    }

    #[test]
    fn a_disk_that_takes_nothing_is_told() {
        let place = tempfile::tempdir().unwrap();
        let recording = open(place.path(), Keep::default()).unwrap();
        let until = |is_so: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !is_so() {
                assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", recording.broken());
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        // Where root writes anyway, another has the file's name.
        let name = segment::name(1, Timestamp::UNIX_EPOCH);
        fs::create_dir(place.path().join(&name)).unwrap();
        recording.begin(Timestamp::UNIX_EPOCH);
        until(&|| recording.broken().is_some());
        assert!(recording.broken().unwrap().contains(&name));
        recording.write(line(1));
        recording.write(line(2));
        fs::remove_dir(place.path().join(&name)).unwrap();
        recording.begin(Timestamp::UNIX_EPOCH);
        until(&|| recording.broken().is_none());
        assert_eq!(recording.take_unwritten(), 3, "two lines, and the begin");
        recording.write(line(3));
        drop(recording);
        assert_eq!(numbers(place.path()), ["segment 1", "3"]);
    }

    #[test]
    fn only_its_owners_folder_is_recorded_into() {
        let place = tempfile::tempdir().unwrap();
        let shared = place.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        let error = open(&shared, Keep::default()).err().unwrap().to_string();
        assert!(error.contains("others may write"), "{error}");
        let file = place.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = open(&file, Keep::default()).err().unwrap().to_string();
        assert!(error.contains("no folder"), "{error}");
        let nowhere = place.path().join("a/b");
        assert!(open(&nowhere, Keep::default()).err().unwrap().to_string().contains("cannot make"));
    }
}
