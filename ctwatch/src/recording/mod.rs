//! Recordings: what a session saw, as files, and the same session played back from them.
//!
//! A recording is a folder of segments. A segment is lines of JSON: the first says what it is
//! ([`line::Segment`]), the others are what happened, in its order ([`line::Line`]). The one that is being
//! written is plain text, finished ones are gzip. docs/record.md has the format.

pub mod cut;
pub mod frame;
pub mod keep;
pub mod line;
pub mod mask;
pub mod mirror;
pub mod play;
pub mod read;
pub mod recorder;
pub mod segment;
pub mod write;

/// The most of each list that is recorded: so many by what they did since the reading before, and so many
/// by what it came to.
pub const LISTED: usize = 20;
/// What the recording within an archive is called that `ctwatch collect` makes.
pub const IN_BUNDLE: &str = "ctwatch/recording.ndjson";
/// Who may read a recording: its owner and group.
const MODE: u32 = 0o640;
