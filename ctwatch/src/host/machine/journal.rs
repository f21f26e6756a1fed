//! systemd's journal, told in fields, where standard error leads there.
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::{env::var_os, os::unix::net::UnixDatagram, path::Path};

use rustix::fs::fstat;

const SOCKET: &str = "/run/systemd/journal/socket";
/// One message takes no more: a larger one would have to be handed over as a file.
const LONGEST: usize = 64 << 10;

/// Name and value: names are capital letters, digits and `_`.
pub type Field<'a> = (&'static str, &'a str);

/// Whether what is said on standard error is in the journal already: then fields go there instead.
/// <https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html>, `$JOURNAL_STREAM`
fn is_standard_error() -> bool {
    let Some(stream) = var_os("JOURNAL_STREAM") else { return false };
    let Ok(stat) = fstat(std::io::stderr()) else { return false };
    stream.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Whether it was told.
pub fn tell(fields: &[Field<'_>]) -> bool {
    is_standard_error() && send(Path::new(SOCKET), fields)
}

/// The journal may be restarted, so each message has a socket of its own; it never waits.
fn send(socket: &Path, fields: &[Field<'_>]) -> bool {
    let message = message(fields);
    if message.len() > LONGEST {
        return false;
    }
    let Ok(to) = UnixDatagram::unbound() else { return false };
    let sent = to.set_nonblocking(true).and_then(|()| to.send_to(&message, socket));
    sent.is_ok_and(|sent| sent == message.len())
}

/// A value is told with its length: whatever is in it, it is no other field.
fn message(fields: &[Field<'_>]) -> Vec<u8> {
    let mut message = Vec::new();
    for (name, value) in fields {
        message.extend_from_slice(name.as_bytes());
        message.push(b'\n');
        message.extend_from_slice(&u64::try_from(value.len()).unwrap_or(u64::MAX).to_le_bytes());
        message.extend_from_slice(value.as_bytes());
        message.push(b'\n');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_no_other_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        assert!(send(&path, &[("MESSAGE", "x\nPRIORITY=0"), ("PRIORITY", "4")]));
        let mut bytes = [0; 200];
        let length = journal.recv(&mut bytes).unwrap();
        let wanted = b"MESSAGE\n\x0c\0\0\0\0\0\0\0x\nPRIORITY=0\nPRIORITY\n\x01\0\0\0\0\0\0\x004\n";
        assert_eq!(&bytes[..length], wanted);
    }

    #[test]
    fn nobody_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(!send(&path, &[("MESSAGE", "x")]), "there is none");
        let _full = UnixDatagram::bind(&path).unwrap();
        let sent = (0..100_000).take_while(|_| send(&path, &[("MESSAGE", "x")])).count();
        assert!(sent < 100_000, "it takes all");
        assert!(!send(&path, &[("MESSAGE", &"x".repeat(LONGEST))]), "it is too long");
    }
}
