//! docs/costs.md: what came of the benchmarks.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result};

use super::run::{Kernel, Matrix};
use ctwatch_provision::process::root;

/// What costs are of, how they are counted, and the columns.
const COSTS: [(&str, &str, &str); 4] = [
    (
        "What an event costs",
        "Instructions a packet and their ratio to unwatched: for packets that begin a connection, for \
         packets that\nconntrack drops because the table is full, and for packets of one connection \
         that is established, which the\nrouter forwards. The emulator counts: the clock of these \
         machines, with one CPU, is the number of instructions. So\na nanosecond is an instruction, \
         and packets that take 8,000 each come at 125,000 a second: more than lists may\ntell apart \
         at their full cost. What is measured comes after 20,480 packets of the same kind. Ticks are \
         not in it.\nWhere a ratio has another one before it, `1.33 -> 1.31`, the first is that of \
         this page before.\nThen the programs, by the kernel's own statistics (which cost some 100 \
         each), and how often each ran for a packet.\nOn a real CPU much of a packet's time goes into \
         waiting for memory, of which the programs have their share\ntoo; that is not in these \
         figures.",
        "| | new | ratio | dropped | ratio | established | ratio | programs |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |",
    ),
    (
        "What an event may cost",
        "Ratios to unwatched, with the lists of `watch` without options: what is aimed at, and the \
         limit that no change may\nexceed meanwhile, which is what was measured and 0.01, or\n1.005 where nothing runs for such a packet. \
         `cargo xtask test` holds each change against the limits.",
        "| | new: aim | limit | dropped: aim | limit | established: aim | limit |\n\
         | --- | --- | --- | --- | --- | --- | --- |",
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

/// Where ratios are in a row of costs, the name being 0.
const RATIOS: [usize; 3] = [2, 4, 6];

impl Matrix {
    /// Into `target/`, or where the docs are; beside those of the page that is there now.
    pub(crate) fn write_costs(&self, commit: &str, docs: bool) -> Result<PathBuf> {
        let before = fs::read_to_string(root().join("docs/costs.md")).unwrap_or_default();
        write("costs.md", &self.costs(commit, &before), docs)
    }

    fn releases(&self) -> String {
        self.kernels.iter().map(|run| format!("- {}: {}\n", run.name, run.release)).collect()
    }

    fn costs(&self, commit: &str, before: &str) -> String {
        let before = ratios(before);
        let mut text = format!(
            "# What it costs, in instructions\n\nMade by `cargo xtask matrix --bench --write` of \
             {commit}, on Debian's cloud kernels in virtual machines\nwhose clock counts \
             instructions.\n\n{}",
            self.releases()
        );
        let rows: [fn(&Kernel, &Ratios) -> Vec<String>; 4] = [
            |kernel, before| {
                kernel.costs.iter().map(|row| beside(row, &kernel.name, before)).collect()
            },
            |kernel, _| kernel.bars.clone(),
            |kernel, _| kernel.censuses.clone(),
            |kernel, _| kernel.starts.clone(),
        ];
        for ((title, how, columns), rows) in COSTS.iter().zip(rows) {
            if self.kernels.iter().all(|run| rows(run, &before).is_empty()) {
                continue;
            }
            let _ = write!(text, "\n## {title}\n\n{how}\n");
            for run in self.kernels.iter().filter(|run| !rows(run, &before).is_empty()) {
                let _ = write!(text, "\n{}:\n\n{columns}\n", run.release);
                for row in rows(run, &before) {
                    let _ = writeln!(text, "{row}");
                }
            }
        }
        text
    }
}

/// The ratios of rows, by kernel and name.
type Ratios = BTreeMap<(String, String), Vec<String>>;

/// The cells of a row; the first and the last are what is outside of it.
fn cells(row: &str) -> Vec<String> {
    row.trim().split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// Those of a page, and of each the newest.
fn ratios(page: &str) -> Ratios {
    let mut releases = BTreeMap::new();
    let (mut found, mut kernel, mut inside) = (Ratios::new(), None, false);
    for line in page.lines() {
        if let Some((name, release)) = line.strip_prefix("- ").and_then(|it| it.split_once(": ")) {
            releases.insert(release, name);
        } else if let Some(title) = line.strip_prefix("## ") {
            inside = title == COSTS[0].0;
        } else if let Some(release) = line.strip_suffix(':') {
            kernel = releases.get(release).copied();
        } else if let Some(kernel) = kernel.filter(|_| inside) {
            let cells = cells(line);
            let newest = |at: &usize| cells.get(at + 1)?.split_whitespace().next_back();
            let is_ratio = |text: &&str| text.parse::<f64>().is_ok();
            let all = RATIOS.iter().map_while(|at| newest(at).filter(is_ratio).map(str::to_owned));
            if let Some(name) = cells.get(1) {
                found.insert((kernel.to_owned(), name.clone()), all.collect());
            }
        }
    }
    found
}

/// A row, before each of its ratios what that was.
fn beside(row: &str, kernel: &str, before: &Ratios) -> String {
    let mut cells = cells(row);
    let name = cells.get(1).cloned().unwrap_or_default();
    // Everything else is a ratio to it.
    if !name.starts_with("unwatched")
        && let Some(before) = before.get(&(kernel.to_owned(), name))
    {
        for (at, before) in RATIOS.iter().zip(before) {
            if let Some(cell) = cells.get_mut(at + 1) {
                *cell = format!("{before} -> {cell}");
            }
        }
    }
    cells.join(" | ").trim().to_owned()
}

fn write(name: &str, text: &str, docs: bool) -> Result<PathBuf> {
    let path = root().join(if docs { "docs" } else { "target/vm" }).join(name);
    let dir = path.parent().context("no folder")?;
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_set_out_by_what_they_are_of() {
        let mut run = Kernel::of("6.1", "6.1.0");
        for line in [
            "cost | fexit | 12.3 | 1.01 | 9 | 1.20 | 5 | 1.003 | new: x 9 x 1.00 |",
            "bar | fexit | 1.03 | 1.10 | 1.08 | 1.34 | 1.005 | 1.010 |",
            "start | fexit | 81 | 99 |",
        ] {
            run.take(line);
        }
        let matrix = Matrix { kernels: vec![run] };
        let costs = matrix.costs("commit abc", "");
        assert!(costs.contains("of commit abc, on"), "{costs}");
        assert!(
            costs.contains("\n| fexit | 12.3 | 1.01 | 9 | 1.20 | 5 | 1.003 | new: x 9 x 1.00 |\n")
        );
        assert!(
            costs.contains("\n| fexit | 1.03 | 1.10 | 1.08 | 1.34 | 1.005 | 1.010 |\n"),
            "{costs}"
        );
        assert!(costs.contains("\n| fexit | 81 | 99 |\n"), "{costs}");
        assert!(!costs.contains("What a census takes"), "{costs}");
    }

    #[test]
    fn a_ratio_stands_beside_what_it_was() {
        // Before, there was no column for what is established.
        let page = "- 6.1: 6.1.0-50\n\n## What an event costs\n\n6.1.0-50:\n\n\
                    | | new | ratio | refused | ratio | programs |\n| --- | --- | --- | --- |\n\
                    | unwatched | 13 | 1.00 | 7 | 1.00 |  |\n\
                    | fexit | 14 | 1.08 | 9 | 1.33 | x 9 x 0.50 |\n\
                    \n## What a start takes\n\n6.1.0-50:\n\n| kprobe | 14 | 1.08 | 9 | 1.33 |\n";
        let mut run = Kernel::of("6.1", "6.1.0-51");
        let row = "cost | fexit | 14 | 1.03 | 8 | 1.08 | 5 | 1.001 | new: x 9 x 1.00 |";
        for line in [row, "cost | kprobe | 1 | 1.00 | 1 | 1.00 | 1 | 1.000 | |"] {
            run.take(line);
        }
        run.take("cost | unwatched | 13 | 1.00 | 7 | 1.00 | 5 | 1.000 | |");
        let matrix = Matrix { kernels: vec![run] };
        let costs = matrix.costs("commit abc", page);
        let has = |row: &str| costs.lines().any(|line| line == row);
        let fexit =
            "| fexit | 14 | 1.08 -> 1.03 | 8 | 1.33 -> 1.08 | 5 | 1.001 | new: x 9 x 1.00 |";
        assert!(has(fexit), "{costs}");
        assert!(has("| unwatched | 13 | 1.00 | 7 | 1.00 | 5 | 1.000 |  |"), "{costs}");
        assert!(
            has("| kprobe | 1 | 1.00 | 1 | 1.00 | 1 | 1.000 |  |"),
            "of another table: {costs}"
        );
        // And the next time.
        let again = matrix.costs("commit abc", &costs);
        let fexit = "| fexit | 14 | 1.03 -> 1.03 | 8 | 1.08 -> 1.08 | 5 | 1.001 -> 1.001 | new: x 9 x 1.00 |";
        assert!(again.lines().any(|line| line == fexit), "{again}");
    }
}
