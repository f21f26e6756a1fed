//! Dumps in the forms of ten years of tools and kernels (tests/fixtures/dumps): each is read whole, and what
//! is damaged in it loses no other line.

use std::{fs, path::PathBuf};

use crate::{
    bundle::{Bundle, Reader},
    diagnosis::{
        Case, findings,
        undecided::{Besides, undecided},
    },
    record::facts::{Act, Form, Namespace, RuleTable},
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/dumps")
}

fn read(pieces: &[(&str, &str)]) -> Bundle {
    let mut reader = Reader::new().read_at("2026-11-26T12:00:00Z".parse().unwrap());
    for (name, text) in pieces {
        reader.piece(name, &mut text.as_bytes()).unwrap();
    }
    reader.finish()
}

fn dump(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

fn of(name: &str) -> Bundle {
    read(&[(name, &dump(name))])
}

fn all() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "README.md").collect();
    names.sort();
    names
}

fn host(bundle: &Bundle) -> &Namespace {
    &bundle.facts.namespaces[0]
}

#[test]
fn each_dump_is_read_whole() {
    let names = all();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let bundle = of(&name);
        assert_eq!((&bundle.misread[..], bundle.unknown_pieces), (&[][..], 0), "{name}");
        assert!(!bundle.pieces.is_empty(), "{name}");
    }
}

#[test]
fn lists_of_all_versions_are_counted() {
    for (name, entries, unreplied, offloaded) in [
        ("01-ip_conntrack-4.4.txt", 6, 1, 0),
        ("02-nf_conntrack-4.14.txt", 6, 4, 0),
        ("08-conntrack-L-1.4.3.txt", 6, 2, 0),
        ("09-conntrack-L-extended-1.4.4.txt", 4, 1, 0),
        ("10-conntrack-L-id-1.4.5.txt", 2, 1, 0),
        ("11-conntrack-L-timestamp-zones-1.4.6.txt", 2, 1, 0),
        ("12-conntrack-L-offload-1.4.7.txt", 3, 0, 2),
        ("13-nf_conntrack-6.12.txt", 4, 2, 1),
        ("29-techsupport.txt", 2, 1, 0),
        ("30-conntrack-L-xml-1.4.7.txt", 4, 3, 0),
        ("31-conntrack-L-save-1.4.7.txt", 4, 3, 0),
    ] {
        let bundle = of(name);
        let table = bundle.census.table(host(&bundle).id).unwrap();
        let without: u64 = table.states.iter().map(|state| state.unreplied).sum();
        let found = (table.holds.all(), without, table.holds.offloaded);
        assert_eq!(found, (entries, unreplied, offloaded), "{name}");
        assert_eq!(bundle.places[0].unlisted, None, "{name}");
    }
    let zones = of("11-conntrack-L-timestamp-zones-1.4.6.txt");
    let zones = &zones.census.table(host(&zones).id).unwrap().zones;
    assert_eq!(zones.iter().map(|(_, count)| count).sum::<u64>(), 2, "{zones:?}");
}

#[test]
fn counters_of_all_versions_are_summed() {
    for (name, invalid, insert_failed, drop, early_drop, chaintoolong) in [
        ("03-stat-4.19.txt", 0, 0, 169, 55, None),
        ("14-conntrack-S-1.4.3.txt", 100, 2, 40, 20, None),
        ("15-conntrack-S-1.4.6.txt", 7503, 5, 5, 0, None),
        ("16-conntrack-S-1.4.8.txt", 3, 7, 403, 83, Some(1)),
        ("17-stat-6.18.txt", 6, 5, 1784, 6, Some(4)),
    ] {
        let bundle = of(name);
        let totals = host(&bundle).totals.clone().unwrap();
        assert_eq!(
            (totals.invalid, totals.insert_failed, totals.drop, totals.early_drop),
            (invalid, insert_failed, drop, early_drop),
            "{name}"
        );
        assert_eq!(totals.chaintoolong, chaintoolong, "{name}");
    }
    assert_eq!(host(&of("17-stat-6.18.txt")).entries, Ok(200));
}

#[test]
fn rules_of_all_forms_are_the_same_rules() {
    let table = |tables: &[RuleTable], name: &str| {
        tables.iter().find(|table| table.name == name).cloned().unwrap()
    };
    let saved = of("20-iptables-save-1.6.txt");
    let legacy = host(&saved).legacy.clone().unwrap();
    let listed = of("21-iptables-nvL-nat-1.8.txt");
    let as_list = host(&listed).legacy.clone().unwrap();
    let (saved, listed) = (table(&legacy, "nat"), table(&as_list, "nat"));
    let asked = |table: &RuleTable| {
        let chains = table.chains.iter().filter(|chain| !chain.rules.is_empty());
        chains
            .map(|chain| {
                let rules =
                    chain.rules.iter().map(|rule| (rule.conditions.clone(), rule.act.clone()));
                (chain.name.clone(), rules.collect::<Vec<_>>())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(asked(&saved), asked(&listed));
    let filter = table(&legacy, "filter");
    let invalid = filter.uses.iter().find(|rule| rule.on_invalid.is_some()).unwrap();
    assert_eq!((&invalid.on_invalid, invalid.packets), (&Some(Act::Drop), Some(7)));
    let by: Vec<&str> = filter.uses.iter().map(|rule| rule.by[0].as_str()).collect();
    assert_eq!(by, ["-m conntrack", "-m conntrack", "-m connlimit"]);
    assert!(filter.chains.iter().any(|chain| chain.base.as_ref().is_some_and(|b| b.drops)));
}

#[test]
fn nft_as_text_and_json_is_the_same() {
    let old = of("22-nft-0.9.txt");
    let old = host(&old).nft.clone().unwrap();
    assert!(old[0].by_place && old[0].uses.len() == 2, "{old:?}");
    // Without its handle no rule is to be taken away: another one would be.
    let bundle = of("22-nft-0.9.txt");
    let case = Case {
        facts: &bundle.facts,
        census: Err("not listed"),
        live: None,
        settings: Default::default(),
    };
    let found = findings(&case);
    assert!(found.iter().all(|one| one.fixes.is_empty()), "{found:?}");
    assert_eq!(old[0].uses[1].on_invalid, Some(Act::Drop));
    assert_eq!(old[1].uses[0].by, ["nat"]);
    let new = of("23-nft-a-1.0.txt");
    let new = host(&new).nft.clone().unwrap();
    let [nat, fw] = new.as_slice() else { panic!("{new:?}") };
    let by: Vec<&str> = nat.uses.iter().flat_map(|rule| &rule.by).map(String::as_str).collect();
    assert_eq!(by, ["-j DNAT", "masquerade"]);
    let found: Vec<(u64, &str)> =
        fw.uses.iter().map(|rule| (rule.number, rule.by[0].as_str())).collect();
    let expected = [
        (10, "ct state vmap"),
        (12, "flow_offload"),
        (13, "ct helper"),
        (14, "connlimit"),
        (16, "ct"),
        (18, "notrack"),
    ];
    assert_eq!(found, expected);
    assert_eq!((fw.rules, fw.by_place), (11, false));
    let forward = &fw.chains[0];
    assert_eq!((forward.base.as_ref().unwrap().priority, forward.rules.len()), (10, 8));
    assert_eq!(forward.rules[5].comment.as_deref(), Some("services"));
    assert_eq!(forward.rules[6].act, Act::Restore);
    let json = of("24-nft-j-1.0.json");
    let json = &host(&json).nft.clone().unwrap()[0];
    let found: Vec<(u64, &str)> =
        json.uses.iter().map(|rule| (rule.number, rule.by[0].as_str())).collect();
    assert_eq!(found, [(10, "ct state vmap"), (11, "ct state"), (12, "notrack"), (13, "ct")]);
    assert_eq!((json.uses[0].on_invalid.clone(), json.uses[1].packets), (Some(Act::Drop), Some(3)));
    assert_eq!(json.chains[1].rules[0].act, Act::Restore);
}

#[test]
fn what_else_is_printed_says_what_it_says() {
    let sysctl = of("04-sysctl-4.19.txt");
    assert_eq!((sysctl.facts.limit.clone(), host(&sysctl).entries.clone()), (Ok(200), Ok(199)));
    assert_eq!(host(&sysctl).timeouts.get("nf_conntrack_udp_timeout"), Some(&40));
    assert_eq!(of("05-slabinfo-4.14.txt").facts.slab.unwrap().size, 224);
    assert_eq!(of("06-dmesg-4.14.txt").facts.log.unwrap().table_full, 10);
    let modules = of("18-lsmod.txt").facts;
    assert_eq!(modules.form, Form::Module);
    assert_eq!(modules.modules.unwrap()[3].users, ["nf_nat", "xt_MASQUERADE"]);
    assert_eq!(of("19-proc-modules-4.1.txt").facts.modules.unwrap().len(), 4);
    let log = of("25-dmesg-T.txt").facts.log.unwrap();
    assert_eq!((log.table_full, log.suppressed, log.is_untimed), (2, 8312, false));
    let log = of("26-journal-short.txt").facts.log.unwrap();
    assert_eq!((log.table_full, log.expectations_full.lines), (1, 1));
    let adapter = of("27-ethtool-S-ena.txt");
    assert_eq!(host(&adapter).allowances[0].exceeded, 7);
    let terminal = of("28-ipset-and-ss.txt");
    assert_eq!(host(&terminal).entries, Ok(12));
    let switch = of("29-techsupport.txt");
    assert_eq!(switch.host.as_deref(), Some("sonic"));
    assert_eq!(
        (&*switch.facts.release, host(&switch).entries.clone()),
        ("5.10.0-18-2-amd64", Ok(2))
    );
}

/// Any line of any dump may be damaged: the others say what they said.
#[test]
fn damage_stays_in_its_line() {
    for name in all().iter().filter(|name| name.contains("onntrack")) {
        let text = dump(name);
        let lines: Vec<&str> = text.lines().collect();
        let whole = of(name).census.holds().all();
        for at in 0..lines.len() {
            let mut damaged = lines.clone();
            let cut = &lines[at][..lines[at].len() / 2];
            damaged[at] = cut;
            let bundle = read(&[(name, &(damaged.join("\n") + "\n"))]);
            let counted = bundle.census.holds().all();
            assert!(counted + 1 >= whole && counted <= whole, "{name} {at}: {counted} of {whole}");
            assert!(bundle.misread.len() <= 1, "{name} {at}: {:?}", bundle.misread);
        }
    }
}

#[test]
fn whatever_is_missing_no_finding_is_made_up() {
    for name in all() {
        let bundle = of(&name);
        let case = Case {
            facts: &bundle.facts,
            census: Err("not listed"),
            live: None,
            settings: Default::default(),
        };
        for found in findings(&case) {
            // What one dump says by itself.
            let said: &[&str] = match &name[..2] {
                "03" | "04" | "14" | "15" | "16" | "17" => {
                    &["was_full", "table_full", "chain_too_long"]
                }
                "20" | "22" | "23" | "24" => &["invalid_rule"],
                "26" => &["expectations_full"],
                "27" => &["cloud_allowance"],
                _ => &[],
            };
            assert!(found.id == "unknown" || said.contains(&found.id), "{name}: {found:?}");
        }
    }
}

/// What a report asks for, pasted behind its command, is of a kind that is read.
#[test]
fn each_command_that_settles_something_is_read() {
    let bundle = read(&[("x", "net.netfilter.nf_conntrack_count = 9\n")]);
    let nothing = Besides { entries: false, settings: false, bridges: false, processes: false };
    let mut all = undecided(&bundle.facts, nothing);
    all.extend(undecided(&of("22-nft-0.9.txt").facts, nothing));
    assert!(all.len() > 10, "{all:?}");
    for one in all {
        let bundle = read(&[("paste", &format!("root@box:~# {}\n", one.command))]);
        assert_eq!(bundle.pieces.len(), 1, "{one:?}");
    }
}
