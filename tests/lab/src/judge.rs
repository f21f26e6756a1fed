//! What the kernel itself says; nothing of ctwatch's own reading is used.

use anyhow::{Context, Result};

use crate::{netfilter, netns::Netns};

/// Summed over CPUs, since the namespace was handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub entries: u64,
    pub invalid: u64,
    pub insert_failed: u64,
    pub drop: u64,
    pub early_drop: u64,
    /// 0 also where the kernel has no such limit: see [`limits_chains`].
    pub chaintoolong: u64,
    pub clash_resolve: u64,
}

/// Conntrack's counters in this namespace, and its number of entries.
pub fn ask(netns: &Netns) -> Result<Verdict> {
    let now = netns.within(netfilter::counted)??;
    let since = netns.since;
    let more = |now: u64, since: u64| now.checked_sub(since).context("conntrack counts from zero");
    Ok(Verdict {
        entries: now.entries,
        invalid: more(now.invalid, since.invalid)?,
        insert_failed: more(now.insert_failed, since.insert_failed)?,
        drop: more(now.drop, since.drop)?,
        early_drop: more(now.early_drop, since.early_drop)?,
        chaintoolong: more(now.chaintoolong, since.chaintoolong)?,
        clash_resolve: more(now.clash_resolve, since.clash_resolve)?,
    })
}

/// What `conntrack -S` and `conntrack -C` say, since the namespace was made: for a second opinion.
pub fn by_conntrack(netns: &Netns) -> Result<Verdict> {
    let count = netns.run(&["conntrack", "-C"])?;
    let entries = count.trim().parse()?;
    Ok(Verdict { entries, ..summed(&netns.run(&["conntrack", "-S"])?) })
}

/// Whether this kernel limits how long a hash chain may grow (Linux 5.15): then it counts what it
/// refuses for that.
pub fn limits_chains() -> Result<bool> {
    netfilter::counts_long_chains()
}

/// `cpu=0 found=0 invalid=0 … drop=1781 early_drop=19 …`
fn summed(text: &str) -> Verdict {
    let mut verdict = Verdict::default();
    for field in text.split_whitespace() {
        let Some((name, value)) = field.split_once('=') else { continue };
        let value: u64 = value.parse().unwrap_or(0);
        match name {
            "invalid" => verdict.invalid += value,
            "insert_failed" => verdict.insert_failed += value,
            "drop" => verdict.drop += value,
            "early_drop" => verdict.early_drop += value,
            "chaintoolong" => verdict.chaintoolong += value,
            "clash_resolve" => verdict.clash_resolve += value,
            _ => {}
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_summed_over_cpus() {
        let text = "cpu=0   \tfound=0 invalid=1 drop=2 early_drop=3 \ncpu=1 invalid=10 drop=20 chaintoolong=5";
        let verdict = summed(text);
        assert_eq!((verdict.invalid, verdict.drop, verdict.early_drop), (11, 22, 3));
        assert_eq!(verdict.chaintoolong, 5);
    }
}
