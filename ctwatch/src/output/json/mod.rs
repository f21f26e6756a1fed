//! One JSON object a line. The names here are a contract: fields are added, never renamed.

pub mod census;
pub mod differences;
pub mod doctor;
mod figure;
mod holds;
pub mod incident;
mod keys;
mod line;
mod loading;
mod netns;
mod talkers;
pub mod top;
pub mod trace;
pub mod watch;
