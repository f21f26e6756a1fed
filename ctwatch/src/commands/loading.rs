//! Catching who has conntrack loaded: from before it is there, or from the first line on where it is
//! there already.

use anyhow::Result;
use jiff::Timestamp;

use crate::{
    cli,
    host::{
        kernel::privileges::{Privilege, Privileges},
        machine::zone,
    },
    model::loading::{self, Loaded},
    output::loading::{notes, untold},
    probe::{load, modules::Watcher},
};

pub(super) struct Loading {
    mechanism: cli::Mechanism,
    tried: bool,
    /// With when it began; `None` where it cannot be seen here, or may not be.
    watcher: Option<(Watcher, Timestamp)>,
    seen: loading::Loading,
    untold: u64,
}

impl Loading {
    pub(super) fn new(mechanism: cli::Mechanism) -> Self {
        let seen = loading::Loading::default();
        Self { mechanism, tried: false, watcher: None, seen, untold: 0 }
    }

    /// From now on everything is seen, where that is possible at all: watching goes on without. Once
    /// begun it stays.
    pub(super) fn start(&mut self) {
        if self.tried {
            return;
        }
        self.tried = true;
        let privileges = Privileges::read();
        let may = self.mechanism != cli::Mechanism::Counters
            && load::embedded().is_ok()
            && [Privilege::Bpf, Privilege::Perfmon]
                .into_iter()
                .all(|wanted| privileges.has(wanted));
        let watcher = may.then(|| Watcher::attach().ok()).flatten();
        // What was loaded while it was attached may or may not have been seen.
        self.watcher = watcher.map(|watcher| (watcher, Timestamp::now()));
    }

    /// What happened since the last look, in words that are not escaped.
    pub(super) fn look(&mut self) -> Vec<String> {
        self.read().unwrap_or_else(|error| {
            self.watcher = None;
            vec![format!("who loads modules is not seen any more: {error:#}")]
        })
    }

    /// What is remembered of this run, and from when on; `None` where nothing is seen.
    pub(super) fn loaded(&self) -> Option<(Timestamp, impl ExactSizeIterator<Item = &Loaded>)> {
        self.watcher.as_ref().map(|(_, since)| (*since, self.seen.loaded()))
    }

    fn read(&mut self) -> Result<Vec<String>> {
        let Some((watcher, _)) = &mut self.watcher else { return Ok(Vec::new()) };
        let mut loaded = Vec::new();
        let mut booted = None;
        while let Some(event) = watcher.take()? {
            // Anew each time: the clock may be set.
            let booted = match booted {
                Some(booted) => booted,
                None => *booted.insert(Timestamp::now() - super::uptime()?),
            };
            loaded.extend(self.seen.take(&event, booted).cloned());
        }
        let mut lines = notes(&loaded, &zone::local());
        let so_far = watcher.untold()?;
        if so_far > self.untold {
            lines.push(untold(so_far - self.untold));
            self.untold = so_far;
        }
        Ok(lines)
    }
}
