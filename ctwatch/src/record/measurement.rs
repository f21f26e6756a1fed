//! By what means something is measured on this machine, what those need, and whether it is here.

use std::collections::BTreeMap;

use super::facts::{Form, Known};

/// All that is known of it.
#[derive(Clone, Debug)]
pub struct Measurement {
    pub kernel: String,
    pub architecture: &'static str,
    pub conntrack: Form,
    pub capabilities: Vec<Capability>,
    pub configuration: Known<Configuration>,
    pub offers: Offers,
    /// What was chosen; a signal that is not here is measured by nothing.
    pub chosen: Vec<(Signal, Mechanism)>,
    /// Better mechanisms, and why they are not used.
    pub refused: Vec<String>,
    /// Those in force.
    pub guards: Vec<Guard>,
}

/// A setting of the kernel that keeps programs out, whatever else is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Lockdown,
    HiddenAddresses,
    PerfEventParanoid(i64),
    /// Bytes.
    LockedMemory(u64),
}

impl Guard {
    pub fn why(self) -> String {
        match self {
            Self::Lockdown => "the kernel is locked down (confidentiality, by \
                               /sys/kernel/security/lockdown): no program may read its memory"
                .to_owned(),
            Self::HiddenAddresses => {
                "kernel addresses are hidden, also from root (kernel.kptr_restrict is 2)".to_owned()
            }
            Self::PerfEventParanoid(level) => {
                format!("kernel.perf_event_paranoid is {level}: kprobes need CAP_SYS_ADMIN")
            }
            Self::LockedMemory(bytes) => format!(
                "maps count against the limit of locked memory (ulimit -l), which is {} KiB, and \
                 CAP_SYS_RESOURCE, which would lift it, is missing",
                bytes / 1024
            ),
        }
    }

    /// What to do about it.
    pub fn advice(self) -> String {
        match self {
            Self::Lockdown => "boot with lockdown=integrity, or without lockdown=: only then can \
                               programs count; until then the kernel's counters are all there is"
                .to_owned(),
            Self::HiddenAddresses => "sysctl -w kernel.kptr_restrict=1 lets root see kernel \
                                      addresses; sysctl -w kernel.kptr_restrict=2 undoes it"
                .to_owned(),
            Self::PerfEventParanoid(_) => "run it with CAP_SYS_ADMIN too".to_owned(),
            Self::LockedMemory(_) => "raise the limit of locked memory (ulimit -l unlimited; in a \
                                      unit LimitMEMLOCK=infinity), or add CAP_SYS_RESOURCE"
                .to_owned(),
        }
    }
}

/// A capability of Linux.
#[derive(Clone, Debug)]
pub struct Capability {
    pub name: &'static str,
    pub held: bool,
    pub purpose: &'static str,
}

/// How the kernel was configured.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The file that says so.
    pub source: String,
    pub options: BTreeMap<&'static str, String>,
}

impl Measurement {
    pub fn mechanism(&self, signal: Signal) -> Option<Mechanism> {
        let chosen = self.chosen.iter().find(|(of, _)| *of == signal);
        chosen.map(|(_, mechanism)| *mechanism)
    }
}

/// What is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Drops,
    Insertions,
    Removals,
    Table,
}

/// With what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Programs at the entry and the return of conntrack's own functions, by BTF.
    Fexit,
    /// Probes on the same functions, by name.
    Kprobe,
    /// The generic tracepoints `skb:kfree_skb`, `kmem:kmem_cache_alloc` and `…_free`.
    Tracepoint,
    /// Conntrack's own counters, and no eBPF.
    Counters,
    /// ctnetlink, for the state of the table.
    Ctnetlink,
    /// `/proc`, where ctnetlink may not be asked.
    Procfs,
}

impl Signal {
    pub const ALL: [Self; 4] = [Self::Drops, Self::Insertions, Self::Removals, Self::Table];

    pub fn name(self) -> &'static str {
        match self {
            Self::Drops => "drops",
            Self::Insertions => "insertions",
            Self::Removals => "removals",
            Self::Table => "table",
        }
    }
}

impl Mechanism {
    pub const ALL: [Self; 6] = [
        Self::Fexit,
        Self::Kprobe,
        Self::Tracepoint,
        Self::Counters,
        Self::Ctnetlink,
        Self::Procfs,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::Counters => "counters",
            Self::Ctnetlink => "ctnetlink",
            Self::Procfs => "procfs",
        }
    }

    /// Whether it is programs in the kernel.
    pub fn is_programs(self) -> bool {
        matches!(self, Self::Fexit | Self::Kprobe | Self::Tracepoint)
    }
}

/// What a way of measuring needs from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Programs in this executable, and the privileges to load them.
    Bpf,
    /// Where in an entry to look.
    EntryLayout,
    /// Conntrack's functions in BTF, and a kernel that attaches to them.
    Fexit,
    /// Conntrack's functions in kallsyms, and a kernel that attaches to them.
    Kprobe,
    /// The kernel says how many events its kprobes missed: without, what they counted is a lower
    /// bound, where no other witness speaks.
    KprobeMisses,
    /// A kernel that takes the programs on its tracepoints.
    Tracepoint,
    /// Where in a packet to look, and the code that drops it.
    DropLayout,
    /// The code of `nf_conntrack_free`.
    FreeLayout,
    /// The per-CPU counters can be read.
    Counters,
    /// They were seen to count insertions and removals.
    EntryCounts,
    Ctnetlink,
    /// `/proc/sys/net/netfilter/nf_conntrack_count`.
    Procfs,
}

impl Need {
    pub const ALL: [Self; 12] = [
        Self::Bpf,
        Self::EntryLayout,
        Self::Fexit,
        Self::Kprobe,
        Self::KprobeMisses,
        Self::Tracepoint,
        Self::DropLayout,
        Self::FreeLayout,
        Self::Counters,
        Self::EntryCounts,
        Self::Ctnetlink,
        Self::Procfs,
    ];

    /// In words, for a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bpf => "BPF programs",
            Self::EntryLayout => "layout of entries",
            Self::Fexit => "functions by BTF",
            Self::Kprobe => "functions by name",
            Self::KprobeMisses => "misses of kprobes",
            Self::Tracepoint => "tracepoints",
            Self::DropLayout => "layout of packets",
            Self::FreeLayout => "code of nf_conntrack_free",
            Self::Counters => "counters",
            Self::EntryCounts => "counters of entries",
            Self::Ctnetlink => "ctnetlink",
            Self::Procfs => "procfs",
        }
    }
}

/// For each need, why the machine does not offer it; `Ok` where it does.
#[derive(Clone, Debug)]
pub struct Offers(Vec<(Need, Result<(), String>)>);

impl Offers {
    /// What is not set is not offered.
    pub fn new() -> Self {
        Self(Need::ALL.map(|need| (need, Err("not looked for".to_owned()))).to_vec())
    }

    pub fn set(&mut self, need: Need, fact: Result<(), String>) {
        for (known, slot) in &mut self.0 {
            if *known == need {
                *slot = fact;
                return;
            }
        }
    }

    pub fn of(&self, need: Need) -> Result<(), &str> {
        let fact = self.0.iter().find(|(known, _)| *known == need);
        fact.map_or(Err("unknown"), |(_, fact)| fact.as_ref().copied().map_err(String::as_str))
    }
}

impl Default for Offers {
    fn default() -> Self {
        Self::new()
    }
}
