//! The table as the kernel has it, of all namespaces in one walk: a program that is attached
//! nowhere, run for some chains at a time.

use std::os::fd::AsFd;

use anyhow::{Context, Error, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
    programs::RawTracePoint,
};
use ctwatch_abi::census::{Cursor, ENTRY, Peek, RECORDS, Record};

use super::{
    bpf,
    find_table::{self, TablePlace},
    load,
    mapped::Mapped,
    offsets::Offsets,
    symbols,
    ticks::ticks_per_second,
    types::Types,
    value::Value,
};
use crate::{
    host::{
        kernel::symbols::Symbols,
        netns::visit::{netns_cookie, sysctl},
    },
    record::entry::Held,
};

/// How often a walk is begun anew because the table was replaced meanwhile.
const TRIES: u32 = 3;

/// What can walk the table, and where it has got to.
pub struct Walker {
    /// Holds the program.
    ebpf: Ebpf,
    cursor: Array<MapData, Value<Cursor>>,
    records: Mapped<Record>,
    offsets: Offsets,
    start: Cursor,
    hz: u32,
}

/// What is to be said of one walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Chains of which the end was not seen.
    pub strayed: u64,
}

impl Walker {
    /// What it looks for in kallsyms.
    pub const SYMBOLS: [&'static str; 3] = [TABLE, SIZE, find_table::REFERRING];

    /// Finds the table, and loads the program; or says why not.
    pub fn open() -> Result<Self> {
        Self::with(&symbols::find(&Self::SYMBOLS)?)
    }

    /// As [`Self::open`], by these symbols.
    pub fn with(symbols: &Symbols) -> Result<Self> {
        let types = Types::of_this_kernel().map_err(Error::msg)?;
        let (offsets, mut layout) = types.census.clone().map_err(Error::msg)?;
        if netns_cookie().is_none() {
            layout.net_cookie = 0;
        }
        let mut ebpf = load::census(&layout)?;
        let cursor = Array::try_from(map(&mut ebpf, "CENSUS")?)?;
        let Map::Array(records) = map(&mut ebpf, "HELD")? else { bail!("HELD is no array") };
        let records = Mapped::new(records.fd().as_fd(), RECORDS as usize)
            .context("cannot map the records of the census")?;
        let TablePlace { table_at, size_at } = match named(symbols) {
            Ok(place) => place,
            Err(why) => by_code(&mut ebpf, &records, symbols).context(why)?,
        };
        program(&mut ebpf, "walk")?;
        let start = Cursor { table_at, size_at, ..Cursor::default() };
        Ok(Self { ebpf, cursor, records, offsets, start, hz: ticks_per_second()? })
    }

    /// Where the table is.
    pub fn place(&self) -> TablePlace {
        TablePlace { table_at: self.start.table_at, size_at: self.start.size_at }
    }

    /// Hands over each entry that is in the table.
    pub fn walk(&mut self, mut each: impl FnMut(&Held)) -> Result<Walked> {
        let program: &RawTracePoint =
            self.ebpf.program("walk").context("the walk is not loaded")?.try_into()?;
        let program = program.fd()?;
        self.cursor.set(0, Value(self.start), 0).context("cannot begin a walk")?;
        let mut runs: u64 = 0;
        loop {
            bpf::run(program.as_fd()).context("the kernel does not run the walk")?;
            let Value(cursor) = self.cursor.get(&0, 0).context("cannot read where the walk is")?;
            ensure!(cursor.table != 0, "the kernel's table cannot be read");
            if cursor.moved != 0 {
                bail!(Moved);
            }
            let filled = usize::try_from(cursor.filled)?;
            for at in 0..filled.min(RECORDS as usize) {
                let record = self.records.get(at).context("a record outside the records")?;
                if let Some(held) = self.offsets.held(record, cursor.jiffies, self.hz) {
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

const TABLE: &str = "nf_conntrack_hash";
const SIZE: &str = "nf_conntrack_htable_size";

fn named(symbols: &Symbols) -> Result<TablePlace, String> {
    Ok(TablePlace { table_at: symbols.variable(TABLE)?, size_at: symbols.variable(SIZE)? })
}

/// Where the table is, by what the kernel's code refers to.
fn by_code(ebpf: &mut Ebpf, records: &Mapped<Record>, symbols: &Symbols) -> Result<TablePlace> {
    let code = symbols.code(find_table::REFERRING).map_err(Error::msg)?;
    let buckets = sysctl("nf_conntrack_buckets")?;
    let mut asked = Array::<_, Value<Peek>>::try_from(map(ebpf, "PEEK")?)?;
    let program = program(ebpf, "peek")?.fd()?;
    let mut peek = |at, bytes: usize| -> Result<Option<&[u8]>> {
        asked.set(0, Value(Peek { at, bytes: bytes as u64 }), 0)?;
        bpf::run(program.as_fd()).context("the kernel does not run a look at its memory")?;
        let read = asked.get(&0, 0)?.0.bytes == bytes as u64;
        Ok(records.get(0).filter(|_| read).and_then(|record| record.entry.get(..bytes)))
    };
    let mut bytes = Vec::new();
    let len = usize::try_from(code.len)?.min(find_table::CODE);
    while bytes.len() < len {
        let piece = peek(code.start + bytes.len() as u64, ENTRY.min(len - bytes.len()))?;
        bytes.extend_from_slice(piece.context("the kernel's code cannot be read")?);
    }
    let mut failed = None;
    let found = find_table::find(&find_table::REFERRED(&bytes, code.start), buckets, |at| {
        let word = peek(at, 8).map_err(|error| failed = Some(error)).ok()??;
        word.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    });
    failed.map_or(found, Err)
}

fn map(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the probes hold no map {name}"))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a RawTracePoint> {
    let program = ebpf.program_mut(name);
    let program: &mut RawTracePoint =
        program.with_context(|| format!("the probes hold no program {name}"))?.try_into()?;
    program.load().map_err(load::explain)?;
    Ok(program)
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

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: Offsets = Offsets::EXAMPLE;

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
        entry[88..92].copy_from_slice(&[10, 3, 3, 3]);
        entry[104..106].copy_from_slice(&8080_u16.to_be_bytes());
        entry[108..112].copy_from_slice(&[192, 0, 2, 9]);
        entry[124..126].copy_from_slice(&99_u16.to_be_bytes());
        entry[128..132].copy_from_slice(&(1_u32 << 3 | 1 << 2).to_ne_bytes());
        entry[200] = 3;
        Record { netns: 9, entry }
    }

    #[test]
    fn an_entry_is_read_as_the_kernel_wrote_it() {
        // The clock is about to wrap around.
        let held = OFFSETS.held(&record(), 0xffff_ff00, 100).unwrap();
        assert_eq!((held.key.netns, held.key.protocol, held.state, held.zone), (9, 6, 3, 7));
        assert_eq!(held.key.src[..4], [10, 1, 1, 1]);
        assert_eq!(held.key.dport.to_ne_bytes(), [0, 80]);
        let translated = held.translated;
        assert_eq!((translated.netns, translated.dport), (9, 8080_u16.to_be()));
        assert_eq!(
            (&translated.src[..4], &translated.dst[..4]),
            (&[192, 0, 2, 9][..], &[10, 3, 3, 3][..])
        );
        assert_eq!(held.left, crate::record::entry::Left::Seconds(2), "261 ticks");
        assert!(held.status.is_assured() && held.status.is_confirmed());
        let expired = OFFSETS.held(&record(), 1000, 100).unwrap();
        assert_eq!(expired.left, crate::record::entry::Left::Expired);
    }

    #[test]
    fn a_tick_is_as_long_as_the_kernel_was_built_for() {
        let hz = ticks_per_second().unwrap();
        assert!([24, 48, 100, 128, 250, 256, 300, 1000, 1024].contains(&hz), "{hz}");
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
            assert!(OFFSETS.held(&record, 0, 100).is_none());
        }
        let beyond = Offsets { tcp_state: ENTRY, ..OFFSETS };
        assert!(beyond.held(&record(), 0, 100).is_none());
    }

    #[test]
    fn whatever_is_in_an_entry_is_read() {
        // It is copied without a lock, so it may be anything. xorshift, from a seed of its own.
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut read = 0;
        for _ in 0..100_000 {
            let mut record = record();
            for _ in 0..next() % 64 {
                let [at, byte, ..] = next().to_ne_bytes();
                record.entry[usize::from(at)] = byte;
            }
            let hz = [0, 1, 100, 1000][next() as usize % 4];
            read += u32::from(OFFSETS.held(&record, next(), hz).is_some());
        }
        assert!(read > 1000, "nonsense that is no entry at all shows little: {read}");
    }
}
