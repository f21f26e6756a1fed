//! Numbers as they were read: cumulative, uninterpreted, `None` where they could not be had.

use std::time::Duration;

use ctwatch_abi::{
    HostTally, NetnsId, NetnsTally,
    budget::Budget,
    plane::Plane,
    top::{By, Key, Stream},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Read, SomethingElse, is_default, nanoseconds, or_something_else};
use super::{counters::CounterSums, workload::Workload};

/// One reading of everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Wall-clock time, for people and for the JSON.
    pub time: jiff::Timestamp,
    /// Monotonic time since the start: what rates are computed from.
    #[serde(rename = "elapsed_ns", with = "nanoseconds")]
    pub elapsed: Duration,
    /// `net.netfilter.nf_conntrack_max`; one limit for all namespaces, each with its own count.
    /// 0 is no limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limit: Option<u32>,
    /// `net.netfilter.nf_conntrack_buckets`: one hash table for all namespaces.
    #[serde(default, skip_serializing_if = "is_default")]
    pub buckets: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub tables: Vec<TableSample>,
    /// Those that were not read this time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub idle: Vec<Idle>,
    /// `None` where no program runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub probed: Option<Probed>,
    /// Who it is, of what is counted that way; empty where nobody asks. Lists of a kind that a later
    /// version added are not read.
    #[serde(default, deserialize_with = "known_lists", skip_serializing_if = "is_default")]
    pub tops: Vec<TopCounts>,
    /// How many events the lists were offered of each stream. Nothing of a stream: all of them.
    #[serde(default, deserialize_with = "known_streams", skip_serializing_if = "is_default")]
    pub told_apart: Vec<ToldApart>,
    /// Packets of control planes that were dropped; `None` where they are not counted apart. Those of
    /// control planes that a later version added are not read.
    #[serde(default, deserialize_with = "known_planes", skip_serializing_if = "is_default")]
    pub planes: Option<Vec<PlaneCount>>,
    /// What the cgroups that are spoken of are called.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cgroups: Vec<(u64, String)>,
}

/// One table of heavy hitters, over all namespaces.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopCounts {
    pub stream: Stream,
    pub by: By,
    /// All that were offered to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub offered: u64,
    /// Keys that are not in `counts`, as only the first are recorded, and the most that one of them came
    /// to. 0: all are there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub left_out: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub left_out_at_most: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub counts: Vec<TopCount>,
}

/// Those of a stream and a grouping that are known here.
fn known_lists<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TopCounts>, D::Error> {
    #[derive(Deserialize)]
    struct Written {
        stream: Read<Stream>,
        by: Read<By>,
        #[serde(default)]
        offered: u64,
        #[serde(default)]
        left_out: u64,
        #[serde(default)]
        left_out_at_most: u64,
        #[serde(default)]
        counts: Vec<TopCount>,
    }
    let known = |Written { stream, by, offered, left_out, left_out_at_most, counts }| {
        let (stream, by) = (stream.known()?, by.known()?);
        Some(TopCounts { stream, by, offered, left_out, left_out_at_most, counts })
    };
    Ok(Vec::deserialize(deserializer)?.into_iter().filter_map(known).collect())
}

/// `count - error <= true count <= count`, since the start of the programs, where each event was counted
/// once. Beyond the budget some were counted for several: then that holds of the sum of their weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopCount {
    pub key: Key,
    pub count: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub error: u64,
    /// Of what was counted in the key's set, the weight of events that were counted for several; and
    /// the most that one of them was counted for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scaled: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub heaviest: u64,
}

/// How many events of one stream were told apart, over all CPUs, since the start of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ToldApart {
    pub stream: Stream,
    /// Events that came to the budget.
    pub considered: u64,
    /// The weight of those that were taken: about as many.
    pub taken: u64,
    /// Those that were not taken. While it is 0, all were, and no count is an estimate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub let_by: u64,
    /// The most that one event was, or would have been, taken for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub heaviest: u64,
}

impl ToldApart {
    /// What all CPUs spent.
    pub fn of<'a>(stream: Stream, cpus: impl IntoIterator<Item = &'a Budget>) -> Self {
        let none = Self { stream, considered: 0, taken: 0, let_by: 0, heaviest: 1 };
        cpus.into_iter().fold(none, |sum, cpu| Self {
            stream,
            considered: sum.considered.saturating_add(cpu.considered),
            taken: sum.taken.saturating_add(cpu.taken),
            let_by: sum.let_by.saturating_add(cpu.let_by),
            heaviest: sum.heaviest.max(cpu.heaviest()),
        })
    }
}

/// Those of a stream that is known here.
fn known_streams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ToldApart>, D::Error> {
    #[derive(Deserialize)]
    struct Written {
        stream: Read<Stream>,
        considered: u64,
        taken: u64,
        #[serde(default)]
        let_by: u64,
        #[serde(default)]
        heaviest: u64,
    }
    let known = |Written { stream, considered, taken, let_by, heaviest }| {
        Some(ToldApart { stream: stream.known()?, considered, taken, let_by, heaviest })
    };
    Ok(Vec::deserialize(deserializer)?.into_iter().filter_map(known).collect())
}

/// Packets of one control plane that were dropped in one namespace, since the start of the programs.
/// Exact at any rate: they need no budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlaneCount {
    pub netns: NetnsId,
    pub plane: Plane,
    pub count: u64,
}

/// Those of a control plane that is known here.
fn known_planes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<PlaneCount>>, D::Error> {
    #[derive(Deserialize)]
    struct Written {
        netns: NetnsId,
        plane: Read<Plane>,
        count: u64,
    }
    let known =
        |Written { netns, plane, count }| Some(PlaneCount { netns, plane: plane.known()?, count });
    let planes = Option::<Vec<Written>>::deserialize(deserializer)?;
    Ok(planes.map(|planes| planes.into_iter().filter_map(known).collect()))
}

/// What the programs counted that is no namespace's, and how far their counts go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    #[serde(default, skip_serializing_if = "is_default")]
    pub host: HostTally,
    #[serde(default, skip_serializing_if = "is_default")]
    pub counted: Counted,
    pub misses: Misses,
    /// What was counted in all namespaces, also those that nobody asked for, before any was read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub everywhere: NetnsTally,
    /// What was counted in namespaces of unprivileged users that there was no room to tell apart.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strangers_rest: NetnsTally,
}

/// Which counts the running programs fill in. The others are zero and mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Packets dropped by any netfilter hook: `Dropped…`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drops: bool,
    /// Conntrack's own refusals: `TableFull…`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refusals: bool,
    /// `Clash`, `NatExhausted`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clashes: bool,
    /// `Inserted`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub insertions: bool,
    /// `Removed…`, `NeverInserted…`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ends: bool,
}

/// A namespace in which the programs counted nothing since it was last read, and which is as it was then
/// as far as they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    pub id: NetnsId,
    /// How long ago it was read; zero where there is nothing to read: nothing leads to it.
    #[serde(default, rename = "age_ns", with = "nanoseconds", skip_serializing_if = "is_default")]
    pub age: Duration,
}

/// One namespace's share of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableSample {
    pub id: NetnsId,
    pub inode: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub workload: Workload,
    #[serde(deserialize_with = "or_something_else")]
    pub owner: Owner,
    /// What happens in it is worth an alarm: it is the host's own, or was asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_judged: bool,
    pub access: Access,
    #[serde(default, skip_serializing_if = "is_default")]
    pub entries: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub counters: Option<CounterSums>,
    /// Why `entries` or `counters` are missing from a namespace that was found.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unread: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub hooks: Option<HookReadings>,
    /// What some of its interfaces are called.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interfaces: Vec<(u32, String)>,
}

/// Who is behind a network namespace: whoever made the user namespace that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The first user namespace, or one that root made.
    Host,
    /// An unprivileged user made it, and everything in it is his doing.
    User(u32),
    /// And why. It counts as the host's: an alarm too many does less harm than one that is missed.
    Unknown(String),
}

impl SomethingElse for Owner {
    fn something_else() -> Self {
        Self::Unknown("a later version of ctwatch wrote what this one does not know".to_owned())
    }
}

impl Owner {
    pub fn is_stranger(&self) -> bool {
        matches!(self, Self::User(_))
    }

    /// The user, where it is known.
    pub fn uid(&self) -> Option<u32> {
        match self {
            Self::Host => Some(0),
            Self::User(uid) => Some(*uid),
            Self::Unknown(_) => None,
        }
    }
}

/// Whether a namespace was looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Entered,
    /// It is there, and could not be entered: nothing is known of what is in it.
    Refused,
    /// Only the probes know of it: it is gone, or nothing shows where it is.
    #[serde(other)]
    Unseen,
}

/// What the programs had counted just before and just after the namespace itself was read: the
/// truth at that moment is between the two. Mostly they are equal, and then written once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookReadings {
    pub before: NetnsTally,
    pub after: NetnsTally,
}

#[derive(Serialize, Deserialize)]
struct WrittenReadings {
    before: NetnsTally,
    /// `None`: as before.
    #[serde(default, skip_serializing_if = "is_default")]
    after: Option<NetnsTally>,
}

impl Serialize for HookReadings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let after = Some(self.after).filter(|after| *after != self.before);
        WrittenReadings { before: self.before, after }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for HookReadings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let WrittenReadings { before, after } = WrittenReadings::deserialize(deserializer)?;
        Ok(Self { before, after: after.unwrap_or(before) })
    }
}

/// Events that a program was not run for, at most: all events of the place it is attached to, not
/// only those that count. `None` where the kernel does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misses {
    #[serde(default, skip_serializing_if = "is_default")]
    pub drops: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub page_allocations: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub refusals: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub clashes: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub insertions: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ends: Option<u64>,
}

impl Default for Misses {
    fn default() -> Self {
        let none = Some(0);
        Self {
            drops: none,
            page_allocations: none,
            refusals: none,
            clashes: none,
            insertions: none,
            ends: none,
        }
    }
}

impl Sample {
    /// Of which nothing is known.
    pub fn empty(time: jiff::Timestamp, elapsed: Duration) -> Self {
        Self {
            time,
            elapsed,
            limit: None,
            buckets: None,
            tables: Vec::new(),
            idle: Vec::new(),
            probed: None,
            tops: Vec::new(),
            told_apart: Vec::new(),
            planes: None,
            cgroups: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn at(elapsed: Duration) -> Self {
        Self::empty(jiff::Timestamp::UNIX_EPOCH, elapsed)
    }

    /// Nothing happened while it was read, so its numbers are of one moment.
    pub fn is_still(&self) -> bool {
        let hooks = self.tables.iter().filter_map(|table| table.hooks);
        hooks.into_iter().all(|hooks| hooks.before == hooks.after)
    }
}

/// What one interface of one namespace is called, and the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub netns: Option<String>,
    pub workload: Workload,
    pub inode: Option<u32>,
    pub interface: Option<String>,
}
