//! The programs in the kernel, seen from outside: plan (pure) -> load -> read. The only room that
//! names aya.

pub mod bpf;
pub mod census;
pub mod functions;
pub mod layout;
mod lean;
pub mod load;
mod memory;
pub mod modules;
pub mod plan;
pub mod read;
pub mod symbols;
pub mod table;
mod talk;
mod tallies;
pub mod top;
pub mod trace;
mod tracing;
pub mod types;
mod value;
