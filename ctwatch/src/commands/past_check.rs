//! The check, of a recording: the same line and exit code from what was read then.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::{
    model::{
        Model,
        census::Taken,
        verdict::{Thresholds, Verdict, judge},
    },
    observe::event::Event,
    output::aside,
    record::sample::Sample,
    recording::{
        mask::Mask,
        play::{Player, Playing},
    },
};

/// A census that is older says nothing of who holds the tables.
const CENSUS: Duration = Duration::from_secs(60);

/// What is judged, and when it was read.
pub(super) struct PastVerdict {
    pub(super) verdict: Verdict,
    pub(super) time: Timestamp,
}

/// Two readings so far apart: the last one, or the last before a moment, and one before that.
#[derive(Default)]
struct LastTwo {
    readings: VecDeque<Sample>,
    census: Option<(Arc<Taken>, Timestamp)>,
}

impl LastTwo {
    fn take(&mut self, sample: Sample, period: Duration) {
        let end = sample.elapsed;
        self.readings.push_back(sample);
        // The first one is as far away as was asked for, or more.
        let is_far = |second: &Sample| end.saturating_sub(second.elapsed) >= period;
        while self.readings.get(1).is_some_and(is_far) {
            self.readings.pop_front();
        }
    }
}

pub(super) fn check(
    path: &Path,
    at: Option<Timestamp>,
    period: Duration,
    thresholds: &Thresholds,
    mask: Option<Mask>,
) -> Result<PastVerdict> {
    let mut player = Player::open(path, Playing { until: at, mask, ..Playing::default() })?;
    let mut read = LastTwo::default();
    loop {
        match player.next_event()? {
            Event::Begin { sample, .. } => {
                read = LastTwo::default();
                read.take(*sample, period);
            }
            Event::Tick { sample, .. } => read.take(*sample, period),
            Event::Census(taken) => {
                let time = read.readings.back().map(|sample| sample.time);
                read.census = time.map(|time| (taken, time));
            }
            Event::Note(note) => aside::say(&note),
            Event::End => break,
            _ => {}
        }
    }
    let nothing = || {
        format!(
            "nothing that can be judged is recorded in {} until then: it takes two readings",
            path.display()
        )
    };
    let LastTwo { readings, census } = read;
    let (first, last) = readings.front().zip(readings.back()).with_context(nothing)?;
    anyhow::ensure!(first.elapsed < last.elapsed, nothing());
    let is_fresh = |time: &Timestamp| {
        Duration::try_from(last.time.duration_since(*time)).is_ok_and(|age| age <= CENSUS)
    };
    let census = census.filter(|(_, time)| is_fresh(time));
    let pinned = thresholds.warning.pinned.or(thresholds.critical.pinned).is_some();
    let uncounted = (pinned && census.is_none())
        .then(|| "no census was recorded in the minute before".to_owned());
    let mut model = Model::with_tops(0, &[]);
    model.advance(first);
    if let Some((taken, _)) = census {
        model.take_in(taken);
    }
    let snapshot = model.advance(last);
    let verdict = judge(&snapshot, uncounted.as_deref(), None, thresholds);
    Ok(PastVerdict { verdict, time: last.time })
}
