//! Where the kernel keeps its table, on kernels that name their functions only (without
//! `CONFIG_KALLSYMS_ALL`): somewhere among the variables that a function which replaces the table
//! refers to. Pure: what is in the kernel's memory is somebody else's to read.
//!
//! Nothing is believed for where it stands. The size is the variable that holds it; the table is
//! the one whose chains each end with the number of their bucket.
//! <https://github.com/torvalds/linux/blob/v6.12/include/linux/list_nulls.h> `NULLS_MARKER`

use anyhow::{Result, bail, ensure};

/// A function that refers to both. <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c>
pub const REFERRING: &str = "nf_conntrack_hash_resize";
/// As much of its code as is looked at.
pub const CODE: usize = 4096;

/// Buckets that are looked at, and how many of them must be right: entries come and go meanwhile.
const BUCKETS: u64 = 64;
const RIGHT: u64 = 56;
/// A chain that is longer than this tells nothing.
const LONGEST: usize = 512;

/// Addresses of two variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablePlace {
    /// `struct hlist_nulls_head *nf_conntrack_hash`
    pub table_at: u64,
    /// `unsigned int nf_conntrack_htable_size`
    pub size_at: u64,
}

/// Addresses that some code refers to.
pub type Referred = fn(code: &[u8], start: u64) -> Vec<u64>;

/// As this machine's code is to be read.
pub const REFERRED: Referred = {
    #[cfg(target_arch = "x86_64")]
    let referred = x86_64;
    #[cfg(target_arch = "aarch64")]
    let referred = aarch64;
    // No program runs on any other, and so none looks for the table.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let referred = nowhere;
    referred
};

/// `word` reads eight bytes of the kernel's memory, `None` where there is none.
pub fn find(
    referred: &[u64],
    buckets: u32,
    mut word: impl FnMut(u64) -> Option<u64>,
) -> Result<TablePlace> {
    ensure!(buckets > 0, "the table has no buckets");
    let mut candidates: Vec<u64> = referred.iter().copied().filter(|at| is_kernel(*at)).collect();
    candidates.sort_unstable();
    candidates.dedup();
    let sizes = candidates.iter().filter(|at| at.is_multiple_of(4));
    let sizes: Vec<u64> = sizes
        .copied()
        .filter(|at| word(*at).is_some_and(|value| value & 0xffff_ffff == u64::from(buckets)))
        .collect();
    let tables = candidates.iter().filter(|at| at.is_multiple_of(8));
    let tables: Vec<u64> = tables
        .copied()
        .filter(|at| word(*at).is_some_and(|table| is_table(table, buckets.into(), &mut word)))
        .collect();
    match (&tables[..], &sizes[..]) {
        ([table_at], [size_at]) => Ok(TablePlace { table_at: *table_at, size_at: *size_at }),
        _ => bail!(
            "of {} variables that {REFERRING} refers to, {} may be the table and {} its size",
            candidates.len(),
            tables.len(),
            sizes.len()
        ),
    }
}

/// The half of the address space that is the kernel's, however many levels its page tables have.
fn is_kernel(address: u64) -> bool {
    address >> 56 == 0xff
}

fn is_table(table: u64, buckets: u64, word: &mut impl FnMut(u64) -> Option<u64>) -> bool {
    if !is_kernel(table) || !table.is_multiple_of(8) {
        return false;
    }
    let looked_at = BUCKETS.min(buckets);
    let (mut right, mut wrong) = (0, 0);
    for number in 0..looked_at {
        let bucket = number * buckets / looked_at;
        // What is no table may stand too near the end of memory for so many buckets.
        let head = table.checked_add(bucket * 8);
        match head.and_then(|head| end_of_chain(head, word)) {
            Some(end) if end >> 1 == bucket => right += 1,
            _ => wrong += 1,
        }
        // Most of what is no table is found out by its first bucket.
        if wrong > BUCKETS - RIGHT {
            return false;
        }
    }
    // Of a small table all.
    right >= RIGHT.min(looked_at)
}

/// What the last link of a chain holds in place of an address.
fn end_of_chain(head: u64, word: &mut impl FnMut(u64) -> Option<u64>) -> Option<u64> {
    let mut link = word(head)?;
    for _ in 0..LONGEST {
        if link & 1 == 1 {
            return Some(link);
        }
        link = is_kernel(link).then(|| word(link)).flatten()?;
    }
    None
}

/// For machines whose code is not read.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn nowhere(_: &[u8], _: u64) -> Vec<u64> {
    Vec::new()
}

/// `op reg, [rip + disp32]` without a constant behind it: what a variable is read and written by.
pub fn x86_64(code: &[u8], start: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let bytes = code.windows(5).zip(start..);
    for (bytes, at) in bytes {
        let [modrm, displacement @ ..] = bytes else { continue };
        let Ok(displacement) = <[u8; 4]>::try_from(displacement) else { continue };
        if modrm & 0xc7 == 0x05 {
            let next = at + 5;
            found.push(next.wrapping_add_signed(i32::from_le_bytes(displacement).into()));
        }
    }
    found
}

/// `adrp` for a page, and what is added to it by `add` or by the load or store itself.
pub fn aarch64(code: &[u8], start: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut registers = [None; 32];
    for (bytes, at) in code.chunks_exact(4).zip((start..).step_by(4)) {
        let Ok(bytes) = <[u8; 4]>::try_from(bytes) else { continue };
        let instruction = u32::from_le_bytes(bytes);
        let register = |shift: u32| (instruction >> shift & 31) as usize;
        let constant = u64::from(instruction >> 10 & 0xfff);
        if instruction & 0x9f00_0000 == 0x9000_0000 {
            // 21 bits of pages, with a sign.
            let pages = (instruction >> 5 & 0x7_ffff) << 2 | instruction >> 29 & 3;
            let pages = i64::from((pages << 11).cast_signed() >> 11);
            registers[register(0)] = Some((at & !0xfff).wrapping_add_signed(pages << 12));
        } else if instruction & 0xff80_0000 == 0x9100_0000 {
            let shift = if instruction & 1 << 22 != 0 { 12 } else { 0 };
            let sum = registers[register(5)].map(|base: u64| base.wrapping_add(constant << shift));
            registers[register(0)] = sum;
            found.extend(sum);
        } else if instruction & 0x3f00_0000 == 0x3900_0000 {
            let size = instruction >> 30;
            found.extend(
                registers[register(5)].map(|base: u64| base.wrapping_add(constant << size)),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const START: u64 = 0xffff_ffff_81f3_8700;
    const TABLE_AT: u64 = 0xffff_ffff_82a0_0010;
    const SIZE_AT: u64 = 0xffff_ffff_82a0_0004;
    /// With page tables of five levels.
    const TABLE: u64 = 0xff11_0000_1000_0000;
    const SIZE: u32 = 1024;

    /// A table in which each bucket has as many entries as the last digit of its number.
    fn memory() -> HashMap<u64, u64> {
        let mut memory = HashMap::new();
        memory.insert(TABLE_AT, TABLE);
        memory.insert(SIZE_AT, 0xdead_beef_0000_0000 | u64::from(SIZE));
        for bucket in 0..u64::from(SIZE) {
            let mut link = TABLE + bucket * 8;
            for entry in 0..bucket % 10 {
                let node = 0xffff_8880_2000_0000 + bucket * 4096 + entry * 256;
                memory.insert(link, node);
                link = node;
            }
            memory.insert(link, bucket << 1 | 1);
        }
        memory
    }

    fn found(memory: &HashMap<u64, u64>, referred: &[u64]) -> Result<TablePlace> {
        find(referred, SIZE, |at| memory.get(&at).copied())
    }

    #[test]
    fn the_table_is_what_ends_as_one() {
        let mut memory = memory();
        // A pointer to something else, one to nowhere, a number, and a table that is not this one.
        let (other, nowhere, number) = (TABLE_AT + 8, TABLE_AT + 16, TABLE_AT + 24);
        memory.insert(other, TABLE + 8);
        memory.insert(nowhere, 0xffff_8880_7000_0000);
        memory.insert(number, 7);
        let referred = [number, 5, other, TABLE_AT, SIZE_AT, nowhere, TABLE_AT, u64::MAX];
        let place = found(&memory, &referred).unwrap();
        assert_eq!(place, TablePlace { table_at: TABLE_AT, size_at: SIZE_AT });
    }

    #[test]
    fn entries_may_move_while_it_is_looked_at_but_not_most_of_them() {
        let mut memory = memory();
        let strays = |memory: &mut HashMap<u64, u64>, number: u64| {
            for bucket in (0..number).map(|number| number * 16) {
                memory.insert(TABLE + bucket * 8, 3 << 1 | 1);
            }
        };
        strays(&mut memory, 8);
        assert!(found(&memory, &[TABLE_AT, SIZE_AT]).is_ok());
        strays(&mut memory, 9);
        assert!(found(&memory, &[TABLE_AT, SIZE_AT]).is_err());
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_guessed() {
        let mut memory = memory();
        memory.insert(SIZE_AT + 64, SIZE.into());
        let error = found(&memory, &[TABLE_AT, SIZE_AT, SIZE_AT + 64]).unwrap_err().to_string();
        assert!(error.contains("1 may be the table and 2 its size"), "{error}");
        assert!(found(&memory, &[SIZE_AT]).is_err());
        assert!(found(&memory, &[]).is_err());
        assert!(find(&[TABLE_AT], 0, |at| memory.get(&at).copied()).is_err());
    }

    #[test]
    fn a_chain_that_goes_round_in_circles_is_no_chain() {
        let mut memory = HashMap::from([(TABLE_AT, TABLE), (SIZE_AT, SIZE.into())]);
        memory.extend((0..u64::from(SIZE)).map(|bucket| (TABLE + bucket * 8, TABLE)));
        assert!(found(&memory, &[TABLE_AT, SIZE_AT]).is_err());
    }

    #[test]
    fn what_code_for_x86_64_refers_to() {
        // mov 0xac78ed(%rip),%eax; nop; mov %rbx,0xac78f2(%rip); mov 0x8(%rdi),%rax
        let code = [
            0x8b, 0x05, 0xfe, 0x78, 0xac, 0x00, 0x90, 0x48, 0x89, 0x1d, 0x02, 0x79, 0xac, 0x00,
            0x48, 0x8b, 0x47, 0x08,
        ];
        assert_eq!(x86_64(&code, START), [SIZE_AT, TABLE_AT]);
        assert!(x86_64(&code[..4], START).is_empty());
    }

    #[test]
    fn what_code_for_aarch64_refers_to() {
        let code = [
            0xf000_5640_u32, // adrp x0, page of the variables (0xacb pages on)
            0xb940_0401,     // ldr  w1, [x0, #4]
            0x9100_4002,     // add  x2, x0, #16
            0xf900_0043,     // str  x3, [x2]
            0xf940_0884,     // ldr  x4, [x4, #16]: of no known page
            0x9000_0005,     // adrp x5, this page
            0xf0ff_ffe6,     // adrp x6, the one before
            0x9100_40c6,     // add  x6, x6, #16
        ];
        let bytes: Vec<u8> = code.iter().flat_map(|code| code.to_le_bytes()).collect();
        let page = (START & !0xfff) + (0xacb << 12);
        let before = (START & !0xfff) - 0x1000 + 16;
        assert_eq!(aarch64(&bytes, START), [page + 4, page + 16, page + 16, before]);
    }

    #[test]
    fn nonsense_refers_to_nonsense() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut code = Vec::new();
        for _ in 0..CODE / 8 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            code.extend_from_slice(&random.to_ne_bytes());
        }
        for start in [0, START, u64::MAX - CODE as u64] {
            for referred in [x86_64(&code, start), aarch64(&code, start)] {
                assert!(found(&memory(), &referred).is_err());
            }
        }
    }
}
