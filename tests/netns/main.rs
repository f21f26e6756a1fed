//! The live kernel against its own counters and a generator that knows what it sent.
//!
//! Needs root, for namespaces and probes; without it every test here is counted as skipped. One
//! test at a time (`--test-threads=1`): the limit is one for the whole machine.
//!
//! `CTWATCH_MECHANISMS` names the mechanisms that this kernel is known to offer: then the tests of
//! what is counted run once with each, and this is a machine of its own, for the tests that nobody
//! would run on theirs. With `CTWATCH_BENCH` it is for the benchmarks, and for no test.

mod behaviour;
mod cases;
mod census;
mod check;
mod cost;
mod doctor;
mod floods;
mod loading;
mod lookalikes;
mod machine;
mod mechanism;
mod namespaces;
mod rules;
mod scenarios;
mod top;
mod trace;
mod watch;

use libtest_mimic::{Arguments, Failed, Trial};
use mechanism::Mechanism;

struct Test {
    name: &'static str,
    on: On,
    run: fn() -> anyhow::Result<()>,
}

/// Where a test belongs.
#[derive(Clone, Copy, PartialEq)]
enum On {
    /// With each mechanism.
    Each,
    /// With each that has programs in the kernel.
    EachWithPrograms,
    /// With each, where this kernel limits how long a hash chain may grow.
    EachWithChainLimit,
    /// Once, with whatever is chosen.
    Once,
    /// Once, where this kernel limits how long a hash chain may grow.
    OnceWithChainLimit,
    /// Once, on a machine of its own.
    OnceAlone,
    /// Not a test: measures, where that is all that is asked for.
    Benchmark,
}

const fn test(on: On, name: &'static str, run: fn() -> anyhow::Result<()>) -> Test {
    Test { name, on, run }
}

fn main() -> std::process::ExitCode {
    let args = Arguments::from_args();
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("the tests of the live kernel need root: skipped");
    }
    let (mechanisms, alone) = mechanism::asked_for();
    let chains = root && ctwatch_lab::judge::limits_chains();
    let bench = std::env::var_os("CTWATCH_BENCH").is_some();
    let groups = [
        cases::TESTS,
        floods::TESTS,
        rules::TESTS,
        scenarios::TESTS,
        top::TESTS,
        census::TESTS,
        check::TESTS,
        trace::TESTS,
        namespaces::TESTS,
        behaviour::TESTS,
        doctor::TESTS,
        lookalikes::TESTS,
        machine::TESTS,
        loading::TESTS,
        cost::TESTS,
    ];
    let mut trials = Vec::new();
    for test in groups.into_iter().flatten() {
        if bench != (test.on == On::Benchmark) {
            continue;
        }
        for mechanism in &mechanisms {
            let wanted = match test.on {
                On::Each => true,
                On::EachWithPrograms => mechanism.has_programs(),
                On::EachWithChainLimit => chains,
                On::Once | On::OnceWithChainLimit | On::OnceAlone | On::Benchmark => false,
            };
            if wanted {
                trials.push(trial(test, *mechanism, alone, root));
            } else if test.on == On::EachWithChainLimit {
                println!("n/a {}: this kernel has no limit on chains", named(test, *mechanism));
            }
        }
        let once = match test.on {
            On::Once => true,
            On::OnceWithChainLimit => chains,
            On::OnceAlone => alone,
            On::Benchmark => true,
            _ => false,
        };
        if once {
            trials.push(trial(test, Mechanism::Auto, false, root));
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

fn named(test: &Test, mechanism: Mechanism) -> String {
    format!("{}::{}", mechanism.name(), test.name)
}

fn trial(test: &'static Test, mechanism: Mechanism, by_mechanism: bool, root: bool) -> Trial {
    let name = if by_mechanism { named(test, mechanism) } else { test.name.to_owned() };
    let run = move || {
        mechanism::set(mechanism);
        (test.run)().map_err(|error| Failed::from(format!("{error:#}")))
    };
    Trial::test(name, run).with_ignored_flag(!root)
}
