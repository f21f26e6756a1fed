//! Single rules of a firewall, as far as they could be read: of both frameworks alike.

use std::{borrow::Cow, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{SomethingElse, each_or_something_else, is_default, or_something_else};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: String,
    /// `None`: packets only come here by a jump.
    #[serde(default, skip_serializing_if = "is_default")]
    pub base: Option<Base>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub rules: Vec<Rule>,
}

/// Where a chain is hooked in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_nat: bool,
    /// prerouting, input, forward, output, postrouting; another word for other families.
    pub hook: Cow<'static, str>,
    pub priority: i32,
    /// Its policy is to drop.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drops: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// nft's handle; with iptables the number of the rule in its chain, from 1.
    pub number: u64,
    /// All of them have to hold.
    #[serde(
        default,
        deserialize_with = "each_or_something_else",
        skip_serializing_if = "is_default"
    )]
    pub conditions: Vec<Condition>,
    #[serde(default, deserialize_with = "or_something_else", skip_serializing_if = "is_default")]
    pub act: Act,
    #[serde(default, skip_serializing_if = "is_default")]
    pub comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// IPv4, or IPv6.
    #[serde(rename = "is_ipv4")]
    Family(bool),
    Protocol(u8),
    /// First and last.
    SourcePort(u16, u16),
    DestinationPort(u16, u16),
    /// Address and length of the prefix.
    Source(IpAddr, u8),
    Destination(IpAddr, u8),
    /// It is for this machine itself.
    DestinationIsLocal,
    /// Asks what conntrack knows: whether it holds for a packet that is not tracked. `None`: that
    /// cannot be told.
    Tracking(Option<bool>),
    /// Something else.
    Other,
}

/// What becomes of a packet for which all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// The next rule is asked.
    #[default]
    Next,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// Addresses or ports are translated: those of the source, or of the destination.
    TranslateSource,
    TranslateDestination,
    /// A helper is assigned.
    Help,
    /// A packet is given the mark of its connection, by which it may be routed, queued or let in.
    Restore,
    /// Depends on a map, or on a target that is not known here.
    Unknown,
}

impl SomethingElse for Condition {
    fn something_else() -> Self {
        Self::Other
    }
}

impl SomethingElse for Act {
    fn something_else() -> Self {
        Self::Unknown
    }
}

impl SomethingElse for Option<Act> {
    fn something_else() -> Self {
        Some(Act::Unknown)
    }
}

impl Rule {
    /// Asks what conntrack knows.
    pub fn asks_tracking(&self) -> bool {
        self.conditions.iter().any(|condition| matches!(condition, Condition::Tracking(_)))
    }
}

impl Base {
    pub fn of(is_nat: bool, hook: &'static str, priority: i32) -> Self {
        Self { is_nat, hook: Cow::Borrowed(hook), priority, drops: false }
    }
}
