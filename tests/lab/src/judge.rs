//! What the kernel itself says, by way of `conntrack`: nothing of ctwatch's own reading is used.

use std::process::Command;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// Summed over CPUs, since the namespace was made.
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

/// `conntrack -S` and `conntrack -C` in this namespace.
pub fn ask(netns: &Netns) -> Result<Verdict> {
    let statistics = netns.run(&["conntrack", "-S"])?;
    let count = netns.run(&["conntrack", "-C"])?;
    let entries = count.trim().parse().with_context(|| format!("conntrack -C said {count:?}"))?;
    Ok(Verdict { entries, ..summed(&statistics) })
}

/// Whether this kernel limits how long a hash chain may grow (Linux 5.15): then it counts what it
/// refuses for that.
pub fn limits_chains() -> bool {
    let statistics = Command::new("conntrack").arg("-S").output();
    statistics.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("chaintoolong="))
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
