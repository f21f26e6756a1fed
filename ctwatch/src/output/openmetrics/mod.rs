//! What there is, as metrics. The names are a contract: docs/serve.md has them all.
//!
//! A counter is what is certain, and how much more it may have been is a gauge beside it. What is not measured is
//! left out, and `ctwatch_figure_available` says so.

mod encoder;
pub mod format;
mod node;
mod shares;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use ctwatch_abi::{NetnsId, top::Stream};

pub use self::node::NodeCounters;
use self::{
    encoder::{Labels, MetricKind, MetricsWriter},
    format::Format,
};
use crate::{
    model::{
        Snapshot, Table,
        census::Holds,
        continued::{AllSeries, Certain, Meter, Meters},
        series_names::{GONE, MORE},
    },
    record::{
        sample::{Access, Owner},
        session::Header,
    },
};

/// Whether conntrack is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConntrackState {
    Loaded,
    Absent,
    /// It cannot be seen whether it is.
    OutOfSight,
}

impl ConntrackState {
    const ALL: [Self; 3] = [Self::Loaded, Self::Absent, Self::OutOfSight];

    pub fn name(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Absent => "absent",
            Self::OutOfSight => "out_of_sight",
        }
    }
}

/// What ctwatch itself uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident: u64,
}

/// What a page is made of.
pub struct Scraped<'a> {
    pub conntrack: ConntrackState,
    /// Of the life that is watched, or of the last.
    pub header: Option<&'a Header>,
    /// `None`: there is no table.
    pub snapshot: Option<&'a Snapshot>,
    /// When it was last read.
    pub last_tick: Option<jiff::Timestamp>,
    pub series: &'a AllSeries,
    pub usage: Option<Usage>,
    /// With the names of node_exporter too.
    pub node: Option<NodeCounters>,
}

/// A counter of its own name: it, its gauge, and what they mean.
const OWN: [(Meter, &str, &str, &str, &str); 3] = [
    (
        Meter::Insertions,
        "ctwatch_insertions_total",
        "Entries inserted into the table: certainly so many.",
        "ctwatch_insertions_uncertain",
        "Entries that may have been inserted beyond the counter.",
    ),
    (
        Meter::Removals,
        "ctwatch_removals_total",
        "Entries removed from the table: certainly so many.",
        "ctwatch_removals_uncertain",
        "Entries that may have been removed beyond the counter.",
    ),
    (
        Meter::Dropped,
        "ctwatch_dropped_total",
        "Packets dropped by conntrack for any reason: certainly so many.",
        "ctwatch_dropped_uncertain",
        "Packets that conntrack may have dropped beyond the counter.",
    ),
];

pub fn page(scraped: &Scraped<'_>, format: Format) -> String {
    let mut page = Page::new(scraped, format);
    page.itself();
    page.host();
    page.namespaces();
    page.counters();
    page.census();
    page.shares();
    page.available();
    if let Some(node) = &scraped.node {
        node::write(&mut page.out, node);
    }
    page.out.finish()
}

/// A namespace with series of its own.
struct Named<'a> {
    labels: Labels,
    /// `None`: there is no table, and the counters are as they were.
    table: Option<&'a Table>,
    meters: &'a Meters,
}

struct Page<'a> {
    scraped: &'a Scraped<'a>,
    /// The sums come last.
    all: Vec<Named<'a>>,
    out: MetricsWriter,
}

const NONE: fn() -> Labels = Labels::default;

impl<'a> Page<'a> {
    fn new(scraped: &'a Scraped<'a>, format: Format) -> Self {
        let tables = scraped.snapshot.iter().flat_map(|snapshot| &snapshot.tables);
        let tables: HashMap<NetnsId, &Table> = tables.map(|table| (table.id, table)).collect();
        let named = |name: &str, netns: Option<NetnsId>, meters| Named {
            labels: NONE().with("netns", name),
            table: netns.and_then(|netns| tables.get(&netns).copied()),
            meters,
        };
        let series = scraped.series;
        let own = series.own.iter().map(|of| named(&of.name, Some(of.netns), &of.meters));
        let more = series.more.iter().map(|meters| named(MORE, None, meters));
        let gone = series.gone.iter().map(|meters| named(GONE, None, meters));
        Self {
            scraped,
            all: own.chain(more).chain(gone).collect(),
            out: MetricsWriter::new(format),
        }
    }

    fn itself(&mut self) {
        let Scraped { header, usage, series, .. } = self.scraped;
        let out = &mut self.out;
        out.family("ctwatch_build_info", MetricKind::Info, "The version of ctwatch.");
        out.sample(&NONE().with("version", env!("CARGO_PKG_VERSION")), true);
        out.family(
            "ctwatch_mechanism_info",
            MetricKind::Info,
            "By which mechanism each signal is measured.",
        );
        for measured in header.iter().flat_map(|header| &header.mechanisms) {
            if let Some(mechanism) = &measured.mechanism {
                let labels = NONE().with("signal", &measured.signal).with("mechanism", mechanism);
                out.sample(&labels, true);
            }
        }
        if let Some(header) = header {
            out.family(
                "ctwatch_tick_interval_seconds",
                MetricKind::Gauge,
                "How often the tables are read.",
            );
            out.sample(&NONE(), header.interval.as_secs_f64());
        }
        out.family("ctwatch_probe_lost_total", MetricKind::Counter, "Events that no probe saw.");
        out.sample(&NONE(), series.lost);
        if let Some(Usage { cpu, resident }) = usage {
            let help = "CPU time that ctwatch took, in all of its processes.";
            out.family("ctwatch_process_cpu_seconds_total", MetricKind::Counter, help);
            out.sample(&NONE(), cpu.as_secs_f64());
            let help = "Memory that ctwatch has, in all of its processes.";
            out.family("ctwatch_process_resident_memory_bytes", MetricKind::Gauge, help);
            out.sample(&NONE(), *resident);
        }
    }

    fn host(&mut self) {
        let Scraped { conntrack, snapshot, last_tick, series, .. } = self.scraped;
        let out = &mut self.out;
        let help = "Whether nf_conntrack is loaded, absent, or hidden from ctwatch: one is 1.";
        out.family("ctwatch_conntrack_state", MetricKind::Gauge, help);
        for state in ConntrackState::ALL {
            out.sample(&NONE().with("state", state.name()), state == *conntrack);
        }
        out.family(
            "ctwatch_epoch",
            MetricKind::Gauge,
            "How often the table was seen to begin: when nf_conntrack is loaded again, it goes up.",
        );
        out.sample(&NONE(), series.epoch);
        out.family(
            "ctwatch_last_tick_timestamp_seconds",
            MetricKind::Gauge,
            "When the tables were last read.",
        );
        if let Some(time) = last_tick {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
            out.sample(&NONE(), time.as_millisecond() as f64 / 1000.0);
        }
        // The last that was read knows them best.
        let tables = snapshot.iter().flat_map(|snapshot| &snapshot.tables);
        let latest = tables.filter(|table| !table.is_gone).min_by_key(|table| table.age);
        out.family(
            "ctwatch_entries_limit",
            MetricKind::Gauge,
            "nf_conntrack_max: each namespace may have so many entries; 0 is no limit.",
        );
        if let Some(limit) = latest.and_then(|table| table.limit) {
            out.sample(&NONE(), limit);
        }
        out.family(
            "ctwatch_buckets",
            MetricKind::Gauge,
            "Buckets of the hash table, one for all namespaces.",
        );
        if let Some(buckets) = latest.and_then(|table| table.buckets) {
            out.sample(&NONE(), buckets);
        }
        out.family(
            "ctwatch_gone_namespaces_total",
            MetricKind::Counter,
            "Namespaces that are gone.",
        );
        out.sample(&NONE(), series.gone_namespaces);
        if snapshot.is_some() {
            out.family(
                "ctwatch_namespaces_left_out",
                MetricKind::Gauge,
                "Namespaces of unprivileged users: they have no series here.",
            );
            out.sample(&NONE(), series.left_out as u64);
        }
    }

    fn namespaces(&mut self) {
        let Self { all, out, .. } = self;
        let tables = || all.iter().filter_map(|of| Some((&of.labels, of.table?)));
        out.family("ctwatch_netns_info", MetricKind::Info, "What a namespace is called.");
        for (labels, table) in tables() {
            out.sample(&about(labels, table), true);
        }
        out.family(
            "ctwatch_netns_readable",
            MetricKind::Gauge,
            "1: the namespace's table is read; 0: it cannot be.",
        );
        for (labels, table) in tables() {
            out.sample(labels, table.access == Access::Entered && table.entries.is_some());
        }
        out.family(
            "ctwatch_netns_saturated",
            MetricKind::Gauge,
            "1: the table is full, or the kernel drops packets or evicts entries to make room.",
        );
        for (labels, table) in tables() {
            out.sample(labels, table.saturated);
        }
        out.family("ctwatch_entries", MetricKind::Gauge, "Entries in the table.");
        for (labels, table) in tables() {
            if let Some(entries) = table.entries {
                out.sample(labels, entries);
            }
        }
        out.family("ctwatch_time_to_full_seconds", MetricKind::Gauge, "Until the table is full if it fills on like this; 0 when it is, +Inf while it does not fill.");
        for (labels, table) in tables() {
            if let Some(seconds) = time_to_full(table) {
                out.sample(labels, seconds);
            }
        }
    }

    fn counters(&mut self) {
        for (what, counter, counts, gauge, widths) in OWN {
            self.counter((counter, counts), &[(what, "")]);
            self.width((gauge, widths), &[(what, "")]);
        }
        let drops = Meter::DROPS.map(|what| (what, what.name()));
        let help = "Packets dropped by conntrack for this reason: certainly so many. What is certain of two reasons together only is a reason of its own.";
        self.counter(("ctwatch_drops_total", help), &drops);
        let help = "Packets that conntrack may have dropped for this reason beyond the counter.";
        self.width(("ctwatch_drops_uncertain", help), &drops);
        let evictions = Meter::EVICTIONS.map(|what| (what, what.name()));
        let help = "Entries evicted to make room: certainly so many.";
        self.counter(("ctwatch_evictions_total", help), &evictions);
        let help = "Entries that may have been evicted beyond the counter.";
        self.width(("ctwatch_evictions_uncertain", help), &evictions);
        let help = "Packets that fit no connection, and were left untracked: certainly so many.";
        self.counter(("ctwatch_invalid_total", help), &[(Meter::Invalid, "")]);
        let help = "Entries that user space asked for by ctnetlink and the kernel refused, because the table is full.";
        self.counter(("ctwatch_ctnetlink_refused_total", help), &[(Meter::RefusedCtnetlink, "")]);
        let help = "Packets of a control plane that conntrack dropped: certainly so many.";
        self.out.family("ctwatch_control_plane_dropped_total", MetricKind::Counter, help);
        for of in &self.all {
            for (protocol, count) in of.meters.planes() {
                self.out.sample(&of.labels.with("protocol", protocol), count);
            }
        }
    }

    fn counter(&mut self, (name, help): (&'static str, &'static str), what: &[(Meter, &str)]) {
        self.out.family(name, MetricKind::Counter, help);
        self.each(what, |out, labels, certain| out.sample(labels, certain.count));
    }

    fn width(&mut self, (name, help): (&'static str, &'static str), what: &[(Meter, &str)]) {
        self.out.family(name, MetricKind::Gauge, help);
        self.each(what, |out, labels, certain| out.sample(labels, certain.width));
    }

    fn each(
        &mut self,
        what: &[(Meter, &str)],
        sample: impl Fn(&mut MetricsWriter, &Labels, Certain),
    ) {
        for of in &self.all {
            for (what, reason) in what {
                let Some(certain) = of.meters.of(*what) else { continue };
                match *reason {
                    "" => sample(&mut self.out, &of.labels, certain),
                    reason => sample(&mut self.out, &of.labels.with("reason", reason), certain),
                }
            }
        }
    }

    fn census(&mut self) {
        let Some(snapshot) = self.scraped.snapshot else { return };
        let Some((taken, age)) = &snapshot.census else { return };
        let out = &mut self.out;
        out.family("ctwatch_census_age_seconds", MetricKind::Gauge, "How old the last census is.");
        out.sample(&NONE(), age.as_secs_f64());
        let help =
            "Entries by what the kernel does with them when room is needed, by the last census.";
        out.family("ctwatch_census_entries", MetricKind::Gauge, help);
        for (labels, table) in self.all.iter().filter_map(|of| Some((&of.labels, of.table?))) {
            // One that nothing is held in has no census of its own, if it was there.
            let is_counted =
                taken.kernel.iter().any(|one| one.netns == table.id && one.unlisted.is_none());
            let holds = snapshot.census(table).map(|census| census.holds);
            let Some(holds) = holds.or(is_counted.then(Holds::default)) else { continue };
            for (class, count) in [
                ("pinned", holds.pinned),
                ("closing", holds.closing),
                ("reclaimable", holds.reclaimable),
                ("expired", holds.expired),
            ] {
                out.sample(&labels.with("class", class), count);
            }
        }
    }

    fn shares(&mut self) {
        let Some(snapshot) = self.scraped.snapshot else { return };
        let help = "Share of the first 1, 3 and 10 that hold entries, insert, or are dropped: at least that.";
        self.out.family("ctwatch_top_share", MetricKind::Gauge, help);
        for of in &self.all {
            let Some(table) = of.table else { continue };
            for share in shares::of(snapshot, table) {
                let labels = of.labels.with("stream", share.stream).with("by", share.by);
                for (rank, at_least) in share.ranks {
                    self.out.sample(&labels.with("rank", rank), at_least);
                }
            }
        }
    }

    fn available(&mut self) {
        let Scraped { snapshot, .. } = self.scraped;
        let tables: Vec<&Table> = self.all.iter().filter_map(|of| of.table).collect();
        let any = |is: &dyn Fn(&Table) -> bool| tables.iter().any(|table| is(table));
        let measured = |what: Meter| any(&|table| what.figure(table).total.is_some());
        let lists = |stream| {
            snapshot.is_some_and(|now| now.lists_since.iter().any(|(of, _)| *of == stream))
        };
        let has_census = snapshot.is_some_and(|snapshot| snapshot.census.is_some());
        let mut live = self.all.iter().filter(|of| of.table.is_some());
        let has_planes = live.any(|of| of.meters.planes().next().is_some());
        let mut figures = vec![
            ("entries".to_owned(), any(&|table| table.entries.is_some())),
            ("limit".to_owned(), any(&|table| table.limit.is_some())),
            ("insertions".to_owned(), measured(Meter::Insertions)),
            ("removals".to_owned(), measured(Meter::Removals)),
            ("dropped".to_owned(), measured(Meter::Dropped)),
        ];
        let drops = Meter::DROPS.map(|what| (format!("drop_{}", what.name()), measured(what)));
        figures.extend(drops);
        let evictions = Meter::EVICTIONS;
        figures.extend(evictions.map(|what| (format!("eviction_{}", what.name()), measured(what))));
        figures.extend([
            ("invalid".to_owned(), measured(Meter::Invalid)),
            ("ctnetlink_refused".to_owned(), measured(Meter::RefusedCtnetlink)),
            ("control_plane_dropped".to_owned(), has_planes),
            ("top_holding".to_owned(), has_census),
            ("top_inserting".to_owned(), lists(Stream::Insertions)),
            ("top_dropped".to_owned(), lists(Stream::Drops)),
            ("census".to_owned(), has_census),
        ]);
        let help = "1: the figure is measured, in some namespace at least; 0: nothing measures it, and its series are absent.";
        self.out.family("ctwatch_figure_available", MetricKind::Gauge, help);
        for (figure, is_available) in figures {
            self.out.sample(&NONE().with("figure", &figure), is_available);
        }
    }
}

/// `None` where that cannot be said, or not yet.
fn time_to_full(table: &Table) -> Option<f64> {
    table.entries?;
    match (table.limit?, table.fill, table.time_to_full_s) {
        (0, ..) => Some(f64::INFINITY),
        (_, Some(fill), _) if fill >= 1.0 => Some(0.0),
        (_, _, Some(seconds)) => Some(seconds),
        (_, _, None) => table.trend_per_s.map(|_| f64::INFINITY),
    }
}

/// What is unknown is an empty label, which to Prometheus is none.
fn about(labels: &Labels, table: &Table) -> Labels {
    let owner = match &table.owner {
        Owner::Host => "host".to_owned(),
        Owner::User(uid) => uid.to_string(),
        Owner::Unknown(_) => "unknown".to_owned(),
    };
    let is_cookie = table.id != NetnsId::from(table.inode);
    let cookie = if is_cookie { table.id.to_string() } else { String::new() };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    labels
        .with("inode", &table.inode.to_string())
        .with("cookie", &cookie)
        .with("owner", &owner)
        .with("pod", &text(&table.workload.pod))
        .with("namespace", &text(&table.workload.namespace))
        .with("container", &text(&table.workload.container))
}
