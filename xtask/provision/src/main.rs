//! Fetches one thing into `target/provision`, by the name of its folder there: what xtask calls when
//! it is missing.

mod fetch;

use std::{env, process::ExitCode};

use anyhow::{Context, Result};
use ctwatch_provision::Thing;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To whoever called: see Thing::fetch.
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let name = env::args().nth(1).context("the name of a folder in target/provision is missing")?;
    let thing = Thing::named(&name).with_context(|| format!("nothing is called {name:?}"))?;
    fetch::fetch(&thing)
}
