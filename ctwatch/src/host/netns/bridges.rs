//! Bridges of the calling thread's namespace, where br_netfilter has their packets tracked.
//! <https://github.com/torvalds/linux/blob/v6.12/net/bridge/br_netfilter_hooks.c>

use std::{
    fs,
    os::{fd::AsRawFd, unix::net::UnixDatagram},
    path::Path,
};

/// There only while br_netfilter is loaded.
const SYSCTL: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Whether netfilter may see what only crosses a bridge; the same in all namespaces.
pub fn may_be_tracked() -> bool {
    Path::new(SYSCTL).exists()
}

/// `None` where netfilter does not see what only crosses a bridge, there is none, or that cannot be
/// found out. Where they [may be tracked](may_be_tracked).
pub fn tracked() -> Option<u32> {
    // To find the sysctl, the kernel goes through those of all namespaces.
    let bridges = count().filter(|bridges| *bridges > 0)?;
    let is_on = fs::read_to_string(SYSCTL).is_ok_and(|text| text.trim() == "1");
    is_on.then_some(bridges)
}

/// Asked only where br_netfilter, and so the bridge, is loaded: asking would load it.
fn count() -> Option<u32> {
    const SIOCGIFBR: libc::Ioctl = 0x8940;
    const GET_BRIDGES: libc::c_ulong = 1;
    const MOST: usize = 1024;
    let socket = UnixDatagram::unbound().ok()?;
    let mut indices: [libc::c_int; MOST] = [0; MOST];
    let mut arguments: [libc::c_ulong; 3] =
        [GET_BRIDGES, indices.as_mut_ptr() as libc::c_ulong, MOST as libc::c_ulong];
    // SAFETY: an open socket, and room for as many numbers as are said to fit.
    let bridges = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGIFBR, arguments.as_mut_ptr()) };
    u32::try_from(bridges).ok()
}
