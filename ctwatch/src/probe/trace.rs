//! Refusals one by one, from the ring buffer that the programs write them into.

use std::{
    collections::HashMap,
    os::fd::{AsRawFd, RawFd},
};

use anyhow::{Context, Result, ensure};
use aya::maps::{self, Array, Map, MapData, RingBuf};
use ctwatch_abi::NetnsId;
use tokio::io::{Interest, unix::AsyncFd};

use super::value::Value;

pub use ctwatch_abi::trace::{ANY_OWNER, Event, Filter, Reason, Traced};

/// Room for eleven thousand refusals that were not read yet.
pub(super) const ROOM: u32 = 1 << 20;

/// Of so many namespaces the programs know whether they are wanted.
pub(super) const MOST_CHOSEN: u32 = 16_384;

/// Where they come out. Readable, as a file, when there are any.
pub struct Trace {
    ring: RingBuf<MapData>,
    traced: Array<MapData, Value<Traced>>,
    chosen: maps::HashMap<MapData, NetnsId, u32>,
    /// What is in there.
    told: HashMap<NetnsId, bool>,
}

impl Trace {
    pub(super) fn new(
        ring: RingBuf<MapData>,
        traced: Array<MapData, Value<Traced>>,
        chosen: Map,
    ) -> Result<Self> {
        Ok(Self { ring, traced, chosen: chosen.try_into()?, told: HashMap::new() })
    }

    /// Which namespaces there are, and whether each is wanted. Of all others it is not known.
    pub fn choose(&mut self, looked_at: HashMap<NetnsId, bool>) -> Result<()> {
        const CANNOT: &str = "cannot tell the programs which network namespaces are wanted";
        let tell = with_room(looked_at, MOST_CHOSEN as usize);
        for id in self.told.keys().filter(|id| !tell.contains_key(id)) {
            self.chosen.remove(id).context(CANNOT)?;
        }
        for (id, is_wanted) in &tell {
            if self.told.get(id) != Some(is_wanted) {
                self.chosen.insert(*id, u32::from(*is_wanted), 0).context(CANNOT)?;
            }
        }
        self.told = tell;
        Ok(())
    }

    /// To be waited for, within tokio's runtime.
    pub fn wait_for(self) -> Result<AsyncFd<Self>> {
        // SAFETY: it owns its map, whose descriptor stays open for as long as it lives.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }
            .map_err(std::io::Error::from)
            .context("cannot wait for the ring buffer")
    }

    /// The next one, if there is any yet.
    pub fn take(&mut self) -> Result<Option<Event>> {
        let Some(item) = self.ring.next() else { return Ok(None) };
        event(&item).map(Some)
    }

    /// How many there were.
    pub fn traced(&self) -> Result<Traced> {
        let Value(traced) = self.traced.get(&0, 0).context("cannot read how many were traced")?;
        Ok(traced)
    }
}

/// Those that are wanted come first.
fn with_room(looked_at: HashMap<NetnsId, bool>, most: usize) -> HashMap<NetnsId, bool> {
    if looked_at.len() <= most {
        return looked_at;
    }
    let mut all: Vec<_> = looked_at.into_iter().collect();
    all.sort_unstable_by_key(|(id, is_wanted)| (!is_wanted, *id));
    all.truncate(most);
    all.into_iter().collect()
}

/// What a program wrote.
pub fn event(bytes: &[u8]) -> Result<Event> {
    ensure!(bytes.len() >= size_of::<Event>(), "an event of {} bytes", bytes.len());
    // SAFETY: as many bytes as that, and any of them are a value of the type.
    Ok(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

impl AsRawFd for Trace {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwanted_namespaces_crowd_no_wanted_one_out() {
        let all: HashMap<NetnsId, bool> = (0..100).map(|id| (id, id % 10 == 0)).collect();
        assert_eq!(with_room(all.clone(), 100), all);
        let some = with_room(all, 20);
        assert_eq!((some.len(), some.values().filter(|wanted| **wanted).count()), (20, 10));
    }
}
