//! Cells dealt out to machines so that all CPUs are done at about the same time.

use std::{collections::BTreeMap, time::Duration};

use super::{Cell, Ledger, MANY_CPUS, Slice};
use crate::vm::parts::Named;

/// What one machine runs, in the order of the executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) kernel: String,
    pub(crate) trials: Vec<String>,
    /// By what it took before.
    pub(crate) expected: Duration,
    /// For how many CPUs the kernel is to have room, where that is more than there are.
    pub(crate) possible_cpus: Option<u32>,
}

impl Named for Job {
    fn kernel(&self) -> &str {
        &self.kernel
    }
}

/// Of a cell that was never run.
const UNKNOWN: Duration = Duration::from_secs(5);
/// To make an image, boot it and switch off: less than this is not worth a machine of its own.
const WORTH_A_BOOT: Duration = Duration::from_secs(90);

/// The longest job first.
pub(crate) fn jobs(slice: &Slice, ledger: &Ledger, cpus: usize) -> Vec<Job> {
    let took = |cell: &Cell| ledger.get(cell).map_or(UNKNOWN, |entry| entry.took);
    let mut kernels: BTreeMap<&str, Vec<&Cell>> = BTreeMap::new();
    let (apart, together): (Vec<&Cell>, Vec<&Cell>) =
        slice.0.iter().partition(|cell| cell.trial == MANY_CPUS.0);
    for cell in together {
        kernels.entry(&cell.kernel).or_default().push(cell);
    }
    let all: Duration = slice.0.iter().map(took).sum();
    // Two jobs for each CPU leave little to wait for at the end.
    let parts = u32::try_from(2 * cpus.max(1)).unwrap_or(u32::MAX);
    let size = (all / parts).max(WORTH_A_BOOT);
    let mut jobs = Vec::new();
    for (kernel, cells) in kernels {
        let whole: Duration = cells.iter().map(|cell| took(cell)).sum();
        let count = whole.as_secs_f64() / size.as_secs_f64();
        // Rounded: a machine for a small rest costs more than it spares.
        let count = (1..=cells.len()).min_by(|a, b| {
            let off = |n: usize| (n as f64 - count).abs();
            off(*a).total_cmp(&off(*b))
        });
        jobs.extend(dealt(kernel, &cells, count.unwrap_or(1), took));
    }
    jobs.extend(apart.into_iter().map(|cell| Job {
        kernel: cell.kernel.clone(),
        trials: vec![cell.trial.clone()],
        expected: took(cell),
        possible_cpus: Some(MANY_CPUS.1),
    }));
    jobs.sort_by_key(|job| std::cmp::Reverse(job.expected));
    jobs
}

/// In so many jobs, the longest cells first, each to the job that has least.
fn dealt(
    kernel: &str,
    cells: &[&Cell],
    count: usize,
    took: impl Fn(&Cell) -> Duration,
) -> Vec<Job> {
    let mut hands: Vec<(Duration, Vec<usize>)> = vec![(Duration::ZERO, Vec::new()); count];
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(took(cells[*at])));
    for at in order {
        if let Some(least) = hands.iter_mut().min_by_key(|(sum, _)| *sum) {
            least.0 += took(cells[at]);
            least.1.push(at);
        }
    }
    let job = |(expected, mut hand): (Duration, Vec<usize>)| {
        hand.sort_unstable();
        let trials = hand.into_iter().map(|at| cells[at].trial.clone()).collect();
        Job { kernel: kernel.to_owned(), trials, expected, possible_cpus: None }
    };
    hands.into_iter().filter(|(_, hand)| !hand.is_empty()).map(job).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::ledger::{Entry, Outcome};

    fn of(times: &[(&str, &str, u64)]) -> (Slice, Ledger) {
        let mut ledger = Ledger::default();
        let mut cells = Vec::new();
        for (kernel, trial, seconds) in times {
            let cell = Cell::new(kernel, trial);
            let took = Duration::from_secs(*seconds);
            ledger.put(cell.clone(), Entry { run: 1, took, outcome: Outcome::Passed });
            cells.push(cell);
        }
        (Slice(cells), ledger)
    }

    #[test]
    fn machines_have_about_as_much_to_do() {
        let times: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|t| ("6.1", t, 100)).to_vec();
        let (slice, ledger) = of(&times);
        let jobs = jobs(&slice, &ledger, 2);
        let expected: Vec<_> = jobs.iter().map(|job| job.expected.as_secs()).collect();
        assert_eq!(expected, [200, 200, 100, 100]);
        let mut all: Vec<_> = jobs.into_iter().flat_map(|job| job.trials).collect();
        all.sort();
        assert_eq!(all, ["a", "b", "c", "d", "e", "f"], "each once");
    }

    #[test]
    fn little_is_not_spread_over_machines() {
        let (slice, ledger) = of(&[("6.1", "b", 5), ("6.1", "a", 7), ("5.10", "c", 3)]);
        let jobs = jobs(&slice, &ledger, 2);
        assert_eq!(jobs.len(), 2);
        assert_eq!(jobs[0].trials, ["b", "a"], "in the order of the executable");
        assert_eq!(jobs[1].kernel, "5.10");
    }

    #[test]
    fn many_cpus_are_a_machine_of_its_own() {
        let (slice, ledger) = of(&[("6.1", "a", 5), ("6.1", MANY_CPUS.0, 5), ("6.1", "b", 5)]);
        let jobs = jobs(&slice, &ledger, 2);
        let of: Vec<_> = jobs.iter().map(|job| (job.trials.join(" "), job.possible_cpus)).collect();
        assert_eq!(of, [("a b".to_owned(), None), (MANY_CPUS.0.to_owned(), Some(MANY_CPUS.1))]);
    }

    #[test]
    fn nothing_is_no_job() {
        assert!(jobs(&Slice::default(), &Ledger::default(), 2).is_empty());
    }
}
