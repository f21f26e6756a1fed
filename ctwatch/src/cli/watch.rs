//! What `ctwatch watch` takes.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use ctwatch_abi::top;

use super::{
    shared::{HowArgs, OutputArgs, Past, Which},
    values::{By, Output, count, distinct, interval},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch                             a line a second for each busy namespace
  ctwatch 5 12                        every 5 seconds, 12 times
  ctwatch --top 10 --by source,flow   with the top talkers in every tick";

pub(super) const USAGE: &str = "ctwatch [watch] [OPTIONS] [INTERVAL [COUNT]]";

/// Lists of top talkers are grouped by these without `--by`.
pub const DEFAULT_BY: [top::By; 4] =
    [top::By::Source, top::By::Service, top::By::Interface, top::By::Process];

#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Print a line every INTERVAL; the same as --interval
    #[arg(value_name = "INTERVAL", value_parser = interval, conflicts_with = "interval")]
    #[arg(hide_short_help = true)]
    pub interval_word: Option<Duration>,
    /// Stop after COUNT ticks; the same as --count
    #[arg(value_name = "COUNT", value_parser = count(), conflicts_with = "count")]
    #[arg(hide_short_help = true)]
    pub count_word: Option<u64>,
    /// Show the top N talkers every tick; 0 turns them off [default: 5, only while a table is full]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=100))]
    pub top: Option<u16>,
    /// Group top talkers by source, service, interface, process [default: these 4], destination, flow
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KEY")]
    #[arg(hide_possible_values = true)]
    pub by: Vec<By>,
    /// Tick every TIME: 500ms, 1s, 2m [default: 1s]
    #[arg(short, long, value_name = "TIME", value_parser = interval)]
    pub interval: Option<Duration>,
    /// Stop after N ticks
    #[arg(short = 'n', long, value_name = "N", value_parser = count())]
    pub count: Option<u64>,
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub print: OutputArgs,
    #[command(flatten)]
    pub how: HowArgs,
    /// Record into DIR what is printed
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    pub record: Option<PathBuf>,
    /// It is for those that scrape: not only for now.
    #[arg(skip)]
    pub serves: bool,
    #[command(flatten)]
    pub past: Past,
}

impl WatchArgs {
    /// With nothing asked for beside these.
    pub(super) fn ticking(interval: Duration, which: &Which, how: HowArgs) -> Self {
        Self {
            interval_word: None,
            count_word: None,
            top: None,
            by: Vec::new(),
            interval: Some(interval),
            count: None,
            which: which.clone(),
            print: OutputArgs { output: Output::Text },
            how,
            record: None,
            serves: false,
            past: Past::default(),
        }
    }

    pub fn interval(&self) -> Duration {
        self.interval.or(self.interval_word).unwrap_or(Duration::from_secs(1))
    }

    pub fn by(&self) -> Vec<top::By> {
        match self.by.is_empty() {
            true => DEFAULT_BY.to_vec(),
            false => distinct(self.by.iter().map(top::By::from)),
        }
    }

    /// A person asked for top lists.
    pub fn asks_for_lists(&self) -> bool {
        self.tops() > 0 && (self.top.is_some() || !self.by.is_empty())
    }

    /// Entries of a top list.
    pub fn tops(&self) -> usize {
        usize::from(self.top.unwrap_or(if self.serves { 10 } else { 5 }))
    }

    pub fn count(&self) -> Option<u64> {
        self.count.or(self.count_word)
    }
}
