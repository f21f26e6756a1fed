//! Turns what was gathered into the facts that a look at the live machine would have found. What no piece says
//! is unknown.

use std::collections::BTreeMap;

use super::{
    gathered::{BundleParts, EntryList, Saved, Within},
    lists::{Chosen, choose},
    missing::{self, why},
    outcome::{Bundle, CountersAt, InBundle},
};
use crate::{
    host::kernel::settings,
    record::{
        counters::CounterSums,
        facts::{
            Apply, BucketsBy, Evidence, Facts, Form, Framework, Known, LoadedModule, Namespace,
            RuleTable, Tools, Totals, Writable,
        },
    },
};

const LIMIT: &str = "net.netfilter.nf_conntrack_max";
const COUNT: &str = "net.netfilter.nf_conntrack_count";

pub(super) fn bundle(mut gathered: BundleParts) -> Bundle {
    let within = gathered.take_within();
    let mut chosen = Vec::new();
    // A namespace of which nothing was printed is left out; the host's stays where it is the only one.
    let has_others = within.iter().any(|one| one.name.is_some() && one.has_any());
    let is_there = |one: &Within| one.has_any() || one.name.is_none() && !has_others;
    let within: Vec<Within> = within.into_iter().filter(is_there).collect();
    if within.iter().all(|one| one.name.is_some()) {
        gathered.note("nothing of the host's own network namespace is in what was read".to_owned());
    }
    for one in &within {
        let counted = one.number(COUNT).or(one.entries);
        chosen.push(choose(one.name.as_deref(), &one.lists, counted, &mut gathered));
    }
    let some_modules = gathered.modules.take();
    let modules = some_modules.clone().filter(|_| gathered.has_all_modules);
    let host = within.iter().find(|one| one.name.is_none());
    let is_whole = host.is_some_and(|host| host.sysctl_lines >= WHOLE);
    gathered.are_bridges_tracked =
        host.is_some_and(|host| host.number("net.bridge.bridge-nf-call-iptables") == Some(1));
    // A part of `lsmod` is enough to see that it is loaded.
    let is_loaded = some_modules.iter().flatten().any(|module| module.name == "nf_conntrack");
    let (form, is_form_unknown) = match is_loaded {
        true => (Form::Module, false),
        false => form_of(&within, modules.as_deref(), is_whole),
    };
    let mut next =
        within.iter().flat_map(|one| &one.lists).map(EntryList::last_netns).max().unwrap_or(0);
    let (mut namespaces, mut places) = (Vec::new(), Vec::new());
    for ((at, one), list) in (1..).zip(&within).zip(&chosen) {
        let netns = list.as_ref().and_then(|list| list.netns).unwrap_or_else(|| {
            next += 1;
            next
        });
        let namespace = namespace(at, netns, one, list.as_ref(), modules.as_deref(), &gathered);
        places.push(place(&namespace, one, list.as_ref()));
        namespaces.push(namespace);
    }
    let release = gathered.release.take();
    let limit = sysctl(&within, LIMIT).or_else(|| sysctl(&within, "net.nf_conntrack_max"));
    let buckets = sysctl(&within, "net.netfilter.nf_conntrack_buckets").or(gathered.hashsize);
    let tools = tools(&within, &gathered);
    let modules = modules.ok_or_else(|| why(None, missing::MODULES));
    let facts = Facts {
        form,
        on_disk: settings::trackers_of(Err(why(None, "cat /lib/modules/*/modules.dep")), &modules),
        modules,
        limit: limit.ok_or_else(|| why(None, missing::LIMIT)),
        buckets: buckets.ok_or_else(|| why(None, missing::BUCKETS)),
        buckets_by: buckets_by(release.as_deref()),
        release: release.unwrap_or_else(|| "of unknown release".to_owned()),
        expect_max: sysctl(&within, "net.netfilter.nf_conntrack_expect_max")
            .ok_or_else(|| why(None, missing::EXPECT_MAX)),
        memory: gathered.memory.ok_or_else(|| why(None, missing::MEMORY)),
        slab: gathered.slab.ok_or_else(|| why(None, missing::SLAB)),
        log: gathered.log.kernel.take().map(of_no_namespace).ok_or_else(|| why(None, missing::LOG)),
        settings: ordered(std::mem::take(&mut gathered.settings)),
        barred: std::mem::take(&mut gathered.barred),
        namespaces,
        others: Vec::new(),
        unowned: Vec::new(),
        tools,
        evidence: Evidence {
            files: evidence_files(&gathered),
            processes: std::mem::take(&mut gathered.processes),
            services: std::mem::take(&mut gathered.services),
            includes: Vec::new(),
        },
        limit_is: Writable::Yes,
        unvisited: Vec::new(),
    };
    finish(facts, is_form_unknown, places, chosen, gathered)
}

fn finish(
    facts: Facts,
    is_form_unknown: bool,
    mut places: Vec<InBundle>,
    chosen: Vec<Option<Chosen>>,
    mut gathered: BundleParts,
) -> Bundle {
    let (has_settings, has_processes) =
        (gathered.has_settings, gathered.pieces.contains_key(&super::kind::Printed::Processes));
    let is_collected = gathered.collected.is_some();
    let has_unknown_bridges = gathered.bridges.is_none() && gathered.are_bridges_tracked;
    // An archive of `ctwatch collect` holds the facts as they were: they replace ours.
    let (mut facts, is_form_unknown) = match gathered.collected.take() {
        Some(collected) => (*collected, false),
        None => (facts, is_form_unknown),
    };
    for place in &mut places {
        let is_it = |namespace: &&mut Namespace| match &place.name {
            Some(name) => namespace.name.as_ref() == Some(name),
            None => namespace.is_host() || namespace.is_own,
        };
        if let Some(namespace) = facts.namespaces.iter_mut().find(is_it) {
            namespace.id = place.netns;
            place.inode = namespace.inode;
        }
    }
    let notes = gathered.take_notes();
    gathered.misread.sort_by(|a, b| (&a.piece, a.line).cmp(&(&b.piece, b.line)));
    let BundleParts {
        census, most, host, time, pieces, unknown_pieces, misread, more_misread, ..
    } = gathered;
    let kept: Vec<_> = chosen.iter().flatten().filter_map(|list| list.netns).collect();
    let mut census = census.finish(most);
    census.tables.retain(|table| kept.contains(&table.netns));
    Bundle {
        facts,
        is_form_unknown,
        has_entries: chosen.iter().flatten().any(Chosen::says_any),
        has_settings: has_settings || is_collected,
        has_unknown_bridges: has_unknown_bridges && !is_collected,
        has_processes: has_processes || is_collected,
        census,
        places,
        host,
        time,
        pieces,
        unknown_pieces,
        misread,
        more_misread,
        notes,
    }
}

/// With at least this many lines `sysctl -a` lists all that the kernel has.
const WHOLE: u64 = 200;

impl Within {
    fn has_any(&self) -> bool {
        !self.sysctls.is_empty()
            || !self.lists.is_empty()
            || !self.counters.is_empty()
            || self.nft.is_some()
            || !self.saved.is_empty()
            || !self.listed.is_empty()
            || self.expectations.is_some()
            || self.entries.is_some()
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.sysctls.get(name)?.parse().ok()
    }
}

/// A sysctl whose value is the same in all namespaces.
fn sysctl(within: &[Within], name: &str) -> Option<u32> {
    within.iter().find_map(|one| one.number(name))
}

/// Whether conntrack is a module, built in or absent; and whether that is a guess.
fn form_of(within: &[Within], modules: Option<&[LoadedModule]>, is_whole: bool) -> (Form, bool) {
    let has_module = |modules: &[LoadedModule]| modules.iter().any(|m| m.name == "nf_conntrack");
    let is_seen = within.iter().any(|one| {
        one.sysctls.keys().any(|name| name.contains("nf_conntrack"))
            || one.lists.iter().any(|list| list.entries() > 0)
            || !one.counters.is_empty()
    });
    match (modules, is_seen) {
        (Some(modules), _) if has_module(modules) => (Form::Module, false),
        (Some(_), true) => (Form::BuiltIn, false),
        // If it were built in, its sysctls would be listed.
        (Some(_), false) if is_whole => (Form::Absent, false),
        (None, true) => (Form::Loaded, false),
        (None, false) if is_whole => (Form::Absent, false),
        _ => (Form::Loaded, true),
    }
}

/// The release decides, because no piece tells the mode of the file: before Linux 4.8 the sysctl of the buckets
/// is read-only.
fn buckets_by(release: Option<&str>) -> Known<BucketsBy> {
    let unknown = || why(None, "uname -a");
    let mut numbers = release.ok_or_else(unknown)?.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (4, 8) => Ok(BucketsBy::Sysctl),
        (Some(Ok(_)), Some(Ok(_))) => Ok(BucketsBy::Hashsize),
        _ => Err(unknown()),
    }
}

/// The log names namespaces by inode, and no piece tells inodes: a line may be about any namespace.
fn of_no_namespace(mut log: crate::record::facts::KernelLog) -> crate::record::facts::KernelLog {
    let mut all = log.full_in.remove(&0).unwrap_or_default();
    for full in std::mem::take(&mut log.full_in).into_values() {
        all.lines += full.lines;
        all.last = all.last.max(full.last);
    }
    if all.lines > 0 {
        log.full_in.insert(0, all);
    }
    log
}

/// Sorted as the system applies them: by the names of the files, whatever their folder.
fn ordered(mut settings: Vec<crate::record::facts::Setting>) -> Vec<crate::record::facts::Setting> {
    let key = |file: &str| {
        let name = file.rsplit('/').next().unwrap_or_default().to_owned();
        (file.ends_with("/sysctl.conf"), name)
    };
    settings.sort_by_key(|setting| key(&setting.file));
    settings
}

fn evidence_files(gathered: &BundleParts) -> Vec<String> {
    let mut files = gathered.files.clone();
    // Every distribution reads it. Without it, no fix could be made to last.
    if !files.iter().any(|file| file == "/etc/sysctl.d") {
        files.push("/etc/sysctl.d".to_owned());
    }
    files
}

/// Programs of that machine: those that every machine has, and those that printed a piece.
fn tools(within: &[Within], gathered: &BundleParts) -> Tools {
    let mut there = vec!["sysctl", "ip", "nsenter", "awk", "sed"];
    let has_nft = within.iter().any(|one| one.nft.is_some());
    let saved = || within.iter().flat_map(|one| one.saved.iter().chain(&one.listed));
    let backend = saved().find_map(|saved| saved.backend);
    if has_nft || saved().next().is_none() {
        there.push("nft");
    }
    if saved().next().is_some() {
        there.extend(["iptables", "iptables-save", "iptables-restore"]);
        there.extend(["ip6tables", "ip6tables-save", "ip6tables-restore"]);
    }
    if within.iter().any(|one| !one.lists.is_empty() || !one.counters.is_empty()) {
        there.push("conntrack");
    }
    Tools {
        there: there.into_iter().map(str::to_owned).collect(),
        iptables: backend,
        systemd: false,
        udev: gathered.has_systemd,
        apply: Some(match gathered.has_systemd {
            true => Apply::Prefix(
                "/usr/lib/systemd/systemd-sysctl --prefix=/net/netfilter --prefix=/net/nf_conntrack_max"
                    .to_owned(),
            ),
            false => Apply::File("/sbin/sysctl".to_owned()),
        }),
        home: "/root".to_owned(),
        run: "/run".to_owned(),
        // Makes the names of files that a fix saves unique.
        stamp: gathered.log.now.map_or_else(
            || "offline".to_owned(),
            |now| now.strftime("%Y%m%dT%H%M%SZ").to_string(),
        ),
    }
}

fn namespace(
    number: u32,
    netns: ctwatch_abi::NetnsId,
    one: &Within,
    list: Option<&Chosen>,
    modules: Option<&[LoadedModule]>,
    gathered: &BundleParts,
) -> Namespace {
    let name = one.name.as_deref();
    let listed = list.filter(|list| !list.is_part && list.says_any());
    let listed = listed.map(|list| list.entries.max(list.said.unwrap_or(0)));
    let listed = listed.and_then(|listed| u32::try_from(listed).ok());
    let entries = one.number(COUNT).or(one.entries).or(listed);
    let (nft, legacy) = rules(one, modules);
    Namespace {
        id: netns,
        inode: number,
        name: Some(name.unwrap_or("host").to_owned()),
        workload: Default::default(),
        is_own: name.is_none(),
        by_ip: name.is_some(),
        pid: None,
        mount: None,
        addresses: Vec::new(),
        allowances: one.allowances.clone(),
        entries: entries.ok_or_else(|| why(name, missing::ENTRIES)),
        totals: totals(one).ok_or_else(|| why(name, missing::COUNTERS)),
        expectations: one.expectations.ok_or_else(|| why(name, missing::EXPECTATIONS)),
        timeouts: timeouts(one),
        hooks: one.hooks.clone().ok_or_else(|| why(name, missing::HOOKS)),
        bridges: gathered
            .bridges
            .filter(|bridges| *bridges > 0)
            .filter(|_| name.is_none() && gathered.are_bridges_tracked),
        nft,
        legacy,
    }
}

fn timeouts(one: &Within) -> BTreeMap<String, u32> {
    let name = |name: &str| name.strip_prefix("net.netfilter.").map(str::to_owned);
    let timeouts = one.sysctls.iter().filter(|(name, _)| name.contains("_timeout"));
    timeouts.filter_map(|(full, value)| Some((name(full)?, value.parse().ok()?))).collect()
}

/// Of several readings, the one with the highest counters is the last.
fn totals(one: &Within) -> Option<Totals> {
    let all = one.counters.iter().map(|(_, cpus)| CounterSums::of(cpus));
    let sums = all.max_by_key(|sums| {
        (sums.invalid + sums.drop + sums.early_drop + sums.insert_failed, sums.search_restart)
    })?;
    let CounterSums {
        invalid, insert_failed, drop, early_drop, clash_resolve, chaintoolong, ..
    } = sums;
    Some(Totals { invalid, insert_failed, drop, early_drop, clash_resolve, chaintoolong })
}

/// Rules of nftables, and of iptables-legacy. If some are unknown, one of the two says so, and the other holds
/// all that are known.
fn rules(
    one: &Within,
    modules: Option<&[LoadedModule]>,
) -> (Known<Vec<RuleTable>>, Known<Vec<RuleTable>>) {
    let name = one.name.as_deref();
    let is_loaded =
        |wanted: &str| modules.map(|all| all.iter().any(|module| module.name == wanted));
    // A kernel that has nf_tables as a module has ip_tables as a module too, not built in.
    let no_legacy = is_loaded("nf_tables") == Some(true)
        && is_loaded("ip_tables") == Some(false)
        && is_loaded("ip6_tables") == Some(false);
    let mut nft = one.nft.clone();
    let mut legacy = Vec::new();
    let saved = one.saved.iter().chain(
        one.listed
            .iter()
            .filter(|listed| one.saved.iter().all(|saved| place_of(saved) != place_of(listed))),
    );
    for saved in saved {
        let table = &saved.table;
        let of_nft = nft.as_ref().and_then(|tables| {
            tables.iter().position(|t| (&t.family, &t.name) == (&table.family, &table.name))
        });
        let prefix = if table.family == "ip6" { "ip6table" } else { "iptable" };
        let by_module = is_loaded(&format!("{prefix}_{}", table.name));
        let backend = saved.backend.unwrap_or(match (of_nft, by_module) {
            (_, Some(true)) | (None, None) => Framework::Legacy,
            (Some(_), _) => Framework::Nft,
            (None, Some(false)) => Framework::Nft,
        });
        match (backend, of_nft, &mut nft) {
            (Framework::Nft, Some(at), Some(tables)) => {
                if let Some(merged) = merged(&tables[at], table) {
                    tables[at] = merged;
                }
            }
            _ => {
                let mut table = table.clone();
                table.framework = backend;
                table.by_place = backend == Framework::Nft;
                legacy.push(table);
            }
        }
    }
    let is_legacy_whole = no_legacy
        || one.whole.contains(&Framework::Legacy)
        || legacy.iter().any(|table| table.framework == Framework::Legacy);
    match (nft, is_legacy_whole) {
        (Some(tables), true) => (Ok(tables), Ok(legacy)),
        (Some(mut tables), false) => {
            tables.extend(legacy);
            (Ok(tables), Err(why(name, missing::LEGACY)))
        }
        // nft may have made tables that iptables-save does not show.
        (None, _) => (Err(why(name, missing::NFT)), Ok(legacy)),
    }
}

fn place_of(saved: &Saved) -> (&str, &str) {
    (&saved.table.family, &saved.table.name)
}

/// One table as both tools print it: iptables tells more of its matches, nft tells the handles.
fn merged(of_nft: &RuleTable, of_iptables: &RuleTable) -> Option<RuleTable> {
    let mut merged = of_iptables.clone();
    (merged.framework, merged.by_place) = (Framework::Nft, false);
    merged.nat_chains.clone_from(&of_nft.nat_chains);
    for chain in &mut merged.chains {
        let other = of_nft.chains.iter().find(|other| other.name == chain.name)?;
        if other.rules.len() != chain.rules.len() {
            return None;
        }
        for (rule, known) in chain.rules.iter_mut().zip(&other.rules) {
            let uses = merged.uses.iter_mut();
            for found in
                uses.filter(|found| found.chain == chain.name && found.number == rule.number)
            {
                found.number = known.number;
                let its = of_nft
                    .uses
                    .iter()
                    .find(|other| other.chain == chain.name && other.number == known.number);
                found.packets = found.packets.or(its.and_then(|its| its.packets));
            }
            rule.number = known.number;
        }
    }
    Some(merged)
}

fn place(namespace: &Namespace, one: &Within, list: Option<&Chosen>) -> InBundle {
    InBundle {
        netns: namespace.id,
        inode: namespace.inode,
        name: one.name.clone(),
        kernel: one.number(COUNT).or(one.entries),
        unlisted: list.and_then(|list| list.unlisted.clone()),
        counters: one
            .counters
            .iter()
            .map(|(piece, cpus)| CountersAt { piece: piece.clone(), sums: CounterSums::of(cpus) })
            .collect(),
    }
}
