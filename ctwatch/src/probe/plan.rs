//! Which mechanism measures what on this machine: pure, from facts to a choice with reasons.
//!
//! Decided by facts (a capability, a symbol, a BTF member, an attach that was tried), never by a
//! kernel's version number. A new mechanism is one more row in [`WAYS`].

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
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Counters => "counters",
            Self::Ctnetlink => "ctnetlink",
            Self::Procfs => "procfs",
        }
    }
}

/// What a way of measuring needs from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Programs in this executable, the privileges to load them, and a kernel that took them.
    Bpf,
    /// `kfree_skb` with a drop reason, and where in a packet and an entry to look.
    DropLayout,
    /// The code of `nf_conntrack_free` and where in an entry to look.
    EntryLayout,
    /// The per-CPU counters can be read.
    Counters,
    Ctnetlink,
    /// `/proc/sys/net/netfilter/nf_conntrack_count`.
    Procfs,
}

/// For each need, why the machine does not offer it; `Ok` where it does.
#[derive(Debug)]
pub struct Facts {
    pub bpf: Result<(), String>,
    pub drop_layout: Result<(), String>,
    pub entry_layout: Result<(), String>,
    pub counters: Result<(), String>,
    pub ctnetlink: Result<(), String>,
    pub procfs: Result<(), String>,
}

impl Facts {
    fn of(&self, need: Need) -> &Result<(), String> {
        match need {
            Need::Bpf => &self.bpf,
            Need::DropLayout => &self.drop_layout,
            Need::EntryLayout => &self.entry_layout,
            Need::Counters => &self.counters,
            Need::Ctnetlink => &self.ctnetlink,
            Need::Procfs => &self.procfs,
        }
    }
}

/// One row: a signal can be had by a mechanism, given these needs.
struct Way {
    signal: Signal,
    mechanism: Mechanism,
    needs: &'static [Need],
}

/// In order of preference for each signal.
const WAYS: &[Way] = &[
    Way {
        signal: Signal::Drops,
        mechanism: Mechanism::Tracepoint,
        needs: &[Need::Bpf, Need::DropLayout],
    },
    Way { signal: Signal::Drops, mechanism: Mechanism::Counters, needs: &[Need::Counters] },
    Way {
        signal: Signal::Insertions,
        mechanism: Mechanism::Tracepoint,
        needs: &[Need::Bpf, Need::EntryLayout],
    },
    Way {
        signal: Signal::Removals,
        mechanism: Mechanism::Tracepoint,
        needs: &[Need::Bpf, Need::EntryLayout],
    },
    Way { signal: Signal::Table, mechanism: Mechanism::Ctnetlink, needs: &[Need::Ctnetlink] },
    Way { signal: Signal::Table, mechanism: Mechanism::Procfs, needs: &[Need::Procfs] },
];

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The best there is for each signal.
    Auto,
    /// This one for drops, insertions and removals; no other in its stead.
    Only(Mechanism),
}

/// What was chosen, and what was refused and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub chosen: Vec<(Signal, Mechanism)>,
    pub refused: Vec<Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub signal: Signal,
    pub mechanism: Mechanism,
    pub why: String,
}

impl Plan {
    pub fn mechanism(&self, signal: Signal) -> Option<Mechanism> {
        self.chosen.iter().find(|(chosen, _)| *chosen == signal).map(|(_, mechanism)| *mechanism)
    }

    /// What was refused, in words; what has the same reason together.
    pub fn refusals(&self) -> Vec<String> {
        let mut lines: Vec<(Mechanism, &str, String)> = Vec::new();
        for Refusal { signal, mechanism, why } in &self.refused {
            match lines.iter_mut().find(|(m, w, _)| m == mechanism && w == why) {
                Some((_, _, signals)) => {
                    signals.push_str(", ");
                    signals.push_str(signal.name());
                }
                None => lines.push((*mechanism, why, signal.name().to_owned())),
            }
        }
        let lines = lines.into_iter();
        lines.map(|(mechanism, why, s)| format!("no {s} by {}: {why}", mechanism.name())).collect()
    }

    /// Whether any program is to be loaded.
    pub fn probes(&self) -> bool {
        self.chosen.iter().any(|(_, mechanism)| *mechanism == Mechanism::Tracepoint)
    }
}

pub fn plan(facts: &Facts, request: Request) -> Plan {
    let mut plan = Plan { chosen: Vec::new(), refused: Vec::new() };
    for way in WAYS {
        if plan.mechanism(way.signal).is_some() || !admits(request, way) {
            continue;
        }
        match way.needs.iter().find_map(|need| facts.of(*need).as_ref().err()) {
            None => plan.chosen.push((way.signal, way.mechanism)),
            Some(why) => plan.refused.push(Refusal {
                signal: way.signal,
                mechanism: way.mechanism,
                why: why.clone(),
            }),
        }
    }
    plan
}

/// A forced mechanism stands for the counting; how the table's state is read stays free.
fn admits(request: Request, way: &Way) -> bool {
    match request {
        Request::Auto => true,
        Request::Only(mechanism) => way.signal == Signal::Table || way.mechanism == mechanism,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(missing: &[Need]) -> Facts {
        let fact = |need: Need| {
            if missing.contains(&need) { Err(format!("no {need:?}")) } else { Ok(()) }
        };
        Facts {
            bpf: fact(Need::Bpf),
            drop_layout: fact(Need::DropLayout),
            entry_layout: fact(Need::EntryLayout),
            counters: fact(Need::Counters),
            ctnetlink: fact(Need::Ctnetlink),
            procfs: fact(Need::Procfs),
        }
    }

    #[test]
    fn situations_and_what_is_chosen_in_them() {
        use Mechanism::{Counters, Ctnetlink, Procfs, Tracepoint};
        type Row = (&'static [Need], Request, [Option<Mechanism>; 4]);
        let table: &[Row] = &[
            (
                &[],
                Request::Auto,
                [Some(Tracepoint), Some(Tracepoint), Some(Tracepoint), Some(Ctnetlink)],
            ),
            (&[Need::Bpf], Request::Auto, [Some(Counters), None, None, Some(Ctnetlink)]),
            (
                &[Need::DropLayout],
                Request::Auto,
                [Some(Counters), Some(Tracepoint), Some(Tracepoint), Some(Ctnetlink)],
            ),
            (&[Need::EntryLayout], Request::Auto, [Some(Tracepoint), None, None, Some(Ctnetlink)]),
            (
                &[Need::Bpf, Need::Ctnetlink],
                Request::Auto,
                [Some(Counters), None, None, Some(Procfs)],
            ),
            (&[], Request::Only(Counters), [Some(Counters), None, None, Some(Ctnetlink)]),
            (&[Need::Bpf], Request::Only(Tracepoint), [None, None, None, Some(Ctnetlink)]),
            (
                &[Need::Bpf, Need::Counters, Need::Ctnetlink, Need::Procfs],
                Request::Auto,
                [None, None, None, None],
            ),
        ];
        for (missing, request, expected) in table {
            let plan = plan(&facts(missing), *request);
            let chosen = Signal::ALL.map(|signal| plan.mechanism(signal));
            assert_eq!(chosen, *expected, "{missing:?} {request:?}");
        }
    }

    #[test]
    fn what_was_refused_says_why_and_what_was_not_asked_for_is_not_refused() {
        let plan_of = |missing: &[Need], request| plan(&facts(missing), request);
        let forced = plan_of(&[Need::Bpf], Request::Only(Mechanism::Tracepoint));
        assert_eq!(forced.refused.len(), 3);
        assert_eq!(forced.refusals(), ["no drops, insertions, removals by tracepoint: no Bpf"]);
        assert!(plan(&facts(&[]), Request::Only(Mechanism::Counters)).refused.is_empty());
    }
}
