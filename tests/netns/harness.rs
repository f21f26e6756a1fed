//! Runs trials one after the other, in the order given. It prints what libtest-mimic prints, and
//! before and after each trial a line of its own, with how long that took and what came of it:
//! libtest-mimic has no place for such lines, and what a trial writes may stand in the middle of its.

use std::{
    any::Any,
    env,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use anyhow::Result;
use libtest_mimic::Arguments;

pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) run: Box<dyn Fn() -> Result<()>>,
    /// Why it cannot be run here: it is said, and it counts as ignored.
    pub(crate) skipped: Option<&'static str>,
}

/// How often a trial that failed is run again, if this is set. What holds each time after that is no success:
/// it is called unsteady, with what went wrong, and is counted by itself.
const AGAIN: &str = "CTWATCH_AGAIN";
/// Where more than so many are unsteady, the machine or the change is, and they have failed.
const MOST_UNSTEADY: usize = 3;

#[derive(Default)]
struct Conclusion {
    passed: usize,
    unsteady: Vec<(String, String)>,
    failed: Vec<(String, String)>,
    ignored: usize,
    filtered_out: usize,
}

/// With `ignored`, no trial is run and each counts as ignored.
pub(crate) fn run(args: &Arguments, trials: Vec<Trial>, ignored: bool) -> io::Result<ExitCode> {
    let mut out = io::stdout();
    let begun = Instant::now();
    let all = trials.len();
    let trials: Vec<Trial> = trials.into_iter().filter(|t| is_wanted(args, &t.name)).collect();
    if args.list {
        for trial in &trials {
            writeln!(out, "{}: test", trial.name)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut conclusion = Conclusion { filtered_out: all - trials.len(), ..Conclusion::default() };
    let again = env::var(AGAIN).ok().and_then(|times| times.parse().ok()).unwrap_or(0);
    let plural = if trials.len() == 1 { "" } else { "s" };
    writeln!(out, "\nrunning {} test{plural}", trials.len())?;
    let width = trials.iter().map(|trial| trial.name.len()).max().unwrap_or(0);
    for Trial { name, run, skipped } in trials {
        let mut say = |outcome: &str| match args.quiet {
            true => Ok(()),
            false => writeln!(out, "test {name:<width$} ... {outcome}"),
        };
        if let Some(why) = skipped.filter(|_| !ignored) {
            writeln!(io::stdout(), "skipped {name}: {why}")?;
        }
        if ignored || skipped.is_some() {
            conclusion.ignored += 1;
            say("ignored")?;
            continue;
        }
        // Where it hangs, this is the last line.
        writeln!(io::stdout(), "begun {name}")?;
        let started = Instant::now();
        let outcome = outcome(&*run);
        let took = started.elapsed().as_millis();
        let may_be_unsteady = again > 0 && conclusion.unsteady.len() < MOST_UNSTEADY;
        let is_unsteady = outcome.is_err() && may_be_unsteady && holds(again, &*run);
        let word = match outcome {
            Ok(()) => "ok",
            Err(_) if is_unsteady => "unsteady",
            Err(_) => "FAILED",
        };
        say(word)?;
        writeln!(out, "took {name} {took} {word}")?;
        match outcome {
            Ok(()) => conclusion.passed += 1,
            Err(why) if is_unsteady => conclusion.unsteady.push((name, why)),
            Err(why) => conclusion.failed.push((name, why)),
        }
    }
    conclusion.print(&mut out, begun)?;
    // What cargo's own harness ends with.
    Ok(if conclusion.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) })
}

fn is_wanted(args: &Arguments, name: &str) -> bool {
    let is = |wanted: &String| match args.exact {
        true => name == wanted,
        false => name.contains(wanted.as_str()),
    };
    args.filter.as_ref().is_none_or(is) && !args.skip.iter().any(is)
}

fn holds(times: u32, run: &dyn Fn() -> Result<()>) -> bool {
    (0..times).all(|_| outcome(run).is_ok())
}

/// A panic is a failure too, and the trials after it are still run.
fn outcome(run: &dyn Fn() -> Result<()>) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        Err(panic) => Err(format!("test panicked: {}", said(&*panic))),
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

impl Conclusion {
    fn print(&self, out: &mut impl Write, begun: Instant) -> io::Result<()> {
        let Self { passed, unsteady, failed, ignored, filtered_out } = self;
        for (name, why) in unsteady {
            writeln!(out, "\n---- {name} failed once, and held when it was run again ----\n{why}")?;
        }
        if !failed.is_empty() {
            writeln!(out, "\nfailures:\n")?;
            for (name, why) in failed {
                writeln!(out, "---- {name} ----\n{why}\n")?;
            }
            writeln!(out, "\nfailures:")?;
            for (name, _) in failed {
                writeln!(out, "    {name}")?;
            }
        }
        writeln!(
            out,
            "\ntest result: {}. {passed} passed; {} failed; {ignored} ignored; 0 measured; \
             {filtered_out} filtered out; {} unsteady; finished in {:.2}s\n",
            if failed.is_empty() { "ok" } else { "FAILED" },
            failed.len(),
            unsteady.len(),
            begun.elapsed().as_secs_f64()
        )
    }
}
