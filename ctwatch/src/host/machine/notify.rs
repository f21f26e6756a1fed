//! Tells a service manager how this service is.
//! <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>

use std::{
    env::{var, var_os},
    ffi::OsString,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The way to one, where one waits.
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    to: Option<SocketAddr>,
    /// It wants to hear within this time that all is well.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    pub fn find() -> Self {
        let of_this =
            var("WATCHDOG_PID").ok().is_none_or(|pid| pid == std::process::id().to_string());
        let time = var("WATCHDOG_USEC").ok().and_then(|time| time.parse().ok());
        let watchdog = time.filter(|time| of_this && *time > 0).map(Duration::from_micros);
        Self::at(var_os("NOTIFY_SOCKET"), watchdog)
    }

    fn at(place: Option<OsString>, watchdog: Option<Duration>) -> Self {
        let to = place.and_then(|place| match place.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            _ => SocketAddr::from_pathname(&place).ok(),
        });
        // Nobody is waited for.
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Self { socket: socket.ok(), to, watchdog }
    }

    /// How often it is to be told that all is well: twice as often as it wants.
    pub fn every(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// `READY=1`, `STATUS=…`: each value is one line.
    pub fn tell(&self, fields: &[(&str, &str)]) {
        let Some((socket, to)) = self.socket.as_ref().zip(self.to.as_ref()) else { return };
        let line = |(name, value): &(&str, &str)| {
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            format!("{name}={value}\n")
        };
        let message: String = fields.iter().map(line).collect();
        // There is nobody else to tell.
        let _ = socket.send_to_addr(message.as_bytes(), to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::at(Some(path.into()), Some(Duration::from_secs(10)));
        assert_eq!(manager.every(), Some(Duration::from_secs(5)));
        manager.tell(&[("READY", "1"), ("STATUS", "a\nWATCHDOG=trigger")]);
        let mut bytes = [0; 100];
        let length = socket.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1\nSTATUS=aWATCHDOG=trigger\n");
    }

    #[test]
    fn without_a_manager_nothing_is_said() {
        ServiceManager::at(None, None).tell(&[("READY", "1")]);
        ServiceManager::at(Some("/none/notify".into()), None).tell(&[("READY", "1")]);
    }
}
