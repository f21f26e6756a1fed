use std::net::IpAddr;

use super::*;
use crate::record::facts::{Base, Framework};

fn dns() -> Packets {
    Packets {
        protocol: 17,
        destination: Some(IpAddr::from([10, 96, 0, 10])),
        destination_port: Some(53),
        ..Packets::default()
    }
}

fn rule(conditions: &[Condition], act: Act) -> Rule {
    Rule { number: 1, conditions: conditions.to_vec(), act, comment: None }
}

fn established() -> Rule {
    rule(&[Condition::Tracking(Some(false))], Act::Accept)
}

fn namespace(chains: &[(&str, bool, &[Rule])]) -> Namespace {
    let mut table = RuleTable::new(Framework::Nft, "ip", "filter".to_owned());
    for (name, drops, rules) in chains {
        let chain = table.chain(name);
        chain.base =
            (*name == "forward").then(|| Base { drops: *drops, ..Base::of(false, "forward", 0) });
        chain.rules = rules.to_vec();
    }
    Namespace { nft: Ok(vec![table]), ..crate::diagnosis::cases::namespace(0) }
}

fn is_cut(chains: &[(&str, bool, &[Rule])]) -> bool {
    cut_off(&namespace(chains), &dns(), &["forward"]).is_some()
}

#[test]
fn a_policy_cuts_off_what_only_a_state_lets_in() {
    assert!(is_cut(&[("forward", true, &[established()])]));
    assert!(!is_cut(&[("forward", false, &[established()])]), "the policy is to accept");
    assert!(!is_cut(&[("forward", true, &[])]), "dropped before as well");
    let explicit = rule(&[Condition::DestinationPort(53, 53)], Act::Accept);
    assert!(!is_cut(&[("forward", true, &[established(), explicit])]), "let in explicitly");
    let other = rule(&[Condition::DestinationPort(80, 80)], Act::Accept);
    assert!(is_cut(&[("forward", true, &[established(), other])]));
    let unsure = rule(&[Condition::Other], Act::Accept);
    assert!(is_cut(&[("forward", true, &[established(), unsure])]), "perhaps let in");
}

#[test]
fn a_mark_of_the_connection_would_be_missing() {
    let restore = |asked: &[Condition]| rule(asked, Act::Restore);
    assert!(is_cut(&[("forward", false, &[restore(&[])])]));
    // nft reads the mark first, which alone needs a connection.
    assert!(is_cut(&[("forward", false, &[restore(&[Condition::Tracking(Some(false))])])]));
    assert!(is_cut(&[("forward", false, &[restore(&[Condition::Other])])]), "perhaps");
    let other = restore(&[Condition::DestinationPort(80, 80)]);
    assert!(!is_cut(&[("forward", false, &[other])]), "of other packets");
}

#[test]
fn a_rule_that_drops_cuts_off_only_after_a_state() {
    let drop = rule(&[Condition::Other], Act::Drop);
    assert!(is_cut(&[("forward", false, &[established(), drop.clone()])]));
    assert!(!is_cut(&[("forward", false, &[drop, established()])]), "it drops them today");
    let untracked = rule(&[Condition::Tracking(Some(true))], Act::Drop);
    assert!(is_cut(&[("forward", false, &[untracked])]));
    let invalid = rule(&[Condition::Tracking(Some(false))], Act::Drop);
    assert!(!is_cut(&[("forward", true, &[invalid])]));
}

#[test]
fn jumps_are_followed() {
    let jump = rule(&[], Act::Jump("own".to_owned()));
    let chains = |own: &[Rule], first: &Rule| {
        is_cut(&[("forward", true, std::slice::from_ref(first)), ("own", false, own)])
    };
    assert!(chains(&[established()], &jump));
    let explicit = rule(&[Condition::Protocol(17)], Act::Accept);
    assert!(!chains(&[established(), explicit.clone()], &jump));
    let returns = rule(&[], Act::Return);
    assert!(chains(&[established(), returns, explicit], &jump));
    let round = rule(&[], Act::Jump("own".to_owned()));
    assert!(chains(&[round], &jump), "a loop is followed to no end");
}

#[test]
fn a_map_of_states_cannot_be_told() {
    let map = rule(&[Condition::Tracking(None)], Act::Unknown);
    assert!(is_cut(&[("forward", false, &[map])]));
}

#[test]
fn who_translates_or_helps_is_named() {
    let of = |condition: Condition, act| namespace(&[("nat", false, &[rule(&[condition], act)])]);
    let udp = of(Condition::Protocol(17), Act::TranslateDestination);
    assert_eq!(translating(&udp, &dns()).unwrap(), "table ip filter, chain nat, rule 1");
    let tcp = of(Condition::Protocol(6), Act::TranslateDestination);
    assert_eq!(translating(&tcp, &dns()), None);
    let port = of(Condition::DestinationPort(80, 80), Act::TranslateDestination);
    assert!(translating(&port, &dns()).is_some(), "what it is sent to may be this");
    let source = of(Condition::DestinationPort(80, 80), Act::TranslateSource);
    assert_eq!(translating(&source, &dns()), None);
    let host = of(Condition::Destination(IpAddr::from([10, 96, 0, 0]), 12), Act::TranslateSource);
    assert!(translating(&host, &dns()).is_some());
    assert_eq!(translating_port(&host, &dns()), None);
    let helper = of(Condition::DestinationPort(53, 53), Act::Help);
    assert!(helping(&helper, &dns()).is_some());
}

#[test]
fn prefixes_hold_what_is_in_them() {
    let v4 = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(is_within(&v4("10.9.9.9"), &v4("0.0.0.0"), 0));
    assert!(is_within(&v4("10.9.9.9"), &v4("10.8.0.0"), 15));
    assert!(!is_within(&v4("10.10.9.9"), &v4("10.8.0.0"), 15));
    assert!(
        is_within(&v4("fd99::1"), &v4("::"), 0) && !is_within(&v4("fd99::1"), &v4("fd98::"), 16)
    );
}

/// As ufw does: what is not for this machine is dropped, before what is let in.
#[test]
fn what_is_for_this_machine_passes_by_its_type() {
    let local = rule(&[Condition::DestinationIsLocal], Act::Return);
    let not_local = [local, rule(&[], Act::Drop)];
    let service = rule(&[Condition::DestinationPort(53, 53)], Act::Accept);
    let to = rule(&[], Act::Jump("not-local".to_owned()));
    let first = [established(), to, service];
    let namespace = namespace(&[("forward", true, &first), ("not-local", false, &not_local)]);
    let here = Packets { are_local: true, ..dns() };
    assert_eq!(cut_off(&namespace, &here, &["forward"]), None);
    assert!(cut_off(&namespace, &dns(), &["forward"]).is_some(), "nobody knows");
}
