//! What looks like a full table and is something else.

use super::{Case, finding, fixes, number, percent, removal};
use crate::{
    facts::{Namespace, RuleTable, RuleUse, Writable},
    report::{Finding, Severity},
};

/// Chains that are too long, with a table that is not full: too few buckets, or keys that meet.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c> `MAX_CHAINLEN`
pub(super) fn chains(case: &Case<'_>) -> Vec<Finding> {
    let one = |namespace: &Namespace| {
        let refused = namespace.totals.as_ref().ok()?.chaintoolong.filter(|count| *count > 0)?;
        let title = format!(
            "{} packets were refused in {} because a hash chain was too long, not because the \
             table was full",
            number(refused),
            namespace.called(),
        );
        let mut found = finding("chain_too_long", Severity::Warning, title);
        let (entries, buckets) =
            (*namespace.entries.as_ref().ok()?, *case.facts.buckets.as_ref().ok()?);
        found.evidence.push(format!(
            "{} entries, each in two of {} buckets, {:.1} in each on average; a packet is refused \
             where there are more than 50 to 80; chaintoolong counts since boot",
            number(entries),
            number(buckets),
            2.0 * f64::from(entries) / f64::from(buckets.max(1)),
        ));
        let wanted = case.limit().unwrap_or(entries).max(entries).checked_next_power_of_two()?;
        if wanted > buckets {
            if let Err(why) = &case.facts.buckets_by
                && case.facts.limit_is == Writable::Yes
            {
                found.evidence.push(format!("more buckets would help, but {why}"));
                return Some(found);
            }
            let mut fix = fixes::fix("as many buckets as there may be entries");
            let change = ("nf_conntrack_buckets", u64::from(wanted), u64::from(buckets));
            fixes::set(case, None, "buckets", &[change], &mut fix);
            fix.breaks = format!("nothing; {} kB of memory", number(wanted / 128));
            fix.expect = "chains of one or two entries; none is refused for that any more, unless \
                          somebody makes keys meet"
                .to_owned();
            found.fixes.push(fix);
        } else {
            found.evidence.push(
                "there are buckets enough: somebody makes connections that meet in one; ctwatch \
                 trace shows whose (chain_too_long, or, where functions cannot be hooked, \
                 unconfirmed)"
                    .to_owned(),
            );
        }
        Some(found)
    };
    case.facts.namespaces.iter().filter_map(one).collect()
}

pub(super) fn expectations(case: &Case<'_>) -> Vec<Finding> {
    let max = case.facts.expect_max.as_ref().ok().copied().filter(|max| *max > 0);
    let full = |namespace: &&Namespace| {
        let count = namespace.expectations.as_ref().ok().copied();
        max.zip(count).is_some_and(|(max, count)| count >= max)
    };
    let full: Vec<&Namespace> = case.facts.namespaces.iter().filter(full).collect();
    let logged = case.facts.log.as_ref().map_or(0, |log| log.expectations_full);
    if full.is_empty() && logged == 0 {
        return Vec::new();
    }
    let (severity, title) = if full.is_empty() {
        (
            Severity::Info,
            "the table of expectations was full at some time, not that of connections: second \
             connections of FTP, SIP and the like were not let through",
        )
    } else {
        (
            Severity::Warning,
            "the table of expectations is full, not that of connections: second connections of \
             FTP, SIP and the like are not let through",
        )
    };
    let mut found = finding("expectations_full", severity, title.to_owned());
    if logged > 0 {
        let lines = super::so_many(logged, "line", "lines");
        found
            .evidence
            .push(format!("the kernel's log holds {lines} of \"expectation table full\""));
    }
    for namespace in full {
        let count = namespace.expectations.as_ref().copied().unwrap_or(0);
        found.evidence.push(format!(
            "{} expects {} connections",
            namespace.called(),
            number(count)
        ));
    }
    if let Some(max) = max {
        found.evidence.push(format!("no more than {} may be expected", number(max)));
        let mut fix = fixes::fix("let more be expected");
        let wanted = u64::from(max) * 4;
        let change = ("nf_conntrack_expect_max", wanted, u64::from(max));
        fixes::set(case, None, "expectations", &[change], &mut fix);
        fix.breaks = "nothing; each takes some 200 bytes".to_owned();
        fix.expect = "four times as many second connections may be waited for".to_owned();
        found.fixes.push(fix);
    }
    vec![found]
}

/// A table with rules that translate addresses.
fn translates(table: &RuleTable) -> bool {
    let nat = |word: &String| ["masq", "MASQ", "nat", "NAT"].iter().any(|part| word.contains(part));
    table.uses.iter().any(|rule| !rule.notrack && rule.by.iter().any(nat))
}

/// Source NAT has no port left for a connection: it then clashes with another and is lost.
pub(super) fn nat_ports(case: &Case<'_>) -> Vec<Finding> {
    let one = |namespace: &Namespace| {
        let live = case.live(namespace).map(|table| table.drops.nat_exhausted);
        let seen = live
            .and_then(|figure| figure.at_least.zip(figure.total))
            .filter(|(least, _)| *least > 0);
        let totals = namespace.totals.as_ref().ok()?;
        // Of all insertions that failed, those that were for other reasons are known.
        let clashes = totals.insert_failed.saturating_sub(totals.chaintoolong.unwrap_or(0));
        let translates = namespace.rule_tables().any(translates);
        let likely = translates && !case.is_full(namespace) && clashes > 0 && totals.drop > 0;
        if seen.is_none() && !likely {
            return None;
        }
        let title = match seen {
            Some((least, most)) => format!(
                "NAT had no port left for {} new connections in {}; the table was not the reason",
                if least == most {
                    number(most)
                } else {
                    format!("{} to {}", number(least), number(most))
                },
                namespace.called(),
            ),
            None => format!(
                "NAT may have run out of ports in {}: insertions failed while the table was not full",
                namespace.called(),
            ),
        };
        let severity = if seen.is_some() { Severity::Critical } else { Severity::Warning };
        let mut found = finding("nat_exhausted", severity, title);
        let fill = case.fill(namespace).map_or("unknown".to_owned(), percent);
        found.evidence.push(format!(
            "insert_failed {} since boot, {} of it for other reasons than a chain too long, drop \
             {}; the table is {fill} full",
            number(totals.insert_failed),
            number(clashes),
            number(totals.drop),
        ));
        if seen.is_none() {
            found.evidence.push(
                "lost clashes of two packets look the same: ctwatch doctor --for 10s tells"
                    .to_owned(),
            );
        }
        found.evidence.push(
            "ctwatch trace shows whose (nat_exhausted, or, where functions cannot be hooked, \
             unconfirmed)"
                .to_owned(),
        );
        let mut fix = fixes::fix(
            "more room for NAT: translate to a range of addresses (snat to A-B; --to-source A-B), \
             or to all ports from 1024 on (:1024-65535)",
        );
        fix.expect = "each more address to translate to, towards one destination, is worth some \
                      64,000 connections at a time"
            .to_owned();
        fix.breaks =
            "whoever knows this network by the one address it has now: allow-lists, and peers \
                      that want all of a client's connections from one"
                .to_owned();
        found.fixes.push(fix);
        Some(found)
    };
    case.facts.namespaces.iter().filter_map(one).collect()
}

/// No memory for an entry.
pub(super) fn memory(case: &Case<'_>) -> Vec<Finding> {
    let one = |namespace: &Namespace| {
        let figure = case.live(namespace)?.drops.no_memory;
        let most = figure.total.filter(|most| *most > 0)?;
        let (severity, title) = match figure.at_least.filter(|least| *least > 0) {
            Some(least) => (
                Severity::Critical,
                format!(
                    "the kernel had no memory for at least {} new connections in {}; the table \
                     was not full",
                    number(least),
                    namespace.called(),
                ),
            ),
            // Then a full table is the likelier reason.
            None if case.is_full(namespace) => return None,
            None => (
                Severity::Warning,
                format!(
                    "the kernel may have had no memory for up to {} new connections in {}: it had \
                     none for somebody, and the table was not full",
                    number(most),
                    namespace.called(),
                ),
            ),
        };
        let mut found = finding("no_memory", severity, title);
        found.evidence.push("counted just now, where entries are allocated".to_owned());
        Some(found)
    };
    let mut found: Vec<Finding> = case.facts.namespaces.iter().filter_map(one).collect();
    let log = case.facts.log.as_ref().ok().filter(|log| log.no_memory > 0);
    if let Some(log) = log
        && found.is_empty()
    {
        let title = "the kernel ran out of memory for somebody: new connections may have been \
                     refused for that too"
            .to_owned();
        let mut doubt = finding("no_memory", Severity::Info, title);
        let lines = super::so_many(log.no_memory, "line", "lines");
        doubt
            .evidence
            .push(format!("the kernel's log holds {lines} of \"page allocation failure\""));
        found.push(doubt);
    }
    found
}

/// A rule of the firewall drops what conntrack calls INVALID.
pub(super) fn invalid_rules(case: &Case<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for namespace in &case.facts.namespaces {
        for table in namespace.rule_tables() {
            for rule in &table.uses {
                if rule.drops_invalid && rule.packets != Some(0) {
                    found.push(invalid(case, namespace, table, rule));
                }
            }
        }
    }
    found
}

fn invalid(case: &Case<'_>, namespace: &Namespace, table: &RuleTable, rule: &RuleUse) -> Finding {
    let dropped = match rule.packets {
        Some(count) => format!("has dropped {} packets", number(count)),
        None => "drops packets, and does not count them".to_owned(),
    };
    let title = format!(
        "a rule of {}, and not the table, {dropped}: those that conntrack calls INVALID",
        namespace.called(),
    );
    let mut found = finding("invalid_rule", Severity::Info, title);
    found.evidence.push(format!(
        "table {} {}, chain {}, rule {}: {}",
        table.family,
        table.name,
        rule.chain,
        rule.number,
        rule.by.join(", "),
    ));
    if let Ok(totals) = &namespace.totals {
        found
            .evidence
            .push(format!("conntrack counts invalid {} since boot", number(totals.invalid)));
    }
    match removal::remove(case, namespace, &[(table, rule)], "remove the rule") {
        Ok(mut fix) => {
            fix.breaks = "such packets pass on to the next rule".to_owned();
            fix.expect = "none is dropped by it any more".to_owned();
            found.fixes.push(fix);
        }
        Err(why) => found.evidence.push(format!("it is not to be removed: {why}")),
    }
    found
}
