//! What one line of a recording says.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::Error as _};

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
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    Segment(Segment),
    /// Conntrack is not there, or not any more, and is waited for.
    Absent {
        was_there: bool,
    },
    /// A life of the table: its first tick follows. At the begin of a segment it is said again.
    Begin {
        #[serde(skip_serializing_if = "std::ops::Not::not")]
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
    #[serde(skip)]
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

/// What lines of all other types hold, each some of it: a field of one name is the same in all of them.
#[derive(Deserialize)]
struct Fields {
    was_there: Option<bool>,
    #[serde(default)]
    again: bool,
    header: Option<Box<Header>>,
    epoch: Option<Epoch>,
    taken: Option<Box<Taken>>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    what: Option<Vec<String>>,
    why: Option<String>,
    loaded: Option<Vec<Loaded>>,
    more: Option<u64>,
    seconds: Option<u64>,
    netns: Option<String>,
    is_last: Option<bool>,
    lines: Option<u64>,
    bytes: Option<u64>,
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
        // By serde's own way with such enums all of a line is kept before it is read, which takes code of its own
        // for every type in it, and not all of it can be: <https://github.com/serde-rs/serde/issues/1183>
        let Kind { kind } = serde_json::from_slice(text)?;
        match &*kind {
            "segment" => serde_json::from_slice(text).map(Self::Segment),
            "tick" => serde_json::from_slice(text).map(Self::Tick),
            "facts" => {
                let FactsLine { time, facts } = serde_json::from_slice(text)?;
                Ok(Self::Facts { time, facts })
            }
            "gone" => Ok(Self::Gone),
            "end" => Ok(Self::End),
            "absent" | "begin" | "census" | "changed" | "no_census" | "loads_since" | "loaded"
            | "loads_lost" | "loads_blind" | "slow" | "unwritten" | "torn" => {
                serde_json::from_slice::<Fields>(text)?.of(&kind)
            }
            _ => Ok(Self::Unknown),
        }
    }
}

impl Fields {
    fn of(self, kind: &str) -> serde_json::Result<Line> {
        fn there<T>(value: Option<T>, name: &'static str) -> serde_json::Result<T> {
            value.ok_or_else(|| serde_json::Error::missing_field(name))
        }
        let why = |why| there(why, "why");
        Ok(match kind {
            "absent" => Line::Absent { was_there: there(self.was_there, "was_there")? },
            "begin" => Line::Begin {
                again: self.again,
                header: there(self.header, "header")?,
                epoch: there(self.epoch, "epoch")?,
            },
            "census" => Line::Census { taken: there(self.taken, "taken")? },
            "changed" => Line::Changed {
                since: there(self.since, "since")?,
                until: there(self.until, "until")?,
                what: there(self.what, "what")?,
            },
            "no_census" => Line::NoCensus { why: why(self.why)? },
            "loads_since" => Line::LoadsSince { since: self.since },
            "loaded" => Line::Loaded { loaded: there(self.loaded, "loaded")? },
            "loads_lost" => Line::LoadsLost { more: there(self.more, "more")? },
            "loads_blind" => Line::LoadsBlind { why: why(self.why)? },
            "slow" => Line::Slow {
                seconds: there(self.seconds, "seconds")?,
                netns: self.netns,
                is_last: there(self.is_last, "is_last")?,
            },
            "unwritten" => Line::Unwritten { lines: there(self.lines, "lines")? },
            "torn" => Line::Torn { bytes: there(self.bytes, "bytes")? },
            _ => Line::Unknown,
        })
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

    /// Nothing that is written may be taken for a line of a later version.
    #[test]
    fn each_type_that_is_written_is_read() {
        let time = Timestamp::UNIX_EPOCH;
        let why = || "because".to_owned();
        let lines = [
            Line::Absent { was_there: true },
            Line::Changed { since: time, until: time, what: vec![why()] },
            Line::NoCensus { why: why() },
            Line::LoadsSince { since: Some(time) },
            Line::LoadsSince { since: None },
            Line::Loaded { loaded: Vec::new() },
            Line::LoadsLost { more: 2 },
            Line::LoadsBlind { why: why() },
            Line::Slow { seconds: 3, netns: Some(why()), is_last: true },
            Line::Slow { seconds: 3, netns: None, is_last: false },
            Line::Unwritten { lines: 4 },
            Line::Torn { bytes: 5 },
            Line::Gone,
            Line::End,
        ];
        for line in lines {
            let read = Line::parse(&line.text().unwrap()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{line:?}"));
        }
        for cut in ["absent", "begin", "census", "changed", "slow", "torn", "segment", "facts"] {
            let error = Line::parse(format!("{{\"type\":\"{cut}\"}}").as_bytes()).unwrap_err();
            assert!(error.to_string().contains("missing field"), "{cut}: {error}");
        }
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
