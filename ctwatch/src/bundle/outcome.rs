//! What a bundle comes to.

use std::collections::BTreeMap;

use super::kind::Printed;
use crate::{
    model::census::CensusCounts,
    record::{counters::CounterSums, facts::Facts},
};

/// A line of which nobody knows what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misread {
    pub piece: String,
    /// From 1.
    pub line: u64,
    /// Its begin.
    pub text: String,
    /// `None`: it looks like nothing that is known here.
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
    /// `None`: that in which all of it was taken, most often the host's.
    pub name: Option<String>,
    /// How many entries the kernel counted, where something says so.
    pub kernel: Option<u32>,
    /// Why not all of its entries are counted.
    pub unlisted: Option<String>,
    /// As often as they were read, in the order of the pieces.
    pub counters: Vec<CountersAt>,
}

/// What all pieces say together.
#[derive(Debug)]
pub struct Bundle {
    pub facts: Facts,
    /// Whether conntrack is there could not be told.
    pub is_form_unknown: bool,
    /// Some piece lists entries; otherwise the census is of none.
    pub has_entries: bool,
    /// Files of sysctl.d were among the pieces.
    pub has_settings: bool,
    /// netfilter sees what crosses bridges, and how many of these there are is not known.
    pub has_unknown_bridges: bool,
    /// What runs there was.
    pub has_processes: bool,
    pub census: CensusCounts,
    pub places: Vec<InBundle>,
    pub host: Option<String>,
    /// When it was printed, in the words of the piece that says so.
    pub time: Option<String>,
    /// How many pieces, or parts of them, were of each kind.
    pub pieces: BTreeMap<Printed, u64>,
    /// Pieces in which nothing was understood, and so nothing is reported as misread.
    pub unknown_pieces: u64,
    /// The first few.
    pub misread: Vec<Misread>,
    /// And so many more.
    pub more_misread: u64,
    /// What is to be known about how it was read.
    pub notes: Vec<String>,
}
