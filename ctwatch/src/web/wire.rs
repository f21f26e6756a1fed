//! What the two processes say to each other, through a pair of sockets.

use std::io;

use serde::{Deserialize, Serialize};

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Page {
    OpenMetrics,
    Text,
    Landing,
    Snapshot,
    Top,
    Health,
}

impl Page {
    pub const COUNT: usize = 6;
    const ALL: [Self; Self::COUNT] =
        [Self::OpenMetrics, Self::Text, Self::Landing, Self::Snapshot, Self::Top, Self::Health];

    pub(super) fn of(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// What comes first, with the sockets.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) sockets: usize,
    /// The process that watches.
    pub(super) parent: u32,
    pub(super) telemetry_path: String,
    /// So many bytes follow, of who may come in.
    pub(super) secured: usize,
}

/// No longer than that.
pub(super) const HELLO: usize = 4096;
/// So many sockets at most.
pub const MOST_SOCKETS: usize = 16;
/// What the new process says once it has given up all that it does not need.
pub(super) const READY: u8 = b'r';
/// It is no page if it is longer.
const LONGEST: u32 = 256 << 20;

/// What comes before each answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// It is what it was.
    Same,
    /// A page of so many bytes.
    New(u32),
    /// There is none: why, in so many bytes.
    None(u32),
}

pub(super) const HEAD: usize = 5;

impl Head {
    pub(super) fn bytes(self) -> [u8; HEAD] {
        let (kind, length) = match self {
            Self::Same => (0, 0),
            Self::New(length) => (1, length),
            Self::None(length) => (2, length),
        };
        let [a, b, c, d] = length.to_le_bytes();
        [kind, a, b, c, d]
    }

    pub(super) fn of([kind, a, b, c, d]: [u8; HEAD]) -> io::Result<Self> {
        let length = u32::from_le_bytes([a, b, c, d]);
        match kind {
            0 => Ok(Self::Same),
            1 if length <= LONGEST => Ok(Self::New(length)),
            2 if length <= LONGEST => Ok(Self::None(length)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_were_written() {
        for head in [Head::Same, Head::New(0), Head::New(7_000_000), Head::None(12)] {
            assert_eq!(Head::of(head.bytes()).unwrap(), head);
        }
        assert!(Head::of([3, 0, 0, 0, 0]).is_err() && Head::of([1, 0, 0, 0, 255]).is_err());
    }

    #[test]
    fn each_page_has_its_byte() {
        for byte in 0..=u8::MAX {
            let page = Page::of(byte);
            assert_eq!(page.map(|page| page as u8), (byte < 6).then_some(byte));
        }
    }
}
