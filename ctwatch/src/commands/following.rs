//! Incidents, from the events of a session or of a recording.

use crate::{
    model::{
        incident::{Ending, Incident},
        incidents::{Incidents, Turn},
        trouble::Criteria,
    },
    observe::event::Event,
};

/// Follows one life of the table after the other.
#[derive(Default)]
pub(super) struct Following {
    life: Option<Incidents>,
    untold: u64,
}

impl Following {
    /// What began, grew or ended with it.
    pub(super) fn event(&mut self, event: &Event) -> Vec<Turn> {
        match event {
            Event::Begin { header, epoch, snapshot, .. } => {
                // A recorder that was killed has left those that were open.
                let mut turns = self.finish(Ending::Open);
                let criteria = Criteria::default().read_every(header.interval);
                let mut life = Incidents::new(header.boot_id.as_deref(), epoch.number, criteria);
                turns.extend(life.look(snapshot));
                self.life = Some(life);
                turns
            }
            Event::Tick { snapshot, .. } => {
                self.life.as_mut().map_or_else(Vec::new, |life| life.look(snapshot))
            }
            Event::Gone => self.finish(Ending::Unloaded),
            Event::Stopped | Event::End => self.finish(Ending::Open),
            _ => Vec::new(),
        }
    }

    /// At the same time, beyond those that are followed.
    pub(super) fn untold(&self) -> u64 {
        self.untold + self.life.as_ref().map_or(0, Incidents::untold)
    }

    fn finish(&mut self, ending: Ending) -> Vec<Turn> {
        let Some(mut life) = self.life.take() else { return Vec::new() };
        let ended = life.finish(ending);
        self.untold += life.untold();
        ended.into_iter().map(Turn::Ended).collect()
    }
}

/// The incident, where it is over.
pub(super) fn over(turn: Turn) -> Option<Incident> {
    match turn {
        Turn::Ended(incident) => Some(incident),
        Turn::Began(_) | Turn::Grew(_) => None,
    }
}
