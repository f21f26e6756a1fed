//! The table as the kernel has it, of all namespaces in one walk: a program that is attached
//! nowhere, run for some chains at a time.

use std::{os::fd::AsFd, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
    programs::RawTracePoint,
};
use ctwatch_ebpf::{
    Layout,
    census::{Cursor, ENTRY, RECORDS, Record},
    top::{Key, has_ports},
};

use rustix::time::{ClockId, clock_gettime};

use super::{bpf, load, memory::Mapped};
use crate::{
    host::{btf::Btf, symbols, visit::netns_cookie},
    sample::{Held, Status},
};

/// How often a walk is begun anew because the table was replaced meanwhile.
const TRIES: u32 = 3;

/// Where things are in an entry.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    references: usize,
    timeout: usize,
    /// `None` where this kernel has no zones.
    zone: Option<usize>,
    tuple: usize,
    status: usize,
    tcp_state: usize,
    sctp_state: usize,
}

/// What can walk the table, and where it has got to.
pub struct Walker {
    /// Holds the program.
    ebpf: Ebpf,
    cursor: Array<MapData, Cursor>,
    records: Mapped<Record>,
    offsets: Offsets,
    start: Cursor,
}

/// What is to be said of one walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Chains of which the end was not seen.
    pub strayed: u64,
}

impl Walker {
    /// Finds the table, and loads the program; or says why not.
    pub fn open() -> Result<Self> {
        let btf = Btf::vmlinux()?;
        let mut layout = Layout::default();
        let offsets = Offsets::find(&btf, &mut layout)?;
        let [table_at, size_at] =
            symbols::addresses(["nf_conntrack_hash", "nf_conntrack_htable_size"])?;
        if netns_cookie().is_none() {
            layout.net_cookie = 0;
        }
        let mut ebpf = load::census(&layout)?;
        let program: &mut RawTracePoint =
            ebpf.program_mut("walk").context("the probes hold no program walk")?.try_into()?;
        program.load().map_err(load::explain)?;
        let map = |ebpf: &mut Ebpf, name| {
            ebpf.take_map(name).with_context(|| format!("the probes hold no map {name}"))
        };
        let cursor = Array::try_from(map(&mut ebpf, "CENSUS")?)?;
        let Map::Array(records) = map(&mut ebpf, "HELD")? else { bail!("HELD is no array") };
        let records = Mapped::new(records.fd().as_fd(), RECORDS as usize)
            .context("cannot map the records of the census")?;
        let start = Cursor { table_at, size_at, ..Cursor::default() };
        Ok(Self { ebpf, cursor, records, offsets, start })
    }

    /// Hands over each entry that is in the table.
    pub fn walk(&mut self, mut each: impl FnMut(&Held)) -> Result<Walked> {
        let program: &RawTracePoint =
            self.ebpf.program("walk").context("the walk is not loaded")?.try_into()?;
        let program = program.fd()?;
        self.cursor.set(0, self.start, 0).context("cannot begin a walk")?;
        let mut runs: u64 = 0;
        let mut hz = None;
        loop {
            bpf::run(program.as_fd()).context("the kernel does not run the walk")?;
            let cursor = self.cursor.get(&0, 0).context("cannot read where the walk is")?;
            ensure!(cursor.table != 0, "the kernel's table cannot be read");
            if cursor.moved != 0 {
                bail!(Moved);
            }
            let uptime = Duration::try_from(clock_gettime(ClockId::Monotonic))?;
            hz = hz.or_else(|| ticks_per_second(cursor.jiffies, uptime));
            let filled = usize::try_from(cursor.filled)?;
            for at in 0..filled.min(RECORDS as usize) {
                let record = self.records.get(at).context("a record outside the records")?;
                if let Some(held) = self.offsets.held(record, cursor.jiffies, hz) {
                    each(&held);
                }
            }
            if cursor.is_done() {
                return Ok(Walked { strayed: cursor.strayed });
            }
            // Each run goes some steps further, unless entries come faster than they are walked.
            runs += 1;
            ensure!(runs < 64 + 2 * cursor.buckets, "the walk comes to no end");
        }
    }

    /// As `walk`, into something that can be begun anew; the table may be replaced by a larger one.
    pub fn census<T>(
        &mut self,
        begin: impl Fn() -> T,
        mut each: impl FnMut(&mut T, &Held),
    ) -> Result<(T, Walked)> {
        let mut tries = 0;
        loop {
            let mut census = begin();
            match self.walk(|held| each(&mut census, held)) {
                Ok(walked) => return Ok((census, walked)),
                Err(error) if error.is::<Moved>() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// The table was replaced by another while it was walked.
#[derive(Debug)]
struct Moved;

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the table's size was changed again and again")
    }
}

impl std::error::Error for Moved {}

impl Offsets {
    /// Also what the program needs of it.
    fn find(btf: &Btf<'_>, layout: &mut Layout) -> Result<Self> {
        let of = |path| btf.offset("nf_conn", path);
        let hash_tuple = btf.offset("nf_conntrack_tuple_hash", "tuple")?;
        layout.nf_conn_hash = of("tuplehash")?;
        layout.nf_conn_net = of("ct_net")?;
        layout.net_inum = btf.offset("net", "ns.inum")?;
        layout.net_cookie = btf.offset("net", "net_cookie").unwrap_or(0);
        let state = of("proto.tcp.state")?;
        let size = btf.size("nf_conntrack_tuple")?;
        ensure!(size == 40 && hash_tuple == 16, "this kernel's tuples are laid out otherwise");
        let offsets = Self {
            references: of("ct_general.use")? as usize,
            timeout: of("timeout")? as usize,
            zone: of("zone.id").ok().map(|at| at as usize),
            tuple: (layout.nf_conn_hash + hash_tuple) as usize,
            status: of("status")? as usize,
            tcp_state: state as usize,
            sctp_state: of("proto.sctp.state").unwrap_or(state) as usize,
        };
        let ends = [
            offsets.tuple + 40,
            offsets.status + 8,
            offsets.timeout + 4,
            offsets.tcp_state + 4,
            offsets.sctp_state + 4,
            offsets.zone.unwrap_or(0) + 2,
        ];
        let bytes = ends.into_iter().max().unwrap_or(0).next_multiple_of(8);
        ensure!(bytes <= ENTRY, "this kernel's entries are larger than {ENTRY} bytes");
        layout.nf_conn_bytes = u32::try_from(bytes)?;
        Ok(offsets)
    }

    /// `None` for what is no entry in the table: freed a moment ago.
    fn held(&self, record: &Record, jiffies: u64, hz: Option<u32>) -> Option<Held> {
        const ORIGINAL: u8 = 0;
        let bytes = &record.entry;
        let byte = |at: usize| bytes.get(at).copied();
        let half = |at| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let word = |at| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let status = Status(word(self.status)?);
        let tuple = self.tuple;
        let family = half(tuple + 18)?.to_le_bytes()[0];
        let is_entry = word(self.references)? != 0
            && status.is_confirmed()
            && byte(tuple + 39)? == ORIGINAL
            && matches!(family, 2 | 10);
        if !is_entry {
            return None;
        }
        let protocol = byte(tuple + 38)?;
        let key = Key {
            netns: record.netns,
            src: *bytes.get(tuple..)?.first_chunk()?,
            dst: *bytes.get(tuple + 20..)?.first_chunk()?,
            dport: if has_ports(protocol) { half(tuple + 36)? } else { 0 },
            protocol,
            family,
            ifindex: 0,
        };
        let state = match protocol {
            6 => byte(self.tcp_state)?,
            132 => byte(self.sctp_state)?,
            _ => 0,
        };
        // Both are 32 bits of the same clock, which wraps around.
        let ticks = word(self.timeout)?.wrapping_sub(u32::try_from(jiffies & 0xffff_ffff).ok()?);
        let left = ticks.cast_signed().max(0).cast_unsigned();
        Some(Held {
            key,
            status,
            state,
            zone: match self.zone {
                Some(at) => half(at)?,
                None => 0,
            },
            remaining: hz.map(|hz| left / hz.max(1)),
        })
    }
}

/// `CONFIG_HZ`, by what the kernel's clock of ticks shows after so long: it starts 300 seconds
/// before 2^32, so that whatever fails when it wraps around does so soon. `None` where that fits no
/// frequency, or more than one.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/jiffies.h> `INITIAL_JIFFIES`
fn ticks_per_second(jiffies: u64, uptime: Duration) -> Option<u32> {
    const FREQUENCIES: [u32; 9] = [24, 48, 100, 128, 250, 256, 300, 1000, 1024];
    /// Seconds between the beginnings of both clocks.
    const SLACK: f64 = 1.0;
    let since = jiffies as f64 - (1_u64 << 32) as f64;
    let seconds = uptime.as_secs_f64() - 300.0;
    let fits = |hz: &u32| {
        let hz = f64::from(*hz);
        (since - hz * seconds).abs() < hz * SLACK
    };
    let mut fitting = FREQUENCIES.into_iter().filter(fits);
    let found = fitting.next()?;
    fitting.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: Offsets = Offsets {
        references: 0,
        timeout: 8,
        zone: Some(12),
        tuple: 32,
        status: 128,
        tcp_state: 200,
        sctp_state: 200,
    };

    fn record() -> Record {
        let mut entry = [0; ENTRY];
        entry[0] = 1;
        entry[8..12].copy_from_slice(&5_u32.to_ne_bytes());
        entry[12..14].copy_from_slice(&7_u16.to_ne_bytes());
        entry[32..36].copy_from_slice(&[10, 1, 1, 1]);
        entry[50..52].copy_from_slice(&2_u16.to_ne_bytes());
        entry[52..56].copy_from_slice(&[10, 2, 2, 2]);
        entry[68..70].copy_from_slice(&80_u16.to_be_bytes());
        entry[70] = 6;
        entry[128..132].copy_from_slice(&(1_u32 << 3 | 1 << 2).to_ne_bytes());
        entry[200] = 3;
        Record { netns: 9, entry }
    }

    #[test]
    fn an_entry_is_read_as_the_kernel_wrote_it() {
        // The clock is about to wrap around.
        let held = OFFSETS.held(&record(), 0xffff_ff00, Some(100)).unwrap();
        assert_eq!((held.key.netns, held.key.protocol, held.state, held.zone), (9, 6, 3, 7));
        assert_eq!(held.key.src[..4], [10, 1, 1, 1]);
        assert_eq!(held.key.dport.to_ne_bytes(), [0, 80]);
        assert_eq!(held.remaining, Some(2), "261 ticks");
        assert!(held.status.is_assured() && held.status.is_confirmed());
        let expired = OFFSETS.held(&record(), 1000, Some(100)).unwrap();
        assert_eq!(expired.remaining, Some(0));
        assert_eq!(OFFSETS.held(&record(), 0, None).unwrap().remaining, None);
    }

    #[test]
    fn the_clocks_frequency_is_known_from_what_it_shows() {
        const START: u64 = 1 << 32;
        let at = |seconds| Duration::from_secs_f64(seconds);
        // Just booted, and up for a month.
        assert_eq!(ticks_per_second(START - 300 * 250 + 20 * 250, at(20.1)), Some(250));
        assert_eq!(ticks_per_second(START + 1000 * (2_592_000 - 300), at(2_592_000.3)), Some(1000));
        assert_eq!(ticks_per_second(START, at(300.0)), None, "any would fit");
        assert_eq!(ticks_per_second(12345, at(7.0)), None, "none does");
    }

    #[test]
    fn what_was_freed_meanwhile_is_no_entry() {
        let mut freed = record();
        freed.entry[0] = 0;
        let mut unconfirmed = record();
        unconfirmed.entry[128] = 0;
        let mut strange = record();
        strange.entry[50] = 77;
        for record in [freed, unconfirmed, strange] {
            assert!(OFFSETS.held(&record, 0, None).is_none());
        }
        let beyond = Offsets { tcp_state: ENTRY, ..OFFSETS };
        assert!(beyond.held(&record(), 0, None).is_none());
    }
}
