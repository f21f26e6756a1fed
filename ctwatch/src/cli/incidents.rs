//! What `ctwatch incidents` takes.

use clap::Args;

use super::shared::{OutputArgs, RecordingArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch incidents                          of /var/lib/ctwatch, a line each
  ctwatch incidents --since 2d --output json
  ctwatch incidents --id 5f0cbb0e            all that is known of it";

#[derive(Clone, Debug, Args)]
pub struct IncidentsArgs {
    #[command(flatten)]
    pub of: RecordingArgs,
    /// Show all of those whose id begins so
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    #[command(flatten)]
    pub print: OutputArgs,
}
