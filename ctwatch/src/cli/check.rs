//! What `ctwatch check` takes.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    shared::Which,
    values::{CheckOutput, LimitArgs, moment, period},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch check                   the fullest namespace, and drops in any
  ctwatch check -w 75%,full=10m -c 90%
  ctwatch check -w dropped=0 --state /var/lib/ctwatch-check.json";

pub(super) const LIMITS: &str = "\
LIMIT: 80% or fill=80%, pinned=60%, drops=1 (a second), full=10m (time left),
dropped=0 (since the last call, with --state); several with commas.
Exit codes: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; npd: 1 a problem, 2 UNKNOWN.";

#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Warn at LIMIT [default: fill=80%,drops=0]
    #[arg(short, long, value_delimiter = ',', value_name = "LIMIT")]
    pub warning: Vec<LimitArgs>,
    /// Be critical at LIMIT [default: fill=95%,drops=1]
    #[arg(short, long, value_delimiter = ',', value_name = "LIMIT")]
    pub critical: Vec<LimitArgs>,
    /// Count drops and the trend for TIME
    #[arg(long = "for", value_name = "TIME", value_parser = period, default_value = "1s")]
    pub period: Duration,
    #[command(flatten)]
    pub which: Which,
    /// Remember counts in FILE, one for each check
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub state: Option<PathBuf>,
    /// Judge the end of a recording, or --at TIME of it
    #[arg(long, value_name = "PATH", conflicts_with_all = ["netns", "owner"])]
    pub from: Option<PathBuf>,
    /// Judge it as it was at TIME
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "from")]
    #[arg(hide_short_help = true)]
    pub at: Option<jiff::Timestamp>,
    /// Print for plugin, or npd (node-problem-detector)
    #[arg(short, long, value_enum, default_value_t = CheckOutput::Plugin)]
    #[arg(value_name = "FORMAT", hide_possible_values = true, hide_default_value = true)]
    pub output: CheckOutput,
}
