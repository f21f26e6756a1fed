//! Numbers as they were read: cumulative, uninterpreted, `None` where they could not be had.

use std::time::Duration;

use ctwatch_ebpf::{
    HostTally, NetnsId, NetnsTally,
    top::{By, Key, Stream},
};

use crate::workload::Workload;

/// One reading of everything.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Wall-clock time, for people and for the JSON.
    pub time: jiff::Timestamp,
    /// Monotonic time since the start: what rates are computed from.
    pub elapsed: Duration,
    /// `net.netfilter.nf_conntrack_max`; one limit for all namespaces, each with its own count.
    /// 0 is no limit.
    pub limit: Option<u32>,
    /// `net.netfilter.nf_conntrack_buckets`: one hash table for all namespaces.
    pub buckets: Option<u32>,
    pub tables: Vec<TableSample>,
    /// Those that were not read this time.
    pub idle: Vec<Idle>,
    /// `None` where no program runs.
    pub probed: Option<Probed>,
    /// Who it is, of what is counted that way; empty where nobody asks.
    pub tops: Vec<TopCounts>,
    /// What the cgroups that are spoken of are called.
    pub cgroups: Vec<(u64, String)>,
}

/// One table of heavy hitters, over all namespaces.
#[derive(Clone, Debug)]
pub struct TopCounts {
    pub stream: Stream,
    pub by: By,
    /// All that were offered to it.
    pub offered: u64,
    pub counts: Vec<TopCount>,
}

/// `count - error <= true count <= count`, since the start of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopCount {
    pub key: Key,
    pub count: u64,
    pub error: u64,
}

/// What the programs counted that is no namespace's, and how far their counts go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    pub host: HostTally,
    pub counted: Counted,
    pub misses: Misses,
    /// What was counted in all namespaces, also those that nobody asked for, before any was read.
    pub everywhere: NetnsTally,
    /// What was counted in namespaces of unprivileged users that there was no room to tell apart.
    pub strangers_rest: NetnsTally,
}

/// Which counts the running programs fill in. The others are zero and mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets dropped by any netfilter hook: `Dropped…`.
    pub drops: bool,
    /// Conntrack's own refusals: `TableFull…`.
    pub refusals: bool,
    /// `Clash`, `NatExhausted`.
    pub clashes: bool,
    /// `Inserted`.
    pub insertions: bool,
    /// `Removed…`, `NeverInserted…`.
    pub ends: bool,
}

/// A namespace in which the programs counted nothing since it was last read, and which is as it was then
/// as far as they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    pub id: NetnsId,
    /// How long ago it was read; zero where there is nothing to read: nothing leads to it.
    pub age: Duration,
}

/// One namespace's share of it.
#[derive(Clone, Debug)]
pub struct TableSample {
    pub id: NetnsId,
    pub inode: u32,
    pub name: Option<String>,
    pub workload: Workload,
    pub owner: Owner,
    /// What happens in it is worth an alarm: it is the host's own, or was asked for.
    pub is_judged: bool,
    pub access: Access,
    pub entries: Option<u32>,
    pub counters: Option<Vec<CpuCounters>>,
    /// Why `entries` or `counters` are missing from a namespace that was found.
    pub unread: Option<String>,
    pub hooks: Option<HookReadings>,
    /// What some of its interfaces are called.
    pub interfaces: Vec<(u32, String)>,
}

/// Who is behind a network namespace: whoever made the user namespace that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The first user namespace, or one that root made.
    Host,
    /// An unprivileged user made it, and everything in it is his doing.
    User(u32),
    /// And why. It counts as the host's: an alarm too many does less harm than one that is missed.
    Unknown(String),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Entered,
    /// It is there, and could not be entered: nothing is known of what is in it.
    Refused,
    /// Only the probes know of it: it is gone, or nothing shows where it is.
    Unseen,
}

/// One CPU's counters since the namespace was made, in the words of `conntrack -S`. They are 32
/// bits wide in the kernel and wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    pub cpu: u16,
    pub found: u32,
    pub invalid: u32,
    pub insert: u32,
    /// Entries that left the table, on kernels that count them. `None` where there is no such
    /// column; others keep it, and leave it at 0.
    pub delete_list: Option<u32>,
    pub insert_failed: u32,
    pub drop: u32,
    pub early_drop: u32,
    pub error: u32,
    pub search_restart: u32,
    pub clash_resolve: u32,
    /// `None` before Linux 5.15: those kernels have no limit on a chain's length.
    pub chaintoolong: Option<u32>,
}

/// Whether the kernel's counters say how many entries were inserted and how many removed. That
/// some kernels keep the columns and count nothing in them is told by an identity: all entries that
/// were inserted since the namespace was made, less those that were removed, are there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryCounts {
    /// There is no column for removals.
    Absent,
    /// Nothing was counted yet, or this kernel never counts: that looks the same.
    Still,
    /// Both moved, and their difference is not what is there: not counted, or read while entries
    /// came and went.
    Differ { entries: u32, sum: u32 },
    /// Both moved, and their difference is what is there.
    Agree,
}

impl EntryCounts {
    pub fn of(entries: u32, cpus: &[CpuCounters]) -> Self {
        let Some(sum) = inserted_less_removed(cpus) else { return Self::Absent };
        let inserted = cpus.iter().any(|cpu| cpu.insert > 0);
        let removed = cpus.iter().any(|cpu| cpu.delete_list > Some(0));
        match inserted && removed {
            false => Self::Still,
            true if sum == entries => Self::Agree,
            true => Self::Differ { entries, sum },
        }
    }

    /// Why they do not count; `Ok` where they do.
    pub fn why(self) -> Result<(), String> {
        match self {
            Self::Agree => Ok(()),
            Self::Absent => Err("this kernel's counters have no column delete_list".to_owned()),
            Self::Still => Err("insert and delete_list did not both move since the namespace was \
                                made: most kernels count nothing there"
                .to_owned()),
            Self::Differ { entries, sum } => Err(format!(
                "insert less delete_list is {}, but there are {entries} entries",
                sum.cast_signed()
            )),
        }
    }
}

/// `None` where the kernel has no counter of removals. All of it wraps around at 32 bits, as the
/// sums over CPUs do, so what is left is as good as the number of entries.
pub fn inserted_less_removed(cpus: &[CpuCounters]) -> Option<u32> {
    let one = |sum: u32, cpu: &CpuCounters| {
        Some(sum.wrapping_add(cpu.insert).wrapping_sub(cpu.delete_list?))
    };
    cpus.iter().try_fold(0, one).filter(|_| !cpus.is_empty())
}

/// What the programs had counted just before and just after the namespace itself was read: the
/// truth at that moment is between the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookReadings {
    pub before: NetnsTally,
    pub after: NetnsTally,
}

/// Events that a program was not run for, at most: all events of the place it is attached to, not
/// only those that count. `None` where the kernel does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misses {
    pub drops: Option<u64>,
    pub page_allocations: Option<u64>,
    pub refusals: Option<u64>,
    pub clashes: Option<u64>,
    pub insertions: Option<u64>,
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
    /// Nothing happened while it was read, so its numbers are of one moment.
    pub fn is_still(&self) -> bool {
        let hooks = self.tables.iter().filter_map(|table| table.hooks);
        hooks.into_iter().all(|hooks| hooks.before == hooks.after)
    }
}

/// One entry of the table.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Of its original direction. Without an interface: an entry does not know it.
    pub key: Key,
    /// The reply, turned round: what NAT makes of the original direction. Its destination is who
    /// answers, its source whom the answer is sent to.
    pub translated: Key,
    pub status: Status,
    /// Of TCP and SCTP, as the kernel numbers it; 0 for other protocols.
    pub state: u8,
    pub zone: u16,
    pub left: Left,
}

/// For how long an entry is still to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Whole seconds.
    Seconds(u32),
    /// No time: it fills the table until something comes across it. Netlink never tells of one.
    /// <https://github.com/torvalds/linux/blob/v6.12/include/net/netfilter/nf_conntrack.h> `nf_ct_is_expired`
    Expired,
    /// Netlink tells no time of offloaded flows.
    Unknown,
}

const TCP_STATES: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];
const SCTP_STATES: [&str; 9] = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
];

/// The states of a protocol by number, in conntrack's words; `None` where none are told apart.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_conntrack_tcp.h>
pub fn states(protocol: u8) -> Option<&'static [&'static str]> {
    match protocol {
        6 => Some(&TCP_STATES),
        132 => Some(&SCTP_STATES),
        _ => None,
    }
}

/// `enum ip_conntrack_status`.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_conntrack_common.h>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    pub const REPLIED: u32 = 1 << 1;
    pub const ASSURED: u32 = 1 << 2;
    pub const CONFIRMED: u32 = 1 << 3;
    pub const SOURCE_TRANSLATED: u32 = 1 << 4;
    pub const DESTINATION_TRANSLATED: u32 = 1 << 5;
    pub const OFFLOADED: u32 = 1 << 14;
    pub const OFFLOADED_TO_HARDWARE: u32 = 1 << 15;

    /// A packet of the other direction was seen.
    pub fn is_replied(self) -> bool {
        self.0 & Self::REPLIED != 0
    }

    /// Never thrown out to make room.
    pub fn is_assured(self) -> bool {
        self.0 & Self::ASSURED != 0
    }

    /// The reply's addresses or ports are not those of the original the other way round.
    /// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_nat_core.c> `nf_nat_setup_info`
    pub fn is_translated(self) -> bool {
        self.0 & (Self::SOURCE_TRANSLATED | Self::DESTINATION_TRANSLATED) != 0
    }

    /// A helper had it expected, or was assigned to it.
    pub fn is_helped(self) -> bool {
        self.0 & (1 | 1 << 13) != 0
    }

    /// In the table.
    pub fn is_confirmed(self) -> bool {
        self.0 & Self::CONFIRMED != 0
    }

    /// A flow table forwards its packets, in software or in hardware, and renews its time.
    pub fn is_offloaded(self) -> bool {
        self.0 & (Self::OFFLOADED | Self::OFFLOADED_TO_HARDWARE) != 0
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(insert: u32, delete_list: Option<u32>) -> CpuCounters {
        CpuCounters { insert, delete_list, ..CpuCounters::default() }
    }

    #[test]
    fn entry_counts_are_told_by_an_identity() {
        use EntryCounts::{Absent, Agree, Differ, Still};
        let of = |entries, cpus: &[CpuCounters]| EntryCounts::of(entries, cpus);
        // One CPU inserts what another removes, and both wrap around.
        let cpus = [cpu(u32::MAX, Some(3)), cpu(5, Some(0)), cpu(0, Some(u32::MAX - 1))];
        assert_eq!(of(3, &cpus), Agree);
        assert_eq!(of(2, &cpus), Differ { entries: 2, sum: 3 });
        // A kernel that keeps the columns; one whose entries came by ctnetlink, which it counts.
        assert_eq!(of(50, &[cpu(0, Some(0))]), Still);
        assert_eq!(of(50, &[cpu(50, Some(0))]), Still);
        assert_eq!(of(50, &[cpu(50, None)]), Absent);
        assert_eq!(of(0, &[]), Absent);
        assert_eq!((Agree.why().is_ok(), Still.why().is_ok()), (true, false));
    }
}
