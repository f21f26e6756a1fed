//! Single rules of a firewall, as far as they could be read: of both frameworks alike.

use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// `None`: packets only come here by a jump.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

/// Where a chain is hooked in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub is_nat: bool,
    /// prerouting, input, forward, output, postrouting; another word for other families.
    pub hook: &'static str,
    pub priority: i32,
    /// Its policy is to drop.
    pub drops: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// nft's handle; with iptables the number of the rule in its chain, from 1.
    pub number: u64,
    /// All of them have to hold.
    pub conditions: Vec<Condition>,
    pub act: Act,
    pub comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// IPv4, or IPv6.
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

impl Rule {
    /// Asks what conntrack knows.
    pub fn asks_tracking(&self) -> bool {
        self.conditions.iter().any(|condition| matches!(condition, Condition::Tracking(_)))
    }
}

impl Base {
    pub fn of(is_nat: bool, hook: &'static str, priority: i32) -> Self {
        Self { is_nat, hook, priority, drops: false }
    }
}
