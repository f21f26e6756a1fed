//! How counts, keys and lists are written down: by names that stay, so that more can come. Zeros are
//! left out, and a reader passes over names that it does not know.

use core::{
    fmt,
    marker::PhantomData,
    net::{Ipv4Addr, Ipv6Addr},
    str,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IgnoredAny, MapAccess, Unexpected, Visitor},
};

use crate::{
    Count, HostCount, HostTally, NetnsTally,
    plane::Plane,
    top::{AF_INET, AF_INET6, By, Key, Stream},
    trace::Reason,
};

/// Where a number of a tally belongs.
trait Numbers: Default {
    type Name: Copy;

    /// `None`: a later version counts it.
    fn named(name: &str) -> Option<Self::Name>;

    /// `None`: there is no room for a number as large as that.
    fn put(&mut self, name: Self::Name, number: u64) -> Option<()>;
}

/// One of the numbers of a [`NetnsTally`].
#[derive(Clone, Copy)]
enum Part {
    Id,
    Inode,
    Owner,
    Of(Count),
}

impl Numbers for NetnsTally {
    type Name = Part;

    fn named(name: &str) -> Option<Part> {
        match name {
            "id" => Some(Part::Id),
            "inode" => Some(Part::Inode),
            "owner" => Some(Part::Owner),
            _ => Count::EACH.into_iter().find(|count| count.name() == name).map(Part::Of),
        }
    }

    fn put(&mut self, name: Part, number: u64) -> Option<()> {
        match name {
            Part::Id => self.id = number,
            Part::Inode => self.inode = number.try_into().ok()?,
            Part::Owner => self.owner = number.try_into().ok()?,
            Part::Of(count) => self.counts[count as usize] = number,
        }
        Some(())
    }
}

impl Numbers for HostTally {
    type Name = HostCount;

    fn named(name: &str) -> Option<HostCount> {
        HostCount::EACH.into_iter().find(|count| count.name() == name)
    }

    fn put(&mut self, name: HostCount, number: u64) -> Option<()> {
        self.counts[name as usize] = number;
        Some(())
    }
}

fn non_zero<S: Serializer>(
    serializer: S,
    all: impl Iterator<Item = (&'static str, u64)>,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(all.filter(|(_, number)| *number != 0))
}

impl Serialize for NetnsTally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whose = [("id", self.id), ("inode", self.inode.into()), ("owner", self.owner.into())];
        let counts = Count::EACH.map(|count| (count.name(), self.get(count)));
        non_zero(serializer, whose.into_iter().chain(counts))
    }
}

impl Serialize for HostTally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counts = HostCount::EACH.map(|count| (count.name(), self.get(count)));
        non_zero(serializer, counts.into_iter())
    }
}

impl<'de> Deserialize<'de> for NetnsTally {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NumbersVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for HostTally {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NumbersVisitor(PhantomData))
    }
}

struct NumbersVisitor<T>(PhantomData<T>);

impl<'de, T: Numbers> Visitor<'de> for NumbersVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of names to numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut all = T::default();
        while let Some(Name(name)) = map.next_key::<Name<T>>()? {
            let Some(name) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let number = map.next_value()?;
            let too_large = || A::Error::invalid_value(Unexpected::Unsigned(number), &"32 bits");
            all.put(name, number).ok_or_else(too_large)?;
        }
        Ok(all)
    }
}

/// The name of a number, where it is known.
struct Name<T: Numbers>(Option<T::Name>);

impl<'de, T: Numbers> Deserialize<'de> for Name<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = |name: &str| Some(T::named(name));
        deserializer.deserialize_str(Text { expected: "a name", read: name }).map(Self)
    }
}

/// Takes a text that `read` understands.
struct Text<F> {
    expected: &'static str,
    read: F,
}

impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

macro_rules! by_name {
    ($($type:ty, $all:expr, $expected:literal;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let read = |name: &str| $all.into_iter().find(|of| of.name() == name);
                deserializer.deserialize_str(Text { expected: $expected, read })
            }
        }
    )*};
}

by_name! {
    By, By::ALL.into_iter().chain([By::Backend, By::ReplyDestination]), "a grouping";
    Reason, Reason::ALL, "a reason";
    Stream, Stream::ALL, "a stream";
    Plane, Plane::EACH, "a control plane";
}

/// A key as it is written down. What is not said is zero, and the family that of its addresses.
#[derive(Deserialize, Serialize)]
struct Written {
    #[serde(default, skip_serializing_if = "is_zero")]
    netns: u64,
    /// As Linux numbers them; only where the addresses do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    family: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    src: Option<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dst: Option<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Comm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cgroup: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    protocol: u8,
    /// In the host's order.
    #[serde(default, skip_serializing_if = "is_zero")]
    dport: u16,
    #[serde(default, skip_serializing_if = "is_zero")]
    ifindex: u32,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

#[derive(Clone, Copy)]
enum Address {
    V4([u8; 4]),
    V6([u8; 16]),
    /// Bytes that are no address of the key's family: 32 hexadecimal digits.
    Raw([u8; 16]),
}

impl Address {
    /// `None`: there is none.
    fn of(family: u8, bytes: [u8; 16]) -> Option<Self> {
        let [a, b, c, d, rest @ ..] = bytes;
        match family {
            _ if bytes == [0; 16] => None,
            AF_INET if rest == [0; 12] => Some(Self::V4([a, b, c, d])),
            AF_INET6 => Some(Self::V6(bytes)),
            _ => Some(Self::Raw(bytes)),
        }
    }

    fn family(self) -> Option<u8> {
        match self {
            Self::V4(_) => Some(AF_INET),
            Self::V6(_) => Some(AF_INET6),
            Self::Raw(_) => None,
        }
    }

    fn bytes(self) -> [u8; 16] {
        match self {
            Self::V4([a, b, c, d]) => [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Self::V6(bytes) | Self::Raw(bytes) => bytes,
        }
    }

    fn read(text: &str) -> Option<Self> {
        if text.contains(':') {
            return text.parse().ok().map(|of: Ipv6Addr| Self::V6(of.octets()));
        }
        if text.contains('.') {
            return text.parse().ok().map(|of: Ipv4Addr| Self::V4(of.octets()));
        }
        let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let all = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
        Some(Self::Raw(all.to_be_bytes()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(bytes) => Ipv4Addr::from(*bytes).fmt(f),
            Self::V6(bytes) => Ipv6Addr::from(*bytes).fmt(f),
            Self::Raw(bytes) => write!(f, "{:032x}", u128::from_be_bytes(*bytes)),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { expected: "an address", read: Self::read })
    }
}

/// The name of a process.
struct Comm([u8; 16]);

impl Comm {
    /// `None` where it would not come back as it was.
    fn of(bytes: [u8; 16]) -> Option<Self> {
        Self::text(&bytes).and_then(Self::read).filter(|comm| comm.0 == bytes)
    }

    fn text(bytes: &[u8; 16]) -> Option<&str> {
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        str::from_utf8(&bytes[..len]).ok().filter(|text| !text.is_empty())
    }

    fn read(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }
}

impl Serialize for Comm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::text(&self.0).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Comm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { expected: "a name of 16 bytes", read: Self::read })
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Only a key by process, or by interface, has no family.
        let process = Some(self.src).filter(|_| self.family == 0).and_then(Comm::of);
        let cgroup = Some(self.cgroup())
            .filter(|cgroup| self.family == 0 && *cgroup != 0 && self.dst[8..] == [0; 8]);
        let of = |bytes| Address::of(self.family, bytes);
        let src = if process.is_some() { None } else { of(self.src) };
        let dst = if cgroup.is_some() { None } else { of(self.dst) };
        let written = Written {
            netns: self.netns,
            family: Some(self.family).filter(|family| *family != told(src, dst)),
            src,
            dst,
            process,
            cgroup,
            protocol: self.protocol,
            dport: u16::from_be(self.dport),
            ifindex: self.ifindex,
        };
        written.serialize(serializer)
    }
}

/// The family that these tell.
fn told(src: Option<Address>, dst: Option<Address>) -> u8 {
    let families = [src, dst].map(|of| of.and_then(Address::family));
    families.into_iter().flatten().next().unwrap_or(0)
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Written::deserialize(deserializer)?;
        let cgroup = |number: u64| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.to_ne_bytes());
            bytes
        };
        let src = read.src.map(Address::bytes).or(read.process.map(|comm| comm.0));
        let dst = read.dst.map(Address::bytes).or(read.cgroup.map(cgroup));
        Ok(Self {
            netns: read.netns,
            src: src.unwrap_or_default(),
            dst: dst.unwrap_or_default(),
            dport: read.dport.to_be(),
            protocol: read.protocol,
            family: read.family.unwrap_or_else(|| told(read.src, read.dst)),
            ifindex: read.ifindex,
        })
    }
}
