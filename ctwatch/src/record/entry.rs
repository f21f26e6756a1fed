//! Entries of the table.

use ctwatch_abi::top::Key;
use serde::{Deserialize, Serialize};

use super::{SomethingElse, is_default, or_something_else};

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Of its original direction. Without an interface: an entry does not know it.
    pub key: Key,
    /// The reply, turned round: what NAT makes of the original direction. Its destination is who
    /// answers, its source whom the answer is sent to.
    pub translated: Key,
    pub status: Status,
    /// Of TCP and SCTP, as the kernel numbers it; 0 for other protocols.
    pub state: u8,
    #[serde(default, skip_serializing_if = "is_default")]
    pub zone: u16,
    #[serde(deserialize_with = "or_something_else")]
    pub left: Left,
}

impl SomethingElse for Left {
    fn something_else() -> Self {
        Self::Unknown
    }
}

/// For how long an entry is still to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Whole seconds.
    Seconds(u32),
    /// No time: it fills the table until something comes across it. Netlink never tells of one.
    /// <https://github.com/torvalds/linux/blob/v6.12/include/net/netfilter/nf_conntrack.h> `nf_ct_is_expired`
    Expired,
    /// Netlink tells no time of offloaded flows.
    Unknown,
}

const TCP_STATES: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];
const SCTP_STATES: [&str; 9] = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
];

/// The states of a protocol by number, in conntrack's words; `None` where none are told apart.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_conntrack_tcp.h>
pub fn states(protocol: u8) -> Option<&'static [&'static str]> {
    match protocol {
        6 => Some(&TCP_STATES),
        132 => Some(&SCTP_STATES),
        _ => None,
    }
}

/// `enum ip_conntrack_status`.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_conntrack_common.h>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status(pub u32);

impl Status {
    pub const REPLIED: u32 = 1 << 1;
    pub const ASSURED: u32 = 1 << 2;
    pub const CONFIRMED: u32 = 1 << 3;
    pub const SOURCE_TRANSLATED: u32 = 1 << 4;
    pub const DESTINATION_TRANSLATED: u32 = 1 << 5;
    pub const OFFLOADED: u32 = 1 << 14;
    pub const OFFLOADED_TO_HARDWARE: u32 = 1 << 15;

    /// A packet of the other direction was seen.
    pub fn is_replied(self) -> bool {
        self.0 & Self::REPLIED != 0
    }

    /// Never thrown out to make room.
    pub fn is_assured(self) -> bool {
        self.0 & Self::ASSURED != 0
    }

    /// The reply's addresses or ports are not those of the original the other way round.
    /// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_nat_core.c> `nf_nat_setup_info`
    pub fn is_translated(self) -> bool {
        self.0 & (Self::SOURCE_TRANSLATED | Self::DESTINATION_TRANSLATED) != 0
    }

    /// A helper had it expected, or was assigned to it.
    pub fn is_helped(self) -> bool {
        self.0 & (1 | 1 << 13) != 0
    }

    /// In the table.
    pub fn is_confirmed(self) -> bool {
        self.0 & Self::CONFIRMED != 0
    }

    /// A flow table forwards its packets, in software or in hardware, and renews its time.
    pub fn is_offloaded(self) -> bool {
        self.0 & (Self::OFFLOADED | Self::OFFLOADED_TO_HARDWARE) != 0
    }
}
