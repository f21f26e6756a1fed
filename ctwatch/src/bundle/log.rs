//! The kernel's log: `dmesg` with any kind of time, `journalctl -k` as text, export or JSON, and lines
//! without a time.

use std::borrow::Cow;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{gathered::BundleParts, kind::Why};
use crate::{
    host::kernel::kmsg,
    record::facts::{KernelLog, Moment},
};

/// When a line was written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// In seconds since boot.
    Boot(u64),
    /// By the wall clock.
    Clock(Timestamp),
    Unknown,
}

#[derive(Default)]
pub(super) struct LogPart {
    log: KernelLog,
    lines: u64,
    /// The first line by the wall clock: later ones are counted in seconds from it.
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    is_timed: bool,
    /// `journalctl -o export`: one field a line.
    exported: Option<Timestamp>,
    is_kernel: bool,
}

impl LogPart {
    pub(super) fn take(&mut self, line: &[u8], gathered: &mut BundleParts) -> Result<(), Why> {
        let text = String::from_utf8_lossy(line);
        // A prompt after the log begins something else.
        if super::prompt::command(line, super::Printed::Log).is_some() {
            return Err(None);
        }
        // `-- Logs begin at …`
        if text.starts_with("-- ") {
            return Ok(());
        }
        if text.starts_with('{') {
            return self.object(line);
        }
        if let Some((name, value)) = text.split_once('=')
            && (name.starts_with('_') || is_field(name))
        {
            self.field(name, value);
            return Ok(());
        }
        let (when, rest) = stamp(&text, gathered.log.now);
        if when == When::Unknown && !is_bare(rest) {
            // The rest of a line before, or a line that lost its begin.
            return match super::Printed::of_line(line) {
                Some(kind) if kind != super::Printed::Log => Err(None),
                _ if self.lines == 0 => Err(None),
                _ => Ok(()),
            };
        }
        let (host, said) = said(rest);
        if let Some(host) = host.filter(|_| gathered.host.is_none()) {
            gathered.host = Some(host.to_owned());
            gathered.has_systemd |= true;
        }
        if let Some(release) = said.and_then(|said| said.strip_prefix("Linux version ")) {
            let release = release.split(' ').next().unwrap_or_default();
            gathered.release.get_or_insert_with(|| release.to_owned());
        }
        if let Some(said) = said {
            self.line(when, said);
        }
        Ok(())
    }

    fn line(&mut self, when: When, said: &str) {
        self.lines += 1;
        let seconds = match when {
            When::Boot(seconds) => seconds,
            When::Clock(at) => {
                let first = *self.first.get_or_insert(at);
                self.last = Some(self.last.map_or(at, |last| last.max(at)));
                u64::try_from(at.duration_since(first).as_secs()).unwrap_or(0)
            }
            When::Unknown => 0,
        };
        self.is_timed |= when != When::Unknown;
        let matters = said.contains("conntrack")
            || said.contains("net_ratelimit")
            || said.contains("page allocation failure");
        if matters || self.log.since.is_none() {
            // Written as the kernel's own records, so that one parser reads both.
            kmsg::take(
                &mut self.log,
                &format!("4,0,{},-;{said}", seconds.saturating_mul(1_000_000)),
            );
        }
    }

    /// A line of `journalctl -o json`.
    fn object(&mut self, line: &[u8]) -> Result<(), Why> {
        let object: serde_json::Value =
            serde_json::from_slice(line).map_err(|_| Some("no JSON"))?;
        let text = |name: &str| object[name].as_str();
        let message = text("MESSAGE").ok_or(None)?;
        if text("_TRANSPORT").is_none_or(|by| by == "kernel") {
            let when = text("__REALTIME_TIMESTAMP").and_then(micros);
            self.line(when.map_or(When::Unknown, When::Clock), message);
        }
        Ok(())
    }

    /// A field of `journalctl -o export`.
    fn field(&mut self, name: &str, value: &str) {
        match name {
            "__REALTIME_TIMESTAMP" => {
                self.exported = micros(value);
                self.is_kernel = true;
            }
            "_TRANSPORT" => self.is_kernel = value == "kernel",
            "MESSAGE" if self.is_kernel => {
                self.line(self.exported.map_or(When::Unknown, When::Clock), value);
            }
            _ => {}
        }
    }

    pub(super) fn finish(self, gathered: &mut BundleParts) {
        if self.lines == 0 {
            // Whether the log is empty, or could not be read, is unknown.
            return;
        }
        let mut log = self.log;
        log.is_untimed = !self.is_timed;
        if let (Some(first), Some(last)) = (self.first, self.last) {
            let since_boot = u64::try_from(last.duration_since(first).as_secs()).unwrap_or(0);
            log.read = Some(Moment { since_boot, time: last.to_zoned(TimeZone::UTC) });
        }
        let weight = |log: &KernelLog| {
            log.table_full
                + log.expectations_full.lines
                + log.no_memory
                + u64::from(!log.is_untimed)
        };
        if gathered.log.kernel.as_ref().is_none_or(|known| weight(known) < weight(&log)) {
            gathered.log.kernel = Some(log);
        }
    }
}

fn is_field(name: &str) -> bool {
    matches!(name, "MESSAGE" | "PRIORITY" | "SYSLOG_IDENTIFIER" | "SYSLOG_FACILITY")
}

fn micros(text: &str) -> Option<Timestamp> {
    text.parse().ok().and_then(|micros| Timestamp::from_microsecond(micros).ok())
}

/// A message of conntrack or of the network without a time.
fn is_bare(text: &str) -> bool {
    text.starts_with("nf_conntrack: ") || text.starts_with("net_ratelimit: ")
}

/// The time of a line, and the rest of it.
fn stamp(text: &str, now: Option<Timestamp>) -> (When, &str) {
    let mut rest = text.trim_start();
    // `<4>`, and `kern  :warn  : ` of dmesg -x.
    if let Some((_, after)) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        rest = after;
    }
    if let Some(after) = rest.strip_prefix("kern ").and_then(|rest| rest.split_once(": ")) {
        rest = after.1.trim_start();
    }
    if let Some((inner, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let inner = inner.trim();
        let seconds = inner.split('.').next().and_then(|seconds| seconds.parse().ok());
        let when = seconds.map(When::Boot).or_else(|| {
            let time = DateTime::strptime("%a %b %d %H:%M:%S %Y", inner).ok()?;
            Some(When::Clock(time.to_zoned(TimeZone::UTC).ok()?.timestamp()))
        });
        if let Some(when) = when {
            return (when, after.trim_start());
        }
    }
    // 2026-11-26T03:00:00+0000, 2026-11-26T03:00:00.123456+00:00
    let word = rest.split(' ').next().unwrap_or_default();
    if word.len() >= 19 && word.as_bytes().get(10) == Some(&b'T') {
        let with_colon = colon(word);
        if let Ok(time) = with_colon.parse::<Timestamp>() {
            return (When::Clock(time), rest[word.len()..].trim_start());
        }
    }
    match syslog(rest, now) {
        Some((time, rest)) => (When::Clock(time), rest),
        None => (When::Unknown, rest),
    }
}

/// `+0000` as `+00:00`
fn colon(word: &str) -> Cow<'_, str> {
    let at = word.len().saturating_sub(5);
    let is_short = word.is_char_boundary(at)
        && word[at..].starts_with(['+', '-'])
        && word[at + 1..].bytes().all(|byte| byte.is_ascii_digit());
    match is_short {
        true => Cow::Owned(format!("{}:{}", &word[..word.len() - 2], &word[word.len() - 2..])),
        false => Cow::Borrowed(word),
    }
}

/// `Nov 26 03:00:00 sw1 …`: in the last year in which that is not in the future.
fn syslog(text: &str, now: Option<Timestamp>) -> Option<(Timestamp, &str)> {
    const LEN: usize = "Nov 26 03:00:00".len();
    let (time, rest) = text.split_at_checked(LEN)?;
    let now = now?.to_zoned(TimeZone::UTC);
    let of = |year: i16| {
        let time = DateTime::strptime("%Y %b %d %H:%M:%S", format!("{year} {time}")).ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    // The machine may be in another time zone.
    let latest = now.timestamp() + jiff::SignedDuration::from_hours(24);
    let this = of(now.year()).filter(|time| *time <= latest);
    Some((this.or_else(|| of(now.year() - 1))?, rest.trim_start()))
}

/// The host, and the message if the kernel wrote it; messages of programs are passed over.
fn said(rest: &str) -> (Option<&str>, Option<&str>) {
    let Some((before, said)) = rest.split_once("kernel: ") else {
        // A program wrote it.
        let mut words = rest.splitn(3, ' ');
        let is_other = words.nth(1).is_some_and(|word| word.ends_with("]:") && word.contains('['));
        return (None, (!is_other).then_some(rest));
    };
    let host = before.trim();
    let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
    if !is_host && !host.is_empty() {
        return (None, None);
    }
    // rsyslog leaves the kernel's own time after `kernel:`.
    let said = match said.strip_prefix('[').and_then(|said| said.split_once("] ")) {
        Some((inner, after)) if inner.trim().bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            after
        }
        _ => said,
    };
    (is_host.then_some(host), Some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "nf_conntrack: nf_conntrack: table full, dropping packet";

    fn read(lines: &[String]) -> KernelLog {
        let mut gathered = BundleParts::new(&[], 1);
        gathered.log.now = "2026-11-26T12:00:00Z".parse().ok();
        let mut part = LogPart::default();
        for line in lines {
            part.take(line.as_bytes(), &mut gathered).unwrap();
        }
        part.finish(&mut gathered);
        gathered.log.kernel.unwrap()
    }

    #[test]
    fn each_kind_of_time_is_read() {
        for (first, second, ago) in [
            ("[  100.000001] x", format!("[  160.5] {FULL}"), None),
            ("<6>[  100.000001] x", format!("<4>[  160.5] {FULL}"), None),
            ("kern  :info  : [  100.0] x", format!("kern  :warn  : [  160.5] {FULL}"), None),
            (
                "[Thu Nov 26 03:00:00 2026] x",
                format!("[Thu Nov 26 03:01:00 2026] {FULL}"),
                Some("2026-11-26T03:01:00Z"),
            ),
            (
                "Nov 26 03:00:00 sw1 kernel: x",
                format!("Nov 26 03:01:00 sw1 kernel: {FULL}"),
                Some("2026-11-26T03:01:00Z"),
            ),
            (
                "Nov 30 03:00:00 sw1 kernel: [1.0] x",
                format!("Nov 30 03:01:00 sw1 kernel: [61.0] {FULL}"),
                Some("2025-11-30T03:01:00Z"),
            ),
            (
                "2026-11-26T03:00:00+0000 sw1 kernel: x",
                format!("2026-11-26T03:01:00+0000 sw1 kernel: {FULL}"),
                Some("2026-11-26T03:01:00Z"),
            ),
        ] {
            let log = read(&[first.to_owned(), second.clone()]);
            assert_eq!((log.table_full, log.is_untimed), (1, false), "{second}");
            let time = log.read.as_ref().map(|read| read.time.timestamp().to_string());
            assert_eq!(time.as_deref(), ago, "{second}");
            if ago.is_some() {
                assert_eq!(log.full_in.get(&0).map(|full| full.last), Some(60), "{second}");
            }
        }
    }

    #[test]
    fn without_a_time_none_is_made_up() {
        let log = read(&[FULL.to_owned(), FULL.to_owned()]);
        assert_eq!((log.table_full, log.is_untimed, log.read), (2, true, None));
    }

    #[test]
    fn journals_in_other_forms_are_read() {
        let json = format!(
            "{{\"__REALTIME_TIMESTAMP\":\"1795662060000000\",\"_TRANSPORT\":\"kernel\",\"MESSAGE\":\"{FULL}\"}}"
        );
        let other = json.replace("\"kernel\"", "\"syslog\"");
        assert_eq!(read(&[json, other]).table_full, 1);
        let export = ["__REALTIME_TIMESTAMP=1795662060000000", "_TRANSPORT=kernel", "PRIORITY=4"];
        let mut lines = export.map(str::to_owned).to_vec();
        lines.push(format!("MESSAGE={FULL}"));
        let log = read(&lines);
        assert_eq!((log.table_full, log.read.is_some()), (1, true));
    }

    #[test]
    fn what_a_program_says_is_not_the_kernels() {
        let log = read(&[
            "Nov 26 03:00:00 sw1 kernel: x".to_owned(),
            format!("Nov 26 03:00:00 sw1 evil[7]: {FULL}"),
        ]);
        assert_eq!(log.table_full, 0);
    }
}
