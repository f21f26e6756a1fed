//! A tar archive as a stream, header by header. Long names are read here and not by the library, which
//! would take them whole into memory.

use std::io::{self, Read};

use anyhow::Result;
use tar::{Archive, EntryType};

use super::{
    budget::Budget,
    piece::{Each, piece},
};

/// What tells the names of what follows is no longer.
const NAMING: u64 = 64 << 10;

pub(super) fn walk(source: impl Read, budget: &Budget, each: &mut Each<'_>) -> Result<()> {
    let mut archive = Archive::new(source);
    let damaged = |error: io::Error| budget.stop(format!("the archive is damaged: {error}"));
    let entries = match archive.entries() {
        Ok(entries) => entries.raw(true),
        Err(error) => {
            damaged(error);
            return Ok(());
        }
    };
    // Said ahead of the header that it belongs to.
    let mut long_name = None;
    for entry in entries {
        if !budget.enter() {
            return Ok(());
        }
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                damaged(error);
                return Ok(());
            }
        };
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::GNULongName | EntryType::XHeader) {
            let mut bytes = Vec::new();
            if let Err(error) = entry.by_ref().take(NAMING).read_to_end(&mut bytes) {
                damaged(error);
                return Ok(());
            }
            long_name = match kind {
                EntryType::XHeader => pax_path(&bytes).or(long_name),
                _ => Some(text(bytes.split(|byte| *byte == 0).next().unwrap_or_default())),
            };
            continue;
        }
        if matches!(kind, EntryType::GNULongLink | EntryType::XGlobalHeader) {
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| text(&entry.header().path_bytes()));
        let inside = match inside(&name, budget) {
            Ok(inside) => inside,
            Err(why) => {
                budget.leave_out(&name, why);
                continue;
            }
        };
        match kind {
            EntryType::Directory => {}
            // As the first archives named folders.
            EntryType::Regular | EntryType::Continuous if name.ends_with('/') => {}
            EntryType::Regular | EntryType::Continuous => piece(&inside, entry, budget, each)?,
            EntryType::Link | EntryType::Symlink => {
                budget.leave_out(&inside, "links are not followed");
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                budget.leave_out(&inside, "devices and pipes are not opened");
            }
            EntryType::GNUSparse => budget.leave_out(&inside, "files with holes are not read"),
            _ => budget.leave_out(&inside, "of a kind that is not known"),
        }
    }
    // Behind the archive's end stands what tells whether all that was packed is as it was.
    if let Err(error) = io::copy(&mut archive.into_inner(), &mut io::sink()) {
        damaged(error);
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A name without what says nothing; or why it is none of a file inside.
pub(super) fn inside(name: &str, budget: &Budget) -> Result<String, &'static str> {
    if name.len() > budget.limits.name {
        return Err("its name is too long");
    }
    if name.starts_with('/') {
        return Err("absolute names are not followed");
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err("names that lead out are not followed");
    }
    if parts.len() > budget.limits.depth {
        return Err("too many folders in each other");
    }
    Ok(parts.join("/"))
}

/// `27 path=a/long/name/of/it\n`: the length is that of the whole record.
fn pax_path(mut bytes: &[u8]) -> Option<String> {
    let mut path = None;
    while let Some(space) = bytes.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(text(value));
        }
        bytes = bytes.get(length..)?;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_pax_name_a_path() {
        assert_eq!(pax_path(b"11 path=ab\n13 mtime=1.5\n").as_deref(), Some("ab"));
        for other in [&b""[..], b"6 a=b\n", b"99 path=ab\n", b"x path=ab\n", b"0 path=ab\n", b"3 "]
        {
            assert_eq!(pax_path(other), None, "{}", text(other));
        }
    }
}
