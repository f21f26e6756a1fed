//! What `ctwatch report` takes.

use std::path::PathBuf;

use clap::Args;

use super::shared::RecordingArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch report -o night.html --since 03:00 --until 03:30
  ctwatch report --from /data/rec -o all.html";

#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Write the page into FILE; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub of: RecordingArgs,
}
