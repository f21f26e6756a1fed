//! Facts about this machine as plain values. Knows the kernel's files and sockets, and nothing of
//! probes or of what the facts are for.

use std::hash::{BuildHasher, RandomState};

pub mod addresses;
pub mod allowances;
mod attributes;
pub mod bridges;
pub mod btf;
pub mod cgroups;
pub mod config;
pub mod ctnetlink;
pub mod dump;
pub mod evidence;
mod expressions;
pub mod files;
pub mod hooks;
pub mod kmsg;
pub mod legacy;
pub mod listing;
mod mapping;
pub mod modules;
pub mod namer;
pub mod netns;
pub mod nft;
pub mod owner;
pub mod pods;
pub mod privileges;
pub mod procstat;
pub mod settings;
pub mod statefile;
pub mod symbols;
pub mod tools;
pub mod tuple;
pub mod visit;
mod xtables;
pub mod zone;

/// The running kernel's release, `uname -r`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Numbers that nobody else knows. By the keys of the standard library's hash maps, which do not wait
/// where the kernel's pool is not ready yet, as early in a boot.
/// <https://github.com/rust-lang/rust/blob/1.90.0/library/std/src/sys/random/linux.rs>
pub fn secrets<const N: usize>() -> [u64; N] {
    let keys = RandomState::new();
    std::array::from_fn(|nth| keys.hash_one(nth))
}
