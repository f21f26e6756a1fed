//! Facts about this machine as plain values. Knows the kernel's files and sockets, and nothing of
//! probes or of what the facts are for.

use std::hash::{BuildHasher, RandomState};

pub mod kernel;
pub mod machine;
pub mod netfilter;
pub mod netns;

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
