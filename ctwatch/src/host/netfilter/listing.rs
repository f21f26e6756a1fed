//! The table of one network namespace, entry by entry, from `/proc/net/nf_conntrack`: where there
//! is no ctnetlink. Streamed: memory does not depend on how many there are.
//! <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_standalone.c> `ct_seq_show`

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::IpAddr,
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
        let text = String::from_utf8_lossy(&line);
        each(&entry(netns, &text).with_context(|| format!("not an entry: {:?}", text.trim_end()))?);
    }
}

/// `ipv4     2 tcp      6 431997 ESTABLISHED src=… dst=… sport=… dport=… src=… … [ASSURED] use=2`
pub fn entry(netns: NetnsId, line: &str) -> Result<Held> {
    let mut words = line.split_whitespace().peekable();
    let mut word = || words.next().context("it is cut off");
    word()?;
    let family: u8 = word()?.parse().context("no number of a family")?;
    word()?;
    let protocol: u8 = word()?.parse().context("no number of a protocol")?;
    ensure!(matches!(family, AF_INET | AF_INET6), "an unknown family");
    // Left out of an offloaded entry.
    let mut left = Left::Unknown;
    if let Some(seconds) = words.peek().and_then(|word| word.parse::<i64>().ok()) {
        // No entry is there for as long as would not fit; less than none is over.
        left = u32::try_from(seconds).map_or(Left::Expired, Left::Seconds);
        words.next();
    }
    let state = match words.peek() {
        Some(word) if !word.contains(['=', '[']) => state(protocol, word)?,
        _ => 0,
    };
    let tuple = Tuple { family, protocol, ..Tuple::default() };
    let mut tuples = [tuple; 2];
    let mut seen = 0;
    // In the table, or it would not be listed.
    let (mut status, mut zone) = (Status::CONFIRMED | Status::REPLIED, 0);
    for word in words {
        match word {
            "[UNREPLIED]" => status &= !Status::REPLIED,
            "[ASSURED]" => status |= Status::ASSURED,
            // Stands where `[ASSURED]` would: only what is established is offloaded.
            "[OFFLOAD]" => status |= Status::ASSURED | Status::OFFLOADED,
            "[HW_OFFLOAD]" => status |= Status::ASSURED | Status::OFFLOADED_TO_HARDWARE,
            _ => {}
        }
        let Some((name, value)) = word.split_once('=') else { continue };
        // The original direction comes first, and each begins with its source.
        if name == "src" {
            seen += 1;
        }
        let Some(tuple) = tuples.get_mut(seen - usize::from(seen > 0)) else {
            bail!("more than two directions")
        };
        match name {
            "src" => tuple.src = address(family, value)?,
            "dst" => tuple.dst = address(family, value)?,
            "sport" => tuple.sport = value.parse().context("no port")?,
            "dport" => tuple.dport = value.parse().context("no port")?,
            // Of both directions, or of one.
            "zone" | "zone-orig" | "zone-reply" => zone = value.parse().context("no zone")?,
            _ => {}
        }
    }
    ensure!(seen == 2, "not two directions");
    let [original, reply] = tuples;
    let turned = reply.turned_round();
    // The kernel lists no status: NAT shows in what the reply is.
    if (original.src, original.sport) != (turned.src, turned.sport) {
        status |= Status::SOURCE_TRANSLATED;
    }
    if (original.dst, original.dport) != (turned.dst, turned.dport) {
        status |= Status::DESTINATION_TRANSLATED;
    }
    Ok(Held {
        key: original.key(netns),
        translated: turned.key(netns),
        status: Status(status),
        state,
        zone,
        left,
    })
}

fn state(protocol: u8, name: &str) -> Result<u8> {
    // DCCP's are not told apart.
    let Some(names) = states(protocol) else { return Ok(0) };
    let at = names.iter().position(|known| *known == name);
    Ok(u8::try_from(at.with_context(|| format!("an unknown state {name:?}"))?)?)
}

fn address(family: u8, text: &str) -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    match (family, text.parse().with_context(|| format!("no address: {text:?}"))?) {
        (AF_INET, IpAddr::V4(address)) => bytes[..4].copy_from_slice(&address.octets()),
        (AF_INET6, IpAddr::V6(address)) => bytes = address.octets(),
        _ => bail!("an address of another family: {text:?}"),
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "ipv4     2 tcp      6 431997 ESTABLISHED src=10.1.1.1 dst=10.96.0.10 \
                       sport=31030 dport=53 src=10.244.0.5 dst=192.0.2.1 sport=5353 dport=4000 \
                       [ASSURED] mark=0 zone=5 use=2";

    #[test]
    fn an_entry_is_read_as_the_kernel_lists_it() {
        let held = entry(4, TCP).unwrap();
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
        let held = entry(1, icmp).unwrap();
        assert_eq!((held.key.family, held.key.protocol, held.key.dport), (10, 58, 0));
        assert_eq!((held.key.src[0], held.key.src[15]), (0xfd, 1));
        assert!(!held.status.is_replied() && !held.status.is_assured());
        let gre = "ipv4     2 gre      47 179 timeout=30, stream_timeout=180 src=10.0.0.1 \
                   dst=10.0.0.2 srckey=0x0 dstkey=0x1 src=10.0.0.2 dst=10.0.0.1 srckey=0x1 \
                   dstkey=0x0 [ASSURED] mark=0 use=2";
        assert_eq!(entry(1, gre).unwrap().left, Left::Seconds(179));
        let offloaded = "ipv4     2 tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 \
                         packets=1 bytes=60 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 packets=1 \
                         bytes=60 [OFFLOAD] mark=0 use=3";
        let held = entry(1, offloaded).unwrap();
        assert_eq!((held.left, held.state), (Left::Unknown, 0));
        assert!(held.status.is_offloaded() && held.status.is_assured());
        let over = TCP.replace("431997", "-3");
        assert_eq!(entry(1, &over).unwrap().left, Left::Expired);
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
            assert!(entry(1, &wrong).is_err(), "{wrong}");
        }
        let cut_off = entries(1, TCP.as_bytes(), |_| {}).unwrap_err();
        assert!(format!("{cut_off:#}").contains("cut off"), "{cut_off:#}");
        let mut count = 0;
        entries(1, format!("{TCP}\n{TCP}\n").as_bytes(), |_| count += 1).unwrap();
        assert_eq!(count, 2);
    }
}
