//! Runs trials one after the other, in the order given. It prints what libtest-mimic prints, and
//! after each trial how long that took: libtest-mimic has no place for such a line.

use std::{
    any::Any,
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
}

#[derive(Default)]
struct Conclusion {
    passed: usize,
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
    let plural = if trials.len() == 1 { "" } else { "s" };
    writeln!(out, "\nrunning {} test{plural}", trials.len())?;
    let width = trials.iter().map(|trial| trial.name.len()).max().unwrap_or(0);
    for Trial { name, run } in trials {
        if !args.quiet {
            write!(out, "test {name:<width$} ... ")?;
            out.flush()?;
        }
        let mut say = |outcome: &str| match args.quiet {
            true => Ok(()),
            false => writeln!(out, "{outcome}"),
        };
        if ignored {
            conclusion.ignored += 1;
            say("ignored")?;
            continue;
        }
        let started = Instant::now();
        let outcome = outcome(&*run);
        let took = started.elapsed().as_millis();
        match outcome {
            Ok(()) => {
                conclusion.passed += 1;
                say("ok")?;
            }
            Err(why) => {
                say("FAILED")?;
                conclusion.failed.push((name.clone(), why));
            }
        }
        writeln!(out, "took {name} {took}")?;
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
        let Self { passed, failed, ignored, filtered_out } = self;
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
             {filtered_out} filtered out; finished in {:.2}s\n",
            if failed.is_empty() { "ok" } else { "FAILED" },
            failed.len(),
            begun.elapsed().as_secs_f64()
        )
    }
}
