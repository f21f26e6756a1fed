//! Tables of iptables-legacy and ip6tables-legacy in the calling thread's namespace, and which of
//! their rules have to do with tracking.
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter_ipv4/ip_tables.h>

use std::{collections::BTreeMap, fs, io, net::IpAddr, os::fd::AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketType, socket};

use super::{attributes::text, xtables};
use crate::record::facts::{Act, Base, Condition, Framework, Known, Rule, RuleTable, RuleUse};

/// One of the two.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    family: &'static str,
    /// Bytes of an address, and where the protocol and the flags of the head are.
    address: usize,
    protocol: usize,
    flags: usize,
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
    address: 4,
    protocol: 80,
    flags: 82,
    names: "/proc/thread-self/net/ip_tables_names",
    domain: AddressFamily::INET,
    level: libc::SOL_IP,
    rest: 84,
    counters: 96,
    entry: 112,
};

pub const IPV6: Kind = Kind {
    family: "ip6",
    address: 16,
    protocol: 128,
    flags: 131,
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
/// `-NF_DROP - 1`, and the others.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const RETURN: i32 = -5;

/// As they are named here, and as netfilter names the hooks.
pub const CHAINS: [(&str, &str); 5] = [
    ("PREROUTING", "prerouting"),
    ("INPUT", "input"),
    ("FORWARD", "forward"),
    ("OUTPUT", "output"),
    ("POSTROUTING", "postrouting"),
];

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
    // Any socket of the family is asked as well as a raw one, which would take CAP_NET_RAW.
    let socket = socket(kind.domain, SocketType::DGRAM, None).context("cannot open a socket")?;
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
    for (number, (chain, hook)) in CHAINS.iter().enumerate() {
        if valid & 1 << number != 0 {
            begins.push((word(info, NAME + 4 + 4 * number)? as usize, *chain));
            policies.push(word(info, NAME + 24 + 4 * number)? as usize);
            let base = Base::of(name == "nat", hook, priority(name));
            table.chain(chain).base = Some(base);
        }
    }
    let all = split(kind, entries)?;
    let own_chains = own_chains(kind, &all)?;
    let (mut chain, mut number, mut own) = (String::new(), 0, false);
    for (position, (at, entry)) in all.iter().enumerate() {
        if let Some((_, builtin)) = begins.iter().find(|(begin, _)| begin == at) {
            (chain, number, own) = ((*builtin).to_owned(), 0, false);
        }
        let (target, target_info) = target_of(kind, entry)?;
        if target == "ERROR" {
            (chain, number, own) = (text(target_info), 0, true);
            // The last entry is no chain.
            if position + 1 < all.len() {
                table.chain(&chain);
            }
            continue;
        }
        // A chain of one's own ends with a return that nobody wrote.
        let next = all.get(position + 1).map(|(_, next)| target_of(kind, next)).transpose()?;
        let ends = own && next.is_none_or(|(target, _)| target == "ERROR");
        if policies.contains(at) || ends {
            if let Some(base) = &mut table.chain(&chain).base {
                base.drops = word(target_info, 0)?.cast_signed() == DROP;
            }
            continue;
        }
        number += 1;
        let act = match target.as_str() {
            "" => verdict(kind, entry, *at, word(target_info, 0)?.cast_signed(), &own_chains),
            named => xtables::act(named, target_info),
        };
        table.add(rule(kind, entry, (&chain, number), (&target, target_info), &act)?);
        let (conditions, comment) = conditions(kind, entry)?;
        table.keep(&chain, Rule { number, conditions, act, comment });
    }
    Ok(table)
}

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter_ipv4.h>
pub fn priority(table: &str) -> i32 {
    match table {
        "raw" => -300,
        "mangle" => -150,
        "nat" => -100,
        "security" => 50,
        _ => 0,
    }
}

/// Where chains of one's own begin, for jumps say only that.
fn own_chains(kind: Kind, all: &[(usize, &[u8])]) -> Result<BTreeMap<usize, String>> {
    let mut chains = BTreeMap::new();
    for (at, entry) in all {
        let (target, name) = target_of(kind, entry)?;
        if target == "ERROR" {
            chains.insert(at + entry.len(), text(name));
        }
    }
    Ok(chains)
}

fn verdict(
    kind: Kind,
    entry: &[u8],
    at: usize,
    verdict: i32,
    chains: &BTreeMap<usize, String>,
) -> Act {
    const GOTO_OF_IPV4: u8 = 2;
    const GOTO_OF_IPV6: u8 = 4;
    match verdict {
        DROP => Act::Drop,
        ACCEPT => Act::Accept,
        RETURN => Act::Return,
        ..0 => Act::Unknown,
        to => {
            let to = usize::try_from(to).unwrap_or(usize::MAX);
            // A rule without a target goes on to the next.
            if to == at + entry.len() {
                return Act::Next;
            }
            let goto = if kind.address == 4 { GOTO_OF_IPV4 } else { GOTO_OF_IPV6 };
            let is_goto = entry.get(kind.flags).is_some_and(|flags| flags & goto != 0);
            match chains.get(&to) {
                Some(chain) if is_goto => Act::Goto(chain.clone()),
                Some(chain) => Act::Jump(chain.clone()),
                None => Act::Unknown,
            }
        }
    }
}

/// What a rule asks for, and what somebody wrote beside it.
fn conditions(kind: Kind, entry: &[u8]) -> Result<(Vec<Condition>, Option<String>)> {
    // `IPT_INV_SRCIP`, `IPT_INV_DSTIP`, `IPT_INV_PROTO`: those of IPv6 are the same.
    const NOT_SOURCE: u8 = 8;
    const NOT_DESTINATION: u8 = 16;
    const NOT_PROTOCOL: u8 = 64;
    let (mut asked, mut comment) = (Vec::new(), None);
    let inverted = entry.get(kind.flags + 1).copied().context("a head is cut off")?;
    let address = |nth: usize| {
        entry.get(nth * kind.address..(nth + 1) * kind.address).context("a head is cut off")
    };
    for (side, not) in [(0, NOT_SOURCE), (1, NOT_DESTINATION)] {
        let (value, mask) = (address(side)?, address(side + 2)?);
        if mask.iter().all(|byte| *byte == 0) {
            continue;
        }
        let prefix = prefix(value, mask).filter(|_| inverted & not == 0);
        asked.push(match (prefix, side) {
            (Some((value, len)), 0) => Condition::Source(value, len),
            (Some((value, len)), _) => Condition::Destination(value, len),
            (None, _) => Condition::Other,
        });
    }
    // Names of interfaces.
    let masks = entry.get(4 * kind.address + 32..4 * kind.address + 64);
    if masks.context("a head is cut off")?.iter().any(|byte| *byte != 0) {
        asked.push(Condition::Other);
    }
    let protocol = half(entry, kind.protocol)?;
    if protocol != 0 {
        let protocol = u8::try_from(protocol).ok().filter(|_| inverted & NOT_PROTOCOL == 0);
        asked.push(protocol.map_or(Condition::Other, Condition::Protocol));
    }
    for part in parts(kind, entry)? {
        let (name, info) = part?;
        if name == "comment" {
            comment = Some(text(info));
        }
        asked.extend(xtables::conditions(&name, info));
    }
    Ok((asked, comment))
}

/// An address and the length of its mask; `None` for a mask with holes.
fn prefix(value: &[u8], mask: &[u8]) -> Option<(IpAddr, u8)> {
    let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let leading: u32 = {
        let full = mask.iter().take_while(|byte| **byte == 0xff).count();
        8 * u32::try_from(full).ok()? + mask.get(full).map_or(0, |byte| byte.leading_ones())
    };
    let address = match value.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
    };
    (ones == leading).then_some((address, u8::try_from(ones).ok()?))
}

/// The matches of a rule: name, and what is their own.
fn parts(kind: Kind, entry: &[u8]) -> Result<impl Iterator<Item = Result<(String, &[u8])>>> {
    let end = half(entry, kind.rest + 4)?;
    let mut matches = entry.get(kind.entry..end).context("matches are cut off")?;
    let mut next = move || -> Result<Option<(String, &[u8])>> {
        if matches.is_empty() {
            return Ok(None);
        }
        let len = half(matches, 0)?;
        ensure!(len >= PART, "a match of {len} bytes");
        let part = matches.get(..len).context("a match is cut off")?;
        matches = &matches[len..];
        Ok(Some((text(&part[2..PART - 1]), &part[PART..])))
    };
    let mut broken = false;
    Ok(std::iter::from_fn(move || {
        if broken {
            return None;
        }
        let part = next().transpose();
        broken = matches!(part, Some(Err(_)));
        part
    }))
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
    place: (&str, u64),
    target: (&str, &[u8]),
    act: &Act,
) -> Result<Option<RuleUse>> {
    let matches = parts(kind, entry)?.collect::<Result<Vec<_>>>()?;
    let packets = entry.get(kind.counters..).and_then(|rest| rest.first_chunk());
    let packets = packets.map(|bytes| u64::from_ne_bytes(*bytes));
    let matches = matches.iter().map(|(name, info)| (name.as_str(), *info));
    Ok(xtables::use_of(place, matches, target, act, packets))
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
            assert_eq!((&*table.family, table.rules), (kind.family, 4), "{table:?}");
            let [nat, invalid, notrack] = table.uses.as_slice() else { panic!("{table:?}") };
            assert_eq!((nat.chain.as_str(), nat.number, nat.packets), ("FORWARD", 1, Some(5)));
            assert_eq!(nat.by, ["-j MASQUERADE"]);
            assert_eq!((invalid.chain.as_str(), invalid.number), ("OWN", 2));
            assert_eq!((&invalid.on_invalid, invalid.packets), (&Some(Act::Drop), Some(42)));
            assert!(notrack.notrack && notrack.on_invalid.is_none());
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
