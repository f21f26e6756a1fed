//! The live tests on other kernels: which of them, in which machines, and what came of them.

mod changed;
mod costs;
mod jobs;
mod ledger;
mod platforms;
mod run;
mod slice;
mod table;
mod trials;

pub(crate) use changed::of_changes;
use ctwatch_provision::kernels::NEWEST;
pub(crate) use ledger::{Ledger, commit, commits_since};
pub(crate) use run::{Matrix, What};
pub(crate) use slice::{Slice, chosen_for_the_gate};
pub(crate) use trials::{Cell, Trial, Trials, trials};

/// Those of the distributions that switches and routers are built on, and what is to come; and by
/// which mechanisms ctwatch must be able to count on each. The oldest first; behind the newest those of
/// other kinds.
pub(crate) const KERNELS: [(&str, &[&str]); 7] = [
    // Without the BTF of modules.
    ("5.10", &["kprobe", "tracepoint", "counters"]),
    ("6.1", ALL),
    ("6.12", ALL),
    (NEWEST, ALL),
    // PREEMPT_RT.
    ("6.12-rt", ALL),
    (ARM, ALL),
    // Of 32 bits, for which there are no programs.
    (ARMV7, &["counters"]),
];
/// The kernel of another machine that each change is tried on.
pub(crate) const ARM: &str = "6.12-arm64";
pub(crate) const ARMV7: &str = "6.12-armmp";
/// The benchmark that is held against bars, and the kernel that each change is held against them on:
/// one that has all mechanisms and does not change from day to day.
pub(crate) const COSTS: &str = "what_each_mechanism_costs";
pub(crate) const KERNEL_OF_COSTS: &str = "6.12";
/// The trial whose kernel is told to have room for so many CPUs. Not for all trials: each namespace takes memory for
/// each of them.
pub(crate) const MANY_CPUS: (&str, u32) = ("more_cpus_are_possible_than_online", 256);

const ALL: &[&str] = &["fexit", "kprobe", "tracepoint", "counters"];

pub(crate) fn kernel_names() -> [&'static str; KERNELS.len()] {
    KERNELS.map(|(name, _)| name)
}
