//! Whether monitoring has to wake somebody: thresholds against a snapshot. Pure.

use std::{borrow::Cow, cmp::Reverse};

use super::{
    Snapshot, Table,
    census::TORN,
    figure::Exactness,
    remembered::{Remembering, Since},
};
use crate::record::sample::{Access, Owner};

/// In the words and numbers of monitoring plugins.
/// <https://www.monitoring-plugins.org/doc/guidelines.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// What is certainly wrong comes before what could not be looked at.
    fn rank(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }
}

/// Limits of one severity; `None`: never.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// From so many percent of the limit on.
    pub fill: Option<f64>,
    /// The same for entries that make no room for others.
    pub pinned: Option<f64>,
    /// More packets than that dropped by conntrack in a second.
    pub drops: Option<f64>,
    /// Less than so many seconds until the table is full.
    pub full: Option<f64>,
    /// More packets than that dropped since the last call.
    pub dropped: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    pub warning: Limits,
    pub critical: Limits,
}

/// One limit, of a warning and critical alike.
struct Limit {
    name: &'static str,
    unit: &'static str,
    of: fn(&mut Limits) -> &mut Option<f64>,
    less_is_worse: bool,
}

const fn limit(
    name: &'static str,
    unit: &'static str,
    of: fn(&mut Limits) -> &mut Option<f64>,
) -> Limit {
    Limit { name, unit, of, less_is_worse: false }
}

const LIMITS: [Limit; 5] = [
    limit("fill", "%", |limits| &mut limits.fill),
    limit("pinned", "%", |limits| &mut limits.pinned),
    limit("drops", " a second", |limits| &mut limits.drops),
    limit("dropped", "", |limits| &mut limits.dropped),
    Limit { less_is_worse: true, ..limit("full", " s", |limits| &mut limits.full) },
];

impl Limit {
    /// A warning that would never come, because it is critical before: both values.
    fn contradiction(&self, mut thresholds: Thresholds) -> Option<(f64, f64)> {
        let warning = (*(self.of)(&mut thresholds.warning))?;
        let critical = (*(self.of)(&mut thresholds.critical))?;
        let is_beyond = if self.less_is_worse { warning < critical } else { warning > critical };
        is_beyond.then_some((warning, critical))
    }
}

impl Thresholds {
    /// Where neither is given.
    pub const DEFAULT: Self = {
        let none = Limits { fill: None, pinned: None, drops: None, full: None, dropped: None };
        Self {
            warning: Limits { fill: Some(80.0), drops: Some(0.0), ..none },
            critical: Limits { fill: Some(95.0), drops: Some(1.0), ..none },
        }
    };

    /// Limits that were given, or else the defaults, without what of these contradicts what was given:
    /// `critical=50%` alone is no mistake of whoever says it, and neither is `warning=98%`.
    pub fn given(warning: Option<Limits>, critical: Option<Limits>) -> Self {
        let mut thresholds = Self {
            warning: warning.unwrap_or(Self::DEFAULT.warning),
            critical: critical.unwrap_or(Self::DEFAULT.critical),
        };
        for limit in LIMITS {
            if limit.contradiction(thresholds).is_none() {
                continue;
            }
            match (warning, critical) {
                (None, _) => *(limit.of)(&mut thresholds.warning) = None,
                (_, None) => *(limit.of)(&mut thresholds.critical) = None,
                (Some(_), Some(_)) => {}
            }
        }
        thresholds
    }

    /// A warning that nobody would ever see: it is critical before.
    pub fn contradiction(&self) -> Option<String> {
        let found = |limit: &Limit| Some((limit.name, limit.unit, limit.contradiction(*self)?));
        LIMITS.iter().find_map(found).map(|(name, unit, (warning, critical))| {
            format!(
                "{name}: the warning at {warning}{unit} is beyond the critical at \
                 {critical}{unit}, so it would never come (-w and -c set them)"
            )
        })
    }
}

/// What has limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// In entries.
    Fill,
    /// In entries.
    Pinned,
    /// In packets a second.
    Drops,
    /// In seconds.
    Full,
    /// In packets since the last call.
    Dropped,
}

/// One figure of one table against its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub what: What,
    pub state: State,
    /// `None` where it could not be measured, and for the time to full also where the table does
    /// not fill.
    pub value: Option<f64>,
    /// The last value that is still good, as far as that is known.
    pub warning: Option<f64>,
    pub critical: Option<f64>,
    /// Why it could not be measured, where it should have been.
    pub why: Option<String>,
}

/// One table.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedTable {
    pub inode: u32,
    pub name: Option<String>,
    pub entries: Option<u32>,
    /// 0: no limit.
    pub limit: Option<u32>,
    /// While it was watched.
    pub dropped: Option<u64>,
    pub figures: Vec<Judged>,
}

/// What it comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The worst of all.
    pub state: State,
    pub watched_s: f64,
    /// Since the last call, where that is known.
    pub since_s: Option<i64>,
    /// The worst first, then the fullest.
    pub tables: Vec<JudgedTable>,
    /// Namespaces that were looked into, also those in which nothing is tracked.
    pub namespaces: usize,
    /// And those that could not be entered.
    pub unentered: usize,
    /// Those of unprivileged users, which decide nothing.
    pub others: usize,
    /// Those that were judged and whose owner is unknown, and why the first is.
    pub unowned: Option<(usize, String)>,
}

impl JudgedTable {
    /// The worst of its figures.
    pub fn state(&self) -> State {
        worst(self.figures.iter().map(|judged| judged.state))
    }
}

fn worst(states: impl Iterator<Item = State>) -> State {
    states.max_by_key(|state| state.rank()).unwrap_or(State::Ok)
}

/// Judges what happened since the snapshot before this one. `uncounted`: why there is no census;
/// `since`: what was dropped since the last call, where that was asked for.
pub fn judge(
    snapshot: &Snapshot,
    uncounted: Option<&str>,
    since: Option<&Remembering>,
    thresholds: &Thresholds,
) -> Verdict {
    let there = snapshot.tables.iter().filter(|table| table.access != Access::Unseen);
    let (there, others): (Vec<&Table>, Vec<&Table>) = there.partition(|table| table.is_judged);
    // The only one is shown also while it is empty: it may be the one that was asked for.
    // It may have been emptied since.
    let has_dropped = |table: &Table| {
        let of_it = since.and_then(|since| since.of.get(&table.id));
        of_it.is_some_and(|of_it| !matches!(of_it, Since::Began | Since::Counted(0)))
    };
    let wanted = |table: &&&Table| {
        there.len() == 1 || table.is_tracking() || table.entries.is_none() || has_dropped(table)
    };
    let mut tables: Vec<JudgedTable> = there
        .iter()
        .filter(wanted)
        .map(|table| Looked { snapshot, table, uncounted, since }.judge(thresholds))
        .collect();
    tables.sort_by_key(|table| Reverse((table.state().rank(), table.entries)));
    let state = match there.as_slice() {
        // A namespace that is gone is no namespace in which all is well.
        [] => State::Unknown,
        _ => worst(tables.iter().map(JudgedTable::state)),
    };
    let watched_s = snapshot.interval.as_secs_f64();
    let since_s = since.and_then(|since| since.seconds);
    let namespaces = there.iter().filter(|table| table.access == Access::Entered).count();
    let unentered = there.len() - namespaces;
    let (others, unowned) = (others.len(), unowned(&there));
    Verdict { state, watched_s, since_s, tables, namespaces, unentered, others, unowned }
}

fn unowned(judged: &[&Table]) -> Option<(usize, String)> {
    let why = |table: &&Table| match &table.owner {
        Owner::Unknown(why) => Some(why.clone()),
        Owner::Host | Owner::User(_) => None,
    };
    let mut unowned = judged.iter().filter_map(why);
    let first = unowned.next()?;
    Some((1 + unowned.count(), first))
}

/// One table, and what else is known of it.
struct Looked<'a> {
    snapshot: &'a Snapshot,
    table: &'a Table,
    uncounted: Option<&'a str>,
    since: Option<&'a Remembering>,
}

/// A value, or why there is none.
type Measured = Result<f64, String>;

const BEGAN: &str = "counting begins with this call";
const NO_LIMIT: &str = "nf_conntrack_max cannot be read";

impl Looked<'_> {
    fn judge(&self, thresholds: &Thresholds) -> JudgedTable {
        let Thresholds { warning, critical } = thresholds;
        let mut figures = vec![
            self.share(What::Fill, self.fill(), [warning.fill, critical.fill]),
            self.drops([warning.drops, critical.drops]),
        ];
        // The others cost something, or are noise where nobody asked.
        if warning.pinned.or(critical.pinned).is_some() {
            let percents = [warning.pinned, critical.pinned];
            figures.push(self.share(What::Pinned, self.pinned(), percents));
        }
        if warning.full.or(critical.full).is_some() {
            figures.push(self.full([warning.full, critical.full]));
        }
        if let Some(since) = self.since {
            figures.push(self.dropped(since, [warning.dropped, critical.dropped]));
        }
        JudgedTable {
            inode: self.table.inode,
            name: self.table.workload.shown(self.table.name.as_deref()).map(Cow::into_owned),
            entries: self.table.entries,
            limit: self.table.limit,
            dropped: self.table.dropped.total,
            figures,
        }
    }

    /// Entries, where the limits are shares of how many there may be.
    fn share(&self, what: What, entries: Measured, percents: [Option<f64>; 2]) -> Judged {
        let limit = self.table.limit;
        // Nothing comes near a limit that is not there.
        let asked = limit != Some(0) && percents.iter().any(Option::is_some);
        let limits = percents.map(|percent| self.last_below(percent?));
        match entries {
            // What cannot be compared is shown all the same.
            Ok(entries) if asked && limit.is_none() => {
                Judged { value: Some(entries), ..judged(what, Err(NO_LIMIT.into()), limits, asked) }
            }
            entries => judged(what, entries, limits, asked),
        }
    }

    /// The most entries that are less than so many percent of the limit.
    fn last_below(&self, percent: f64) -> Option<f64> {
        let limit = self.table.limit.filter(|limit| *limit > 0)?;
        // Decimal fractions are not what they seem: 82.3% of 1,000 is 823, and a hair.
        Some((percent * f64::from(limit) / 100.0 - 1e-6).ceil() - 1.0)
    }

    fn unread(&self, what: &str) -> String {
        self.table.unread.clone().unwrap_or_else(|| format!("{what} could not be read"))
    }

    fn fill(&self) -> Measured {
        self.table.entries.map(f64::from).ok_or_else(|| self.unread("the number of entries"))
    }

    fn drops(&self, limits: [Option<f64>; 2]) -> Judged {
        let dropped = &self.table.dropped;
        // Counters that were not read to the end may hide anything.
        let complete = dropped.per_s.filter(|_| dropped.exactness == Exactness::Exact);
        let per_s = complete.ok_or_else(|| self.unread("the counters"));
        judged(What::Drops, per_s, limits, limits.iter().any(Option::is_some))
    }

    fn dropped(&self, since: &Remembering, limits: [Option<f64>; 2]) -> Judged {
        let asked = limits.iter().any(Option::is_some);
        let of = |value| judged(What::Dropped, value, limits, asked);
        match since.of.get(&self.table.id) {
            None => of(Err("it was not there at the last reading".to_owned())),
            Some(Since::Unknown(why)) => of(Err(why.clone())),
            // Nothing to compare with is no fault.
            Some(Since::Began) => Judged { state: State::Ok, ..of(Err(BEGAN.to_owned())) },
            Some(Since::Counted(packets)) => of(Ok(*packets as f64)),
            // That is too many already, or it is not known.
            Some(Since::AtLeast(packets, why)) => match of(Ok(*packets as f64)) {
                enough if enough.state != State::Ok => enough,
                _ => of(Err(why.clone())),
            },
        }
    }

    fn pinned(&self) -> Measured {
        if let Some(why) = self.uncounted {
            return Err(why.to_owned());
        }
        let (census, _) = self.snapshot.census.as_ref().ok_or("no census was taken")?;
        let listed = census.kernel.iter().find(|count| count.netns == self.table.id);
        let listed = listed.ok_or("the census did not find it")?;
        if let Some(why) = &listed.unlisted {
            return Err(why.clone());
        }
        if listed.is_torn {
            return Err(TORN.to_owned());
        }
        match census.counted.table(self.table.id) {
            Some(table) => Ok(table.holds.pinned as f64),
            // It was listed, and nothing was in it.
            None if census.counted.unplaced == 0 => Ok(0.0),
            None => Err("there were too many namespaces for one census".to_owned()),
        }
    }

    fn full(&self, limits: [Option<f64>; 2]) -> Judged {
        let table = self.table;
        let seconds = match (table.entries, table.limit, table.trend_per_s) {
            (None, ..) => Err(self.unread("the number of entries")),
            (_, None, _) => Err(NO_LIMIT.to_owned()),
            (Some(entries), Some(limit), _) if limit > 0 && entries >= limit => Ok(Some(0.0)),
            (.., None) => Err("it was made while it was watched".to_owned()),
            (.., Some(_)) => Ok(table.time_to_full_s),
        };
        let [warning, critical] = limits;
        match seconds.transpose() {
            Some(seconds) => judged(What::Full, seconds, limits, true),
            // It does not fill, and there is no number for never.
            None => Judged {
                what: What::Full,
                state: State::Ok,
                value: None,
                warning,
                critical,
                why: None,
            },
        }
    }
}

/// Against the last values that are still good, of a warning and critical.
fn judged(what: What, value: Measured, limits: [Option<f64>; 2], asked: bool) -> Judged {
    let [warning, critical] = limits;
    let beyond = |value: f64, limit: Option<f64>| {
        limit.is_some_and(|limit| match what {
            What::Full => value < limit,
            What::Fill | What::Pinned | What::Drops | What::Dropped => value > limit,
        })
    };
    let state = match value {
        Ok(value) if beyond(value, critical) => State::Critical,
        Ok(value) if beyond(value, warning) => State::Warning,
        Err(_) if asked => State::Unknown,
        _ => State::Ok,
    };
    let why = value.as_ref().err().cloned();
    Judged { what, state, value: value.ok(), warning, critical, why }
}

#[cfg(test)]
pub(crate) mod situations {
    //! What a check may meet, each two readings two seconds apart.

    use std::time::Duration;

    use super::*;
    use crate::{
        model::{
            Model,
            census::{Census, KernelCount, SEED, Taken},
        },
        record::{
            counters::{CounterSums, CpuCounters},
            entry::{Held, Left, Status},
            sample::{Owner, Sample, TableSample},
            tests::recorded,
        },
    };
    use ctwatch_abi::{NetnsId, top::Key};

    pub(crate) struct Situation {
        limit: Option<u32>,
        readings: [Vec<TableSample>; 2],
        census: Option<Taken>,
        pub(crate) uncounted: Option<&'static str>,
    }

    impl Situation {
        pub(crate) fn of(first: Vec<TableSample>, last: Vec<TableSample>) -> Self {
            Self { limit: Some(1000), readings: [first, last], census: None, uncounted: None }
        }

        /// A table that has been so all the time.
        pub(crate) fn still(table: TableSample) -> Self {
            Self::of(vec![table.clone()], vec![table])
        }

        pub(crate) fn limit(self, limit: Option<u32>) -> Self {
            Self { limit, ..self }
        }

        pub(crate) fn uncounted(self, why: &'static str) -> Self {
            Self { uncounted: Some(why), ..self }
        }

        /// With a census of namespace 1 that found so many pinned entries, and one that makes room.
        pub(crate) fn pinned(self, pinned: u64, unlisted: Option<&str>) -> Self {
            let mut census = Census::new(&[], SEED);
            let key = Key { netns: 1, protocol: 17, ..Key::default() };
            for number in 0..=pinned {
                let status = Status(if number < pinned { 1 << 2 } else { 0 });
                let left = Left::Unknown;
                census.enter(&Held { key, translated: key, status, state: 0, zone: 0, left });
            }
            let kernel = KernelCount {
                workload: Default::default(),
                netns: 1,
                owner: Owner::Host,
                is_judged: true,
                inode: 1,
                name: None,
                before: None,
                after: None,
                unlisted: unlisted.map(str::to_owned),
                is_torn: false,
            };
            let census = Taken {
                by: "ctnetlink".into(),
                took: Duration::ZERO,
                cpu: Duration::ZERO,
                strayed: 0,
                kernel: vec![kernel],
                counted: census.finish(0),
                notes: Vec::new(),
            };
            Self { census: Some(census), ..self }
        }

        /// As the kernel says of what it listed.
        pub(crate) fn torn(mut self) -> Self {
            let counts = self.census.iter_mut().flat_map(|census| &mut census.kernel);
            counts.for_each(|count| count.is_torn = true);
            self
        }

        pub(crate) fn snapshot(&self) -> Snapshot {
            let mut model = Model::default();
            let [first, last] = &self.readings;
            model.advance(&self.sample(0, first));
            if let Some(census) = self.census.clone() {
                model.take_in(census.into());
            }
            model.advance(&self.sample(2, last))
        }

        fn sample(&self, second: u64, tables: &[TableSample]) -> Sample {
            recorded(&Sample {
                limit: self.limit,
                tables: tables.to_vec(),
                ..Sample::at(Duration::from_secs(second))
            })
        }
    }

    pub(crate) fn table(id: u32, name: &str, entries: u32, drop: u32) -> TableSample {
        let counters = CpuCounters { drop, chaintoolong: Some(0), ..CpuCounters::default() };
        TableSample {
            workload: Default::default(),
            id: NetnsId::from(id),
            inode: id,
            name: Some(name.to_owned()),
            owner: Owner::Host,
            is_judged: true,
            access: Access::Entered,
            entries: Some(entries),
            counters: Some(CounterSums::of(&[counters])),
            unread: None,
            hooks: None,
            interfaces: Vec::new(),
        }
    }

    pub(crate) fn rt(entries: u32, drop: u32) -> TableSample {
        table(1, "rt", entries, drop)
    }

    /// Refused at the door.
    pub(crate) fn unread(id: u32, name: &str) -> TableSample {
        let unread = Some("cannot enter it".to_owned());
        TableSample { entries: None, counters: None, unread, ..table(id, name, 0, 0) }
    }

    pub(crate) fn without_counters(entries: u32) -> TableSample {
        let unread = Some("no counters here".to_owned());
        TableSample { counters: None, unread, ..rt(entries, 0) }
    }

    /// Of a warning and critical.
    pub(crate) fn fill(warning: f64, critical: f64) -> Thresholds {
        Thresholds {
            warning: Limits { fill: Some(warning), ..Limits::default() },
            critical: Limits { fill: Some(critical), ..Limits::default() },
        }
    }

    pub(crate) fn pinned(warning: f64, critical: f64) -> Thresholds {
        Thresholds {
            warning: Limits { pinned: Some(warning), ..Limits::default() },
            critical: Limits { pinned: Some(critical), ..Limits::default() },
        }
    }

    pub(crate) fn drops(warning: f64, critical: f64) -> Thresholds {
        Thresholds {
            warning: Limits { drops: Some(warning), ..Limits::default() },
            critical: Limits { drops: Some(critical), ..Limits::default() },
        }
    }

    pub(crate) fn full(warning: f64, critical: f64) -> Thresholds {
        Thresholds {
            warning: Limits { full: Some(warning), ..Limits::default() },
            critical: Limits { full: Some(critical), ..Limits::default() },
        }
    }

    /// Columns of the table below.
    pub(crate) fn columns() -> [Thresholds; 6] {
        [
            Thresholds::default(),
            fill(80.0, 95.0),
            pinned(50.0, 82.3),
            drops(0.0, 1.0),
            full(600.0, 60.0),
            Thresholds::DEFAULT,
        ]
    }

    /// Situations, and what each of the thresholds makes of it: OK, Warning, Critical, Unknown.
    pub(crate) fn rows() -> Vec<(&'static str, Situation, &'static str)> {
        let still = |entries| Situation::still(rt(entries, 7)).pinned(0, None);
        let over = |first, last| Situation::of(vec![first], vec![last]).pinned(0, None);
        let chains = |mut table: TableSample, chaintoolong| {
            let counters = CpuCounters { chaintoolong, ..CpuCounters::default() };
            table.counters = Some(CounterSums::of(&[counters]));
            table
        };
        vec![
            // none, fill, pinned, drops, full, fill and drops
            ("an empty table", still(0), "OOOOOO"),
            ("just below the warning", still(799), "OOOOOO"),
            ("at the warning", still(800), "OWOOOW"),
            ("just below critical", still(949), "OWOOOW"),
            ("at critical", still(950), "OCOOOC"),
            ("full", still(1000), "OCOOCC"),
            ("more than full", still(1001), "OCOOCC"),
            ("no limit", still(5000).limit(Some(0)), "OOOOOO"),
            ("no limit, and dropping", over(rt(9, 0), rt(9, 9)).limit(Some(0)), "OOOCOC"),
            ("no limit, and unlisted", Situation::still(rt(9, 0)).limit(Some(0)), "OOOOOO"),
            ("the limit cannot be read", still(5).limit(None), "OUUOUU"),
            ("one drop", over(rt(5, 7), rt(5, 8)), "OOOWOW"),
            ("one drop a second", over(rt(5, 7), rt(5, 9)), "OOOWOW"),
            ("more than one drop a second", over(rt(5, 7), rt(5, 10)), "OOOCOC"),
            (
                "a chain too long",
                over(chains(rt(5, 0), Some(1)), chains(rt(5, 0), Some(2))),
                "OOOWOW",
            ),
            ("dropping, at the warning", over(rt(800, 7), rt(800, 10)), "OWOCOC"),
            ("full in half an hour", over(rt(99, 0), rt(100, 0)), "OOOOOO"),
            ("full in ten minutes", over(rt(397, 0), rt(400, 0)), "OOOOWO"),
            ("full in exactly ten minutes", over(rt(398, 0), rt(400, 0)), "OOOOOO"),
            ("full in a minute", over(rt(0, 0), rt(33, 0)), "OOOOCO"),
            ("emptying", over(rt(900, 0), rt(10, 0)), "OOOOOO"),
            ("half of it pinned", still(600).pinned(499, None), "OOOOOO"),
            ("half of it pinned, and more", still(600).pinned(500, None), "OOWOOO"),
            ("nearly all pinned", still(900).pinned(822, None), "OWWOOW"),
            ("all pinned", still(900).pinned(823, None), "OWCOOW"),
            ("no census", Situation::still(rt(5, 0)).uncounted("no right"), "OOUOOO"),
            ("listed in part", still(900).pinned(823, Some("cut off")), "OWUOOW"),
            ("listed while it changed", still(900).pinned(823, None).torn(), "OWUOOW"),
            ("nobody was asked to count", Situation::still(rt(5, 0)), "OOUOOO"),
            ("unread", Situation::still(unread(1, "rt")), "OUUUUU"),
            ("no counters", Situation::still(without_counters(5)).pinned(0, None), "OOOUOU"),
            (
                "no counters, at the warning",
                Situation::still(without_counters(800)).pinned(0, None),
                "OWOUOW",
            ),
            (
                "no counters, at critical",
                Situation::still(without_counters(950)).pinned(0, None),
                "OCOUOC",
            ),
            ("counters were lost", over(rt(5, 0), without_counters(5)), "OOOUOU"),
            ("counters came late", over(without_counters(5), rt(5, 9)), "OOOUOU"),
            ("gone", Situation::of(vec![rt(5, 0)], vec![]), "UUUUUU"),
            ("never found", Situation::of(vec![], vec![]), "UUUUUU"),
            ("made meanwhile", Situation::of(vec![], vec![rt(5, 1)]).pinned(0, None), "OOOWUW"),
            (
                "one of two at the warning, the other unread",
                Situation::still(rt(0, 0)).and(rt(800, 0), unread(2, "un")).pinned(0, None),
                "OWUUUW",
            ),
            (
                "one of two at critical, the other unread",
                Situation::still(rt(0, 0)).and(rt(950, 0), unread(2, "un")).pinned(0, None),
                "OCUUUC",
            ),
            (
                "two that track nothing",
                Situation::still(rt(0, 0)).and(rt(0, 0), table(2, "two", 0, 0)),
                "OOOOOO",
            ),
        ]
    }

    impl Situation {
        /// Two tables, still.
        fn and(self, one: TableSample, other: TableSample) -> Self {
            let both = vec![one, other];
            Self { readings: [both.clone(), both], ..self }
        }
    }

    pub(crate) fn states(letters: &str) -> Vec<State> {
        let state = |letter| match letter {
            'O' => State::Ok,
            'W' => State::Warning,
            'C' => State::Critical,
            _ => State::Unknown,
        };
        letters.chars().map(state).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{situations::*, *};
    use crate::record::sample::{Owner, TableSample};

    #[test]
    fn thresholds_and_situations() {
        for (name, situation, expected) in rows() {
            let snapshot = situation.snapshot();
            for (thresholds, expected) in columns().iter().zip(states(expected)) {
                let verdict = judge(&snapshot, situation.uncounted, None, thresholds);
                assert_eq!(verdict.state, expected, "{name}, {thresholds:?}: {verdict:?}");
            }
        }
    }

    /// Of one table, since the last call.
    pub(crate) fn dropped_since(since: Since) -> Verdict {
        let snapshot = Situation::still(rt(5, 7)).snapshot();
        let limits = |dropped| Limits { dropped: Some(dropped), ..Limits::default() };
        let thresholds = Thresholds { warning: limits(0.0), critical: limits(100.0) };
        let since = Remembering { of: [(1, since)].into(), seconds: Some(300) };
        judge(&snapshot, None, Some(&since), &thresholds)
    }

    #[test]
    fn a_default_gives_way_to_what_was_given() {
        let of =
            |fill: Option<f64>, drops: Option<f64>| Limits { fill, drops, ..Limits::default() };
        let default = Thresholds::DEFAULT;
        let pair = |warning, critical| Thresholds { warning, critical };
        for (warning, critical, expected) in [
            (None, None, default),
            (None, Some(of(Some(50.0), None)), pair(of(None, Some(0.0)), of(Some(50.0), None))),
            (None, Some(of(Some(80.0), None)), pair(default.warning, of(Some(80.0), None))),
            (None, Some(of(None, Some(0.0))), pair(default.warning, of(None, Some(0.0)))),
            (Some(of(Some(98.0), None)), None, pair(of(Some(98.0), None), of(None, Some(1.0)))),
            (Some(of(None, Some(2.0))), None, pair(of(None, Some(2.0)), of(Some(95.0), None))),
            (Some(of(Some(95.0), None)), None, pair(of(Some(95.0), None), default.critical)),
        ] {
            let thresholds = Thresholds::given(warning, critical);
            assert_eq!(thresholds, expected, "{warning:?} {critical:?}");
            assert_eq!(thresholds.contradiction(), None);
        }
    }

    #[test]
    fn what_was_given_gives_way_to_nothing() {
        let none = Limits::default();
        let with = |limit: &Limit, value| {
            let mut limits = none;
            *(limit.of)(&mut limits) = Some(value);
            limits
        };
        for limit in &LIMITS {
            let (least, most) = (with(limit, 1.0), with(limit, 2.0));
            let (good, bad) = if limit.less_is_worse { (most, least) } else { (least, most) };
            let sound = Thresholds::given(Some(good), Some(bad));
            assert_eq!(sound, Thresholds { warning: good, critical: bad }, "{}", limit.name);
            assert_eq!(sound.contradiction(), None, "{}", limit.name);
            let wrong = Thresholds::given(Some(bad), Some(good)).contradiction();
            assert!(wrong.is_some_and(|why| why.starts_with(limit.name)), "{}", limit.name);
        }
    }

    #[test]
    fn what_was_dropped_since_the_last_call_has_limits() {
        for (since, state, value) in [
            (Since::Began, State::Ok, None),
            (Since::Counted(0), State::Ok, Some(0.0)),
            (Since::Counted(1), State::Warning, Some(1.0)),
            (Since::Counted(101), State::Critical, Some(101.0)),
            (Since::AtLeast(0, "boot".to_owned()), State::Unknown, None),
            (Since::AtLeast(1, "boot".to_owned()), State::Warning, Some(1.0)),
            (Since::Unknown("wrap".to_owned()), State::Unknown, None),
        ] {
            let verdict = dropped_since(since.clone());
            let figure = verdict.tables[0].figures.last().unwrap();
            assert_eq!((verdict.state, figure.value), (state, value), "{since:?}");
            assert_eq!(figure.what, What::Dropped);
        }
    }

    #[test]
    fn a_table_that_was_emptied_is_not_forgotten() {
        let tables = vec![rt(0, 7), table(2, "two", 0, 0)];
        let snapshot = Situation::of(tables.clone(), tables).snapshot();
        let limits = Limits { dropped: Some(0.0), ..Limits::default() };
        let thresholds = Thresholds { warning: limits, critical: Limits::default() };
        let of = [(1, Since::Counted(7)), (2, Since::Counted(0))].into();
        let since = Remembering { of, seconds: None };
        let verdict = judge(&snapshot, None, Some(&since), &thresholds);
        assert_eq!((verdict.state, verdict.tables.len()), (State::Warning, 1));
    }

    #[test]
    fn strangers_decide_nothing() {
        let stranger = |table: TableSample, is_judged| {
            vec![rt(5, 0), TableSample { owner: Owner::User(1000), is_judged, ..table }]
        };
        for bad in [table(2, "x", 1000, 0), table(2, "x", 5, 90), unread(2, "x")] {
            for (is_judged, is_ok) in [(false, true), (true, false)] {
                let first = stranger(table(2, "x", 5, 0), is_judged);
                let last = stranger(bad.clone(), is_judged);
                let verdict =
                    judge(&Situation::of(first, last).snapshot(), None, None, &columns()[5]);
                assert_eq!(verdict.state == State::Ok, is_ok, "{verdict:?}");
                assert_eq!(verdict.others, usize::from(!is_judged));
                assert_eq!(verdict.tables.len(), 1 + usize::from(is_judged), "no numbers either");
            }
        }
    }

    #[test]
    fn an_unknown_owner_is_judged_and_said() {
        let unknown = |why: &str| Owner::Unknown(why.to_owned());
        let tables = vec![
            rt(5, 0),
            TableSample { owner: unknown("it is hidden"), ..table(2, "x", 1000, 0) },
            TableSample { owner: unknown("it is gone"), ..table(3, "y", 0, 0) },
        ];
        let snapshot = Situation::of(tables.clone(), tables).snapshot();
        let verdict = judge(&snapshot, None, None, &columns()[5]);
        assert_eq!(verdict.state, State::Critical);
        assert_eq!(verdict.unowned, Some((2, "it is hidden".to_owned())));
        let known = judge(&Situation::still(rt(5, 0)).snapshot(), None, None, &columns()[5]);
        assert_eq!(known.unowned, None);
    }

    #[test]
    fn the_worst_table_comes_first_and_then_the_fullest() {
        let tables =
            vec![table(1, "full", 700, 0), table(2, "drops", 5, 0), table(3, "more", 800, 0)];
        let mut later = tables.clone();
        later[1] = table(2, "drops", 5, 90);
        let snapshot = Situation::of(tables, later).snapshot();
        let verdict = judge(&snapshot, None, None, &drops(0.0, 1.0));
        let names: Vec<_> = verdict.tables.iter().filter_map(|t| t.name.as_deref()).collect();
        assert_eq!(names, ["drops", "more", "full"]);
        assert_eq!((verdict.tables[0].dropped, verdict.watched_s), (Some(90), 2.0));
    }

    #[test]
    fn what_has_no_thresholds_is_shown_all_the_same_where_it_costs_nothing() {
        let snapshot = Situation::still(rt(5, 0)).snapshot();
        let verdict = judge(&snapshot, None, None, &Thresholds::default());
        let shown: Vec<_> = verdict.tables[0].figures.iter().map(|f| (f.what, f.value)).collect();
        assert_eq!(shown, [(What::Fill, Some(5.0)), (What::Drops, Some(0.0))]);
    }

    #[test]
    fn what_was_not_measured_has_no_value() {
        for situation in [
            Situation::still(unread(1, "rt")),
            Situation::still(without_counters(5)).uncounted("no right"),
        ] {
            let snapshot = situation.snapshot();
            for thresholds in columns() {
                let verdict = judge(&snapshot, situation.uncounted, None, &thresholds);
                let figures = verdict.tables.iter().flat_map(|table| &table.figures);
                for unknown in figures.filter(|figure| figure.state == State::Unknown) {
                    assert!(unknown.value.is_none() && unknown.why.is_some(), "{unknown:?}");
                }
            }
        }
    }
}
