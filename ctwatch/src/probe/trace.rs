//! Refusals one by one, from the ring buffer that the programs write them into.

use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

use super::value::Value;

pub use ctwatch_abi::trace::{Event, Filter, Reason, Traced};

/// Room for eleven thousand refusals that were not read yet.
pub(super) const ROOM: u32 = 1 << 20;

/// Where they come out. Readable, as a file, when there are any.
pub struct Trace {
    ring: RingBuf<MapData>,
    traced: Array<MapData, Value<Traced>>,
}

impl Trace {
    pub(super) fn new(ring: RingBuf<MapData>, traced: Array<MapData, Value<Traced>>) -> Self {
        Self { ring, traced }
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
