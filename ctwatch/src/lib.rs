//! ctwatch watches the connection tracking table of a Linux box: how full it is, what is refused
//! and why. The rooms, and who may know whom, are in ARCHITECTURE.md.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "fixtures are small"))]
// Both panic where they cannot write.
#![warn(clippy::print_stderr, clippy::print_stdout)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod bundle;
pub mod cli;
pub mod collect;
pub mod commands;
pub mod diagnosis;
#[cfg(test)]
mod dumps;
pub mod family;
pub mod host;
pub mod model;
pub mod observe;
#[cfg(test)]
mod old_kernels;
pub mod output;
pub mod probe;
pub mod record;
pub mod recording;
mod threads;
#[cfg(test)]
mod top_lists;
pub mod tui;
pub mod unpack;
pub mod web;
