//! The live kernel against its own counters and a generator that knows what it sent.
//!
//! Needs root, for namespaces and probes; without it every test here is counted as skipped. One
//! test at a time (`--test-threads=1`): the limit is one for the whole machine.

mod behaviour;
mod cases;
mod floods;
mod namespaces;
mod rules;
mod watch;

use libtest_mimic::{Arguments, Failed, Trial};

type Test = fn() -> anyhow::Result<()>;

fn main() -> std::process::ExitCode {
    let args = Arguments::from_args();
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("the tests of the live kernel need root: skipped");
    }
    let trials = [cases::TESTS, floods::TESTS, rules::TESTS, namespaces::TESTS, behaviour::TESTS];
    let trials = trials.concat().into_iter().map(|(name, test): (&str, Test)| {
        Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
            .with_ignored_flag(!root)
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}
