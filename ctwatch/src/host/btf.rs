//! Offsets and enumerators of the running kernel, from its BTF.
//!
//! A library would build the whole graph of 150,000 types, several times the memory this program
//! may take; what is wanted are a dozen offsets. So this keeps the raw bytes and an index, and
//! follows names. Format: <https://docs.kernel.org/bpf/btf.html>.

use anyhow::{Context, Result, bail, ensure};

const DIR: &str = "/sys/kernel/btf";
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
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// The types of vmlinux, or of a module: those go on where the ones of vmlinux, their base, end,
/// in numbers of types and in offsets of strings alike.
pub struct Btf<'a> {
    bytes: Vec<u8>,
    /// Where the record of type `id` begins, at index `id - first`.
    index: Vec<u32>,
    strings: std::ops::Range<usize>,
    base: Option<&'a Btf<'a>>,
    first: u32,
}

/// A function, as a tracing program names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    pub id: u32,
    pub arguments: usize,
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

impl<'a> Btf<'a> {
    pub fn vmlinux() -> Result<Self> {
        Self::read("vmlinux", "CONFIG_DEBUG_INFO_BTF", None)
    }

    /// The types of a module that is loaded, on top of those of vmlinux.
    pub fn module(name: &str, base: &'a Self) -> Result<Self> {
        Self::read(name, "CONFIG_DEBUG_INFO_BTF_MODULES", Some(base))
    }

    fn read(name: &str, option: &str, base: Option<&'a Self>) -> Result<Self> {
        let path = format!("{DIR}/{name}");
        let bytes = std::fs::read(&path)
            .with_context(|| format!("cannot read {path} (a kernel without {option}?)"))?;
        Self::parse(bytes, base)
            .with_context(|| format!("{path} is not BTF as this kernel's should be"))
    }

    /// What such a file holds; `base` for that of a module.
    pub fn parse(bytes: Vec<u8>, base: Option<&'a Self>) -> Result<Self> {
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
        let first = base.map_or(Ok(1), Self::end)?;
        let mut btf = Self { bytes, index: Vec::new(), strings, base, first };
        let mut at = types.start;
        while at < types.end {
            let record = btf.record_at(at)?;
            btf.index.push(u32::try_from(at)?);
            at = record.rest + record.tail()?;
        }
        ensure!(at == types.end, "the last type runs past its section");
        Ok(btf)
    }

    /// The number of the type after the last.
    fn end(&self) -> Result<u32> {
        let len = u32::try_from(self.index.len())?;
        self.first.checked_add(len).context("too many types")
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
        ensure!(id != 0, "void where a type was expected");
        let index =
            id.checked_sub(self.first).with_context(|| format!("type {id} is vmlinux's"))?;
        let at = *self.index.get(index as usize).with_context(|| format!("no type {id}"))?;
        self.record_at(at as usize)
    }

    fn name(&self, offset: u32) -> &[u8] {
        let own = match self.base {
            Some(base) if (offset as usize) < base.strings.len() => return base.name(offset),
            Some(base) => offset as usize - base.strings.len(),
            None => offset as usize,
        };
        let rest = self.bytes[self.strings.clone()].get(own..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// A function that this vmlinux or this module itself holds.
    pub fn function(&self, name: &str) -> Result<Function> {
        for (id, at) in (self.first..).zip(&self.index) {
            let record = self.record_at(*at as usize)?;
            if record.kind() == kind::FUNC && self.name(record.name) == name.as_bytes() {
                let prototype = record.size_or_type;
                let owner = if prototype < self.first { self.base } else { Some(self) };
                let prototype = owner.context("no prototypes")?.record(prototype)?;
                ensure!(prototype.kind() == kind::FUNC_PROTO, "{name} has no prototype");
                return Ok(Function { id, arguments: prototype.len() });
            }
        }
        bail!("no function {name} in this kernel's BTF")
    }

    /// The size of a struct in bytes.
    pub fn size(&self, structure: &str) -> Result<u32> {
        Ok(self.named(&[kind::STRUCT], structure)?.size_or_type)
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
            bits = offset.checked_add(bits).context("a member is out of reach")?;
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
                let offset = offset.checked_add(inner).context("a member is out of reach")?;
                return Ok(Some((offset, found)));
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
        let btf = Btf::parse(sample(), None).unwrap();
        assert_eq!(btf.offset("net", "ns.inum").unwrap(), 40);
        assert_eq!(btf.offset("net", "deep").unwrap(), 16);
        assert_eq!(btf.offset("net", "x").unwrap(), 0);
    }

    #[test]
    fn what_is_absent_is_named() {
        let btf = Btf::parse(sample(), None).unwrap();
        let error = btf.offset("net", "ns.cookie").unwrap_err().to_string();
        assert_eq!(error, "this kernel's struct net has no ns.cookie");
        assert!(btf.offset("sock", "x").unwrap_err().to_string().contains("no type sock"));
    }

    #[test]
    fn enumerators_have_their_values() {
        let btf = Btf::parse(sample(), None).unwrap();
        assert_eq!(btf.enumerator("skb_drop_reason", "DROP").unwrap(), 12);
        assert!(btf.enumerator("skb_drop_reason", "NONE").is_err());
    }

    /// A module with a function of its own, one whose name vmlinux has too, and one whose
    /// prototype is vmlinux's.
    fn split(base: &Btf<'_>, shared_name: u32) -> Vec<u8> {
        let mut w = Writer::default();
        let offset = base.strings.len() as u32;
        let own = offset + w.name("own");
        let first = base.end().unwrap();
        w.words(&[0, kind::FUNC_PROTO << 24 | 2, 1, 0, 1, 0, 1]); // first
        w.words(&[own, kind::FUNC << 24, first]);
        w.words(&[shared_name, kind::FUNC << 24, first]);
        w.finish()
    }

    #[test]
    fn a_modules_functions_go_on_where_vmlinux_ends() {
        let base = Btf::parse(sample(), None).unwrap();
        let shared = base.named(&[kind::STRUCT], "net").unwrap().name;
        let module = Btf::parse(split(&base, shared), Some(&base)).unwrap();
        let first = base.end().unwrap();
        assert_eq!(module.function("own").unwrap(), Function { id: first + 1, arguments: 2 });
        assert_eq!(module.function("net").unwrap(), Function { id: first + 2, arguments: 2 });
        let error = module.function("other").unwrap_err().to_string();
        assert_eq!(error, "no function other in this kernel's BTF");
        assert!(base.function("own").is_err(), "not of vmlinux");
    }

    #[test]
    fn a_corrupt_module_is_an_answer_not_a_panic() {
        let base = Btf::parse(sample(), None).unwrap();
        let whole = split(&base, 1);
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(bytes, Some(&base)) {
                    let _ = btf.function("own");
                    let _ = btf.size("net");
                }
            }
        }
    }

    #[test]
    fn sizes_are_those_of_the_definition() {
        let mut w = Writer::default();
        let name = w.name("pair");
        w.words(&[name, kind::STRUCT << 24, 56]);
        let btf = Btf::parse(w.finish(), None).unwrap();
        assert_eq!(btf.size("pair").unwrap(), 56);
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_an_answer_not_a_panic() {
        let whole = sample();
        for len in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..len].to_vec(), None) {
                let _ = btf.offset("net", "ns.inum");
            }
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(bytes, None) {
                    let _ = btf.offset("net", "ns.inum");
                    let _ = btf.offset("net", "deep");
                    let _ = btf.enumerator("skb_drop_reason", "DROP");
                }
            }
        }
    }
}
