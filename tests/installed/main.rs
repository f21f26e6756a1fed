//! The package, installed in a clean Debian and run as its unit, by systemd: in a virtual machine that is there for
//! nothing else (`cargo xtask test --only installed`).
//!
//! `CTWATCH_DEB` is the package, `CTWATCH_DEB_LATER` the same of a later version; without them all tests are counted as
//! skipped. They are steps, one after the other: each begins with what the one before it left.

mod inside;
mod package;
mod restrictions;
mod running;

use std::{
    env::{args, var_os},
    fs,
    path::Path,
    process::{Command, ExitCode},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Trial};

/// An emulated machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 13] = [
    ("a_clean_debian_has_started", running::has_started),
    ("a_package_that_is_installed_starts_nothing", package::is_off),
    ("the_units_are_verified_where_they_run", running::verified),
    ("enabling_the_units_starts_them", running::enabled),
    ("the_unit_counts_by_the_best_mechanism", running::by_the_best),
    ("the_unit_counts_what_the_kernel_counts", running::counts),
    ("each_restriction_is_in_force", restrictions::in_force),
    ("a_unit_that_was_killed_is_started_again", running::started_again),
    ("a_recording_is_in_the_state_folder", running::records),
    ("stopping_ends_it_well_and_the_recording_whole", running::stops),
    ("an_upgrade_loses_nothing_recorded", package::upgraded),
    ("removing_stops_it_and_leaves_recordings", package::removed),
    ("a_purge_leaves_recordings", package::purged),
];

fn main() -> ExitCode {
    if args().nth(1).as_deref() == Some("--inside") {
        return match try_from_inside(&args().nth(2).unwrap_or_default()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::from_args();
    let skipped = ["CTWATCH_DEB", "CTWATCH_DEB_LATER"].iter().any(|name| var_os(name).is_none());
    if skipped {
        eprintln!("the tests of the package are for a machine of its own: skipped");
    }
    let trial = |(name, run): Step| {
        let run = move || {
            let begun = Instant::now();
            ensure_before(name)?;
            let outcome = run().map_err(|error| format!("{error:#}"));
            println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
            if let Err(error) = &outcome {
                println!("{name}: {error}");
                let _ = FAILED.set(name);
            }
            Ok(outcome?)
        };
        Trial::test(name, run).with_ignored_flag(skipped)
    };
    libtest_mimic::run(&arguments, STEPS.map(trial).into()).exit_code()
}

/// The first step that failed.
static FAILED: OnceLock<&str> = OnceLock::new();

/// A step that begins with what was not left to it would only wait in vain.
fn ensure_before(name: &str) -> Result<(), String> {
    match FAILED.get() {
        Some(failed) => Err(format!("{name} needs {failed}, which failed")),
        None => Ok(()),
    }
}

/// What a process may do here; into a file, or without one to standard output.
fn try_from_inside(to: &str) -> Result<()> {
    match to {
        "-" => print!("{}", inside::tries(Path::new("/tmp"))?),
        file => {
            let file = Path::new(file);
            let folder = file.parent().context("no folder")?;
            fs::write(file, inside::tries(folder)?)?;
        }
    }
    Ok(())
}

/// What it printed, where it succeeded.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{text}{complaint}", output.status);
    Ok(text.into_owned())
}

/// Until `found` finds what it looks for.
fn until<T>(what: &str, mut found: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        let last = match found() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if Instant::now() > end {
            let unit = ["status", "--no-pager", "--lines=30", running::SERVICE];
            let status = Command::new("systemctl").args(unit).output()?;
            bail!("{what}: it did not come{last}: {}", String::from_utf8_lossy(&status.stdout));
        }
        thread::sleep(Duration::from_millis(200));
    }
}
