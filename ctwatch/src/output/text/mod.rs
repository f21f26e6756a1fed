//! Text for a terminal, and for those who read a file. Plain ASCII: a console may know nothing else.

pub mod census;
pub mod check;
pub mod differences;
pub mod doctor;
pub mod incident;
pub mod loading;
mod measure;
pub mod npd;
mod offline;
mod others;
pub mod preamble;
pub(crate) mod shares;
pub mod shown;
mod summary;
pub mod trace;
pub mod watch;
mod who;
pub(crate) mod words;
mod worst;
mod wrap;
