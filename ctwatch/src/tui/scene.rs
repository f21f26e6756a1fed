//! All that a screen is drawn from.

use std::time::Duration;

use super::{advice::AdviceRow, history::History, state::TopState};
use crate::{output::services::Services, record::session::Header};

/// All that a screen shows.
pub struct Scene<'a> {
    pub state: &'a TopState,
    pub history: &'a History,
    /// Of the life that is watched.
    pub header: Option<&'a Header>,
    pub services: &'a Services,
    pub zone: &'a jiff::tz::TimeZone,
    /// What is said at the bottom, until the next key.
    pub notice: Option<&'a str>,
    /// Why nothing is there to show.
    pub waiting: &'a str,
    /// What the doctor finds, or why there is nothing.
    pub advice: &'a [AdviceRow],
    pub no_advice: &'a str,
    /// Single drops, the newest first, or why there are none.
    pub traced: &'a [String],
    pub no_trace: &'a str,
}

/// Rows of the screen.
#[derive(Clone, Copy)]
pub struct Band {
    pub y: u16,
    pub rows: u16,
}

/// What one sign of a chart stands for.
pub const WINDOW: Duration = Duration::from_secs(5);
