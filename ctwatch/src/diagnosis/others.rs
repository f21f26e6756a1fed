//! Namespaces of unprivileged users: said last, whatever happens in them. Whoever makes one fills its
//! table as he likes, and nobody else loses a packet by that.

use super::{
    case::{Case, finding, number, percent, so_many},
    report::{Finding, Severity},
};
use crate::record::facts::{Facts, Stranger};

/// Of so many owners, one line each.
const MOST: usize = 5;

/// Where one of them is full, or has dropped packets.
pub(super) fn in_trouble(case: &Case<'_>) -> Vec<Finding> {
    let others = &case.facts.others;
    let troubled = |other: &&Stranger| {
        let dropped = other.totals.as_ref().is_ok_and(|totals| totals.drop > 0);
        dropped || case.fill_of(&other.entries).is_some_and(|fill| fill >= super::case::FULL)
    };
    let all = others.iter().filter(troubled).count() as u64;
    if all == 0 {
        return Vec::new();
    }
    let title = format!(
        "{} of unprivileged users full, or dropped packets: that harms nothing but what runs in there",
        so_many(all, "namespace is", "namespaces are"),
    );
    let mut found = finding("others", Severity::Info, title);
    let mut owners = by_owner(others);
    let of = |others: &[&Stranger]| {
        let fullest = others.iter().max_by_key(|other| other.entries.as_ref().ok().copied())?;
        let entries = *fullest.entries.as_ref().ok()?;
        let fill = case.fill_of(&fullest.entries).map(percent);
        let fill = fill.map_or_else(String::new, |fill| format!(", {fill}"));
        Some((entries, format!("; the fullest, {}: {}{fill}", fullest.called(), number(entries))))
    };
    owners.sort_by_key(|(_, others)| std::cmp::Reverse(of(others).map(|(entries, _)| entries)));
    for (uid, others) in owners.iter().take(MOST) {
        let dropped: u64 =
            others.iter().filter_map(|o| o.totals.as_ref().ok()).map(|t| t.drop).sum();
        found.evidence.push(format!(
            "uid {uid}: {}, {} dropped since they were made{}",
            so_many(others.len() as u64, "namespace", "namespaces"),
            so_many(dropped, "packet", "packets"),
            of(others).map_or_else(String::new, |(_, fullest)| fullest),
        ));
    }
    if owners.len() > MOST {
        found.evidence.push(format!("and {} more users", number((owners.len() - MOST) as u64)));
    }
    found.evidence.push(
        "to look into them: ctwatch doctor --owner UID; into one: ctwatch doctor --netns NAME"
            .to_owned(),
    );
    vec![found]
}

fn by_owner(others: &[Stranger]) -> Vec<(u32, Vec<&Stranger>)> {
    let mut by_owner = std::collections::BTreeMap::<u32, Vec<&Stranger>>::new();
    for other in others {
        by_owner.entry(other.uid).or_default().push(other);
    }
    by_owner.into_iter().collect()
}

/// That their rules were not read.
pub(super) fn unread(facts: &Facts) -> Option<String> {
    let all = facts.others.len() as u64;
    (all > 0).then(|| {
        format!(
            "whether {} of unprivileged users need it was not looked into (--owner all)",
            so_many(all, "namespace", "namespaces")
        )
    })
}

/// Those that may be of unprivileged users, and count as the host's.
pub(super) fn unowned(facts: &Facts) -> Option<String> {
    let (name, why) = facts.unowned.first()?;
    Some(match facts.unowned.len() {
        1 => format!("the owner of {name} is unknown, so it counts as the host's: {why}"),
        all => format!(
            "the owner of {name} and {} more is unknown, so they count as the host's: {why}",
            all - 1
        ),
    })
}

/// Whether anything is tracked in one of them, as far as that is known.
pub(super) fn track(facts: &Facts) -> bool {
    facts.others.iter().any(|other| other.entries != Ok(0))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            cases::{facts, found, ids, of},
            tracking,
        },
        *,
    };
    use crate::record::facts::Totals;

    fn stranger(uid: u32, entries: u32) -> Stranger {
        let name = Some(format!("sh[{entries}]"));
        Stranger { uid, inode: entries, name, entries: Ok(entries), totals: Ok(Totals::default()) }
    }

    #[test]
    fn strangers_come_last_and_change_nothing_else() {
        let alone = facts(950);
        let mut both = facts(950);
        both.others = (0..1100).map(|n| stranger(1000 + n % 7, 1000)).collect();
        let with = ids(&both);
        assert_eq!(with.last(), Some(&"others"), "{with:?}");
        assert_eq!(ids(&alone), with[..with.len() - 1]);
        let all = found(&both, None);
        let others = of(&all, "others");
        assert!(others.title.starts_with("1,100 namespaces are"), "{}", others.title);
        assert_eq!(others.severity, Severity::Info);
        assert_eq!(others.evidence.len(), MOST + 2, "{others:?}");
        assert!(others.evidence[0].contains("158 namespaces, 0 packets dropped"), "{others:?}");
        assert!(others.evidence[0].ends_with("sh[1000]: 1,000, 100%"), "{others:?}");
    }

    #[test]
    fn those_that_are_well_are_no_finding() {
        let mut facts = facts(10);
        facts.others = vec![stranger(1000, 5)];
        assert!(!ids(&facts).contains(&"others"));
        facts.others[0].totals = Ok(Totals { drop: 1, ..Totals::default() });
        assert!(ids(&facts).contains(&"others"));
    }

    #[test]
    fn an_unknown_owner_is_no_silent_host() {
        let mut facts = facts(5);
        let said = |facts: &Facts| tracking::tracking(facts).unknown.join("\n");
        assert!(!said(&facts).contains("owner"), "{}", said(&facts));
        facts.unowned = vec![("x".to_owned(), "it is hidden".to_owned())];
        let one = "the owner of x is unknown, so it counts as the host's: it is hidden";
        assert!(said(&facts).contains(one), "{}", said(&facts));
        facts.unowned.push(("y".to_owned(), "it is gone".to_owned()));
        let two = "the owner of x and 1 more is unknown, so they count as the host's: it is hidden";
        assert!(said(&facts).contains(two), "{}", said(&facts));
    }
}
