//! Whose packets and whose entries.

use ctwatch_abi::top::Stream;

use super::{
    measure::Measure,
    shares::shares,
    shown::ShownTops,
    words::{marked, number, percent, talker},
};
use crate::model::{
    Snapshot, Table,
    census::Holders,
    figure::Exactness,
    top::{TopEntry, TopList},
};

/// `dropped by source: 10.1.1.1 512/s 34.0%; …`
pub(super) fn lines(table: &Table, tops: &ShownTops, measure: Measure) -> Vec<String> {
    let wanted = table.top.iter().filter(|list| tops.by.contains(&list.by));
    let mut lines: Vec<String> = wanted.filter_map(|list| of_list(list, tops, measure)).collect();
    let happening = table
        .control_plane
        .iter()
        .filter(|found| measure == Measure::InAll || found.per_s.is_some_and(|per_s| per_s > 0.0));
    let found: Vec<String> = happening
        .map(|found| match (measure, found.per_s) {
            (Measure::Now, Some(per_s)) => format!("{} {}/s", found.protocol, number(per_s)),
            _ => {
                format!(
                    "{} {}",
                    found.protocol,
                    marked(found.exactness, &found.at_least.to_string())
                )
            }
        })
        .collect();
    if !found.is_empty() {
        lines.push(format!("CONTROL PLANE DROPPED: {}", found.join(", ")));
    }
    lines
}

/// `dropped by source: 10.1.1.1 512/s 34.0%; …`, where there is anything to say.
pub(super) fn of_list(list: &TopList, tops: &ShownTops, measure: Measure) -> Option<String> {
    let mut entries: Vec<&TopEntry> =
        list.entries.iter().filter(|entry| is_shown(entry, measure)).collect();
    if measure == Measure::InAll {
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.count));
    }
    entries.truncate(tops.most);
    if entries.is_empty() {
        return None;
    }
    let what = match list.stream {
        Stream::Drops => "dropped",
        Stream::Insertions => "inserted",
    };
    let entries = entries.iter().map(|entry| {
        format!("{} {}", talker(list.by, entry, &tops.services), weight(entry, measure))
    });
    let entries: Vec<String> = entries.collect();
    // A rate is of now, whenever the list began.
    let since = list.since.filter(|_| measure == Measure::InAll);
    let since = since.map_or_else(String::new, |since| format!(" since {since:.0}"));
    Some(format!("{what} by {}{since}: {}", list.by.name(), entries.join("; ")))
}

/// What holds the table, by the last census.
pub(super) fn holding(snapshot: &Snapshot, table: &Table, tops: &ShownTops) -> Vec<String> {
    let (Some((taken, age)), Some(census)) = (&snapshot.census, snapshot.census(table)) else {
        return Vec::new();
    };
    let mut lines = vec![format!(
        "holding: {}; census by {} {:.0} s ago",
        shares(&census.holds),
        taken.by,
        age.as_secs_f64()
    )];
    lines.extend(taken.counted.lists(table.id).filter_map(|list| held_by(list, tops)));
    lines
}

/// `holding by source: 10.1.1.1 512 34.0%; …`, where it is wanted.
pub(super) fn held_by(list: &Holders, tops: &ShownTops) -> Option<String> {
    let entries = list.entries.iter().take(tops.most).map(|entry| {
        let name = talker(list.by, entry, &tops.services);
        format!("{name} {}", weight(entry, Measure::InAll))
    });
    let entries: Vec<String> = entries.collect();
    let is_wanted = tops.by.contains(&list.by) && !entries.is_empty();
    is_wanted.then(|| format!("holding by {}: {}", list.by.name(), entries.join("; ")))
}

/// Without anything certain, a name is only the last of many that came by.
fn is_shown(entry: &TopEntry, measure: Measure) -> bool {
    match measure {
        Measure::Now => entry.per_s.is_some_and(|per_s| per_s > 0.0),
        Measure::InAll => entry.at_least() > 0,
    }
}

/// `512/s 34.0%`, of what happens now, or `<=1783 <=34.0%`, of all since the start.
fn weight(entry: &TopEntry, measure: Measure) -> String {
    let (exactness, amount, share) = match (measure, entry.per_s) {
        (Measure::Now, Some(per_s)) => {
            (entry.per_s_is, format!("{}/s", number(per_s)), entry.share_now)
        }
        _ => {
            let exactness = match (entry.estimate, entry.error) {
                (Some(_), _) => Exactness::Estimated,
                (None, 0) => Exactness::Exact,
                (None, _) => Exactness::UpperBound,
            };
            (exactness, entry.count.to_string(), entry.share)
        }
    };
    let amount = marked(exactness, &amount);
    match share {
        Some(share) => format!("{amount} {}", marked(exactness, &percent(Some(share)))),
        None => amount,
    }
}

#[cfg(test)]
mod tests {
    use ctwatch_abi::top::{By, Key};

    use super::*;
    use crate::output::{fixtures::top_entry as entry, services::Services};

    #[test]
    fn names_are_what_a_network_engineer_writes() {
        let services = Services::parse("domain\t53/udp\n");
        let entry = entry();
        assert_eq!(talker(By::Source, &entry, &services), "10.1.1.1");
        assert_eq!(talker(By::Service, &entry, &services), "10.100.1.1 udp/53 (domain)");
        assert_eq!(talker(By::Flow, &entry, &Services::default()), "10.1.1.1 > 10.100.1.1 udp/53");
        assert_eq!(talker(By::Interface, &entry, &services), "this host");
        let ospf = TopEntry { key: Key { protocol: 89, ..entry.key }, ..entry.clone() };
        assert_eq!(talker(By::Service, &ospf, &services), "10.100.1.1 ospf");
        assert_eq!(weight(&entry, Measure::Now), "12/s 25.0%");
        let at_least = TopEntry { per_s_is: Exactness::LowerBound, ..entry.clone() };
        assert_eq!(weight(&at_least, Measure::Now), ">=12/s >=25.0%");
        assert_eq!(weight(&entry, Measure::InAll), "<=100 <=50.0%");
        let exact = TopEntry { error: 0, share: None, ..entry };
        assert_eq!(weight(&exact, Measure::InAll), "100");
    }
}
