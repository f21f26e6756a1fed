//! When each cell was run last, how long it took, and whether it held: `tests/matrix.tsv`, which the
//! commands that run cells write, and which is committed with the change that was tested.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Cell, platforms, table};
use ctwatch_provision::process::{output, root};

const FILE: &str = "tests/matrix.tsv";
/// What runs of cells write.
const WRITTEN: [&str; 4] = [FILE, table::FILE, "docs/costs.md", platforms::FILE];
const HEAD: &str = "# The cells of the matrix: the number of the run in which each was run last, the \
                    seconds it took,\n# and what came of it. Written by cargo xtask test and cargo \
                    xtask matrix; commit it.\n# kernel\ttrial\trun\tseconds\toutcome\n";
/// What was checked out in a run.
const RUN: &str = "# run ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// It failed once, and held when it was run again.
    Unsteady,
    /// It has no meaning on that kernel.
    NotApplicable,
}

impl Outcome {
    const ALL: [(&'static str, Self); 4] = [
        ("passed", Self::Passed),
        ("FAILED", Self::Failed),
        ("UNSTEADY", Self::Unsteady),
        ("n/a", Self::NotApplicable),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, outcome)| *outcome == self).map_or("", |(name, _)| name)
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, outcome)| *outcome)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) run: u32,
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ledger {
    cells: BTreeMap<Cell, Entry>,
    /// Of which commit a run was, where that was written down.
    runs: BTreeMap<u32, String>,
}

impl Ledger {
    /// That of this clone; an empty one where there is none yet.
    pub(crate) fn read() -> Result<Self> {
        let path = path();
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("cannot use {FILE}")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {FILE}")),
        }
    }

    pub(crate) fn write(&self) -> Result<()> {
        let (path, partial) = (path(), path().with_extension("tsv.partial"));
        fs::write(&partial, self.text())
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {FILE}"))?;
        platforms::write(self)?;
        table::write(self)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| {
            let [kernel, trial, run, seconds, outcome] =
                line.split('\t').collect::<Vec<_>>().try_into().ok()?;
            let took = Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
            let outcome = Outcome::named(outcome)?;
            Some((Cell::new(kernel, trial), Entry { run: run.parse().ok()?, took, outcome }))
        };
        let entries = lines.map(|line| entry(line).with_context(|| format!("line {line:?}")));
        let cells: BTreeMap<Cell, Entry> = entries.collect::<Result<_>>()?;
        let count = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        ensure!(cells.len() == count, "a cell stands there twice (a merge?)");
        let run = |line: &str| {
            let (run, commit) = line.strip_prefix(RUN)?.split_once(": ")?;
            Some((run.parse().ok()?, commit.to_owned()))
        };
        Ok(Self { cells, runs: text.lines().filter_map(run).collect() })
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (run, commit) in &self.runs {
            if self.cells.values().any(|entry| entry.run == *run) {
                let _ = writeln!(text, "{RUN}{run}: {commit}");
            }
        }
        for (Cell { kernel, trial }, Entry { run, took, outcome }) in &self.cells {
            let (seconds, outcome) = (took.as_secs_f64(), outcome.name());
            let _ = writeln!(text, "{kernel}\t{trial}\t{run}\t{seconds:.1}\t{outcome}");
        }
        text
    }

    pub(crate) fn get(&self, cell: &Cell) -> Option<&Entry> {
        self.cells.get(cell)
    }

    /// What came of the trials on this kernel.
    pub(crate) fn of(&self, kernel: &str) -> impl Iterator<Item = (&str, Outcome)> {
        let here = self.cells.iter().filter(move |(cell, _)| cell.kernel == kernel);
        here.map(|(cell, entry)| (cell.trial.as_str(), entry.outcome))
    }

    pub(crate) fn put(&mut self, cell: Cell, entry: Entry) {
        self.cells.insert(cell, entry);
    }

    /// Cells that are no more: trials that were renamed or taken away.
    pub(crate) fn keep(&mut self, is_there: impl Fn(&Cell) -> bool) {
        self.cells.retain(|cell, _| is_there(cell));
    }

    /// The number for the run that comes next.
    pub(crate) fn next_run(&self) -> u32 {
        self.cells.values().map(|entry| entry.run).max().unwrap_or(0) + 1
    }

    /// The next run, and of what it is.
    pub(crate) fn begin(&mut self, commit: &str) -> u32 {
        let run = self.next_run();
        self.runs.insert(run, commit.to_owned());
        run
    }

    /// How many cells were run last of each commit. `None`: nobody wrote down of which.
    pub(crate) fn commits(&self) -> BTreeMap<Option<&str>, usize> {
        let mut commits = BTreeMap::new();
        for entry in self.cells.values() {
            *commits.entry(self.runs.get(&entry.run).map(String::as_str)).or_default() += 1;
        }
        commits
    }

    pub(super) fn scenarios(&self) -> BTreeSet<&str> {
        self.cells
            .keys()
            .filter_map(|cell| cell.trial.split_once("::"))
            .map(|(_, name)| name)
            .collect()
    }

    /// Also what held only when it was run again.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Cell> {
        let failed = |outcome| matches!(outcome, Outcome::Failed | Outcome::Unsteady);
        let failed = self.cells.iter().filter(move |(_, entry)| failed(entry.outcome));
        failed.map(|(cell, _)| cell)
    }
}

fn path() -> PathBuf {
    root().join(FILE)
}

/// How many commits there are since the file was written: a change that came without a run of its
/// own, or its file, moves on all the same.
pub(crate) fn commits_since() -> usize {
    let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(root()).args(args));
    let since = || -> Result<usize> {
        let last = git(&["log", "-1", "--format=%H", "--", FILE])?;
        let range = format!("{}..HEAD", last.trim());
        Ok(git(&["rev-list", "--count", &range])?.trim().parse()?)
    };
    since().unwrap_or(0)
}

/// The commit that is checked out, and whether files differ from it.
pub(crate) fn commit() -> String {
    let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(root()).args(args));
    let Ok(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "an unknown commit".to_owned();
    };
    let changed = ["status", "--porcelain", "--untracked-files=no"];
    // What a run writes itself is no change of what was tested.
    let own = |line: &str| WRITTEN.iter().any(|file| line.ends_with(file));
    let changed = git(&changed).unwrap_or_default();
    let changed = changed.lines().any(|line| !own(line));
    format!("commit {}{}", commit.trim(), if changed { ", with changes" } else { "" })
}

/// Whether this is a path that a run writes.
pub(super) fn is_written_by_runs(path: &str) -> bool {
    WRITTEN.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(run: u32, outcome: Outcome) -> Entry {
        Entry { run, took: Duration::from_millis(2500), outcome }
    }

    #[test]
    fn a_ledger_is_read_as_it_was_written() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.next_run(), 1);
        ledger.put(Cell::new("6.1", "fexit::a"), entry(3, Outcome::Passed));
        ledger.put(Cell::new("6.1", "b"), entry(7, Outcome::Failed));
        ledger.put(Cell::new("5.10", "c"), entry(2, Outcome::NotApplicable));
        ledger.put(Cell::new("5.10", "d"), entry(2, Outcome::Unsteady));
        let run = ledger.begin("commit abc, with changes");
        assert!(!ledger.text().contains("commit abc"), "no cell is of it");
        ledger.put(Cell::new("5.10", "e"), entry(run, Outcome::Passed));
        assert_eq!(
            ledger.commits(),
            BTreeMap::from([(None, 4), (Some("commit abc, with changes"), 1)])
        );
        let text = ledger.text();
        assert!(
            text.ends_with("6.1\tb\t7\t2.5\tFAILED\n6.1\tfexit::a\t3\t2.5\tpassed\n"),
            "{text}"
        );
        assert_eq!(Ledger::parse(&text).unwrap(), ledger);
        assert_eq!(ledger.next_run(), 9);
        let failed = [&Cell::new("5.10", "d"), &Cell::new("6.1", "b")];
        assert_eq!(ledger.failed().collect::<Vec<_>>(), failed);
        ledger.keep(|cell| !["b", "d"].contains(&cell.trial.as_str()));
        assert_eq!(ledger.failed().count(), 0);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = format!("{:#}", Ledger::parse("6.1\ta\tx\t1\tpassed\n").unwrap_err());
        assert!(error.contains("6.1\\ta"), "{error}");
        let twice = "6.1\ta\t1\t1\tpassed\n6.1\ta\t2\t1\tpassed\n";
        assert!(Ledger::parse(twice).unwrap_err().to_string().contains("twice"));
    }
}
