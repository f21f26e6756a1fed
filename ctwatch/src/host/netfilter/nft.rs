//! Tables of nftables in the calling thread's namespace, and which of their rules have to do with
//! tracking. What iptables-nft makes is among them.
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_tables.h>

use anyhow::{Context, Result};

use super::{
    attributes::{attribute, attributes, be32, be64, text},
    ctnetlink::{Ctnetlink, Dumped, NFGENMSG, whole},
    expressions::{Expressions, verdict},
    xtables::{self, Jump, Match},
};
use crate::{
    host::kernel::modules,
    record::facts::{
        Act, Base, Condition, Framework, Known, POLICY, POLICY_OF_IPTABLES, Rule, RuleTable,
        RuleUse, StateSet, VMAP,
    },
};

/// `NFNL_SUBSYS_NFTABLES << 8`, and its messages.
const NFTABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = NFTABLES;
const GET_TABLE: u16 = NFTABLES | 1;
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAIN: u16 = NFTABLES | 4;
const NEW_RULE: u16 = NFTABLES | 6;
const GET_RULE: u16 = NFTABLES | 7;
const NEW_ELEMENT: u16 = NFTABLES | 12;
const GET_ELEMENT: u16 = NFTABLES | 13;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_CT_KEY: u16 = 2;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_LOOKUP_FLAGS: u16 = 5;
const NFTA_ELEMENTS_TABLE: u16 = 1;
const NFTA_ELEMENTS_SET: u16 = 2;
const NFTA_ELEMENTS: u16 = 3;
const NFTA_ELEMENT_KEY: u16 = 1;
const NFTA_ELEMENT_DATA: u16 = 2;
const NFTA_ELEMENT_FLAGS: u16 = 3;
const NFTA_COUNTER_PACKETS: u16 = 2;
/// Of a match and of a target alike.
const NFTA_XT_NAME: u16 = 1;
const NFTA_XT_INFO: u16 = 3;

const NFT_CT_STATE: u32 = 0;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NF_DROP: u32 = 0;
/// Of one table: each is asked for by a message of its own.
const MOST_SETS: usize = 256;
/// `NF_CT_STATE_INVALID_BIT`
const INVALID: u32 = 1;
/// `NF_CT_STATE_UNTRACKED_BIT`
const UNTRACKED: u32 = 1 << 6;

/// Whether asking loads nothing; the same in all namespaces.
pub fn may_be_asked() -> bool {
    !modules::would_be_loaded("nf_tables")
}

/// Where they [may be asked for](may_be_asked).
pub fn tables() -> Known<Vec<RuleTable>> {
    read().map_err(|error| format!("cannot list nftables: {error:#}"))
}

fn read() -> Result<Vec<RuleTable>> {
    let mut socket = Ctnetlink::open()?;
    whole("the rules", || read_once(&mut socket))
}

fn read_once(socket: &mut Ctnetlink) -> Result<(Vec<RuleTable>, Dumped)> {
    let mut tables = Vec::new();
    let listed = socket.dump(GET_TABLE, NEW_TABLE, |body| take_table(&mut tables, body));
    let mut dumped = match listed {
        // A kernel without it.
        Err(error) if is_unknown(&error) => return Ok((Vec::new(), Dumped::Whole)),
        other => other?,
    };
    dumped = dumped
        .and(socket.dump(GET_CHAIN, NEW_CHAIN, |body| take_chain(&mut tables, body))?)
        .and(socket.dump(GET_RULE, NEW_RULE, |body| take_rule(&mut tables, body))?);
    for table in &mut tables {
        for set in std::mem::take(&mut table.state_sets) {
            let question =
                [name(NFTA_ELEMENTS_TABLE, &table.name), name(NFTA_ELEMENTS_SET, &set.name)];
            let mut elements = Vec::new();
            let listed = socket.dump_of(
                GET_ELEMENT,
                NEW_ELEMENT,
                family_number(&table.family),
                &question.concat(),
                |body| take_elements(&mut elements, body),
            );
            // A set that went meanwhile went with its rule.
            if let Ok(listed) = listed {
                dumped = dumped.and(listed);
                decide(table, &set, &elements);
            }
        }
    }
    Ok((tables, dumped))
}

/// What a rule does that looks the state up, now that it is known what is in its set or map.
fn decide(table: &mut RuleTable, set: &StateSet, elements: &[(Option<u32>, Act)]) {
    // Several at once, or a range: it is left as unknown as it was.
    if elements.iter().any(|(state, _)| state.is_none()) {
        return;
    }
    let of = |wanted: u32| elements.iter().find(|(state, _)| *state == Some(wanted));
    let chain = table.chains.iter_mut().find(|chain| chain.name == set.chain);
    let rule = chain.and_then(|c| c.rules.iter_mut().find(|rule| rule.number == set.rule));
    let Some(rule) = rule else { return };
    let asks = of(UNTRACKED).is_some() != set.is_inverted;
    let unknown = |condition: &&mut Condition| **condition == Condition::Tracking(None);
    if let Some(condition) = rule.conditions.iter_mut().find(unknown) {
        *condition = Condition::Tracking(Some(asks));
    }
    let on_invalid = match set.is_map {
        false => of(INVALID).filter(|_| !set.is_inverted).map(|_| rule.act.clone()),
        true => of(INVALID).map(|(_, act)| act.clone()),
    };
    if set.is_map {
        // Where nothing is said of untracked packets, the rule stands for what it does with others.
        let lets_in = |(_, act): &&(Option<u32>, Act)| !matches!(act, Act::Drop | Act::Next);
        let stands = of(UNTRACKED).or_else(|| elements.iter().find(lets_in));
        rule.act = stands.map_or(Act::Drop, |(_, act)| act.clone());
    }
    let its = |rule: &&mut RuleUse| (&rule.chain, rule.number) == (&set.chain, set.rule);
    if let Some(found) = table.uses.iter_mut().find(its) {
        found.on_invalid = on_invalid;
    }
}

/// An attribute with a name.
fn name(kind: u16, name: &str) -> Vec<u8> {
    const HEADER: usize = 4;
    // A name of nftables has at most 255 bytes.
    let len = u16::try_from(HEADER + name.len() + 1).unwrap_or(u16::MAX);
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// One message of a dump of a set: each state in it, if it is one alone, and what a map does with it.
pub fn take_elements(taken: &mut Vec<(Option<u32>, Act)>, body: &[u8]) -> Result<()> {
    let Some(elements) = attribute(after_header(body)?, NFTA_ELEMENTS) else { return Ok(()) };
    attributes(elements, |_, element| {
        let value =
            attribute(element, NFTA_ELEMENT_KEY).and_then(|key| attribute(key, NFTA_DATA_VALUE));
        // A state and nothing else: one number.
        let state = value.filter(|value| value.len() == 4).and_then(|value| value.first_chunk());
        let is_range = attribute(element, NFTA_ELEMENT_FLAGS).and_then(be32).unwrap_or(0) != 0;
        let state = state.filter(|_| !is_range).map(|state| u32::from_ne_bytes(*state));
        let act = attribute(element, NFTA_ELEMENT_DATA)
            .and_then(|data| attribute(data, NFTA_DATA_VERDICT))
            .map_or(Act::Next, verdict);
        taken.push((state, act));
        Ok(())
    })
}

/// The kernel has no such part of netfilter.
pub(super) fn is_unknown(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    matches!(code, Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// `nfgen_family`, as nft names it.
fn family(body: &[u8]) -> &'static str {
    match body.first() {
        Some(1) => "inet",
        Some(2) => "ip",
        Some(3) => "arp",
        Some(5) => "netdev",
        Some(7) => "bridge",
        Some(10) => "ip6",
        _ => "unknown",
    }
}

/// The other way round.
fn family_number(name: &str) -> u8 {
    match name {
        "inet" => 1,
        "ip" => 2,
        "arp" => 3,
        "netdev" => 5,
        "bridge" => 7,
        "ip6" => 10,
        _ => 0,
    }
}

fn after_header(body: &[u8]) -> Result<&[u8]> {
    body.get(NFGENMSG..).context("an answer without a netfilter header")
}

/// One message of a dump of tables.
pub fn take_table(tables: &mut Vec<RuleTable>, body: &[u8]) -> Result<()> {
    let name = attribute(after_header(body)?, NFTA_TABLE_NAME).context("a table has no name")?;
    tables.push(RuleTable::new(Framework::Nft, family(body), text(name)));
    Ok(())
}

/// The table of this name; it may have been made since they were listed.
fn table<'a>(tables: &'a mut Vec<RuleTable>, body: &[u8], name: &[u8]) -> &'a mut RuleTable {
    let (family, name) = (family(body), text(name));
    let at = tables.iter().position(|table| table.family == family && table.name == name);
    let at = at.unwrap_or_else(|| {
        tables.push(RuleTable::new(Framework::Nft, family, name));
        tables.len() - 1
    });
    &mut tables[at]
}

/// One message of a dump of chains.
pub fn take_chain(tables: &mut Vec<RuleTable>, body: &[u8]) -> Result<()> {
    let chain = after_header(body)?;
    let of = attribute(chain, NFTA_CHAIN_TABLE).context("a chain is of no table")?;
    let is_nat = attribute(chain, NFTA_CHAIN_TYPE).is_some_and(|kind| text(kind) == "nat");
    let name = text(attribute(chain, NFTA_CHAIN_NAME).context("a chain has no name")?);
    let number = |of: Option<&[u8]>, kind| attribute(of?, kind).and_then(be32);
    let hook = attribute(chain, NFTA_CHAIN_HOOK);
    let table = table(tables, body, of);
    if is_nat {
        table.nat_chains.push(name.clone());
    }
    if let Some(at) = number(hook, NFTA_HOOK_HOOKNUM) {
        let priority = number(hook, NFTA_HOOK_PRIORITY).unwrap_or_default().cast_signed();
        let mut base = Base::of(is_nat, hook_name(&table.family, at), priority);
        base.drops = number(Some(chain), NFTA_CHAIN_POLICY) == Some(NF_DROP);
        table.chain(&name).base = Some(base);
    } else {
        table.chain(&name);
    }
    Ok(())
}

fn hook_name(family: &str, number: u32) -> &'static str {
    /// `enum nf_inet_hooks`
    const HOOKS: [&str; 6] = ["prerouting", "input", "forward", "output", "postrouting", "ingress"];
    let at = usize::try_from(number).ok().filter(|_| matches!(family, "ip" | "ip6" | "inet"));
    at.and_then(|at| HOOKS.get(at)).copied().unwrap_or("another hook")
}

/// What nft keeps beside a rule: a kind, a length, and a text.
/// <https://git.netfilter.org/libnftnl/tree/include/libnftnl/udata.h>
fn comment(userdata: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    let mut rest = userdata;
    while let [kind, len, after @ ..] = rest {
        let value = after.get(..usize::from(*len))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        rest = &after[value.len()..];
    }
    None
}

/// One message of a dump of rules.
pub fn take_rule(tables: &mut Vec<RuleTable>, body: &[u8]) -> Result<()> {
    let rule = after_header(body)?;
    let of = attribute(rule, NFTA_RULE_TABLE).context("a rule is of no table")?;
    let chain = attribute(rule, NFTA_RULE_CHAIN).context("a rule is of no chain")?;
    let handle =
        attribute(rule, NFTA_RULE_HANDLE).and_then(be64).context("a rule has no handle")?;
    let mut read = Reading::default();
    let mut asked = Expressions::default();
    if let Some(expressions) = attribute(rule, NFTA_RULE_EXPRESSIONS) {
        attributes(expressions, |_, expression| {
            let name = attribute(expression, NFTA_EXPR_NAME).context("an expression of no name")?;
            let (name, data) = (text(name), attribute(expression, NFTA_EXPR_DATA));
            read.take(&name, data.unwrap_or_default());
            asked.take(&name, data.unwrap_or_default());
            Ok(())
        })?;
    }
    let chain = text(chain);
    let Expressions { conditions, act, comment: written, .. } = asked;
    let comment = attribute(rule, NFTA_RULE_USERDATA).and_then(comment).or(written);
    let set = read.state_set(&chain, handle);
    let found = read.finish(chain.clone(), handle, &act);
    let table = table(tables, body, of);
    if table.state_sets.len() < MOST_SETS {
        table.state_sets.extend(set);
    }
    table.add(found);
    table.keep(&chain, Rule { number: handle, conditions, act, comment });
    Ok(())
}

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nf_tables.h>
const NFTA_OBJREF_IMM_TYPE: u16 = 1;
const NFT_OBJECT_CT_HELPER: u32 = 3;
const NFT_OBJECT_CONNLIMIT: u32 = 5;
const NFT_OBJECT_CT_TIMEOUT: u32 = 7;
const NFT_OBJECT_CT_EXPECT: u32 = 9;
const NFT_OBJECT_SYNPROXY: u32 = 10;

/// What was seen of a rule's expressions so far.
#[derive(Default)]
struct Reading {
    by: Vec<String>,
    notrack: bool,
    needs: bool,
    packets: Option<u64>,
    state: State,
    /// In which the state is looked up, whether that is a map, and whether what is not in it counts.
    set: Option<(String, bool, bool)>,
    /// The matches of iptables that ask what conntrack knows.
    asked: Vec<Match>,
}

/// `ct state invalid` is three expressions: load the state, keep one bit of it, and compare that
/// with nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    None,
    Loaded,
    /// With the bits that are kept: INVALID, and perhaps that a packet is not tracked.
    Masked(u32),
    Invalid,
    /// That, and what is not tracked.
    InvalidOrUntracked,
    LookedUp,
    /// Something else is asked for too, or in another way.
    Other,
}

impl Reading {
    fn say(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.by.contains(&what) {
            self.by.push(what);
        }
    }

    fn take(&mut self, name: &str, data: &[u8]) {
        match name {
            "ct" => {
                self.needs = true;
                self.packets = None;
                let key = attribute(data, NFTA_CT_KEY).and_then(be32);
                self.say(if key == Some(NFT_CT_STATE) { "ct state" } else { "ct" });
                self.state = match self.state {
                    State::None if key == Some(NFT_CT_STATE) => State::Loaded,
                    _ => State::Other,
                };
            }
            "lookup" if self.state == State::Loaded => self.look_up(data),
            "bitwise" | "cmp" | "lookup" | "range" => self.compare(name, data),
            "objref" => {
                // Out of a map it may be anything.
                let what = match attribute(data, NFTA_OBJREF_IMM_TYPE).and_then(be32) {
                    Some(NFT_OBJECT_CT_HELPER) => "ct helper",
                    Some(NFT_OBJECT_CONNLIMIT) => "connlimit",
                    Some(NFT_OBJECT_CT_TIMEOUT) => POLICY,
                    Some(NFT_OBJECT_CT_EXPECT) => "ct expectation",
                    Some(NFT_OBJECT_SYNPROXY) => "synproxy",
                    Some(_) => return,
                    None => "an object out of a map",
                };
                self.needs = true;
                self.say(what);
            }
            "nat" | "masq" | "redir" | "connlimit" | "synproxy" | "flow_offload" => {
                self.needs = true;
                self.say(match name {
                    "masq" => "masquerade",
                    "redir" => "redirect",
                    other => other,
                });
            }
            "notrack" => {
                self.notrack = true;
                self.say("notrack");
            }
            "match" => self.xt_match(data),
            "target" => self.xt_target(data),
            // What it counted has come through all that stands before it, and only through that.
            "counter" => self.packets = attribute(data, NFTA_COUNTER_PACKETS).and_then(be64),
            "limit" | "quota" => self.packets = None,
            _ => {}
        }
    }

    fn compare(&mut self, name: &str, data: &[u8]) {
        self.packets = None;
        let value = |kind| {
            let value = attribute(attribute(data, kind)?, NFTA_DATA_VALUE)?;
            value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
        };
        self.state = match (self.state, name) {
            (State::Loaded, "bitwise") => match value(NFTA_BITWISE_MASK) {
                Some(mask) if mask & INVALID != 0 && mask & !(INVALID | UNTRACKED) == 0 => {
                    State::Masked(mask)
                }
                _ => State::Other,
            },
            (State::Masked(mask), "cmp")
                if attribute(data, NFTA_CMP_OP).and_then(be32) == Some(NFT_CMP_NEQ)
                    && value(NFTA_CMP_DATA) == Some(0) =>
            {
                if mask == INVALID {
                    State::Invalid
                } else {
                    State::InvalidOrUntracked
                }
            }
            // nft writes a single state of a set like that, too.
            (State::Loaded, "cmp")
                if attribute(data, NFTA_CMP_OP).and_then(be32) == Some(NFT_CMP_EQ)
                    && value(NFTA_CMP_DATA) == Some(INVALID) =>
            {
                State::Invalid
            }
            (State::Loaded | State::Masked(_), _) => State::Other,
            (state, _) => state,
        };
    }

    /// In a set, or in a map with the verdict; or what is not in it.
    fn look_up(&mut self, data: &[u8]) {
        self.packets = None;
        let is_inverted = attribute(data, NFTA_LOOKUP_FLAGS).and_then(be32).unwrap_or(0) != 0;
        let set = attribute(data, NFTA_LOOKUP_SET).map(text);
        self.state = State::LookedUp;
        let is_map = attribute(data, NFTA_LOOKUP_DREG).is_some();
        self.set = set.map(|set| (set, is_map, is_inverted));
        if is_map {
            self.by.retain(|what| what != "ct state");
            self.say(VMAP);
        }
    }

    /// Where it is asked what the state means for a packet.
    fn state_set(&self, chain: &str, rule: u64) -> Option<StateSet> {
        let (name, is_map, is_inverted) = self.set.clone()?;
        Some(StateSet { name, chain: chain.to_owned(), rule, is_map, is_inverted })
    }

    fn xt_match(&mut self, data: &[u8]) {
        self.packets = None;
        let name = attribute(data, NFTA_XT_NAME).map(text).unwrap_or_default();
        match xtables::matched(&name, attribute(data, NFTA_XT_INFO).unwrap_or_default()) {
            Match::Other => return,
            asked => self.asked.push(asked),
        }
        self.needs = true;
        self.say(format!("-m {name}"));
    }

    fn xt_target(&mut self, data: &[u8]) {
        let name = attribute(data, NFTA_XT_NAME).map(text).unwrap_or_default();
        match xtables::target(&name, attribute(data, NFTA_XT_INFO).unwrap_or_default()) {
            Jump::Other => {}
            Jump::Tracking => {
                self.needs = true;
                self.say(format!("-j {name}"));
            }
            Jump::Timeout => {
                self.needs = true;
                self.say(POLICY_OF_IPTABLES);
            }
            Jump::NoTrack => {
                self.notrack = true;
                self.say("notrack");
            }
        }
    }

    fn finish(self, chain: String, number: u64, act: &Act) -> Option<RuleUse> {
        let Self { by, notrack, needs, packets, state, mut asked, .. } = self;
        asked.extend(match state {
            State::None => None,
            State::Invalid => Some(Match::Invalid),
            State::InvalidOrUntracked => Some(Match::InvalidOrUntracked),
            State::Loaded | State::Masked(_) | State::LookedUp | State::Other => {
                Some(Match::Tracking)
            }
        });
        let packets = xtables::of_invalid(&asked, packets)
            .filter(|count| *count == 0 || state != State::LookedUp);
        (needs || notrack).then_some(RuleUse {
            chain,
            number,
            by,
            notrack: notrack && !needs,
            on_invalid: xtables::are_invalid(&asked).then(|| act.clone()),
            packets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = 4 + value.len() as u16;
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn named(kind: u16, name: &str) -> Vec<u8> {
        attr(kind, &[name.as_bytes(), &[0]].concat())
    }

    fn expression(name: &str, data: &[u8]) -> Vec<u8> {
        attr(1, &[named(1, name), attr(2, data)].concat())
    }

    fn rule(expressions: &[Vec<u8>]) -> Vec<u8> {
        let parts = [
            named(NFTA_RULE_TABLE, "filter"),
            named(NFTA_RULE_CHAIN, "forward"),
            attr(NFTA_RULE_HANDLE, &7u64.to_be_bytes()),
            attr(NFTA_RULE_EXPRESSIONS, &expressions.concat()),
        ];
        [vec![1, 0, 0, 0], parts.concat()].concat()
    }

    fn invalid_drop(mask: u32, op: u32) -> Vec<u8> {
        let value = |kind, value: u32| attr(kind, &attr(1, &value.to_ne_bytes()));
        rule(&[
            expression("ct", &attr(2, &0u32.to_be_bytes())),
            expression("bitwise", &value(4, mask)),
            expression("cmp", &[attr(2, &op.to_be_bytes()), value(3, 0)].concat()),
            expression("counter", &attr(2, &42u64.to_be_bytes())),
            expression("immediate", &attr(2, &attr(2, &attr(1, &0u32.to_be_bytes())))),
        ])
    }

    fn taken(body: &[u8]) -> RuleTable {
        let mut tables = Vec::new();
        take_rule(&mut tables, body).unwrap();
        tables.remove(0)
    }

    #[test]
    fn what_drops_invalid_packets_is_known_only_for_certain() {
        let table = taken(&invalid_drop(1, 1));
        let expected = RuleUse {
            chain: "forward".to_owned(),
            number: 7,
            by: vec!["ct state".to_owned()],
            notrack: false,
            on_invalid: Some(Act::Drop),
            packets: Some(42),
        };
        assert_eq!((&*table.family, table.rules, &table.uses[..]), ("inet", 1, &[expected][..]));
        assert!(taken(&invalid_drop(3, 1)).uses[0].on_invalid.is_none(), "others too");
        assert!(taken(&invalid_drop(1, 0)).uses[0].on_invalid.is_none(), "all but those");
    }

    #[test]
    fn all_forms_of_a_rule_on_invalid_packets_are_known() {
        let both = &taken(&invalid_drop(1 | 1 << 6, 1)).uses[0];
        assert!(both.on_invalid.is_some() && both.packets.is_none(), "{both:?}");
        let number = |kind, value: u32| attr(kind, &value.to_be_bytes());
        let state = || expression("ct", &[number(1, 1), number(2, 0)].concat());
        let drop = || expression("immediate", &attr(2, &attr(2, &number(1, 0))));
        let look_up = |more: &[u8]| {
            expression("lookup", &[&named(1, "__set7")[..], &number(2, 1), more].concat())
        };
        // ct state { invalid, untracked } drop
        let table = taken(&rule(&[state(), look_up(&[]), drop()]));
        let set = StateSet {
            name: "__set7".to_owned(),
            chain: "forward".to_owned(),
            rule: 7,
            is_map: false,
            is_inverted: false,
        };
        assert_eq!(table.state_sets, std::slice::from_ref(&set));
        let others = taken(&rule(&[state(), look_up(&number(5, 1)), drop()]));
        assert!(others.state_sets[0].is_inverted, "{others:?}");
        // ct state vmap { established : accept, invalid : drop }
        let mapped = taken(&rule(&[state(), look_up(&number(3, 0))]));
        let map = StateSet { is_map: true, ..set.clone() };
        assert_eq!(
            (&mapped.state_sets[..], &mapped.uses[0].by[..]),
            (&[map][..], &[VMAP.to_owned()][..])
        );

        let element = |state: u32, verdict: u32| {
            let key = attr(1, &attr(1, &state.to_ne_bytes()));
            attr(1, &[key, attr(2, &attr(2, &number(1, verdict)))].concat())
        };
        // What it does with INVALID packets, and with those that are not tracked.
        let decided = |of: &RuleTable, elements: &[Vec<u8>]| {
            let body = [vec![1, 0, 0, 0], attr(3, &elements.concat())].concat();
            let (mut taken, mut table) = (Vec::new(), of.clone());
            take_elements(&mut taken, &body).unwrap();
            let set = table.state_sets.remove(0);
            decide(&mut table, &set, &taken);
            let rule = table.chains.remove(0).rules.remove(0);
            (table.uses.remove(0).on_invalid, rule.conditions, rule.act)
        };
        let asks = |untracked| vec![Condition::Tracking(untracked)];
        let (accept, drop) = (|| Act::Accept, || Act::Drop);
        let of_map = |elements: &[Vec<u8>]| decided(&mapped, elements);
        assert_eq!(
            of_map(&[element(2, 1), element(1, 0)]),
            (Some(drop()), asks(Some(false)), accept())
        );
        assert_eq!(
            of_map(&[element(2, 0), element(1, 1), element(64, 0)]),
            (Some(accept()), asks(Some(true)), drop())
        );
        assert_eq!(of_map(&[element(3, 1)]).0, None, "several at once");
        let range = attr(1, &[attr(1, &attr(1, &1u32.to_ne_bytes())), number(3, 1)].concat());
        assert_eq!(of_map(&[range]), (None, asks(None), Act::Unknown));
        let of_set = |elements: &[Vec<u8>]| decided(&table, elements);
        assert_eq!(
            of_set(&[element(64, 1), element(1, 1)]),
            (Some(drop()), asks(Some(true)), drop())
        );
        assert_eq!(of_set(&[element(64, 1)]), (None, asks(Some(true)), drop()));
        assert_eq!(of_set(&[]), (None, asks(Some(false)), drop()));
        assert_eq!(decided(&others, &[element(1, 1)]), (None, asks(Some(true)), drop()));
    }

    #[test]
    fn rules_that_need_tracking_are_told_from_those_that_avoid_it() {
        let of = |name: &str| taken(&rule(&[expression(name, &[])])).uses;
        assert_eq!(of("masq")[0].by, ["masquerade"]);
        assert!(of("notrack")[0].notrack);
        assert!(of("limit").is_empty());
        let xt = |kind: &str, name: &str, info: &[u8]| {
            taken(&rule(&[expression(kind, &[named(1, name), attr(3, info)].concat())])).uses
        };
        assert_eq!(xt("match", "conntrack", &[])[0].by, ["-m conntrack"]);
        assert_eq!(xt("target", "MASQUERADE", &[])[0].by, ["-j MASQUERADE"]);
        assert!(xt("target", "CT", &[1, 0])[0].notrack);
        assert!(xt("match", "tcp", &[]).is_empty());
    }

    #[test]
    fn what_stands_beside_a_rule_is_read() {
        assert_eq!(comment(&[0, 3, b'a', b'b', 0]).as_deref(), Some("ab"));
        assert_eq!(comment(&[1, 1, 9, 0, 2, b'x', 0]).as_deref(), Some("x"));
        assert_eq!(comment(&[0, 9, b'a']), None);
    }

    #[test]
    fn an_empty_chain_for_nat_is_remembered() {
        let mut tables = Vec::new();
        let table = [vec![2, 0, 0, 0], named(1, "nat")].concat();
        take_table(&mut tables, &table).unwrap();
        let chain = |kind: &str| {
            [vec![2, 0, 0, 0], named(1, "nat"), named(3, "POSTROUTING"), named(7, kind)].concat()
        };
        take_chain(&mut tables, &chain("nat")).unwrap();
        take_chain(&mut tables, &chain("filter")).unwrap();
        assert_eq!((tables.len(), &tables[0].nat_chains[..]), (1, &["POSTROUTING".to_owned()][..]));
    }

    #[test]
    fn truncated_and_absurd_answers_are_errors_not_panics() {
        let whole = invalid_drop(1, 1);
        let read = |bytes: &[u8]| {
            let mut tables = Vec::new();
            let _ = take_rule(&mut tables, bytes);
            let _ = take_chain(&mut tables, bytes);
            let _ = take_table(&mut tables, bytes);
        };
        for len in 0..whole.len() {
            read(&whole[..len]);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                read(&bytes);
            }
        }
    }
}
