//! Facts about this machine as plain values. Knows the kernel's files and sockets, and nothing of
//! probes or of what the facts are for.

use std::hash::{BuildHasher, RandomState};

use anyhow::{Context, Result};

pub mod kernel;
pub mod machine;
pub mod netfilter;
pub mod netns;

/// The running kernel's release, `uname -r`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// What the machine is called, `uname -n`.
pub fn name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

/// Another after each boot.
pub fn boot_id() -> Result<String> {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(BOOT_ID).with_context(|| format!("cannot read {BOOT_ID}"))?;
    Ok(id.trim().to_owned())
}

/// Numbers that nobody else knows. By the keys of the standard library's hash maps, which do not wait
/// where the kernel's pool is not ready yet, as early in a boot.
/// <https://github.com/rust-lang/rust/blob/1.90.0/library/std/src/sys/random/linux.rs>
pub fn secrets<const N: usize>() -> [u64; N] {
    let keys = RandomState::new();
    std::array::from_fn(|nth| keys.hash_one(nth))
}
