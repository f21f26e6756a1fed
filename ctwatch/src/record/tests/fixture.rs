//! What format 1 looked like stays readable.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::values::{Line, lines};

fn fixture() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/records/v1.ndjson");
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether all of it is there, and nothing has become something else.
fn keeps(written: &Value, of: &Value) -> bool {
    match (written, of) {
        (Value::Object(written), Value::Object(of)) => {
            of.iter().all(|(name, of)| written.get(name).is_some_and(|written| keeps(written, of)))
        }
        (Value::Array(written), Value::Array(of)) => {
            written.len() == of.len() && written.iter().zip(of).all(|(w, of)| keeps(w, of))
        }
        _ => written == of,
    }
}

#[test]
fn records_of_format_1_stay_readable() {
    let fixture = fixture();
    assert!(fixture.len() >= 10, "lines are added, and never removed");
    for of in fixture {
        let line: Line =
            serde_json::from_value(of.clone()).unwrap_or_else(|error| panic!("{error}: {of}"));
        let written = serde_json::to_value(&line).unwrap();
        assert!(keeps(&written, &of), "it was\n{of}\nand is read as\n{written}");
    }
}

/// Where each field is, and what each text is.
fn places(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            places(value, &format!("{at}.{name}"), found);
        }),
        Value::Array(all) => all.iter().for_each(|value| places(value, &format!("{at}[]"), found)),
        Value::String(text) => drop(found.insert(format!("{at}={text}"))),
        _ => drop(found.insert(at.to_owned())),
    }
}

/// A field that is added needs a line more in the fixture; those that are there stay as they are, so
/// that a field without a default makes them unreadable.
#[test]
fn all_that_is_written_is_in_the_fixture() {
    let (mut kept, mut written) = (BTreeSet::new(), BTreeSet::new());
    fixture().iter().for_each(|line| places(line, "", &mut kept));
    for line in lines() {
        places(&serde_json::to_value(line).unwrap(), "", &mut written);
    }
    let missing: Vec<_> = written.difference(&kept).collect();
    assert!(missing.is_empty(), "add lines to v1.ndjson: {missing:#?}");
}
