//! What looks like a full table and is something else.

use super::{
    case::{Case, finding, number, percent, so_many},
    fixes,
    incident::{last, since},
    removal,
    report::{Finding, Fix, Severity},
};
use crate::{
    model::{Table, figure::Figure},
    record::facts::{Act, Namespace, RuleTable, RuleUse, VMAP, Writable},
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
        let mut found = finding("chain_too_long", Severity::Warning, title).about([namespace]);
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
    let log = case.facts.log.as_ref().ok();
    let logged = log.map(|log| (log.expectations_full, log)).filter(|(full, _)| full.lines > 0);
    if full.is_empty() && logged.is_none() {
        return Vec::new();
    }
    let (severity, title) = if full.is_empty() {
        (
            Severity::Info,
            format!(
                "the table of expectations was full, not that of connections{}: second connections \
                 of FTP, SIP and the like were not let through",
                logged.filter(|(_, log)| !log.is_untimed).map_or_else(
                    String::new,
                    |(full, log)| format!(", last logged {}", last(full.last, log.read.as_ref()))
                )
            ),
        )
    } else {
        (
            Severity::Warning,
            "the table of expectations is full, not that of connections: second connections of \
             FTP, SIP and the like are not let through"
                .to_owned(),
        )
    };
    let mut found = finding("expectations_full", severity, title).about(full.iter().copied());
    if let Some((full, _)) = logged {
        let lines = so_many(full.lines, "line", "lines");
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

/// Rules that choose source addresses: only they use up ports.
fn translates_sources(namespace: &Namespace) -> bool {
    let rules = |table: &RuleTable| {
        let chains = table.chains.iter().flat_map(|chain| &chain.rules);
        let chooses = chains.filter(|rule| rule.act == Act::TranslateSource).count() > 0;
        let words = table.uses.iter().filter(|rule| !rule.notrack).flat_map(|rule| &rule.by);
        // What was not read in full, by its words; those for destinations alone are others.
        chooses || words.into_iter().any(|word| SOURCES.iter().any(|part| word.contains(part)))
    };
    namespace.rule_tables().any(rules)
}

const SOURCES: [&str; 4] = ["masq", "MASQ", "SNAT", "NETMAP"];

/// What of failed insertions was counted just now.
enum Failed {
    /// At least, at most.
    Ports(u64, u64),
    Clashes(u64, u64),
    /// So many of the one or the other: what counts here does not tell them apart.
    Either(u64),
    None,
    Uncounted,
}

fn failed(table: Option<&Table>) -> Failed {
    let Some(drops) = table.map(|table| table.drops) else { return Failed::Uncounted };
    let bounds = |figure: Figure| Some((figure.at_least?, figure.total?));
    match (bounds(drops.nat_exhausted), bounds(drops.clash)) {
        (Some((least @ 1.., most)), _) => Failed::Ports(least, most),
        (Some((_, 0)), Some((least @ 1.., most))) => Failed::Clashes(least, most),
        (Some((0, 0)), Some((0, 0))) => Failed::None,
        // Exact together, and each may be all of it.
        (Some((_, ports)), Some((_, clashes))) => Failed::Either(ports.max(clashes)),
        _ => Failed::Uncounted,
    }
}

fn from_to(least: u64, most: u64) -> String {
    match least == most {
        true => number(most),
        false => format!("{} to {}", number(least), number(most)),
    }
}

/// Of all insertions that failed since the start, those that were for a port or a clash.
fn clashes(namespace: &Namespace) -> u64 {
    let totals = namespace.totals.as_ref();
    totals.map_or(0, |t| t.insert_failed.saturating_sub(t.chaintoolong.unwrap_or(0)))
}

/// Whether insertions fail that may be NAT's: then it is worth counting which they are.
pub(super) fn may_lack_ports(namespace: &Namespace) -> bool {
    clashes(namespace) > 0 && namespace.rule_tables().any(translates)
}

/// Source NAT has no port left for a connection: it then clashes with another and is lost. First
/// packets of one connection that meet on two CPUs are lost the same way.
pub(super) fn nat_ports(case: &Case<'_>) -> Vec<Finding> {
    let one = |namespace: &Namespace| {
        let failed = failed(case.live(namespace));
        let totals = namespace.totals.as_ref().ok()?;
        let is_likely = may_lack_ports(namespace) && !case.is_full(namespace) && totals.drop > 0;
        let called = namespace.called();
        let sources = translates_sources(namespace);
        let (id, severity, title) = match failed {
            Failed::Ports(least, most) => (
                "nat_exhausted",
                Severity::Critical,
                format!(
                    "NAT had no port left for {} new connections in {called}; the table was not \
                     the reason",
                    from_to(least, most),
                ),
            ),
            Failed::Clashes(least, most) => (
                "lost_clashes",
                Severity::Warning,
                format!(
                    "{} first packets clashed with others of the same connection and were dropped \
                     in {called} just now; the table was not the reason, nor ports of NAT",
                    from_to(least, most),
                ),
            ),
            _ if !is_likely => return None,
            Failed::Either(most) if sources => (
                "nat_exhausted",
                Severity::Warning,
                format!(
                    "{} new connections failed in {called} just now: NAT had no port left, or their \
                     first packets clashed; the table was not the reason",
                    number(most),
                ),
            ),
            Failed::None | Failed::Uncounted if sources => (
                "nat_exhausted",
                Severity::Warning,
                format!(
                    "NAT may have run out of ports in {called}: insertions failed while the table \
                     was not full"
                ),
            ),
            // No rule chooses source ports here, so that there are always some.
            _ => (
                "lost_clashes",
                Severity::Warning,
                format!(
                    "{} first packets clashed with others of the same connection and were dropped \
                     in {called} {}; the table was not the reason, and no rule there uses up ports",
                    number(clashes(namespace)),
                    since(case, namespace),
                ),
            ),
        };
        let mut found = finding(id, severity, title).about([namespace]);
        let fill = case.fill(namespace).map_or("unknown".to_owned(), percent);
        found.evidence.push(format!(
            "insert_failed {} {}, {} of it for other reasons than a chain too long, drop \
             {}; the table is {fill} full",
            number(totals.insert_failed),
            since(case, namespace),
            number(clashes(namespace)),
            number(totals.drop),
        ));
        let seconds = case.live.map_or(0.0, |live| live.elapsed.as_secs_f64());
        match failed {
            Failed::Either(_) => found.evidence.push(
                "lost clashes of two first packets look the same to what counts here (see clash, \
                 nat_exhausted among the figures)"
                    .to_owned(),
            ),
            Failed::None => found.evidence.push(format!(
                "none failed in the {seconds:.1} s in which it was counted: lost clashes of two \
                 first packets look the same in the counters since then"
            )),
            Failed::Uncounted => found
                .evidence
                .push("lost clashes of two first packets look the same in the counters".to_owned()),
            Failed::Ports(..) | Failed::Clashes(..) => {}
        }
        found.evidence.push(
            "ctwatch trace shows whose (clash, nat_exhausted, or, where functions cannot be hooked, \
             unconfirmed)"
                .to_owned(),
        );
        match id {
            "nat_exhausted" => found.fixes.push(more_ports()),
            _ => found.evidence.push(
                "two packets were sent at once from one socket, as resolvers do for A and AAAA, or \
                 repeated, and came in on two CPUs: options single-request-reopen or use-vc in \
                 resolv.conf, a DNS cache on each node, or one receive queue per flow help; a larger \
                 table does not"
                    .to_owned(),
            ),
        }
        Some(found)
    };
    case.facts.namespaces.iter().filter_map(one).collect()
}

fn more_ports() -> Fix {
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
    fix
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
        let mut found = finding("no_memory", severity, title).about([namespace]);
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
        let lines = so_many(log.no_memory, "line", "lines");
        doubt
            .evidence
            .push(format!("the kernel's log holds {lines} of \"page allocation failure\""));
        found.push(doubt);
    }
    found
}

/// The cloud's network tracks connections too, outside of this machine.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>
pub(super) fn allowances(case: &Case<'_>) -> Vec<Finding> {
    let one = |namespace: &Namespace| {
        let over = namespace.allowances.iter().filter(|allowance| allowance.exceeded > 0);
        let over: Vec<_> = over.collect();
        let dropped: u64 = over.iter().map(|allowance| allowance.exceeded).sum();
        if dropped == 0 {
            return None;
        }
        let title = format!(
            "the cloud's network, and not a table of this machine, has dropped {} of {}: it tracks \
             connections too, up to an allowance of this type of instance",
            so_many(dropped, "packet", "packets"),
            namespace.called(),
        );
        let mut found = finding("cloud_allowance", Severity::Warning, title).about([namespace]);
        for allowance in over {
            let available = allowance.available.map_or_else(String::new, |available| {
                format!(", conntrack_allowance_available {}", number(available))
            });
            found.evidence.push(format!(
                "{}: conntrack_allowance_exceeded {} since the interface was made{available}",
                allowance.interface,
                number(allowance.exceeded),
            ));
        }
        let mut fix = fixes::fix(
            "in the cloud's console, not here: a larger instance; shorter idle timeouts of the network \
             interface (tcp-established, udp-stream, udp-timeout); or a security group that need not \
             track: one that lets this traffic in and out by rules for all addresses and ports",
        );
        fix.breaks = "a security group that tracks less lets in more".to_owned();
        fix.expect = "conntrack_allowance_exceeded (ethtool -S) grows no more".to_owned();
        found.fixes.push(fix);
        Some(found)
    };
    case.facts.namespaces.iter().filter_map(one).collect()
}

/// Rules of the firewall drop what conntrack calls INVALID.
pub(super) fn invalid_rules(case: &Case<'_>) -> Vec<Finding> {
    let mut rules: Vec<(&Namespace, &RuleTable, &RuleUse)> = Vec::new();
    for namespace in &case.facts.namespaces {
        // Where there were none, no rule has dropped any.
        if namespace.totals.as_ref().is_ok_and(|totals| totals.invalid == 0) {
            continue;
        }
        for table in namespace.rule_tables() {
            let drop = table.uses.iter().filter(|rule| drops_invalid(table, rule));
            let drop = drop.filter(|rule| rule.packets != Some(0));
            rules.extend(drop.map(|rule| (namespace, table, rule)));
        }
    }
    invalid(case, &rules).into_iter().collect()
}

/// By itself, or in a chain that it leads to.
fn drops_invalid(table: &RuleTable, rule: &RuleUse) -> bool {
    /// As deep as the kernel lets chains lead.
    const DEEPEST: u32 = 16;
    /// A chain may be come to in many ways.
    const MOST: u32 = 100_000;
    let mut steps = MOST;
    rule.on_invalid.as_ref().is_some_and(|act| drops(table, act, DEEPEST, &mut steps) == Some(true))
}

/// Whether all packets are dropped by it, or none may be said to be; `None`: the next rule is asked.
fn drops(table: &RuleTable, act: &Act, depth: u32, steps: &mut u32) -> Option<bool> {
    // Too far to be followed: nothing is claimed of it.
    let Some(left) = steps.checked_sub(1) else { return Some(false) };
    *steps = left;
    let (to, comes_back) = match act {
        Act::Drop => return Some(true),
        // A mark given back drops nothing.
        Act::Next | Act::Restore => return None,
        Act::Jump(to) => (to, true),
        Act::Goto(to) => (to, false),
        _ => return Some(false),
    };
    let chain = table.chains.iter().find(|chain| chain.name == *to && depth > 0)?;
    for rule in &chain.rules {
        match drops(table, &rule.act, depth - 1, steps) {
            None => {}
            // What is dropped in part is dropped at the end, or is not.
            Some(true) if !rule.conditions.is_empty() => {}
            decided => return decided,
        }
    }
    if comes_back { None } else { Some(false) }
}

/// One for all of them: they are most often the same in many namespaces.
fn invalid(case: &Case<'_>, rules: &[(&Namespace, &RuleTable, &RuleUse)]) -> Option<Finding> {
    const TOLD: usize = 10;
    const FIXES: usize = 3;
    let (first, ..) = rules.first()?;
    let of = match rules.iter().filter(|(other, ..)| other.inode != first.inode).count() {
        0 => first.called(),
        _ => format!("{} and other namespaces", first.called()),
    };
    let counted: Vec<u64> = rules.iter().filter_map(|(.., rule)| rule.packets).collect();
    let packets = so_many(counted.iter().sum::<u64>(), "packet", "packets");
    let (rule, have, drop) = match rules.len() {
        1 => ("a rule".to_owned(), "has", "drops"),
        many => (format!("{} rules", number(many as u64)), "have", "drop"),
    };
    let dropped = match counted.len() {
        0 => format!("{drop} packets, and does not count them"),
        all if all == rules.len() => format!("{have} dropped {packets}"),
        _ => format!("{have} dropped {packets}, and more that are not counted"),
    };
    let title =
        format!("{rule} of {of}, and not the table, {dropped}: those that conntrack calls INVALID");
    let of = rules.iter().map(|(namespace, ..)| *namespace);
    let mut found = finding("invalid_rule", Severity::Info, title).about(of);
    for (namespace, table, rule) in rules.iter().take(TOLD) {
        let invalid = namespace.totals.as_ref().map(|totals| totals.invalid);
        found.evidence.push(format!(
            "{}: table {} {}, chain {}, rule {}: {}; conntrack counts invalid {} {}",
            namespace.called(),
            table.family,
            table.name,
            rule.chain,
            rule.number,
            rule.by.join(", "),
            invalid.map_or("unknown".to_owned(), number),
            since(case, namespace),
        ));
    }
    if rules.len() > TOLD {
        found.evidence.push(format!("and {} more", number((rules.len() - TOLD) as u64)));
    }
    found.evidence.push(
        "a packet is INVALID where it fits no connection: answers whose way out is another one \
         (asymmetric paths: conntrack sees one direction only), packets that come after their \
         connection has timed out, and TCP outside of the window, which sysctl -w \
         net.netfilter.nf_conntrack_tcp_be_liberal=1 lets pass as valid"
            .to_owned(),
    );
    for (namespace, table, rule) in rules.iter().take(FIXES) {
        if rule.by.iter().any(|by| by == VMAP) {
            found.evidence.push(format!(
                "rule {} of chain {} decides about other packets too: it is not to be removed",
                rule.number, rule.chain
            ));
            continue;
        }
        match removal::remove(case, namespace, &[(table, rule)], "remove the rule") {
            Ok(mut fix) => {
                fix.breaks = "such packets pass on to the next rule".to_owned();
                fix.expect = "none is dropped by it any more".to_owned();
                found.fixes.push(fix);
            }
            Err(why) => found.evidence.push(format!("it is not to be removed: {why}")),
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::{
        super::cases::{facts, ids, invalid_rule, nat_rule, of},
        *,
    };
    use crate::{
        diagnosis::findings,
        model::{
            Snapshot,
            figure::Bounds,
            verdict::situations::{Situation, rt},
        },
        record::facts::{Allowance, Condition, Facts, Rule, Totals},
    };

    /// Failed insertions: since the start, and just now by what was counted.
    fn live(ports: Bounds, clash: Bounds) -> Snapshot {
        let mut snapshot = Situation::still(rt(5, 9)).snapshot();
        snapshot.tables[0].drops.nat_exhausted = ports.figure(Some(0), Some(1.0));
        snapshot.tables[0].drops.clash = clash.figure(Some(0), Some(1.0));
        snapshot
    }

    fn failing(translates: &str) -> Facts {
        let mut facts = facts(10);
        let (insert_failed, drop) = (9, 9);
        facts.namespaces[0].totals = Ok(Totals { insert_failed, drop, ..Totals::default() });
        facts.namespaces[0].nft = Ok(vec![nat_rule(translates)]);
        facts
    }

    fn told(facts: &Facts, live: &Snapshot) -> Finding {
        let found = findings(&Case {
            facts,
            census: Err("no"),
            live: Some(live),
            settings: Default::default(),
        });
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn a_clash_is_told_from_ports_that_are_used_up() {
        let (none, some, doubt) = (Bounds::exactly(0), Bounds::exactly(30), Bounds::between(0, 30));
        let facts = failing("masquerade");
        let ports = told(&facts, &live(some, none));
        assert_eq!((ports.id, ports.severity), ("nat_exhausted", Severity::Critical));
        assert!(ports.title.contains("left for 30 new connections"), "{}", ports.title);
        let clash = told(&facts, &live(none, some));
        assert_eq!((clash.id, clash.fixes.len()), ("lost_clashes", 0));
        assert!(clash.title.starts_with("30 first packets clashed"), "{}", clash.title);
        let either = told(&facts, &live(doubt, doubt));
        assert_eq!((either.id, either.severity), ("nat_exhausted", Severity::Warning));
        assert!(either.title.starts_with("30 new connections failed"), "{}", either.title);
        let quiet = told(&facts, &live(none, none));
        assert!(quiet.evidence[1].contains("none failed in the"), "{quiet:?}");
        for finding in [ports, clash, either, quiet] {
            assert!(!format!("{finding:?}").contains("--for"), "{finding:?}");
        }
    }

    #[test]
    fn where_no_rule_chooses_ports_none_are_used_up() {
        let (facts, doubt) = (failing("-j DNAT"), Bounds::between(0, 30));
        let clash = told(&facts, &live(doubt, doubt));
        assert_eq!((clash.id, clash.fixes.len()), ("lost_clashes", 0));
        assert!(clash.title.starts_with("9 first packets clashed"), "{}", clash.title);
        assert_eq!(ids(&facts), ["lost_clashes"]);
    }

    #[test]
    fn rules_on_invalid_packets_are_one_finding() {
        let mut facts = facts(10);
        let one = facts.namespaces[0].clone();
        facts.namespaces = (1..=40)
            .map(|id| {
                let mut namespace = Namespace { id, inode: id as u32, ..one.clone() };
                namespace.nft = Ok(vec![invalid_rule("ct state", None)]);
                namespace.totals = Ok(Totals { invalid: 3, ..Totals::default() });
                namespace
            })
            .collect();
        let all = findings(&Case {
            facts: &facts,
            census: Err("no"),
            live: None,
            settings: Default::default(),
        });
        let [one] = all.as_slice() else { panic!("{all:?}") };
        assert!(one.title.starts_with("40 rules of host and other namespaces"), "{}", one.title);
        let evidence = one.evidence.join("\n");
        assert!(evidence.contains("and 30 more") && evidence.contains("be_liberal"), "{evidence}");
        assert!(evidence.contains("asymmetric"), "{evidence}");
        for namespace in &mut facts.namespaces {
            namespace.totals = Ok(Totals::default());
        }
        assert!(ids(&facts).is_empty(), "conntrack counts none");
    }

    #[test]
    fn what_the_cloud_drops_is_not_the_tables() {
        let mut facts = facts(10);
        let of = |exceeded| Allowance {
            interface: "ens5".to_owned(),
            exceeded,
            available: Some(136_812),
        };
        facts.namespaces[0].allowances = vec![of(0)];
        assert!(ids(&facts).is_empty());
        facts.namespaces[0].allowances.push(of(1_234));
        assert_eq!(ids(&facts), ["cloud_allowance"]);
        let all = findings(&Case {
            facts: &facts,
            census: Err("no"),
            live: None,
            settings: Default::default(),
        });
        assert!(all[0].title.contains("has dropped 1,234 packets of host"), "{all:?}");
        assert!(all[0].fixes[0].now.is_empty(), "nothing to be typed here: {all:?}");
        assert_eq!(all[0].evidence.len(), 1);
    }

    #[test]
    fn a_rule_may_drop_invalid_packets_in_another_chain() {
        let ids_with = |on_invalid: Act, chains: &[(&str, &[(Act, bool)])]| {
            let mut facts = facts(10);
            let mut table = invalid_rule("-m conntrack", None);
            table.uses[0].on_invalid = Some(on_invalid);
            for (name, rules) in chains {
                for (act, asks) in *rules {
                    let conditions = if *asks { vec![Condition::Other] } else { Vec::new() };
                    let rule = Rule { number: 1, conditions, act: act.clone(), comment: None };
                    table.keep(name, rule);
                }
            }
            facts.namespaces[0].nft = Ok(vec![table]);
            facts.namespaces[0].totals = Ok(Totals { invalid: 3, ..Totals::default() });
            ids(&facts)
        };
        let to = |name: &str| Act::Jump(name.to_owned());
        // As ufw and many scripts have it: a log line, at most so many, and then DROP.
        let log: &[(Act, bool)] = &[(Act::Next, true), (Act::Drop, false)];
        assert_eq!(ids_with(to("logdrop"), &[("logdrop", log)]), ["invalid_rule"]);
        let deeper: &[(Act, bool)] = &[(to("logdrop"), false)];
        assert_eq!(ids_with(to("a"), &[("a", deeper), ("logdrop", log)]), ["invalid_rule"]);
        for lets_some_in in [
            &[(Act::Return, true), (Act::Drop, false)][..],
            &[(Act::Accept, true), (Act::Drop, false)],
            &[(Act::Drop, true)],
            &[(Act::Unknown, false), (Act::Drop, false)],
            &[(to("a"), false)],
            &[],
        ] {
            assert!(ids_with(to("a"), &[("a", lets_some_in)]).is_empty(), "{lets_some_in:?}");
        }
        assert!(ids_with(to("nowhere"), &[]).is_empty());
        let marked: &[(Act, bool)] = &[(Act::Restore, false), (Act::Drop, false)];
        assert_eq!(ids_with(to("a"), &[("a", marked)]), ["invalid_rule"]);
        // Ten ways from each chain to the next, sixteen deep: not all of them are gone.
        let names: Vec<String> = (0..17).map(|nth| nth.to_string()).collect();
        let ways: Vec<Vec<(Act, bool)>> =
            names[1..].iter().map(|next| vec![(to(next), false); 10]).collect();
        let chains: Vec<(&str, &[(Act, bool)])> =
            names.iter().zip(&ways).map(|(name, rules)| (name.as_str(), &rules[..])).collect();
        assert!(ids_with(to("0"), &chains).is_empty());
    }

    #[test]
    fn a_rule_that_decides_about_others_too_stays() {
        let mut facts = facts(10);
        facts.namespaces[0].nft = Ok(vec![invalid_rule(VMAP, None)]);
        facts.namespaces[0].totals = Ok(Totals { invalid: 3, ..Totals::default() });
        let all = findings(&Case {
            facts: &facts,
            census: Err("no"),
            live: None,
            settings: Default::default(),
        });
        let invalid = of(&all, "invalid_rule");
        assert!(invalid.fixes.is_empty(), "{invalid:?}");
        assert!(invalid.evidence.join("\n").contains("decides about other packets too"));
    }
}
