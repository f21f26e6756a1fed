//! What `ctwatch doctor` finds, as plain values. The names in JSON are a contract: fields are added,
//! never renamed.

use std::collections::BTreeMap;

use ctwatch_abi::NetnsId;
use serde::Serialize;

use crate::model::effect::Effect;

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub kernel: String,
    pub architecture: &'static str,
    pub conntrack: Conntrack,
    /// Capabilities: what each is for, and whether this process has it.
    pub capabilities: Vec<CapabilityReport>,
    pub configuration: ConfigurationReport,
    /// What mechanisms need, and whether it is here.
    pub offers: Vec<Offer>,
    pub signals: Vec<SignalReport>,
    pub figures: Vec<Promise>,
    /// Mechanisms that would have come first, and why they did not.
    pub refused: Vec<String>,
    pub advice: Vec<String>,
    pub tracking: Tracking,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// When the census was taken that it goes by; `None`: there is none, or it is of now.
    #[serde(skip)]
    pub census: Option<jiff::Timestamp>,
    /// Of what other tools printed; `None`: of a machine that was looked at, or of a recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<Offline>,
}

/// By what a report of another machine goes, and how far it goes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Offline {
    pub path: String,
    /// Of which machine it is, and of when, in the words of what was read.
    pub host: Option<String>,
    pub time: Option<String>,
    /// What was read, by what prints it, and how often.
    pub read: BTreeMap<&'static str, u64>,
    /// Pieces in which nothing was recognised.
    pub not_recognised: u64,
    pub not_understood: Vec<NotUnderstood>,
    pub more_not_understood: u64,
    /// What is not known, what that leaves undecided, and what settles it.
    pub undecided: Vec<Undecided>,
    pub notes: Vec<String>,
}

/// A line of which nobody knows what it says.
#[derive(Clone, Debug, Serialize)]
pub struct NotUnderstood {
    pub piece: String,
    /// From 1.
    pub line: u64,
    /// Its begin.
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
}

/// What cannot be found, or be ruled out, without one more thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Undecided {
    /// What is not known.
    pub unknown: String,
    /// Which findings it decides, by id.
    pub findings: Vec<&'static str>,
    /// The command that settles it.
    pub command: String,
}

/// Whether connections are tracked, where, and what for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tracking {
    /// What was found that needs it.
    pub needed_by: Vec<String>,
    /// Who manages rules and settings here, and what shows it.
    pub managed_by: Vec<String>,
    /// What could have said more, and why it does not.
    pub unknown: Vec<String>,
    /// Chains of modules, from nf_conntrack to what is built on it.
    pub modules: Vec<String>,
    /// Files that keep modules from being loaded.
    pub barred_by: Vec<String>,
    pub namespaces: Vec<Tracked>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Tracked {
    /// As text shows it.
    #[serde(skip)]
    pub called: String,
    pub netns: TrackedNetns,
    pub entries: Option<u32>,
    pub limit: Option<u32>,
    /// Whether every packet there is looked up; `None`: see `unknown`.
    pub hooked: Option<bool>,
}

/// With the keys that each object has for a network namespace.
#[derive(Clone, Debug, Serialize)]
pub struct TrackedNetns {
    /// `None` where the kernel has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    pub inode: u32,
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conntrack {
    Absent,
    BuiltIn,
    Module,
    /// One of the two: what would tell is hidden.
    Loaded,
    /// Whether it is there is not in what was read.
    Unknown,
}

#[derive(Clone, Debug, Serialize)]
pub struct CapabilityReport {
    pub name: &'static str,
    pub held: bool,
    pub purpose: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub struct ConfigurationReport {
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
pub struct SignalReport {
    pub name: &'static str,
    /// `None`: nothing measures it.
    pub mechanism: Option<&'static str>,
}

/// What to expect of a figure.
#[derive(Clone, Debug, Serialize)]
pub struct Promise {
    pub name: &'static str,
    /// In words: it depends on what happens.
    #[serde(rename = "promise")]
    pub exactness: &'static str,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Critical,
    Warning,
    Info,
}

/// Something that is wrong, or worth knowing, and what to do about it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Of the row that found it.
    pub id: &'static str,
    pub severity: Severity,
    pub title: String,
    pub evidence: Vec<String>,
    /// What helps most first.
    pub fixes: Vec<Fix>,
    /// The namespaces that it is about; empty: it is about the host as a whole.
    #[serde(skip)]
    pub about: Vec<NetnsId>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Fix {
    pub title: String,
    /// Commands that keep what is there, and see whether all this can be done: before anything else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub save: Vec<String>,
    /// Commands that undo it by themselves in two minutes, unless they are disarmed: before `now`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arm: Vec<String>,
    /// Commands for a shell, until the next boot.
    pub now: Vec<String>,
    /// Instead of `now`, where that cannot be typed here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
    /// What shows that it worked.
    pub check: Option<Check>,
    /// Keeps what `arm` would undo.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disarm: Vec<String>,
    /// Files that make it last.
    pub files: Vec<File>,
    /// Where it lasts, by who manages this machine; or who overwrites it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lasts: Vec<String>,
    pub breaks: String,
    /// Commands for a shell.
    pub undo: Vec<String>,
    /// What it is to change.
    pub expect: String,
    /// The same, to be reckoned with.
    #[serde(skip)]
    pub effect: Option<Effect>,
}

/// Commands for another place, and which that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    pub place: String,
    pub commands: Vec<String>,
}

/// A command, and what it prints where it worked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub command: String,
    pub prints: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct File {
    pub path: String,
    pub content: String,
}
