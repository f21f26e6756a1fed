//! Facts about this machine as plain values. Knows the kernel's files and sockets, and nothing of
//! probes or of what the facts are for.

pub mod btf;
pub mod config;
pub mod ctnetlink;
pub mod modules;
pub mod netns;
pub mod privileges;
pub mod procstat;
pub mod symbols;
pub mod visit;

/// The running kernel's release, `uname -r`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
