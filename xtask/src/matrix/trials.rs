//! What there is to run: the trials as the executable of the live tests lists them.

use std::{collections::BTreeMap, fmt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::KERNELS;
use ctwatch_provision::process::output;

/// One trial on one kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) kernel: String,
    pub(crate) trial: String,
}

impl Cell {
    pub(crate) fn new(kernel: &str, trial: &str) -> Self {
        Self { kernel: kernel.to_owned(), trial: trial.to_owned() }
    }

    /// As it is written: `6.12 fexit::udp_into_a_full_table`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (kernel, trial) = line.trim().split_once(' ')?;
        Some(Self::new(kernel, trial.trim()))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kernel, self.trial)
    }
}

/// A trial, in the order of the executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trial {
    pub(crate) name: String,
    /// What comes of it may depend on the kernel.
    pub(crate) of_kernel: bool,
}

impl Trial {
    /// The mechanism that it is run with, and the scenario.
    pub(crate) fn mechanism(&self) -> Option<(&str, &str)> {
        self.name.split_once("::")
    }
}

/// All trials, by kernel.
pub(crate) type Trials = BTreeMap<String, Vec<Trial>>;

pub(crate) fn trials(tests: &Path) -> Result<Trials> {
    KERNELS
        .iter()
        .map(|(kernel, mechanisms)| {
            let mut command = Command::new(tests);
            command.env("CTWATCH_LIST", "1").env("CTWATCH_MECHANISMS", mechanisms.join(" "));
            let listed = parse(&output(&mut command)?)
                .with_context(|| format!("{} does not list its trials", tests.display()))?;
            Ok(((*kernel).to_owned(), listed))
        })
        .collect()
}

/// `fexit::udp_into_a_full_table\tkernel`
fn parse(text: &str) -> Result<Vec<Trial>> {
    let lines = text.lines().filter(|line| !line.is_empty());
    let trials: Vec<Trial> = lines
        .map(|line| {
            let (name, place) = line.split_once('\t').with_context(|| format!("{line:?}"))?;
            ensure!(matches!(place, "kernel" | "anywhere"), "{line:?}");
            Ok(Trial { name: name.to_owned(), of_kernel: place == "kernel" })
        })
        .collect::<Result<_>>()?;
    ensure!(!trials.is_empty(), "it names none");
    Ok(trials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_have_a_name_and_a_place() {
        let listed = parse("fexit::a_b\tkernel\nnarrow\tanywhere\n").unwrap();
        assert_eq!(listed[0].mechanism(), Some(("fexit", "a_b")));
        assert!(listed[0].of_kernel && !listed[1].of_kernel);
        assert_eq!(listed[1].mechanism(), None);
        for wrong in ["", "a", "a\tmoon"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_cell_is_read_as_it_is_written() {
        let cell = Cell::new("6.12", "fexit::udp");
        assert_eq!(Cell::parse(&cell.to_string()), Some(cell));
        assert_eq!(Cell::parse("6.12"), None);
    }
}
