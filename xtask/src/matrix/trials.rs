//! What there is to run: the trials as the executable of the live tests lists them.

use std::{collections::BTreeMap, fmt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{ARMV7, KERNELS};
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

/// What is run once, and asks for no programs in the kernel: of those, all that armv7 runs. The others trace, walk,
/// expect figures that counters do not have, or were not tried there.
const WITHOUT_PROGRAMS: [&str; 54] = [
    "a_census_agrees_with_conntrack_l",
    "a_census_agrees_on_nat_and_on_times",
    "a_census_tells_offloaded_entries_apart",
    "a_census_while_the_table_changes",
    "a_census_of_three_hundred_namespaces",
    "check_at_thresholds_around_a_known_fill",
    "check_counts_drops_while_it_watches",
    "check_foretells_a_full_table",
    "check_without_root",
    "where_conntrack_is_not_loaded",
    "check_of_all_namespaces_and_hostile_names",
    "check_counts_drops_from_call_to_call",
    "the_doctor_and_connections_that_wait_to_be_closed",
    "the_doctor_and_a_timeout_policy",
    "the_doctor_and_few_buckets",
    "the_doctor_and_what_tracks_besides_rules",
    "the_doctor_and_a_flow_table",
    "the_doctor_remembers_a_table_that_was_full",
    "the_doctor_finds_nothing_on_a_healthy_machine",
    "the_doctor_and_connections_seen_one_way_only",
    "the_doctor_knows_all_forms_of_a_rule_on_invalid",
    "the_doctor_and_packets_of_a_bridge",
    "the_doctor_without_root",
    "the_doctor_and_expectations_that_are_full",
    "the_doctor_predicts_what_a_timeout_frees",
    "the_doctor_names_the_rules_that_need_tracking",
    "an_archive_tells_what_the_doctor_sees",
    "a_masked_archive_names_nothing",
    "collecting_loads_no_module",
    "one_namespace_by_name_and_by_inode",
    "namespaces_are_chosen_by_pattern",
    "hidden_sysctls_do_not_hide_the_table",
    "hostile_names_cannot_speak_to_the_terminal",
    "flat_out_with_the_counters_mechanism",
    "it_waits_for_conntrack_to_be_loaded",
    "the_judge_says_what_conntrack_says",
    "a_kept_lab_is_as_good_as_new",
    "offline_plain_commands_find_what_live_does",
    "offline_a_list_is_counted_as_live",
    "a_limit_that_is_written_down_outlives_the_module",
    "advice_removes_rules_and_brings_them_back",
    "advice_that_is_not_confirmed_undoes_itself",
    "nothing_loaded_and_nothing_loads_it",
    "outputs_that_cannot_be_written",
    "names_end_no_label",
    "a_textfile_holds_what_is_scraped",
    "top_restores_the_terminal",
    "top_suspends_and_resumes",
    "top_plays_a_recording",
    "signals_are_heard_while_nobody_reads",
    "a_killed_recorder_loses_a_tick",
    "what_is_read_here_is_recorded",
    "the_doctor_and_nat_without_ports",
    "the_doctor_and_a_full_table",
];

fn is_offered(kernel: &str, trial: &Trial) -> bool {
    kernel != ARMV7
        || trial.mechanism().is_some()
        || WITHOUT_PROGRAMS.contains(&trial.name.as_str())
}

pub(crate) fn trials(tests: &Path) -> Result<Trials> {
    KERNELS
        .iter()
        .map(|(kernel, mechanisms)| {
            let mut command = Command::new(tests);
            command.env("CTWATCH_LIST", "1").env("CTWATCH_MECHANISMS", mechanisms.join(" "));
            let mut listed = parse(&output(&mut command)?)
                .with_context(|| format!("{} does not list its trials", tests.display()))?;
            listed.retain(|trial| is_offered(kernel, trial));
            let once = listed.iter().filter(|trial| trial.mechanism().is_none()).count();
            ensure!(
                *kernel != ARMV7 || once == WITHOUT_PROGRAMS.len(),
                "WITHOUT_PROGRAMS names trials that are not there"
            );
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
