//! Which cells a run is of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};

use super::{ARM, Cell, KERNELS, Ledger, Trial, Trials, kernel_names};
use ctwatch_provision::{kernels::NEWEST, process::root};

/// Cells, in the order of the executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice(pub(crate) Vec<Cell>);

impl Slice {
    /// All cells that are wanted, of all that there are.
    pub(crate) fn of(trials: &Trials, wanted: impl Fn(&str, &Trial) -> bool) -> Self {
        let mut cells = Vec::new();
        for kernel in kernel_names() {
            for trial in trials.get(kernel).into_iter().flatten() {
                if wanted(kernel, trial) {
                    cells.push(Cell::new(kernel, &trial.name));
                }
            }
        }
        Self(cells)
    }

    /// As [`Self::text`] writes it.
    pub(crate) fn parse(text: &str, trials: &Trials) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let cells: BTreeSet<Cell> = lines
            .map(|line| {
                let cell = Cell::parse(line).with_context(|| format!("no cell: {line:?}"))?;
                let there = trials.get(&cell.kernel).into_iter().flatten();
                ensure!(there.into_iter().any(|t| t.name == cell.trial), "there is no {cell}");
                Ok(cell)
            })
            .collect::<Result<_>>()?;
        Ok(Self::of(trials, |kernel, trial| cells.contains(&Cell::new(kernel, &trial.name))))
    }

    pub(crate) fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, cell| {
            let _ = writeln!(text, "{cell}");
            text
        })
    }

    /// Where `cargo xtask matrix --slice` can read it.
    pub(crate) fn write(&self) -> Result<PathBuf> {
        let path = root().join("target/vm/slice.txt");
        fs::create_dir_all(path.parent().context("no folder")?)
            .and_then(|()| fs::write(&path, self.text()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    pub(crate) fn kernels(&self) -> Vec<String> {
        let names = kernel_names().into_iter();
        let used = names.filter(|name| self.0.iter().any(|cell| cell.kernel == *name));
        used.map(str::to_owned).collect()
    }

    /// For somebody who reads: a line for each kernel and mechanism.
    pub(crate) fn shown(&self) -> String {
        let mut rows: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for cell in &self.0 {
            let (mechanism, scenario) = cell.trial.split_once("::").unwrap_or(("", &cell.trial));
            rows.entry((&cell.kernel, mechanism)).or_default().push(scenario);
        }
        let mut text = String::new();
        for ((kernel, mechanism), scenarios) in rows {
            let mechanism = if mechanism.is_empty() { "once" } else { mechanism };
            let (count, names) = (scenarios.len(), scenarios.join(" "));
            let _ = writeln!(text, "{kernel} {mechanism} ({count}): {names}");
        }
        text
    }
}

/// What each change is tried with on another machine: a full table, NAT without ports, a clash, two
/// namespaces, a census.
const ON_ARM: [&str; 6] = [
    "udp_into_a_full_table",
    "nat_runs_out_of_ports",
    "refusals_at_confirmation_are_traced",
    "two_namespaces_have_their_own_numbers",
    "a_census_agrees_with_conntrack_l",
    "a_census_agrees_on_nat_and_on_times",
];

/// For every change: on the oldest and the newest kernel each scenario once, with the mechanism that
/// it was not run with for the longest time; what depends on the kernel and not on a mechanism; a few
/// scenarios on another machine; and what failed when it was run last, wherever. `turn` moves on where
/// the ledger does not.
pub(crate) fn chosen_for_the_gate(trials: &Trials, ledger: &Ledger, turn: usize) -> Slice {
    let mut wanted: BTreeSet<Cell> = ledger.failed().cloned().collect();
    for kernel in [KERNELS[0].0, NEWEST, ARM] {
        // Emulated, another machine takes ten times as long.
        let is_few = kernel == ARM;
        let mut scenarios: BTreeMap<&str, Vec<&Trial>> = BTreeMap::new();
        for trial in trials.get(kernel).into_iter().flatten() {
            match trial.mechanism() {
                Some((_, scenario)) if !is_few || ON_ARM.contains(&scenario) => {
                    scenarios.entry(scenario).or_default().push(trial);
                }
                None if trial.of_kernel && !is_few || ON_ARM.contains(&trial.name.as_str()) => {
                    wanted.insert(Cell::new(kernel, &trial.name));
                }
                _ => {}
            }
        }
        for (number, mut choice) in scenarios.into_values().enumerate() {
            // Those that were never run: not all scenarios by the same mechanism.
            let count = choice.len();
            choice.rotate_left(number % count);
            let last = |trial: &&Trial| ledger.get(&Cell::new(kernel, &trial.name)).map(|e| e.run);
            choice.sort_by_key(last);
            wanted.insert(Cell::new(kernel, &choice[turn % count].name));
        }
    }
    Slice::of(trials, |kernel, trial| wanted.contains(&Cell::new(kernel, &trial.name)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::matrix::ledger::{Entry, Outcome};

    fn trial(name: &str, of_kernel: bool) -> Trial {
        Trial { name: name.to_owned(), of_kernel }
    }

    fn trials() -> Trials {
        let of = |mechanisms: &[&str]| {
            let mut list = Vec::new();
            for scenario in ["one", "two", "three"] {
                list.extend(mechanisms.iter().map(|m| trial(&format!("{m}::{scenario}"), true)));
            }
            list.extend([trial("a_cpu_goes", true), trial("narrow", false)]);
            list
        };
        KERNELS.iter().map(|(kernel, by)| ((*kernel).to_owned(), of(by))).collect()
    }

    fn ran(ledger: &mut Ledger, slice: &Slice) {
        let run = ledger.next_run();
        for cell in &slice.0 {
            let (took, outcome) = (Duration::ZERO, Outcome::Passed);
            ledger.put(cell.clone(), Entry { run, took, outcome });
        }
    }

    #[test]
    fn as_many_runs_as_mechanisms_cover_all() {
        let (trials, mut ledger) = (trials(), Ledger::default());
        let mut seen = BTreeSet::new();
        for run in 1..=4 {
            let slice = chosen_for_the_gate(&trials, &ledger, 0);
            // Three scenarios and what depends on the kernel, on two kernels.
            assert_eq!(slice.0.len(), 8, "run {run}: {}", slice.shown());
            ran(&mut ledger, &slice);
            seen.extend(slice.0);
        }
        let all = |kernel: &str, trial: &Trial| {
            [KERNELS[0].0, NEWEST].contains(&kernel) && trial.of_kernel
        };
        assert_eq!(seen, Slice::of(&trials, all).0.into_iter().collect());
    }

    #[test]
    fn without_a_new_ledger_turns_cover_all() {
        let (trials, ledger) = (trials(), Ledger::default());
        let turns = (0..4).flat_map(|turn| chosen_for_the_gate(&trials, &ledger, turn).0);
        let seen: BTreeSet<Cell> = turns.collect();
        assert_eq!(seen.iter().filter(|cell| cell.trial.ends_with("::two")).count(), 7);
    }

    #[test]
    fn a_few_scenarios_run_on_another_machine() {
        let all = |mechanism: &str| ON_ARM.map(|name| trial(&format!("{mechanism}::{name}"), true));
        let mut trials = trials();
        trials.insert(ARM.to_owned(), [all("fexit"), all("kprobe")].concat());
        let slice = chosen_for_the_gate(&trials, &Ledger::default(), 0);
        let on_arm = slice.0.iter().filter(|cell| cell.kernel == ARM).count();
        assert_eq!(on_arm, ON_ARM.len(), "each once");
    }

    #[test]
    fn first_runs_spread_over_mechanisms() {
        let slice = chosen_for_the_gate(&trials(), &Ledger::default(), 0);
        let newest = slice.0.iter().filter(|cell| cell.kernel == NEWEST);
        let by: BTreeSet<&str> =
            newest.filter_map(|c| c.trial.split_once("::")).map(|s| s.0).collect();
        assert_eq!(by.len(), 3);
    }

    #[test]
    fn what_failed_is_repeated_until_it_holds() {
        let (trials, mut ledger) = (trials(), Ledger::default());
        let cell = Cell::new("6.1", "narrow");
        let took = Duration::ZERO;
        ledger.put(cell.clone(), Entry { run: 1, took, outcome: Outcome::Failed });
        for _ in 0..3 {
            assert!(chosen_for_the_gate(&trials, &ledger, 0).0.contains(&cell));
        }
        ledger.put(cell.clone(), Entry { run: 2, took, outcome: Outcome::Passed });
        assert!(!chosen_for_the_gate(&trials, &ledger, 0).0.contains(&cell));
    }

    #[test]
    fn a_slice_is_read_as_it_was_written() {
        let trials = trials();
        let slice = chosen_for_the_gate(&trials, &Ledger::default(), 0);
        assert_eq!(Slice::parse(&slice.text(), &trials).unwrap(), slice);
        assert!(Slice::parse("6.1 nothing\n", &trials).is_err());
        assert!(Slice::parse("6.1\n", &trials).is_err());
    }
}
