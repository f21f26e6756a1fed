//! `cargo xtask matrix`: the tests of the live kernel on every kernel and with every mechanism.

use std::{collections::btree_map::Entry, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use ctwatch_provision::{kernels::Kind, machine::Machine, process::root};

use super::build;
use crate::{
    matrix::{
        COSTS, Ledger, Matrix, Slice, Trials, What, commit, kernel_names, of_changes, trials,
    },
    vm::parts::Parts,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these kernels
    #[arg(long = "kernel", value_name = "NAME", value_parser = kernel_names())]
    kernels: Vec<String>,
    /// Only the cells in this file: a kernel and a trial on each line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bench", "changed"])]
    slice: Option<PathBuf>,
    /// Only what the changes since this revision can touch (without one: what is not committed)
    #[arg(
        long,
        value_name = "REVISION",
        num_args = 0..=1,
        default_missing_value = "HEAD",
        conflicts_with = "bench"
    )]
    changed: Option<String>,
    /// Print the cells that would be run
    #[arg(long, conflicts_with = "bench")]
    list: bool,
    /// The benchmarks instead of the tests: by a clock that counts instructions
    #[arg(long)]
    bench: bool,
    /// Of the benchmarks only what each change is held against: the bars of tests/netns/cost.rs
    #[arg(long, requires = "bench", conflicts_with_all = ["write", "filter"])]
    bars: bool,
    /// Benchmarks measure this executable of ctwatch too, side by side
    #[arg(long, value_name = "FILE", requires = "bench")]
    beside: Option<PathBuf>,
    /// What comes of all benchmarks goes into docs/costs.md
    #[arg(long, requires = "bench", conflicts_with_all = ["kernels", "filter"])]
    write: bool,
    #[command(flatten)]
    build: build::Options,
    /// Only tests whose name contains this
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let wanted = |name: &str| match args.kernels.as_slice() {
        // Instructions of another machine are not compared with these.
        [] => !args.bench || matches!(Kind::of(name), (_, Kind::Own)),
        some => some.iter().any(|kernel| kernel == name),
    };
    let names: Vec<String> =
        kernel_names().iter().filter(|name| wanted(name)).map(|name| (*name).to_owned()).collect();
    // Of what is built now, whatever is committed meanwhile.
    let commit = commit();
    let mut built = build::tests(&args.build)?;
    let mut ledger = Ledger::read()?;
    let (outcome, place) = if args.bench {
        // What is measured is what is used.
        let released = build::run(&args.build)?;
        if let Some(inside) = built.guests.get_mut(&Machine::of_this()?) {
            inside.ctwatch = released;
        }
        let filter = if args.bars { Some(COSTS) } else { args.filter.as_deref() };
        let beside = args.beside.as_deref();
        let what = What::Benchmarks { kernels: &names, filter, beside, bars: args.bars };
        let costs = Matrix::run(&Parts::provide(&names)?, &built, &what, &ledger)?;
        let place = costs.write_costs(&commit, args.write)?;
        (costs, place)
    } else {
        let slice = slice(args, &trials(&built.live_tests)?, &names)?;
        if args.list {
            print!("{}", slice.text());
            return Ok(ExitCode::SUCCESS);
        }
        let parts = Parts::provide(&slice.kernels())?;
        for machine in parts.kernels().iter().map(|kernel| kernel.machine) {
            if let Entry::Vacant(place) = built.guests.entry(machine) {
                place.insert(build::inside(machine, &args.build)?);
            }
        }
        let matrix =
            Matrix::run(&parts, &built, &What::Tests { slice: &slice, again: 0 }, &ledger)?;
        matrix.enter_into(&mut ledger, &commit);
        ledger.write()?;
        println!("the slowest: {}", matrix.slowest());
        (matrix, root().join("docs/matrix.md"))
    };
    let (counts, succeeded) = outcome.counts();
    eprintln!("xtask: {counts}; the table is in {}", place.display());
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cells that were asked for.
fn slice(args: &Args, trials: &Trials, names: &[String]) -> Result<Slice> {
    let of = match (&args.slice, &args.changed) {
        (Some(file), _) => {
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            Slice::parse(&text, trials).with_context(|| format!("{}", file.display()))?
        }
        (None, Some(base)) => of_changes(trials, base)?,
        (None, None) => Slice::of(trials, |_, _| true),
    };
    let filter = args.filter.as_deref().unwrap_or_default();
    let wanted =
        of.0.into_iter().filter(|cell| names.contains(&cell.kernel) && cell.trial.contains(filter));
    Ok(Slice(wanted.collect()))
}
