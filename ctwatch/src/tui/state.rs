//! What is looked at: which pane, which rows, which moment. Keys change it, and nothing else does.

use ctwatch_abi::{
    NetnsId,
    top::{By, Key, Stream},
};

use super::history::History;
use crate::model::{Snapshot, census::StateOf};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pane {
    #[default]
    Namespaces,
    Talkers,
    Census,
    Trace,
    Doctor,
}

impl Pane {
    pub const ALL: [Self; 5] =
        [Self::Namespaces, Self::Talkers, Self::Census, Self::Trace, Self::Doctor];

    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Talkers => "talkers",
            Self::Census => "census",
            Self::Trace => "trace",
            Self::Doctor => "doctor",
        }
    }

    pub fn step(self, by: isize) -> Self {
        let at = Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0);
        let next = (at as isize + by).rem_euclid(Self::ALL.len() as isize);
        Self::ALL.get(next.unsigned_abs()).copied().unwrap_or_default()
    }
}

/// Which lists of talkers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TalkerList {
    #[default]
    Dropped,
    Inserted,
    Holding,
}

impl TalkerList {
    pub const ALL: [Self; 3] = [Self::Dropped, Self::Inserted, Self::Holding];

    pub fn stream(self) -> Option<Stream> {
        match self {
            Self::Dropped => Some(Stream::Drops),
            Self::Inserted => Some(Stream::Insertions),
            Self::Holding => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Inserted => "inserted",
            Self::Holding => "holding",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TalkerSort {
    #[default]
    Now,
    All,
    Least,
    Name,
}

impl TalkerSort {
    pub const ALL: [Self; 4] = [Self::Now, Self::All, Self::Least, Self::Name];
}

/// To what the screen is narrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Narrowing {
    Netns {
        id: NetnsId,
        name: String,
    },
    Key {
        by: By,
        key: Key,
        name: String,
    },
    /// Of a census.
    State {
        protocol: u8,
        state: u8,
        name: String,
    },
}

impl Narrowing {
    pub fn name(&self) -> &str {
        match self {
            Self::Netns { name, .. } | Self::Key { name, .. } | Self::State { name, .. } => name,
        }
    }
}

/// One step narrower, and which pane it was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarrowStep {
    pub to: Narrowing,
    pub from: Pane,
}

#[derive(Debug)]
pub struct TopState {
    pub pane: Pane,
    /// The row in the list of namespaces; `None`: the first, whichever that is.
    pub chosen: Option<NetnsId>,
    /// The row in the list of talkers.
    pub talker: Option<Key>,
    /// The row in the census: a protocol and a state of it.
    pub census: Option<(u8, u8)>,
    /// The rows of other panes.
    pub trace_row: usize,
    pub doctor_row: usize,
    pub narrowed: Vec<NarrowStep>,
    /// Of each pane its own.
    filters: [String; Pane::ALL.len()],
    /// The filter is being typed.
    pub is_typing: bool,
    pub table_sort: Option<usize>,
    pub talker_sort: TalkerSort,
    /// `None`: as the census has them, the most entries first.
    pub census_sort: Option<usize>,
    pub listed: TalkerList,
    pub by: By,
    /// By what there are lists.
    pub groupings: Vec<By>,
    /// The reading that is shown; `None`: the newest.
    pub cursor: Option<u64>,
    pub is_recorded: bool,
    pub is_playing: bool,
    /// How far the help screen is scrolled.
    pub help: Option<usize>,
}

impl TopState {
    pub fn new(groupings: Vec<By>, is_recorded: bool) -> Self {
        Self {
            by: groupings.first().copied().unwrap_or(By::Source),
            groupings,
            is_recorded,
            pane: Pane::default(),
            chosen: None,
            talker: None,
            census: None,
            trace_row: 0,
            doctor_row: 0,
            narrowed: Vec::new(),
            filters: Default::default(),
            is_typing: false,
            table_sort: None,
            talker_sort: TalkerSort::default(),
            census_sort: None,
            listed: TalkerList::default(),
            cursor: None,
            is_playing: false,
            help: None,
        }
    }

    /// The one namespace that the screen is narrowed to.
    pub fn netns(&self) -> Option<NetnsId> {
        self.narrowed.iter().find_map(|step| match step.to {
            Narrowing::Netns { id, .. } => Some(id),
            Narrowing::Key { .. } | Narrowing::State { .. } => None,
        })
    }

    /// The protocol and the state of it that the screen is narrowed to, and what it is called.
    pub fn state(&self) -> Option<((u8, u8), &str)> {
        self.narrowed.iter().find_map(|step| match &step.to {
            Narrowing::State { protocol, state, name } => Some(((*protocol, *state), &**name)),
            Narrowing::Key { .. } | Narrowing::Netns { .. } => None,
        })
    }

    /// The entries that it is narrowed to.
    pub fn state_of(&self) -> Option<StateOf> {
        let (netns, ((protocol, state), _)) = (self.netns()?, self.state()?);
        Some(StateOf { netns, protocol, state })
    }

    /// By what the rows of a pane are filtered.
    pub fn filter_of(&self, pane: Pane) -> &str {
        &self.filters[pane as usize]
    }

    pub fn filter(&self) -> &str {
        self.filter_of(self.pane)
    }

    pub(super) fn filter_mut(&mut self) -> &mut String {
        &mut self.filters[self.pane as usize]
    }

    pub(super) fn clear_filters(&mut self) {
        self.filters.iter_mut().for_each(String::clear);
    }

    pub fn is_filtered_in(&self, pane: Pane, text: &str) -> bool {
        let filter = self.filter_of(pane);
        filter.is_empty() || text.to_lowercase().contains(&filter.to_lowercase())
    }

    pub fn shown<'a>(&self, history: &'a History) -> Option<&'a Snapshot> {
        let kept = match self.cursor {
            Some(cursor) => history.at(cursor),
            None => history.newest(),
        };
        kept.map(|kept| &*kept.snapshot)
    }
}
