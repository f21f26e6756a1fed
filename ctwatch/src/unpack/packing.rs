//! How a file is packed, by its first bytes.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use tar::Header;

use super::{
    budget::{Budget, CountingReader, Unzipped},
    xz::XzStream,
};

/// A block of a tar archive; no magic number needs more.
const BLOCK: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Not at all, or not in a way that is known.
    Plain,
    Gzip,
    Xz,
    /// One that is not unpacked.
    Other(&'static str),
}

const OTHERS: [(&[u8], &str); 7] = [
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "packed by bzip2"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "packed by zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (&[0x04, 0x22, 0x4d, 0x18], "packed by lz4"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"!<arch>\n", "an ar archive"),
];

impl Packing {
    pub(super) fn of(start: &[u8]) -> Self {
        if start.starts_with(&[0x1f, 0x8b]) {
            return Self::Gzip;
        }
        if start.starts_with(b"\xfd7zXZ\0") {
            return Self::Xz;
        }
        let other = OTHERS.iter().find(|(magic, _)| start.starts_with(magic));
        other.map_or(Self::Plain, |(_, name)| Self::Other(name))
    }

    /// What it is called, where it is packed.
    pub(super) fn named(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some("packed by gzip"),
            Self::Xz => Some("packed by xz"),
            Self::Other(name) => Some(name),
        }
    }
}

/// Whether an archive begins so. By the sum of its first header: the magic number is not in old ones.
pub(super) fn is_tar(start: &[u8]) -> bool {
    let Some(block) = start.get(..BLOCK).filter(|block| block[0] != 0) else { return false };
    let header = Header::from_byte_slice(block);
    // As signed bytes in some old ones, which are not asked for.
    let (field, sum) = (148..156, |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>());
    let counted = sum(&block[..field.start]) + 8 * u32::from(b' ') + sum(&block[field.end..]);
    header.cksum().is_ok_and(|said| said == counted)
}

/// What is read already, and the rest behind it.
pub(super) type Started<R> = Chain<Cursor<Vec<u8>>, R>;

/// The first bytes, and all of it.
pub(super) fn started<R: Read>(mut source: R) -> io::Result<(Vec<u8>, Started<R>)> {
    let mut start = Vec::with_capacity(BLOCK);
    source.by_ref().take(BLOCK as u64).read_to_end(&mut start)?;
    Ok((start.clone(), Cursor::new(start).chain(source)))
}

pub(super) fn decoded<'a>(
    packing: Packing,
    source: impl Read + 'a,
    budget: &'a Budget,
) -> io::Result<Box<dyn Read + 'a>> {
    const PORTION: usize = 64 << 10;
    let (counted, packed) = CountingReader::new(source);
    let buffered = BufReader::with_capacity(PORTION, counted);
    Ok(match packing {
        Packing::Gzip => Box::new(Unzipped::new(MultiGzDecoder::new(buffered), packed, budget)),
        Packing::Xz => {
            let stream = XzStream::new(buffered, budget.limits.dictionary);
            Box::new(Unzipped::new(stream, packed, budget))
        }
        Packing::Plain | Packing::Other(_) => Box::new(buffered),
    })
}
