//! Chooses among several lists of one table. Of each family the longest list is counted, so that IPv4 and IPv6
//! from two commands add up, and nothing is counted twice.

use ctwatch_abi::NetnsId;

use super::{
    gathered::{BundleParts, EntryList, Families, FamilyList},
    missing,
};

/// What is counted of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    /// The number by which the census knows all of it; `None`: no entry was listed.
    pub(super) netns: Option<NetnsId>,
    pub(super) entries: u64,
    /// How many entries conntrack says that it listed, if each list says it.
    pub(super) said: Option<u64>,
    pub(super) is_part: bool,
    /// Why not all entries of the table are counted.
    pub(super) unlisted: Option<String>,
}

impl Chosen {
    /// Entries were listed, or conntrack says how many there are.
    pub(super) fn says_any(&self) -> bool {
        self.netns.is_some() || self.said.is_some()
    }
}

impl EntryList {
    /// The higher of the two numbers by which the census knows it.
    pub(super) fn last_netns(&self) -> NetnsId {
        self.ipv4.netns.max(self.ipv6.netns)
    }
}

/// `counted` is the kernel's own number of entries, if a piece tells it.
pub(super) fn choose(
    namespace: Option<&str>,
    lists: &[EntryList],
    counted: Option<u32>,
    gathered: &mut BundleParts,
) -> Option<Chosen> {
    let ipv4 = lists.iter().max_by_key(|list| (list.ipv4.entries, list.entries()))?;
    let ipv6 = lists.iter().max_by_key(|list| (list.ipv6.entries, list.entries()))?;
    // Where no list holds a family, one list is enough.
    let ipv6 = if ipv6.ipv6.entries > 0 { ipv6 } else { ipv4 };
    let ipv4 = if ipv4.ipv4.entries > 0 { ipv4 } else { ipv6 };
    for (chosen, family) in [(ipv4, of_ipv4 as fn(&EntryList) -> FamilyList), (ipv6, of_ipv6)] {
        let others = lists.iter().filter(|list| family(list).netns != family(chosen).netns);
        for other in others.filter(|list| family(list).entries > 0) {
            gathered.note(twice(other, chosen, family));
        }
    }
    let parts = [of_ipv4(ipv4), of_ipv6(ipv6)];
    let parts: Vec<FamilyList> = parts.into_iter().filter(|part| part.entries > 0).collect();
    let netns = parts.first().map(|part| part.netns);
    if let [into, from] = parts.as_slice() {
        gathered.census.join(from.netns, into.netns);
    }
    let is_one = std::ptr::eq(ipv4, ipv6);
    let both = || [ipv4, ipv6].into_iter().take(if is_one { 1 } else { 2 });
    let entries = parts.iter().map(|part| part.entries).sum();
    let said = both().map(|list| list.said).sum::<Option<u64>>();
    let is_whole = counted.is_some_and(|counted| u64::from(counted) <= entries);
    let unlisted = both().find_map(unlisted).or_else(|| {
        let missing = missing_family(lists).filter(|_| !is_whole)?;
        let (list, missing) = (ipv4.piece.as_str(), missing.text(namespace));
        Some(format!("{list} lists one family only: {missing}"))
    });
    if unlisted.is_none() && !is_whole && entries > 0 && may_lack_ipv6(lists) {
        gathered.note(format!(
            "{} lists no IPv6 entry: conntrack before 1.4.7 may list IPv4 alone: {}",
            ipv4.piece,
            Missing::Ipv6.text(namespace),
        ));
    }
    let is_part = both().any(|list| list.is_part);
    Some(Chosen { netns, entries, said, is_part, unlisted })
}

fn of_ipv4(list: &EntryList) -> FamilyList {
    list.ipv4
}

fn of_ipv6(list: &EntryList) -> FamilyList {
    list.ipv6
}

fn twice(other: &EntryList, chosen: &EntryList, of: fn(&EntryList) -> FamilyList) -> String {
    let (more, counted) = (of(other).entries, of(chosen).entries);
    match other.piece == chosen.piece {
        true => format!(
            "{} lists a table twice, {more} and {counted} entries: the longer list is counted",
            other.piece
        ),
        false => format!(
            "{} lists {more} entries of a table that {} lists {counted} of: these are counted",
            other.piece, chosen.piece
        ),
    }
}

/// Why one list by itself does not hold all that it should.
fn unlisted(list: &EntryList) -> Option<String> {
    let entries = list.entries();
    match (list.lost, list.said) {
        _ if list.is_part => Some(format!("{} lists a part of them", list.piece)),
        (0, Some(said)) if said > entries => Some(format!(
            "{} says that {said} were listed, and {entries} are there: it is cut off",
            list.piece
        )),
        (0, _) => None,
        (lost, _) => Some(format!("{lost} lines of {} were not understood", list.piece)),
    }
}

#[derive(Clone, Copy)]
enum Missing {
    Ipv4,
    Ipv6,
}

impl Missing {
    fn text(self, namespace: Option<&str>) -> String {
        let family = match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        };
        let command = missing::typed(namespace, &format!("conntrack -L -f {family}"));
        format!("{command} lists the others")
    }
}

/// The family that no command was asked for, if each was asked for the other.
fn missing_family(lists: &[EntryList]) -> Option<Missing> {
    let has = |wanted: Families| {
        lists.iter().any(|list| list.families == wanted || list.families == Families::Both)
    };
    let some = |of: fn(&EntryList) -> FamilyList| lists.iter().any(|list| of(list).entries > 0);
    let (ipv4, ipv6) = (has(Families::Ipv4), has(Families::Ipv6));
    // A command without `-f` lists IPv4 at least.
    let is_unasked = lists.iter().any(|list| list.families == Families::Unknown);
    match () {
        () if ipv6 && !ipv4 && !is_unasked && !some(of_ipv4) => Some(Missing::Ipv4),
        () if ipv4 && !ipv6 && !is_unasked && !some(of_ipv6) => Some(Missing::Ipv6),
        () => None,
    }
}

/// All entries are IPv4, and an old conntrack may have left out IPv6.
fn may_lack_ipv6(lists: &[EntryList]) -> bool {
    lists.iter().all(|list| list.families == Families::Unknown && list.ipv6.entries == 0)
}
