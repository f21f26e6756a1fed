//! What there is to show now, and the pages of it, made when they are asked for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    host::machine::usage,
    model::{Snapshot, continued::AllSeries, loading::Loaded},
    output::{
        html::{Landing, landing},
        json,
        openmetrics::{self, ConntrackState, NodeCounters, Scraped, Usage, format::Format},
    },
    record::session::{Epoch, Header},
    web::{parent::PageSource, wire::Page},
};

/// Besides three intervals, a reading may be so late.
const LATE: Duration = Duration::from_secs(5);
const NOT_YET: &str = "the first reading is not made yet";

/// What is shown. `None` before the first reading.
#[derive(Clone, Default)]
pub(super) struct Current {
    pub(super) conntrack: Option<ConntrackState>,
    /// Why there is no table.
    pub(super) why: String,
    pub(super) header: Option<Arc<Header>>,
    pub(super) epoch: Option<Epoch>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) last_tick: Option<Timestamp>,
    pub(super) series: AllSeries,
    pub(super) loaded: Option<(Timestamp, Vec<Loaded>)>,
    pub(super) node: Option<NodeCounters>,
}

impl Current {
    /// In a line.
    pub(super) fn status(&self) -> String {
        let Some((tables, saturated)) = self.tables() else {
            return match self.conntrack {
                None => NOT_YET.to_owned(),
                Some(_) => self.why.clone(),
            };
        };
        format!("{tables} namespaces watched, {saturated} saturated")
    }

    fn tables(&self) -> Option<(usize, usize)> {
        let judged = self.snapshot.as_ref()?.tables.iter().filter(|table| table.is_judged);
        let judged: Vec<_> = judged.collect();
        Some((judged.len(), judged.iter().filter(|table| table.saturated).count()))
    }
}

/// Where the thread that watches puts it, and others find it: neither waits for the other.
pub(super) struct Board {
    interval: Duration,
    posted: Mutex<Posted>,
    listener: Mutex<Listener>,
}

struct Posted {
    number: u64,
    current: Arc<Current>,
    /// When all was last well.
    alive: Instant,
}

impl Board {
    pub(super) fn new(interval: Duration) -> Self {
        let posted = Posted { number: 0, current: Arc::default(), alive: Instant::now() };
        Self { interval, posted: Mutex::new(posted), listener: Mutex::default() }
    }

    pub(super) fn publish(&self, current: Current) {
        let mut posted = self.lock();
        posted.number += 1;
        posted.current = Arc::new(current);
        posted.alive = Instant::now();
    }

    pub(super) fn alive(&self) {
        self.lock().alive = Instant::now();
    }

    pub(super) fn latest(&self) -> (u64, Arc<Current>) {
        let posted = self.lock();
        (posted.number, Arc::clone(&posted.current))
    }

    /// Or why it is not well, in a line.
    pub(super) fn health(&self) -> Result<String, String> {
        let (current, alive) = {
            let posted = self.lock();
            (Arc::clone(&posted.current), posted.alive)
        };
        let age = alive.elapsed();
        match current.conntrack {
            None => Err(NOT_YET.to_owned()),
            Some(ConntrackState::OutOfSight) => Err(current.why.clone()),
            Some(_) if age > self.interval * 3 + LATE => {
                Err(format!("the last reading is {} s old", age.as_secs()))
            }
            Some(_) => Ok("healthy\n".to_owned()),
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).usage()
    }

    fn listens(&self, pid: u32) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let last = std::mem::take(&mut listener.last);
        listener.earlier += last;
        listener.pid = Some(pid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes pages of it.
pub(super) struct Pages {
    board: Arc<Board>,
    telemetry_path: String,
    asked: u64,
}

/// The process that listens, and what those before it took.
#[derive(Default)]
struct Listener {
    pid: Option<u32>,
    earlier: Duration,
    last: Duration,
}

impl Listener {
    /// With this process.
    fn usage(&mut self) -> Option<Usage> {
        let (mut cpu, mut resident) = usage::of(std::process::id())?;
        if let Some((its, memory)) = self.pid.and_then(usage::of) {
            self.last = self.last.max(its);
            resident += memory;
        }
        cpu += self.earlier + self.last;
        Some(Usage { cpu, resident })
    }
}

impl Pages {
    pub(super) fn new(board: Arc<Board>, telemetry_path: String) -> Self {
        Self { board, telemetry_path, asked: 0 }
    }

    pub(super) fn metrics(&mut self, format: Format) -> Result<Vec<u8>, String> {
        let (_, current) = self.board.latest();
        let conntrack = current.conntrack.ok_or(NOT_YET)?;
        let scraped = Scraped {
            conntrack,
            header: current.header.as_deref(),
            snapshot: current.snapshot.as_deref(),
            last_tick: current.last_tick,
            series: &current.series,
            usage: self.board.usage(),
            node: current.node,
        };
        Ok(openmetrics::page(&scraped, format).into_bytes())
    }

    fn json(&self, page: Page) -> Result<Vec<u8>, String> {
        let (_, current) = self.board.latest();
        let known = current.snapshot.as_ref().zip(current.header.as_ref()).zip(current.epoch);
        let Some(((snapshot, header), epoch)) = known else { return Err(current.status()) };
        let mut out = Vec::new();
        let written = match page {
            Page::Top => json::top::write(&mut out, snapshot),
            _ => {
                let loaded = current.loaded.as_ref().map(|(since, all)| (*since, all));
                json::watch::write(&mut out, header, epoch, snapshot, loaded)
            }
        };
        written.map_err(|error| error.to_string())?;
        Ok(out)
    }
}

impl PageSource for Pages {
    fn tick(&mut self, page: Page) -> u64 {
        self.asked += 1;
        match page {
            // Whether all is well is another question each time.
            Page::Health => self.asked,
            _ => self.board.latest().0,
        }
    }

    fn page(&mut self, page: Page) -> Result<Vec<u8>, String> {
        let made = match page {
            Page::OpenMetrics => self.metrics(Format::OpenMetrics),
            Page::Text => self.metrics(Format::Text),
            Page::Snapshot | Page::Top => self.json(page),
            Page::Health => self.board.health().map(String::into_bytes),
            Page::Landing => {
                let (_, current) = self.board.latest();
                let conntrack = current.conntrack.ok_or(NOT_YET.to_owned());
                conntrack.map(|conntrack| {
                    let tables = current.tables();
                    let telemetry_path = &self.telemetry_path;
                    landing(&Landing { conntrack, telemetry_path, tables }).into_bytes()
                })
            }
        };
        made.map_err(|why| format!("{why}\n"))
    }

    fn listens(&mut self, pid: u32) {
        self.board.listens(pid);
    }
}
