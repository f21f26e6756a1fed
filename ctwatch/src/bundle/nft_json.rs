//! `nft -j list ruleset`: one value of many megabytes; one element at a time is in memory.
//! <https://manpages.debian.org/bookworm/libnftables1/libnftables-json.5.en.html>

use std::{
    cell::Cell,
    fmt,
    io::{self, BufRead, Read},
    rc::Rc,
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::nft_rule::{NftRule, field, hook, table_of};
use crate::record::facts::{Act, RuleTable};

/// Bytes at most: of all, and of one element.
const MOST: u64 = 256 << 20;
const MOST_OF_ONE: u64 = 8 << 20;

/// Reads all tables, or says why it cannot.
pub(super) fn read(text: &mut dyn BufRead) -> Result<Vec<RuleTable>, &'static str> {
    let left = Rc::new(Cell::new(MOST_OF_ONE));
    let reader = Metered { text: text.take(MOST), left: Rc::clone(&left) };
    let mut tables = Vec::new();
    let mut json = serde_json::Deserializer::from_reader(reader);
    let outcome = (&mut json).deserialize_map(Ruleset { tables: &mut tables, left: &left });
    match outcome {
        Ok(()) => Ok(tables),
        Err(_) if left.get() == 0 => Err("one element of it has more than 8 MB"),
        Err(_) => Err("it is no ruleset of nft in JSON, or it is cut off"),
    }
}

/// A reader that fails where one element is too large.
struct Metered<R> {
    text: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other("too large"));
        }
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.text.read(&mut buffer[..most])?;
        self.left.set(self.left.get().saturating_sub(read as u64));
        Ok(read)
    }
}

struct Ruleset<'a> {
    tables: &'a mut Vec<RuleTable>,
    left: &'a Cell<u64>,
}

impl<'de> Visitor<'de> for Ruleset<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a ruleset of nft")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "nftables" => {
                    map.next_value_seed(Elements { tables: &mut *self.tables, left: self.left })?;
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

struct Elements<'a> {
    tables: &'a mut Vec<RuleTable>,
    left: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("elements of a ruleset")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<Element>()? {
            self.left.set(MOST_OF_ONE);
            element.into_tables(self.tables);
        }
        Ok(())
    }
}

/// An element of the ruleset; others are passed over.
#[derive(Deserialize)]
struct Element {
    table: Option<NftTable>,
    chain: Option<NftChain>,
    rule: Option<WrittenRule>,
}

#[derive(Deserialize)]
struct NftTable {
    family: String,
    name: String,
}

#[derive(Deserialize)]
struct NftChain {
    family: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    prio: Option<i32>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct WrittenRule {
    family: String,
    table: String,
    chain: String,
    handle: Option<u64>,
    comment: Option<String>,
    #[serde(default)]
    expr: Vec<Value>,
}

impl Element {
    fn into_tables(self, tables: &mut Vec<RuleTable>) {
        if let Some(NftTable { family, name }) = self.table {
            table_of(tables, &family, &name);
        }
        if let Some(chain) = self.chain
            && let Some(table) = table_of(tables, &chain.family, &chain.table)
        {
            table.chain(&chain.name);
            if let (Some(kind), Some(at), Some(priority)) = (chain.kind, chain.hook, chain.prio) {
                let drops = chain.policy.as_deref() == Some("drop");
                hook(table, &chain.name, (&kind, &at, priority), drops);
            }
        }
        if let Some(WrittenRule { family, table, chain, handle, comment, expr }) = self.rule
            && let Some(table) = table_of(tables, &family, &table)
        {
            let is_both = !matches!(family.as_str(), "ip" | "ip6");
            let mut rule = NftRule::new(handle);
            rule.comment = comment;
            expr.iter().for_each(|one| statement(&mut rule, one, is_both));
            rule.keep(table, &chain);
        }
    }
}

fn statement(rule: &mut NftRule, of: &Value, is_both: bool) {
    let Some((name, value)) = of.as_object().and_then(|of| of.iter().next()) else { return };
    match name.as_str() {
        "match" => matched(rule, value, is_both),
        "counter" => rule.counted(value["packets"].as_u64()),
        "jump" | "goto" => {
            let chain = value["target"].as_str().unwrap_or_default().to_owned();
            rule.act = if name == "jump" { Act::Jump(chain) } else { Act::Goto(chain) };
        }
        "vmap" if is_state(&value["key"]) => match value["data"]["set"].as_array() {
            Some(set) => {
                let elements: Vec<_> = set.iter().map(element).collect();
                rule.state_map(&elements);
            }
            None => rule.state_elsewhere(true),
        },
        "vmap" => {
            if value["key"].get("ct").is_some() {
                rule.connection();
            } else {
                rule.ask(crate::record::facts::Condition::Other);
            }
            rule.act = Act::Unknown;
        }
        "mangle" => {
            let is_mark = value["key"]["meta"]["key"] == "mark";
            if value["key"].get("ct").is_some() {
                rule.set_connection();
            } else if is_mark && holds_mark(&value["value"], 8) {
                rule.restore();
            }
        }
        "ct helper" => rule.object("helper"),
        "ct timeout" => rule.object("timeout"),
        "ct expectation" => rule.object("expectation"),
        "ct count" => rule.count(),
        "xt" => {
            let name = value["name"].as_str().unwrap_or_default();
            rule.extension(value["type"] == "target", name);
        }
        other => _ = rule.statement(other),
    }
}

fn is_state(of: &Value) -> bool {
    of["ct"]["key"] == "state"
}

/// The mark of the connection, perhaps masked.
fn holds_mark(of: &Value, depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    of["ct"]["key"] == "mark"
        || ["&", "|", "^"].iter().any(|sign| {
            of[sign].as_array().is_some_and(|all| all.iter().any(|one| holds_mark(one, depth)))
        })
}

fn element(of: &Value) -> (String, Act) {
    let state = of[0].as_str().unwrap_or("*").to_owned();
    let act = match of[1].as_object().and_then(|act| act.iter().next()) {
        None => Act::Unknown,
        Some((name, value)) => {
            let chain = || value["target"].as_str().unwrap_or_default().to_owned();
            match name.as_str() {
                "accept" => Act::Accept,
                "drop" => Act::Drop,
                "return" => Act::Return,
                "continue" => Act::Next,
                "jump" => Act::Jump(chain()),
                "goto" => Act::Goto(chain()),
                _ => Act::Unknown,
            }
        }
    };
    (state, act)
}

fn matched(rule: &mut NftRule, of: &Value, is_both: bool) {
    let (left, right) = (&of["left"], &of["right"]);
    let is_inverted = of["op"] == "!=";
    if is_state(left) {
        let words = |all: &[Value]| {
            all.iter().map(|one| one.as_str().unwrap_or("*").to_owned()).collect::<Vec<_>>()
        };
        return match (right, right["set"].as_array()) {
            (_, Some(set)) => {
                rule.state_set(words(set).iter().map(String::as_str), is_inverted);
            }
            (Value::Array(all), _) => rule.state(&words(all).join(","), is_inverted),
            (Value::String(name), _) if name.starts_with('@') => rule.state_elsewhere(false),
            (Value::String(one), _) => rule.state(one, is_inverted),
            _ => rule.state("*", is_inverted),
        };
    }
    if left.get("ct").is_some() {
        return rule.connection();
    }
    let payload = &left["payload"];
    let place = match (payload["protocol"].as_str(), payload["field"].as_str()) {
        (Some(protocol), Some(name)) => Some((protocol, name)),
        _ => left["meta"]["key"].as_str().map(|key| ("meta", key)),
    };
    let text = match right {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Object(_) => match (&right["prefix"], right["range"].as_array()) {
            (prefix, _) if prefix.is_object() => {
                let addr = prefix["addr"].as_str().unwrap_or_default();
                prefix["len"].as_u64().map(|len| format!("{addr}/{len}"))
            }
            (_, Some(range)) => {
                Some(range.iter().map(Value::to_string).collect::<Vec<_>>().join("-"))
            }
            _ => None,
        },
        _ => None,
    };
    match place {
        Some(place) => field(rule, is_both, place, text.as_deref().filter(|_| !is_inverted)),
        None => rule.ask(crate::record::facts::Condition::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_element_too_large_is_an_error() {
        let head = b"{\"nftables\": [{\"rule\": {\"x\": \"".as_slice();
        let mut endless = io::BufReader::new(head.chain(io::repeat(b'y')));
        assert_eq!(read(&mut endless).unwrap_err(), "one element of it has more than 8 MB");
        assert!(read(&mut &b"{\"nftables\": [{\"rule\""[..]).is_err());
        assert!(read(&mut &b"{\"nftables\": []}"[..]).is_ok_and(|tables| tables.is_empty()));
    }
}
