//! What the kernel's log holds about conntrack.
//! <https://github.com/torvalds/linux/blob/v6.12/Documentation/ABI/testing/dev-kmsg>

use std::{
    collections::VecDeque,
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
};

use rustix::time::{ClockId, clock_gettime};

use crate::record::facts::{FullLines, KernelLog, Known, Moment};

const PATH: &str = "/dev/kmsg";
/// Of the lines that matter, so many of the last are kept.
const KEPT: usize = 5;
/// One record is never longer (`PRINTK_MESSAGE_MAX` is 2,048).
const RECORD: usize = 8 << 10;
/// A log holds some tens of thousands; another writer could keep us reading for ever.
const MOST: usize = 1_000_000;

pub fn read() -> Known<KernelLog> {
    let mut log = KernelLog::default();
    records(|record| take(&mut log, record))?;
    log.read =
        u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).ok().map(|since_boot| Moment {
            since_boot,
            time: jiff::Timestamp::now().to_zoned(crate::host::machine::zone::local()),
        });
    Ok(log)
}

/// The last lines about conntrack, as dmesg prints them.
pub fn lines(most: usize) -> Known<Vec<String>> {
    let mut lines = VecDeque::new();
    records(|record| {
        let Some((micros, text)) = of_the_kernel(record) else { return };
        let is_wanted = text.starts_with("nf_conntrack")
            || suppressed(text).is_some()
            || is_short_of_memory(text);
        if is_wanted {
            lines.push_back(format!("[{:5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000));
        }
        if lines.len() > most {
            lines.pop_front();
        }
    })?;
    Ok(lines.into())
}

/// Hands over what the log holds now.
fn records(mut each: impl FnMut(&str)) -> Known<()> {
    let unreadable = |error: io::Error| format!("cannot read {PATH}: {error}");
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(PATH)
        .map_err(unreadable)?;
    let mut record = vec![0; RECORD];
    for _ in 0..MOST {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(len) => each(&String::from_utf8_lossy(&record[..len])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // Overwritten while it was read: the next one comes.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(())
}

/// Priorities below this are the kernel's own; what a process writes into the log has another
/// facility, however it words it.
const FACILITY: u32 = 8;

/// `4,1234,5678900,-;nf_conntrack: table full, dropping packet`
pub fn take(log: &mut KernelLog, record: &str) {
    let Some((micros, text)) = of_the_kernel(record) else { return };
    let seconds = micros / 1_000_000;
    log.since.get_or_insert(seconds);
    // Some lines begin with the name of a process, which may be anything.
    let conntrack = text.strip_prefix(CONNTRACK);
    let conntrack = conntrack.map(|text| text.strip_prefix(CONNTRACK).unwrap_or(text));
    if conntrack.is_some_and(|text| text.starts_with("expectation table full")) {
        note(&mut log.expectations_full, seconds);
    } else if let Some(netns) = conntrack.and_then(full_in) {
        log.table_full += 1;
        note(log.full_in.entry(netns).or_default(), seconds);
    } else if let Some(more) = suppressed(text) {
        log.suppressed = log.suppressed.saturating_add(more);
        return;
    } else if is_short_of_memory(text) {
        log.no_memory += 1;
    } else {
        return;
    }
    log.lines.push((seconds, text.to_owned()));
    if log.lines.len() > KEPT {
        log.lines.remove(0);
    }
}

/// When, in microseconds since boot, and what the kernel itself said.
fn of_the_kernel(record: &str) -> Option<(u64, &str)> {
    let (head, text) = record.split_once(';')?;
    let priority = head.split(',').next()?.parse::<u32>().ok()?;
    if priority >= FACILITY {
        return None;
    }
    let micros = head.split(',').nth(2)?.parse().ok()?;
    // Lines after the first are the record's properties.
    Some((micros, text.lines().next().unwrap_or_default()))
}

fn note(full: &mut FullLines, seconds: u64) {
    (full.lines, full.last) = (full.lines + 1, seconds);
}

const CONNTRACK: &str = "nf_conntrack: ";

/// `net_ratelimit: 8312 callbacks suppressed`
fn suppressed(text: &str) -> Option<u64> {
    text.strip_prefix("net_ratelimit: ")?.strip_suffix(" callbacks suppressed")?.parse().ok()
}

/// `swapper/0: page allocation failure: order:0, mode:…`: a process' name has at most 15 bytes.
fn is_short_of_memory(text: &str) -> bool {
    let name = text.split_once(": page allocation failure: order:").map(|(name, _)| name);
    name.is_some_and(|name| name.len() <= 15)
}

/// The namespace whose table it says is full; 0 where it names none.
fn full_in(text: &str) -> Option<u32> {
    let between = text.strip_prefix("table full")?.strip_suffix(", dropping packet")?;
    match between.strip_prefix(" in netns ") {
        Some(inode) => inode.parse().ok(),
        None => between.is_empty().then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(records: &[&str]) -> KernelLog {
        let mut log = KernelLog::default();
        records.iter().for_each(|record| take(&mut log, record));
        log
    }

    #[test]
    fn lines_are_told_apart() {
        let log = log(&[
            "6,1,1000000,-;Linux version",
            "4,2,20763743334180,-;nf_conntrack: nf_conntrack: table full, dropping packet",
            "4,3,20763744000000,-;nf_conntrack: table full in netns 4026531840, dropping packet",
            "4,4,20763745000000,-;net_ratelimit: 8312 callbacks suppressed",
            "4,5,20763746000000,-;nf_conntrack: expectation table full",
            "4,6,20763747000000,c;swapper/0: page allocation failure: order:0\n SUBSYSTEM=x",
        ]);
        assert_eq!((log.table_full, log.suppressed), (2, 8312));
        let full = |last| FullLines { lines: 1, last };
        assert_eq!((log.expectations_full, log.no_memory), (full(20_763_746), 1));
        let full = [(0, full(20_763_743)), (4_026_531_840, full(20_763_744))];
        assert_eq!(log.full_in, full.into());
        assert_eq!(log.since, Some(1));
        assert_eq!(log.lines.len(), 4);
        assert!(log.lines[3].1.ends_with("order:0"), "{log:?}");
    }

    #[test]
    fn garbage_says_nothing() {
        let records = ["", ";", "4,1;nf_conntrack: table full", "4,1,x,-;nf_conntrack: table full"];
        assert_eq!(log(&records), KernelLog::default());
    }

    #[test]
    fn what_a_process_writes_or_is_called_is_no_evidence() {
        let records = [
            "12,1,1000000,-;nf_conntrack: nf_conntrack: table full, dropping packet",
            "x,2,1000000,-;nf_conntrack: nf_conntrack: table full, dropping packet",
        ];
        assert_eq!(log(&records), KernelLog::default());
        let log = log(&[
            "4,3,2000000,c;nf_cttable full: page allocation failure: order:0",
            "6,4,3000000,-;usb 1-1: Product: nf_conntrack: table full, dropping packet",
            "4,5,4000000,-;nf_conntrack: table full of it, dropping packet",
            // A device, and processes, called so.
            "6,6,4000000,-;usb 1-1: Product: x: page allocation failure: order:0",
            "4,7,4000000,-;net_ratelimit: 1 2 callbacks suppressed",
            "6,8,4000000,-;net_ratelimit: 9[7]: segfault at 0, 5 callbacks suppressed",
        ]);
        assert_eq!((log.table_full, log.no_memory, log.full_in.len()), (0, 1, 0));
        assert_eq!(log.suppressed, 0);
    }

    #[test]
    fn the_last_few_lines_are_kept() {
        let records: Vec<String> = (0..100)
            .map(|n| format!("4,{n},{n}000000,-;nf_conntrack: expectation table full {n}"))
            .collect();
        let mut log = KernelLog::default();
        records.iter().for_each(|record| take(&mut log, record));
        assert_eq!((log.expectations_full.lines, log.lines.len(), log.lines[4].0), (100, KEPT, 99));
    }
}
