//! The programs in the kernel, seen from outside: plan (pure) -> load -> read. The only room that
//! names aya.

pub mod acquire;
pub mod bpf;
pub mod census;
mod cpus;
mod fexit;
pub mod find_table;
pub mod functions;
pub mod layout;
mod lean;
pub mod load;
mod log;
mod mapped;
pub mod modules;
mod object;
pub mod offsets;
pub mod plan;
pub mod running;
pub mod symbols;
mod tallies;
mod ticks;
pub mod top;
pub mod trace;
pub mod types;
mod value;
