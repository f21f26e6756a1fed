//! The lines of a recording, from a folder or one file.

use std::{
    collections::VecDeque,
    fs,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::MultiGzDecoder;

use super::{
    IN_BUNDLE,
    line::{FORMAT, Line},
    segment,
};
use crate::{
    host::machine::files,
    unpack::{self, Opened, UnpackLimits, Unpacked},
};

/// A line is no longer: a full one with all lists, many times over.
const LONGEST: u64 = 64 << 20;
/// Nor is the first one, which says what it is.
const LONGEST_FIRST: u64 = 1 << 20;
/// One that is within an archive: ticks of half a minute.
const LONGEST_INSIDE: u64 = 64 << 20;

/// One after the other.
pub struct Lines {
    files: VecDeque<Source>,
    /// The last number of a segment.
    number: Option<u64>,
    now: Option<Open>,
    buffer: Vec<u8>,
    ready: VecDeque<Line>,
}

struct Source {
    path: PathBuf,
    /// `None` of a file that was named itself.
    number: Option<u64>,
}

struct Open {
    path: PathBuf,
    lines: Box<dyn BufRead>,
    /// Of the line that comes next.
    line: u64,
    is_first: bool,
}

/// Whether this is a recording at all: a folder with segments, a file that begins like one, or an archive of
/// `ctwatch collect`, which holds one.
pub fn is_recording(path: &Path) -> bool {
    const BEGIN: &[u8] = b"{\"type\":\"segment\"";
    if path.is_dir() {
        return segment::list(path).is_ok_and(|files| !files.is_empty());
    }
    let begin = || -> io::Result<Vec<u8>> {
        let mut file = files::open(path)?;
        if !file.metadata()?.is_file() {
            return Ok(Vec::new());
        }
        if unpack::is_archive(&mut file)? {
            let is_inside = Lines::within(path, file).is_ok();
            return Ok(if is_inside { BEGIN.to_vec() } else { Vec::new() });
        }
        let mut file = BufReader::new(file);
        let mut begin = Vec::new();
        let most = BEGIN.len() as u64;
        match file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
            true => MultiGzDecoder::new(file).take(most).read_to_end(&mut begin)?,
            false => file.take(most).read_to_end(&mut begin)?,
        };
        Ok(begin)
    };
    begin().is_ok_and(|begin| begin == BEGIN)
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self> {
        let place = path.display();
        let about = fs::metadata(path).with_context(|| format!("cannot look at {place}"))?;
        let files = if about.is_dir() {
            let files = segment::list(path).with_context(|| format!("cannot read {place}"))?;
            ensure!(
                !files.is_empty(),
                "there is no recording in {place}: `ctwatch record {place}` makes one"
            );
            let source =
                |file: segment::SegmentFile| Source { path: file.path, number: Some(file.number) };
            files.into_iter().map(source).collect()
        } else {
            ensure!(about.is_file(), "{place} is neither a folder nor a file");
            let mut file = files::open(path).with_context(|| format!("cannot read {place}"))?;
            if unpack::is_archive(&mut file).with_context(|| format!("cannot read {place}"))? {
                return Self::within(path, file);
            }
            VecDeque::from([Source { path: path.to_owned(), number: None }])
        };
        let (number, now, buffer, ready) = (None, None, Vec::new(), VecDeque::new());
        Ok(Self { files, number, now, buffer, ready })
    }

    /// The one that `ctwatch collect` puts into an archive.
    fn within(path: &Path, file: fs::File) -> Result<Self> {
        let place = path.display();
        let mut found = None;
        let each = &mut |name: &str, reader: &mut dyn BufRead| {
            if name == IN_BUNDLE || name.strip_suffix(IN_BUNDLE).is_some_and(|n| n.ends_with('/')) {
                let mut bytes = Vec::new();
                reader.take(LONGEST_INSIDE + 1).read_to_end(&mut bytes)?;
                ensure!(bytes.len() as u64 <= LONGEST_INSIDE, "{name} is too long");
                found = Some(bytes);
                bail!(Enough);
            }
            Ok(())
        };
        let unpacked = Opened::File(file, place.to_string()).unpack(UnpackLimits::default(), each);
        let unpacked = match unpacked {
            Err(error) if error.is::<Enough>() => Unpacked::default(),
            other => other?,
        };
        let Some(bytes) = found else {
            let notes = unpacked.notes().into_iter().map(|note| format!("; {note}"));
            bail!(
                "{place} is an archive, and no recording of ctwatch is in it{}",
                notes.collect::<String>()
            );
        };
        let path = path.join(IN_BUNDLE);
        let lines = Box::new(Cursor::new(bytes));
        let now = Some(Open { path, lines, line: 1, is_first: true });
        let (files, number, buffer, ready) = (VecDeque::new(), None, Vec::new(), VecDeque::new());
        Ok(Self { files, number, now, buffer, ready })
    }

    /// Begins with the last segment that was begun by then.
    pub fn skip_to(&mut self, time: jiff::Timestamp) {
        while let [first, second, ..] = self.files.make_contiguous() {
            // Where the clock was set back the first may be of a later time than the second.
            let is_later = |of: &Source| begun(&of.path).is_none_or(|begun| begun > time);
            let keeps = is_later(first) || is_later(second);
            let Some(number) = first.number.filter(|_| !keeps) else { break };
            self.number = Some(number);
            self.files.pop_front();
        }
    }

    /// `None` after the last one.
    pub fn next_line(&mut self) -> Result<Option<Line>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if self.now.is_none() && !self.open_next()? {
                return Ok(None);
            }
            if let Some(line) = self.read()? {
                return Ok(Some(line));
            }
        }
    }

    fn open_next(&mut self) -> Result<bool> {
        let Some(Source { path, number }) = self.files.pop_front() else { return Ok(false) };
        if let Some((last, number)) = self.number.zip(number)
            && number > last.saturating_add(1)
        {
            self.ready.push_back(Line::Missing { from: last + 1, to: number - 1 });
        }
        self.number = number.or(self.number);
        let opened = (|| -> io::Result<Box<dyn BufRead>> {
            let mut file = BufReader::with_capacity(64 << 10, files::open(&path)?);
            let is_gzip = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
            Ok(match is_gzip {
                true => Box::new(BufReader::with_capacity(64 << 10, MultiGzDecoder::new(file))),
                false => Box::new(file),
            })
        })();
        match opened {
            Ok(lines) => self.now = Some(Open { path, lines, line: 1, is_first: true }),
            // Removed meanwhile by its recorder, to make room.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number.is_some() => {
                self.ready.extend(number.map(|number| Line::Missing { from: number, to: number }));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        }
        Ok(true)
    }

    /// `None`: this file is at its end, or the line says nothing.
    fn read(&mut self) -> Result<Option<Line>> {
        let Some(open) = &mut self.now else { return Ok(None) };
        self.buffer.clear();
        let longest = if open.is_first { LONGEST_FIRST } else { LONGEST };
        let read = (&mut open.lines).take(longest).read_until(b'\n', &mut self.buffer);
        let place = format!("{} line {}", open.path.display(), open.line);
        open.line += 1;
        if let Err(error) = read {
            ensure!(!open.is_first, "{} is no recording of ctwatch: {error}", open.path.display());
            // What of a finished segment cannot be read any more has no next line either.
            self.now = None;
            return Ok(Some(Line::Unread { place, why: error.to_string() }));
        }
        if self.buffer.is_empty() {
            let is_empty = open.is_first;
            let path = open.path.clone();
            self.now = None;
            return Ok(is_empty.then(|| Line::Unread {
                place: path.display().to_string(),
                why: "it is empty".to_owned(),
            }));
        }
        let is_whole = self.buffer.last() == Some(&b'\n');
        let parsed = Line::parse(&self.buffer);
        if open.is_first {
            open.is_first = false;
            return Self::first(&open.path, parsed).map(Some);
        }
        match parsed {
            Ok(line) => Ok(Some(line)),
            Err(_) if !is_whole && self.buffer.len() as u64 == LONGEST => {
                bail!("{place} is longer than any of ctwatch's: the file is damaged")
            }
            // The last line of one that is being written, or whose recorder was killed.
            Err(_) if !is_whole => Ok(Some(Line::Torn { bytes: self.buffer.len() as u64 })),
            Err(error) => Ok(Some(Line::Unread { place, why: error.to_string() })),
        }
    }

    fn first(path: &Path, parsed: serde_json::Result<Line>) -> Result<Line> {
        let place = path.display();
        match parsed {
            Ok(Line::Segment(segment)) if segment.format == FORMAT => Ok(Line::Segment(segment)),
            Ok(Line::Segment(segment)) => bail!(
                "{place} is of format {}, written by ctwatch {:?}: this ctwatch reads format {FORMAT}; use \
                 one that is as new",
                segment.format,
                segment.version
            ),
            _ => bail!("{place} is no recording of ctwatch: its first line does not say so"),
        }
    }
}

/// The rest of an archive is not read.
#[derive(Debug)]
struct Enough;

impl std::fmt::Display for Enough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("enough was read")
    }
}

impl std::error::Error for Enough {}

/// When a segment was begun, by its name.
fn begun(path: &Path) -> Option<jiff::Timestamp> {
    let name = path.file_name()?.to_str()?;
    let time = name.split('-').nth(2)?.split('.').next()?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}
