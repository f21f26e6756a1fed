//! What is deployed beside ctwatch, judged by the tools that will read it: dist/prometheus by promtool, dist/systemd
//! by systemd-analyze, dist/kubernetes and dist/helm by kubectl, helm and Kubernetes' schemas, the image by skopeo and
//! umoci, packages by dpkg and bash.
//!
//! They are looked for on PATH. `CTWATCH_KUBERNETES` is a folder with kubectl, helm and schemas; `CTWATCH_IMAGE` is the
//! image, `CTWATCH_DIST` a folder of packages. A test whose tool is missing is counted as skipped.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may, and what it reads is in this repository"
)]

mod image;
mod machines;
mod manifests;
mod packages;
mod panels;
mod queries;
mod rules;
mod schema;
mod unit;

use std::{
    env::{self, var_os},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

/// What a test cannot do without.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Program(&'static str),
    Variable(&'static str),
}

struct Test {
    name: &'static str,
    needs: &'static [Needs],
    run: fn() -> Result<()>,
}

const GROUPS: [&[Test]; 7] = [
    rules::TESTS,
    queries::TESTS,
    unit::TESTS,
    manifests::TESTS,
    image::TESTS,
    packages::TESTS,
    machines::TESTS,
];

impl Needs {
    fn is_there(self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Program(program) => find(program).is_some(),
            Self::Variable(name) => var_os(name).is_some(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Program(name) | Self::Variable(name) => name,
        }
    }
}

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let trials = GROUPS.into_iter().flatten().map(|test| {
        let missing = test.needs.iter().find(|needs| !needs.is_there());
        if let Some(missing) = missing {
            eprintln!("{} needs {}: skipped", test.name, missing.name());
        }
        let run = || (test.run)().map_err(|error| format!("{error:#}").into());
        Trial::test(test.name, run).with_ignored_flag(missing.is_some())
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn dist(path: &str) -> PathBuf {
    root().join("dist").join(path)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What it printed, where it succeeded.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{text}{complaint}", output.status);
    Ok(text.into_owned())
}

/// Each document of a file.
fn documents(yaml: &str) -> Result<Vec<Value>> {
    use serde::Deserialize;
    let documents = serde_norway::Deserializer::from_str(yaml).map(Value::deserialize);
    Ok(documents.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|v| !v.is_null()).collect())
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("no {key} in {value}"))
}
