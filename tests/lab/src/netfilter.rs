//! What a lab asks of netfilter in the namespace of the calling thread, by netlink.

use anyhow::{Context, Result, ensure};

use crate::{
    judge::Verdict,
    netlink::{Messages, Socket, attributes},
};

const NFT: u16 = 10 << 8;
const CONNTRACK: u16 = 1 << 8;
const EXPECTATIONS: u16 = 2 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const INET: u8 = 1;
const NEW_TABLE: u16 = NFT;
const GET_TABLE: u16 = NFT | 1;
const DELETE_TABLE: u16 = NFT | 2;
const NEW_CHAIN: u16 = NFT | 3;
const NEW_RULE: u16 = NFT | 6;

/// `struct nfgenmsg`.
fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// All tables of nftables go, in one transaction, and where `tracking` is wanted its table comes.
pub(crate) fn lay_rules(tracking: bool) -> Result<()> {
    let mut batch = Messages::default();
    batch.quietly(BATCH_BEGIN, 0, &generic(0, NFT >> 8), "begin a transaction");
    batch.begin(DELETE_TABLE, 0, &generic(0, 0), "flush the ruleset");
    if tracking {
        track(&mut batch);
    }
    batch.quietly(BATCH_END, 0, &generic(0, NFT >> 8), "end a transaction");
    Socket::open(libc::NETLINK_NETFILTER)?.tell(&batch).context("cannot lay rules")
}

/// As [`TRACKING`](crate::topology::TRACKING) says it.
fn track(batch: &mut Messages) {
    const TABLE: &str = "lab";
    let create = libc::NLM_F_CREATE;
    let inet = generic(INET, 0);
    batch.begin(NEW_TABLE, create, &inet, "add a table");
    batch.text(1, TABLE);
    for (chain, hook) in [("in", 1_u32), ("forward", 2), ("out", 3)] {
        batch.begin(NEW_CHAIN, create, &inet, "add a chain");
        batch.text(1, TABLE).text(3, chain).text(7, "filter").nest(4, |at| {
            at.attribute(1, &hook.to_be_bytes()).attribute(2, &0_u32.to_be_bytes());
        });
        batch.begin(NEW_RULE, create | libc::NLM_F_APPEND, &inet, "add a rule");
        batch.text(1, TABLE).text(2, chain).nest(4, |rule| {
            expression(rule, "ct", |ct| {
                // The state, into the first register.
                ct.attribute(1, &1_u32.to_be_bytes()).attribute(2, &0_u32.to_be_bytes());
            });
            expression(rule, "bitwise", |mask| {
                mask.attribute(1, &1_u32.to_be_bytes()).attribute(2, &1_u32.to_be_bytes());
                mask.attribute(3, &4_u32.to_be_bytes());
                mask.nest(4, |value| _ = value.attribute(1, &ESTABLISHED.to_ne_bytes()));
                mask.nest(5, |value| _ = value.attribute(1, &0_u32.to_ne_bytes()));
            });
            expression(rule, "cmp", |differs| {
                differs.attribute(1, &1_u32.to_be_bytes()).attribute(2, &1_u32.to_be_bytes());
                differs.nest(3, |value| _ = value.attribute(1, &0_u32.to_ne_bytes()));
            });
            expression(rule, "counter", |_| {});
        });
    }
}

const ESTABLISHED: u32 = 2;

fn expression(rule: &mut Messages, name: &str, data: impl FnOnce(&mut Messages)) {
    rule.nest(1, |element| {
        element.text(1, name).nest(2, data);
    });
}

/// The names of the tables of nftables.
pub(crate) fn tables() -> Result<Vec<String>> {
    let mut names = Vec::new();
    Socket::open(libc::NETLINK_NETFILTER)?.dump(GET_TABLE, &generic(0, 0), |answer| {
        let mut of = attributes(answer.get(4..).unwrap_or_default());
        let name = of.find(|(kind, _)| *kind == 1).map_or(&[][..], |(_, name)| name);
        names.push(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
    })?;
    Ok(names)
}

/// Ends all entries, and with them what they expect.
pub(crate) fn flush() -> Result<()> {
    let mut messages = Messages::default();
    messages.begin(CONNTRACK | 2, 0, &generic(0, 0), "flush the entries");
    Socket::open(libc::NETLINK_NETFILTER)?.tell(&messages)
}

/// How many connections are expected.
pub(crate) fn expected() -> Result<usize> {
    let mut count = 0;
    let question = generic(0, 0);
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    socket.dump(EXPECTATIONS | 1, &question, |_| count += 1)?;
    Ok(count)
}

/// Conntrack's own counters summed over CPUs, and its number of entries.
pub(crate) fn counted() -> Result<Verdict> {
    let (mut verdict, mut cpus) = (Verdict::default(), 0);
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    socket.dump(CONNTRACK | 4, &generic(0, 0), |answer| {
        cpus += 1;
        for (kind, value) in attributes(answer.get(4..).unwrap_or_default()) {
            let value = value.first_chunk().map_or(0, |value| u32::from_be_bytes(*value));
            let sum = match kind {
                4 => &mut verdict.invalid,
                9 => &mut verdict.insert_failed,
                10 => &mut verdict.drop,
                11 => &mut verdict.early_drop,
                14 => &mut verdict.clash_resolve,
                15 => &mut verdict.chaintoolong,
                _ => continue,
            };
            *sum += u64::from(value);
        }
    })?;
    ensure!(cpus > 0, "the kernel counts on no CPU");
    verdict.entries = entries()?;
    Ok(verdict)
}

pub(crate) fn entries() -> Result<u64> {
    const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
    let text = std::fs::read_to_string(COUNT).with_context(|| format!("cannot read {COUNT}"))?;
    text.trim().parse().with_context(|| format!("{COUNT} says {text:?}"))
}

/// Whether the kernel's counters have one for chains that are too long.
pub(crate) fn counts_long_chains() -> Result<bool> {
    let mut found = false;
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    socket.dump(CONNTRACK | 4, &generic(0, 0), |answer| {
        found |= attributes(answer.get(4..).unwrap_or_default()).any(|(kind, _)| kind == 15);
    })?;
    Ok(found)
}
