//! Whether connections are tracked, and what for.

use std::collections::BTreeSet;

use super::{
    case::{Case, finding, number, so_many},
    fixes, others,
    owners::{self, Manager},
    removal::{self, Place, nft_name},
    report::{Check, File, Finding, Fix, Severity, Tracked, TrackedNetns, Tracking},
};
use crate::record::facts::{Chain, Facts, Form, Framework, Hook, Namespace, RuleTable, RuleUse};

const MODPROBE_FILE: &str = "/etc/modprobe.d/ctwatch-conntrack.conf";

/// Modules that track connections for something else than rules.
const OTHERS: [(&str, &str); 5] = [
    ("openvswitch", "Open vSwitch (its ct action)"),
    ("ip_vs", "IPVS"),
    ("act_ct", "tc (act_ct)"),
    ("nf_flow_table", "flow tables"),
    ("xt_TEE", "TEE"),
];

/// What stands between conntrack and what needs it: `nf_conntrack <- nf_nat <- iptable_nat`.
pub fn chains(facts: &Facts) -> Vec<String> {
    let Ok(modules) = &facts.modules else { return Vec::new() };
    let mut chains = Vec::new();
    let mut path = vec!["nf_conntrack".to_owned()];
    walk(modules, &mut path, &mut chains);
    chains
}

/// Sixteen are enough for any real chain; a loop among modules cannot be, but a file can say so.
fn walk(
    modules: &[crate::record::facts::LoadedModule],
    path: &mut Vec<String>,
    chains: &mut Vec<String>,
) {
    const DEEPEST: usize = 16;
    let Some(module) = path.last().and_then(|last| modules.iter().find(|m| m.name == *last)) else {
        return;
    };
    if module.users.is_empty() || path.len() >= DEEPEST {
        let held = match module.references {
            0 => "used by nothing".to_owned(),
            count => format!("held by {}", so_many(count, "user", "users")),
        };
        chains.push(format!("{} ({held})", path.join(" <- ")));
        return;
    }
    for user in &module.users {
        path.push(user.clone());
        walk(modules, path, chains);
        path.pop();
    }
}

/// A rule that needs tracking, and where it is.
struct Need<'a> {
    namespace: &'a Namespace,
    table: &'a RuleTable,
    rule: &'a RuleUse,
}

fn needs(facts: &Facts) -> Vec<Need<'_>> {
    let mut needs = Vec::new();
    for namespace in &facts.namespaces {
        for table in namespace.rule_tables() {
            let uses = table.uses.iter().filter(|rule| !rule.notrack);
            needs.extend(uses.map(|rule| Need { namespace, table, rule }));
        }
    }
    needs
}

/// What needs tracking, one line each; empty where nothing was found.
pub fn reasons(facts: &Facts) -> Vec<String> {
    // In text those of namespaces that are alike are one line.
    const MOST: usize = 200;
    let needs = needs(facts);
    let mut lines: Vec<String> = needs.iter().take(MOST).map(|need| in_words(need)).collect();
    let more: u64 = facts
        .namespaces
        .iter()
        .flat_map(Namespace::rule_tables)
        .map(|table| table.more)
        .sum::<u64>()
        + needs.len().saturating_sub(MOST) as u64;
    if more > 0 {
        lines.push(format!("and {} more rules", number(more)));
    }
    lines.extend(others(facts));
    lines
}

fn in_words(need: &Need<'_>) -> String {
    let Need { namespace, table, rule } = need;
    let tool = tool(table);
    let packets = rule.packets.map(|count| format!(", {} packets", number(count)));
    let owner = owners::of_rule(table, rule).map(|owner| format!(" (of {})", owner.name()));
    format!(
        "{}: {tool} table {} {}, chain {}, {} {}: {}{}{}",
        namespace.called(),
        table.family,
        table.name,
        rule.chain,
        if table.framework == Framework::Nft && !table.by_place { "handle" } else { "rule" },
        rule.number,
        rule.by.join(", "),
        packets.unwrap_or_default(),
        owner.unwrap_or_default(),
    )
}

fn tool(table: &RuleTable) -> &'static str {
    match (table.framework, &*table.family) {
        (Framework::Nft, _) => "nft",
        (Framework::Legacy, "ip6") => "ip6tables-legacy",
        (Framework::Legacy, _) => "iptables-legacy",
    }
}

fn others(facts: &Facts) -> Vec<String> {
    let modules = facts.modules.iter().flatten();
    let used = modules.filter(|module| module.references > 0 || module.name != "xt_TEE");
    used.filter_map(|module| {
        let (_, what) = OTHERS.iter().find(|(name, _)| *name == module.name)?;
        Some(format!("{what}: module {} is loaded", module.name))
    })
    .collect()
}

/// Whether connections are tracked, where and what for.
pub fn tracking(facts: &Facts) -> Tracking {
    let absent = facts.form == Form::Absent;
    let mut unknown = doubts(facts);
    unknown.extend(others::unread(facts));
    unknown.extend(others::unowned(facts));
    if let Err(why) = &facts.modules {
        unknown.push(format!("modules are unknown: {why}"));
    }
    let hooks: Vec<&String> =
        facts.namespaces.iter().filter_map(|n| n.hooks.as_ref().err()).collect();
    // Where there is no conntrack, nothing of it is hooked anywhere.
    if let Some(why) = hooks.first().filter(|_| !absent) {
        unknown.push(format!("where packets are hooked is unknown: {why}"));
    }
    Tracking {
        needed_by: reasons(facts),
        managed_by: owners::of_settings(facts)
            .iter()
            .map(|owned| owners::in_words(std::slice::from_ref(owned)))
            .collect(),
        unknown,
        modules: chains(facts),
        barred_by: facts.barred.iter().map(|b| format!("{}: {}", b.file, b.module)).collect(),
        namespaces: facts
            .namespaces
            .iter()
            .filter(|_| !absent)
            .map(|namespace| Tracked {
                called: namespace.called(),
                netns: TrackedNetns {
                    cookie: Some(namespace.id).filter(|id| *id != u64::from(namespace.inode)),
                    inode: namespace.inode,
                    name: namespace.name.clone(),
                    pod: namespace.workload.pod.clone(),
                    namespace: namespace.workload.namespace.clone(),
                    container: namespace.workload.container.clone(),
                },
                entries: namespace.entries.as_ref().ok().copied(),
                limit: facts.limit.as_ref().ok().copied(),
                hooked: tracks(namespace),
            })
            .collect(),
    }
}

/// Whether packets are looked up there; `None` where the kernel does not say.
fn tracks(namespace: &Namespace) -> Option<bool> {
    match (&namespace.hooks, &namespace.entries) {
        (Ok(hooks), _) => Some(hooks.iter().any(Hook::tracks)),
        // What is in the table was tracked, or somebody put it there.
        (Err(_), Ok(1..)) => Some(true),
        (Err(_), _) => None,
    }
}

/// Tables that hook NAT in and hold no rule at all: a command that lists one makes it.
pub fn empty_tables(facts: &Facts) -> Vec<(&Namespace, &RuleTable)> {
    let mut tables = Vec::new();
    for namespace in &facts.namespaces {
        for table in namespace.rule_tables() {
            let hooks_nat = match table.framework {
                Framework::Legacy => table.name == "nat",
                Framework::Nft => !table.nat_chains.is_empty(),
            };
            if hooks_nat && table.rules == 0 {
                tables.push((namespace, table));
            }
        }
    }
    tables
}

/// Why it cannot be said that nothing needs tracking.
fn doubts(facts: &Facts) -> Vec<String> {
    let mut doubts = facts.unvisited.clone();
    // Most often it is the same in all of them.
    let mut unread: Vec<(&String, &Namespace, usize)> = Vec::new();
    for namespace in &facts.namespaces {
        for why in [&namespace.nft, &namespace.legacy].into_iter().filter_map(|r| r.as_ref().err())
        {
            match unread.iter_mut().find(|(other, ..)| *other == why) {
                Some((.., count)) => *count += 1,
                None => unread.push((why, namespace, 1)),
            }
        }
    }
    doubts.extend(unread.into_iter().map(|(why, namespace, count)| {
        let more = match count {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        format!("rules of {}{more} are unknown: {why}", namespace.called())
    }));
    doubts
}

/// A table is full, and these rules are why there is one.
pub(super) fn needed(case: &Case<'_>) -> Vec<Finding> {
    const MOST: usize = 10;
    let needs = needs(case.facts);
    let full = |need: &&Need<'_>| case.is_full(need.namespace);
    let needs: Vec<&Need<'_>> = needs.iter().filter(full).collect();
    if needs.is_empty() {
        return Vec::new();
    }
    let full = case.facts.namespaces.iter().filter(|namespace| case.is_full(namespace));
    let unnamed: u64 = full.flat_map(Namespace::rule_tables).map(|table| table.more).sum();
    let title = format!(
        "{} why the connections of full tables are tracked at all",
        so_many(needs.len() as u64 + unnamed, "rule is", "rules are"),
    );
    let full = case.facts.namespaces.iter().filter(|namespace| case.is_full(namespace));
    let mut found = finding("needed_by", Severity::Info, title).about(full);
    found.evidence.extend(needs.iter().take(MOST).map(|need| in_words(need)));
    let more = (needs.len() as u64).saturating_sub(MOST as u64) + unnamed;
    if more > 0 {
        found.evidence.push(format!("and {} more", number(more)));
    }
    for namespace in case.facts.namespaces.iter().filter(|namespace| case.is_full(namespace)) {
        let of_it = needs.iter().filter(|need| need.namespace.inode == namespace.inode);
        let rules: Vec<Place<'_>> = of_it.map(|need| (need.table, need.rule)).collect();
        if rules.is_empty() {
            continue;
        }
        let title = format!("if nobody needs them in {}: remove the rules", namespace.called());
        match removal::remove(case, namespace, &rules, &title) {
            Ok(fix) => found.fixes.push(Fix {
                expect: expected(namespace),
                breaks: BREAKS.to_owned(),
                ..fix
            }),
            Err(why) => found
                .evidence
                .push(format!("{}: nothing is to be removed: {why}", namespace.called())),
        }
    }
    vec![found]
}

const BREAKS: &str = "what the rules are for: translated addresses, and all that is let in because it is \
                      established. Where a policy or a later rule drops the rest, that ends \
                      connections at once, this session's too";

fn expected(namespace: &Namespace) -> String {
    match namespace.rule_tables().map(|table| table.more).sum::<u64>() {
        0 => {
            "nothing is tracked there any more, where no other rule needs it; what is in the table \
              goes as its time is over"
                .to_owned()
        }
        more => format!("{} more rules need tracking then: look again", number(more)),
    }
}

/// Tracking is on, and nothing needs it.
pub(super) fn for_nothing(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    if facts.form == Form::Absent || !reasons(facts).is_empty() {
        return Vec::new();
    }
    let empty = empty_tables(facts);
    let tracked = facts.namespaces.iter().any(|namespace| tracks(namespace) == Some(true));
    // What a stranger tracks needs it too.
    let idle = facts.form == Form::Module && !tracked && !others::track(facts);
    if !doubts(facts).is_empty() || !(tracked || idle) {
        return Vec::new();
    }
    let full = facts.namespaces.iter().any(|namespace| case.is_full(namespace));
    // Without that, there are entries, and that is all that is known.
    let hooked = facts.namespaces.iter().any(|n| tracks(n) == Some(true) && n.hooks.is_ok());
    let (severity, title) = match (tracked, full) {
        (true, _) if !hooked && empty.is_empty() => (
            Severity::Warning,
            "there are entries, and no rule needs tracking: left from before, or put there by hand, \
             perhaps",
        ),
        (true, true) => (Severity::Critical, "connections are tracked, and no rule needs it"),
        (true, false) => (Severity::Warning, "connections are tracked, and no rule needs it"),
        (false, _) => (
            Severity::Info,
            "conntrack is loaded and nothing needs it; on this kernel it tracks nothing until a \
             rule asks for it",
        ),
    };
    let mut found = finding("tracking_for_nothing", severity, title.to_owned());
    if tracked && !hooked && facts.tools.has("conntrack") {
        found.evidence.push("conntrack -F clears them".to_owned());
    }
    for (namespace, table) in &empty {
        found.evidence.push(format!(
            "{}: {} table {} {} hooks NAT in and holds no rule: listing a table that is not there \
             makes it",
            namespace.called(),
            tool(table),
            table.family,
            table.name,
        ));
    }
    found.evidence.extend(chains(facts));
    found.evidence.extend(others::unread(facts));
    let owned = owners::of_settings(facts);
    let wanting: Vec<_> = owned.into_iter().filter(|owned| wants_modules(owned.owner)).collect();
    match wanting.as_slice() {
        [] => found.fixes.extend(remove(facts, &empty)),
        wanting => found.evidence.push(format!(
            "nothing is to be unloaded or removed: {} would miss it when it next loads its rules",
            owners::in_words(wanting)
        )),
    }
    vec![found]
}

/// Those that load what they are told to, and switches, may do without.
fn wants_modules(owner: Manager) -> bool {
    !matches!(owner, Manager::Nftables | Manager::Persistent | Manager::Sonic | Manager::Cumulus)
}

/// Unload now, and keep it from coming back.
fn remove(facts: &Facts, empty: &[(&Namespace, &RuleTable)]) -> Option<Fix> {
    let tools = &facts.tools;
    let mut fix = fixes::fix("stop tracking, and keep it from coming back");
    // Chain by chain: nft deletes none that has a rule by now, and nothing else of the table.
    for (namespace, table) in empty.iter().filter(|(_, table)| table.framework == Framework::Nft) {
        for chain in &table.nat_chains {
            let of_it = table.chains.iter().find(|other| other.name == *chain);
            let (name, chain) = (nft_name(&table.name)?, nft_name(chain)?);
            let command = format!("nft delete chain {} {name} {chain}", table.family);
            fix.now.push(fixes::within(tools, namespace, &command)?);
            let again =
                format!("nft add chain {} {name} {chain} '{}'", table.family, hooked(of_it)?);
            fix.undo.push(fixes::within(tools, namespace, &again)?);
        }
    }
    if facts.form == Form::Module {
        let modules = unloadable(facts);
        fix.now.push(format!("modprobe -r {}", modules.join(" ")));
        let again: Vec<&str> = modules.iter().rev().map(String::as_str).collect();
        fix.undo.insert(0, format!("modprobe -a {}", again.join(" ")));
        let file = bar(facts)?;
        fix.undo.insert(0, format!("rm -f {}", file.path));
        fix.files.push(file);
        fix.expect = "no connection is tracked, and no packet is refused for that; listing a NAT \
                      table says that there is none"
            .to_owned();
        fix.breaks = "NAT, stateful rules (ct state, -m conntrack) and all that wants them: tools \
                      that expect these modules print errors"
            .to_owned();
        let command = "grep -c '^nf_conntrack ' /proc/modules || true".to_owned();
        fix.check = Some(Check { command, prints: "0".to_owned() });
    } else {
        fix.expect =
            "no connection is tracked any more, once what is in the table has timed out".to_owned();
        fix.breaks =
            "nothing: no rule is in these chains, and nft deletes none that has any".to_owned();
        let (namespace, _) = empty.first()?;
        let command = fixes::within(tools, namespace, "nft list chains")?;
        let prints = "the chains that are left, none of type nat".to_owned();
        fix.check = Some(Check { command, prints });
    }
    (!fix.now.is_empty()).then_some(fix)
}

/// What makes an empty chain for NAT again.
fn hooked(chain: Option<&Chain>) -> Option<String> {
    let base = chain?.base.as_ref()?;
    let policy = if base.drops { "drop" } else { "accept" };
    let (hook, priority) = (&base.hook, base.priority);
    Some(format!("{{ type nat hook {hook} priority {priority}; policy {policy}; }}"))
}

/// Those built on conntrack, the outermost first, and itself at last.
fn unloadable(facts: &Facts) -> Vec<String> {
    let modules: &[_] = facts.modules.as_deref().unwrap_or_default();
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    outermost_first(modules, "nf_conntrack", &mut seen, &mut order);
    order
}

fn outermost_first(
    modules: &[crate::record::facts::LoadedModule],
    name: &str,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<String>,
) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    let users = modules.iter().find(|module| module.name == name).map(|module| &module.users);
    for user in users.into_iter().flatten() {
        outermost_first(modules, user, seen, order);
    }
    order.push(name.to_owned());
}

/// A file of modprobe.d for the modules that this kernel has. `blacklist` would not do: it only
/// keeps a module from being loaded by its aliases.
fn bar(facts: &Facts) -> Option<File> {
    let modules = facts.on_disk.as_ref().ok()?;
    if modules.is_empty() {
        return None;
    }
    let mut content = String::from(
        "# Written by ctwatch doctor: no connection tracking on this machine.\n\
         # Without it there is no NAT and no stateful rule.\n",
    );
    for module in modules {
        content.push_str(&format!("install {module} /bin/true\n"));
    }
    Some(File { path: MODPROBE_FILE.to_owned(), content })
}
