//! `/proc/net/stat/nf_conntrack`: the counters where ctnetlink may not be asked.
//!
//! A row a CPU, in hexadecimal, under a header that names the columns; which columns there are
//! differs between kernels, so the header is believed.
//! <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_standalone.c>

use std::{fs, io::ErrorKind};

use anyhow::{Context, Result, bail, ensure};

use crate::record::counters::CpuCounters;

/// Of the calling thread's namespace (`/proc/net` would be that of the process).
const PATH: &str = "/proc/thread-self/net/stat/nf_conntrack";

/// How many entries there are, and the counters.
pub fn read() -> Result<(Option<u32>, Vec<CpuCounters>)> {
    let text = match fs::read_to_string(PATH) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no {PATH}: a kernel without CONFIG_NF_CONNTRACK_PROCFS")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {PATH}")),
    };
    let counters = parse(&text).with_context(|| format!("{PATH} is not what it should be"))?;
    Ok((entries(&text), counters))
}

pub fn counters() -> Result<Vec<CpuCounters>> {
    read().map(|(_, counters)| counters)
}

/// In each row the same: that of the whole namespace.
fn entries(text: &str) -> Option<u32> {
    let mut lines = text.lines().map(str::split_whitespace);
    let at = lines.next()?.position(|name| name == "entries")?;
    u32::from_str_radix(lines.next()?.nth(at)?, 16).ok()
}

pub fn parse(text: &str) -> Result<Vec<CpuCounters>> {
    let mut lines = text.lines();
    let header: Vec<_> = lines.next().context("it is empty")?.split_whitespace().collect();
    ensure!(header.contains(&"drop"), "its header has no column drop");
    lines.enumerate().map(|(cpu, line)| row(&header, cpu, line)).collect()
}

/// A row, under a header with these columns.
pub fn row(header: &[&str], cpu: usize, line: &str) -> Result<CpuCounters> {
    let mut counters =
        CpuCounters { cpu: u16::try_from(cpu).context("too many rows")?, ..Default::default() };
    let mut fields = line.split_whitespace();
    for name in header {
        let field = fields.next().with_context(|| format!("row {cpu} has no {name}"))?;
        let value = u32::from_str_radix(field, 16)
            .with_context(|| format!("row {cpu}: {name} is {field:?}"))?;
        match *name {
            "found" => counters.found = value,
            "invalid" => counters.invalid = value,
            "insert" => counters.insert = value,
            "delete_list" => counters.delete_list = Some(value),
            "insert_failed" => counters.insert_failed = value,
            "drop" => counters.drop = value,
            "early_drop" => counters.early_drop = value,
            // The header's own spelling.
            "icmp_error" => counters.error = value,
            "search_restart" => counters.search_restart = value,
            "clashres" => counters.clash_resolve = value,
            "chainlength" => counters.chaintoolong = Some(value),
            _ => {}
        }
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_6_18: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart";
    const ROW: &str = "000000c8  00000001 00000002 00000000 00000003 00000000 00000000 00000004 00000000 00000005 000006f7 00000006 00000007  00000000 00000000 00000000 00000008";

    #[test]
    fn columns_are_found_by_their_names() {
        let cpus = parse(&format!("{HEADER_6_18}\n{ROW}\n{ROW}\n")).unwrap();
        assert_eq!(cpus.len(), 2);
        let cpu = cpus[1];
        assert_eq!((cpu.cpu, cpu.drop, cpu.early_drop, cpu.insert_failed), (1, 1783, 6, 5));
        assert_eq!((cpu.invalid, cpu.clash_resolve, cpu.error), (3, 1, 7));
        assert_eq!((cpu.chaintoolong, cpu.search_restart), (Some(4), 8));
    }

    #[test]
    fn the_number_of_entries_is_in_each_row() {
        assert_eq!(entries(&format!("{HEADER_6_18}\n{ROW}\n{ROW}\n")), Some(200));
        assert_eq!(entries("drop\n1\n"), None);
        assert_eq!(entries("entries drop\n"), None);
    }

    #[test]
    fn an_older_kernel_has_no_chain_limit() {
        let cpus = parse("entries  searched drop\n00000001 00000000 00000009\n").unwrap();
        assert_eq!((cpus[0].drop, cpus[0].chaintoolong), (9, None));
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (text, complaint) in [
            ("", "empty"),
            ("nonsense\n1 2 3\n", "no column drop"),
            ("drop early_drop\n00000001\n", "row 0 has no early_drop"),
            ("drop\nzz\n", "row 0: drop is \"zz\""),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(complaint), "{text:?}: {error}");
        }
    }
}
