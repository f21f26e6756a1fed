//! What probes built to talk (`cargo xtask run --talk`) have to say, on standard error.
//!
//! Released probes hold no such code and no such map; then nothing of this runs.

use std::io::Write as _;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use tokio::io::{Interest, unix::AsyncFd};

/// Listens for as long as the process runs.
pub(super) fn listen(ebpf: &mut Ebpf) -> Result<()> {
    if ebpf.map("AYA_LOGS").is_none() {
        return Ok(());
    }
    let logger = EbpfLogger::init_with_logger(ebpf, Stderr).context("the probes do not talk")?;
    // SAFETY: the logger owns its map, whose descriptor stays open for as long as it lives.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
        .map_err(std::io::Error::from)?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // There is nobody else to tell.
        let _ = writeln!(std::io::stderr(), "probe: {}", record.args());
    }

    fn flush(&self) {}
}
