//! A hundred switches on one night, and what happened on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::Ipv4Addr,
    path::Path,
    time::Duration,
};

use ctwatch::{
    record::session::Epoch,
    recording::{
        cut::{TimeRange, cut},
        line::{Line, RecordedOn},
        mask::Mask,
    },
};
use flate2::read::GzDecoder;
use jiff::Timestamp;

use crate::values::{
    machine::{Machine, Talk},
    tape::Tape,
};

pub(crate) const HOSTS: u32 = 100;
const STEP: Duration = Duration::from_secs(15);
/// Three hours.
const STEPS: u64 = 720;
const HOUR: u64 = 240;
const LIMIT: u32 = 65_536;

/// Refused on all switches that have an incident.
pub(crate) const SCANNER: Ipv4Addr = Ipv4Addr::new(10, 66, 6, 6);
/// Its recorder is killed, and begun again, and packets are dropped meanwhile.
pub(crate) const KILLED: u32 = 10;
const KILLED_AT: std::ops::Range<u64> = 360..392;
pub(crate) const IN_THE_GAP: u64 = 500;
/// The last line of the segment that is being written is torn.
const TORN: [u32; 3] = [20, 21, 24];
/// It boots, with an incident before that and one after it.
const BOOTED: u32 = 31;
const BOOTED_AT: std::ops::Range<u64> = 320..336;
/// Somebody sent its recording masked.
pub(crate) const MASKED: u32 = 52;
/// One segment of it is missing.
const MISSING: u32 = 60;
/// Its recorder was killed while it finished the first segment, which is there twice.
const DOUBLED: u32 = 66;
/// Its recorder hangs from then on.
const SILENT: u32 = 90;
const SILENT_FROM: u64 = 520;
/// What is set otherwise there.
pub(crate) const LOWER_LIMIT: u32 = 17;
pub(crate) const WITHOUT_SETTING: u32 = 42;
/// On this one most is dropped.
pub(crate) const WORST: u32 = 45;

/// What the generator knows.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// Packets by host and hour of the reading that shows them.
    pub(crate) dropped: BTreeMap<(String, Timestamp), u64>,
    /// Of the scanner's, by host, while it was recorded.
    pub(crate) scanner: BTreeMap<String, u64>,
    /// When the first were read, and what had changed last before that.
    pub(crate) first: BTreeMap<String, (Timestamp, Option<String>)>,
    /// From when to when nothing was recorded, and whether it booted meanwhile.
    pub(crate) gaps: BTreeSet<(String, Timestamp, Timestamp, bool)>,
    /// Incidents that ended by themselves.
    pub(crate) incidents: usize,
}

pub(crate) fn name(number: u32) -> String {
    format!("sw{number:03}")
}

fn boot(number: u32, boot: u32) -> String {
    format!("{number:08x}-5a3c-4a0e-9d1e-{boot:012x}")
}

/// When its incident begins, if it has one: which lasts for four minutes.
fn incident(number: u32) -> Option<u64> {
    (number % 7 == 3).then(|| 120 + u64::from(number * 97 % 100) * 4)
}
const LASTS: u64 = 16;

/// All of them, below `folder`.
pub(crate) fn record(folder: &Path) -> Truth {
    let mut truth = Truth::default();
    for number in 0..HOSTS {
        Host::new(number, folder).live(&mut truth);
        if number == MASKED {
            mask(folder);
        }
        if number == DOUBLED {
            let first = folder.join(name(number)).join("ctwatch-000001-20261126T000000Z.ndjson");
            let sealed = fs::File::open(first.with_extension("ndjson.gz")).unwrap();
            io::copy(&mut GzDecoder::new(sealed), &mut fs::File::create(first).unwrap()).unwrap();
        }
        if number == MISSING {
            let second = "ctwatch-000002-20261126T010000Z.ndjson.gz";
            fs::remove_file(folder.join(name(number)).join(second)).unwrap();
        }
    }
    truth
}

/// In place of its recording there is one file.
fn mask(folder: &Path) {
    let (whole, sent) = (folder.join(name(MASKED)), folder.join("sent"));
    let key = folder.join("key");
    fs::write(&key, [7; 16]).unwrap();
    fs::create_dir(&sent).unwrap();
    let masked = Mask::by_file(&key).unwrap();
    cut(&whole, TimeRange::default(), &sent.join("night.ndjson.gz"), Some(masked)).unwrap();
    fs::remove_dir_all(whole).unwrap();
    fs::remove_file(key).unwrap();
}

struct Host {
    number: u32,
    machine: Machine,
    tape: Tape,
    /// What changed last.
    changed: Option<String>,
    unread: u64,
}

impl Host {
    fn new(number: u32, folder: &Path) -> Self {
        let limit = if number == LOWER_LIMIT { LIMIT / 2 } else { LIMIT };
        let start = "2026-11-26T00:00:00Z".parse().unwrap();
        let mut machine = Machine::new(start, limit, u64::from(number));
        machine.place(1, "host", 900);
        machine.place(2, "vrf-blue", 20_000);
        machine.place(3, "mgmt", 40);
        let boot_id = Some(boot(number, 1));
        let on = RecordedOn { host: Some(name(number)), boot_id, kernel: "6.12.0".to_owned() };
        Self {
            number,
            machine,
            tape: Tape::new(&folder.join(name(number)), on),
            changed: None,
            unread: 0,
        }
    }

    fn live(mut self, truth: &mut Truth) {
        self.begin(1);
        for step in 0..STEPS {
            if step > 0 {
                self.machine.pass(STEP);
                self.happen(step, truth);
            }
            if !self.is_recorded(step) {
                continue;
            }
            if step > 0 && step.is_multiple_of(HOUR) {
                self.tape.segment(self.machine.now);
                self.look();
            }
            if step == KILLED_AT.end && self.number == KILLED {
                self.begin_again(1, KILLED_AT, truth);
            }
            if step == BOOTED_AT.end && self.number == BOOTED {
                self.machine.reboot();
                self.begin_again(2, BOOTED_AT, truth);
                // What the kernel counted until it booted is gone.
                self.unread = 0;
            }
            self.tape.tick(&self.machine.sample());
            self.read(truth);
            self.change(step);
        }
        let is_torn = TORN.contains(&self.number);
        if self.number == SILENT {
            truth.gaps.insert((name(SILENT), time(SILENT_FROM - 1), time(STEPS - 1), false));
        }
        if self.number == MISSING {
            truth.gaps.insert((name(MISSING), time(HOUR - 1), time(2 * HOUR), false));
        }
        self.tape.leave(is_torn);
    }

    fn is_recorded(&self, step: u64) -> bool {
        match self.number {
            KILLED => !KILLED_AT.contains(&step),
            BOOTED => !BOOTED_AT.contains(&step),
            SILENT => step < SILENT_FROM,
            _ => true,
        }
    }

    fn begin(&mut self, boots: u32) {
        self.tape.segment(self.machine.now);
        self.look();
        let header = self.machine.header(&boot(self.number, boots), STEP);
        self.tape.begin(header, Epoch { number: 1, gap: None });
    }

    fn begin_again(&mut self, boots: u32, gap: std::ops::Range<u64>, truth: &mut Truth) {
        self.machine.restart();
        self.tape.killed();
        self.tape.on(&boot(self.number, boots));
        self.begin(boots);
        // The last tick is torn.
        let (since, until) = (time(gap.start - 2), time(gap.end));
        truth.gaps.insert((name(self.number), since, until, boots > 1));
    }

    /// Its rules and settings.
    fn look(&mut self) {
        let written = [("nf_conntrack_tcp_timeout_established", "86400")];
        let settings = if self.number == WITHOUT_SETTING { &[][..] } else { &written[..] };
        let (time, facts) = (self.machine.now, Box::new(self.machine.facts(1, settings)));
        self.tape.line(&Line::Facts { time, facts });
    }

    /// Half of those with an incident had their rules changed three minutes before it; all had their time
    /// servers changed early in the night, and one its rules after it.
    fn change(&mut self, step: u64) {
        let what = match incident(self.number) {
            Some(begins) if step + 12 == begins && self.number % 2 == 1 => {
                "host: nft table ip nat is new, with 3 rules"
            }
            Some(begins) if step == begins + LASTS + 4 => "host: nft table ip nat was removed",
            _ if step == 40 && self.number.is_multiple_of(3) => {
                "module nf_conntrack_ftp was loaded"
            }
            _ => return,
        };
        let (until, what) = (self.machine.now, vec![what.to_owned()]);
        let since = until.checked_sub(Duration::from_secs(60)).unwrap();
        self.changed = what.first().cloned();
        self.tape.line(&Line::Changed { since, until, what });
    }

    fn happen(&mut self, step: u64, truth: &mut Truth) {
        let seen = self.is_recorded(step);
        let talk = Talk::dns([10, self.number as u8, 0, self.machine.below(200) as u8].into());
        let busy = self.machine.below(40) as u32;
        // The third does nothing for long.
        if step.is_multiple_of(100) {
            self.machine.insert(2, talk, 1);
        }
        self.machine.insert(0, talk, busy);
        self.machine.remove(0, busy);
        let is_in = |begins: u64| (begins..begins + LASTS).contains(&step);
        let begins = incident(self.number);
        let again = self.number == BOOTED && is_in(500);
        if begins.is_some_and(is_in) || again {
            let free = self.machine.limit - self.machine.entries(1);
            self.machine.insert(1, talk, free);
            let more = if self.number == WORST { 400 } else { 60 };
            let (own, scanner) =
                (self.machine.below(more) as u32 + 1, self.machine.below(30) as u32 + 1);
            self.refuse(talk, own, seen);
            self.refuse(Talk { source: SCANNER, ..talk }, scanner, seen);
            if seen && self.number != MASKED {
                *truth.scanner.entry(name(self.number)).or_default() += u64::from(scanner);
            }
        } else if self.machine.entries(1) > 20_000 {
            self.machine.remove(1, 20_000);
        }
        let is_last = begins.is_some_and(|begins| step == begins + LASTS)
            || self.number == BOOTED && step == 516;
        truth.incidents += usize::from(is_last && self.number != MASKED);
        if self.number == KILLED && KILLED_AT.contains(&step) && step.is_multiple_of(8) {
            self.refuse(talk, 125, false);
        }
    }

    fn refuse(&mut self, talk: Talk, packets: u32, seen: bool) {
        self.machine.refuse(1, talk, packets, seen);
        self.unread += u64::from(packets);
    }

    /// What was dropped since the reading before is in this one.
    fn read(&mut self, truth: &mut Truth) {
        let packets = std::mem::take(&mut self.unread);
        let host = if self.number == MASKED { "masked".to_owned() } else { name(self.number) };
        if packets > 0 {
            let second = self.machine.now.as_second();
            let hour = Timestamp::from_second(second - second % 3600).unwrap();
            *truth.dropped.entry((host.clone(), hour)).or_default() += packets;
            let first = (self.machine.now, self.changed.clone());
            truth.first.entry(host).or_insert(first);
        }
    }
}

fn time(step: u64) -> Timestamp {
    let start: Timestamp = "2026-11-26T00:00:00Z".parse().unwrap();
    start.checked_add(STEP * u32::try_from(step).unwrap()).unwrap()
}
