//! docs/platforms.md: machine, kernel, verb. Made of the ledger, whenever that is written, so that
//! nothing stands there that was not run.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result};
use ctwatch_provision::{kernels::Kind, machine::Machine, process::root};

use super::{KERNELS, ledger::Ledger, ledger::Outcome};

pub(super) const FILE: &str = "docs/platforms.md";

/// Verbs, and what is in the names of trials that try them; the first that fits. All others watch.
const VERBS: [(&str, &[&str]); 8] = [
    ("doctor", &["doctor", "advice", "situation", "listed_table", "lookalike"]),
    ("census", &["census", "where_the_code_says"]),
    ("check", &["check_"]),
    ("trace", &["trace", "traced"]),
    ("serve", &["scrapes", "series", "metrics", "clients_do", "prometheus"]),
    ("record", &["record", "plays_back"]),
    ("top", &["top_"]),
    ("collect", &["collect", "large_table_is_cut", "offline"]),
];
const WATCH: &str = "watch";

const HEAD: &str = "# Machines, kernels, verbs

Made of [tests/matrix.tsv](../tests/matrix.tsv), which `cargo xtask test` and `cargo xtask matrix` write: how many
tests of each verb held when they were run last, on Debian's kernels in virtual machines. Each compares what ctwatch
says with conntrack's own counters and with what was sent. `3 of 4`: one failed. An empty cell: none was run.
";

const TAIL: &str = "
What is exact depends on the mechanism: [how far to trust a number](exactness.md). All of a kernel's mechanisms are
tested; ctwatch takes the first that its kernel allows. Where a kernel of aarch64 refuses the programs of `fexit`,
as 6.1 does, ctwatch says so and counts by kprobe.

## armv7

`cargo xtask build --machine armv7` makes an executable without probes, and `cargo xtask dist --machine armv7` packages of
it: a CPU of 32 bits lays out the kernel's structures otherwise. ctwatch says so, first of all, wherever it says how it
counts.

| verb | armv7 |
| --- | --- |
| `watch`, `top`, `serve`, `record` | by counters: fill, drops as bounds; not whose, and no insertions ([counters](exactness.md)) |
| `census` | by ctnetlink, or /proc/net/nf_conntrack |
| `check`, `doctor`, `collect`, and all that is read from files | as everywhere |
| `trace` | not there: it needs probes |

The command line, `check` and all that reads files are tested in each run, under qemu-user, which knows no
conntrack. Its packages, and those for aarch64, are opened in each run: each must state its machine, and hold the static
executable for it.

In Debian's kernel of 32 bits, emulated, `cargo xtask matrix --kernel 6.12-armmp` runs what needs no programs (the table
above has it); no run of `cargo xtask test` does. `cargo xtask vm --kernel 6.12-armmp` boots it.

";

pub(crate) fn page(ledger: &Ledger) -> String {
    let mut text = HEAD.to_owned();
    text.push_str("\n| machine | kernel | counts by |");
    let verbs = || std::iter::once(WATCH).chain(VERBS.map(|(verb, _)| verb));
    verbs().for_each(|verb| {
        let _ = write!(text, " `{verb}` |");
    });
    text.push_str("\n| --- | --- | --- |");
    text.push_str(&" --- |".repeat(verbs().count()));
    text.push('\n');
    for (kernel, mechanisms) in KERNELS {
        let (version, kind) = Kind::of(kernel);
        let machine = match kind {
            Kind::Arm64 => Machine::Aarch64,
            Kind::Armmp => Machine::Armv7,
            Kind::Own | Kind::RealTime => Machine::X86_64,
        };
        let real_time = if kind == Kind::RealTime { ", PREEMPT_RT" } else { "" };
        let (machine, by) = (machine.name(), mechanisms.join(", "));
        let _ = write!(text, "| {machine} | {version}{real_time} | {by} |");
        for verb in verbs() {
            let _ = write!(text, " {} |", cell(ledger, kernel, verb));
        }
        text.push('\n');
    }
    text + TAIL.trim_end() + "\n"
}

fn cell(ledger: &Ledger, kernel: &str, verb: &str) -> String {
    let of = ledger.of(kernel).filter(|(trial, _)| verb_of(trial) == verb);
    let ran = of.filter(|(_, outcome)| *outcome != Outcome::NotApplicable);
    let (passed, all) = ran.fold((0, 0), |(passed, all), (_, outcome)| {
        (passed + u32::from(outcome == Outcome::Passed), all + 1)
    });
    match (passed, all) {
        (_, 0) => String::new(),
        (passed, all) if passed == all => all.to_string(),
        (passed, all) => format!("{passed} of {all}"),
    }
}

fn verb_of(trial: &str) -> &'static str {
    let fits = |parts: &&[&str]| parts.iter().any(|part| trial.contains(part));
    VERBS.iter().find(|(_, parts)| fits(parts)).map_or(WATCH, |(verb, _)| verb)
}

pub(super) fn write(ledger: &Ledger) -> Result<()> {
    fs::write(path(), page(ledger)).with_context(|| format!("cannot write {FILE}"))
}

fn path() -> PathBuf {
    root().join(FILE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::matrix::{Cell, ledger::Entry};

    #[test]
    fn the_page_is_what_the_ledger_says() {
        let page = page(&Ledger::read().unwrap());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(path(), &page).unwrap();
        }
        assert!(
            fs::read_to_string(path()).unwrap_or_default() == page,
            "{FILE} is not made of tests/matrix.tsv: UPDATE_EXPECT=1 cargo test -p xtask platforms"
        );
    }

    #[test]
    fn what_failed_or_was_not_run_is_seen() {
        let mut ledger = Ledger::default();
        let arm = super::super::ARM;
        for (trial, outcome) in [
            ("fexit::udp_into_a_full_table", Outcome::Passed),
            ("a_census_agrees", Outcome::Failed),
            ("a_census_tells", Outcome::Passed),
            ("the_doctor_and_chains", Outcome::NotApplicable),
        ] {
            let entry = Entry { run: 1, took: Duration::ZERO, outcome };
            ledger.put(Cell::new(arm, trial), entry);
        }
        let cells = ["watch", "census", "doctor", "check"].map(|verb| cell(&ledger, arm, verb));
        assert_eq!(cells, ["1", "1 of 2", "", ""]);
    }
}
