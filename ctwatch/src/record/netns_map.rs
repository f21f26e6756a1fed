//! A map by namespace that is cheap to ask: each tick asks one some ten thousand times.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use ctwatch_abi::NetnsId;

/// Needs no secret: the kernel chooses these numbers, and the programs have places for only so many
/// namespaces.
pub type NetnsMap<T> = HashMap<NetnsId, T, BuildHasherDefault<NetnsHasher>>;

#[derive(Clone, Copy, Debug, Default)]
pub struct NetnsHasher(u64);

impl Hasher for NetnsHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        // The map takes both ends of the hash: an odd factor spreads numbers in a row over both.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use super::*;

    #[test]
    fn numbers_in_a_row_are_spread() {
        let hash = |id: NetnsId| BuildHasherDefault::<NetnsHasher>::default().hash_one(id);
        for step in [1, 2, 4096, 1 << 32] {
            let low: HashSet<u64> = (0..4096).map(|id| hash(id * step) & 0xfff).collect();
            let high: HashSet<u64> = (0..4096).map(|id| hash(id * step) >> 57).collect();
            assert!(low.len() > 1024 && high.len() == 128, "{step}: {} {}", low.len(), high.len());
        }
    }
}
