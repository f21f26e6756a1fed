//! Facts about this machine as plain values. Knows the kernel's files and sockets, and nothing of
//! probes or of what the facts are for.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
pub mod hooks;
pub mod kmsg;
pub mod legacy;
pub mod listing;
mod mapping;
pub mod modules;
pub mod namer;
pub mod netns;
pub mod nft;
pub mod privileges;
pub mod procstat;
pub mod settings;
pub mod statefile;
pub mod symbols;
pub mod tools;
pub mod tuple;
pub mod visit;
mod xtables;

/// The running kernel's release, `uname -r`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Numbers that nobody else knows.
pub fn secrets<const N: usize>() -> anyhow::Result<[u64; N]> {
    let mut secrets = [0; N];
    for secret in &mut secrets {
        let mut bytes = [0; 8];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(8) => *secret = u64::from_ne_bytes(bytes),
            _ => anyhow::bail!("cannot get a random number"),
        }
    }
    Ok(secrets)
}

static OPENING: RwLock<()> = RwLock::new(());

/// For threads that open files beside others, for as long as they do.
pub fn opening_files() -> RwLockReadGuard<'static, ()> {
    OPENING.read().unwrap_or_else(PoisonError::into_inner)
}

/// For whoever makes that impossible for a moment, to the whole process.
pub fn nobody_opens_files() -> RwLockWriteGuard<'static, ()> {
    OPENING.write().unwrap_or_else(PoisonError::into_inner)
}
