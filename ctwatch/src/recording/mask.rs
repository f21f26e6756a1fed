//! Names and addresses of a recording, replaced: for somebody outside. The same name, or address, becomes
//! the same word everywhere, and addresses that share a prefix share one of that length afterwards.
//!
//! By a key: without one, an unkeyed map of IPv4 is turned back by trying all of it.

use std::{
    collections::HashMap,
    hash::Hasher,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use siphasher::sip::SipHasher24;

use super::line::Line;
use crate::{
    host::{self, machine::files},
    record::workload::Workload,
};

/// Addresses and names that are remembered, at most; the others are worked out again.
const REMEMBERED: usize = 65_536;

/// Of what a name in a text is made, mostly.
fn is_part(c: char) -> bool {
    c.is_alphanumeric() || "._:-@%~[]\"\\'<>{}|!&$".contains(c)
}

/// Chains that each firewall has.
const STANDARD: [&str; 14] = [
    "PREROUTING",
    "INPUT",
    "FORWARD",
    "OUTPUT",
    "POSTROUTING",
    "prerouting",
    "input",
    "forward",
    "output",
    "postrouting",
    "filter",
    "nat",
    "mangle",
    "raw",
];

#[derive(Clone, Debug)]
pub struct Mask {
    key: [u8; 16],
    addresses: HashMap<IpAddr, IpAddr>,
    names: HashMap<String, String>,
    /// Those of them that are no single word, the longest first.
    odd: Vec<String>,
}

/// So many at most: each is looked for in each text.
const ODD: usize = 256;

impl Mask {
    /// With a key that nobody knows, and that is gone afterwards.
    pub fn random() -> Self {
        let [low, high] = host::secrets();
        Self::of((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
    }

    /// With one from a file: masked with it, two recordings can be compared.
    pub fn by_file(path: &Path) -> Result<Self> {
        let place = path.display();
        let failed = || format!("cannot read {place}");
        // A device or a pipe has no end.
        let file = files::open(path).with_context(failed)?;
        ensure!(file.metadata().with_context(failed)?.is_file(), "{place} is no file");
        let mut bytes = Vec::new();
        file.take(4097).read_to_end(&mut bytes).with_context(failed)?;
        let key = bytes.first_chunk().copied();
        ensure!(
            bytes.len() <= 4096 && key.is_some(),
            "{place} is no key: it has to hold at least 16 random bytes (head -c 16 /dev/urandom)"
        );
        Ok(Self::of(key.unwrap_or_default()))
    }

    fn of(key: [u8; 16]) -> Self {
        Self { key, addresses: HashMap::new(), names: HashMap::new(), odd: Vec::new() }
    }

    /// Addresses in it, and names that were masked by now.
    pub fn words(&mut self, text: &str) -> String {
        self.text(text)
    }

    pub fn netns(&mut self, name: &str) -> String {
        self.name("ns", name)
    }

    pub fn workload(&mut self, of: &Workload) -> Workload {
        let mut each =
            |kind: &str, name: &Option<String>| name.as_ref().map(|name| self.name(kind, name));
        Workload {
            pod: each("pod", &of.pod),
            namespace: each("kns", &of.namespace),
            container: each("con", &of.container),
        }
    }

    pub fn interface(&mut self, name: &str) -> String {
        self.name("if", name)
    }

    pub fn process(&mut self, name: &str) -> String {
        self.name("p", name)
    }

    /// All of a line.
    pub fn line(&mut self, line: Line) -> Result<Line> {
        // Never written, so it holds a place of this machine.
        match line {
            Line::Missing { .. } => return Ok(line),
            Line::Unread { .. } => {
                let (place, why) = ("a line".to_owned(), "it is damaged".to_owned());
                return Ok(Line::Unread { place, why });
            }
            _ => {}
        }
        let mut value = serde_json::to_value(line).context("cannot mask a line")?;
        self.value(&mut value);
        let text = serde_json::to_vec(&value).context("cannot mask a line")?;
        Line::parse(&text).context("cannot mask a line")
    }

    /// What serialises as a part of a line.
    pub fn value(&mut self, value: &mut Value) {
        // Names first: they may stand in a text before it is said whose they are.
        self.walk(value, "", "", true);
        self.walk(value, "", "", false);
    }

    /// Of a machine.
    pub fn host(&mut self, name: &str) -> String {
        self.name("host", name)
    }

    /// `key`: under which the value stands; `within`: the list or object that it is in.
    fn walk(&mut self, value: &mut Value, key: &str, within: &str, names: bool) {
        match value {
            Value::String(text) => {
                if let Some(masked) = self.string(text, key, within, names) {
                    *text = masked;
                }
            }
            Value::Array(items) => {
                if names && matches!(key, "source" | "destination") && self.network(items) {
                    return;
                }
                let pairs = matches!(key, "interfaces" | "cgroups" | "unowned" | "lines");
                for item in items {
                    match item {
                        Value::Array(pair) if pairs => self.pair(pair, key, names),
                        _ => self.walk(item, key, within, names),
                    }
                }
            }
            Value::Object(fields) => {
                let within = if matches!(key, "" | "ok") { within } else { key };
                for (name, field) in fields {
                    let name = if name == "ok" { key } else { name.as_str() };
                    self.walk(field, name, within, names);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn pair(&mut self, pair: &mut [Value], key: &str, names: bool) {
        for (at, value) in pair.iter_mut().enumerate() {
            let Value::String(text) = value else { continue };
            let masked = match (key, at) {
                ("interfaces", _) if names => self.name("if", text),
                ("cgroups", _) if names => self.path(text),
                ("unowned", 0) if names => self.name("ns", text),
                ("unowned" | "lines", 1) if !names => self.text(text),
                _ => continue,
            };
            *text = masked;
        }
    }

    /// `None`: it stays as it is.
    fn string(&mut self, text: &str, key: &str, within: &str, names: bool) -> Option<String> {
        match key {
            "notes" => return names.then(|| "a note, left out by --mask".to_owned()),
            "what" => return names.then(|| self.change(text)),
            "unread" | "why" | "unknown" | "unlisted" | "unvisited" => {
                return (!names).then(|| self.text(text));
            }
            _ => {}
        }
        if !names {
            return None;
        }
        Some(match key {
            "src" | "dst" | "addresses" => match text.parse() {
                Ok(address) => self.address(address).to_string(),
                // Bytes that are no address: 32 hexadecimal digits.
                Err(_) => {
                    format!("{:016x}{:016x}", self.hash("bytes", text), self.hash("more", text))
                }
            },
            "name" => match within {
                "tables" | "namespaces" | "others" | "kernel" => self.name("ns", text),
                "nft" | "legacy" | "chains" | "state_sets" => self.rule_name(text),
                _ => return None,
            },
            "netns" => self.name("ns", text),
            "chain" | "nat_chains" | "jump" | "goto" => self.rule_name(text),
            "process" | "comm" => self.name("p", text),
            "pod" => self.name("pod", text),
            "namespace" => self.name("kns", text),
            "container" => self.name("con", text),
            "interface" => self.name("if", text),
            "host" if within.is_empty() || within == "segment" => self.name("host", text),
            "comment" => self.name("comment", text),
            "mount" => self.path(text),
            "boot_id" => {
                let (high, low) = (self.hash("boot", text), self.hash("id", text));
                let hex = format!("{high:016x}{low:016x}");
                let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
                format!(
                    "{}-{}-{}-{}-{}",
                    part(0, 8),
                    part(8, 12),
                    part(12, 16),
                    part(16, 20),
                    part(20, 32)
                )
            }
            "home" if text != "/root" => "/home/user".to_owned(),
            _ => return None,
        })
    }

    fn rule_name(&mut self, text: &str) -> String {
        if STANDARD.contains(&text) { text.to_owned() } else { self.name("rule", text) }
    }

    /// As [`changes`](crate::model::changes::changes) words it: whose it is, what, and of a rule table its
    /// family and name.
    fn change(&mut self, text: &str) -> String {
        let Some((whose, what)) = text.split_once(": ") else { return text.to_owned() };
        if let Some(all) = what.strip_prefix("rules changed by ") {
            let each = all.split(" and by ").map(|one| match one.rsplit_once(" (PID ") {
                Some((name, pid)) => format!("{} (PID {pid}", self.process(name)),
                None => one.to_owned(),
            });
            let all = each.collect::<Vec<_>>().join(" and by ");
            return format!("{}: rules changed by {all}", self.netns(whose));
        }
        let mut words: Vec<String> = what.split(' ').map(str::to_owned).collect();
        if words.get(1).is_some_and(|word| word == "table")
            && let Some(name) = words.get_mut(3)
        {
            *name = self.rule_name(name);
        }
        format!("{}: {}", self.name("ns", whose), words.join(" "))
    }

    /// `ns-1a2b3c4d5e`: short enough for a process' name.
    fn name(&mut self, kind: &str, name: &str) -> String {
        // The host's own namespace is called so by ctwatch.
        if name.is_empty() || kind == "ns" && name == "host" {
            return name.to_owned();
        }
        let masked = format!("{kind}-{:010x}", self.hash(kind, name) & 0xff_ffff_ffff);
        if self.names.len() < REMEMBERED
            && self.names.insert(name.to_owned(), masked.clone()).is_none()
            && self.odd.len() < ODD
            && name.chars().any(|c| !is_part(c))
        {
            let at = self.odd.partition_point(|other| other.len() >= name.len());
            self.odd.insert(at, name.to_owned());
        }
        masked
    }

    /// Each part of it that is not the same everywhere.
    fn path(&mut self, path: &str) -> String {
        let parts = path.split('/').map(|part| match part {
            "" | "run" | "var" | "netns" | "proc" | "ns" | "net" => part.to_owned(),
            _ => match self.names.get(part) {
                Some(masked) => masked.clone(),
                None => self.name("path", part),
            },
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// Addresses in it, and names that are known by now.
    fn text(&mut self, text: &str) -> String {
        // The kernel begins such a line with the process that asked.
        const FAILED: &str = ": page allocation failure";
        if let Some(at) = text.find(FAILED) {
            let (before, after) = text.split_at(at);
            let name = before.rsplit("] ").next().unwrap_or(before).to_owned();
            let masked = self.name("p", &name);
            let kept = before.len() - name.len();
            return format!("{}{masked}{}", &before[..kept], self.text_without(after));
        }
        self.text_without(text)
    }

    fn text_without(&mut self, text: &str) -> String {
        let text = &self.odd_names(text);
        let (mut out, mut word) = (String::with_capacity(text.len()), String::new());
        for c in text.chars().chain([' ']) {
            if is_part(c) {
                word.push(c);
                continue;
            }
            out.push_str(&self.word(&word));
            word.clear();
            out.push(c);
        }
        out.pop();
        out
    }

    /// Names that are no single word are looked for whole.
    fn odd_names(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for name in self.odd.iter().filter(|name| name.len() > 1) {
            if let Some(masked) = self.names.get(name).filter(|_| text.contains(name.as_str())) {
                text = text.replace(name.as_str(), masked);
            }
        }
        text
    }

    fn word(&mut self, word: &str) -> String {
        if let Some(masked) = self.names.get(word) {
            return masked.clone();
        }
        let inner = word.trim_matches(|c: char| !c.is_alphanumeric());
        if inner.is_empty() {
            return word.to_owned();
        }
        // `SRC=192.0.2.1` is two words; `[2001:db8::1]:53` is not.
        let masked = match inner.parse::<IpAddr>() {
            Ok(address) => Some(self.address(address).to_string()),
            Err(_) => self.names.get(inner).cloned(),
        };
        match masked {
            Some(masked) => word.replacen(inner, &masked, 1),
            None => word.to_owned(),
        }
    }

    /// An address and how long its prefix is.
    fn network(&mut self, items: &mut [Value]) -> bool {
        let [Value::String(address), Value::Number(length)] = items else { return false };
        let (Ok(network), Some(length)) = (address.parse::<IpAddr>(), length.as_u64()) else {
            return false;
        };
        let keep = |bits: u32| bits.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
        let masked = match self.address(network) {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(keep(32)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(keep(128)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        *address = masked.to_string();
        true
    }

    pub fn address(&mut self, address: IpAddr) -> IpAddr {
        // That stands for none.
        if address.is_unspecified() {
            return address;
        }
        if let Some(masked) = self.addresses.get(&address) {
            return *masked;
        }
        let masked = match address {
            IpAddr::V4(v4) => {
                let bits = self.bits(u128::from(v4.to_bits()) << 96, 32, 4) >> 96;
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or_default()))
            }
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(self.bits(v6.to_bits(), 128, 6))),
        };
        if self.addresses.len() < REMEMBERED {
            self.addresses.insert(address, masked);
        }
        masked
    }

    /// What an address was before, for what filters in the kernel by one that was chosen among masked ones. It is
    /// never to be shown.
    pub fn original(&self, masked: IpAddr) -> IpAddr {
        if masked.is_unspecified() {
            return masked;
        }
        // From the first bit on, each tells how the next one was turned.
        let turned_back = |masked: u128, length: u32, family: u8| {
            (0..length).fold(masked, |original, at| original ^ self.turn(original, at, family))
        };
        match masked {
            IpAddr::V4(v4) => {
                let bits = turned_back(u128::from(v4.to_bits()) << 96, 32, 4) >> 96;
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or_default()))
            }
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(turned_back(v6.to_bits(), 128, 6))),
        }
    }

    /// Each bit is turned or not by what stands before it: Crypto-PAn, with SipHash for its cipher.
    /// <https://en.wikipedia.org/wiki/Crypto-PAn>
    fn bits(&self, address: u128, length: u32, family: u8) -> u128 {
        (0..length).fold(address, |masked, at| masked ^ self.turn(address, at, family))
    }

    /// The bit at this place, if it is to be turned.
    fn turn(&self, address: u128, at: u32, family: u8) -> u128 {
        let prefix = if at == 0 { 0 } else { address >> (128 - at) };
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u8(family);
        hasher.write_u32(at);
        hasher.write_u128(prefix);
        u128::from(hasher.finish() & 1) << (127 - at)
    }

    fn hash(&self, kind: &str, text: &str) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(kind.as_bytes());
        hasher.write_u8(0);
        hasher.write(text.as_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{facts::Facts, sample::Sample};

    fn mask() -> Mask {
        Mask::of(*b"0123456789abcdef")
    }

    fn shared(one: IpAddr, other: IpAddr) -> u32 {
        match (one, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                (one.to_bits() ^ other.to_bits()).leading_zeros()
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                (one.to_bits() ^ other.to_bits()).leading_zeros()
            }
            _ => panic!("two families"),
        }
    }

    #[test]
    fn a_shared_prefix_stays_one() {
        let mut random = ctwatch_abi::testing::Random(7);
        let mut mask = mask();
        for _ in 0..200 {
            let (bits, other) = (random.draw(), random.draw());
            let cut = other % 32;
            let one = u32::try_from(bits & 0xffff_ffff).unwrap();
            let near = one ^ (u32::try_from(other >> 32).unwrap() >> cut);
            let [a, b] = [one, near].map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
            let (masked, also) = (mask.address(a), mask.address(b));
            assert_eq!(shared(masked, also), shared(a, b), "{a} {b}");
            assert_eq!((mask.original(masked), mask.original(also)), (a, b));
            let long = u128::from(bits) << 64 | u128::from(other);
            let [a, b] = [long, long ^ (1 << (other % 128))]
                .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
            let masked = mask.address(a);
            assert_eq!(shared(masked, mask.address(b)), shared(a, b), "{a} {b}");
            assert_eq!(mask.original(masked), a);
        }
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert_ne!(mask.address(address), Mask::random().address(address));
        assert_eq!(mask.address(address), self::mask().address(address));
    }

    /// Nothing of what could tell whose it is, is left in any line.
    #[test]
    fn no_original_is_left() {
        let recorded = include_str!("../../../tests/fixtures/records/v1.ndjson");
        let originals = [
            "rt\\\"",
            "\"rt\"",
            "/rt",
            "10.0.0.7",
            "192.0.2.1",
            "2001:db8",
            "eth0",
            "x.service",
            "DOCKER",
            "KUBE-SVC",
            "kept",
            "\"his\"",
            "\"nc",
            "states",
            "coredns",
            "kube-system",
            "\"web\"",
        ];
        let there = |text: &str| originals.iter().filter(|word| text.contains(**word)).count();
        let mut mask = mask();
        let mut found = 0;
        for line in recorded.lines() {
            let mut value: Value = serde_json::from_str(line).unwrap();
            let line = if value["facts"].is_object() {
                let facts: Facts = serde_json::from_value(value["facts"].take()).unwrap();
                Line::Facts { time: jiff::Timestamp::UNIX_EPOCH, facts: Box::new(facts) }
            } else if value["sample"].is_object() {
                let sample: Sample = serde_json::from_value(value["sample"].take()).unwrap();
                let frame = super::super::frame::Frame::of(sample.time, sample.elapsed);
                Line::Tick(Box::new(super::super::frame::Frame { sample, ..frame }))
            } else {
                continue;
            };
            found += there(&String::from_utf8(line.text().unwrap()).unwrap());
            let masked = mask.line(line).unwrap().text().unwrap();
            let masked = String::from_utf8(masked).unwrap();
            let left: Vec<_> = originals.iter().filter(|word| masked.contains(**word)).collect();
            assert!(left.is_empty(), "{left:?} in {masked}");
        }
        assert!(found > 20, "{found}");
    }

    #[test]
    fn what_changed_and_who_loaded_it_is_masked() {
        let mut mask = mask();
        let text = r#"{"type":"changed","since":"2026-01-02T03:04:05Z","until":"2026-01-02T03:05:05Z",
            "what":["blue: nft table inet secret has 4 rules instead of 3","green: gone",
            "module nf_nat was loaded","nf_conntrack_max 1 -> 2"]}"#;
        let line = mask.line(Line::parse(text.as_bytes()).unwrap()).unwrap();
        let Line::Changed { what, .. } = line else { panic!("{line:?}") };
        let [blue, green] = ["blue", "green"].map(|name| mask.name("ns", name));
        let rule = mask.rule_name("secret");
        let wanted = [
            format!("{blue}: nft table inet {rule} has 4 rules instead of 3"),
            format!("{green}: gone"),
            "module nf_nat was loaded".to_owned(),
            "nf_conntrack_max 1 -> 2".to_owned(),
        ];
        assert_eq!(what, wanted);
        let text = r#"{"type":"loaded","loaded":[{"time":"2026-01-02T03:04:05Z","module":"nf_nat",
            "by":{"pid":1,"comm":"modprobe"},"asked_by":{"process":{"pid":2,"comm":"hidden"},
            "request":"iptable_nat","parent":{"pid":3,"comm":"alsohidden"}}}]}"#;
        let line = mask.line(Line::parse(text.as_bytes()).unwrap()).unwrap();
        let text = String::from_utf8(line.text().unwrap()).unwrap();
        assert!(!text.contains("hidden") && text.contains("iptable_nat"), "{text}");
    }

    #[test]
    fn text_is_masked_word_by_word() {
        let mut mask = mask();
        let name = mask.name("ns", "rt");
        let address = mask.address("10.1.2.3".parse().unwrap());
        let text = mask.text("rt: SRC=10.1.2.3 dropped (rt, 10.1.2.3), start at 12:30; rtx stays");
        let wanted =
            format!("{name}: SRC={address} dropped ({name}, {address}), start at 12:30; rtx stays");
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_key_is_long_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, b"short").unwrap();
        assert!(Mask::by_file(&path).unwrap_err().to_string().contains("16 random bytes"));
        std::fs::write(&path, b"0123456789abcdef").unwrap();
        assert_eq!(Mask::by_file(&path).unwrap().key, mask().key);
    }
}
