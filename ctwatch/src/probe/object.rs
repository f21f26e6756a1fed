//! The compiled programs, as this executable carries them.

use std::io::Read;

use anyhow::{Context, Result};
use flate2::read::ZlibDecoder;

/// What build.rs packed: a fifth of the object's size, and in memory only while something is loaded from it.
#[cfg(probes)]
pub(super) static PACKED: Option<&[u8]> =
    Some(include_bytes!(concat!(env!("OUT_DIR"), "/probes.zlib")));
#[cfg(not(probes))]
pub(super) static PACKED: Option<&[u8]> = None;

/// About as many times larger is the object: room for it is made once.
const TIMES: usize = 8;

pub(super) fn object() -> Result<Vec<u8>> {
    let packed = PACKED.context("this executable was built without probes")?;
    let mut object = Vec::with_capacity(packed.len() * TIMES);
    let unpacked = ZlibDecoder::new(packed).read_to_end(&mut object);
    unpacked.context("the probes in this executable are damaged")?;
    Ok(object)
}
