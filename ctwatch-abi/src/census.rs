//! What the program that walks the table and the process that reads it agree on.

use crate::{NetnsId, Plain};

/// Entries that one run hands over at most.
pub const RECORDS: u32 = STEPS;
/// Entries and buckets that one run looks at: it holds its CPU for as long.
pub const STEPS: u32 = 128;
/// Longer than any chain gets (the kernel draws the line at 255, or where a table is small at a
/// few hundred): whoever is still walking goes round in circles.
pub const LONGEST: u64 = 4096;
/// As much of an entry as is copied at most.
pub const ENTRY: usize = 512;

/// A piece of the kernel's memory to be copied to the first record; 0 bytes where it could not be.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    pub at: u64,
    pub bytes: u64,
}

/// Where the walk is. It goes on from there in the next run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Where the kernel keeps `nf_conntrack_hash` and `nf_conntrack_htable_size`.
    pub table_at: u64,
    pub size_at: u64,
    /// What they held when the walk began; 0 before.
    pub table: u64,
    pub buckets: u64,
    /// The bucket after the one that is being walked.
    pub bucket: u64,
    /// The next entry of its chain, while there is one.
    pub node: u64,
    pub in_chain: u64,
    pub chain: u64,
    /// Records of this run.
    pub filled: u64,
    /// The kernel's clock in this run.
    pub jiffies: u64,
    /// Chains that led elsewhere: an entry went, and began another life in another chain, while it
    /// was looked at. What is behind it in its own was not seen.
    pub strayed: u64,
    /// The table was replaced by one of another size.
    pub moved: u64,
    /// The namespace of the last entry, and its name.
    pub net: u64,
    pub netns: NetnsId,
}

/// One entry, as it is in the kernel's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub netns: NetnsId,
    pub entry: [u8; ENTRY],
}

impl Cursor {
    /// Nothing is left to be walked.
    pub fn is_done(&self) -> bool {
        self.table != 0 && self.in_chain == 0 && self.bucket >= self.buckets
    }
}

const _: () = {
    assert!(size_of::<Cursor>() == 14 * 8);
    assert!(size_of::<Record>() == 8 + ENTRY);
};

// SAFETY: repr(C) and integers of one size only.
unsafe impl Plain for Cursor {}
// SAFETY: the same.
unsafe impl Plain for Peek {}
// SAFETY: repr(C), integers and bytes, and no implicit padding (the assertion above).
unsafe impl Plain for Record {}
