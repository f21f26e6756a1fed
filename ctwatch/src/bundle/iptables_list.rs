//! `iptables -nvL` of one table. It tells less than `iptables-save`, and prints matches as words for people.
//! <https://git.netfilter.org/iptables/tree/iptables/iptables.c> `print_rule4`

use super::{
    gathered::{BundleParts, Saved},
    iptables::{base, family, new_table, table_of},
    kind::Why,
    small::backend_of,
    words::{self, PortMatch, Spoken, ports},
};
use crate::record::facts::{Condition, RuleTable};

pub(super) struct ListedPart {
    of: String,
    table: Option<RuleTable>,
    /// The chain of the next rules.
    chain: Option<String>,
    has_counters: bool,
    /// Lines of rules, read at the end: a rule may jump to a chain that comes later.
    rules: Vec<(String, String)>,
}

impl ListedPart {
    pub(super) fn of(of: &str) -> Self {
        let of = of.to_owned();
        Self { of, table: None, chain: None, has_counters: false, rules: Vec::new() }
    }

    pub(super) fn take(&mut self, line: &str) -> Result<(), Why> {
        const MOST: usize = 200_000;
        if let Some(chain) = line.strip_prefix("Chain ") {
            let (name, about) = chain.split_once(' ').ok_or(Some("it is cut off"))?;
            if !about.starts_with("(policy ") && !about.ends_with("references)") {
                return Err(Some("no chain"));
            }
            let of = &self.of;
            let table = self.table.get_or_insert_with(|| {
                new_table(family(of), backend_of(of), table_of(of).unwrap_or("filter"))
            });
            let drops = about.starts_with("(policy DROP");
            let base = base(&table.name, name, drops);
            table.chain(name).base = base;
            self.chain = Some(name.to_owned());
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["pkts", "bytes", "target", ..] => self.has_counters = true,
            ["target", "prot", ..] => self.has_counters = false,
            [] => {}
            _ => {
                let chain = self.chain.clone().ok_or(None)?;
                // Checked now, and read when all chains are known.
                spoken(line, self.has_counters, &|_| false)?;
                if self.rules.len() >= MOST {
                    return Err(Some("more rules than are kept"));
                }
                self.rules.push((chain, line.to_owned()));
            }
        }
        Ok(())
    }

    pub(super) fn finish(self, namespace: Option<&str>, gathered: &mut BundleParts) {
        let Some(mut table) = self.table else { return };
        // Without `-t`, the names of the chains tell the table.
        if table_of(&self.of).is_none()
            && let Some(name) = told_by_chains(&table)
        {
            let chains = std::mem::take(&mut table.chains);
            table = new_table(family(&self.of), backend_of(&self.of), name);
            for chain in chains {
                let drops = chain.base.as_ref().is_some_and(|base| base.drops);
                let base = base(name, &chain.name, drops);
                table.chain(&chain.name).base = base;
            }
        }
        let names: Vec<String> = table.chains.iter().map(|chain| chain.name.clone()).collect();
        let is_chain = |name: &str| names.iter().any(|known| known == name);
        for (chain, line) in &self.rules {
            if let Ok(spoken) = spoken(line, self.has_counters, &is_chain) {
                let number = table.chain(chain).rules.len() as u64 + 1;
                spoken.keep(&mut table, chain, number);
            }
        }
        let backend = backend_of(&self.of);
        gathered.saved(namespace, Saved { backend, table }, true);
    }
}

/// The table, by its built-in chains: raw has two, and mangle has all five.
fn told_by_chains(table: &RuleTable) -> Option<&'static str> {
    let has = |name: &str| table.chains.iter().any(|chain| chain.name == name);
    match (has("PREROUTING"), has("POSTROUTING"), has("FORWARD")) {
        (true, true, true) => Some("mangle"),
        (true, true, false) => Some("nat"),
        (true, false, false) => Some("raw"),
        _ => None,
    }
}

/// ` 1234  98K ACCEPT     all  --  *      eth0    0.0.0.0/0   10.0.0.0/8   ctstate RELATED,ESTABLISHED`
fn spoken(line: &str, has_counters: bool, is_chain: &dyn Fn(&str) -> bool) -> Result<Spoken, Why> {
    const CUT: Why = Some("it is cut off");
    let mut words = line.split_whitespace().peekable();
    let mut spoken = Spoken::default();
    if has_counters {
        spoken.packets = words.next().and_then(number);
        words.next().and_then(number).ok_or(None)?;
        if spoken.packets.is_none() {
            return Err(None);
        }
    }
    // A rule without a target leaves the column empty.
    let is_protocol = |word: &str| {
        word == "all" || word == "0" || crate::model::names::protocol_number(word).is_some()
    };
    let first = words.next().ok_or(CUT)?;
    let is_options = |word: Option<&&str>| {
        matches!(word, Some(&"--" | &"-f" | &"!f" | &"*")) || word.is_some_and(|w| w.is_empty())
    };
    let (target, protocol) = match is_protocol(first) && is_options(words.peek()) {
        true => ("", first),
        false => (first, words.next().ok_or(CUT)?),
    };
    let protocol_name = protocol.trim_start_matches('!');
    if !is_protocol(protocol_name) {
        return Err(Some("no protocol where one is expected"));
    }
    // ip6tables prints no options before 1.8.9.
    if matches!(words.peek(), Some(&"--" | &"-f" | &"!f")) {
        words.next();
    }
    let (mut into, mut out) = ("*", "*");
    if has_counters {
        into = words.next().ok_or(CUT)?;
        out = words.next().ok_or(CUT)?;
    }
    let (source, destination) = (words.next().ok_or(CUT)?, words.next().ok_or(CUT)?);
    for (text, is_source) in [(source, true), (destination, false)] {
        let plain = text.trim_start_matches('!');
        if !matches!(plain, "0.0.0.0/0" | "::/0" | "anywhere") {
            if has_counters && words::prefix(plain).is_none() && !plain.contains('/') {
                // Without -n, names stand for addresses.
                spoken.ask(Condition::Other);
                continue;
            }
            spoken.address(plain, is_source, text.starts_with('!'));
        }
    }
    for interface in [into, out] {
        if !matches!(interface, "*" | "any") {
            spoken.ask(Condition::Other);
        }
    }
    if !matches!(protocol_name, "all" | "0") {
        spoken.protocol(protocol_name, protocol.starts_with('!'));
    }
    let rest: Vec<&str> = words.collect();
    let info = matches_of(&rest, protocol_name, target, &mut spoken);
    if !target.is_empty() {
        let is_goto = rest.contains(&"[goto]");
        spoken.jump(target, info, is_chain(target), is_goto);
    }
    Ok(spoken)
}

/// `98K`, `12M` are rounded: it is only known that there were some.
fn number(word: &str) -> Option<u64> {
    let (digits, times) = match word.as_bytes().last()? {
        b'K' => (&word[..word.len() - 1], 1000),
        b'M' => (&word[..word.len() - 1], 1_000_000),
        b'G' => (&word[..word.len() - 1], 1_000_000_000),
        b'T' => (&word[..word.len() - 1], 1_000_000_000_000),
        _ => (word, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(times)
}

/// The words after the addresses, of matches and of the target; returns those of the target.
fn matches_of(rest: &[&str], protocol: &str, target: &str, spoken: &mut Spoken) -> Vec<u8> {
    let mut info = match target {
        "CT" => words::ct(false, false, false),
        _ => Vec::new(),
    };
    let mut of_protocol: Option<PortMatch> = None;
    let mut at = 0;
    while let Some(word) = rest.get(at) {
        let value = rest.get(at + 1).copied().unwrap_or_default();
        at += 2;
        match *word {
            "/*" => {
                let end = rest[at - 1..].iter().position(|word| *word == "*/");
                let end = end.map_or(rest.len(), |within| at - 1 + within);
                spoken.comment(&rest[at - 1..end].join(" "));
                at = end + 1;
            }
            "ctstate" | "state" => {
                let (text, not) = (value.trim_start_matches('!'), value.starts_with('!'));
                let states = words::states(text);
                spoken.matching("conntrack", words::conntrack(states, not, states.is_none()));
            }
            "!" if matches!(value, "ctstate" | "state") => {
                let states = rest.get(at).and_then(|text| words::states(text));
                at += 1;
                spoken.matching("conntrack", words::conntrack(states, true, states.is_none()));
            }
            "ADDRTYPE" => {
                let is_local = rest.get(at..at + 2) == Some(&["dst-type", "LOCAL"]);
                at += 2;
                let info = if is_local { words::local_destination() } else { Vec::new() };
                spoken.matching("addrtype", info);
            }
            "connmark" | "helper" | "connbytes" | "connlabel" => spoken.matching(word, Vec::new()),
            "CT" if value == "notrack" => info = words::ct(true, false, false),
            "CT" if value == "helper" => info = words::ct(false, true, false),
            "CT" if value == "timeout" => info = words::ct(false, false, true),
            "CONNMARK" if value == "restore" => info = words::connmark(true),
            // Words of the target.
            "reject-with" | "to" | "CT" | "CONNMARK" | "MARK" | "LOG" | "TCPMSS" | "masq" => break,
            word if word.starts_with("to:") => break,
            "[goto]" | "random" | "random-fully" | "persistent" => at -= 1,
            "tcp" | "udp" | "dccp" | "sctp" => {
                at -= 1;
                of_protocol.get_or_insert_default();
            }
            word if of_protocol.is_some() && port(word, of_protocol.as_mut()) => at -= 1,
            word if word.starts_with('#') => {
                spoken.matching("connlimit", Vec::new());
                at += 2;
            }
            _ => {
                at -= 1;
                spoken.ask(Condition::Other);
            }
        }
    }
    if let Some(ports) = of_protocol {
        let is_tcp = matches!(protocol, "tcp" | "6");
        let name = if is_tcp { "tcp" } else { "udp" };
        spoken.matching(name, ports.info(is_tcp));
    }
    info
}

/// `dpt:53`, `spts:1024:65535`, `dpt:!53`
fn port(word: &str, of: Option<&mut PortMatch>) -> bool {
    let Some(of) = of else { return false };
    let Some((name, value)) = word.split_once(':') else { return false };
    let range = ports(value.trim_start_matches('!'));
    let not = value.starts_with('!') || range.is_none();
    let range = (range.unwrap_or((0, 0)), not);
    match name {
        "dpt" | "dpts" => of.destination = range,
        "spt" | "spts" => of.source = range,
        _ => return false,
    }
    true
}
