//! Who loads modules, from the ring buffer that the programs write it into.

use anyhow::{Context, Error, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, RingBuf},
};
use ctwatch_abi::loading::Event;

use super::{load, types::Types};
use crate::host::kernel::modules;

/// Sees every module that is loaded, and every process that makes the kernel want one.
pub struct Watcher {
    /// Holds the programs.
    _ebpf: Ebpf,
    ring: RingBuf<MapData>,
    untold: Array<MapData, u64>,
}

impl Watcher {
    /// Attaches the programs, or says why not. They run for as long as this lives.
    pub fn attach() -> Result<Self> {
        // Before anything is read that takes its time.
        if !modules::can_be_loaded() {
            bail!("this kernel loads no modules (CONFIG_MODULES)");
        }
        let types = Types::of_this_kernel().map_err(Error::msg)?;
        let layout = types.loading.as_ref().map_err(|why| Error::msg(why.clone()))?;
        let mut ebpf = load::loading(layout)?;
        let mut map =
            |name| ebpf.take_map(name).with_context(|| format!("the probes hold no map {name}"));
        let ring = RingBuf::try_from(map("LOADING")?)?;
        let untold = Array::try_from(map("UNTOLD")?)?;
        Ok(Self { _ebpf: ebpf, ring, untold })
    }

    /// The next one, if there is any yet.
    pub fn take(&mut self) -> Result<Option<Event>> {
        let Some(item) = self.ring.next() else { return Ok(None) };
        event(&item).map(Some)
    }

    /// How many there was no room for since the start.
    pub fn untold(&self) -> Result<u64> {
        self.untold.get(&0, 0).context("cannot read how many were not told")
    }
}

/// What a program wrote.
pub fn event(bytes: &[u8]) -> Result<Event> {
    ensure!(bytes.len() >= size_of::<Event>(), "an event of {} bytes", bytes.len());
    // SAFETY: as many bytes as that, and any of them are a value of the type.
    Ok(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}
