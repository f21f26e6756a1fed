//! `ctwatch serve`: what a session sees, as metrics, for whoever scrapes them.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use self::{
    current::{Board, Current, Pages},
    textfile::Textfile,
};
use super::{
    WrongUsage, setup,
    signals::Signals,
    watch::{self, EventSource},
    written::Written,
};
use crate::{
    cli::{Compat, ServeArgs},
    host::{
        kernel::modules::{Presence, presence},
        machine::notify::ServiceManager,
        netns,
    },
    model::{Snapshot, continued::Continued},
    observe::{event::Event, session::absent},
    output::{
        aside,
        openmetrics::{ConntrackState, NodeCounters},
    },
    record::sample::Sample,
    recording::mask::Mask,
    web::{
        listen::Listening,
        parent::{self, Setup},
    },
};

mod current;
mod textfile;

/// How often it is looked whether all is well.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Where conntrack cannot be seen, it is looked again so often.
const HIDDEN: Duration = Duration::from_secs(5);

/// Opens what it listens on, before rights are given up and other files are opened.
pub fn listen(args: &ServeArgs) -> Result<Listening> {
    match args.systemd_socket {
        true => Listening::from_systemd(),
        false => Listening::open(&args.addresses()),
    }
}

pub async fn run(args: ServeArgs, listening: Listening, mask: Option<Mask>) -> Result<()> {
    if args.record.is_some() && mask.is_some() {
        let why = "--record records what there is: `ctwatch record --cut FILE --mask` masks a copy";
        return Err(WrongUsage(why.to_owned()).into());
    }
    let mut signals = Signals::new()?;
    let board = Arc::new(Board::new(args.interval));
    let textfile = args.textfile.as_deref();
    let textfile = textfile.map(|folder| Textfile::start(folder, &board)).transpose()?;
    let mut serving = Serving::new(&args, Arc::clone(&board), textfile)?;
    let mut listener = None;
    if !listening.addresses.is_empty() {
        let addresses = listening.addresses.join(", ");
        let telemetry_path = args.telemetry_path.clone();
        let secured = match &args.config {
            Some(file) => secured(file)?,
            None => Vec::new(),
        };
        let pages = Pages::new(board, telemetry_path.clone());
        listener = Some(parent::start(Setup { listening, telemetry_path, secured }, pages)?);
        aside::say(&format!("serving {} on {addresses}", args.telemetry_path));
    }
    let mut source = serving.source(mask.clone())?;
    let mut heart = interval(HEARTBEAT);
    heart.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_stopping = false;
    loop {
        let event = tokio::select! {
            biased;
            () = signals.any() => {
                serving.manager.tell(&[("STOPPING", "1")]);
                is_stopping = true;
                source.stop();
                continue;
            }
            why = ended(&mut listener) => return Err(why),
            event = source.next() => event,
            _ = heart.tick() => {
                serving.beat();
                continue;
            }
        };
        let event = match (event, presence()) {
            (Ok(event), _) => event,
            // What is hidden now may be seen later, and whoever scrapes is to know.
            (Err(_), Presence::OutOfSight(why)) if !is_stopping => {
                serving.hidden(&why);
                tokio::select! {
                    () = signals.any() => return Ok(()),
                    () = sleep(HIDDEN) => {}
                }
                source = serving.source(mask.clone())?;
                continue;
            }
            (Err(error), _) => return Err(error),
        };
        if serving.event(event, &source)? {
            return Ok(());
        }
    }
}

#[cfg(feature = "tls")]
fn secured(file: &Path) -> Result<Vec<u8>> {
    crate::web::config::read(file)
}

#[cfg(not(feature = "tls"))]
fn secured(_: &Path) -> Result<Vec<u8>> {
    let why = "--web.config.file: this ctwatch was built without TLS and passwords (cargo feature tls): listen \
               on loopback, or behind a proxy";
    Err(WrongUsage(why.to_owned()).into())
}

/// Why the process that listens cannot be kept alive.
async fn ended(listener: &mut Option<oneshot::Receiver<anyhow::Error>>) -> anyhow::Error {
    match listener {
        None => std::future::pending().await,
        Some(ended) => match ended.await {
            Ok(why) => why,
            Err(_) => anyhow::anyhow!("the thread that answers has ended"),
        },
    }
}

/// What is kept from one event to the next.
struct Serving {
    args: ServeArgs,
    board: Arc<Board>,
    textfile: Option<Textfile>,
    written: Option<Written>,
    manager: ServiceManager,
    continued: Continued,
    /// What is shown now.
    now: Current,
    /// The namespace that this process is in, where node_exporter's names are wanted.
    own: Option<u32>,
    is_ready: bool,
    watchdog: Instant,
}

impl Serving {
    fn new(args: &ServeArgs, board: Arc<Board>, textfile: Option<Textfile>) -> Result<Self> {
        let written = match &args.record {
            Some(folder) => Some(Written::open(folder, Default::default())?),
            None => None,
        };
        let own = match args.compat {
            Some(Compat::Node) => Some(netns::current()?.inode),
            None => None,
        };
        Ok(Self {
            args: args.clone(),
            board,
            textfile,
            written,
            manager: ServiceManager::find(),
            continued: Continued::default(),
            now: Current { node: own.map(|_| NodeCounters::default()), ..Current::default() },
            own,
            is_ready: false,
            watchdog: Instant::now(),
        })
    }

    fn source(&self, mask: Option<Mask>) -> Result<EventSource> {
        let watched = self.args.watch();
        let looking = self.written.as_ref().map(Written::looking);
        Ok(watch::live(&watched.clone(), mask, move || {
            let beginning = setup::prepare(&watched)?;
            if let Some(looking) = &looking {
                looking.set(Some(setup::looking(&watched, &beginning.means)));
            }
            Ok(beginning)
        }))
    }

    /// Returns whether that was the last.
    fn event(&mut self, event: Event, source: &EventSource) -> Result<bool> {
        if let Some(written) = &mut self.written {
            written.take(&event, source.loaded().map(|(since, _)| since))?;
        }
        match event {
            Event::Begin { header, epoch, sample, snapshot } => {
                header.notes.iter().for_each(|note| aside::say(note));
                self.continued.begin();
                self.now.header = Some(Arc::from(header));
                self.now.epoch = Some(epoch);
                self.tick(&sample, snapshot, source);
            }
            Event::Tick { sample, snapshot } => self.tick(&sample, snapshot, source),
            Event::Absent { was_there } => {
                let why = absent(was_there);
                aside::say(&why);
                self.none(ConntrackState::Absent, why);
            }
            Event::Gone => {
                self.continued.end();
                self.none(ConntrackState::Absent, absent(true));
            }
            Event::NoCensus(why) => aside::say(&format!("no census: {why}")),
            Event::Loading(news) => watch::words(&news).iter().for_each(|line| aside::say(line)),
            Event::Slow { since, netns, .. } => {
                let netns = netns.map_or_else(String::new, |netns| format!(": {netns}"));
                let since = since.as_secs();
                aside::say(&format!("the counters have not been read for {since} s{netns}"));
            }
            Event::Census(_) | Event::Note(_) | Event::Changed { .. } | Event::Stopped => {}
            Event::End => {
                if let Some(textfile) = &mut self.textfile {
                    textfile.end();
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn tick(&mut self, sample: &Sample, snapshot: Box<Snapshot>, source: &EventSource) {
        self.continued.advance(&snapshot);
        if let (Some(own), Some(node)) = (self.own, &mut self.now.node) {
            node.limit = sample.limit;
            if let Some(table) = sample.tables.iter().find(|table| table.inode == own) {
                (node.entries, node.counters) = (table.entries, table.counters);
            }
        }
        self.now.conntrack = Some(ConntrackState::Loaded);
        self.now.why = String::new();
        self.now.last_tick = Some(snapshot.time);
        self.now.snapshot = Some(Arc::from(snapshot));
        self.now.loaded =
            source.loaded().map(|(since, loaded)| (since, loaded.into_iter().cloned().collect()));
        self.publish();
    }

    /// There is no table: what was counted stays.
    fn none(&mut self, conntrack: ConntrackState, why: String) {
        self.now.conntrack = Some(conntrack);
        self.now.why = why;
        self.now.snapshot = None;
        if let Some(node) = &mut self.now.node {
            *node = NodeCounters::default();
        }
        self.publish();
    }

    fn hidden(&mut self, why: &str) {
        if self.now.conntrack != Some(ConntrackState::OutOfSight) {
            aside::say(why);
            self.continued.end();
            self.none(ConntrackState::OutOfSight, why.to_owned());
        }
    }

    fn publish(&mut self) {
        self.now.series = self.continued.series();
        self.board.publish(self.now.clone());
        if let Some(textfile) = &self.textfile {
            textfile.write();
        }
        if !std::mem::replace(&mut self.is_ready, true) {
            self.manager.tell(&[("READY", "1"), ("STATUS", &self.now.status())]);
        }
    }

    /// Once a second: nothing is read while there is no table, and that is as it should be.
    fn beat(&mut self) {
        if self.now.conntrack == Some(ConntrackState::Absent) {
            self.board.alive();
        }
        let is_due =
            self.manager.every().is_some_and(|every| self.watchdog.elapsed() + HEARTBEAT >= every);
        if is_due
            && (self.board.health().is_ok()
                || self.now.conntrack == Some(ConntrackState::OutOfSight))
        {
            self.watchdog = Instant::now();
            self.manager.tell(&[("WATCHDOG", "1"), ("STATUS", &self.now.status())]);
        }
    }
}
