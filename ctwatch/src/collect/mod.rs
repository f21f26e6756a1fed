//! What is put into an archive for somebody elsewhere: read within bounds of time and of bytes, kept packed
//! in memory, and written in one go. Files are named as sos names them, where it has them.

pub mod archive;
pub mod gather;
pub mod machine;
pub mod readme;
pub mod spool;

/// Namespaces whose entries and counters are written down, one's own and then the fullest.
pub const NAMESPACES: usize = 64;
/// Lines of entries, of all namespaces together.
pub const LINES: u64 = 200_000;
