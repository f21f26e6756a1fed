//! This kernel: what it has, what it was told, what it says.

pub mod btf;
pub mod cgroups;
pub mod config;
pub mod guards;
pub mod kmsg;
mod mapping;
pub mod modules;
pub mod privileges;
pub mod sandbox;
pub mod seccomp;
pub mod settings;
pub mod symbols;
