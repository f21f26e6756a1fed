//! docs/matrix.md: scenario, kernel, mechanism. Made of the ledger, whenever that is written.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result};
use ctwatch_provision::process::root;

use super::{
    Cell, kernel_names,
    ledger::{Ledger, Outcome},
};

pub(super) const FILE: &str = "docs/matrix.md";

/// Mechanisms and their marks, in this order.
const MARKS: [(&str, &str); 4] =
    [("fexit", "f"), ("kprobe", "k"), ("tracepoint", "t"), ("counters", "c")];

const HEAD: &str = "# Kernels, mechanisms, scenarios

Made of [tests/matrix.tsv](../tests/matrix.tsv), which `cargo xtask test` and `cargo xtask matrix` write: what came of
each test of the live kernel when it was run last, on Debian's kernels in virtual machines, with each mechanism that
the kernel offers. Every figure is compared with conntrack's own counters and with what was sent: equal where it is
marked exact, inside its bounds where it is not.

f: fexit, k: kprobe, t: tracepoint, c: counters; capital where it failed, also where it held when it was run again;
`-` where it does not apply, `.` where it was never run.

";

fn page(ledger: &Ledger) -> String {
    let kernels = kernel_names();
    let mut text = format!("{HEAD}| scenario | {} |\n| --- |", kernels.join(" | "));
    text.push_str(&" --- |".repeat(kernels.len()));
    text.push('\n');
    for scenario in ledger.scenarios() {
        let cells = kernels.map(|kernel| cell(ledger, kernel, scenario));
        let _ = writeln!(text, "| {} | {} |", scenario.replace('_', " "), cells.join(" | "));
    }
    text
}

fn cell(ledger: &Ledger, kernel: &str, scenario: &str) -> String {
    let mechanisms = super::KERNELS.iter().find(|(name, _)| *name == kernel);
    let mechanisms = mechanisms.map_or(&[][..], |(_, mechanisms)| mechanisms);
    let mut cell = String::new();
    for (mechanism, mark) in MARKS.iter().filter(|(name, _)| mechanisms.contains(name)) {
        let trial = format!("{mechanism}::{scenario}");
        match ledger.get(&Cell::new(kernel, &trial)).map(|entry| entry.outcome) {
            Some(Outcome::Passed) => cell.push_str(mark),
            Some(Outcome::Failed | Outcome::Unsteady) => cell.push_str(&mark.to_uppercase()),
            Some(Outcome::NotApplicable) => cell.push('-'),
            None if *mechanism == "counters" => {}
            None => cell.push('.'),
        }
    }
    cell
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
    use crate::matrix::ledger::Entry;

    #[test]
    fn the_table_is_what_the_ledger_says() {
        let page = page(&Ledger::read().unwrap());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(path(), &page).unwrap();
        }
        assert!(
            fs::read_to_string(path()).unwrap_or_default() == page,
            "{FILE} is not made of tests/matrix.tsv: UPDATE_EXPECT=1 cargo test -p xtask table"
        );
    }

    #[test]
    fn each_mechanism_that_a_kernel_offers_has_a_mark() {
        let mut ledger = Ledger::default();
        for (trial, outcome) in [
            ("fexit::table_full", Outcome::Passed),
            ("kprobe::table_full", Outcome::Unsteady),
            ("kprobe::chains", Outcome::NotApplicable),
            ("counters::table_full", Outcome::Failed),
            ("of_the_kernel", Outcome::Passed),
        ] {
            let entry = Entry { run: 1, took: Duration::ZERO, outcome };
            ledger.put(Cell::new("6.1", trial), entry);
        }
        let page = page(&ledger);
        assert!(page.contains("\n| table full | .. | fK.C | ... |"), "{page}");
        assert!(page.contains("\n| chains | .. | .-. | ... |"), "{page}");
        assert!(!page.contains("of the kernel"), "{page}");
    }
}
