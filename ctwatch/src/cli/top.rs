//! What `ctwatch top` takes.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    shared::{HowArgs, Past, Which},
    values::{By, ChartsArg, ColoursArg, interval},
    watch::WatchArgs,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch top                         all namespaces; ? shows the keys
  ctwatch top --from /var/lib/ctwatch --since 03:00 --until 03:20";

#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Read every INTERVAL; the same as --interval
    #[arg(value_name = "INTERVAL", value_parser = interval, conflicts_with = "interval")]
    #[arg(hide_short_help = true)]
    pub interval_word: Option<Duration>,
    /// Read every TIME: 500ms, 1s, 2m [default: 1s]
    #[arg(short, long, value_name = "TIME", value_parser = interval)]
    pub interval: Option<Duration>,
    /// Keep the top N talkers of each list [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub top: Option<u16>,
    /// Group talkers by source, service, interface, process, flow [default: these 5], destination
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KEY")]
    #[arg(hide_possible_values = true)]
    pub by: Vec<By>,
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub how: HowArgs,
    /// Draw with ASCII alone; --charts HOW: braille, blocks
    #[arg(long)]
    pub ascii: bool,
    /// Use none, 8 or 16 colours [default: by TERM]
    #[arg(long, value_enum, value_name = "HOW", hide_possible_values = true)]
    pub colours: Option<ColoursArg>,
    /// Draw charts and bars in braille, blocks or ascii [default: by TERM]
    #[arg(long, value_enum, value_name = "HOW", hide_short_help = true)]
    #[arg(hide_possible_values = true)]
    pub charts: Option<ChartsArg>,
    /// Select and scroll with the mouse
    #[arg(long)]
    pub mouse: bool,
    /// Read settings from FILE
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print a file of settings, and exit
    #[arg(long)]
    pub print_config: bool,
    #[command(flatten)]
    pub past: Past,
}

impl TopArgs {
    pub fn interval(&self) -> Duration {
        self.interval.or(self.interval_word).unwrap_or(Duration::from_secs(1))
    }

    /// What `watch` takes for the same.
    pub fn watch(&self) -> WatchArgs {
        let by = match self.by.is_empty() {
            true => vec![By::Source, By::Service, By::Interface, By::Process, By::Flow],
            false => self.by.clone(),
        };
        WatchArgs {
            top: Some(self.top.unwrap_or(20)),
            by,
            past: self.past.clone(),
            ..WatchArgs::ticking(self.interval(), &self.which, self.how)
        }
    }
}
