//! A part of a recording as a recording of its own, in one file that can be sent.

use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;

use super::{
    MODE,
    frame::{Decoder, Encoder, Frame},
    line::Line,
    mask::Mask,
    read::Lines,
};
use crate::record::sample::Sample;

/// From when to when.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeRange {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub ticks: u64,
    /// Lines that could not be read.
    pub unread: u64,
}

/// Copies a part into a new file, gzip, which only its owner and group may read.
pub fn cut(from: &Path, part: TimeRange, into: &Path, mut mask: Option<Mask>) -> Result<Copied> {
    let mut lines = Lines::open(from)?;
    if let Some(since) = part.since {
        lines.skip_to(since);
    }
    let place = into.display();
    let options = OpenOptions::new().write(true).create_new(true).mode(MODE).open(into);
    let file = options.with_context(|| format!("cannot make {place}: is it there already?"))?;
    let mut out = GzEncoder::new(BufWriter::new(file), Compression::default());
    let mut cutter = Cutter::default();
    let mut copied = || -> Result<Copied> {
        while !cutter.is_over {
            let Some(line) = lines.next_line()? else { break };
            for line in cutter.take(line, part) {
                let line = match &mut mask {
                    Some(mask) => mask.line(line)?,
                    None => line,
                };
                out.write_all(&line.text()?)?;
            }
        }
        ensure!(cutter.copied.ticks > 0, "nothing was recorded in that time");
        out.try_finish()?;
        out.get_mut().flush()?;
        out.get_ref().get_ref().sync_all()?;
        Ok(cutter.copied)
    };
    let outcome = copied().with_context(|| format!("cannot write {place}"));
    if outcome.is_err() {
        // Half of it would read like a recorder that was killed.
        let _ = std::fs::remove_file(into);
    }
    outcome
}

/// What is known of what comes before the part, and what of the part is handed on.
#[derive(Default)]
struct Cutter {
    decoder: Decoder,
    encoder: Encoder,
    /// Said at the begin of the part: the last of each.
    segment: Option<Line>,
    loads_since: Option<Line>,
    facts: Option<Line>,
    begin: Option<Line>,
    /// The last tick before the part, with all tables.
    before: Option<Sample>,
    has_begun: bool,
    is_over: bool,
    copied: Copied,
}

impl Cutter {
    fn take(&mut self, line: Line, part: TimeRange) -> Vec<Line> {
        match line {
            Line::Tick(frame) => return self.tick(*frame, part),
            Line::Segment(_) => {
                // One file has one first line.
                self.segment = self.segment.take().or(Some(line));
                return Vec::new();
            }
            Line::LoadsSince { .. } => self.loads_since = Some(line.clone()),
            Line::Facts { .. } => self.facts = Some(line.clone()),
            Line::Begin { .. } => {
                let goes_on = matches!(
                    (&line, &self.begin),
                    (Line::Begin { again: true, epoch, .. }, Some(Line::Begin { epoch: now, .. }))
                        if epoch == now
                );
                if !goes_on {
                    self.decoder.lose();
                    self.encoder = Encoder::default();
                    self.before = None;
                    self.begin = Some(line.clone());
                } else if self.has_begun {
                    return Vec::new();
                }
            }
            Line::Torn { .. } | Line::Unread { .. } | Line::Missing { .. } => {
                self.decoder.lose();
                self.copied.unread += 1;
                return Vec::new();
            }
            Line::Gone | Line::End => {
                self.before = None;
                if !self.has_begun {
                    self.begin = None;
                }
            }
            Line::Unknown => return Vec::new(),
            _ => {}
        }
        if self.has_begun { vec![line] } else { Vec::new() }
    }

    fn tick(&mut self, frame: Frame, part: TimeRange) -> Vec<Line> {
        let time = frame.sample.time;
        if part.until.is_some_and(|until| time > until) {
            self.is_over = true;
            return Vec::new();
        }
        let is_before = part.since.is_some_and(|since| time < since);
        let first = self.before.take().map(|before| self.decoder.whole(before));
        let Some(sample) = self.decoder.decode(frame) else { return Vec::new() };
        if is_before {
            self.before = Some(sample);
            return Vec::new();
        }
        let mut out = Vec::new();
        if !self.has_begun {
            self.has_begun = true;
            let head = [&self.segment, &self.loads_since, &self.facts, &self.begin];
            out.extend(head.into_iter().flatten().cloned());
            // Counting begins with the last reading before the part.
            if let Some(first) = first {
                out.push(Line::Tick(Box::new(self.encoder.encode(&first, true))));
            }
        }
        let full = self.copied.ticks.is_multiple_of(60);
        self.copied.ticks += 1;
        out.push(Line::Tick(Box::new(self.encoder.encode(&sample, full))));
        out
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::recording::{
        line::{RecordedOn, Segment},
        play::{
            Playing,
            tests::{at, played, ten},
        },
        segment,
    };

    /// A folder with one segment of ten seconds.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let first = Line::Segment(Segment::new(1, at(0), &RecordedOn::default()));
        let lines = std::iter::once(first).chain(ten(&mut Encoder::default()));
        let text: Vec<u8> = lines.flat_map(|line| line.text().unwrap()).collect();
        fs::write(folder.path().join(segment::name(1, at(0))), text).unwrap();
        folder
    }

    fn lines(path: &Path) -> Vec<Line> {
        let mut lines = Lines::open(path).unwrap();
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    #[test]
    fn a_part_plays_back_as_it_does_in_the_whole() {
        let folder = folder();
        let into = folder.path().join("part.gz");
        let part = TimeRange { since: Some(at(5)), until: Some(at(7)) };
        let copied = cut(folder.path(), part, &into, None).unwrap();
        assert_eq!(copied, Copied { ticks: 3, unread: 0 });
        let TimeRange { since, until } = part;
        let wanted = Playing { since, until, ..Playing::default() };
        let whole = played(wanted, lines(folder.path()));
        assert_eq!(played(Playing::default(), lines(&into)), whole);
        assert_eq!(whole, ["begin 4: 0", "tick 5: 10", "tick 6: 20", "tick 7: 30"]);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&into).unwrap().permissions());
        assert_eq!(mode & 0o7777 & !MODE, 0);
    }

    #[test]
    fn nothing_is_overwritten_and_no_empty_file_left() {
        let folder = folder();
        let into = folder.path().join("part.gz");
        let never = TimeRange { since: Some(at(500)), until: None };
        let error = format!("{:#}", cut(folder.path(), never, &into, None).unwrap_err());
        assert!(error.contains("nothing was recorded") && !into.exists(), "{error}");
        cut(folder.path(), TimeRange::default(), &into, None).unwrap();
        let error =
            format!("{:#}", cut(folder.path(), TimeRange::default(), &into, None).unwrap_err());
        assert!(error.contains("is it there already"), "{error}");
        assert_eq!(played(Playing::default(), lines(&into)).len(), 10);
    }
}
