//! The metrics that tests/golden holds, as prometheus_client reads them: with its strict parser of OpenMetrics, and
//! the one of the older text.

use std::{
    env::var_os,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

const PACKAGE: &str = "CTWATCH_PROMETHEUS_CLIENT";

type Test = (&'static str, fn() -> Result<()>);

const TESTS: [Test; 3] = [
    ("openmetrics_is_read_strictly", strictly),
    ("the_older_text_is_read", older),
    ("the_strict_reader_refuses_what_is_wrong", refuses),
];

pub(crate) fn trials() -> Vec<Trial> {
    let skipped = var_os(PACKAGE).is_none();
    if skipped {
        eprintln!("the tests of metrics need prometheus_client in {PACKAGE}: skipped");
    }
    let trial = |(name, run): Test| {
        let run = move || run().map_err(|error| format!("{error:#}").into());
        Trial::test(name, run).with_ignored_flag(skipped)
    };
    TESTS.map(trial).into()
}

fn golden(file: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(file);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// All samples: name, labels, value and the type of the family.
fn read(parser: &str, page: &str) -> Result<Vec<Value>> {
    let script = format!(
        "import json, sys\n\
         from prometheus_client.{parser} import text_string_to_metric_families as read\n\
         for f in read(sys.stdin.read()):\n\
         \x20 for s in f.samples: print(json.dumps([s.name, s.labels, str(s.value), f.type]))"
    );
    let mut python = Command::new("python3")
        .args(["-c", &script])
        .env("PYTHONPATH", var_os(PACKAGE).context("no package")?)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start python3")?;
    python.stdin.take().context("no input")?.write_all(page.as_bytes())?;
    let output = python.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{complaint}");
    let said = String::from_utf8(output.stdout)?;
    Ok(said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn is_read(parser: &str, file: &str) -> Result<Vec<Value>> {
    let page = golden(file)?;
    let samples = read(parser, &page)?;
    let lines = page.lines().filter(|line| !line.starts_with('#')).count();
    ensure!(samples.len() == lines && lines > 50, "{file}: {} of {lines} were read", samples.len());
    for sample in &samples {
        let is_counter = sample[0].as_str().is_some_and(|name| name.ends_with("_total"));
        ensure!((sample[3] == "counter") == is_counter, "{sample}");
    }
    Ok(samples)
}

fn strictly() -> Result<()> {
    let samples = is_read("openmetrics.parser", "metrics.openmetrics.txt")?;
    // A name that would end the label, and the page.
    let hostile = |sample: &Value| sample[1]["netns"] == "\"a\\\\u{22}} 1\\n# EOF\\u{1b}[2J\\\\\"";
    ensure!(samples.iter().any(|sample| sample[0] == "ctwatch_entries" && hostile(sample)));
    is_read("openmetrics.parser", "metrics-absent.openmetrics.txt").map(|_| ())
}

fn older() -> Result<()> {
    is_read("parser", "metrics.prom").map(|_| ())
}

/// That it says nothing means something.
fn refuses() -> Result<()> {
    let page = golden("metrics.openmetrics.txt")?;
    let line = "ctwatch_epoch 1\n";
    ensure!(page.contains(line));
    for wrong in [
        page.replace("# EOF\n", ""),
        page.replace("ctwatch_probe_lost_total 0\n", "ctwatch_probe_lost_total -1\n"),
        page.replace(line, "ctwatch_epoch one\n"),
        page.replace("# TYPE ctwatch_dropped counter", "# TYPE ctwatch_dropped_total counter"),
    ] {
        ensure!(read("openmetrics.parser", &wrong).is_err(), "it takes anything");
    }
    Ok(())
}
