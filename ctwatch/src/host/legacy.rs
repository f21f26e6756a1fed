//! Tables of iptables-legacy and ip6tables-legacy in the calling thread's namespace, and which of
//! their rules have to do with tracking.
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter_ipv4/ip_tables.h>

use std::{fs, io, os::fd::AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use super::{
    attributes::text,
    xtables::{self, Match, Target},
};
use crate::facts::{Framework, Known, RuleTable, RuleUse};

/// One of the two.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    family: &'static str,
    /// Names the tables that exist in this namespace; asking for another would load its module.
    names: &'static str,
    domain: AddressFamily,
    level: i32,
    /// Where in an entry what follows the addresses begins: `nfcache`.
    rest: usize,
    /// Where its counters are, and how long it is.
    counters: usize,
    entry: usize,
}

pub const IPV4: Kind = Kind {
    family: "ip",
    names: "/proc/thread-self/net/ip_tables_names",
    domain: AddressFamily::INET,
    level: libc::SOL_IP,
    rest: 84,
    counters: 96,
    entry: 112,
};

pub const IPV6: Kind = Kind {
    family: "ip6",
    names: "/proc/thread-self/net/ip6_tables_names",
    domain: AddressFamily::INET6,
    level: libc::SOL_IPV6,
    rest: 136,
    counters: 152,
    entry: 168,
};

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; of IPv6 the same.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// `XT_TABLE_MAXNAMELEN`
const NAME: usize = 32;
/// `struct ipt_getinfo`
const INFO: usize = 84;
/// `struct ipt_get_entries`, up to the entries.
const HEADER: usize = 40;
/// More than any sane table, and what would be allocated for one.
const MOST: usize = 64 << 20;
/// `struct xt_entry_match`, `struct xt_entry_target`, up to what is their own.
const PART: usize = 32;
/// `-NF_DROP - 1`
const DROP: i32 = -1;

const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

pub fn tables() -> Known<Vec<RuleTable>> {
    let mut tables = Vec::new();
    for kind in [IPV4, IPV6] {
        let names = match fs::read_to_string(kind.names) {
            Ok(names) => names,
            // Its module is not loaded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("cannot read {}: {error}", kind.names)),
        };
        for name in names.lines() {
            let table = read(kind, name);
            tables.push(table.map_err(|error| {
                format!("cannot read the table {name} of {}: {error:#}", kind.family)
            })?);
        }
    }
    Ok(tables)
}

fn read(kind: Kind, name: &str) -> Result<RuleTable> {
    let socket = socket(kind.domain, SocketType::RAW, Some(ipproto::RAW))
        .context("cannot open a raw socket")?;
    let ask = |option: i32, buffer: &mut [u8]| -> Result<usize> {
        let mut len = libc::socklen_t::try_from(buffer.len())?;
        // SAFETY: an open socket, and a buffer of the length that is passed along.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                kind.level,
                option,
                buffer.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        ensure!(answer == 0, io::Error::last_os_error());
        Ok(len as usize)
    };
    // A table that changes between the two questions has another size.
    for _ in 0..5 {
        let mut info = vec![0; INFO];
        put_name(&mut info, name)?;
        ask(GET_INFO, &mut info)?;
        let size = word(&info, INFO - 4)? as usize;
        ensure!(size <= MOST, "{size} bytes of rules");
        let mut entries = vec![0; HEADER + size];
        put_name(&mut entries, name)?;
        entries[NAME..NAME + 4].copy_from_slice(&u32::try_from(size)?.to_ne_bytes());
        match ask(GET_ENTRIES, &mut entries) {
            Ok(_) => return parse(kind, name, &info, &entries[HEADER..]),
            Err(error) if error.downcast_ref().is_some_and(is_changed) => {}
            Err(error) => return Err(error),
        }
    }
    bail!("it changes all the time")
}

fn is_changed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAGAIN)
}

fn put_name(buffer: &mut [u8], name: &str) -> Result<()> {
    ensure!(name.len() < NAME, "too long a name");
    buffer[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).context("it is cut off")?;
    Ok(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Result<usize> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).context("it is cut off")?;
    Ok(u16::from_ne_bytes(*bytes).into())
}

/// What the kernel answered to both questions.
pub fn parse(kind: Kind, name: &str, info: &[u8], entries: &[u8]) -> Result<RuleTable> {
    let mut table = RuleTable::new(Framework::Legacy, kind.family, name.to_owned());
    let valid = word(info, NAME)?;
    let mut begins = Vec::new();
    let mut policies = Vec::new();
    for (number, chain) in CHAINS.iter().enumerate() {
        if valid & 1 << number != 0 {
            begins.push((word(info, NAME + 4 + 4 * number)? as usize, *chain));
            policies.push(word(info, NAME + 24 + 4 * number)? as usize);
        }
    }
    let all = split(kind, entries)?;
    let (mut chain, mut number, mut own) = (String::new(), 0, false);
    for (position, (at, entry)) in all.iter().enumerate() {
        if let Some((_, builtin)) = begins.iter().find(|(begin, _)| begin == at) {
            (chain, number, own) = ((*builtin).to_owned(), 0, false);
        }
        let (target, target_info) = target_of(kind, entry)?;
        if target == "ERROR" {
            (chain, number, own) = (text(target_info), 0, true);
            continue;
        }
        // A chain of one's own ends with a return that nobody wrote.
        let next = all.get(position + 1).map(|(_, next)| target_of(kind, next)).transpose()?;
        let ends = own && next.is_none_or(|(target, _)| target == "ERROR");
        if policies.contains(at) || ends {
            continue;
        }
        number += 1;
        table.add(rule(kind, entry, &chain, number, (&target, target_info))?);
    }
    Ok(table)
}

/// Each entry, and where it begins.
fn split(kind: Kind, entries: &[u8]) -> Result<Vec<(usize, &[u8])>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < entries.len() {
        let next = half(entries, at + kind.rest + 6)?;
        ensure!(next >= kind.entry + PART, "an entry of {next} bytes");
        all.push((at, entries.get(at..at + next).context("an entry is cut off")?));
        at += next;
    }
    Ok(all)
}

fn target_of(kind: Kind, entry: &[u8]) -> Result<(String, &[u8])> {
    let at = half(entry, kind.rest + 4)?;
    ensure!(at >= kind.entry, "a target inside its entry's head");
    let part = entry.get(at..).filter(|part| part.len() >= PART).context("a target is cut off")?;
    Ok((text(&part[2..PART - 1]), &part[PART..]))
}

fn rule(
    kind: Kind,
    entry: &[u8],
    chain: &str,
    number: u64,
    (target, target_info): (&str, &[u8]),
) -> Result<Option<RuleUse>> {
    let end = half(entry, kind.rest + 4)?;
    let matches = entry.get(kind.entry..end).context("matches are cut off")?;
    let (mut by, mut invalid, mut other) = (Vec::new(), false, false);
    let mut at = 0;
    while at < matches.len() {
        let len = half(matches, at)?;
        ensure!(len >= PART, "a match of {len} bytes");
        let part = matches.get(at..at + len).context("a match is cut off")?;
        let name = text(&part[2..PART - 1]);
        match xtables::matched(&name, &part[PART..]) {
            Match::Other => {}
            Match::Tracking => (other, _) = (true, by.push(format!("-m {name}"))),
            Match::Invalid => (invalid, _) = (true, by.push(format!("-m {name}"))),
        }
        at += len;
    }
    let mut notrack = false;
    match xtables::target(target, target_info) {
        Target::Other => {}
        Target::Tracking => by.push(format!("-j {target}")),
        Target::NoTrack => {
            notrack = by.is_empty();
            by.push(format!("-j {target} --notrack"));
        }
    }
    let drops = target.is_empty() && word(target_info, 0)?.cast_signed() == DROP;
    let packets = entry.get(kind.counters..).and_then(|rest| rest.first_chunk());
    Ok((!by.is_empty()).then(|| RuleUse {
        chain: chain.to_owned(),
        number,
        by,
        notrack,
        drops_invalid: invalid && !other && drops,
        packets: packets.map(|bytes| u64::from_ne_bytes(*bytes)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A match or a target.
    fn part(name: &str, info: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; PART];
        bytes[2..2 + name.len()].copy_from_slice(name.as_bytes());
        bytes.extend_from_slice(info);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let len = bytes.len() as u16;
        bytes[..2].copy_from_slice(&len.to_ne_bytes());
        bytes
    }

    fn verdict(verdict: i32) -> Vec<u8> {
        part("", &verdict.to_ne_bytes())
    }

    fn entry(kind: Kind, matches: &[Vec<u8>], target: &[u8], packets: u64) -> Vec<u8> {
        let mut bytes = vec![0; kind.entry];
        bytes[kind.counters..kind.counters + 8].copy_from_slice(&packets.to_ne_bytes());
        bytes.extend(matches.concat());
        let at = bytes.len() as u16;
        bytes.extend_from_slice(target);
        let next = bytes.len() as u16;
        bytes[kind.rest + 4..kind.rest + 6].copy_from_slice(&at.to_ne_bytes());
        bytes[kind.rest + 6..kind.rest + 8].copy_from_slice(&next.to_ne_bytes());
        bytes
    }

    /// FORWARD with a rule and its policy, a chain of one's own with a rule and its end, the end.
    fn table(kind: Kind) -> (Vec<u8>, Vec<u8>) {
        let entries = [
            entry(kind, &[], &part("MASQUERADE", &[0; 8]), 5),
            entry(kind, &[], &verdict(-2), 0),
            entry(kind, &[], &part("ERROR", b"OWN\0"), 0),
            entry(kind, &[part("tcp", &[])], &verdict(-2), 0),
            entry(kind, &[part("state", &1u32.to_ne_bytes())], &verdict(DROP), 42),
            entry(kind, &[], &part("CT", &[1, 0]), 3),
            entry(kind, &[], &verdict(-5), 0),
            entry(kind, &[], &part("ERROR", b"ERROR\0"), 0),
        ];
        let mut info = vec![0; INFO];
        let put = |info: &mut Vec<u8>, at: usize, value: u32| {
            info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        };
        put(&mut info, NAME, 1 << 2);
        put(&mut info, NAME + 24 + 4 * 2, entries[0].len() as u32);
        (info, entries.concat())
    }

    #[test]
    fn rules_are_numbered_as_iptables_does() {
        for kind in [IPV4, IPV6] {
            let (info, entries) = table(kind);
            let table = parse(kind, "filter", &info, &entries).unwrap();
            assert_eq!((table.family, table.rules), (kind.family, 4), "{table:?}");
            let [nat, invalid, notrack] = table.uses.as_slice() else { panic!("{table:?}") };
            assert_eq!((nat.chain.as_str(), nat.number, nat.packets), ("FORWARD", 1, Some(5)));
            assert_eq!(nat.by, ["-j MASQUERADE"]);
            assert_eq!((invalid.chain.as_str(), invalid.number), ("OWN", 2));
            assert!(invalid.drops_invalid && invalid.packets == Some(42));
            assert!(notrack.notrack && !notrack.drops_invalid);
        }
    }

    #[test]
    fn truncated_and_absurd_tables_are_errors_not_panics() {
        for kind in [IPV4, IPV6] {
            let (info, entries) = table(kind);
            for len in 0..entries.len() {
                let _ = parse(kind, "filter", &info, &entries[..len]);
            }
            for len in 0..info.len() - 40 {
                let _ = parse(kind, "filter", &info[..len], &entries);
            }
            for at in 0..entries.len() {
                for value in [0, 1, 8, 0x7f, 0xff] {
                    let mut bytes = entries.clone();
                    bytes[at] = value;
                    let _ = parse(kind, "filter", &info, &bytes);
                }
            }
        }
    }
}
