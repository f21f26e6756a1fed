//! Netlink by hand, as much as a lab needs: many messages in one system call and no process.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail, ensure};

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// The largest answer of the kernel is 32 KiB.
const ANSWER: usize = 1 << 16;
static PATIENCE: libc::timeval = libc::timeval { tv_sec: 30, tv_usec: 0 };

/// Messages that are sent together. Each is acknowledged, unless `quietly` begins it.
#[derive(Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// What each is for, as an error names it.
    names: Vec<String>,
    /// Where the last begins.
    last: usize,
    awaited: usize,
}

impl Messages {
    /// Begins a message whose fixed part is `body`.
    pub(crate) fn begin(&mut self, kind: u16, flags: libc::c_int, body: &[u8], name: &str) {
        self.start(kind, flags | libc::NLM_F_ACK, body, name);
        self.awaited += 1;
    }

    /// Begins one that the kernel does not acknowledge.
    pub(crate) fn quietly(&mut self, kind: u16, flags: libc::c_int, body: &[u8], name: &str) {
        self.start(kind, flags, body, name);
    }

    fn start(&mut self, kind: u16, flags: libc::c_int, body: &[u8], name: &str) {
        self.last = self.bytes.len();
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
        let number = u32::try_from(self.names.len()).unwrap_or(0);
        self.names.push(name.to_owned());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&number.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(body);
        self.close();
    }

    /// Appends an attribute to the message that was begun last.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(0);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.close();
        self
    }

    /// A text that ends with a zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends an attribute that holds those that `inside` appends.
    pub(crate) fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        inside(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(0);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.close();
        self
    }

    /// Appends bytes that belong into a nested attribute before the attributes in it.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.close();
    }

    /// Pads to four bytes, and writes down how long the last message is by now.
    fn close(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
        let length = u32::try_from(padded - self.last).unwrap_or(0);
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// One of the network namespace of the thread that opens it.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn open(protocol: libc::c_int) -> Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: plain system calls with arguments that outlive them; the descriptor is owned at
        // once.
        unsafe {
            let fd = libc::socket(libc::AF_NETLINK, kind, protocol);
            ensure!(fd >= 0, "cannot open a netlink socket: {}", io::Error::last_os_error());
            let socket = Self(OwnedFd::from_raw_fd(fd));
            // The kernel answers at once or never.
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const PATIENCE).cast(),
                libc::socklen_t::try_from(size_of::<libc::timeval>())?,
            );
            Ok(socket)
        }
    }

    /// Sends them, and waits until the kernel has done what they say.
    pub(crate) fn tell(&self, messages: &Messages) -> Result<()> {
        self.send(&messages.bytes)?;
        let mut left = messages.awaited;
        while left > 0 {
            for answer in Answers::new(&self.receive()?) {
                let number = usize::try_from(answer.number)?;
                let name = || messages.names.get(number).cloned().unwrap_or_default();
                answer.good().with_context(name)?;
                left = left.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Asks for all of a kind, and hands over what follows the netlink header of each answer.
    pub(crate) fn dump(&self, kind: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> Result<()> {
        let mut question = Messages::default();
        question.quietly(kind, libc::NLM_F_DUMP, body, "dump");
        self.send(&question.bytes)?;
        loop {
            for answer in Answers::new(&self.receive()?) {
                match i32::from(answer.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => answer.good()?,
                    _ => each(answer.body),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        // SAFETY: the bytes outlive the call.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        let whole = usize::try_from(sent).is_ok_and(|sent| sent == bytes.len());
        ensure!(whole, "cannot send by netlink: {}", io::Error::last_os_error());
        Ok(())
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; ANSWER];
        // SAFETY: the buffer is as long as it is said to be.
        let got =
            unsafe { libc::recv(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => bytes.truncate(got),
            Err(_) => bail!("no answer by netlink: {}", io::Error::last_os_error()),
        }
        Ok(bytes)
    }
}

struct Answer<'a> {
    kind: u16,
    number: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// Of an error or an acknowledgement, which is an error of zero.
    fn good(&self) -> io::Result<()> {
        match self.body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

struct Answers<'a>(&'a [u8]);

impl<'a> Answers<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Answers<'a> {
    type Item = Answer<'a>;

    fn next(&mut self) -> Option<Answer<'a>> {
        let length = usize::try_from(number(self.0, 0)?).ok()?;
        let (kind, number) = (short(self.0, 4)?, number(self.0, 8)?);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer { kind, number, body })
    }
}

/// The attributes in these bytes: kind and value.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(short(rest, 0)?), short(rest, 2)?);
        let value = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}

pub(crate) fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut messages = Messages::default();
        messages.begin(20, libc::NLM_F_CREATE, &[1, 2, 3, 4], "first");
        messages.text(1, "ab").nest(2, |inside| {
            inside.attribute(3, &7u32.to_ne_bytes());
        });
        messages.quietly(21, 0, &[5], "second");
        let answers: Vec<Answer> = Answers::new(&messages.bytes).collect();
        assert_eq!((answers[0].kind, answers[1].kind, answers[1].number), (20, 21, 1));
        assert_eq!(answers[1].body, [5, 0, 0, 0]);
        let of: Vec<(u16, &[u8])> = attributes(&answers[0].body[4..]).collect();
        assert_eq!(of[0], (1, &b"ab\0"[..]));
        let inside: Vec<(u16, &[u8])> = attributes(of[1].1).collect();
        assert_eq!((of[1].0, inside), (2, vec![(3, &7u32.to_ne_bytes()[..])]));
        assert_eq!((messages.awaited, messages.names.len()), (1, 2));
    }

    #[test]
    fn a_cut_off_answer_ends_the_reading() {
        let mut messages = Messages::default();
        messages.begin(20, 0, &[0; 8], "only");
        assert_eq!(Answers::new(&messages.bytes[..HEADER + 4]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0]).count(), 0);
    }
}
