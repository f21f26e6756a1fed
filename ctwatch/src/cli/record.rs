//! What `ctwatch record` takes.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    shared::{HowArgs, Which},
    values::{bytes, count, days, interval, moment},
    watch::WatchArgs,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch record                      into /var/lib/ctwatch, until it is stopped
  ctwatch record /data/rec --keep 1GB
  ctwatch record --cut /root/night.gz --since 03:00 --mask   to send it
  ctwatch --from /var/lib/ctwatch --since 03:00 --until 03:20";

#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// Record into DIR
    #[arg(value_name = "DIR", default_value = "/var/lib/ctwatch")]
    pub folder: PathBuf,
    /// Keep at most SIZE: 100MB, 2GB; the oldest goes first
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "256MB")]
    pub keep: u64,
    /// Keep nothing longer than TIME
    #[arg(long, value_name = "TIME", value_parser = days, default_value = "30d")]
    pub keep_for: Duration,
    /// Leave SIZE of the file system free
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "256MB")]
    pub free: u64,
    /// Tick every TIME
    #[arg(short, long, value_name = "TIME", value_parser = interval, default_value = "1s")]
    pub interval: Duration,
    /// Stop after N ticks
    #[arg(short = 'n', long, value_name = "N", value_parser = count())]
    pub count: Option<u64>,
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub how: HowArgs,
    /// Copy DIR, or --since --until TIME of it, into FILE
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["keep", "keep_for", "free", "interval", "count", "netns", "owner"])]
    pub cut: Option<PathBuf>,
    /// Begin at TIME: 03:00, '2026-11-26 03:00', or 90m ago
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "cut")]
    #[arg(hide_short_help = true)]
    pub since: Option<jiff::Timestamp>,
    /// End at TIME
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "cut")]
    #[arg(hide_short_help = true)]
    pub until: Option<jiff::Timestamp>,
}

impl RecordArgs {
    /// What `watch` takes for the same.
    pub fn watch(&self) -> WatchArgs {
        WatchArgs {
            count: self.count,
            record: Some(self.folder.clone()),
            ..WatchArgs::ticking(self.interval, &self.which, self.how)
        }
    }
}
