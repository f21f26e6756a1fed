//! What is carried from one reading of a namespace to the next.

use ctwatch_abi::Count;

use super::{
    counters::{Counters, Counts},
    evidence::{Dropped, Reasons, Refused, Seen, Testimony},
    figure::Bounds,
};
use crate::record::{
    counters::CounterSums,
    sample::{Access, Counted, HookReadings, Misses, Sample, TableSample},
};

/// What is known about the machine as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    /// In this interval, at most so many entries were refused for lack of memory; `None`: not
    /// watched.
    pub(super) no_memory: Option<u64>,
    /// In some namespace the kernel was seen to count insertions and removals.
    pub(super) counts_entries: bool,
    pub(super) counted: Counted,
    /// Since the start: events that the probes may not have seen, or did not place.
    pub(super) missed: Misses,
}

impl Machine {
    /// As it is for the namespaces of unprivileged users: what there was no room for may be any of
    /// theirs.
    pub(super) fn of_strangers(&self, sample: &Sample) -> Self {
        let rest = sample.probed.unwrap_or_default().strangers_rest;
        let plus =
            |missed: Option<u64>, more: u64| missed.map(|missed| missed.saturating_add(more));
        let of = |counts: &[Count]| counts.iter().map(|count| rest.get(*count)).sum::<u64>();
        use Count::{
            Clash, DroppedUnconfirmed, DroppedUntracked, Inserted, NatExhausted, TableFull,
            TableFullCtnetlink,
        };
        Self {
            missed: Misses {
                drops: plus(self.missed.drops, of(&[DroppedUntracked, DroppedUnconfirmed])),
                refusals: plus(self.missed.refusals, of(&[TableFull, TableFullCtnetlink])),
                clashes: plus(self.missed.clashes, of(&[Clash, NatExhausted])),
                insertions: plus(self.missed.insertions, of(&[Inserted])),
                ends: plus(self.missed.ends, rest.ended()),
                ..self.missed
            },
            ..*self
        }
    }
}

/// Refusals at the door that something else may account for: something that is also counted on
/// its own, just before the refusal is.
#[derive(Clone, Copy, Debug, Default)]
struct Suspects {
    at_most: u64,
    before: u64,
}

impl Suspects {
    /// In an interval with so many refusals, it happened so often. A reading may fall between the
    /// two counts, so what happened in the interval before may account for refusals of this one.
    fn enter(&mut self, refused: u64, happened: u64) {
        self.at_most += refused.min(happened.saturating_add(self.before));
        self.before = happened;
    }
}

/// The totals of one namespace, as intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunningTotals {
    pub(super) insertions: Bounds,
    pub(super) removals: Bounds,
    pub(super) reasons: Reasons,
    /// Entries asked for by ctnetlink and refused because the table is full.
    pub(super) refused_ctnetlink: Bounds,
    /// Drops that conntrack's counters counted and the probes did not see.
    pub(super) unseen: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Ledger {
    /// The namespace was made after ctwatch started: everything in it counts.
    new: bool,
    /// Counting by counters began when it should have, not at a later first reading.
    from_start: bool,
    counters: Option<Counters>,
    /// Refusals that may have been a protocol tracker's verdict: those bump `invalid` too.
    tracker: Suspects,
    no_memory: Suspects,
    /// Of the refusals since somebody last asked, those that nothing else accounts for, as far as the
    /// counters were read each time.
    certain_now: u64,
    /// The counters were read the last time too.
    was_read: bool,
    base_hooks: Option<HookReadings>,
    base_entries: Option<u32>,
    /// At the last look inside: entries, and how many had ended by then.
    last_seen: Option<(u32, u64)>,
    /// RunningTotals never go back, though one reading is not all of one moment.
    insertions: u64,
}

impl Ledger {
    /// Counting begins here, or began with the namespace itself where that is `new`.
    pub(super) fn open(sample: &TableSample, new: bool, machine: &Machine) -> Self {
        let mut ledger = Self {
            new,
            from_start: new || sample.counters.is_some(),
            counters: None,
            tracker: Suspects::default(),
            no_memory: Suspects::default(),
            certain_now: 0,
            was_read: false,
            base_hooks: sample.hooks.map(|hooks| if new { HookReadings::default() } else { hooks }),
            base_entries: if new { Some(0) } else { sample.entries },
            last_seen: None,
            insertions: 0,
        };
        ledger.enter(sample, machine);
        ledger
    }

    /// Takes in the next reading.
    pub(super) fn enter(&mut self, sample: &TableSample, machine: &Machine) {
        let before = self.counts();
        if let Some(sums) = sample.counters {
            match &mut self.counters {
                // What is counted is a lower bound from now on.
                Some(counters) => self.from_start &= counters.advance(sums),
                none if self.new => *none = Some(Counters::from_zero(sums)),
                none => *none = Some(Counters::from(sums)),
            }
        }
        let now = self.counts();
        let refused = now.refused_at_door().saturating_sub(before.refused_at_door());
        let suspected = self.suspected();
        self.tracker.enter(refused, now.invalid - before.invalid);
        self.no_memory.enter(refused, machine.no_memory.unwrap_or(u64::MAX));
        let suspected = self.suspected().saturating_sub(suspected);
        // After a reading without counters, these are of more than one interval.
        let is_of_interval = self.was_read && sample.counters.is_some();
        self.certain_now += if is_of_interval { refused.saturating_sub(suspected) } else { 0 };
        self.was_read = sample.counters.is_some();
        if let (Some(entries), Some(hooks)) = (sample.entries, sample.hooks) {
            self.last_seen = Some((entries, hooks.before.removed()));
        }
    }

    fn suspected(&self) -> u64 {
        self.tracker.at_most.saturating_add(self.no_memory.at_most)
    }

    /// Packets that were certainly refused for a full table since this was last asked, whatever is in
    /// doubt of those before.
    pub(super) fn take_certain_now(&mut self) -> u64 {
        std::mem::take(&mut self.certain_now)
    }

    /// What it all adds up to.
    pub(super) fn totals(&mut self, sample: &TableSample, machine: &Machine) -> RunningTotals {
        let counts = self.counters.as_ref().map(Counters::counts);
        let dropped = self.dropped(sample, machine);
        let refused = self.refused(sample, machine);
        let missed_drops = machine.missed.drops.unwrap_or(u64::MAX);
        let evidence = Testimony {
            counts,
            complete: self.from_start && sample.counters.is_some(),
            tracker: self.tracker.at_most,
            no_memory: self.no_memory.at_most,
            dropped: dropped.map(|dropped| dropped.or_missed(missed_drops)),
            refused,
            // In a task, and in a softirq on top of it.
            in_flight: 2 * sample.counters.map_or(0, |sums| sums.cpus.into()),
        };
        let reasons = evidence.reasons();
        let at_door = counts.map_or(0, |counts| counts.refused_at_door());
        let at_confirm = counts.map_or(0, |counts| counts.refused_at_confirm());
        let unseen = match (dropped, refused) {
            (Some(dropped), _) => {
                at_door.saturating_sub(dropped.untracked)
                    + at_confirm.saturating_sub(dropped.unconfirmed)
            }
            (None, Some(refused)) => {
                let full = at_door.saturating_sub(self.suspected());
                let confirm = refused
                    .confirm
                    .map_or(0, |(clash, nat)| at_confirm.saturating_sub(clash.most + nat.most));
                full.saturating_sub(refused.table_full.most) + confirm
            }
            (None, None) => 0,
        };
        let counts = self.counts();
        let removals = self
            .removals(sample, machine)
            .map(|(_, most)| at_most_more(most, machine.missed.ends))
            .or_else(|| self.counted(sample, machine, counts.delete_list));
        let insertions = self
            .insertions(sample, machine)
            .or_else(|| self.counted(sample, machine, counts.insert));
        RunningTotals {
            insertions: Bounds::or_unmeasured(insertions),
            removals: Bounds::or_unmeasured(removals),
            reasons,
            refused_ctnetlink: Bounds::or_unmeasured(
                self.seen(sample, Count::TableFullCtnetlink, machine.missed.refusals)
                    .filter(|_| machine.counted.refusals)
                    .map(|seen| at_most_more(seen.most, seen.missed)),
            ),
            unseen,
        }
    }

    /// By the kernel's own counters of entries, once they were seen to be kept. Where they are not
    /// what is there now, something is missing from them, or is on its way in or out just now.
    fn counted(&self, sample: &TableSample, machine: &Machine, count: u64) -> Option<Bounds> {
        let there = sample.counters.as_ref().and_then(CounterSums::inserted_less_removed);
        let is_whole = self.from_start && there.is_some() && there == sample.entries;
        (machine.counts_entries && self.counters.is_some()).then(|| match is_whole {
            true => Bounds::exactly(count),
            false => Bounds::at_least(count),
        })
    }

    fn counts(&self) -> Counts {
        self.counters.as_ref().map_or(Counts::default(), Counters::counts)
    }

    /// From just before the first reading to just after this one: not fewer than the counters can
    /// have counted in between.
    fn dropped(&self, sample: &TableSample, machine: &Machine) -> Option<Dropped> {
        let since = |count| self.seen(sample, count, None).map(|seen| seen.most);
        machine.counted.drops.then_some(())?;
        Some(Dropped {
            untracked: since(Count::DroppedUntracked)?,
            unconfirmed: since(Count::DroppedUnconfirmed)?,
            unconfirmed_nat: since(Count::DroppedUnconfirmedNat)?,
        })
    }

    fn refused(&self, sample: &TableSample, machine: &Machine) -> Option<Refused> {
        let Machine { counted, missed, .. } = machine;
        counted.refusals.then_some(())?;
        let clashes = |count| self.seen(sample, count, missed.clashes);
        Some(Refused {
            table_full: self.seen(sample, Count::TableFull, missed.refusals)?,
            or_no_memory: self.seen(sample, Count::FullOrNoMemory, None)?.most,
            confirm: clashes(Count::Clash)
                .zip(clashes(Count::NatExhausted))
                .filter(|_| counted.clashes),
        })
    }

    /// From the first reading to this one; each is two, just before and just after the namespace
    /// itself was read.
    fn seen(&self, sample: &TableSample, count: Count, missed: Option<u64>) -> Option<Seen> {
        let (base, now) = (self.base_hooks?, sample.hooks?);
        Some(Seen {
            least: now.before.get(count).saturating_sub(base.after.get(count)),
            most: now.after.get(count).saturating_sub(base.before.get(count)),
            missed,
        })
    }

    /// Entries that ended since the number of entries was first read; that moment is somewhere
    /// within the first reading, so: at least, at most.
    fn removals(&self, sample: &TableSample, machine: &Machine) -> Option<(u64, u64)> {
        machine.counted.ends.then_some(())?;
        let (base, now) = (self.base_hooks?, sample.hooks?);
        let now = now.before.removed();
        Some((now.saturating_sub(base.after.removed()), now.saturating_sub(base.before.removed())))
    }

    /// As the hook on the function counted them, but for losers of a clash that were let in, which
    /// do not pass it; at most all that were resolved are such.
    ///
    /// Without that hook: what is in the table now and was not at the start, and what ended
    /// meanwhile, was inserted. An entry whose first packet is still on its way counts at once.
    fn insertions(&mut self, sample: &TableSample, machine: &Machine) -> Option<Bounds> {
        if machine.counted.insertions {
            let seen = self.seen(sample, Count::Inserted, machine.missed.insertions)?;
            let resolved = self.counts().clash_resolve;
            return Some(at_most_more(seen.most, seen.missed.map(|missed| missed + resolved)));
        }
        let (least, most) = self.removals(sample, machine)?;
        let base = u64::from(self.base_entries?);
        let entries = match sample.entries {
            Some(entries) => Some(u64::from(entries)),
            None if self.is_emptied(sample) => Some(0),
            None => None,
        };
        let known = entries.unwrap_or(0);
        let least = (known + least).saturating_sub(base);
        // The total never goes back; an entry that it counted too early, and that a rule has kept
        // out since, is a margin.
        self.insertions = self.insertions.max(least);
        Some(match (entries, machine.missed.ends) {
            (Some(entries), Some(missed)) => {
                let most = (entries + most + missed).saturating_sub(base);
                Bounds::between(least, most.max(self.insertions))
            }
            _ => Bounds::at_least(self.insertions),
        })
    }

    /// It was looked into, and is no more: it was not only hidden all the time.
    pub(super) fn is_taken_down(&self, sample: &TableSample) -> bool {
        self.last_seen.is_some() && self.is_emptied(sample)
    }

    /// Nothing leads into the namespace any more, and everything that was last seen in it has
    /// ended: it was taken down, and its table with it.
    fn is_emptied(&self, sample: &TableSample) -> bool {
        let (Some(hooks), Access::Unseen) = (sample.hooks, sample.access) else { return false };
        let (entries, ended) = self.last_seen.unwrap_or((0, 0));
        hooks.after.removed().saturating_sub(ended) >= u64::from(entries)
    }
}

/// What was counted, and so many more that may not have been.
fn at_most_more(count: u64, missed: Option<u64>) -> Bounds {
    match missed {
        Some(missed) => Bounds::between(count, count.saturating_add(missed)),
        None => Bounds::at_least(count),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ctwatch_abi::NetnsTally;

    use super::*;
    use crate::record::{
        counters::{CpuCounters, Summing},
        sample::Owner,
    };

    fn tally(untracked: u64, removed: u64) -> NetnsTally {
        let mut tally = NetnsTally::new(1, 1);
        (0..untracked).for_each(|_| tally.bump(Count::DroppedUntracked));
        (0..removed).for_each(|_| tally.bump(Count::Removed));
        tally
    }

    fn sample(entries: u32, drop: u32, invalid: u32, hooks: (u64, u64)) -> TableSample {
        let tally = tally(hooks.0, hooks.1);
        TableSample {
            workload: Default::default(),
            id: 1,
            inode: 1,
            name: None,
            owner: Owner::Host,
            is_judged: true,
            access: Access::Entered,
            entries: Some(entries),
            counters: Some(CounterSums::of(&[CpuCounters { drop, invalid, ..Default::default() }])),
            unread: None,
            hooks: Some(HookReadings { before: tally, after: tally }),
            interfaces: Vec::new(),
        }
    }

    fn gone(hooks: (u64, u64)) -> TableSample {
        TableSample {
            access: Access::Unseen,
            entries: None,
            counters: None,
            ..sample(0, 0, 0, hooks)
        }
    }

    /// A quiet machine, its programs on tracepoints.
    fn quiet() -> Machine {
        let counted = Counted { drops: true, ends: true, ..Counted::default() };
        Machine { no_memory: Some(0), counted, ..Machine::default() }
    }

    /// The same with programs on functions.
    fn hooked() -> Machine {
        let counted = Counted {
            refusals: true,
            clashes: true,
            insertions: true,
            ends: true,
            ..Counted::default()
        };
        Machine { counted, ..quiet() }
    }

    fn run(new: bool, samples: &[TableSample]) -> RunningTotals {
        run_on(&quiet(), new, samples)
    }

    fn run_on(machine: &Machine, new: bool, samples: &[TableSample]) -> RunningTotals {
        let mut ledger = Ledger::open(&samples[0], new, machine);
        let mut totals = ledger.totals(&samples[0], machine);
        for sample in &samples[1..] {
            ledger.enter(sample, machine);
            totals = ledger.totals(sample, machine);
        }
        totals
    }

    fn hooks(counts: &[(Count, u64)]) -> HookReadings {
        let mut tally = NetnsTally::new(1, 1);
        for (count, times) in counts {
            (0..*times).for_each(|_| tally.bump(*count));
        }
        HookReadings { before: tally, after: tally }
    }

    #[test]
    fn hooks_on_functions_count_insertions_and_refusals_themselves() {
        let mut now = sample(30, 57, 0, (0, 0));
        now.hooks = Some(hooks(&[
            (Count::Inserted, 40),
            (Count::Removed, 10),
            (Count::TableFull, 57),
            (Count::TableFullCtnetlink, 5),
        ]));
        let totals = run_on(&hooked(), false, &[sample(0, 0, 0, (0, 0)), now.clone()]);
        assert_eq!(totals.insertions, Bounds::exactly(40));
        assert_eq!(totals.removals, Bounds::exactly(10));
        assert_eq!(totals.reasons.table_full, Bounds::exactly(57));
        assert_eq!(totals.refused_ctnetlink, Bounds::exactly(5));
        assert_eq!(totals.unseen, 0);
    }

    #[test]
    fn what_hooks_may_have_missed_widens_and_what_nobody_knows_is_no_upper_bound() {
        let mut now = sample(30, 57, 0, (0, 0));
        now.hooks = Some(hooks(&[(Count::Inserted, 40), (Count::TableFull, 50)]));
        let samples = [sample(0, 0, 0, (0, 0)), now];
        let mut machine = hooked();
        machine.missed.insertions = Some(3);
        machine.missed.refusals = Some(9);
        let totals = run_on(&machine, false, &samples);
        assert_eq!(totals.insertions, Bounds::between(40, 43));
        assert_eq!(totals.reasons.table_full, Bounds::exactly(57), "the counters saw all");
        assert_eq!(totals.unseen, 7);
        machine.missed.insertions = None;
        machine.missed.ends = None;
        let totals = run_on(&machine, false, &samples);
        assert_eq!(totals.insertions, Bounds::at_least(40));
        assert_eq!(totals.removals, Bounds::at_least(0));
    }

    #[test]
    fn totals_count_from_the_start_of_ctwatch() {
        let totals = run(false, &[sample(50, 7, 0, (7, 20)), sample(80, 17, 0, (17, 25))]);
        assert_eq!(totals.insertions, Bounds::exactly(35));
        assert_eq!(totals.removals, Bounds::exactly(5));
        assert_eq!(totals.reasons.table_full, Bounds::exactly(10));
    }

    #[test]
    fn an_old_doubt_is_none_about_what_is_certain_now() {
        let short = |no_memory| Machine { no_memory: Some(no_memory), ..quiet() };
        let mut ledger = Ledger::open(&sample(50, 0, 0, (0, 0)), false, &quiet());
        let mut enter = |drop, no_memory| {
            ledger.enter(&sample(50, drop, 0, (drop.into(), 0)), &short(no_memory));
            ledger.take_certain_now()
        };
        assert_eq!(enter(10, 4), 6, "four may be for want of memory");
        assert_eq!(enter(30, 0), 16, "or those four are counted only now");
        assert_eq!(enter(60, 0), 30);
        ledger.enter(&gone((60, 0)), &quiet());
        ledger.enter(&sample(50, 90, 0, (90, 0)), &quiet());
        assert_eq!(ledger.take_certain_now(), 0, "of two intervals, nobody knows which");
    }

    #[test]
    fn a_namespace_made_meanwhile_counts_from_its_own_beginning() {
        let totals = run(true, &[sample(200, 1783, 0, (1783, 17))]);
        assert_eq!(totals.insertions, Bounds::exactly(217));
        assert_eq!(totals.reasons.table_full, Bounds::exactly(1783));
    }

    #[test]
    fn a_namespace_taken_down_after_it_was_read_stays_exact() {
        let totals = run(true, &[sample(200, 1783, 0, (1783, 17)), gone((1783, 217))]);
        assert_eq!(totals.insertions, Bounds::exactly(217));
        assert_eq!(totals.removals, Bounds::exactly(217));
        assert_eq!(totals.reasons.table_full, Bounds::exactly(1783));
    }

    #[test]
    fn a_namespace_out_of_reach_that_still_holds_entries_claims_no_exact_number() {
        let totals = run(true, &[sample(200, 0, 0, (0, 17)), gone((0, 100))]);
        assert_eq!(totals.insertions, Bounds::at_least(217));
    }

    #[test]
    fn a_namespace_that_was_never_entered_is_known_from_the_probes() {
        let totals = run(true, &[gone((1783, 217))]);
        assert_eq!(totals.insertions, Bounds::exactly(217));
        assert_eq!(totals.reasons.table_full, Bounds::between(0, 1783));
    }

    #[test]
    fn only_drops_beside_an_invalid_packet_may_be_the_trackers() {
        let totals = run(
            false,
            &[
                sample(0, 0, 0, (0, 0)),
                sample(200, 100, 0, (100, 0)),
                sample(200, 150, 5, (150, 0)),
                // Still within reach of the five: a reading can fall between the two counters.
                sample(200, 160, 5, (160, 0)),
                sample(200, 200, 5, (200, 0)),
            ],
        );
        assert_eq!(totals.reasons.table_full, Bounds::between(190, 200));
    }

    #[test]
    fn doubt_about_the_first_moment_stays_in_the_interval() {
        let mut first = sample(100, 0, 0, (0, 0));
        first.hooks = Some(HookReadings { before: tally(0, 10), after: tally(0, 13) });
        let totals = run(false, &[first, sample(100, 0, 0, (0, 20))]);
        assert_eq!(totals.insertions, Bounds::between(7, 10));
    }

    fn counted(entries: u32, insert: u32, delete_list: Option<u32>) -> TableSample {
        let cpus = [CpuCounters { insert, delete_list, ..Default::default() }];
        let counters = Some(CounterSums::of(&cpus));
        TableSample { counters, hooks: None, ..sample(entries, 0, 0, (0, 0)) }
    }

    #[test]
    fn counters_of_entries_count_once_they_are_believed() {
        let believed = Machine { counts_entries: true, ..Machine::default() };
        let first = counted(0x20, 0xffff_fff0, Some(0xffff_ffd0));
        // The first wraps around meanwhile.
        let mut summing = Summing::default();
        let mut sums = |insert, delete_list| {
            let cpus =
                [CpuCounters { insert, delete_list: Some(delete_list), ..Default::default() }];
            Some(summing.take(&cpus, Duration::ZERO))
        };
        sums(0xffff_fff0, 0xffff_ffd0);
        let samples =
            [first, TableSample { counters: sums(0x22, 0xffff_fff0), ..counted(0x32, 0, None) }];
        let totals = run_on(&believed, false, &samples);
        assert_eq!(totals.insertions, Bounds::exactly(0x32));
        assert_eq!(totals.removals, Bounds::exactly(0x20));
        let totals = run_on(&Machine::default(), false, &samples);
        assert_eq!((totals.insertions, totals.removals), (Bounds::Unmeasured, Bounds::Unmeasured));
    }

    #[test]
    fn counters_of_entries_are_marked_where_they_are_off() {
        let believed = Machine { counts_entries: true, ..Machine::default() };
        let start = counted(0, 10, Some(10));
        // An entry whose first packet is still on its way, and none in the next reading.
        let off = [start.clone(), counted(6, 20, Some(15))];
        assert_eq!(run_on(&believed, false, &off).insertions, Bounds::at_least(10));
        let again = [&off[..], &[counted(5, 20, Some(15))]].concat();
        assert_eq!(run_on(&believed, false, &again).insertions, Bounds::exactly(10));
        let gone = [&again[..], &[gone((0, 0))]].concat();
        assert_eq!(run_on(&believed, false, &gone).removals, Bounds::at_least(5));
    }

    #[test]
    fn counters_with_a_gap_claim_no_exact_number() {
        let mut now = sample(0, 10, 0, (10, 0));
        assert_eq!(
            run(false, &[sample(0, 0, 0, (0, 0)), now.clone()]).reasons.dropped,
            Bounds::exactly(10)
        );
        now.counters = now.counters.map(|sums| CounterSums { gaps: 1, ..sums });
        assert_eq!(
            run(false, &[sample(0, 0, 0, (0, 0)), now]).reasons.dropped,
            Bounds::at_least(10)
        );
    }

    #[test]
    fn totals_never_go_back() {
        // The second reading caught two entries that a rule then dropped: never inserted.
        let totals = run(
            false,
            &[sample(0, 0, 0, (0, 0)), sample(12, 0, 0, (0, 0)), sample(10, 0, 0, (0, 0))],
        );
        assert_eq!(totals.insertions, Bounds::between(10, 12));
    }
}
