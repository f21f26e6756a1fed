//! Offsets and enumerators of the running kernel, from its BTF.
//!
//! A library would build the whole graph of 150,000 types, several times the memory this program
//! may take; what is wanted are a dozen offsets. So this keeps the raw bytes and an index, and
//! follows names. Format: <https://docs.kernel.org/bpf/btf.html>.

use anyhow::{Context, Result, bail, ensure};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Typedefs and qualifiers nest a few deep in the kernel; a loop in a corrupt file ends here.
const MAX_DEPTH: usize = 16;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

pub struct Btf {
    bytes: Vec<u8>,
    /// Where the record of type `id` begins, at index `id - 1`.
    index: Vec<u32>,
    strings: std::ops::Range<usize>,
}

/// One type record: its three common words, and where what follows them begins.
#[derive(Clone, Copy)]
struct Record {
    name: u32,
    info: u32,
    /// A type id for those kinds that refer to another type, a size for the others.
    size_or_type: u32,
    rest: usize,
}

impl Record {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn len(self) -> usize {
        (self.info & 0xffff) as usize
    }

    fn kind_flag(self) -> bool {
        self.info >> 31 == 1
    }

    /// How many bytes follow the common words.
    fn tail(self) -> Result<usize> {
        Ok(match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * self.len(),
            kind::ENUM | kind::FUNC_PROTO => 8 * self.len(),
            0 | 20.. => bail!("type of unknown kind {}", self.kind()),
            _ => 0,
        })
    }
}

impl Btf {
    pub fn vmlinux() -> Result<Self> {
        let bytes = std::fs::read(VMLINUX).with_context(|| {
            format!("cannot read {VMLINUX} (a kernel without CONFIG_DEBUG_INFO_BTF?)")
        })?;
        Self::parse(bytes)
            .with_context(|| format!("{VMLINUX} is not BTF as this kernel's should be"))
    }

    fn parse(bytes: Vec<u8>) -> Result<Self> {
        ensure!(bytes.len() >= 24, "{} bytes is too short for a header", bytes.len());
        let magic = u16::from_ne_bytes([bytes[0], bytes[1]]);
        ensure!(magic == MAGIC, "magic number {magic:#x} instead of {MAGIC:#x}");
        let field = |at: usize| word(&bytes, at).map(|value| value as usize);
        let header = field(4)?;
        let section = |offset: usize, len: usize| {
            let start = header.checked_add(offset).context("section offset overflows")?;
            let end = start.checked_add(len).context("section length overflows")?;
            ensure!(end <= bytes.len(), "section {start}..{end} of {} bytes", bytes.len());
            Ok(start..end)
        };
        let types = section(field(8)?, field(12)?)?;
        let strings = section(field(16)?, field(20)?)?;
        let mut btf = Self { bytes, index: Vec::new(), strings };
        let mut at = types.start;
        while at < types.end {
            let record = btf.record_at(at)?;
            btf.index.push(u32::try_from(at)?);
            at = record.rest + record.tail()?;
        }
        ensure!(at == types.end, "the last type runs past its section");
        Ok(btf)
    }

    fn record_at(&self, at: usize) -> Result<Record> {
        Ok(Record {
            name: word(&self.bytes, at)?,
            info: word(&self.bytes, at + 4)?,
            size_or_type: word(&self.bytes, at + 8)?,
            rest: at + 12,
        })
    }

    fn record(&self, id: u32) -> Result<Record> {
        let index = (id as usize).checked_sub(1).context("void where a type was expected")?;
        let at = *self.index.get(index).with_context(|| format!("no type {id}"))?;
        self.record_at(at as usize)
    }

    fn name(&self, offset: u32) -> &[u8] {
        let strings = &self.bytes[self.strings.clone()];
        let rest = strings.get(offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn named(&self, kinds: &[u32], name: &str) -> Result<Record> {
        for at in &self.index {
            let record = self.record_at(*at as usize)?;
            // A forward declaration has a kind of its own, so this is the definition.
            if kinds.contains(&record.kind()) && self.name(record.name) == name.as_bytes() {
                return Ok(record);
            }
        }
        bail!("this kernel has no type {name}")
    }

    /// The offset in bytes of a member, its path written as in C: `ns.inum` of `net`. Members of
    /// anonymous structs and unions are found as C finds them.
    pub fn offset(&self, structure: &str, path: &str) -> Result<u32> {
        let mut record = self.named(&[kind::STRUCT], structure)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (offset, member_type) = self
                .member(record, name, 0)?
                .with_context(|| format!("this kernel's struct {structure} has no {path}"))?;
            bits += offset;
            record = self.resolved(member_type)?;
        }
        ensure!(bits % 8 == 0, "{path} of struct {structure} is a bit field");
        Ok(bits / 8)
    }

    /// The value of an enumerator.
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Result<u32> {
        let record = self.named(&[kind::ENUM], enumeration)?;
        for i in 0..record.len() {
            let at = record.rest + 8 * i;
            if self.name(word(&self.bytes, at)?) == name.as_bytes() {
                return word(&self.bytes, at + 4);
            }
        }
        bail!("this kernel's enum {enumeration} has no {name}")
    }

    /// Offset in bits and type of a member.
    fn member(&self, record: Record, name: &str, depth: usize) -> Result<Option<(u32, u32)>> {
        if depth > MAX_DEPTH || !matches!(record.kind(), kind::STRUCT | kind::UNION) {
            return Ok(None);
        }
        for i in 0..record.len() {
            let at = record.rest + 12 * i;
            let member_name = self.name(word(&self.bytes, at)?);
            let member_type = word(&self.bytes, at + 4)?;
            let offset = word(&self.bytes, at + 8)?;
            let offset = if record.kind_flag() { offset & 0xff_ffff } else { offset };
            if member_name == name.as_bytes() {
                return Ok(Some((offset, member_type)));
            }
            if member_name.is_empty()
                && let Some((inner, found)) =
                    self.member(self.resolved(member_type)?, name, depth + 1)?
            {
                return Ok(Some((offset + inner, found)));
            }
        }
        Ok(None)
    }

    /// Behind typedefs and qualifiers.
    fn resolved(&self, mut id: u32) -> Result<Record> {
        for _ in 0..MAX_DEPTH {
            let record = self.record(id)?;
            match record.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = record.size_or_type
                }
                _ => return Ok(record),
            }
        }
        bail!("type {id} refers to itself")
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = at
        .checked_add(4)
        .and_then(|end| bytes.get(at..end))
        .with_context(|| format!("cut off at byte {at}"))?;
    Ok(u32::from_ne_bytes(bytes.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes BTF the way the kernel lays it out.
    #[derive(Default)]
    struct Writer {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Writer {
        fn name(&mut self, name: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend_from_slice(name.as_bytes());
            self.strings.push(0);
            at
        }

        fn words(&mut self, words: &[u32]) {
            for word in words {
                self.types.extend_from_slice(&word.to_ne_bytes());
            }
        }

        fn composite(&mut self, kind: u32, name: &str, members: &[(&str, u32, u32)]) {
            let name = self.name(name);
            self.words(&[name, kind << 24 | members.len() as u32, 0]);
            for (member, member_type, bits) in members {
                let member = self.name(member);
                self.words(&[member, *member_type, *bits]);
            }
        }

        fn finish(mut self) -> Vec<u8> {
            self.name("");
            let mut bytes = Vec::new();
            bytes.extend_from_slice(&MAGIC.to_ne_bytes());
            bytes.extend_from_slice(&[1, 0]);
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            for field in [24, 0, types, types, strings] {
                bytes.extend_from_slice(&field.to_ne_bytes());
            }
            bytes.extend(self.types);
            bytes.extend(self.strings);
            bytes
        }
    }

    fn sample() -> Vec<u8> {
        let mut w = Writer::default();
        let int = w.name("int");
        w.words(&[int, kind::INT << 24, 4, 32]); // 1
        w.composite(kind::STRUCT, "ns_common", &[("ops", 1, 0), ("inum", 1, 64)]); // 2
        w.composite(kind::UNION, "", &[("a", 1, 0), ("deep", 1, 0)]); // 3
        let alias = w.name("alias");
        w.words(&[alias, kind::TYPEDEF << 24, 2]); // 4
        w.composite(kind::STRUCT, "net", &[("x", 1, 0), ("", 3, 128), ("ns", 4, 256)]); // 5
        let (reasons, zero, drop) = (w.name("skb_drop_reason"), w.name("ZERO"), w.name("DROP"));
        w.words(&[reasons, kind::ENUM << 24 | 2, 4, zero, 0, drop, 12]); // 6
        w.finish()
    }

    #[test]
    fn members_are_found_through_typedefs_and_anonymous_unions() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset("net", "ns.inum").unwrap(), 40);
        assert_eq!(btf.offset("net", "deep").unwrap(), 16);
        assert_eq!(btf.offset("net", "x").unwrap(), 0);
    }

    #[test]
    fn what_is_absent_is_named() {
        let btf = Btf::parse(sample()).unwrap();
        let error = btf.offset("net", "ns.cookie").unwrap_err().to_string();
        assert_eq!(error, "this kernel's struct net has no ns.cookie");
        assert!(btf.offset("sock", "x").unwrap_err().to_string().contains("no type sock"));
    }

    #[test]
    fn enumerators_have_their_values() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.enumerator("skb_drop_reason", "DROP").unwrap(), 12);
        assert!(btf.enumerator("skb_drop_reason", "NONE").is_err());
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_an_answer_not_a_panic() {
        let whole = sample();
        for len in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..len].to_vec()) {
                let _ = btf.offset("net", "ns.inum");
            }
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(bytes) {
                    let _ = btf.offset("net", "ns.inum");
                    let _ = btf.offset("net", "deep");
                    let _ = btf.enumerator("skb_drop_reason", "DROP");
                }
            }
        }
    }
}
