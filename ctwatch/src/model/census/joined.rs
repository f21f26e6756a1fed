//! Lists of one table that came in parts, as one: its IPv4 entries from one command, its IPv6 entries from
//! another.

use ctwatch_abi::NetnsId;

use super::{Census, Lifetimes, StateCount, TableCensus};

impl Census {
    /// Counts what was entered for `from` as entries of `into`. The two hold different entries: keys of
    /// different families differ, so top lists stay as exact as they are.
    pub fn join(&mut self, from: NetnsId, into: NetnsId) {
        let Ok(at) = self.tables.binary_search_by_key(&from, |table| table.netns) else { return };
        if from == into {
            return;
        }
        let mut taken = self.tables.remove(at);
        self.joined.push((from, into));
        match self.tables.binary_search_by_key(&into, |table| table.netns) {
            Ok(at) => self.tables[at].take(taken),
            Err(at) => {
                taken.netns = into;
                self.tables.insert(at, taken);
            }
        }
    }

    /// The namespace whose entries these are by now.
    pub(super) fn joined(&self, netns: NetnsId) -> NetnsId {
        let found = self.joined.iter().find(|(from, _)| *from == netns);
        found.map_or(netns, |(_, into)| *into)
    }
}

impl TableCensus {
    fn take(&mut self, other: Self) {
        self.holds = self.holds.plus(other.holds);
        for state in other.states {
            let id = |state: &StateCount| (state.protocol, state.state);
            match self.states.iter_mut().find(|known| id(known) == id(&state)) {
                Some(known) => known.take(&state),
                None => self.states.push(state),
            }
        }
        for (zone, count) in other.zones {
            match self.zones.iter_mut().find(|(known, _)| *known == zone) {
                Some((_, known)) => *known += count,
                None => self.zones.push((zone, count)),
            }
        }
        self.ties.take(other.ties);
    }
}

impl StateCount {
    fn take(&mut self, other: &Self) {
        self.holds = self.holds.plus(other.holds);
        self.unreplied += other.unreplied;
        self.lifetimes.take(&other.lifetimes);
        self.regular.take(&other.regular);
    }
}

impl Lifetimes {
    fn take(&mut self, other: &Self) {
        for (step, more) in self.steps.iter_mut().zip(&other.steps) {
            *step += more;
        }
        for (column, more) in self.columns.iter_mut().zip(other.columns) {
            *column += more;
        }
        self.unknown += other.unknown;
    }
}

#[cfg(test)]
mod tests {
    use ctwatch_abi::top::{AF_INET, AF_INET6, By, Key};

    use super::{super::SEED, *};
    use crate::record::entry::{Held, Left, Status};

    fn held(netns: NetnsId, family: u8, source: u8, zone: u16) -> Held {
        let key = Key { netns, family, protocol: 17, src: [source; 16], ..Key::default() };
        let (status, left) = (Status(1 << 3), Left::Seconds(20));
        Held { key, translated: key, status, state: 0, zone, left }
    }

    #[test]
    fn two_families_are_one_table() {
        let mut census = Census::new(&[By::Source], SEED);
        let mut at_once = Census::new(&[By::Source], SEED);
        for (netns, family, source, zone) in [
            (1, AF_INET, 1, 0),
            (1, AF_INET, 1, 7),
            (2, AF_INET6, 1, 7),
            (2, AF_INET6, 2, 9),
            (2, AF_INET6, 2, 9),
            (2, AF_INET6, 2, 9),
        ] {
            census.enter(&held(netns, family, source, zone));
            at_once.enter(&held(1, family, source, zone));
        }
        // A list that is not chosen stays apart.
        census.enter(&held(3, AF_INET, 1, 0));
        census.join(2, 1);
        census.join(2, 1);
        let (joined, at_once) = (census.finish(2), at_once.finish(2));
        assert!(joined.table(2).is_none() && joined.table(3).is_some());
        let [one, other] = [&joined, &at_once].map(|counts| counts.table(1).unwrap());
        assert_eq!((one.holds, one.zones.len()), (other.holds, other.zones.len()));
        assert_eq!(
            one.states[0].lifetimes.below_limits(),
            other.states[0].lifetimes.below_limits()
        );
        let top = |counts: &super::super::CensusCounts| -> Vec<(u8, u8, u64, Option<f64>)> {
            let list = counts.lists(1).next().unwrap();
            let entries = list.entries.iter();
            entries.map(|e| (e.key.family, e.key.src[0], e.count, e.share)).collect()
        };
        assert_eq!(top(&joined), top(&at_once));
        assert_eq!(top(&joined)[0], (AF_INET6, 2, 3, Some(0.5)));
    }

    #[test]
    fn a_table_of_one_family_only_is_renamed() {
        let mut census = Census::new(&[By::Source], SEED);
        census.enter(&held(2, AF_INET6, 1, 0));
        census.join(2, 1);
        let counts = census.finish(2);
        assert_eq!(counts.table(1).map(|table| table.holds.all()), Some(1));
        assert_eq!(counts.lists(1).next().map(|list| list.entries.len()), Some(1));
    }
}
