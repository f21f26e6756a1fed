//! The result of reading a bundle.

use std::collections::BTreeMap;

use super::kind::Printed;
use crate::{
    model::census::CensusCounts,
    record::{counters::CounterSums, facts::Facts},
};

/// A line that was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misread {
    pub piece: String,
    /// From 1.
    pub line: u64,
    /// The begin of the line.
    pub text: String,
    /// `None`: the line is of no kind that is read here.
    pub why: Option<&'static str>,
}

/// Counters of one namespace at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountersAt {
    pub piece: String,
    pub sums: CounterSums,
}

/// A namespace of a bundle.
#[derive(Clone, Debug)]
pub struct InBundle {
    pub netns: ctwatch_abi::NetnsId,
    pub inode: u32,
    /// `None`: the namespace in which the commands were typed, most often the host's.
    pub name: Option<String>,
    /// How many entries the kernel counted, if a piece tells.
    pub kernel: Option<u32>,
    /// Why not all of its entries are counted.
    pub unlisted: Option<String>,
    /// One for each reading, in the order of the pieces.
    pub counters: Vec<CountersAt>,
}

/// All that the pieces say.
#[derive(Debug)]
pub struct Bundle {
    pub facts: Facts,
    /// No piece tells whether conntrack is there.
    pub is_form_unknown: bool,
    /// Entries were listed; if not, the census is empty because nothing is known.
    pub has_entries: bool,
    /// Files of sysctl.d were among the pieces.
    pub has_settings: bool,
    /// iptables sees bridged packets, and no piece tells how many bridges there are.
    pub has_unknown_bridges: bool,
    /// A list of processes was among the pieces.
    pub has_processes: bool,
    pub census: CensusCounts,
    pub places: Vec<InBundle>,
    pub host: Option<String>,
    /// When it was printed, in the words of the piece that says so.
    pub time: Option<String>,
    /// How many pieces, or parts of them, were of each kind.
    pub pieces: BTreeMap<Printed, u64>,
    /// Pieces of a kind that is not read; their lines are not reported as misread.
    pub unknown_pieces: u64,
    /// The first few.
    pub misread: Vec<Misread>,
    /// So many more lines were not understood.
    pub more_misread: u64,
    /// Remarks on how the bundle was read.
    pub notes: Vec<String>,
}
