//! What the rules of a namespace would do with packets that are not tracked any more: whether they
//! are translated, wait for a helper, or come through only because they are established.
//!
//! What cannot be told is said to be so, and never guessed: a rule asks for more than is read here.

use std::{collections::BTreeMap, net::IpAddr};

use crate::record::facts::{Act, Chain, Condition, Namespace, Rule, RuleTable};

/// Packets that are alike: what is `None` may be anything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Packets {
    pub(super) protocol: u8,
    /// IPv4 or IPv6, where no address says so.
    pub(super) ipv4: Option<bool>,
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
    /// They are known to be for this machine itself.
    pub(super) are_local: bool,
}

/// Whether something holds for packets that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    No,
    /// For some of them, or it cannot be told.
    Maybe,
    Yes,
}

impl Packets {
    fn is_ipv4(&self) -> Option<bool> {
        self.source.or(self.destination).map(|address| address.is_ipv4()).or(self.ipv4)
    }

    /// All that a rule asks for, without what it asks of conntrack.
    fn match_all(&self, rule: &Rule) -> Truth {
        rule.conditions.iter().map(|asked| self.matches(asked)).min().unwrap_or(Truth::Yes)
    }

    fn matches(&self, condition: &Condition) -> Truth {
        let port = |port: Option<u16>, from: u16, to: u16| match port {
            Some(port) if (from..=to).contains(&port) => Truth::Yes,
            Some(_) => Truth::No,
            None => Truth::Maybe,
        };
        let address = |address: Option<IpAddr>, of: &IpAddr, len: u8| match address {
            Some(address) if is_within(&address, of, len) => Truth::Yes,
            Some(_) => Truth::No,
            // A prefix of the other family.
            None if self.is_ipv4().is_some_and(|v4| v4 != of.is_ipv4()) => Truth::No,
            None => Truth::Maybe,
        };
        match condition {
            Condition::Family(v4) => match self.is_ipv4() {
                Some(is) if is == *v4 => Truth::Yes,
                Some(_) => Truth::No,
                None => Truth::Maybe,
            },
            Condition::Protocol(protocol) if *protocol == self.protocol => Truth::Yes,
            Condition::Protocol(_) => Truth::No,
            Condition::SourcePort(from, to) => port(self.source_port, *from, *to),
            Condition::DestinationPort(from, to) => port(self.destination_port, *from, *to),
            Condition::Source(of, len) => address(self.source, of, *len),
            Condition::Destination(of, len) => address(self.destination, of, *len),
            Condition::Tracking(_) => Truth::Yes,
            Condition::DestinationIsLocal if self.are_local => Truth::Yes,
            // A route may make any address one of this machine.
            Condition::DestinationIsLocal => Truth::Maybe,
            Condition::Other => Truth::Maybe,
        }
    }

    /// Whether they come into chains of this table at all.
    fn are_of(&self, table: &RuleTable) -> bool {
        match (&*table.family, self.is_ipv4()) {
            ("inet", _) | ("ip" | "ip6", None) => true,
            ("ip", Some(v4)) => v4,
            ("ip6", Some(v4)) => !v4,
            _ => false,
        }
    }
}

fn is_within(address: &IpAddr, of: &IpAddr, len: u8) -> bool {
    match (address, of) {
        (IpAddr::V4(address), IpAddr::V4(of)) => {
            let shift = 32_u32.saturating_sub(len.into());
            u64::from(address.to_bits()) >> shift == u64::from(of.to_bits()) >> shift
        }
        (IpAddr::V6(address), IpAddr::V6(of)) => {
            let shift = 128_u32.saturating_sub(len.into());
            len == 0 || address.to_bits() >> shift == of.to_bits() >> shift
        }
        _ => false,
    }
}

/// A rule, in words.
fn named(table: &RuleTable, chain: &Chain, rule: &Rule) -> String {
    format!("table {} {}, chain {}, rule {}", table.family, table.name, chain.name, rule.number)
}

/// Why it cannot be known what the rules do; `None` where all of them were read.
pub(super) fn unread(namespace: &Namespace) -> Option<String> {
    for rules in [&namespace.nft, &namespace.legacy] {
        if let Err(why) = rules {
            return Some(format!("its rules are unknown: {why}"));
        }
    }
    let cut = namespace.rule_tables().find(|table| table.is_cut)?;
    Some(format!("table {} {} has more rules than are read", cut.family, cut.name))
}

/// The rule by which connections like these may be translated. That of a source is asked for the
/// connection as it goes out; that of a destination changes what is asked for here, so that all of
/// its protocol count.
pub(super) fn translating(namespace: &Namespace, packets: &Packets) -> Option<String> {
    first(namespace, packets, |rule| match rule.act {
        Act::TranslateSource => packets.match_all(rule) != Truth::No,
        Act::TranslateDestination => {
            let protocols = rule
                .conditions
                .iter()
                .filter(|asked| matches!(asked, Condition::Protocol(_) | Condition::Family(_)));
            protocols.map(|asked| packets.matches(asked)).min() != Some(Truth::No)
        }
        _ => false,
    })
}

/// The rule that translates packets to this port, and says so.
pub(super) fn translating_port(namespace: &Namespace, packets: &Packets) -> Option<String> {
    first(namespace, packets, |rule| {
        let translates = matches!(rule.act, Act::TranslateSource | Act::TranslateDestination);
        let names = |asked: &Condition| match asked {
            Condition::DestinationPort(..) => true,
            Condition::Protocol(_) => packets.destination_port.is_none(),
            _ => false,
        };
        translates && packets.match_all(rule) != Truth::No && rule.conditions.iter().any(names)
    })
}

/// The rule that assigns a helper to connections like these.
pub(super) fn helping(namespace: &Namespace, packets: &Packets) -> Option<String> {
    first(namespace, packets, |rule| rule.act == Act::Help && packets.match_all(rule) != Truth::No)
}

fn first(
    namespace: &Namespace,
    packets: &Packets,
    is_it: impl Fn(&Rule) -> bool,
) -> Option<String> {
    for table in namespace.rule_tables().filter(|table| packets.are_of(table)) {
        for chain in &table.chains {
            if let Some(rule) = chain.rules.iter().find(|rule| is_it(rule)) {
                return Some(named(table, chain, rule));
            }
        }
    }
    None
}

/// Why packets like these, once they are not tracked, may be dropped where they were let in before;
/// `None`: they fare as they did.
pub(super) fn cut_off(namespace: &Namespace, packets: &Packets, hooks: &[&str]) -> Option<String> {
    /// Before it nothing is tracked yet.
    const TRACKED: i32 = -200;
    for table in namespace.rule_tables().filter(|table| packets.are_of(table)) {
        let chains: BTreeMap<&str, &Chain> =
            table.chains.iter().map(|chain| (chain.name.as_str(), chain)).collect();
        for chain in &table.chains {
            let Some(base) = &chain.base else { continue };
            if base.is_nat || base.priority <= TRACKED || !hooks.contains(&&*base.hook) {
                continue;
            }
            let mut walk = Walk { table, chains: &chains, packets, parted: false, steps: 0 };
            let end = walk.chain(chain, 0);
            let policy = || {
                let name = &chain.name;
                format!(
                    "table {} {}, chain {name}: its policy is to drop, and what decides before that \
                     asks whether they are established",
                    table.family, table.name
                )
            };
            match end {
                End::Cut(why) => return Some(why),
                End::Through if walk.parted && base.drops => return Some(policy()),
                End::Through | End::Decided => {}
            }
        }
    }
    None
}

/// How packets leave a chain.
enum End {
    /// Some of them may be dropped that were not before: why.
    Cut(String),
    /// Each of them is accepted, or dropped as before.
    Decided,
    /// Some come to its end.
    Through,
}

struct Walk<'a> {
    table: &'a RuleTable,
    chains: &'a BTreeMap<&'a str, &'a Chain>,
    packets: &'a Packets,
    /// A rule was passed that did something else with them while they were tracked.
    parted: bool,
    steps: u32,
}

impl Walk<'_> {
    fn chain(&mut self, chain: &Chain, depth: u32) -> End {
        /// The kernel allows 16; and a chain may be come to in many ways.
        const DEEPEST: u32 = 16;
        const MOST: u32 = 100_000;
        if depth > DEEPEST || self.steps > MOST {
            return End::Cut(format!("chain {} leads on too far to be followed", chain.name));
        }
        for rule in &chain.rules {
            self.steps += 1;
            match self.rule(chain, rule, depth) {
                Step::Next => {}
                Step::Leave(end) => return end,
            }
        }
        End::Through
    }

    fn rule(&mut self, chain: &Chain, rule: &Rule, depth: u32) -> Step {
        let matched = self.packets.match_all(rule);
        if matched == Truth::No {
            return Step::Next;
        }
        if rule.act == Act::Restore {
            let here = named(self.table, chain, rule);
            return Step::Leave(End::Cut(format!(
                "{here}: it gives packets the mark of their connection, by which they may be routed or \
                 let in"
            )));
        }
        let asked = rule.conditions.iter().filter_map(|condition| match condition {
            Condition::Tracking(holds) => Some(match holds {
                Some(true) => Truth::Yes,
                Some(false) => Truth::No,
                None => Truth::Maybe,
            }),
            _ => None,
        });
        let here = || named(self.table, chain, rule);
        let matched = match asked.min() {
            None => matched,
            Some(Truth::No) => {
                // What was dropped or marked by it no more is, and that cuts nothing off.
                self.parted |= !matches!(rule.act, Act::Drop | Act::Next);
                return Step::Next;
            }
            Some(Truth::Maybe) if matches!(rule.act, Act::Drop | Act::Unknown) => {
                let why = format!(
                    "{}: what it does with packets that are not tracked cannot be told",
                    here()
                );
                return Step::Leave(End::Cut(why));
            }
            Some(holds) => {
                if rule.act == Act::Drop {
                    let why = format!("{}: it drops what is not tracked", here());
                    return Step::Leave(End::Cut(why));
                }
                self.parted |= rule.act != Act::Next;
                matched.min(holds)
            }
        };
        let is_certain = matched == Truth::Yes;
        match &rule.act {
            Act::Drop if self.parted => Step::Leave(End::Cut(format!(
                "{}: it drops what no rule before it lets in, and those ask whether it is \
                 established",
                here()
            ))),
            Act::Unknown if self.parted => {
                Step::Leave(End::Cut(format!("{}: what it does cannot be told", here())))
            }
            Act::Accept | Act::Drop if is_certain => Step::Leave(End::Decided),
            Act::Return if is_certain => Step::Leave(End::Through),
            Act::Jump(to) | Act::Goto(to) => {
                let Some(next) = self.chains.get(to.as_str()).copied() else { return Step::Next };
                let end = self.chain(next, depth + 1);
                let is_goto = matches!(rule.act, Act::Goto(_));
                match end {
                    End::Cut(why) => Step::Leave(End::Cut(why)),
                    End::Decided if is_certain => Step::Leave(End::Decided),
                    End::Through if is_certain && is_goto => Step::Leave(End::Through),
                    End::Decided | End::Through => Step::Next,
                }
            }
            _ => Step::Next,
        }
    }
}

enum Step {
    Next,
    Leave(End),
}

#[cfg(test)]
#[path = "passage_tests.rs"]
mod tests;
