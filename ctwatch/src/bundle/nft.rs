//! `nft list ruleset`, with and without handles.
//! <https://git.netfilter.org/nftables/tree/src/rule.c>

use super::{
    kind::Why,
    nft_rule::{NftRule, field, hook, priority, table_of},
};
use crate::record::facts::{Act, RuleTable};

#[derive(Default)]
pub(super) struct NftPart {
    tables: Vec<RuleTable>,
    /// Family and name of the table that is open, and the chain in it.
    table: Option<(String, String)>,
    chain: Option<String>,
    /// Open braces of a set, or of something else that is no chain.
    other: u32,
    /// The begin of a statement that goes on in the next line.
    begun: String,
}

impl NftPart {
    pub(super) fn take(&mut self, line: &str) -> Result<(), Why> {
        const LONGEST: usize = 1 << 20;
        let text = line.trim();
        if text.is_empty() {
            return Ok(());
        }
        if let Some(remark) = text.strip_prefix('#') {
            let is_command = super::Printed::by(remark.trim_start_matches(['#', ' ']))
                != super::Printed::Unknown;
            return if is_command && self.table.is_none() { Err(None) } else { Ok(()) };
        }
        let (text, handle) = without_handle(text);
        if self.other > 0 {
            self.other = depth(self.other, text);
            return Ok(());
        }
        match (&self.table, &self.chain) {
            (None, _) => self.outside(text),
            (Some(_), None) => self.in_table(text),
            (Some(_), Some(_)) => {
                let mut whole = std::mem::take(&mut self.begun);
                whole.push_str(text);
                // The elements of a large set go on in the next line.
                if depth(0, &whole) > 0 && whole.len() < LONGEST {
                    self.begun = whole + " ";
                    return Ok(());
                }
                self.in_chain(&whole, handle)
            }
        }
    }

    fn outside(&mut self, text: &str) -> Result<(), Why> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["table", family, name, "{", ..] | ["add", "table", family, name, "{", ..] => {
                table_of(&mut self.tables, family, name).ok_or(Some("too many tables"))?;
                self.table = Some(((*family).to_owned(), (*name).to_owned()));
            }
            // `table filter {`, without a family, is one of ip.
            ["table", name, "{", ..] => {
                table_of(&mut self.tables, "ip", name).ok_or(Some("too many tables"))?;
                self.table = Some(("ip".to_owned(), (*name).to_owned()));
            }
            // `flush ruleset` and the like stand in scripts.
            ["flush" | "define" | "include" | "add" | "delete" | "destroy", ..] => {}
            _ => return Err(None),
        }
        Ok(())
    }

    fn in_table(&mut self, text: &str) -> Result<(), Why> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["}", ..] => self.table = None,
            ["chain", name, "{", ..] => {
                if let Some(table) = self.open() {
                    table.chain(name);
                }
                self.chain = Some((*name).to_owned());
            }
            ["comment" | "flags", ..] => {}
            [
                "set" | "map" | "flowtable" | "counter" | "quota" | "limit" | "secmark"
                | "synproxy" | "ct" | "tunnel",
                ..,
            ] => self.other = depth(0, text),
            _ => {
                if let ["table", ..] = words.as_slice() {
                    // The table before has no closing brace.
                    (self.table, self.chain) = (None, None);
                    return self.outside(text);
                }
                return Err(Some("nothing that stands in a table"));
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Option<&mut RuleTable> {
        let (family, name) = self.table.as_ref()?;
        let is_it = |table: &&mut RuleTable| table.family == family.as_str() && table.name == *name;
        self.tables.iter_mut().find(is_it)
    }

    fn in_chain(&mut self, text: &str, handle: Option<u64>) -> Result<(), Why> {
        if text == "}" {
            self.chain = None;
            return Ok(());
        }
        let chain = self.chain.clone().unwrap_or_default();
        if text.starts_with("table ") && text.ends_with('{') {
            (self.table, self.chain) = (None, None);
            return self.outside(text);
        }
        if text.starts_with("chain ") && text.ends_with('{') {
            self.chain = None;
            return self.in_table(text);
        }
        let Some(table) = self.open() else { return Ok(()) };
        if text.starts_with("type ") && text.contains(" hook ") {
            return hooked(table, &chain, text);
        }
        if let Some(policy) = text.strip_prefix("policy ") {
            if let Some(base) = &mut table.chain(&chain).base {
                base.drops = policy.starts_with("drop");
            }
            return Ok(());
        }
        let is_both = !matches!(&*table.family, "ip" | "ip6");
        let rule = rule(text, handle, is_both)?;
        if let Some(rule) = rule {
            rule.keep(table, &chain);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<RuleTable> {
        self.tables
    }
}

/// `… # handle 7`
fn without_handle(text: &str) -> (&str, Option<u64>) {
    let Some((before, handle)) = text.rsplit_once("# handle ") else { return (text, None) };
    match handle.trim().parse() {
        Ok(handle) => (before.trim_end(), Some(handle)),
        Err(_) => (text, None),
    }
}

/// How many more braces the line opens than it closes, outside of quotes.
fn depth(before: u32, text: &str) -> u32 {
    let (mut depth, mut is_quoted) = (before, false);
    for byte in text.bytes() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'{' if !is_quoted => depth += 1,
            b'}' if !is_quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    depth
}

/// `type filter hook input priority filter; policy drop;`
fn hooked(table: &mut RuleTable, chain: &str, text: &str) -> Result<(), Why> {
    let mut parts = text.split(';').map(str::trim);
    let words: Vec<&str> = parts.next().unwrap_or_default().split_whitespace().collect();
    let ["type", kind, "hook", at, rest @ ..] = words.as_slice() else {
        return Err(Some("no hook of a chain"));
    };
    let begin = rest.iter().position(|word| *word == "priority");
    let value = begin.and_then(|begin| rest.get(begin + 1..)).and_then(priority);
    let value = value.ok_or(Some("a priority that is not known"))?;
    let drops = parts.any(|part| part == "policy drop");
    hook(table, chain, (kind, at, value), drops);
    Ok(())
}

/// Splits into words; a quoted text is one word, and so is a text in braces.
fn tokens(text: &str) -> Result<Vec<&str>, Why> {
    const CUT: Why = Some("it is cut off");
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => rest[1..].find('"').ok_or(CUT)? + 2,
            '{' => {
                let mut open = 0_usize;
                let mut is_quoted = false;
                let end = rest.bytes().position(|byte| {
                    match byte {
                        b'"' => is_quoted = !is_quoted,
                        b'{' if !is_quoted => open += 1,
                        b'}' if !is_quoted => open -= 1,
                        _ => {}
                    }
                    open == 0
                });
                end.ok_or(CUT)? + 1
            }
            _ => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        tokens.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    Ok(tokens)
}

/// `None`: the line is a comment on the chain.
fn rule(text: &str, handle: Option<u64>, is_both: bool) -> Result<Option<NftRule>, Why> {
    let tokens = tokens(text)?;
    if let ["comment", _] = tokens.as_slice() {
        return Ok(None);
    }
    let mut rule = NftRule::new(handle);
    let mut at = 0;
    while let Some(word) = tokens.get(at) {
        let rest = &tokens[at + 1..];
        at += 1 + statement(&mut rule, word, rest, is_both)?;
    }
    Ok(Some(rule))
}

/// Words that begin a statement: a value ends before one.
const BEGINS: [&str; 42] = [
    "ct",
    "meta",
    "ip",
    "ip6",
    "tcp",
    "udp",
    "sctp",
    "dccp",
    "udplite",
    "th",
    "icmp",
    "icmpv6",
    "iif",
    "iifname",
    "oif",
    "oifname",
    "fib",
    "counter",
    "limit",
    "log",
    "accept",
    "drop",
    "reject",
    "return",
    "jump",
    "goto",
    "continue",
    "comment",
    "notrack",
    "masquerade",
    "snat",
    "dnat",
    "redirect",
    "flow",
    "queue",
    "tproxy",
    "synproxy",
    "xt",
    "quota",
    "igmp",
    "esp",
    "ah",
];

/// The number of words of a value.
fn value_of(rest: &[&str]) -> usize {
    rest.iter().position(|word| BEGINS.contains(word)).unwrap_or(rest.len())
}

/// The same for a value whose first word may look like a statement: `ip protocol != tcp`.
fn value_len(rest: &[&str]) -> usize {
    let least = match rest.first() {
        Some(&"!=" | &"==" | &"<" | &">" | &"<=" | &">=") => 2,
        _ => 1,
    };
    value_of(rest).max(least).min(rest.len())
}

/// Takes in one statement; returns how many words it has after its first.
fn statement(rule: &mut NftRule, word: &str, rest: &[&str], is_both: bool) -> Result<usize, Why> {
    const CUT: Why = Some("it is cut off");
    let next = |at: usize| rest.get(at).copied();
    Ok(match word {
        "ct" => connection(rule, rest)?,
        "counter" => match rest {
            ["packets", packets, "bytes", _, ..] => {
                rule.counted(Some(
                    packets.parse().map_err(|_| Some("a counter without a number"))?,
                ));
                4
            }
            // A counter with a name, or one without numbers.
            ["name", _, ..] => 2,
            _ => 0,
        },
        "comment" => {
            rule.comment = Some(next(0).ok_or(CUT)?.trim_matches('"').to_owned());
            1
        }
        "jump" | "goto" => {
            let chain = next(0).ok_or(CUT)?.to_owned();
            rule.act = if word == "jump" { Act::Jump(chain) } else { Act::Goto(chain) };
            1
        }
        "meta" if matches!(rest, ["mark", "set", "ct", "mark", ..]) => {
            rule.restore();
            4
        }
        "meta" if next(1) == Some("set") => {
            let from_connection = rest.get(2..).is_some_and(|value| value.first() == Some(&"ct"));
            if from_connection {
                rule.restore();
                let behind = rest.get(3..).unwrap_or_default();
                return Ok(3 + value_of(behind));
            }
            // `meta mark set meta mark & 0xff`: the second `meta` begins no statement.
            let own = usize::from(matches!(next(2), Some("meta" | "ip" | "tcp"))) * 2;
            2 + own + value_of(rest.get(2 + own..).unwrap_or_default())
        }
        "meta" | "ip" | "ip6" | "tcp" | "udp" | "sctp" | "dccp" | "udplite" | "th" | "icmp"
        | "icmpv6" | "igmp" | "esp" | "ah" => {
            let name = next(0).ok_or(CUT)?;
            let value = rest.get(1..).unwrap_or_default();
            let len = value_len(value);
            match value.get(..len) {
                Some([vmap, map]) if *vmap == "vmap" => {
                    field(rule, is_both, (word, name), None);
                    let _ = map;
                    rule.act = Act::Unknown;
                }
                Some([one]) => field(rule, is_both, (word, name), Some(one)),
                Some(["==", one]) => field(rule, is_both, (word, name), Some(one)),
                _ => field(rule, is_both, (word, name), None),
            }
            1 + len
        }
        "xt" => {
            let name = next(1).ok_or(CUT)?.trim_matches('"');
            rule.extension(next(0) == Some("target"), name);
            2
        }
        // These apply to the rest of the rule.
        "snat" | "dnat" | "redirect" | "masquerade" | "reject" | "queue" | "tproxy"
        | "synproxy" | "fwd" | "dup" | "flow" => {
            rule.statement(word);
            let comment = rest.iter().position(|word| *word == "comment");
            comment.unwrap_or(rest.len())
        }
        "log" | "limit" | "quota" => {
            rule.statement(word);
            value_of(rest)
        }
        _ if rule.statement(word) => 0,
        // A condition that is not read here: the rule asks for something unknown.
        _ => {
            rule.ask(crate::record::facts::Condition::Other);
            let is_of_two = matches!(word, "ether" | "vlan" | "arp" | "rt" | "socket" | "exthdr");
            let len = match is_of_two && rest.len() > 1 {
                true => 1 + value_len(&rest[1..]),
                false => value_of(rest),
            };
            if rest.get(..len).is_some_and(|value| value.contains(&"vmap")) {
                rule.act = Act::Unknown;
            }
            len
        }
    })
}

/// The words after `ct`.
fn connection(rule: &mut NftRule, rest: &[&str]) -> Result<usize, Why> {
    const CUT: Why = Some("it is cut off");
    let braced = |word: &str| word.strip_prefix('{')?.strip_suffix('}').map(str::to_owned);
    match rest {
        ["state", "vmap", map, ..] => {
            match braced(map) {
                Some(map) => rule.state_map(&elements(&map)?),
                None => rule.state_elsewhere(true),
            }
            Ok(3)
        }
        ["state", "!=" | "==", value, ..] | ["state", value, ..] => {
            let is_inverted = rest.get(1) == Some(&"!=");
            let words = if matches!(rest.get(1), Some(&"!=" | &"==")) { 3 } else { 2 };
            if let Some(set) = braced(value) {
                rule.state_set(set.split(',').map(str::trim), is_inverted);
            } else if value.starts_with('@') {
                rule.state_elsewhere(false);
            } else {
                rule.state(value, is_inverted);
            }
            Ok(words + value_of(rest.get(words..).unwrap_or_default()))
        }
        ["count", ..] => {
            rule.count();
            Ok(1 + value_of(&rest[1..]))
        }
        [kind @ ("helper" | "timeout" | "expectation"), "set", ..] => {
            rule.object(kind);
            Ok(3.min(rest.len()))
        }
        [_, "set", ..] => {
            rule.set_connection();
            let own = usize::from(matches!(rest.get(2), Some(&"meta" | &"ct"))) * 2;
            Ok(2 + own + value_of(rest.get(2 + own..).unwrap_or_default()))
        }
        [_, ..] => {
            rule.connection();
            // `ct original ip saddr 10.0.0.0/8`
            let own = match rest {
                ["original" | "reply", "ip" | "ip6", ..] => 3,
                ["original" | "reply", ..] => 2,
                _ => 1,
            };
            Ok(own + value_of(rest.get(own..).unwrap_or_default()))
        }
        [] => Err(CUT),
    }
}

/// `established : accept, invalid : jump own`
fn elements(map: &str) -> Result<Vec<(String, Act)>, Why> {
    let one = |element: &str| {
        let (state, verdict) = element.rsplit_once(" : ").ok_or(Some("no element of a map"))?;
        // A counter may follow the map.
        let state = state.split_whitespace().next().unwrap_or_default().to_owned();
        Ok((state, verdict_of(verdict)))
    };
    let parts = map.split(", ").map(str::trim).filter(|part| !part.is_empty());
    parts.map(one).collect()
}

fn verdict_of(text: &str) -> Act {
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some("accept"), _) => Act::Accept,
        (Some("drop"), _) => Act::Drop,
        (Some("return"), _) => Act::Return,
        (Some("continue"), _) => Act::Next,
        (Some("jump"), Some(chain)) => Act::Jump(chain.to_owned()),
        (Some("goto"), Some(chain)) => Act::Goto(chain.to_owned()),
        _ => Act::Unknown,
    }
}
