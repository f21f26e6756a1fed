//! What `ctwatch incidents` takes.

use std::path::PathBuf;

use clap::Args;

use super::values::{Output, moment};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch incidents                          of /var/lib/ctwatch, a line each
  ctwatch incidents --since 2d --output json
  ctwatch incidents --id 5f0cbb0e            all that is known of it";

#[derive(Clone, Debug, Args)]
pub struct IncidentsArgs {
    /// Read the recording PATH
    #[arg(long, value_name = "PATH", default_value = "/var/lib/ctwatch")]
    pub from: PathBuf,
    /// Begin at TIME: 03:00, '2026-11-26 03:00', or 90m ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<jiff::Timestamp>,
    /// End at TIME
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<jiff::Timestamp>,
    /// Show all of those whose id begins so
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Print text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    #[arg(value_name = "FORMAT", hide_possible_values = true)]
    pub output: Output,
}
