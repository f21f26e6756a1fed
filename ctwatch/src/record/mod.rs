//! What was read, as plain values: uninterpreted, `None` or a reason where it could not be had. Knows
//! nothing else of ctwatch.
//!
//! All of it can be written down and read again by a later version. The format is a contract:
//!
//! - Fields are only added: none is renamed, removed, or given another meaning or unit.
//! - A reader ignores fields, counts and keys of a map that it does not know.
//! - A field that is added has `#[serde(default)]`, and its doc line says what it means that an older
//!   file lacks it: `None`, an empty list, `false`. A number that is added is an `Option`, or a flag of
//!   [`Counted`](sample::Counted) says that it was counted: what was not read must not read as zero.
//! - A float is read as it was written, to the last bit (serde_json's `float_roundtrip`).
//! - What is empty, `None`, `false`, or zero is left out. Only numbers of format 1 and counts are left
//!   out for being zero.
//! - An enum that may grow has a variant for something else, and what a later version wrote reads as
//!   that. [`Framework`](facts::Framework), [`BucketsBy`](facts::BucketsBy) and
//!   [`Writable`](facts::Writable) have none, and do not grow: what is new there gets a new field.
//! - [`FORMAT`](session::FORMAT) becomes another number only where a reader that ignores what it does
//!   not know would be misled. A reader refuses a number that it does not know.
//!
//! `tests/fixtures/records/v1.ndjson` has to stay readable.

pub mod counters;
pub mod entry;
pub mod facts;
pub mod measurement;
pub mod netns_map;
pub mod rules;
pub mod sample;
pub mod session;
pub mod workload;

#[cfg(test)]
pub(crate) mod tests;

use serde::{Deserialize, Deserializer, de::IgnoredAny};

/// What is left out where it is written down.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a value is taken for that a later version wrote in a way that is not known here.
trait SomethingElse {
    fn something_else() -> Self;
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Read<T> {
    Known(T),
    Unknown(IgnoredAny),
}

impl<T> Read<T> {
    fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

fn or_something_else<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + SomethingElse,
{
    Ok(Read::deserialize(deserializer)?.known().unwrap_or_else(T::something_else))
}

fn each_or_something_else<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de> + SomethingElse,
{
    let all: Vec<Read<T>> = Vec::deserialize(deserializer)?;
    Ok(all.into_iter().map(|read| read.known().unwrap_or_else(T::something_else)).collect())
}

/// Whole nanoseconds: what is read is what was written, to the last one.
pub(crate) mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // 584 years.
        let nanoseconds = u64::try_from(duration.as_nanos()).map_err(S::Error::custom)?;
        nanoseconds.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }

    pub(super) mod option {
        use super::*;

        pub(in super::super) fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::deserialize(deserializer)?.map(Duration::from_nanos))
        }
    }
}

/// `{"ok": 1000}`, or `{"unknown": "why"}`.
mod known {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::facts::Known;

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Written<T, W> {
        Ok(T),
        Unknown(W),
    }

    pub(super) fn serialize<S: Serializer, T: Serialize>(
        known: &Known<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let written = match known {
            Ok(value) => Written::Ok(value),
            Err(why) => Written::Unknown(why),
        };
        written.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        deserializer: D,
    ) -> Result<Known<T>, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Ok(value) => Ok(value),
            Written::Unknown(why) => Err(why),
        })
    }
}

/// A moment and its offset to UTC (RFC 3339), not the name of the time zone: whether that is known
/// where it is read is uncertain.
mod with_offset {
    use jiff::{
        Timestamp, Unit, Zoned,
        fmt::temporal::Pieces,
        tz::{Offset, TimeZone},
    };
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &Zoned, serializer: S) -> Result<S::Ok, S::Error> {
        // RFC 3339 knows no seconds of an offset.
        let offset = time.offset().round(Unit::Minute).unwrap_or(Offset::UTC);
        serializer.collect_str(&time.timestamp().display_with_offset(offset))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zoned, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment: Timestamp = text.parse().map_err(D::Error::custom)?;
        let offset = Pieces::parse(&text).map_err(D::Error::custom)?.to_numeric_offset();
        let offset = offset.ok_or_else(|| D::Error::custom("a time without its offset"))?;
        Ok(moment.to_zoned(TimeZone::fixed(offset)))
    }
}
