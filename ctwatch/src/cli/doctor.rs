//! What `ctwatch doctor` takes.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    shared::{HowArgs, OutputArgs, Which},
    values::{interval, moment},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch doctor                  look once; print findings, fixes and undos
  ctwatch doctor --for 10s        count drops for 10 seconds
  ctwatch doctor --write /root/f  write the files of each fix into a new folder
  ctwatch doctor --from /var/lib/ctwatch --at 03:00   as it was then
  ctwatch doctor --from sosreport-sw1     what other tools printed on a box";

#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Count drops for TIME [default: 1s if a table is full]
    #[arg(long = "for", value_name = "TIME", value_parser = interval)]
    pub duration: Option<Duration>,
    /// Write the files of all fixes into DIR, new or empty
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub print: OutputArgs,
    #[command(flatten)]
    pub how: HowArgs,
    #[command(flatten)]
    pub then: Then,
    /// Show what differs between what tools printed
    #[arg(long, value_names = ["A", "B"], num_args = 2,
          conflicts_with_all = ["duration", "write", "mechanism", "netns", "owner", "from"])]
    pub diff: Vec<PathBuf>,
}

/// Which moment of a recording.
#[derive(Clone, Debug, Default, Args)]
pub struct Then {
    /// Look at a recording, at its worst moment; or at what other tools
    /// printed: a file, a folder, or -
    #[arg(long, value_name = "PATH",
          conflicts_with_all = ["duration", "write", "mechanism", "netns", "owner"])]
    pub from: Option<PathBuf>,
    /// Look at the recording as of TIME: 03:00, 90m ago
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "from")]
    pub at: Option<jiff::Timestamp>,
}
