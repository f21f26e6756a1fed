//! One file per verb. This is where the rooms are wired together.

mod setup;
pub mod watch;
