//! Netlink attributes of netfilter: a kind, a length, and bytes or more attributes.

use anyhow::{Context, Result};
use netlink_packet_core::{NlaBuffer, NlasIterator};

/// `struct nlattr`
const HEADER: usize = 4;

pub(super) fn attributes(
    bytes: &[u8],
    mut each: impl FnMut(u16, &[u8]) -> Result<()>,
) -> Result<()> {
    for attribute in NlasIterator::new(bytes) {
        let attribute: NlaBuffer<&[u8]> = attribute.context("malformed netlink attributes")?;
        each(attribute.kind(), attribute.value())?;
    }
    Ok(())
}

/// The first of this kind.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    for attribute in NlasIterator::new(bytes) {
        let attribute: NlaBuffer<&[u8]> = attribute.ok()?;
        if attribute.kind() == wanted {
            let len = attribute.value().len();
            return attribute.into_inner().get(HEADER..HEADER + len);
        }
    }
    None
}

pub(super) fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn be64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Up to the zero it ends with.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
