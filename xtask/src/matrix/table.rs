//! The cells as a page, and the costs as another.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result};

use super::{
    ledger::Outcome,
    run::{Kernel, Matrix},
};
use ctwatch_provision::process::root;

/// Mechanisms and their marks, in this order.
const MARKS: [(&str, &str); 4] =
    [("fexit", "f"), ("kprobe", "k"), ("tracepoint", "t"), ("counters", "c")];

/// What costs are of, how they are counted, and the columns.
const COSTS: [(&str, &str, &str); 3] = [
    (
        "What an event costs",
        "Instructions a packet and their ratio to unwatched, for packets that begin a connection and \
         for packets that\nare refused, counted by the emulator: the clock of these machines, with \
         one CPU, is the number of instructions.\nThen the programs, by the kernel's own statistics \
         (which cost some 100 each), and how often each ran for a packet.\nOn a real CPU much of a \
         packet's time goes into waiting for memory, of which the programs have their share\ntoo; \
         that is not in these figures.",
        "| | new | ratio | refused | ratio | programs |\n| --- | --- | --- | --- | --- | --- |",
    ),
    (
        "What a census takes",
        "Instructions for each entry of a table of so many, and how many times fewer that is than \
         `conntrack -L`\ntakes beside it.",
        "| | entries | instructions | times fewer |\n| --- | --- | --- | --- |",
    ),
    (
        "What a start takes",
        "Instructions of the whole machine from the start of `ctwatch watch` to its first line, and of \
         CPU time until it\nended after one tick. Where another executable was measured beside it: \
         its own, and how much of that the\nfirst takes.",
        "| | first line | CPU | first line, of the other | CPU, of the other |\n\
         | --- | --- | --- | --- | --- |",
    ),
];

impl Matrix {
    /// The cells, of this commit; into `target/`, or where the docs are.
    pub(crate) fn write_table(&self, commit: &str, docs: bool) -> Result<PathBuf> {
        write("matrix.md", &self.table(commit), docs)
    }

    /// The costs, likewise.
    pub(crate) fn write_costs(&self, commit: &str, docs: bool) -> Result<PathBuf> {
        write("costs.md", &self.costs(commit), docs)
    }

    fn releases(&self) -> String {
        self.kernels.iter().map(|run| format!("- {}: {}\n", run.name, run.release)).collect()
    }

    fn table(&self, commit: &str) -> String {
        let mut text = format!(
            "# Kernels, mechanisms, scenarios\n\n\
             Made by `cargo xtask matrix --write` of {commit}: each test of the live kernel, on \
             Debian's cloud\nkernels in virtual machines, with each mechanism that the kernel \
             offers. Every figure is compared with conntrack's\nown counters and with what was sent: \
             equal where it is marked exact, inside its bounds where it is not.\n\n{}\n\
             f: fexit, k: kprobe, t: tracepoint, c: counters; capital where it failed, \
             `-` where it does not apply.\n\n| scenario |",
            self.releases()
        );
        self.kernels.iter().for_each(|run| {
            let _ = write!(text, " {} |", run.name);
        });
        text.push_str("\n| --- |");
        text.push_str(&" --- |".repeat(self.kernels.len()));
        text.push('\n');
        let by_mechanism =
            self.kernels.iter().flat_map(|run| run.cells.keys()).filter_map(|t| t.split_once("::"));
        let scenarios: BTreeSet<&str> = by_mechanism.map(|(_, scenario)| scenario).collect();
        for scenario in scenarios {
            let _ = write!(text, "| {} |", scenario.replace('_', " "));
            for run in &self.kernels {
                let _ = write!(text, " {} |", cell(run, scenario));
            }
            text.push('\n');
        }
        let mut reasons: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for run in &self.kernels {
            for (trial, done) in &run.cells {
                let scenario = trial.split_once("::").map_or(trial.as_str(), |(_, name)| name);
                reasons.extend(done.why.as_deref().map(|why| ((run.name.as_str(), scenario), why)));
            }
        }
        if !reasons.is_empty() {
            text.push('\n');
        }
        for ((kernel, scenario), why) in reasons {
            let _ = writeln!(text, "- {kernel}, {}: {why}.", scenario.replace('_', " "));
        }
        text
    }

    fn costs(&self, commit: &str) -> String {
        let mut text = format!(
            "# What it costs, in instructions\n\nMade by `cargo xtask matrix --bench --write` of \
             {commit}, on Debian's cloud kernels in virtual machines\nwhose clock counts \
             instructions.\n\n{}",
            self.releases()
        );
        let rows: [fn(&Kernel) -> &Vec<String>; 3] =
            [|kernel| &kernel.costs, |kernel| &kernel.censuses, |kernel| &kernel.starts];
        for ((title, how, columns), rows) in COSTS.iter().zip(rows) {
            if self.kernels.iter().all(|run| rows(run).is_empty()) {
                continue;
            }
            let _ = write!(text, "\n## {title}\n\n{how}\n");
            for run in self.kernels.iter().filter(|run| !rows(run).is_empty()) {
                let _ = write!(text, "\n{}:\n\n{columns}\n", run.release);
                rows(run).iter().for_each(|row| {
                    let _ = writeln!(text, "{row}");
                });
            }
        }
        text
    }
}

fn write(name: &str, text: &str, docs: bool) -> Result<PathBuf> {
    let path = root().join(if docs { "docs" } else { "target/vm" }).join(name);
    let dir = path.parent().context("no folder")?;
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn cell(run: &Kernel, scenario: &str) -> String {
    let mut cell = String::new();
    for (mechanism, mark) in MARKS {
        match run.cells.get(&format!("{mechanism}::{scenario}")).map(|done| done.outcome) {
            Some(Outcome::Passed) => cell.push_str(mark),
            Some(Outcome::Failed) => cell.push_str(&mark.to_uppercase()),
            Some(Outcome::NotApplicable) => cell.push('-'),
            None => {}
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_set_out_by_scenario() {
        let mut run = Kernel::of("6.1", "6.1.0");
        for line in [
            "took fexit::table_full 1 ok",
            "took kprobe::table_full 2 FAILED",
            "n/a kprobe::chains: this kernel has no limit on chains",
            "took behaviour_of_its_own 3 ok",
            "cost | fexit | 12.3 | 1.01 |",
            "start | fexit | 81 | 99 |",
        ] {
            run.take(line);
        }
        assert_eq!((cell(&run, "table_full"), cell(&run, "chains")), ("fK".into(), "-".into()));
        let matrix = Matrix { kernels: vec![run] };
        let (table, costs) = (matrix.table("commit abc"), matrix.costs("commit abc"));
        assert!(table.contains("| table full | fK |\n"), "{table}");
        assert!(table.contains("of commit abc: each test"), "{table}");
        assert!(table.contains("- 6.1, chains: this kernel has no limit on chains.\n"), "{table}");
        assert!(costs.contains("\n| fexit | 12.3 | 1.01 |\n"), "{costs}");
        assert!(costs.contains("\n| fexit | 81 | 99 |\n"), "{costs}");
        assert!(!costs.contains("What a census takes"), "{costs}");
    }
}
