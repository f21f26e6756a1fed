//! What `ctwatch doctor` finds, as plain values. The names in JSON are a contract: fields are added,
//! never renamed.

use std::collections::BTreeMap;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub kernel: String,
    pub architecture: &'static str,
    pub conntrack: Conntrack,
    /// Capabilities: what each is for, and whether this process has it.
    pub capabilities: Vec<Capability>,
    pub configuration: Configuration,
    /// What mechanisms need, and whether it is here.
    pub offers: Vec<Offer>,
    pub signals: Vec<Signal>,
    pub figures: Vec<Figure>,
    /// Mechanisms that would have come first, and why they did not.
    pub refused: Vec<String>,
    pub advice: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conntrack {
    Absent,
    BuiltIn,
    Module,
}

#[derive(Clone, Debug, Serialize)]
pub struct Capability {
    pub name: &'static str,
    pub held: bool,
    pub purpose: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub struct Configuration {
    /// The file it is from; `None`: see `why`.
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub options: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Offer {
    pub name: &'static str,
    pub offered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Signal {
    pub name: &'static str,
    /// `None`: nothing measures it.
    pub mechanism: Option<&'static str>,
}

/// What to expect of a figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub exactness: &'static str,
}
