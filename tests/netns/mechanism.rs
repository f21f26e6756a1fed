//! With which mechanism ctwatch is tested, and what each promises.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Auto,
    Fexit,
    Kprobe,
    Tracepoint,
    Counters,
}

const ALL: [Mechanism; 5] = [
    Mechanism::Auto,
    Mechanism::Fexit,
    Mechanism::Kprobe,
    Mechanism::Tracepoint,
    Mechanism::Counters,
];

impl Mechanism {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::Counters => "counters",
        }
    }

    pub(crate) fn has_programs(self) -> bool {
        self != Self::Counters
    }

    /// Whether this figure must be exact, or may be a bound that holds.
    ///
    /// What a kprobe missed is known at best as a number, so for entries it promises bounds; of
    /// refusals the counters are a second witness, for as long as they can be read. The counters
    /// alone lump reasons together.
    fn promises(self, figure: &str, table: &Value) -> bool {
        match self {
            Self::Auto | Self::Tracepoint if told_late() => {
                !matches!(figure, "/insertions" | "/removals")
            }
            Self::Auto | Self::Fexit | Self::Tracepoint => true,
            Self::Kprobe => {
                table["reachable"] == true
                    && !matches!(figure, "/insertions" | "/removals" | "/refused_ctnetlink")
            }
            Self::Counters => matches!(figure, "/invalid" | "/evictions/early_drop"),
        }
    }
}

/// Before Linux 5.17 the tracepoint says that an entry was freed when it may be in use again.
fn told_late() -> bool {
    release().map_or(true, |release| release < (5, 17))
}

/// The first two numbers of the running kernel's.
pub(crate) fn release() -> Result<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (major, minor) = (numbers.next(), numbers.next());
    let (major, minor) = major.zip(minor).context("a release without numbers")?;
    Ok((major?, minor?))
}

static CURRENT: Mutex<Mechanism> = Mutex::new(Mechanism::Auto);

pub(crate) fn current() -> Mechanism {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn set(mechanism: Mechanism) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = mechanism;
}

/// Those to test with, and whether they were named.
pub(crate) fn asked_for() -> (Vec<Mechanism>, bool) {
    match std::env::var("CTWATCH_MECHANISMS") {
        Ok(names) => {
            let known = ALL.into_iter().filter(|m| names.split(' ').any(|name| name == m.name()));
            (known.collect(), true)
        }
        Err(_) => (vec![Mechanism::Auto], false),
    }
}

/// So many packets at most are between allocation and confirmation: a few on each CPU.
const EARLY: u64 = 16;

fn by_tracepoint() -> bool {
    matches!(current(), Mechanism::Auto | Mechanism::Tracepoint)
}

/// One figure must have this total, exactly, where the mechanism in use promises that; where it
/// does not, what it says must be true.
pub(crate) fn holds(table: &Value, path: &str, expected: u64) -> Result<()> {
    let figure = table.pointer(path).with_context(|| format!("no {path} in {table}"))?;
    let total = figure["total"].as_u64();
    let least = figure["at_least"].as_u64().unwrap_or(0);
    let good = match figure["exactness"].as_str().context("no exactness")? {
        "exact" => total == Some(expected),
        // By tracepoints an entry counts when it is allocated, and a rule may then keep it out.
        "upper_bound" if path == "/insertions" && by_tracepoint() && !told_late() => {
            least == expected && total.is_some_and(|total| total <= least + EARLY)
        }
        // The kernel really had no memory for somebody in that moment, and that is said.
        "upper_bound" if short_of_memory(table, path, expected) => {
            total.is_some_and(|total| (least..=total).contains(&expected))
        }
        _ if current().promises(path, table) => false,
        "upper_bound" => total.is_some_and(|total| (least..=total).contains(&expected)),
        "lower_bound" => total.is_some_and(|total| total <= expected),
        "unavailable" => total.is_none() && current() == Mechanism::Counters,
        other => bail!("{path} is {other}"),
    };
    ensure!(good, "{path} is {figure}, and {expected} is the truth, in {table}");
    Ok(())
}

/// So many drops at most may be doubtful because the page allocator failed meanwhile; of many, a tenth.
const SHORTAGES: u64 = 16;

fn short_of_memory(table: &Value, path: &str, drops: u64) -> bool {
    let doubtful = table.pointer("/drops/no_memory/total").and_then(Value::as_u64);
    let most = SHORTAGES.max(drops / 10);
    path.starts_with("/drops/") && doubtful.is_some_and(|count| (1..=most).contains(&count))
}

/// Nothing was lost, or what a kprobe missed was admitted.
pub(crate) fn nothing_lost(object: &Value) -> Result<()> {
    ensure!(current() == Mechanism::Kprobe || object["lost"] == 0, "events were lost: {object}");
    Ok(())
}
