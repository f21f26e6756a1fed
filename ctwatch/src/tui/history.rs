//! The last minutes, or a recording, in bounded memory: what is older becomes coarser before it goes.

use std::{collections::VecDeque, time::Duration};

use ctwatch_abi::NetnsId;

use crate::model::{Change, Snapshot, Table, top::TopEntry};

/// One reading that is kept.
pub struct KeptSnapshot {
    /// Counts all readings, also those that are not kept.
    pub number: u64,
    pub snapshot: Box<Snapshot>,
    /// Packets of a judged namespace were dropped since the reading before.
    pub drops: bool,
    bytes: usize,
}

pub struct History {
    kept: VecDeque<KeptSnapshot>,
    next: u64,
    bytes: usize,
    most: HistoryBounds,
    /// Some that were read are not kept.
    is_thinned: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct HistoryBounds {
    pub readings: usize,
    pub bytes: usize,
}

impl History {
    pub fn new(most: HistoryBounds) -> Self {
        Self { kept: VecDeque::new(), next: 0, bytes: 0, most, is_thinned: false }
    }

    pub fn push(&mut self, snapshot: Box<Snapshot>) {
        let bytes = weight(&snapshot);
        let drops = has_drops(&snapshot);
        self.kept.push_back(KeptSnapshot { number: self.next, snapshot, drops, bytes });
        self.next += 1;
        self.bytes += bytes;
        if self.kept.len() > self.most.readings || self.bytes > self.most.bytes {
            self.thin();
        }
    }

    /// Of the older half every second one goes; the first with drops after one without stays.
    fn thin(&mut self) {
        let half = self.kept.len() / 2;
        let mut at = 0;
        let (mut was_dropping, mut keeps) = (false, true);
        self.kept.retain(|kept| {
            let begins = kept.drops && !was_dropping;
            was_dropping = kept.drops;
            keeps = !keeps;
            let stays = at >= half || begins || keeps;
            at += 1;
            stays
        });
        // Nothing but begins of drops is left there.
        while self.kept.len() > self.most.readings.max(2) {
            self.kept.pop_front();
        }
        self.bytes = self.kept.iter().map(|kept| kept.bytes).sum();
        self.is_thinned = true;
    }

    pub fn is_thinned(&self) -> bool {
        self.is_thinned
    }

    pub fn newest(&self) -> Option<&KeptSnapshot> {
        self.kept.back()
    }

    pub fn oldest(&self) -> Option<&KeptSnapshot> {
        self.kept.front()
    }

    /// The last that is not after this number.
    pub fn at(&self, number: u64) -> Option<&KeptSnapshot> {
        let after = self.kept.partition_point(|kept| kept.number <= number);
        self.kept.get(after.saturating_sub(1))
    }

    /// So many readings before or after.
    pub fn step(&self, from: u64, by: isize) -> Option<u64> {
        let at = self.kept.partition_point(|kept| kept.number <= from).saturating_sub(1);
        let last = self.kept.len().checked_sub(1)?;
        let at = at.saturating_add_signed(by).min(last);
        self.kept.get(at).map(|kept| kept.number)
    }

    /// Where drops begin after this reading, or before it.
    pub fn drops_begin(&self, from: u64, forward: bool) -> Option<u64> {
        let mut begins =
            self.kept.iter().zip(std::iter::once(None).chain(self.kept.iter().map(Some)));
        let is_begin = |(kept, before): &(&KeptSnapshot, Option<&KeptSnapshot>)| {
            kept.drops && before.is_none_or(|before| !before.drops)
        };
        match forward {
            true => begins.find(|pair| is_begin(pair) && pair.0.number > from),
            false => begins.filter(|pair| is_begin(pair) && pair.0.number < from).last(),
        }
        .map(|(kept, _)| kept.number)
    }

    /// For windows of time of this width, the last of which holds the reading `until`: what is largest in
    /// each; `None` where nothing was read. A window begins at a multiple of its width. Where one sign shows two
    /// windows, the sign begins at a multiple of both, so a chart does not change before a window is over.
    pub fn series(
        &self,
        until: u64,
        (signs, each): (usize, usize),
        width: Duration,
        value: impl Fn(&Snapshot) -> Option<f64>,
    ) -> Vec<Option<f64>> {
        let windows = signs * each;
        let mut series = vec![None; windows];
        let width = i64::try_from(width.as_millis()).unwrap_or(i64::MAX).max(1);
        let window = |snapshot: &Snapshot| snapshot.time.as_millisecond().div_euclid(width);
        let Some(last) = self.at(until).map(|kept| window(&kept.snapshot)) else { return series };
        let each = i64::try_from(each).unwrap_or(1).max(1);
        let last = last.div_euclid(each) * each + each - 1;
        let end = self.kept.partition_point(|kept| kept.number <= until);
        for kept in self.kept.range(..end).rev() {
            // A clock that was set back: what is after the end is not shown.
            let Ok(back) = usize::try_from(last - window(&kept.snapshot)) else { continue };
            let Some(place) = windows.checked_sub(back + 1) else { break };
            if let Some(value) = value(&kept.snapshot) {
                let most = series[place].map_or(value, |most: f64| most.max(value));
                series[place] = Some(most);
            }
        }
        series
    }

    pub fn all(&self) -> impl Iterator<Item = &KeptSnapshot> {
        self.kept.iter()
    }

    /// The number of each reading with drops, and the whole range.
    pub fn marks(&self) -> impl Iterator<Item = (u64, bool)> {
        self.kept.iter().map(|kept| (kept.number, kept.drops))
    }
}

/// The table of a namespace: those of each kind are in the order of their numbers.
pub fn table(snapshot: &Snapshot, netns: NetnsId) -> Option<&Table> {
    let judged = snapshot.tables.partition_point(|table| table.is_judged);
    let (judged, others) = snapshot.tables.split_at(judged);
    [judged, others].into_iter().find_map(|tables| {
        let at = tables.binary_search_by_key(&netns, |table| table.id).ok()?;
        tables.get(at)
    })
}

fn has_drops(snapshot: &Snapshot) -> bool {
    snapshot.tables.iter().filter(|table| table.is_judged).any(|table| {
        table.dropped.per_s.or(table.drops.table_full.per_s).is_some_and(|per_s| per_s > 0.0)
            || table.change == Some(Change::Saturated)
    })
}

/// About what it adds: a table that was not read anew is shared with the reading before.
fn weight(snapshot: &Snapshot) -> usize {
    let tables = snapshot.tables.iter().map(|table| {
        let lists = || table.top.iter().map(|list| list.entries.len() * size_of::<TopEntry>() + 64);
        let own = if table.age.is_zero() { 1024 + lists().sum::<usize>() } else { 0 };
        size_of::<Table>() + own
    });
    size_of::<Snapshot>() + tables.sum::<usize>() + snapshot.departed.len() * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::situations::{Situation, table as sample};

    fn snapshot(second: i64, drops: u32) -> Box<Snapshot> {
        let tables = |drops| vec![sample(1, "rt", 100, drops)];
        let mut snapshot = Situation::of(tables(0), tables(drops)).snapshot();
        snapshot.time = jiff::Timestamp::from_second(1_800_000_000 + second).unwrap();
        Box::new(snapshot)
    }

    fn history(most: HistoryBounds, seconds: i64) -> History {
        let mut history = History::new(most);
        for second in 0..seconds {
            history.push(snapshot(second, if second % 100 >= 90 { 10 } else { 0 }));
        }
        history
    }

    const ENOUGH: HistoryBounds = HistoryBounds { readings: 1000, bytes: usize::MAX };

    #[test]
    fn drops_are_jumped_to() {
        let history = history(ENOUGH, 300);
        assert_eq!(history.drops_begin(0, true), Some(90));
        assert_eq!(history.drops_begin(90, true), Some(190));
        assert_eq!(history.drops_begin(290, true), None);
        assert_eq!(history.drops_begin(290, false), Some(190));
        assert_eq!(history.drops_begin(50, false), None);
        assert_eq!((history.step(5, -10), history.step(295, 10)), (Some(0), Some(299)));
    }

    #[test]
    fn what_is_older_becomes_coarser_and_keeps_its_drops() {
        let one = weight(&snapshot(0, 0));
        let most = HistoryBounds { readings: 1000, bytes: one * 50 };
        let mut history = history(most, 1000);
        assert!(history.is_thinned() && history.bytes <= most.bytes, "{}", history.bytes);
        assert!(history.kept.len() <= 50 && history.kept.len() > 20, "{}", history.kept.len());
        assert_eq!(history.newest().unwrap().number, 999);
        // Some of the first half are left.
        assert!(history.oldest().unwrap().number < 500);
        let begins = history.marks().filter(|(number, _)| number % 100 == 90).count();
        assert!(begins > 5, "{begins}");
        history.push(snapshot(1000, 0));
        assert_eq!(history.at(u64::MAX).unwrap().number, 1000);
    }

    #[test]
    fn a_chart_has_gaps_where_nothing_was_read() {
        let mut history = History::new(ENOUGH);
        for second in [0, 1, 2, 10, 11, 14] {
            history.push(snapshot(second, 0));
        }
        let width = Duration::from_secs(5);
        let entries = |snapshot: &Snapshot| table(snapshot, 1)?.entries.map(f64::from);
        let series = history.series(5, (4, 1), width, entries);
        assert_eq!(series, [None, Some(100.0), None, Some(100.0)]);
        assert_eq!(history.series(2, (2, 1), width, entries), [None, Some(100.0)]);
        assert_eq!(history.series(2, (2, 1), width, |_| None), [None, None]);
        // Two to a sign: the third window is the left half of the last sign.
        let series = history.series(5, (2, 2), width, entries);
        assert_eq!(series, [Some(100.0), None, Some(100.0), None]);
    }
}
