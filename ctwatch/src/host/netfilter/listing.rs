//! The table of one network namespace, entry by entry, from `/proc/net/nf_conntrack`: where there
//! is no ctnetlink. And what `conntrack -L` prints, which is nearly the same. Streamed: memory does not
//! depend on how many there are.
//! <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_standalone.c> `ct_seq_show`
//! <https://git.netfilter.org/libnetfilter_conntrack/tree/src/conntrack/snprintf_default.c>

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::Ipv6Addr,
};

use anyhow::{Context, Result, bail, ensure};
use ctwatch_abi::{
    NetnsId,
    top::{AF_INET, AF_INET6},
};

use super::tuple::Tuple;
use crate::{
    host::kernel::config,
    record::entry::{Held, Left, Status, states},
};

/// Of the calling thread's namespace (`/proc/net` would be that of the process).
const PATH: &str = "/proc/thread-self/net/nf_conntrack";
/// Far longer than any line; a file without lines is none of this kind.
const LONGEST: u64 = 16 << 10;

/// Hands over each entry of the namespace that the calling thread is in; `netns` is its name.
pub fn list(netns: NetnsId, each: impl FnMut(&Held)) -> Result<()> {
    let file = match File::open(PATH) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("there is no {PATH}: {}", config::why_not("CONFIG_NF_CONNTRACK_PROCFS"))
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {PATH}")),
    };
    entries(netns, file, each).with_context(|| format!("cannot read {PATH}"))
}

/// Hands over what each line of such a file says.
pub fn entries(netns: NetnsId, file: impl Read, mut each: impl FnMut(&Held)) -> Result<()> {
    let mut file = BufReader::with_capacity(64 << 10, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = file.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        ensure!(line.ends_with(b"\n"), "a line is cut off");
        let listed = entry(netns, &line).map_err(|why| {
            let text = String::from_utf8_lossy(&line);
            anyhow::anyhow!("not an entry: {:?}: {why}", text.trim_end())
        });
        each(&listed?.held);
    }
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Listed {
    pub held: Held,
    /// It ends with `use=`, and so nothing of it is missing; where other lines of a list do, one that
    /// does not was cut off.
    pub has_end: bool,
}

/// Words apart by white space; what is no text is white here, too.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn peek(&mut self) -> Option<&'a [u8]> {
        let begin = self.0.iter().position(|byte| *byte > b' ')?;
        self.0 = &self.0[begin..];
        let end = self.0.iter().position(|byte| *byte <= b' ').unwrap_or(self.0.len());
        Some(&self.0[..end])
    }

    fn pass(&mut self, word: &[u8]) {
        self.0 = &self.0[word.len()..];
    }

    /// The next word, and where in it a name ends. Each byte is looked at once, by the shortest of loops: this is
    /// where most of the time goes.
    fn named(&mut self) -> Option<(&'a [u8], Option<usize>)> {
        let begin = self.0.iter().position(|byte| *byte > b' ')?;
        let rest = &self.0[begin..];
        let first = rest.iter().position(|byte| *byte <= b' ' || *byte == b'=');
        let first = first.unwrap_or(rest.len());
        let is_named = rest.get(first) == Some(&b'=');
        let end = match is_named {
            true => rest[first..].iter().position(|byte| *byte <= b' '),
            false => Some(0),
        };
        let end = end.map_or(rest.len(), |after| first + after);
        self.0 = &rest[end..];
        Some((&rest[..end], is_named.then_some(first)))
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let word = self.peek()?;
        self.pass(word);
        Some(word)
    }
}

fn decimal<T: TryFrom<u64>>(word: &[u8]) -> Option<T> {
    if word.is_empty() || word.len() > 19 {
        return None;
    }
    let mut value = 0_u64;
    for byte in word {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    T::try_from(value).ok()
}

/// `ipv4     2 tcp      6 431997 ESTABLISHED src=… dst=… sport=… dport=… src=… … [ASSURED] use=2`; without
/// the family as `conntrack -L` prints it. Millions are read: no allocation, and an error is a word.
pub fn entry(netns: NetnsId, line: &[u8]) -> Result<Listed, &'static str> {
    const CUT: &str = "it is cut off";
    let mut words = Words(line);
    let mut family = match words.peek().ok_or(CUT)? {
        name @ (b"ipv4" | b"ipv6") => {
            words.pass(name);
            let number = words.next().and_then(decimal::<u8>).ok_or("no number of a family")?;
            if !matches!(number, AF_INET | AF_INET6) {
                return Err("an unknown family");
            }
            Some(number)
        }
        _ => None,
    };
    let name = words.next().ok_or(CUT)?;
    if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
        return Err("no name of a protocol");
    }
    let protocol: u8 = words.next().and_then(decimal).ok_or("no number of a protocol")?;
    // Left out of an offloaded entry.
    let mut left = Left::Unknown;
    let mut word = words.peek().ok_or(CUT)?;
    if let [b'-', digits @ ..] = word {
        // No entry is there for as long as would not fit; less than none is over.
        decimal::<u64>(digits).ok_or("no time")?;
        left = Left::Expired;
        words.pass(word);
    } else if let Some(seconds) = decimal::<u64>(word) {
        left = u32::try_from(seconds).map_or(Left::Expired, Left::Seconds);
        words.pass(word);
    }
    word = words.peek().ok_or(CUT)?;
    let mut number = 0;
    if !word.iter().any(|byte| matches!(byte, b'=' | b'[')) {
        number = state(protocol, word)?;
        words.pass(word);
    }
    let mut tuples = [Tuple { protocol, ..Tuple::default() }; 2];
    let mut seen = 0_usize;
    // What the reply most often repeats: as text it is compared sooner than it is read.
    let (mut source, mut destination): (&[u8], &[u8]) = (b"", b"");
    // In the table, or it would not be listed.
    let (mut status, mut zone, mut has_end) = (Status::CONFIRMED | Status::REPLIED, 0, false);
    while let Some((word, name_ends)) = words.named() {
        if let [b'[', ..] = word {
            status = flag(word, status);
            // `[start=Thu Nov 26 03:00:00 2026]`
            let mut last = word;
            while !last.ends_with(b"]") {
                last = words.next().ok_or(CUT)?;
            }
            continue;
        }
        let Some(at) = name_ends else {
            return Err("a word that is none of an entry");
        };
        let (name, value) = (&word[..at], &word[at + 1..]);
        // The original direction comes first, and each begins with its source.
        if name == b"src" {
            seen += 1;
        }
        let [original, reply] = &mut tuples;
        let tuple = match seen {
            0 | 1 => original,
            2 => match name {
                b"src" if value == destination && !value.is_empty() => {
                    reply.src = original.dst;
                    continue;
                }
                b"dst" if value == source && !value.is_empty() => {
                    reply.dst = original.src;
                    continue;
                }
                _ => reply,
            },
            _ => return Err("more than two directions"),
        };
        match name {
            b"src" => {
                if seen < 2 {
                    source = value;
                }
                tuple.src = address(&mut family, value)?;
            }
            b"dst" => {
                if seen < 2 {
                    destination = value;
                }
                tuple.dst = address(&mut family, value)?;
            }
            b"sport" => tuple.sport = decimal(value).ok_or("no port")?,
            b"dport" => tuple.dport = decimal(value).ok_or("no port")?,
            // Of both directions, or of one.
            b"zone" | b"zone-orig" | b"zone-reply" => zone = decimal(value).ok_or("no zone")?,
            b"use" => {
                decimal::<u64>(value).ok_or("no number of users")?;
                has_end = true;
            }
            _ => {}
        }
    }
    let family = family.filter(|_| seen == 2).ok_or("not two directions")?;
    let [mut original, mut reply] = tuples;
    (original.family, reply.family) = (family, family);
    let turned = reply.turned_round();
    // The kernel lists no status: NAT shows in what the reply is.
    if (original.src, original.sport) != (turned.src, turned.sport) {
        status |= Status::SOURCE_TRANSLATED;
    }
    if (original.dst, original.dport) != (turned.dst, turned.dport) {
        status |= Status::DESTINATION_TRANSLATED;
    }
    let held = Held {
        key: original.key(netns),
        translated: turned.key(netns),
        status: Status(status),
        state: number,
        zone,
        left,
    };
    Ok(Listed { held, has_end })
}

fn flag(word: &[u8], status: u32) -> u32 {
    match word {
        b"[UNREPLIED]" => status & !Status::REPLIED,
        b"[ASSURED]" => status | Status::ASSURED,
        // Stands where `[ASSURED]` would: only what is established is offloaded.
        b"[OFFLOAD]" => status | Status::ASSURED | Status::OFFLOADED,
        b"[HW_OFFLOAD]" => status | Status::ASSURED | Status::OFFLOADED_TO_HARDWARE,
        _ => status,
    }
}

fn state(protocol: u8, name: &[u8]) -> Result<u8, &'static str> {
    if !name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_')
    {
        return Err("no name of a state");
    }
    // DCCP's are not told apart.
    let Some(names) = states(protocol) else { return Ok(0) };
    let at = names.iter().position(|known| known.as_bytes() == name);
    at.and_then(|at| u8::try_from(at).ok()).ok_or("an unknown state")
}

/// As the kernel prints it: four numbers.
fn ipv4(text: &[u8]) -> Option<[u8; 4]> {
    let (mut bytes, mut at, mut value, mut digits) = ([0; 4], 0, 0_u32, 0);
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            (value, digits) = (value * 10 + u32::from(digit), digits + 1);
            if digits > 3 || value > 255 {
                return None;
            }
        } else if *byte == b'.' && digits > 0 && at < 3 {
            bytes[at] = u8::try_from(value).ok()?;
            (at, value, digits) = (at + 1, 0, 0);
        } else {
            return None;
        }
    }
    bytes[3] = u8::try_from(value).ok()?;
    (at == 3 && digits > 0).then_some(bytes)
}

/// All addresses of an entry are of one family.
fn address(family: &mut Option<u8>, text: &[u8]) -> Result<[u8; 16], &'static str> {
    let mut bytes = [0; 16];
    let found = match ipv4(text) {
        Some(address) => {
            bytes[..4].copy_from_slice(&address);
            AF_INET
        }
        None => {
            let text = std::str::from_utf8(text).map_err(|_| "no address")?;
            bytes = text.parse::<Ipv6Addr>().map_err(|_| "no address")?.octets();
            AF_INET6
        }
    };
    match *family.get_or_insert(found) == found {
        true => Ok(bytes),
        false => Err("an address of another family"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "ipv4     2 tcp      6 431997 ESTABLISHED src=10.1.1.1 dst=10.96.0.10 \
                       sport=31030 dport=53 src=10.244.0.5 dst=192.0.2.1 sport=5353 dport=4000 \
                       [ASSURED] mark=0 zone=5 use=2";

    #[test]
    fn an_entry_is_read_as_the_kernel_lists_it() {
        let held = entry(4, TCP.as_bytes()).unwrap().held;
        let (key, translated) = (held.key, held.translated);
        assert_eq!((key.netns, key.family, key.protocol, key.dport), (4, 2, 6, 53_u16.to_be()));
        assert_eq!((&key.src[..4], &key.dst[..4]), (&[10, 1, 1, 1][..], &[10, 96, 0, 10][..]));
        assert_eq!(translated.dport, 5353_u16.to_be());
        assert_eq!(
            (&translated.src[..4], &translated.dst[..4]),
            (&[192, 0, 2, 1][..], &[10, 244, 0, 5][..])
        );
        assert_eq!((held.state, held.zone, held.left), (3, 5, Left::Seconds(431_997)));
        assert!(held.status.is_assured() && held.status.is_replied());
        assert!(!held.status.is_offloaded() && held.status.is_translated());
    }

    #[test]
    fn protocols_print_words_of_their_own() {
        let icmp = "ipv6     10 icmpv6   58 29 src=fd00:0000:0000:0000:0000:0000:0000:0001 \
                    dst=fd00::2 type=128 code=0 id=7 [UNREPLIED] src=fd00::2 dst=fd00::1 type=129 \
                    code=0 id=7 mark=0 use=2";
        let held = entry(1, icmp.as_bytes()).unwrap().held;
        assert_eq!((held.key.family, held.key.protocol, held.key.dport), (10, 58, 0));
        assert_eq!((held.key.src[0], held.key.src[15]), (0xfd, 1));
        assert!(!held.status.is_replied() && !held.status.is_assured());
        let gre = "ipv4     2 gre      47 179 timeout=30, stream_timeout=180 src=10.0.0.1 \
                   dst=10.0.0.2 srckey=0x0 dstkey=0x1 src=10.0.0.2 dst=10.0.0.1 srckey=0x1 \
                   dstkey=0x0 [ASSURED] mark=0 use=2";
        assert_eq!(entry(1, gre.as_bytes()).unwrap().held.left, Left::Seconds(179));
        let offloaded = "ipv4     2 tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 \
                         packets=1 bytes=60 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 packets=1 \
                         bytes=60 [OFFLOAD] mark=0 use=3";
        let held = entry(1, offloaded.as_bytes()).unwrap().held;
        assert_eq!((held.left, held.state), (Left::Unknown, 0));
        assert!(held.status.is_offloaded() && held.status.is_assured());
        let over = TCP.replace("431997", "-3");
        assert_eq!(entry(1, over.as_bytes()).unwrap().held.left, Left::Expired);
    }

    #[test]
    fn a_reply_of_one_host_is_its_own() {
        let odd = "tcp 6 9 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.9 \
                   dst=10.0.0.9 sport=2 dport=1 [ASSURED] use=1";
        let held = entry(1, odd.as_bytes()).unwrap().held;
        let ends = (&held.translated.src[..4], &held.translated.dst[..4]);
        assert_eq!(ends, (&[10, 0, 0, 9][..], &[10, 0, 0, 9][..]));
    }

    #[test]
    fn what_is_no_entry_is_an_error() {
        for wrong in [
            String::new(),
            "nonsense".to_owned(),
            TCP.replace("ESTABLISHED", "ELSEWHERE"),
            TCP.replace("dst=192.0.2.1", "dst=fd00::1"),
            TCP.replace(" src=10.244.0.5", ""),
            TCP.replace("dport=53", "dport=70000"),
            TCP.replace("     2 ", "     7 "),
            format!("{TCP} src=10.0.0.1"),
        ] {
            assert!(entry(1, wrong.as_bytes()).is_err(), "{wrong}");
        }
        let cut_off = entries(1, TCP.as_bytes(), |_| {}).unwrap_err();
        assert!(format!("{cut_off:#}").contains("cut off"), "{cut_off:#}");
        let mut count = 0;
        entries(1, format!("{TCP}\n{TCP}\n").as_bytes(), |_| count += 1).unwrap();
        assert_eq!(count, 2);
    }
}
