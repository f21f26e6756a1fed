//! Each parser against tens of thousands of mutations of its seeds, the same ones every time. For
//! more, and guided by what they reach: `cargo xtask fuzz`.

use std::{fs, panic::catch_unwind};

use ctwatch_fuzz::{PARSERS, Parser, seeds};
use libtest_mimic::{Arguments, Failed, Trial};

const MUTATIONS: usize = 20_000;

fn main() -> std::process::ExitCode {
    let trials = PARSERS.iter().map(|parser| Trial::test(parser.name, || try_out(parser)));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn try_out(parser: &'static Parser) -> Result<(), Failed> {
    let folder = seeds(parser.name);
    let mut entries = fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let seeds = entries.iter().map(|entry| fs::read(entry.path()));
    let seeds = seeds.collect::<Result<Vec<_>, _>>()?;
    if seeds.is_empty() {
        return Err(format!("{} holds no seeds", folder.display()).into());
    }
    let mut random = Random(88_172_645_463_325_252);
    let whole = seeds.iter().cloned();
    let cut = seeds.iter().flat_map(|seed| (0..seed.len()).map(|len| seed[..len].to_vec()));
    let mutated = (0..MUTATIONS).map(|_| random.mutation(&seeds));
    for input in whole.chain(cut).chain(mutated) {
        if catch_unwind(|| (parser.read)(&input)).is_err() {
            return Err(format!("it panicked on {}", input.escape_ascii()).into());
        }
    }
    Ok(())
}

/// Xorshift: a test must be the same one every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 1).unwrap_or(0) % limit.max(1)
    }

    /// One of the seeds, spoilt in up to eight places.
    fn mutation(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        const ABSURD: [&[u8]; 8] = [
            &[0],
            &[0xff],
            &[0, 0, 0, 0],
            &[0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 0x80],
            &[0xff, 0xff, 0xff, 0x7f],
            b"18446744073709551616",
            b"\n\n",
        ];
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.next().to_le_bytes()[0],
                2 => {
                    let absurd = ABSURD[self.below(ABSURD.len())];
                    let end = (at + absurd.len()).min(bytes.len());
                    bytes.splice(at..end, absurd.iter().copied());
                }
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes
    }
}
