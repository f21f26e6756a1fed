//! How fast the kernel's clock of ticks is.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_getres};

/// `CONFIG_HZ`. What `CLOCK_MONOTONIC_COARSE` resolves is a tick.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/time/posix-timers.c> `posix_get_coarse_res`
pub(super) fn ticks_per_second() -> Result<u32> {
    let tick = Duration::try_from(clock_getres(ClockId::MonotonicCoarse))?.as_nanos();
    ensure!(tick > 0, "the kernel does not say how long a tick is");
    Ok(u32::try_from((1_000_000_000 + tick / 2) / tick)?)
}
