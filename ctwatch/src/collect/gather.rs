//! What is of one namespace: its entries as lines, its counters, its sysctls.
//!
//! Goes into namespaces, so it runs on a thread of its own.

use std::{
    fmt::Write,
    fs::File,
    io::{BufRead, BufReader, Read},
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::spool::{PackedText, Spool};
use crate::{
    host::{
        netfilter::{ctnetlink::Dumped, flow_line},
        netns::{
            Netns,
            visit::{Reading, Source, Sysctls, Visit, Visitor},
        },
    },
    record::{counters::CpuCounters, facts::Known},
};

/// Of the calling thread's namespace.
const TABLE: &str = "/proc/thread-self/net/nf_conntrack";
/// Of a line of it.
const LONGEST: u64 = 16 << 10;
/// It is looked at the clock once in so many lines.
const GLANCE: u64 = 256;

/// What was found in a namespace.
#[derive(Debug)]
pub struct Gathered {
    /// Its place among those that were asked for.
    pub at: usize,
    pub entries: Known<u32>,
    pub counters: Known<String>,
    pub sysctls: Known<String>,
    /// `None`: only its counters were asked for.
    pub table: Option<Known<ListedTable>>,
}

/// Its entries.
#[derive(Debug)]
pub struct ListedTable {
    pub text: PackedText,
    pub listed: u64,
    /// Why there are no more of them.
    pub cut: Option<String>,
    /// As the kernel lists them in /proc, and not as conntrack does.
    pub is_by_proc: bool,
    /// It changed while it was read: some may be missing, or there twice.
    pub is_torn: bool,
}

/// What is wanted of each, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct GatherBounds {
    pub source: Source,
    /// Entries too, so many of all together; `None`: only counters.
    pub lines: Option<u64>,
    /// The caller stops waiting at this time.
    pub until: Instant,
}

/// A list ends this long before the caller stops waiting, so that what was listed still reaches it, with the
/// counters and sysctls of that namespace.
const CLOSING: Duration = Duration::from_secs(2);

impl GatherBounds {
    fn listing_until(&self) -> Instant {
        self.until.checked_sub(CLOSING).unwrap_or(self.until)
    }
}

/// Tells what it finds in each, one after the other. Where it is waited for in vain, the others have been
/// told.
pub fn gather(found: &[Netns], bounds: GatherBounds, tell: &Sender<Gathered>) -> Result<()> {
    let visitor = Visitor::new(bounds.source)?;
    let mut lines = bounds.lines;
    for (at, netns) in found.iter().enumerate() {
        if Instant::now() >= bounds.until {
            break;
        }
        let visit = visitor.enter(netns, || {
            let Reading { entries, counters, .. } = visitor.read_here(|_| Vec::new());
            let said = |error: anyhow::Error| format!("{error:#}");
            let table = lines.map(|most| table(bounds, most).map_err(said));
            Gathered {
                at,
                entries: entries.map_err(said),
                counters: counters.map(|cpus| written(&cpus)).map_err(said),
                sysctls: sysctls().map_err(said),
                table,
            }
        })?;
        let found = match visit {
            Visit::Read(found) => found,
            Visit::Gone => continue,
            Visit::Refused(why) => {
                let why = format!("{why:#}");
                let (entries, counters) = (Err(why.clone()), Err(why.clone()));
                Gathered { at, entries, counters, sysctls: Err(why), table: None }
            }
        };
        if let (Some(left), Some(Ok(table))) = (&mut lines, &found.table) {
            *left = left.saturating_sub(table.listed);
        }
        if tell.send(found).is_err() {
            break;
        }
    }
    Ok(())
}

/// Lists the table of the namespace that this thread is in.
fn table(bounds: GatherBounds, most: u64) -> Result<ListedTable> {
    /// Ends a dump that is long enough.
    const ENOUGH: &str = "enough";
    let mut spool = Spool::new();
    let (mut listed, mut cut) = (0, None);
    let listing_until = bounds.listing_until();
    let mut each = |line: &str| -> Result<()> {
        if listed == most {
            cut = Some(format!("{} lines are written down at most", super::LINES));
        } else if listed % GLANCE == 0 && Instant::now() >= listing_until {
            cut = Some("there was no more time".to_owned());
        }
        if cut.is_some() {
            bail!(ENOUGH);
        }
        listed += 1;
        Ok(spool.line(line)?)
    };
    let dumped = match bounds.source {
        Source::Ctnetlink => flow_line::lines(&mut each),
        Source::Procfs => proc_lines(&mut each).map(|()| Dumped::Whole),
    };
    let is_torn = match dumped {
        Ok(dumped) => dumped == Dumped::Torn,
        Err(_) if cut.is_some() => false,
        Err(error) => return Err(error),
    };
    if let Some(why) = &cut {
        spool.line(&format!("# not all of the table: {why}"))?;
    }
    let is_by_proc = bounds.source == Source::Procfs;
    Ok(ListedTable { text: spool.finish()?, listed, cut, is_by_proc, is_torn })
}

fn proc_lines(each: &mut impl FnMut(&str) -> Result<()>) -> Result<()> {
    let file = File::open(TABLE).with_context(|| format!("cannot read {TABLE}"))?;
    let mut file = BufReader::with_capacity(64 << 10, file);
    let mut line = Vec::new();
    while file.by_ref().take(LONGEST).read_until(b'\n', &mut line)? > 0 {
        each(String::from_utf8_lossy(&line).trim_end())?;
        line.clear();
    }
    Ok(())
}

/// As `conntrack -S` prints them.
fn written(cpus: &[CpuCounters]) -> String {
    let mut out = String::new();
    for cpu in cpus {
        let CpuCounters {
            cpu,
            found,
            invalid,
            insert,
            delete_list,
            insert_failed,
            drop,
            early_drop,
            error,
            search_restart,
            clash_resolve,
            chaintoolong,
        } = *cpu;
        let mut put = |text: std::fmt::Arguments<'_>| {
            // A string takes all that is written.
            let _ = out.write_fmt(text);
        };
        put(format_args!("cpu={cpu:<4}\tfound={found} invalid={invalid} "));
        if let Some(count) = delete_list {
            put(format_args!("delete_list={count} "));
        }
        put(format_args!("insert={insert} insert_failed={insert_failed} drop={drop} "));
        put(format_args!("early_drop={early_drop} error={error} "));
        put(format_args!("search_restart={search_restart} clash_resolve={clash_resolve} "));
        if let Some(count) = chaintoolong {
            put(format_args!("chaintoolong={count} "));
        }
        put(format_args!("\n"));
    }
    out
}

/// Those of conntrack, as `sysctl -a` prints them.
fn sysctls() -> Result<String> {
    let sysctls = Sysctls::open().context("cannot read /proc/sys/net/netfilter")?;
    let mut names = sysctls.names();
    names.retain(|name| name.starts_with("nf_conntrack") || name.starts_with("nf_flowtable"));
    names.sort();
    let mut out = String::new();
    for name in names {
        if let Ok(value) = sysctls.text(&name) {
            out.push_str(&format!("net.netfilter.{name} = {}\n", value.trim_end()));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_while_somebody_waits_for_it() {
        let until = Instant::now() + 10 * CLOSING;
        let bounds = GatherBounds { source: Source::Procfs, lines: Some(200_000), until };
        assert_eq!(bounds.until, until);
        assert_eq!(
            bounds.listing_until(),
            until - CLOSING,
            "what comes with it is told of in time"
        );
    }

    #[test]
    fn counters_are_written_as_conntrack_does() {
        let cpu = CpuCounters { cpu: 1, drop: 7, chaintoolong: Some(3), ..Default::default() };
        let wanted = "cpu=1   \tfound=0 invalid=0 insert=0 insert_failed=0 drop=7 early_drop=0 error=0 \
                      search_restart=0 clash_resolve=0 chaintoolong=3 \n";
        assert_eq!(written(&[cpu]), wanted);
        let old = written(&[CpuCounters { delete_list: Some(2), ..Default::default() }]);
        assert!(old.contains(" delete_list=2 insert=0 ") && !old.contains("chain"), "{old}");
    }
}
