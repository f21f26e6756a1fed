//! What the tables would have been, by the doctor's fixes.

use std::time::Duration;

use jiff::SignedDuration;

use super::words::Clock;
use crate::{
    diagnosis::report::Report,
    model::{
        effect::Effect,
        story::{TableStory, WhatIf, WholeStory, what_if},
    },
};

/// The same census, told by two clocks.
const APART: SignedDuration = SignedDuration::from_secs(2);

/// All that there is to go by.
#[derive(Clone, Copy)]
pub(super) struct Reckoning<'a> {
    pub(super) story: &'a WholeStory,
    pub(super) report: &'a Report,
    pub(super) clock: &'a Clock,
}

impl Reckoning<'_> {
    pub(super) fn of(&self, table: &TableStory, effect: &Effect) -> Option<WhatIf> {
        what_if(table, effect, self.census(table))
    }

    /// When the census was taken that the doctor went by, on the axis of the story.
    fn census(&self, table: &TableStory) -> Option<Duration> {
        let wanted = self.report.census?;
        let off = |at: Duration| self.story.time(at).duration_since(wanted).abs();
        let nearest = table.held.iter().map(|held| held.at).min_by_key(|at| off(*at))?;
        let step = self.story.usual_step.and_then(|step| SignedDuration::try_from(step).ok());
        (off(nearest) <= APART + step.unwrap_or_default()).then_some(nearest)
    }

    /// The picture's part: what there would have been with more room.
    pub(super) fn line(&self, table: &TableStory) -> Option<WhatIf> {
        table.full.as_ref()?;
        let findings = self.report.findings.iter().flat_map(|finding| &finding.fixes);
        let mut effects = findings.filter_map(|fix| fix.effect.as_ref());
        let limit = effects.find(|effect| matches!(effect, Effect::Limit { .. }))?;
        self.of(table, limit).filter(|what_if| what_if.would.is_ok())
    }
}
