//! What cannot be found, or ruled out, by the facts that there are; and the one command that settles it.

use super::{fixes, report::Undecided};
use crate::record::facts::{Facts, Form, Namespace, Tools};

/// What was read besides facts.
#[derive(Clone, Copy, Debug)]
pub struct Besides {
    /// Entries were listed.
    pub entries: bool,
    /// Files of settings were read.
    pub settings: bool,
    /// Bridged packets are tracked, if there are bridges, and that was read; or they are not.
    pub bridges: bool,
    /// It was listed what runs.
    pub processes: bool,
}

/// All that is undecided of a machine that is not this one.
pub fn undecided(facts: &Facts, seen: Besides) -> Vec<Undecided> {
    if facts.form == Form::Absent {
        return Vec::new();
    }
    let mut all = Vec::new();
    let mut add =
        |is_unknown: bool, findings: &[&'static str], unknown: String, command: String| {
            if is_unknown {
                all.push(Undecided { findings: findings.to_vec(), unknown, command });
            }
        };
    let sysctl = |name: &str| format!("sysctl net.netfilter.{name}");
    let host = |is_unknown: bool, findings: &[&'static str], unknown: &str, command: &str| {
        (is_unknown, findings.to_vec(), unknown.to_owned(), command.to_owned())
    };
    let full = &["table_full", "table_filling"];
    add(facts.limit.is_err(), full, "the limit".to_owned(), sysctl("nf_conntrack_max"));
    for namespace in &facts.namespaces {
        of_namespace(&facts.tools, namespace, seen, &mut add);
    }
    for (is_unknown, findings, unknown, command) in [
        host(
            facts.buckets.is_err(),
            &["few_buckets", "chain_too_long"],
            "the number of buckets",
            &sysctl("nf_conntrack_buckets"),
        ),
        host(
            facts.expect_max.is_err(),
            &["expectations_full"],
            "how many expectations there may be",
            &sysctl("nf_conntrack_expect_max"),
        ),
        host(facts.log.is_err(), &["was_full", "no_memory"], "what the kernel logged", "dmesg"),
        host(
            facts.modules.is_err(),
            &["tracking_for_nothing"],
            "which modules are built on conntrack",
            "lsmod",
        ),
        host(
            !seen.settings,
            &["lost_at_boot"],
            "what is written down for the next boot",
            "grep -r conntrack /etc/sysctl.conf /etc/sysctl.d",
        ),
        host(!seen.bridges, &["bridge_tracked"], "how many bridges there are", "ip -d link"),
        host(
            !seen.processes,
            &["needed_by", "lost_at_boot"],
            "what runs, and so who may manage rules and settings",
            "ps -e",
        ),
    ] {
        add(is_unknown, &findings, unknown, command);
    }
    all
}

fn of_namespace(
    tools: &Tools,
    namespace: &Namespace,
    seen: Besides,
    add: &mut impl FnMut(bool, &[&'static str], String, String),
) {
    let called = namespace.called();
    let typed = |command: &str| {
        fixes::within(tools, namespace, command).unwrap_or_else(|| command.to_owned())
    };
    let entries = namespace.entries.as_ref();
    add(
        entries.is_err(),
        &["table_full", "table_filling"],
        format!("how many entries {called} has"),
        typed("sysctl net.netfilter.nf_conntrack_count"),
    );
    add(
        namespace.totals.is_err(),
        &["was_full", "chain_too_long", "nat_exhausted", "lost_clashes", "invalid_rule"],
        format!("what was dropped in {called}"),
        typed("conntrack -S"),
    );
    add(
        !seen.entries && entries.map_or(true, |entries| *entries > 0),
        &["top_talkers", "timeouts"],
        format!("who holds the entries of {called}"),
        typed("conntrack -L -o extended"),
    );
    let rules = &["needed_by", "tracking_for_nothing", "invalid_rule"];
    let nft = &namespace.nft;
    add(nft.is_err(), rules, format!("all rules of {called}"), typed("nft -a list ruleset"));
    add(
        nft.is_ok() && namespace.legacy.is_err(),
        rules,
        format!("whether {called} has rules of iptables-legacy"),
        typed("iptables-legacy-save"),
    );
    add(
        namespace.timeouts.is_empty(),
        &["timeouts"],
        format!("the timeouts of {called}"),
        typed("sysctl -a"),
    );
}

#[cfg(test)]
mod tests {
    use super::{super::cases::facts, *};

    #[test]
    fn what_is_unknown_has_one_command_each() {
        let seen = Besides { entries: true, settings: true, bridges: true, processes: true };
        assert_eq!(undecided(&facts(10), seen), []);
        let mut facts = facts(10);
        facts.limit = Err("no".to_owned());
        facts.namespaces[0].totals = Err("no".to_owned());
        let commands = |facts: &Facts, seen| {
            undecided(facts, seen).into_iter().map(|one| one.command).collect::<Vec<_>>()
        };
        assert_eq!(
            commands(&facts, seen),
            ["sysctl net.netfilter.nf_conntrack_max", "conntrack -S"]
        );
        let less = Besides { entries: false, settings: true, bridges: true, processes: true };
        assert!(commands(&facts, less).contains(&"conntrack -L -o extended".to_owned()));
        facts.namespaces[0].entries = Ok(0);
        assert!(!commands(&facts, less).contains(&"conntrack -L -o extended".to_owned()));
        facts.form = Form::Absent;
        assert_eq!(undecided(&facts, less), []);
    }
}
