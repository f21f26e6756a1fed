//! Which mechanism measures what on this machine: pure, from facts to a choice with reasons.
//!
//! Decided by facts (a capability, a symbol, a BTF member, an attach that was tried), never by a
//! kernel's version number. A new mechanism is one more row in [`WAYS`].

use crate::record::measurement::{Mechanism, Need, Offers, Signal};

/// One row: a signal can be had by a mechanism, given these needs.
struct Way {
    signal: Signal,
    mechanism: Mechanism,
    needs: &'static [Need],
}

const fn way(signal: Signal, mechanism: Mechanism, needs: &'static [Need]) -> Way {
    Way { signal, mechanism, needs }
}

/// In order of preference for each signal. Refused packets have the kernel's counters for a second
/// witness, entries have none: where nobody can say what a kprobe missed of them, the tracepoint's
/// two programs, which miss nothing, come first although they cost more.
const WAYS: &[Way] = {
    use Mechanism::{Counters, Ctnetlink, Fexit, Kprobe, Procfs, Tracepoint};
    use Signal::{Drops, Insertions, Removals, Table};
    const FEXIT: &[Need] = &[Need::Bpf, Need::EntryLayout, Need::Fexit];
    const KPROBE: &[Need] = &[Need::Bpf, Need::EntryLayout, Need::Kprobe];
    const EXACT_KPROBE: &[Need] = &[Need::Bpf, Need::EntryLayout, Need::Kprobe, Need::KprobeMisses];
    const DROPPED: &[Need] = &[Need::Bpf, Need::EntryLayout, Need::DropLayout, Need::Tracepoint];
    const FREED: &[Need] = &[Need::Bpf, Need::EntryLayout, Need::FreeLayout, Need::Tracepoint];
    const COUNTED: &[Need] = &[Need::Counters, Need::EntryCounts];
    &[
        way(Drops, Fexit, FEXIT),
        way(Drops, Kprobe, KPROBE),
        way(Drops, Tracepoint, DROPPED),
        way(Drops, Counters, &[Need::Counters]),
        way(Insertions, Fexit, FEXIT),
        way(Insertions, Kprobe, EXACT_KPROBE),
        way(Insertions, Tracepoint, FREED),
        way(Insertions, Kprobe, KPROBE),
        way(Insertions, Counters, COUNTED),
        way(Removals, Fexit, FEXIT),
        way(Removals, Kprobe, EXACT_KPROBE),
        way(Removals, Tracepoint, FREED),
        way(Removals, Kprobe, KPROBE),
        way(Removals, Counters, COUNTED),
        way(Table, Ctnetlink, &[Need::Ctnetlink]),
        way(Table, Procfs, &[Need::Procfs]),
    ]
};

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
        self.refusals_of(|_| true)
    }

    /// Of these signals alone.
    pub fn refusals_of(&self, wanted: impl Fn(Signal) -> bool) -> Vec<String> {
        let mut by_mechanism: Vec<(Mechanism, &str, Vec<&str>)> = Vec::new();
        let refused = self.refused.iter().filter(|refusal| wanted(refusal.signal));
        for Refusal { signal, mechanism, why } in refused {
            match by_mechanism.iter_mut().find(|(m, w, _)| m == mechanism && w == why) {
                Some((_, _, signals)) => signals.push(signal.name()),
                None => by_mechanism.push((*mechanism, why, vec![signal.name()])),
            }
        }
        let mut lines: Vec<(String, &str, Vec<&str>)> = Vec::new();
        for (mechanism, why, signals) in by_mechanism {
            match lines.iter_mut().find(|(_, w, s)| *w == why && *s == signals) {
                Some((mechanisms, ..)) => {
                    mechanisms.push_str(", ");
                    mechanisms.push_str(mechanism.name());
                }
                None => lines.push((mechanism.name().to_owned(), why, signals)),
            }
        }
        let line = |(by, why, of): (_, _, Vec<_>)| format!("no {} by {by}: {why}", of.join(", "));
        lines.into_iter().map(line).collect()
    }

    /// The same for somebody who only wants to watch: where programs count all the same, with
    /// which of them is a matter for the doctor.
    pub fn notes(&self) -> Vec<String> {
        let counting = [Signal::Drops, Signal::Insertions, Signal::Removals];
        let by_programs =
            |signal| self.mechanism(signal).is_some_and(|mechanism| mechanism.is_programs());
        if !counting.into_iter().all(by_programs) {
            return self.refusals();
        }
        // One that counts something else is in use.
        let is_used = |mechanism| self.chosen.iter().any(|(_, chosen)| *chosen == mechanism);
        let refused = self.refused.iter().filter(|refusal| counting.contains(&refusal.signal));
        let unused = refused.filter(|refusal| !is_used(refusal.mechanism));
        let mut names: Vec<&str> = unused.map(|refusal| refusal.mechanism.name()).collect();
        names.sort_unstable();
        names.dedup();
        let mut notes = self.refusals_of(|signal| !counting.contains(&signal));
        if !names.is_empty() {
            notes.push(format!("not by {}: ctwatch doctor says why", names.join(", ")));
        }
        notes
    }

    /// Whether any program is to be loaded.
    pub fn probes(&self) -> bool {
        self.chosen.iter().any(|(_, mechanism)| mechanism.is_programs())
    }
}

pub fn plan(facts: &Offers, request: Request) -> Plan {
    let mut plan = Plan { chosen: Vec::new(), refused: Vec::new() };
    for way in WAYS {
        if plan.mechanism(way.signal).is_some() || !admits(request, way) {
            continue;
        }
        match way.needs.iter().find_map(|need| facts.of(*need).err()) {
            None => {
                plan.chosen.push((way.signal, way.mechanism));
                // Where its first row was refused and a later one was not.
                plan.refused.retain(|no| (no.signal, no.mechanism) != (way.signal, way.mechanism));
            }
            Some(why) => {
                let (signal, mechanism) = (way.signal, way.mechanism);
                let refusal = Refusal { signal, mechanism, why: why.to_owned() };
                // Of two rows for one thing, one reason will do.
                if !plan.refused.contains(&refusal) {
                    plan.refused.push(refusal);
                }
            }
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

    fn facts(missing: &[Need]) -> Offers {
        let mut facts = Offers::new();
        for need in Need::ALL {
            let fact = if missing.contains(&need) { Err(format!("no {need:?}")) } else { Ok(()) };
            facts.set(need, fact);
        }
        facts
    }

    #[test]
    fn situations_and_what_is_chosen_in_them() {
        use Mechanism::{Counters, Ctnetlink, Fexit, Kprobe, Procfs, Tracepoint};
        type Row = (&'static [Need], Request, [Option<Mechanism>; 4]);
        let all = |mechanism| [Some(mechanism), Some(mechanism), Some(mechanism), Some(Ctnetlink)];
        let table: &[Row] = &[
            (&[], Request::Auto, all(Fexit)),
            (&[Need::Fexit], Request::Auto, all(Kprobe)),
            (
                &[Need::Fexit, Need::KprobeMisses],
                Request::Auto,
                [Some(Kprobe), Some(Tracepoint), Some(Tracepoint), Some(Ctnetlink)],
            ),
            (&[Need::Fexit, Need::KprobeMisses, Need::Tracepoint], Request::Auto, all(Kprobe)),
            (&[Need::KprobeMisses], Request::Only(Kprobe), all(Kprobe)),
            (&[Need::Fexit, Need::Kprobe], Request::Auto, all(Tracepoint)),
            (
                &[Need::EntryLayout, Need::EntryCounts],
                Request::Auto,
                [Some(Counters), None, None, Some(Ctnetlink)],
            ),
            (
                &[Need::Bpf, Need::EntryCounts],
                Request::Auto,
                [Some(Counters), None, None, Some(Ctnetlink)],
            ),
            // The seed's own switch: no BPF, no ctnetlink, and a kernel that counts.
            (
                &[Need::Bpf, Need::Ctnetlink],
                Request::Auto,
                [Some(Counters), Some(Counters), Some(Counters), Some(Procfs)],
            ),
            (
                &[Need::Fexit, Need::Kprobe, Need::DropLayout],
                Request::Auto,
                [Some(Counters), Some(Tracepoint), Some(Tracepoint), Some(Ctnetlink)],
            ),
            (
                &[Need::FreeLayout],
                Request::Only(Tracepoint),
                [Some(Tracepoint), None, None, Some(Ctnetlink)],
            ),
            (
                &[Need::Bpf, Need::Ctnetlink, Need::EntryCounts],
                Request::Auto,
                [Some(Counters), None, None, Some(Procfs)],
            ),
            (&[], Request::Only(Counters), all(Counters)),
            (
                &[Need::EntryCounts],
                Request::Only(Counters),
                [Some(Counters), None, None, Some(Ctnetlink)],
            ),
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
        assert!(plan_of(&[], Request::Only(Mechanism::Counters)).refused.is_empty());
        let auto = plan_of(&[Need::Bpf, Need::EntryCounts], Request::Auto);
        assert_eq!(
            auto.refusals(),
            [
                "no drops, insertions, removals by fexit, kprobe, tracepoint: no Bpf",
                "no insertions, removals by counters: no EntryCounts"
            ]
        );
        assert_eq!(auto.notes(), auto.refusals(), "something is not measured");
        let fallback = plan_of(&[Need::Fexit, Need::Kprobe], Request::Auto);
        assert_eq!(fallback.notes(), ["not by fexit, kprobe: ctwatch doctor says why"]);
        let mixed = plan_of(&[Need::Fexit, Need::KprobeMisses], Request::Auto);
        assert_eq!(mixed.notes(), ["not by fexit: ctwatch doctor says why"], "drops are by kprobe");
        let late = plan_of(&[Need::KprobeMisses], Request::Only(Mechanism::Kprobe));
        assert!(late.refused.is_empty(), "what was chosen after all was not refused: {late:?}");
    }
}
