//! Offsets and enumerators of the running kernel, from its BTF.
//!
//! A library would build the whole graph of 150,000 types, several times the memory this program
//! may take; what is wanted are a dozen offsets. So this goes over the types once, keeps where those
//! are whose names are wanted, and follows numbers from there. Format:
//! <https://docs.kernel.org/bpf/btf.html>.

use std::{
    ops::{Deref, Range},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};

use super::mapping::Mapping;

const DIR: &str = "/sys/kernel/btf";
const MAGIC: u16 = 0xeb9f;
/// Typedefs and qualifiers nest a few deep in the kernel; a loop in a corrupt file ends here.
const MAX_DEPTH: usize = 16;
/// Of so many types, it is kept where one begins: from there to any other is not far.
const STRIDE: u32 = 64;

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
pub struct Btf {
    bytes: Bytes,
    types: Range<usize>,
    strings: Range<usize>,
    base: Option<Arc<Btf>>,
    /// The number of the first type, and of the one after the last.
    first: u32,
    end: u32,
    /// Where each [`STRIDE`]th type begins.
    milestones: Vec<usize>,
    /// What was wanted and is there: the first of each name and kind.
    found: Vec<Found>,
    /// A kind that nobody here knows, and how long its types are.
    learned: Option<Learned>,
    /// Why the types from `end` on could not be read.
    cut: Option<String>,
}

/// How many bytes follow the common words of each type of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Learned {
    kind: u32,
    fixed: usize,
    /// For each of what `len` counts.
    each: usize,
}

/// What kinds so far are made of, and a little more.
const FIXED: [usize; 5] = [0, 4, 8, 12, 16];
const EACH: [usize; 5] = [0, 4, 8, 12, 16];

struct Found {
    name: &'static str,
    id: u32,
    record: Record,
}

enum Bytes {
    Read(Vec<u8>),
    /// The kernel's own, which takes no memory of this process.
    Mapped(Mapping),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(mapping) => mapping.bytes(),
        }
    }
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

    /// Whether bits are set that no kind has used so far.
    fn is_odd(self) -> bool {
        self.info & 0x60ff_0000 != 0 || self.kind() == 0
    }

    /// How many bytes follow the common words; `None` for a kind that nobody here knows.
    fn tail(self) -> Option<usize> {
        Some(match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * self.len(),
            kind::ENUM | kind::FUNC_PROTO => 8 * self.len(),
            0 | 20.. => return None,
            _ => 0,
        })
    }
}

/// Names that are looked for, by their first two bytes: most others are told apart by those.
struct Names {
    wanted: &'static [&'static str],
    begins: Vec<u64>,
}

impl Names {
    fn new(wanted: &'static [&'static str]) -> Self {
        let mut begins = vec![0; (1 << 16) / 64];
        for name in wanted {
            let [first, second] = begin(name.as_bytes());
            let at = usize::from(u16::from_ne_bytes([first, second]));
            begins[at / 64] |= 1 << (at % 64);
        }
        Self { wanted, begins }
    }

    /// The one that stands here, up to its zero.
    fn at(&self, rest: &[u8]) -> Option<&'static str> {
        let at = usize::from(u16::from_ne_bytes(begin(rest)));
        if self.begins[at / 64] >> (at % 64) & 1 == 0 {
            return None;
        }
        self.wanted.iter().copied().find(|name| is(rest, name))
    }
}

/// A name of one letter has its zero there.
fn begin(name: &[u8]) -> [u8; 2] {
    [name.first().copied().unwrap_or(0), name.get(1).copied().unwrap_or(0)]
}

/// Whether the string that begins here is this one, and no longer one that begins like it.
fn is(rest: &[u8], name: &str) -> bool {
    let after = rest.strip_prefix(name.as_bytes());
    after.is_some_and(|after| after.first().is_none_or(|byte| *byte == 0))
}

impl Btf {
    /// vmlinux's, with the structs, enums, functions and typedefs of these names.
    pub fn vmlinux(wanted: &'static [&'static str]) -> Result<Self> {
        Self::read("vmlinux", "CONFIG_DEBUG_INFO_BTF", None, wanted)
    }

    /// The types of a module that is loaded, on top of those of vmlinux.
    pub fn module(name: &str, base: &Arc<Self>, wanted: &'static [&'static str]) -> Result<Self> {
        let option = "CONFIG_DEBUG_INFO_BTF_MODULES";
        Self::read(name, option, Some(Arc::clone(base)), wanted)
    }

    fn read(
        name: &str,
        option: &str,
        base: Option<Arc<Self>>,
        wanted: &'static [&'static str],
    ) -> Result<Self> {
        let path = format!("{DIR}/{name}");
        let file = std::fs::File::open(&path)
            .with_context(|| format!("cannot read {path} (a kernel without {option}?)"))?;
        // vmlinux's can be mapped since Linux 6.16; else some thousand reads copy it twice.
        let bytes = match Mapping::of(&file) {
            Ok(mapping) => Bytes::Mapped(mapping),
            Err(_) => Bytes::Read(read(file).with_context(|| format!("cannot read {path}"))?),
        };
        Self::new(bytes, base, wanted)
            .with_context(|| format!("{path} is not BTF as this kernel's should be"))
    }

    /// What such a file holds; `base` for that of a module.
    pub fn parse(
        bytes: Vec<u8>,
        base: Option<Arc<Self>>,
        wanted: &'static [&'static str],
    ) -> Result<Self> {
        Self::new(Bytes::Read(bytes), base, wanted)
    }

    fn new(bytes: Bytes, base: Option<Arc<Self>>, wanted: &'static [&'static str]) -> Result<Self> {
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
        let first = match &base {
            None => 1,
            Some(base) => match &base.cut {
                None => base.end,
                Some(cut) => bail!("the types of vmlinux have no known number: {cut}"),
            },
        };
        let mut btf = Self {
            bytes,
            types,
            strings,
            base,
            first,
            end: first,
            milestones: Vec::new(),
            found: Vec::new(),
            learned: None,
            cut: None,
        };
        btf.look_over(wanted)?;
        Ok(btf)
    }

    /// Goes over all types, once. This is run before the first line is shown.
    fn look_over(&mut self, wanted: &'static [&'static str]) -> Result<()> {
        let names = Names::new(wanted);
        let (mut found, mut milestones) = (Vec::<Found>::new(), Vec::new());
        let (mut at, mut id) = (self.types.start, self.first);
        while at < self.types.end {
            if (id - self.first).is_multiple_of(STRIDE) {
                milestones.push(at);
            }
            let record = self.record_at(at)?;
            let kind = record.kind();
            if matches!(kind, kind::STRUCT | kind::ENUM | kind::FUNC | kind::TYPEDEF)
                && record.name != 0
                && let Some(name) = names.at(self.string(record.name))
                && !found.iter().any(|found| found.name == name && found.record.kind() == kind)
            {
                found.push(Found { name, id, record });
            }
            if record.tail().is_none() && self.learned.is_none() {
                self.learned = self.learn(at, kind);
            }
            let Some(tail) = self.tail(record) else {
                // What comes before it may be all that is wanted.
                self.cut = Some(format!("type {id} is of the unknown kind {kind}"));
                break;
            };
            at = record.rest + tail;
            ensure!(at <= self.types.end, "the last type runs past its section");
            id = id.checked_add(1).context("too many types")?;
        }
        (self.end, self.found, self.milestones) = (id, found, milestones);
        Ok(())
    }

    /// As the record itself, and by what was learned.
    fn tail(&self, record: Record) -> Option<usize> {
        let learned = self.learned.filter(|learned| learned.kind == record.kind());
        record.tail().or_else(|| learned.map(|it| it.fixed + it.each * record.len()))
    }

    /// How long types of a kind are that nobody here knows, the first of which is here: as long as it
    /// takes for all that follows to be types, up to the very end, and as many as can be: what is
    /// longer hides some. `None` where that is so in more than one way: a wrong number would name
    /// another function.
    fn learn(&self, at: usize, kind: u32) -> Option<Learned> {
        let ways = FIXED.into_iter().flat_map(|fixed| EACH.map(|each| (fixed, each)));
        let mut found: Option<(Learned, (usize, usize))> = None;
        for (fixed, each) in ways {
            let learned = Learned { kind, fixed, each };
            let Some(walked) = self.walk(at, learned) else { continue };
            match found {
                // Two ways to the same places are one.
                Some((_, known)) if known == walked || known.0 > walked.0 => {}
                Some((_, known)) if known.0 == walked.0 => return None,
                _ => found = Some((learned, walked)),
            }
        }
        found.map(|(learned, _)| learned)
    }

    /// How many types there are from here on, and the sum of where they begin.
    fn walk(&self, mut at: usize, learned: Learned) -> Option<(usize, usize)> {
        let names = self.strings.len() + self.base.as_ref().map_or(0, |base| base.strings.len());
        let (mut types, mut places) = (0, 0_usize);
        while at < self.types.end {
            let record = self.record_at(at).ok()?;
            if record.is_odd() || record.name as usize >= names.max(1) {
                return None;
            }
            let known = record.tail();
            let is_it = record.kind() == learned.kind;
            let tail = known.or(is_it.then_some(learned.fixed + learned.each * record.len()))?;
            (types, places) = (types + 1, places.wrapping_add(at));
            at = record.rest.checked_add(tail)?;
        }
        (at == self.types.end).then_some((types, places))
    }

    fn record_at(&self, at: usize) -> Result<Record> {
        let bytes = at.checked_add(12).and_then(|end| self.bytes.get(at..end));
        let bytes: &[u8; 12] =
            bytes.and_then(<[u8]>::first_chunk).with_context(|| format!("cut off at byte {at}"))?;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        Ok(Record {
            name: u32::from_ne_bytes([a, b, c, d]),
            info: u32::from_ne_bytes([e, f, g, h]),
            size_or_type: u32::from_ne_bytes([i, j, k, l]),
            rest: at + 12,
        })
    }

    fn record(&self, id: u32) -> Result<Record> {
        ensure!(id != 0, "void where a type was expected");
        if id < self.first {
            return self.base.as_ref().context("no base")?.record(id);
        }
        if id >= self.end {
            bail!("no type {id}{}", self.why());
        }
        let index = id - self.first;
        let milestone = self.milestones.get((index / STRIDE) as usize);
        let mut record = self.record_at(*milestone.context("no milestone")?)?;
        for _ in 0..index % STRIDE {
            record = self.record_at(record.rest + self.tail(record).context("an unknown kind")?)?;
        }
        Ok(record)
    }

    /// All from here on, of which the name is what comes before the first zero.
    fn string(&self, offset: u32) -> &[u8] {
        let own = match &self.base {
            Some(base) if (offset as usize) < base.strings.len() => return base.string(offset),
            Some(base) => offset as usize - base.strings.len(),
            None => offset as usize,
        };
        self.bytes[self.strings.clone()].get(own..).unwrap_or_default()
    }

    /// A function that this vmlinux or this module itself holds.
    pub fn function(&self, name: &str) -> Result<Function> {
        let found = self.found.iter().find(|it| it.name == name && it.record.kind() == kind::FUNC);
        let Some(Found { id, record, .. }) = found else {
            bail!("no function {name} in this kernel's BTF{}", self.why());
        };
        let prototype = self.record(record.size_or_type)?;
        ensure!(prototype.kind() == kind::FUNC_PROTO, "{name} has no prototype");
        Ok(Function { id: *id, arguments: prototype.len() })
    }

    /// The number of a typedef.
    pub fn typedef(&self, name: &str) -> Option<u32> {
        let is_it = |it: &&Found| it.name == name && it.record.kind() == kind::TYPEDEF;
        self.found.iter().find(is_it).map(|found| found.id)
    }

    /// The size of a struct in bytes.
    pub fn size(&self, structure: &str) -> Result<u32> {
        Ok(self.named(kind::STRUCT, structure)?.size_or_type)
    }

    /// Of those that were wanted. A forward declaration has a kind of its own, so this is the
    /// definition.
    fn named(&self, kind: u32, name: &str) -> Result<Record> {
        let found =
            self.found.iter().find(|found| found.name == name && found.record.kind() == kind);
        match found {
            Some(found) => Ok(found.record),
            None => bail!("this kernel has no type {name}{}", self.why()),
        }
    }

    /// Why something may be there and was not found.
    fn why(&self) -> String {
        let cut = |why: &String| format!(" before what cannot be read: {why}");
        self.cut.as_ref().map_or_else(String::new, cut)
    }

    /// The offset in bytes of a member, its path written as in C: `ns.inum` of `net`. Members of
    /// anonymous structs and unions are found as C finds them.
    pub fn offset(&self, structure: &str, path: &str) -> Result<u32> {
        let mut record = self.named(kind::STRUCT, structure)?;
        let mut bits = 0;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let (offset, member_type) = self
                .member(record, name, 0)?
                .with_context(|| format!("this kernel's struct {structure} has no {path}"))?;
            bits = offset.checked_add(bits).context("a member is out of reach")?;
            // Of which type the last one is does not matter.
            if names.peek().is_some() {
                record = self.resolved(member_type)?;
            }
        }
        ensure!(bits % 8 == 0, "{path} of struct {structure} is a bit field");
        Ok(bits / 8)
    }

    /// The value of an enumerator.
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Result<u32> {
        let record = self.named(kind::ENUM, enumeration)?;
        for i in 0..record.len() {
            let at = record.rest + 8 * i;
            if is(self.string(word(&self.bytes, at)?), name) {
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
            let member_name = self.string(word(&self.bytes, at)?);
            let member_type = word(&self.bytes, at + 4)?;
            let offset = word(&self.bytes, at + 8)?;
            let offset = if record.kind_flag() { offset & 0xff_ffff } else { offset };
            if is(member_name, name) {
                return Ok(Some((offset, member_type)));
            }
            if is(member_name, "")
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

/// All of it, into a place that is large enough from the start.
fn read(mut file: std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
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

    const WANTED: &[&str] = &[
        "net",
        "ns_common",
        "skb_drop_reason",
        "own",
        "other",
        "sock",
        "pair",
        "x",
        "nf",
        "nf_conn",
    ];

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

    fn parse(bytes: Vec<u8>) -> Result<Btf> {
        Btf::parse(bytes, None, WANTED)
    }

    #[test]
    fn members_are_found_through_typedefs_and_anonymous_unions() {
        let btf = parse(sample()).unwrap();
        assert_eq!(btf.offset("net", "ns.inum").unwrap(), 40);
        assert_eq!(btf.offset("net", "deep").unwrap(), 16);
        assert_eq!(btf.offset("net", "x").unwrap(), 0);
    }

    #[test]
    fn what_is_absent_is_named() {
        let btf = parse(sample()).unwrap();
        let error = btf.offset("net", "ns.cookie").unwrap_err().to_string();
        assert_eq!(error, "this kernel's struct net has no ns.cookie");
        assert!(btf.offset("sock", "x").unwrap_err().to_string().contains("no type sock"));
    }

    #[test]
    fn enumerators_have_their_values() {
        let btf = parse(sample()).unwrap();
        assert_eq!(btf.enumerator("skb_drop_reason", "DROP").unwrap(), 12);
        assert!(btf.enumerator("skb_drop_reason", "NONE").is_err());
    }

    /// Structs of these names, each of another size.
    fn structs(names: &[&str]) -> Vec<u8> {
        let mut w = Writer::default();
        for (name, size) in names.iter().zip(1..) {
            let name = w.name(name);
            w.words(&[name, kind::STRUCT << 24, size]);
        }
        w.finish()
    }

    #[test]
    fn longer_and_shorter_names_are_others() {
        let names = ["netns", "ne", "nets", "x_net", "nf_con", "xnf", "net", "nf_conn_tuple", "xx"];
        let btf = parse(structs(&names)).unwrap();
        assert_eq!(btf.size("net").unwrap(), 7);
        for absent in ["nf", "x", "nf_conn", "ns_common"] {
            assert!(btf.size(absent).is_err(), "{absent}");
        }
        let btf = parse(structs(&["nf_conn", "x", "nf", "xn"])).unwrap();
        assert_eq!(["nf_conn", "x", "nf"].map(|name| btf.size(name).unwrap()), [1, 2, 3]);
    }

    #[test]
    fn a_name_may_be_the_end_of_another() {
        let mut w = Writer::default();
        let inner = w.name("init_net") + 5;
        w.words(&[inner, kind::STRUCT << 24, 7]);
        assert_eq!(parse(w.finish()).unwrap().size("net").unwrap(), 7);
    }

    #[test]
    fn of_two_types_of_one_name_it_is_the_first() {
        let btf = parse(structs(&["net", "net"])).unwrap();
        assert_eq!(btf.size("net").unwrap(), 1);
        let mut w = Writer::default();
        let net = w.name("net");
        w.words(&[net, kind::FUNC << 24, 2]); // 1
        w.words(&[0, kind::FUNC_PROTO << 24, 0]); // 2
        w.words(&[net, kind::STRUCT << 24, 9]); // 3
        let btf = parse(w.finish()).unwrap();
        assert_eq!((btf.size("net").unwrap(), btf.function("net").unwrap().id), (9, 1));
    }

    #[test]
    fn types_are_found_from_the_nearest_milestone() {
        let mut w = Writer::default();
        for id in 1..=3 * STRIDE {
            // Each refers to the last but one; those that all lead to come at the end.
            w.words(&[0, kind::FUNC_PROTO << 24 | 1, 0, 0, id]);
        }
        let int = 3 * STRIDE + 1;
        w.words(&[0, kind::INT << 24, 4, 32]);
        w.composite(kind::STRUCT, "ns_common", &[("inum", int, 64)]);
        w.composite(kind::STRUCT, "net", &[("ns", int + 1, 64)]);
        let btf = parse(w.finish()).unwrap();
        assert_eq!(btf.offset("net", "ns.inum").unwrap(), 16);
        for id in 1..=3 * STRIDE {
            let record = btf.record(id).unwrap();
            assert_eq!(word(&btf.bytes, record.rest + 4).unwrap(), id);
        }
        assert!(btf.record(int + 3).is_err() && btf.record(u32::MAX).is_err());
    }

    #[test]
    fn an_unknown_kind_is_stepped_over() {
        for (kind, len, tail) in [(31, 0, 0), (20, 0, 1), (20, 3, 3), (25, 2, 6), (29, 1, 4)] {
            let mut w = Writer::default();
            w.composite(kind::STRUCT, "net", &[("x", 1, 64)]); // 1
            let odd = w.name("odd");
            w.words(&[odd, kind << 24 | len, 7]); // 2
            w.words(&vec![0xffff_ffff; tail]);
            for id in 3..=STRIDE * 2 {
                w.words(&[0, kind::FUNC_PROTO << 24 | 1, 0, 0, id]);
            }
            w.composite(kind::STRUCT, "sock", &[("x", 1, 32)]);
            let btf = parse(w.finish()).unwrap();
            assert_eq!(btf.offset("net", "x").unwrap(), 8);
            assert_eq!(btf.offset("sock", "x").unwrap(), 4, "{kind} {len} {tail}");
            assert_eq!(btf.end, STRIDE * 2 + 2);
            assert_eq!(
                word(&btf.bytes, btf.record(STRIDE * 2).unwrap().rest + 4).unwrap(),
                STRIDE * 2
            );
        }
    }

    #[test]
    fn an_unknown_kind_that_cannot_be_measured_ends_it() {
        let mut w = Writer::default();
        w.composite(kind::STRUCT, "net", &[("x", 1, 64)]);
        w.words(&[0, 31 << 24, 0]);
        // A type that nothing is known of, or part of the one before.
        w.words(&[0, kind::INT << 24, 4, 32]);
        w.words(&[0, 30 << 24, 0]);
        w.composite(kind::STRUCT, "sock", &[("x", 1, 64)]);
        let btf = parse(w.finish()).unwrap();
        assert_eq!(btf.offset("net", "x").unwrap(), 8);
        let error = btf.offset("sock", "x").unwrap_err().to_string();
        assert_eq!(
            error,
            "this kernel has no type sock before what cannot be read: type 2 is of the unknown kind 31"
        );
        let base = Arc::new(btf);
        let error = Btf::parse(sample(), Some(base), WANTED).err().unwrap().to_string();
        assert!(error.contains("unknown kind 31"), "{error}");
    }

    /// A module with a function of its own, one whose name vmlinux has too, and one whose
    /// prototype is vmlinux's.
    fn split(base: &Btf, shared_name: u32) -> Vec<u8> {
        let mut w = Writer::default();
        let offset = base.strings.len() as u32;
        let own = offset + w.name("own");
        let other = offset + w.name("other");
        let first = base.end;
        w.words(&[0, kind::FUNC_PROTO << 24 | 2, 1, 0, 1, 0, 1]); // first
        w.words(&[own, kind::FUNC << 24, first]);
        w.words(&[shared_name, kind::FUNC << 24, first]);
        w.words(&[other, kind::FUNC << 24, 7]);
        w.finish()
    }

    /// [`sample`], and a prototype at its end.
    fn base() -> Arc<Btf> {
        let mut bytes = sample();
        let prototype = [0, kind::FUNC_PROTO << 24 | 3, 1, 0, 1, 0, 1, 0, 1]; // 7
        let types = word(&bytes, 12).unwrap() as usize;
        let added: Vec<u8> = prototype.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        bytes.splice(24 + types..24 + types, added.iter().copied());
        for at in [12, 16] {
            let moved = (types + added.len()) as u32;
            bytes[at..at + 4].copy_from_slice(&moved.to_ne_bytes());
        }
        Arc::new(parse(bytes).unwrap())
    }

    #[test]
    fn a_modules_functions_go_on_where_vmlinux_ends() {
        let base = base();
        let shared = base.named(kind::STRUCT, "net").unwrap().name;
        let module = Btf::parse(split(&base, shared), Some(Arc::clone(&base)), WANTED).unwrap();
        let first = base.end;
        assert_eq!(module.function("own").unwrap(), Function { id: first + 1, arguments: 2 });
        assert_eq!(module.function("net").unwrap(), Function { id: first + 2, arguments: 2 });
        assert_eq!(module.function("other").unwrap(), Function { id: first + 3, arguments: 3 });
        let error = module.function("absent").unwrap_err().to_string();
        assert_eq!(error, "no function absent in this kernel's BTF");
        assert!(base.function("own").is_err(), "not of vmlinux");
        assert!(module.size("net").is_err(), "not of the module");
    }

    #[test]
    fn a_corrupt_module_is_an_answer_not_a_panic() {
        let base = base();
        let whole = split(&base, 1);
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(bytes, Some(Arc::clone(&base)), WANTED) {
                    let _ = btf.function("own");
                    let _ = btf.function("other");
                    let _ = btf.size("net");
                }
            }
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_an_answer_not_a_panic() {
        let whole = sample();
        for len in 0..whole.len() {
            if let Ok(btf) = parse(whole[..len].to_vec()) {
                let _ = btf.offset("net", "ns.inum");
            }
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(btf) = parse(bytes) {
                    let _ = btf.offset("net", "ns.inum");
                    let _ = btf.offset("net", "deep");
                    let _ = btf.enumerator("skb_drop_reason", "DROP");
                }
            }
        }
    }
}
