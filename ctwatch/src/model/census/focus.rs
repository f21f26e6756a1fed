//! Who holds the entries that are in one state: counted only where a person asks for that state.

use ctwatch_abi::top::{By, Seed, Set};

use super::{Census, CensusCounts, First, Holders, StateHolders, StateOf, Tops, held_by, tops};

impl Census {
    /// One that also tells apart who holds the entries in this state.
    pub fn with_focus(by: &[By], seed: Seed, of: Option<StateOf>) -> Self {
        Self { focus: of.map(|of| (of, tops(by))), ..Self::new(by, seed) }
    }

    pub(super) fn holders(&self, of: StateOf, sets: &Tops, most: usize) -> StateHolders {
        let table = self.tables.iter().find(|table| table.netns == of.netns);
        let states = table.map_or(&[][..], |table| &table.states);
        let state = states.iter().find(|one| (one.protocol, one.state) == (of.protocol, of.state));
        let all = state.map_or(0, |state| state.holds.all());
        let list = |(by, sets): &(By, Vec<Set>)| {
            let mut first = First::default();
            for slot in sets.iter().flat_map(Set::slots).filter(|slot| slot.count > slot.error) {
                first.offer(slot, most);
            }
            let entries = first.finish(most).into_iter().map(|slot| {
                let share = (all > 0).then(|| (slot.count as f64 / all as f64).min(1.0));
                held_by(slot.key, slot.count, slot.error, share)
            });
            Holders { netns: of.netns, by: *by, entries: entries.collect() }
        };
        StateHolders { of, lists: sets.iter().map(list).collect() }
    }
}

impl CensusCounts {
    /// Who holds the entries in this state, if the census was asked for it.
    pub fn holders_in(&self, of: StateOf) -> Option<&[Holders]> {
        self.of_state.as_ref().filter(|known| known.of == of).map(|known| known.lists.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use ctwatch_abi::{NetnsId, top::Key};

    use super::{super::SEED, *};
    use crate::record::entry::{Held, Left, Status};

    fn held(netns: NetnsId, source: u8, state: u8) -> Held {
        let mut key = Key { netns, protocol: 6, family: 2, ..Key::default() };
        key.src[3] = source;
        let (status, left) = (Status(1 << 3 | 1 << 2 | 1 << 1), Left::Seconds(60));
        Held { key, translated: key, status, state, zone: 0, left }
    }

    #[test]
    fn holders_of_a_state_are_of_that_state_alone() {
        const TIME_WAIT: u8 = 7;
        let of = StateOf { netns: 1, protocol: 6, state: TIME_WAIT };
        let mut census = Census::with_focus(&[By::Source], SEED, Some(of));
        for (netns, source, state, times) in
            [(1, 5, 3, 100), (1, 6, TIME_WAIT, 30), (1, 5, TIME_WAIT, 10), (2, 7, TIME_WAIT, 50)]
        {
            (0..times).for_each(|_| census.enter(&held(netns, source, state)));
        }
        let counted = census.finish(5);
        let [list] = counted.holders_in(of).unwrap() else { panic!() };
        let told: Vec<_> =
            list.entries.iter().map(|entry| (entry.key.src[3], entry.count)).collect();
        assert_eq!(told, [(6, 30), (5, 10)]);
        assert_eq!(list.entries[0].share, Some(0.75));
        // The census counted the holders of one state only: of another it says nothing.
        assert!(counted.holders_in(StateOf { state: 3, ..of }).is_none());
        let written = serde_json::to_string(&counted).unwrap();
        let read: CensusCounts = serde_json::from_str(&written).unwrap();
        assert_eq!(read.holders_in(of).unwrap()[0].entries.len(), 2);
        let plain = serde_json::to_string(&Census::new(&[], SEED).finish(1)).unwrap();
        assert!(!plain.contains("of_state"), "{plain}");
    }
}
