//! What the tables would have been, by the doctor's fixes.

use super::words::Clock;
use crate::{
    diagnosis::report::Report,
    model::{
        effect::Effect,
        story::{TableStory, WhatIf, WholeStory, what_if},
    },
};

/// All that there is to go by.
#[derive(Clone, Copy)]
pub(super) struct Reckoning<'a> {
    pub(super) story: &'a WholeStory,
    pub(super) report: &'a Report,
    pub(super) clock: &'a Clock,
}

impl Reckoning<'_> {
    pub(super) fn of(&self, table: &TableStory, effect: &Effect) -> Option<WhatIf> {
        what_if(table, effect, self.report.lives.get(&table.id()).copied())
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
