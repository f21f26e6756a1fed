//! What a session tells, and a recording of one.

use std::{sync::Arc, time::Duration};

use super::loading::News;
use crate::{
    model::{Snapshot, census::Taken},
    record::{
        sample::Sample,
        session::{Epoch, Header},
    },
};

/// What happens, in the order in which it does.
pub enum Event {
    /// Conntrack is not there, or not any more, and is waited for.
    Absent {
        was_there: bool,
    },
    /// A life of the table begins, with its first reading.
    Begin {
        header: Box<Header>,
        epoch: Epoch,
        sample: Box<Sample>,
        snapshot: Box<Snapshot>,
    },
    Tick {
        sample: Box<Sample>,
        snapshot: Box<Snapshot>,
    },
    Census(Arc<Taken>),
    /// None is taken, and why.
    NoCensus(String),
    Loading(News),
    /// A reading has not come for so long: of this namespace. `is_last`: it is not waited for.
    Slow {
        since: Duration,
        netns: Option<String>,
        is_last: bool,
    },
    /// Rules, settings or modules changed at some time between these two; in a recording.
    Changed {
        since: jiff::Timestamp,
        until: jiff::Timestamp,
        what: Vec<String>,
    },
    /// The recorder ended; another may have gone on.
    Stopped,
    /// Something that a recording has to say of itself.
    Note(String),
    /// Conntrack was unloaded: that life is over.
    Gone,
    /// All that was asked for is done. Nothing comes after it.
    End,
}
