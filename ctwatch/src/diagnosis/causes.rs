//! Why a table fills, as far as its entries and the kernel's settings tell.

use ctwatch_abi::{protocol::TCP, top::By};

use super::{
    case::{Case, finding, number, percent},
    fixes, incident, owners,
    report::{Check, Finding, Fix, Severity},
    timeouts,
};
use crate::{
    model::{census::TableCensus, names::address},
    record::facts::Namespace,
};

/// From this share on it is said.
const MOST: f64 = 0.5;
/// And of a scan from this on.
const MUCH: f64 = 0.3;

struct Shares<'a> {
    table: &'a TableCensus,
    all: f64,
}

impl<'a> Shares<'a> {
    fn of(case: &Case<'a>, namespace: &Namespace) -> Option<Self> {
        let table = case.census.ok()?.counted.table(namespace.id)?;
        let all = table.holds.all() as f64;
        (all > 0.0).then_some(Self { table, all })
    }

    fn unanswered(&self) -> f64 {
        self.table.states.iter().map(|state| state.unreplied).sum::<u64>() as f64 / self.all
    }

    fn in_state(&self, protocol: u8, name: &str) -> f64 {
        let of = self.table.states.iter().filter(|state| state.protocol == protocol);
        let of = of.filter(|state| state.name() == Some(name));
        of.map(|state| state.holds.all()).sum::<u64>() as f64 / self.all
    }
}

/// The one that most entries are of, and how many at least.
fn most(case: &Case<'_>, namespace: &Namespace, by: By) -> Option<(std::net::IpAddr, u64)> {
    let counted = &case.census.ok()?.counted;
    let all = counted.table(namespace.id)?.holds.all();
    let list = counted.lists(namespace.id).find(|list| list.by == by)?;
    let first = list.entries.first()?;
    let count = first.count.saturating_sub(first.error);
    let of = if by == By::Source { first.key.src } else { first.key.dst };
    (all > 0 && count as f64 > MOST * all as f64).then(|| (address(first.key.family, &of), count))
}

/// What the entries have in common.
pub(super) fn common(case: &Case<'_>, namespace: &Namespace) -> Vec<String> {
    let Some(shares) = Shares::of(case, namespace) else { return Vec::new() };
    let mut lines = Vec::new();
    for (by, word) in [(By::Source, "come from one source"), (By::Destination, "go to one host")] {
        if let Some((host, count)) = most(case, namespace, by) {
            let share = percent(count as f64 / shares.all);
            lines.push(format!("{share} of the entries {word}: {host}, {} of them", number(count)));
        }
    }
    let unanswered = shares.unanswered();
    if unanswered > MOST {
        lines.push(format!("{} of the entries never saw a reply", percent(unanswered)));
    }
    let sent = shares.in_state(TCP, "SYN_SENT");
    if sent > MUCH {
        lines.push(format!(
            "{} are TCP in SYN_SENT: connections that nobody answers, as of a scan, a flood, or a \
             server that is gone",
            percent(sent)
        ));
    }
    lines.extend(
        shares.table.states.iter().filter_map(|state| timeouts::picked_up(namespace, state)),
    );
    lines
}

/// Lets one host that scans open no more connections than its share of the table.
pub(super) fn limit_source(case: &Case<'_>, namespace: &Namespace) -> Option<Fix> {
    let shares = Shares::of(case, namespace)?;
    let (host, _) = most(case, namespace, By::Source)?;
    let scans = shares.in_state(TCP, "SYN_SENT") > MOST;
    let tools = &case.facts.tools;
    // What this host sends itself does not pass there, and rules of an owner are not added to.
    let is_own = namespace.addresses.contains(&host);
    let is_owned = !owners::of_namespace(case.facts, namespace).is_empty();
    if !scans || is_own || is_owned || !tools.has("nft") {
        return None;
    }
    let limit = case.limit()?;
    let seconds = *namespace.timeouts.get("nf_conntrack_tcp_timeout_syn_sent")?;
    let rate = (limit / 10 / seconds.max(1)).max(1);
    let table = format!("ctwatch_limit_{}", namespace.inode);
    let family = if host.is_ipv4() { "ip" } else { "ip6" };
    let within = |command: &str| fixes::within(tools, namespace, command);
    let mut fix = fixes::fix(&format!("limit the connections that {host} opens, before conntrack"));
    fix.now.push(within(&format!(
        "nft -f - <<'END'\ntable inet {table} {{\n    chain prerouting {{\n        type filter hook \
         prerouting priority raw;\n        {family} saddr {host} tcp flags & (fin | syn | rst | ack) \
         == syn limit rate over {rate}/second counter drop\n    }}\n}}\nEND"
    ))?);
    fix.undo.push(within(&format!("nft delete table inet {table}"))?);
    fix.check = Some(Check {
        command: within(&format!("nft list table inet {table}"))?,
        prints: "the rule, with counter packets that grow".to_owned(),
    });
    fixes::arm(tools, &format!("limit-{}", namespace.inode), &mut fix);
    fix.lasts.push("until the next boot, or until its undo".to_owned());
    fix.breaks = format!(
        "connections that {host} opens beyond {rate} a second, wanted ones too; those that are open \
         go on"
    );
    fix.expect = format!(
        "its entries in SYN_SENT go within {seconds} s, and about {} ({rate} a second for {seconds} \
         s) are there at a time after that, {} of the limit",
        number(u64::from(rate) * u64::from(seconds)),
        percent(f64::from(rate) * f64::from(seconds) / f64::from(limit)),
    );
    Some(fix)
}

/// More entries than buckets are long chains: each packet walks one.
pub(super) fn few_buckets(case: &Case<'_>) -> Vec<Finding> {
    const TIMES: u64 = 8;
    let (Some(limit), Ok(buckets)) = (case.limit(), &case.facts.buckets) else {
        return Vec::new();
    };
    let (limit, buckets) = (u64::from(limit), u64::from(*buckets));
    // Strangers' are in the same chains.
    let others = case.facts.others.iter().map(|other| &other.entries);
    let all = case.facts.namespaces.iter().map(|namespace| &namespace.entries).chain(others);
    let entries = all.filter_map(|entries| entries.as_ref().ok());
    let entries: u64 = entries.map(|entries| u64::from(*entries)).sum();
    // While there are few entries, chains are short all the same.
    if buckets == 0 || limit <= TIMES * buckets || entries <= buckets {
        return Vec::new();
    }
    let title = format!(
        "there are {} buckets for up to {} entries: packets are compared with {:.0} entries on \
         average, and with {:.0} once a table is full",
        number(buckets),
        number(limit),
        2.0 * entries as f64 / buckets as f64,
        2.0 * limit as f64 / buckets as f64,
    );
    let mut found = finding("few_buckets", Severity::Info, title);
    found.evidence.push(format!(
        "{} entries now, each in two chains; a chain of more than 50 to 80 is refused (Linux 5.15 \
         and later)",
        number(entries)
    ));
    if let Some(wanted) = limit.checked_next_power_of_two() {
        let mut fix = fixes::fix("as many buckets as there may be entries");
        let change = ("nf_conntrack_buckets", wanted, buckets);
        fixes::set(case, None, "buckets", &[change], &mut fix);
        fix.breaks = format!("nothing; {} kB of memory", number(wanted / 128));
        fix.expect = "chains of two entries at most on average, also in a full table".to_owned();
        found.fixes.push(fix);
    }
    vec![found]
}

/// Packets that only pass from one port of a bridge to another are tracked as if they were routed.
pub(super) fn bridges(case: &Case<'_>) -> Vec<Finding> {
    const SYSCTL: &str = "net.bridge.bridge-nf-call-iptables";
    let short = case.facts.namespaces.iter().filter(|namespace| {
        namespace.bridges.is_some_and(|bridges| bridges > 0)
            && (case.is_filling(namespace) || incident::was_short(namespace))
    });
    let one = |namespace: &Namespace| {
        let title = format!(
            "bridged packets are tracked in {} too: {SYSCTL} is 1, with {}",
            namespace.called(),
            super::case::so_many(namespace.bridges.unwrap_or(0), "bridge", "bridges"),
        );
        let mut found = finding("bridge_tracked", Severity::Info, title).about([namespace]);
        const NEED: &str = "rules of iptables and nftables' ip and inet tables that are meant for \
                            bridged packets: those between containers or guests on one bridge \
                            (Docker, Kubernetes, libvirt, Proxmox VE's firewall), -m physdev, and \
                            service addresses that lead back to the same bridge";
        let owned = owners::of_namespace(case.facts, namespace);
        if !owned.is_empty() {
            found.evidence.push(format!(
                "not to be set to 0 without {}: it would end {NEED}",
                owners::in_words(&owned)
            ));
            return found;
        }
        let tools = &case.facts.tools;
        let set = |value: u8| match tools.has("sysctl") {
            true => fixes::within(tools, namespace, &format!("sysctl -w {SYSCTL}={value}")),
            false => None,
        };
        if let (Some(now), Some(undo)) = (set(0), set(1)) {
            let mut fix = fixes::fix("leave bridged packets to the bridge");
            fix.now.push(now);
            fix.undo.push(undo);
            fix.check = fixes::within(tools, namespace, &format!("sysctl -n {SYSCTL}"))
                .map(|command| Check { command, prints: "0".to_owned() });
            fix.lasts.push(
                "until br_netfilter is loaded again, or whoever loaded it sets it: each time that \
                 is done it is 1"
                    .to_owned(),
            );
            fix.breaks = NEED.to_owned();
            fix.expect =
                "packets that only cross a bridge make no entries any more; those that are \
                          there go as their time is over"
                    .to_owned();
            found.fixes.push(fix);
        }
        found
    };
    short.map(one).collect()
}

#[cfg(test)]
mod tests {
    use ctwatch_abi::top::Key;

    use super::{
        super::cases::{facts, found, ids, of, taken},
        *,
    };
    use crate::{
        model::census::{Census, SEED, Taken},
        record::{
            entry::{Held, Left, Status},
            facts::Facts,
        },
    };

    /// So many of a hundred are SYNs of one host that nobody answers, to a host each.
    fn scan(of_a_hundred: u16) -> Taken {
        let mut census = Census::new(&[By::Service, By::Source, By::Destination], SEED);
        for at in 0..1000_u16 {
            let mut key = Key { netns: 1, protocol: TCP, family: 2, ..Key::default() };
            let is_scan = at % 100 < of_a_hundred;
            let host = at.to_be_bytes();
            let source = if is_scan { [9, 9] } else { host };
            key.src[..4].copy_from_slice(&[10, 1, source[0], source[1]]);
            key.dst[..4].copy_from_slice(&[10, 2, host[0], host[1]]);
            let (state, status) = if is_scan { (1, 0) } else { (3, 1 << 1 | 1 << 2) };
            let (status, left) = (Status(1 << 3 | status), Left::Seconds(60));
            census.enter(&Held { key, translated: key, status, state, zone: 0, left });
        }
        taken(census)
    }

    fn machine() -> Facts {
        let mut facts = facts(1000);
        let timeout = ("nf_conntrack_tcp_timeout_syn_sent".to_owned(), 20);
        facts.namespaces[0].timeouts.extend([timeout]);
        facts
    }

    #[test]
    fn one_host_that_scans_is_named_and_limited() {
        let mut facts = machine();
        let taken = scan(90);
        let all = found(&facts, Some(&taken));
        let full = of(&all, "table_full");
        let evidence = full.evidence.join("\n");
        assert!(evidence.contains("90% of the entries come from one source: 10.1.9.9"));
        assert!(evidence.contains("90% of the entries never saw a reply"), "{evidence}");
        assert!(evidence.contains("90% are TCP in SYN_SENT"), "{evidence}");
        assert!(!evidence.contains("one host: "), "{evidence}");
        let fix = full.fixes.last().unwrap();
        assert!(fix.title.starts_with("limit the connections that 10.1.9.9 opens"), "{fix:?}");
        assert!(fix.now[0].contains("limit rate over 5/second counter drop"), "{fix:?}");
        assert!(fix.expect.contains("about 100 (5 a second for 20 s)"), "{fix:?}");
        assert!(fix.arm[0].contains("nft delete table inet ctwatch_limit_1"), "{fix:?}");
        // Not among the rules of an owner, nor for a host's own connections.
        facts.namespaces[0].addresses = vec![[10, 1, 9, 9].into()];
        let titles = |facts: &Facts| format!("{:?}", of(&found(facts, Some(&taken)), "table_full"));
        assert!(!titles(&facts).contains("limit the connections"));
        facts.namespaces[0].addresses.clear();
        facts.namespaces[0].nft.as_mut().unwrap()[0].chain("KUBE-SERVICES");
        assert!(!titles(&facts).contains("limit the connections"));
        let few = scan(20);
        let all = found(&machine(), Some(&few));
        assert!(!of(&all, "table_full").evidence.join("\n").contains("SYN_SENT"));
    }

    #[test]
    fn few_buckets_matter_once_there_are_entries() {
        let mut facts = facts(257);
        facts.limit = Ok(2049);
        assert_eq!(ids(&facts), ["few_buckets"]);
        let fix = &found(&facts, None)[0].fixes[0];
        assert!(fix.now[0].ends_with("nf_conntrack_buckets=4096"), "{fix:?}");
        facts.limit = Ok(2048);
        assert!(ids(&facts).is_empty());
        facts.limit = Ok(100_000);
        facts.namespaces[0].entries = Ok(256);
        assert!(ids(&facts).is_empty(), "chains are short");
    }

    #[test]
    fn bridged_packets_are_a_cause_where_room_is_short() {
        let mut facts = facts(800);
        facts.namespaces[0].bridges = Some(2);
        let all = found(&facts, None);
        let bridge = of(&all, "bridge_tracked");
        assert!(bridge.title.ends_with("with 2 bridges"), "{}", bridge.title);
        assert_eq!(
            bridge.fixes[0].now,
            ["sysctl -w net.bridge.bridge-nf-call-iptables=0"],
            "{bridge:?}"
        );
        assert!(bridge.fixes[0].breaks.contains("physdev"), "{bridge:?}");
        facts.namespaces[0].nft.as_mut().unwrap()[0].chain("DOCKER");
        let all = found(&facts, None);
        let bridge = of(&all, "bridge_tracked");
        assert!(bridge.fixes.is_empty() && bridge.evidence[0].contains("Docker"), "{bridge:?}");
        facts.namespaces[0].entries = Ok(10);
        assert!(ids(&facts).is_empty(), "there is room");
        facts.namespaces[0].bridges = Some(0);
        facts.namespaces[0].entries = Ok(800);
        assert_eq!(ids(&facts), ["table_filling"]);
    }
}
