//! What `ctwatch collect` takes.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{shared::Which, values::period};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch collect                     into ctwatch-HOST-TIME.tar.gz, in 10 s
  ctwatch collect --mask -o case.tar.gz
  ctwatch doctor --from case.tar.gz   elsewhere, as any user";

#[derive(Clone, Debug, Args)]
pub struct CollectArgs {
    /// Write into FILE, which is new; - is standard output [default: ctwatch-HOST-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Read counters twice, TIME apart
    #[arg(long, value_name = "TIME", value_parser = period, default_value = "10s")]
    pub duration: Duration,
    #[command(flatten)]
    pub which: Which,
}
