//! What one line of a recording says.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::frame::Frame;
use crate::{
    model::{census::Taken, loading::Loaded},
    record::{
        facts::Facts,
        session::{Epoch, Header},
    },
};

/// The format of the lines. A reader refuses another number, and ignores lines and fields that it does
/// not know.
pub const FORMAT: u32 = 1;

/// How to open such a file, for somebody who finds one.
const HOW: &str = "one JSON object a line; this is a recording of ctwatch: `ctwatch watch --from FILE`, \
                   `jq 'select(.type == \"tick\")' FILE`, or read_ndjson_auto('FILE') in DuckDB. \
                   Counts go on from the start of ctwatch; what a tick does not repeat is as it was in \
                   the tick before; a full tick repeats all";

/// The first line of each segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub format: u32,
    /// Of ctwatch.
    pub version: String,
    /// What the machine is called.
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub boot_id: Option<String>,
    pub kernel: String,
    pub time: Timestamp,
    /// From 1; one more for each.
    pub number: u64,
    #[serde(default)]
    pub how: String,
}

impl Segment {
    pub fn new(number: u64, time: Timestamp, of: &RecordedOn) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: of.host.clone(),
            boot_id: of.boot_id.clone(),
            kernel: of.kernel.clone(),
            time,
            number,
            how: HOW.to_owned(),
        }
    }
}

/// Where it was recorded.
#[derive(Clone, Debug, Default)]
pub struct RecordedOn {
    pub host: Option<String>,
    pub boot_id: Option<String>,
    pub kernel: String,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    Segment(Segment),
    /// Conntrack is not there, or not any more, and is waited for.
    Absent {
        was_there: bool,
    },
    /// A life of the table: its first tick follows. At the begin of a segment it is said again.
    Begin {
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
        header: Box<Header>,
        epoch: Epoch,
    },
    Tick(Box<Frame>),
    Census {
        taken: Box<Taken>,
    },
    /// What the doctor goes by.
    Facts {
        time: Timestamp,
        facts: Box<Facts>,
    },
    /// Something changed at some time between these two.
    Changed {
        since: Timestamp,
        until: Timestamp,
        what: Vec<String>,
    },
    NoCensus {
        why: String,
    },
    /// From when on it is seen who loads modules; `None`: not any more.
    LoadsSince {
        since: Option<Timestamp>,
    },
    Loaded {
        loaded: Vec<Loaded>,
    },
    /// Loads that there was no room for.
    LoadsLost {
        more: u64,
    },
    LoadsBlind {
        why: String,
    },
    /// A reading had not come for so long.
    Slow {
        seconds: u64,
        #[serde(default)]
        netns: Option<String>,
        is_last: bool,
    },
    /// Lines that could not be written until here.
    Unwritten {
        lines: u64,
    },
    /// Never written: segments that are not there.
    #[serde(skip)]
    Missing {
        from: u64,
        to: u64,
    },
    /// Never written: what could not be read, and why.
    #[serde(skip)]
    Unread {
        place: String,
        why: String,
    },
    /// A line that a recorder was killed over: so much of it there was.
    Torn {
        bytes: u64,
    },
    /// Conntrack was unloaded.
    Gone,
    /// The recorder ended.
    End,
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct FactsLine {
    time: Timestamp,
    facts: Box<Facts>,
}

/// A tick begins like this as ctwatch writes it: most lines are ticks, and are read without a look at
/// what they are first.
const TICK: &[u8] = br#"{"type":"tick","#;

impl Line {
    /// With its newline.
    pub fn text(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        Ok(text)
    }

    pub fn parse(text: &[u8]) -> serde_json::Result<Self> {
        if text.starts_with(TICK) {
            return serde_json::from_slice(text).map(Self::Tick);
        }
        // By serde alone, what a line of a known type holds is read twice, and not all of it can be:
        // <https://github.com/serde-rs/serde/issues/1183>
        let Kind { kind } = serde_json::from_slice(text)?;
        match &*kind {
            "tick" => serde_json::from_slice(text).map(Self::Tick),
            "facts" => {
                let FactsLine { time, facts } = serde_json::from_slice(text)?;
                Ok(Self::Facts { time, facts })
            }
            _ => serde_json::from_slice(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_later_versions_are_passed_over() {
        let later = Line::parse(br#"{"type":"weather","temperature":3}"#).unwrap();
        assert!(matches!(later, Line::Unknown), "{later:?}");
        assert!(Line::parse(br#"{"no":"type"}"#).is_err());
    }

    #[test]
    fn facts_are_read_whole() {
        let recorded = include_str!("../../../tests/fixtures/records/v1.ndjson");
        let mut found = 0;
        for line in recorded.lines().filter(|line| line.starts_with("{\"facts\"")) {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            let facts: Box<Facts> = serde_json::from_value(line["facts"].take()).unwrap();
            let (wanted, time) = (facts.clone(), Timestamp::UNIX_EPOCH);
            let text = Line::Facts { time, facts }.text().unwrap();
            assert!(
                matches!(Line::parse(&text).unwrap(), Line::Facts { facts, .. } if facts == wanted)
            );
            found += 1;
        }
        assert!(found > 3, "{found}");
    }

    /// A share of a census, one bit of which was lost.
    #[test]
    fn floats_are_read_as_they_were_written() {
        let share = 20.0 / 197.0;
        let text = serde_json::to_string(&share).unwrap();
        assert_eq!(
            serde_json::from_str::<f64>(&text).unwrap().to_bits(),
            f64::to_bits(share),
            "{text}"
        );
    }

    #[test]
    fn a_tick_is_known_whatever_its_order() {
        let frame = Frame { full: true, ..Frame::of(Timestamp::UNIX_EPOCH, Default::default()) };
        let text = Line::Tick(Box::new(frame)).text().unwrap();
        assert!(text.starts_with(TICK), "{}", String::from_utf8_lossy(&text));
        assert!(matches!(Line::parse(&text).unwrap(), Line::Tick(frame) if frame.full));
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let mut fields = value.as_object().unwrap().clone();
        let kind = fields.remove("type").unwrap();
        fields.insert("type".to_owned(), kind);
        let turned = serde_json::to_vec(&fields).unwrap();
        assert!(!turned.starts_with(TICK));
        assert!(matches!(Line::parse(&turned).unwrap(), Line::Tick(frame) if frame.full));
    }
}
