//! Keys and counts of all kinds.

use std::collections::{BTreeMap, BTreeSet};

use ctwatch_abi::{
    Count, HostCount, HostTally, NetnsTally,
    testing::Random,
    top::{AF_INET, AF_INET6, By, Key},
};
use serde_json::{Value, json};

use super::recorded;

/// Often zero, often small, now and then as large as can be.
fn any_number(random: &mut Random) -> u64 {
    match random.draw() % 4 {
        0 => 0,
        1 => random.draw() % 300,
        2 => random.draw(),
        _ => u64::MAX - random.draw() % 2,
    }
}

fn any_byte(random: &mut Random) -> u8 {
    random.draw().to_le_bytes()[7]
}

/// Text, bytes, or little of either.
fn any_bytes(random: &mut Random) -> [u8; 16] {
    let (kind, len) = (random.draw() % 5, usize::from(any_byte(random) % 17));
    let mut bytes = [0; 16];
    for byte in &mut bytes[..len] {
        *byte = match kind {
            0 => 0,
            1 => b'a' + any_byte(random) % 26,
            2 => any_byte(random) % 3,
            _ => any_byte(random),
        };
    }
    bytes
}

fn any_key(random: &mut Random) -> Key {
    let [family, protocol] = [any_byte(random), any_byte(random)];
    let families = [0, AF_INET, AF_INET, AF_INET6, AF_INET6, family];
    Key {
        netns: any_number(random),
        src: any_bytes(random),
        dst: any_bytes(random),
        dport: u16::from_le_bytes([any_byte(random), any_byte(random)]),
        protocol: if random.draw().is_multiple_of(2) { 0 } else { protocol },
        family: families[usize::from(any_byte(random) % 6)],
        ifindex: u32::from(any_byte(random) % 2) * u32::from(any_byte(random)),
    }
}

#[test]
fn any_key_is_read_as_it_was_written() {
    let mut random = Random(0x5eed);
    let mut seen = BTreeSet::new();
    for _ in 0..20_000 {
        let key = any_key(&mut random);
        recorded(&key);
        recorded(&key.of(By::ALL[usize::from(any_byte(&mut random)) % By::ALL.len()]));
        if let Value::Object(fields) = serde_json::to_value(key).unwrap() {
            seen.extend(fields.keys().cloned());
        }
    }
    assert_eq!(seen.len(), 9, "each field was in some key: {seen:?}");
}

#[test]
fn any_tally_is_read_as_it_was_written() {
    let mut random = Random(0x7a11);
    for _ in 0..2_000 {
        let numbers: BTreeMap<&str, u64> =
            Count::EACH.map(|count| (count.name(), any_number(&mut random))).into();
        let read: NetnsTally = serde_json::from_value(json!(numbers)).unwrap();
        for count in Count::EACH {
            assert_eq!(read.get(count), numbers[count.name()]);
        }
        recorded(&read);
        let numbers: BTreeMap<&str, u64> =
            HostCount::EACH.map(|count| (count.name(), any_number(&mut random))).into();
        let read: HostTally = serde_json::from_value(json!(numbers)).unwrap();
        for count in HostCount::EACH {
            assert_eq!(read.get(count), numbers[count.name()]);
        }
        recorded(&read);
    }
}
