//! A rule of nftables, statement by statement, from text or JSON. The result is the same as from the kernel's own
//! expressions.

use crate::{
    host::netfilter::xtables::{self, Jump, Match},
    record::facts::{
        Act, Base, Condition, Framework, POLICY, POLICY_OF_IPTABLES, Rule, RuleTable, RuleUse, VMAP,
    },
};

#[derive(Debug, Default)]
pub(super) struct NftRule {
    handle: Option<u64>,
    pub(super) comment: Option<String>,
    pub(super) act: Act,
    conditions: Vec<Condition>,
    by: Vec<String>,
    notrack: bool,
    needs: bool,
    packets: Option<u64>,
    asked: Vec<Match>,
    is_looked_up: bool,
    /// What a map, or a set of states, says of it.
    on_invalid: Option<Act>,
    is_on_invalid_by_set: bool,
}

impl NftRule {
    pub(super) fn new(handle: Option<u64>) -> Self {
        Self { handle, ..Self::default() }
    }

    fn say(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.by.contains(&what) {
            self.by.push(what);
        }
    }

    fn need(&mut self, what: &str) {
        self.needs = true;
        self.say(what);
    }

    /// A counter counts only packets that passed the conditions before it.
    pub(super) fn ask(&mut self, condition: Condition) {
        self.packets = None;
        self.conditions.push(condition);
    }

    pub(super) fn counted(&mut self, packets: Option<u64>) {
        self.packets = packets;
    }

    /// `ct state invalid,untracked`, `ct state != established`. With a word that is no state, it is unknown.
    pub(super) fn state(&mut self, states: &str, is_inverted: bool) {
        self.need("ct state");
        let Some(states) = super::words::states(states) else {
            self.ask(Condition::Tracking(None));
            return self.asked.push(Match::Tracking);
        };
        const INVALID: u16 = 1;
        const UNTRACKED: u16 = 1 << 8;
        self.ask(Condition::Tracking(Some((states & UNTRACKED != 0) != is_inverted)));
        self.asked.push(match states {
            INVALID if !is_inverted => Match::Invalid,
            both if both == INVALID | UNTRACKED && !is_inverted => Match::InvalidOrUntracked,
            _ => Match::Tracking,
        });
    }

    /// `ct state { invalid, new }`: a set.
    pub(super) fn state_set<'a>(
        &mut self,
        states: impl IntoIterator<Item = &'a str>,
        is_inverted: bool,
    ) {
        self.need("ct state");
        self.is_looked_up = true;
        let states: Vec<String> = states.into_iter().map(str::to_ascii_lowercase).collect();
        let has = |wanted: &str| states.iter().any(|state| state == wanted);
        self.ask(Condition::Tracking(Some(has("untracked") != is_inverted)));
        self.asked.push(Match::Tracking);
        self.is_on_invalid_by_set = has("invalid") && !is_inverted;
    }

    /// A named set or map: its elements are not looked up.
    pub(super) fn state_elsewhere(&mut self, is_map: bool) {
        self.need(if is_map { VMAP } else { "ct state" });
        self.is_looked_up = true;
        self.ask(Condition::Tracking(None));
        self.asked.push(Match::Tracking);
        if is_map {
            self.act = Act::Unknown;
        }
    }

    /// `ct state vmap { established : accept, invalid : drop }`
    pub(super) fn state_map(&mut self, elements: &[(String, Act)]) {
        self.need(VMAP);
        self.is_looked_up = true;
        self.asked.push(Match::Tracking);
        let of = |wanted: &str| elements.iter().find(|(state, _)| state == wanted);
        // Several states in one key: unknown.
        if elements.iter().any(|(state, _)| state.contains(',') || state == "*") {
            self.act = Act::Unknown;
            return self.ask(Condition::Tracking(None));
        }
        self.ask(Condition::Tracking(Some(of("untracked").is_some())));
        // If the map does not name untracked packets, they go on to the next rule.
        let lets_in = |(_, act): &&(String, Act)| !matches!(act, Act::Drop | Act::Next);
        let stands = of("untracked").or_else(|| elements.iter().find(lets_in));
        self.act = stands.map_or(Act::Drop, |(_, act)| act.clone());
        self.on_invalid = of("invalid").map(|(_, act)| act.clone());
    }

    /// A condition on a connection: a packet without one does not match.
    pub(super) fn connection(&mut self) {
        self.need("ct");
        self.ask(Condition::Tracking(Some(false)));
        self.asked.push(Match::Tracking);
    }

    /// `ct mark set …`, `ct zone set …`
    pub(super) fn set_connection(&mut self) {
        self.need("ct");
        self.asked.push(Match::Tracking);
    }

    /// `ct helper set "ftp"`, `ct timeout set "long"`, `ct expectation set "x"`
    pub(super) fn object(&mut self, kind: &str) {
        match kind {
            "helper" => {
                self.need("ct helper");
                self.act = Act::Help;
            }
            "timeout" => self.need(POLICY),
            _ => self.need("ct expectation"),
        }
    }

    /// `ct count over 10`
    pub(super) fn count(&mut self) {
        self.need("connlimit");
        self.ask(Condition::Tracking(None));
    }

    /// The packet gets the mark of its connection.
    pub(super) fn restore(&mut self) {
        self.connection();
        self.act = Act::Restore;
    }

    /// Takes in a statement by its first word; `false`: the word is unknown.
    pub(super) fn statement(&mut self, word: &str) -> bool {
        match word {
            "accept" => self.act = Act::Accept,
            "drop" | "reject" => self.act = Act::Drop,
            "return" => self.act = Act::Return,
            "continue" | "log" => {}
            "notrack" => {
                self.notrack = true;
                self.say("notrack");
            }
            "masquerade" => {
                self.need("masquerade");
                self.act = Act::TranslateSource;
            }
            "redirect" => {
                self.need("redirect");
                self.act = Act::TranslateDestination;
            }
            "snat" => {
                self.need("nat");
                self.act = Act::TranslateSource;
            }
            "dnat" => {
                self.need("nat");
                self.act = Act::TranslateDestination;
            }
            "flow" => self.need("flow_offload"),
            "synproxy" => {
                self.need("synproxy");
                self.act = Act::Unknown;
            }
            "queue" | "tproxy" | "fwd" => self.act = Act::Unknown,
            "limit" | "quota" => self.ask(Condition::Other),
            _ => return false,
        }
        true
    }

    /// `xt match "conntrack"`: nft cannot print more of it.
    pub(super) fn extension(&mut self, is_target: bool, name: &str) {
        if !is_target {
            if xtables::matched(name, &[]) != Match::Other {
                self.need(&format!("-m {name}"));
                self.asked.push(Match::Tracking);
            }
            self.packets = None;
            return self.conditions.extend(xtables::conditions(name, &[]));
        }
        match xtables::target(name, &[]) {
            Jump::Other => {}
            Jump::Tracking => self.need(&format!("-j {name}")),
            Jump::Timeout => self.need(POLICY_OF_IPTABLES),
            Jump::NoTrack => {
                self.notrack = true;
                self.say("notrack");
            }
        }
        self.act = xtables::act(name, &[]);
    }

    /// Adds it to this chain.
    pub(super) fn keep(self, table: &mut RuleTable, chain: &str) {
        let Self { handle, comment, act, conditions, by, notrack, needs, packets, asked, .. } =
            self;
        let number = match handle {
            Some(handle) => handle,
            None => {
                table.by_place = true;
                table.chain(chain).rules.len() as u64 + 1
            }
        };
        let on_invalid = match self.on_invalid {
            Some(act) => Some(act),
            None if self.is_on_invalid_by_set || xtables::are_invalid(&asked) => Some(act.clone()),
            None => None,
        };
        let packets =
            xtables::of_invalid(&asked, packets).filter(|count| *count == 0 || !self.is_looked_up);
        let chain_name = chain.to_owned();
        let found = (needs || notrack).then_some(RuleUse {
            chain: chain_name,
            number,
            by,
            notrack: notrack && !needs,
            on_invalid,
            packets,
        });
        table.add(found);
        table.keep(chain, Rule { number, conditions, act, comment });
    }
}

/// The table of this family and name, made if there is none yet.
pub(super) fn table_of<'a>(
    tables: &'a mut Vec<RuleTable>,
    family: &str,
    name: &str,
) -> Option<&'a mut RuleTable> {
    const MOST: usize = 4096;
    let found = tables.iter().position(|table| table.family == family && table.name == name);
    let at = match found {
        Some(at) => at,
        None if tables.len() >= MOST => return None,
        None => {
            let family = match family {
                "ip" => "ip",
                "ip6" => "ip6",
                "inet" => "inet",
                "arp" => "arp",
                "bridge" => "bridge",
                "netdev" => "netdev",
                _ => "unknown",
            };
            tables.push(RuleTable::new(Framework::Nft, family, name.to_owned()));
            tables.len() - 1
        }
    };
    tables.get_mut(at)
}

/// The hook of a base chain.
pub(super) fn hook(
    table: &mut RuleTable,
    chain: &str,
    (kind, hook, priority): (&str, &str, i32),
    drops: bool,
) {
    const HOOKS: [&str; 6] = ["prerouting", "input", "forward", "output", "postrouting", "ingress"];
    let known = HOOKS.iter().find(|known| **known == hook);
    let is_inet = matches!(&*table.family, "ip" | "ip6" | "inet");
    let known = known.copied().filter(|_| is_inet).unwrap_or("another hook");
    let is_nat = kind == "nat";
    if is_nat && !table.nat_chains.iter().any(|other| other == chain) {
        table.nat_chains.push(chain.to_owned());
    }
    let mut base = Base::of(is_nat, known, priority);
    base.drops = drops;
    table.chain(chain).base = Some(base);
}

/// `filter`, `mangle + 10`, `-300`
/// <https://git.netfilter.org/nftables/tree/src/rule.c> `std_prios`
pub(super) fn priority(words: &[&str]) -> Option<i32> {
    let [first, rest @ ..] = words else { return None };
    let base = match *first {
        "raw" => -300,
        "mangle" => -150,
        "dstnat" => -100,
        "filter" | "out" => 0,
        "security" => 50,
        "srcnat" => 100,
        number => return number.parse().ok(),
    };
    match rest {
        [] => Some(base),
        ["+", more] => Some(base + more.parse::<i32>().ok()?),
        ["-", less] => Some(base - less.parse::<i32>().ok()?),
        _ => None,
    }
}

/// Conditions on a field of a packet, with those that the field implies.
pub(super) fn field(
    rule: &mut NftRule,
    is_both: bool,
    (protocol, field): (&str, &str),
    value: Option<&str>,
) {
    let number = crate::model::names::protocol_number(protocol);
    let condition = match (protocol, field, value) {
        ("ip" | "ip6", "saddr" | "daddr", value) => {
            // In a table of inet, which has both families.
            if is_both {
                rule.ask(Condition::Family(protocol == "ip"));
            }
            let prefix = value.and_then(super::words::prefix);
            prefix.map(|(address, len)| match field {
                "saddr" => Condition::Source(address, len),
                _ => Condition::Destination(address, len),
            })
        }
        ("ip", "protocol", Some(value)) | ("ip6", "nexthdr", Some(value)) => {
            if is_both {
                rule.ask(Condition::Family(protocol == "ip"));
            }
            crate::model::names::protocol_number(value).map(Condition::Protocol)
        }
        ("meta", "l4proto", Some(value)) => {
            crate::model::names::protocol_number(value.trim_start_matches("ipv6-"))
                .map(Condition::Protocol)
        }
        ("meta", "nfproto", Some("ipv4")) => Some(Condition::Family(true)),
        ("meta", "nfproto", Some("ipv6")) => Some(Condition::Family(false)),
        ("th", "sport" | "dport", Some(value)) => ports_of(field, value),
        (_, "sport" | "dport", value) if number.is_some() => {
            rule.ask(number.map_or(Condition::Other, Condition::Protocol));
            value.and_then(|value| ports_of(field, value))
        }
        _ if number.is_some() && !matches!(protocol, "meta" | "ip" | "ip6") => {
            rule.ask(number.map_or(Condition::Other, Condition::Protocol));
            None
        }
        _ => None,
    };
    rule.ask(condition.unwrap_or(Condition::Other));
}

fn ports_of(field: &str, value: &str) -> Option<Condition> {
    let (from, to) = super::words::ports(value).or_else(|| named(value))?;
    Some(match field {
        "sport" => Condition::SourcePort(from, to),
        _ => Condition::DestinationPort(from, to),
    })
}

/// Names of ports, which old versions print.
fn named(port: &str) -> Option<(u16, u16)> {
    const NAMES: [(&str, u16); 8] = [
        ("ssh", 22),
        ("domain", 53),
        ("http", 80),
        ("https", 443),
        ("ntp", 123),
        ("bgp", 179),
        ("snmp", 161),
        ("ftp", 21),
    ];
    NAMES.iter().find(|(name, _)| *name == port).map(|(_, number)| (*number, *number))
}
