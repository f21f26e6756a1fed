//! What does not change while the table is watched, and which life of it is.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{is_default, nanoseconds};

/// The format in which all of it is written down, and the one that is read.
pub const FORMAT: u32 = 1;

/// What does not change while watching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    #[serde(deserialize_with = "readable")]
    pub format: u32,
    /// Of ctwatch.
    pub version: String,
    pub kernel: String,
    /// Which boot it is: another after each. `None`: it could not be read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub boot_id: Option<String>,
    #[serde(rename = "interval_ns", with = "nanoseconds")]
    pub interval: Duration,
    #[serde(default, skip_serializing_if = "is_default")]
    pub mechanisms: Vec<Measured>,
    /// What is not measured, or not seen, and why.
    #[serde(default, skip_serializing_if = "is_default")]
    pub notes: Vec<String>,
    /// Memory of the kernel that counting who it is takes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub top_bytes: Option<u64>,
}

/// By which mechanism a signal is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    pub signal: String,
    /// `None` where nothing measures it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mechanism: Option<String>,
}

/// Which life of the table is watched: conntrack can be unloaded and loaded again, and then
/// everything is counted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub number: u32,
    /// Before this one, how long nothing was watched; `None` before the first.
    #[serde(
        default,
        rename = "gap_ns",
        with = "nanoseconds::option",
        skip_serializing_if = "is_default"
    )]
    pub gap: Option<Duration>,
}

fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        FORMAT => Ok(FORMAT),
        other => Err(D::Error::custom(format_args!(
            "format {other}: this ctwatch reads format {FORMAT}"
        ))),
    }
}
