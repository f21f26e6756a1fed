//! Seeing who has modules loaded: from before conntrack is there, or from the first reading on where it
//! is there already.

use anyhow::Result;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    host::kernel::privileges::{Privilege, Privileges},
    model::loading::{self, Loaded},
    probe::{load, modules::Watcher},
};

/// What happened since the last look.
#[derive(Clone, Debug)]
pub enum News {
    Loaded(Vec<Loaded>),
    /// Loads that there was no room for, so many.
    Lost(u64),
    /// Nothing is seen any more, and why.
    Blind(String),
}

pub(super) struct Loading {
    wanted: bool,
    tried: bool,
    /// With when it began; `None` where it cannot be seen here, or may not be.
    watcher: Option<(Watcher, Timestamp)>,
    seen: loading::Loads,
    lost: u64,
}

impl Loading {
    pub(super) fn new(wanted: bool) -> Self {
        let seen = loading::Loads::default();
        Self { wanted, tried: false, watcher: None, seen, lost: 0 }
    }

    /// From now on everything is seen, where that is possible at all: watching goes on without. Once
    /// begun it stays.
    pub(super) fn start(&mut self) {
        if self.tried {
            return;
        }
        self.tried = true;
        let privileges = Privileges::read();
        let may = self.wanted
            && load::embedded().is_ok()
            && [Privilege::Bpf, Privilege::Perfmon]
                .into_iter()
                .all(|wanted| privileges.has(wanted));
        let watcher = may.then(|| Watcher::attach().ok()).flatten();
        // What was loaded while it was attached may or may not have been seen.
        self.watcher = watcher.map(|watcher| (watcher, Timestamp::now()));
    }

    pub(super) fn look(&mut self) -> Vec<News> {
        self.read().unwrap_or_else(|error| {
            self.watcher = None;
            vec![News::Blind(format!("{error:#}"))]
        })
    }

    /// What is remembered of this run, and from when on; `None` where nothing is seen.
    pub(super) fn loaded(&self) -> Option<(Timestamp, impl ExactSizeIterator<Item = &Loaded>)> {
        self.watcher.as_ref().map(|(_, since)| (*since, self.seen.loaded()))
    }

    fn read(&mut self) -> Result<Vec<News>> {
        let Some((watcher, _)) = &mut self.watcher else { return Ok(Vec::new()) };
        let mut loaded = Vec::new();
        let mut booted = None;
        while let Some(event) = watcher.take()? {
            // Anew each time: the clock may be set.
            let booted = match booted {
                Some(booted) => booted,
                None => *booted.insert(booted_at()?),
            };
            loaded.extend(self.seen.take(&event, booted).cloned());
        }
        let mut news = Vec::new();
        if !loaded.is_empty() {
            news.push(News::Loaded(loaded));
        }
        let lost = watcher.untold()?;
        if lost > self.lost {
            news.push(News::Lost(lost - self.lost));
            self.lost = lost;
        }
        Ok(news)
    }
}

/// When the machine started, had it never slept: what the programs' clock counts from.
pub fn booted_at() -> Result<Timestamp> {
    let awake = std::time::Duration::try_from(clock_gettime(ClockId::Monotonic))?;
    Ok(Timestamp::now() - awake)
}
