//! What a later version wrote.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    facts::{conditions, facts, rule_table},
    values::{Line, header, lines, sample},
    with,
};
use crate::record::{
    entry::Left,
    facts::{Act, Condition, Facts, Form, Framework},
    sample::{Access, Owner, Sample},
    session::Epoch,
};

/// Variants that hold something: of such an object the key is the variant's name.
const TAGS: [&str; 16] = [
    "ok",
    "unknown",
    "user",
    "seconds",
    "is_ipv4",
    "source_port",
    "destination_port",
    "source",
    "destination",
    "tracking",
    "jump",
    "goto",
    "prefix",
    // And maps of names that are no fields.
    "nf_conntrack_udp_timeout",
    "4026532246",
    "header",
];

/// Puts a field that nobody knows into each object, however deep; into how many.
fn add_fields(value: &mut Value) -> u32 {
    match value {
        Value::Array(all) => all.iter_mut().map(add_fields).sum(),
        Value::Object(fields) => {
            let is_tagged = fields.len() == 1 && fields.keys().all(|key| TAGS.contains(&&**key));
            // A condition of a protocol, and a key that has one and no more.
            let is_tagged = is_tagged || fields.len() == 1 && fields.contains_key("protocol");
            let mut added = fields.values_mut().map(add_fields).sum();
            if !is_tagged {
                fields.insert("of_a_later_version".to_owned(), json!({"x": [1, null, {"y": 2}]}));
                added += 1;
            }
            added
        }
        _ => 0,
    }
}

#[test]
fn fields_and_counts_of_a_later_version_are_ignored() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, least: u32) {
        let mut written = serde_json::to_value(value).unwrap();
        let added = add_fields(&mut written);
        assert!(added >= least, "{added}");
        assert_eq!(serde_json::from_value::<T>(written).unwrap(), *value);
    }
    check(&header(), 3);
    check(&Epoch { number: 1, gap: None }, 1);
    // Also a count beside those that are known, and a field of a key.
    check(&sample(), 100);
    check(&facts(), 50);
}

#[test]
fn variants_of_a_later_version_are_something_else() {
    for put in [json!("tenant"), json!({"tenant": 7})] {
        let read = with(&sample(), "/tables/0/owner", put).unwrap();
        let Owner::Unknown(why) = &read.tables[0].owner else { panic!("{read:?}") };
        assert!(why.contains("a later version"), "{why}");
        assert_eq!(read.tables[1..], sample().tables[1..]);
    }
    let read = with(&sample(), "/tables/0/access", json!("asleep")).unwrap();
    assert_eq!(read.tables[0].access, Access::Unseen);
    let mut lines = lines().into_iter();
    let Some(Line::Entry(held)) = lines.find(|line| matches!(line, Line::Entry(_))) else {
        panic!("no entry")
    };
    for put in [json!("for_ever"), json!({"until": "tomorrow"})] {
        assert_eq!(with(&held, "/left", put).unwrap().left, Left::Unknown);
    }
    let table = rule_table(Framework::Nft, "inet");
    for put in [json!("mirror"), json!({"mirror": "eth0"})] {
        let read = with(&table, "/chains/0/rules/4/act", put.clone()).unwrap();
        assert_eq!(read.chains[0].rules[4].act, Act::Unknown);
        let read = with(&table, "/chains/0/rules/4/conditions/3", put.clone()).unwrap();
        let mut expected = conditions();
        expected[3] = Condition::Other;
        assert_eq!(read.chains[0].rules[4].conditions, expected);
        let read = with(&table, "/uses/0/on_invalid", put.clone()).unwrap();
        assert_eq!(read.uses[0].on_invalid, Some(Act::Unknown));
        let read = with(&facts(), "/tools/apply", put).unwrap();
        assert_eq!(read.tools.apply, None);
    }
    let read = with(&facts(), "/tools/iptables", json!("ebpf")).unwrap();
    assert_eq!(read.tools.iptables, None);
    assert_eq!(with(&facts(), "/form", json!("embedded")).unwrap().form, Form::Loaded);
}

/// As if it were not there: another list would be told as what it is not.
#[test]
fn lists_of_a_later_version_are_left_out() {
    for (at, put) in [("/tops/0/by", "zone"), ("/tops/0/stream", "removals")] {
        let read = with(&sample(), at, json!(put)).unwrap();
        assert_eq!(read.tops, sample().tops[1..]);
    }
    assert!(with(&sample(), "/tops/0/counts/0/count", json!("many")).is_err());
}

#[test]
fn what_would_mislead_is_an_error() {
    let error = with(&header(), "/format", json!(2)).unwrap_err();
    assert!(error.contains("format 2: this ctwatch reads format 1"), "{error}");
    assert!(with(&facts(), "/limit_is", json!("perhaps")).is_err());
    assert!(with(&facts(), "/buckets_by", json!({"ok": "netlink"})).is_err());
    assert!(with(&facts(), "/namespaces/0/nft/ok/0/framework", json!("bpf")).is_err());
    // What is always written is not taken for zero, or for nothing, where it is missing.
    for (at, field) in [
        ("", "time"),
        ("", "elapsed_ns"),
        ("/tables/0", "id"),
        ("/tables/0", "owner"),
        ("/tables/0", "access"),
        ("/probed", "misses"),
        ("/tops/0/counts/0", "count"),
    ] {
        let mut written = serde_json::to_value(sample()).unwrap();
        let object = written.pointer_mut(at).and_then(Value::as_object_mut).unwrap();
        assert!(object.remove(field).is_some());
        assert!(serde_json::from_value::<Sample>(written).is_err(), "{field}");
    }
    let mut written = serde_json::to_value(facts()).unwrap();
    written.as_object_mut().unwrap().remove("limit");
    assert!(serde_json::from_value::<Facts>(written).is_err());
}
