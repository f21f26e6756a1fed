//! What several verbs take.

use std::path::PathBuf;

use clap::Args;

use super::values::{MechanismArg, NetnsArg, Output, Word, moment};
use crate::observe::wanted::Whose;

/// What of a recording.
#[derive(Clone, Debug, Default, Args)]
pub struct Past {
    /// Play back a recording, all or --since --until --at TIME
    #[arg(long, value_name = "PATH",
          conflicts_with_all = ["interval", "interval_word", "mechanism", "netns", "owner"])]
    pub from: Option<PathBuf>,
    /// Begin at TIME: 03:00, '2026-11-26 03:00', or 90m ago
    #[arg(long, hide_short_help = true, value_name = "TIME", value_parser = moment, requires = "from")]
    pub since: Option<jiff::Timestamp>,
    /// End at TIME
    #[arg(long, hide_short_help = true, value_name = "TIME", value_parser = moment, requires = "from")]
    pub until: Option<jiff::Timestamp>,
    /// Show the one tick at TIME
    #[arg(long, hide_short_help = true, value_name = "TIME", value_parser = moment, requires = "from",
          conflicts_with_all = ["since", "until"])]
    pub at: Option<jiff::Timestamp>,
}

/// A recording, and what of it.
#[derive(Clone, Debug, Args)]
pub struct RecordingArgs {
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

/// For whom it is printed.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// Print text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    #[arg(value_name = "FORMAT", hide_possible_values = true)]
    pub output: Output,
}

/// What may count.
#[derive(Clone, Copy, Debug, Args)]
pub struct HowArgs {
    /// Count only by fexit, kprobe, tracepoint or counters
    #[arg(long, value_enum, default_value_t = MechanismArg::Auto)]
    #[arg(value_name = "HOW", hide_possible_values = true, hide_default_value = true)]
    pub mechanism: MechanismArg,
}

/// Whether anybody is to learn whose it is. Of all verbs.
#[derive(Clone, Debug, Default, Args)]
pub struct MaskArgs {
    /// Replace names and addresses in all that is printed
    #[arg(long, global = true, hide_short_help = true)]
    pub mask: bool,
    /// Replace them by the key in KEYFILE: the same become the same again
    #[arg(long, global = true, hide_short_help = true, value_name = "KEYFILE")]
    pub mask_key: Option<PathBuf>,
}

/// Which namespaces.
#[derive(Clone, Debug, Default, Args)]
pub struct Which {
    /// Only namespace NAME; 'pod-*' matches, '!x' leaves out
    #[arg(long, value_name = "NAME")]
    pub netns: Vec<Word>,
    /// Only namespaces of owner host, of a UID, or of all
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<Whose>,
}

impl Which {
    /// The only one that was asked for, where nothing else was.
    pub fn one(&self) -> Option<&NetnsArg> {
        match self.netns.as_slice() {
            [Word::One(netns)] => Some(netns),
            _ => None,
        }
    }

    /// No option says which namespaces: all of them.
    pub fn is_any(&self) -> bool {
        matches!(self.netns.as_slice(), [] | [Word::One(NetnsArg::All)])
    }

    /// In words that another call compares with its own.
    pub fn words(&self) -> String {
        let words = self.netns.iter().map(|word| match word {
            Word::One(NetnsArg::All) => "all".to_owned(),
            Word::One(NetnsArg::Inode(inode)) => format!("inode:{inode}"),
            Word::One(NetnsArg::Name(name)) => format!("name:{name}"),
            Word::One(NetnsArg::Path(path)) => path.display().to_string(),
            Word::One(NetnsArg::Word(word)) => word.clone(),
            Word::Like(pattern) => pattern.to_string(),
            Word::Not(pattern) => format!("!{pattern}"),
        });
        words.collect::<Vec<_>>().join(" ")
    }
}
