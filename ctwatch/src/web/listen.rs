//! Sockets that listen: opened here, or handed over by systemd.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::{FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::FileType,
    io::{FdFlags, fcntl_setfd},
    net::{AddressFamily, SocketType, getsockname, sockopt},
};

use super::wire::MOST_SOCKETS;

/// Sockets, and where they listen.
#[derive(Debug, Default)]
pub struct Listening {
    pub(super) sockets: Vec<OwnedFd>,
    pub addresses: Vec<String>,
}

impl Listening {
    pub fn open(addresses: &[SocketAddr]) -> Result<Self> {
        ensure!(
            addresses.len() <= MOST_SOCKETS,
            "at most {MOST_SOCKETS} addresses are listened on"
        );
        let mut listening = Self::default();
        for address in addresses {
            let socket = TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address}"))?;
            let bound = socket.local_addr().map_or(*address, |bound| bound);
            listening.addresses.push(bound.to_string());
            listening.sockets.push(socket.into());
        }
        Ok(listening)
    }

    /// What systemd opened for this process: from 3 on.
    /// <https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html>
    ///
    /// To be called once, before anything else opens files.
    pub fn from_systemd() -> Result<Self> {
        const FIRST: i32 = 3;
        const NONE: &str =
            "--web.systemd-socket: systemd handed over no socket ($LISTEN_FDS, $LISTEN_PID)";
        let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        let (pid, count) = number("LISTEN_PID").zip(number("LISTEN_FDS")).context(NONE)?;
        ensure!(pid == std::process::id() && count > 0, NONE);
        let count = usize::try_from(count)?;
        ensure!(
            count <= MOST_SOCKETS,
            "systemd handed over {count} sockets: at most {MOST_SOCKETS} are used"
        );
        let mut listening = Self::default();
        for fd in (FIRST..).take(count) {
            // SAFETY: systemd says that it opened it for this process, and nothing here has used it yet: the
            // next line fails where it is not open.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            fcntl_setfd(&socket, FdFlags::CLOEXEC)
                .with_context(|| format!("systemd handed over no descriptor {fd}"))?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&socket)?.st_mode);
            let is_stream = || sockopt::socket_type(&socket) == Ok(SocketType::STREAM);
            let is_internet = || {
                let domain = sockopt::socket_domain(&socket);
                domain == Ok(AddressFamily::INET) || domain == Ok(AddressFamily::INET6)
            };
            let listens = || sockopt::socket_acceptconn(&socket) == Ok(true);
            if kind != FileType::Socket || !is_stream() || !is_internet() || !listens() {
                bail!("systemd handed over descriptor {fd}, which is no TCP socket that listens");
            }
            let address =
                getsockname(&socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
            let shown = address.map_or_else(|| format!("descriptor {fd}"), |at| at.to_string());
            listening.addresses.push(shown);
            listening.sockets.push(socket);
        }
        Ok(listening)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_named() {
        let open = Listening::open(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let taken: SocketAddr = open.addresses[0].parse().unwrap();
        let error = Listening::open(&[taken]).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {taken}"));
    }
}
