//! What `ctwatch report` takes.

use std::path::PathBuf;

use clap::Args;

use super::values::moment;

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch report -o night.html --since 03:00 --until 03:30
  ctwatch report --from /data/rec -o all.html";

#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Write the page into FILE; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Read the recording PATH
    #[arg(long, value_name = "PATH", default_value = "/var/lib/ctwatch")]
    pub from: PathBuf,
    /// Begin at TIME: 03:00, '2026-11-26 03:00', or 90m ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<jiff::Timestamp>,
    /// End at TIME
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<jiff::Timestamp>,
}
