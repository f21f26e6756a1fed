//! A table that was full and is not any more: one looks after the pager went.

use super::{
    case::{Case, finding, number, so_many},
    report::{Finding, Severity},
};
use crate::record::facts::{Form, FullLines, KernelLog, Moment, Namespace, Totals};

/// Packets that did not get as far as to make an entry: the table was full, there was no memory, or
/// the protocol's tracker would not have them. The other drops are clashes.
fn at_the_door(totals: &Totals) -> u64 {
    let clashes = totals.insert_failed.saturating_sub(totals.chaintoolong.unwrap_or(0));
    totals.drop.saturating_sub(clashes)
}

/// Whether room in its table was ever short.
pub(super) fn was_short(namespace: &Namespace) -> bool {
    let totals = namespace.totals.as_ref();
    totals.is_ok_and(|totals| at_the_door(totals) > 0 || totals.early_drop > 0)
}

/// Not of a table that is full now: that is another finding, with the same counters.
pub(super) fn was_full(case: &Case<'_>) -> Vec<Finding> {
    let over = case.facts.namespaces.iter().filter(|namespace| !case.is_full(namespace));
    over.filter_map(|namespace| one(case, namespace)).collect()
}

fn one(case: &Case<'_>, namespace: &Namespace) -> Option<Finding> {
    let totals = namespace.totals.as_ref().ok()?;
    let door = at_the_door(totals);
    if door == 0 && totals.early_drop == 0 {
        return None;
    }
    let (called, since) = (namespace.called(), since(case, namespace));
    let log = case.facts.log.as_ref();
    let logged = log.ok().and_then(|log| logged(log, namespace));
    let timed = log.ok().filter(|log| !log.is_untimed);
    let last = timed.zip(logged).map(|(log, (_, full))| last(full.last, log.read.as_ref()));
    let last = last.map_or_else(String::new, |last| format!(", last logged {last}"));
    let packets = so_many(door, "packet", "packets");
    // Nothing is evicted, and nothing is logged, before a table is full.
    let certain = totals.early_drop > 0 || logged.is_some_and(|(is_its_own, _)| is_its_own);
    let title = match (door, certain) {
        (0, _) => format!(
            "the table of {called} was full: {} evicted {since} to make room, and no packet was \
             dropped for it{last}",
            so_many(totals.early_drop, "entry was", "entries were"),
        ),
        (_, true) => format!("the table of {called} was full: {packets} dropped {since}{last}"),
        (_, false) => {
            format!("the table of {called} may have been full: {packets} dropped {since}{last}")
        }
    };
    let mut found = finding("was_full", Severity::Warning, title).about([namespace]);
    found.evidence.push(format!(
        "the kernel's counters: drop {}, of which up to {} for a full table (or for want of memory, \
         or by a protocol's tracker) and {} in clashes; early_drop {}",
        number(totals.drop),
        number(door),
        number(totals.drop - door),
        number(totals.early_drop),
    ));
    found.evidence.push(match (log, logged) {
        (Err(why), _) => format!("when is unknown: {why}"),
        (Ok(log), None) => unlogged(log),
        (Ok(log), Some((is_its_own, full))) => {
            let of = if is_its_own { "of this namespace" } else { "of all namespaces" };
            let more = match log.suppressed {
                0 => String::new(),
                more => format!(
                    "; up to {} more lines were suppressed, of all that the network says",
                    number(more)
                ),
            };
            let lines = so_many(full.lines, "line", "lines");
            format!("the kernel's log holds {lines} of \"table full, dropping packet\", {of}{more}")
        }
    });
    if let (Ok(entries), Some(limit)) = (&namespace.entries, case.limit()) {
        found.evidence.push(format!(
            "now {} of {} entries: who filled it is not known any more",
            number(*entries),
            number(limit)
        ));
    }
    found.evidence.push(
        "to see who it is the next time: ctwatch watch --top 5; to be told: ctwatch check -w \
         dropped=0 --state /var/lib/ctwatch-check.json, from monitoring"
            .to_owned(),
    );
    Some(found)
}

/// From when on the counters count.
pub(super) fn since(case: &Case<'_>, namespace: &Namespace) -> &'static str {
    match (namespace.is_host(), case.facts.form) {
        (false, _) => "since the namespace was made",
        (true, Form::BuiltIn) => "since boot",
        (true, _) => "since nf_conntrack was loaded",
    }
}

/// What is logged of it, and whether the lines name this namespace; those that name none may be of
/// any.
fn logged(log: &KernelLog, namespace: &Namespace) -> Option<(bool, FullLines)> {
    let of = |inode: u32| log.full_in.get(&inode).copied();
    match of(namespace.inode).filter(|_| namespace.inode > 0) {
        Some(full) => Some((true, full)),
        None => of(0).map(|full| (false, full)),
    }
}

fn unlogged(log: &KernelLog) -> String {
    let ago = log.since.zip(log.read.as_ref()).map(|(since, read)| last(since, Some(read)));
    match ago {
        Some(ago) => {
            format!("the kernel's log, whose oldest line was written {ago}, does not say when")
        }
        None => "the kernel's log does not say when".to_owned(),
    }
}

/// `at 03:12 (6 h ago)`
pub(super) fn last(second: u64, read: Option<&Moment>) -> String {
    const DAY: u64 = 86_400;
    let of_boot = || format!("{} s after boot", number(second));
    let Some(Moment { since_boot, time }) = read else { return of_boot() };
    // The log's clock is not quite this one.
    let ago = since_boot.saturating_sub(second);
    let Ok(seconds) = i64::try_from(ago) else { return of_boot() };
    let Ok(at) = time.checked_sub(jiff::SignedDuration::from_secs(seconds)) else {
        return of_boot();
    };
    let at = at.strftime(if ago < DAY { "%H:%M" } else { "%Y-%m-%d %H:%M" });
    let ago = match ago {
        0..120 => format!("{ago} s"),
        120..7_200 => format!("{} min", ago / 60),
        7_200..172_800 => format!("{} h", ago / 3_600),
        _ => format!("{} days", ago / DAY),
    };
    format!("at {at} ({ago} ago)")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::cases::{facts, found, ids, of},
        *,
    };
    use crate::record::facts::Facts;

    fn counted(drop: u64, insert_failed: u64, early_drop: u64) -> Facts {
        let mut facts = facts(10);
        let chaintoolong = Some(0);
        let totals = Totals { drop, insert_failed, early_drop, chaintoolong, ..Totals::default() };
        facts.namespaces[0].totals = Ok(totals);
        facts
    }

    fn log(netns: u32) -> KernelLog {
        let time = jiff::civil::date(2026, 5, 2).at(9, 20, 0, 0).to_zoned(jiff::tz::TimeZone::UTC);
        KernelLog {
            table_full: 310,
            full_in: BTreeMap::from([(netns, FullLines { lines: 310, last: 1000 })]),
            suppressed: 12,
            since: Some(1),
            read: Some(Moment { since_boot: 1000 + 6 * 3600 + 60, time: time.unwrap() }),
            ..KernelLog::default()
        }
    }

    #[test]
    fn what_is_over_is_told_with_how_many_and_when() {
        let mut facts = counted(83_570, 2, 0);
        facts.log = Ok(log(1));
        let all = found(&facts, None);
        let was = of(&all, "was_full");
        assert_eq!(was.severity, Severity::Warning);
        assert_eq!(
            was.title,
            "the table of host was full: 83,568 packets dropped since nf_conntrack was loaded, last \
             logged at 03:19 (6 h ago)"
        );
        let evidence = was.evidence.join("\n");
        assert!(evidence.contains("up to 83,568 for a full table"), "{evidence}");
        assert!(evidence.contains("310 lines") && evidence.contains("of this namespace; up to 12"));
        assert!(evidence.contains("check -w dropped=0 --state"), "{evidence}");
    }

    #[test]
    fn lines_of_another_namespace_are_none_of_this_one() {
        let mut facts = counted(5, 0, 0);
        facts.log = Ok(log(2));
        let all = found(&facts, None);
        let was = of(&all, "was_full");
        assert!(was.title.contains("may have been full: 5 packets"), "{}", was.title);
        assert!(!was.title.contains("logged"), "{}", was.title);
        let evidence = was.evidence.join("\n");
        assert!(evidence.contains("oldest line was written at 03:02"), "{evidence}");
        // Those that name none may be of this one.
        facts.log = Ok(log(0));
        let all = found(&facts, None);
        let was = of(&all, "was_full");
        assert!(was.title.contains("may have been full") && was.title.contains("last logged"));
        assert!(was.evidence.join("\n").contains("of all namespaces"), "{was:?}");
    }

    #[test]
    fn evictions_show_that_it_was_full() {
        let all = found(&counted(0, 0, 1), None);
        let title = &of(&all, "was_full").title;
        assert!(title.contains("was full: 1 entry was evicted"), "{title}");
        let all = found(&counted(7, 0, 1), None);
        assert!(of(&all, "was_full").title.contains("was full: 7 packets dropped"));
    }

    #[test]
    fn counters_at_0_are_no_incident_whatever_is_logged() {
        let mut facts = counted(0, 0, 0);
        facts.log = Ok(log(1));
        assert!(ids(&facts).is_empty());
        let clashes = counted(9, 9, 0);
        assert!(!ids(&clashes).contains(&"was_full"), "clashes are none");
        let mut full = counted(9, 0, 0);
        full.namespaces[0].entries = Ok(1000);
        assert!(!ids(&full).contains(&"was_full"), "it is");
    }
}
