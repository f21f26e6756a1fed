//! The queries of docs/fleet.md, asked of DuckDB over the recordings of a hundred hosts, whose generator
//! knows the answers.
//!
//! And the metrics of `ctwatch serve`, read by what Prometheus' users read them with.
//!
//! `CTWATCH_DUCKDB` names the program, `CTWATCH_PROMETHEUS_CLIENT` the folder with that package; without them
//! the tests here are counted as skipped.

#![expect(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a test may, and its numbers are small"
)]

mod hosts;
mod metrics;
#[path = "../values/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    env::var_os,
    fs,
    path::Path,
    process::{Command, ExitCode},
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result, ensure};
use hosts::{LOWER_LIMIT, MASKED, Truth, WITHOUT_SETTING, WORST, name};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Map, Value};

const DATABASE: &str = "CTWATCH_DUCKDB";

type Test = (&'static str, fn(&Fleet) -> Result<()>);
type Row = Map<String, Value>;

const TESTS: [Test; 8] = [
    ("a_segment_is_read_as_its_first_line_says", as_it_says),
    ("each_query_of_the_page_is_asked", each_is_asked),
    ("the_worst_hour_is_found", worst_hour),
    ("who_was_refused_everywhere_is_found", refused),
    ("a_host_that_lacks_the_fix_is_found", lacking),
    ("what_changed_before_the_first_drop_is_found", changed),
    ("gaps_are_found", gaps),
    ("the_worst_incidents_are_found", incidents),
];

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let skipped = var_os(DATABASE).is_none();
    if skipped {
        eprintln!("the tests of docs/fleet.md need DuckDB in {DATABASE}: skipped");
    }
    // Loaded once for all tests, and gone after the last.
    let fleet: Arc<OnceLock<Result<Fleet>>> = Arc::default();
    let trial = |(name, run): Test| {
        let fleet = Arc::clone(&fleet);
        let run = move || {
            let fleet = fleet.get_or_init(Fleet::load).as_ref();
            let fleet = fleet.map_err(|error| format!("{error:#}"))?;
            run(fleet).map_err(|error| format!("{error:#}").into())
        };
        Trial::test(name, run).with_ignored_flag(skipped)
    };
    let mut trials: Vec<Trial> = TESTS.map(trial).into();
    trials.extend(metrics::trials());
    libtest_mimic::run(&args, trials).exit_code()
}

struct Fleet {
    folder: tempfile::TempDir,
    queries: BTreeMap<String, String>,
    truth: Truth,
}

impl Fleet {
    fn load() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let hosts = folder.path().join("fleet");
        fs::create_dir(&hosts)?;
        let truth = hosts::record(&hosts);
        let fleet = Self { folder, queries: queries()?, truth };
        fleet.run(fleet.query("Load")?, &[])?;
        Ok(fleet)
    }

    fn query(&self, heading: &str) -> Result<&str> {
        let query = self.queries.get(heading);
        query.map(String::as_str).with_context(|| format!("docs/fleet.md has no query {heading:?}"))
    }

    fn ask(&self, heading: &str) -> Result<Vec<Row>> {
        let said = self.run(self.query(heading)?, &["-readonly"])?;
        let said = if said.trim().is_empty() { "[]" } else { &said };
        serde_json::from_str(said).with_context(|| format!("{heading}: {said}"))
    }

    /// Without a network: nothing is to be fetched for it.
    fn run(&self, query: &str, options: &[&str]) -> Result<String> {
        let query = format!("SET autoinstall_known_extensions = false; {query}");
        let place = self.folder.path();
        let output = Command::new(var_os(DATABASE).context("no database")?)
            .args(["-init", "/dev/null", "-bail", "-json"])
            .args(options)
            .args(["fleet.db", "-c", &query])
            .current_dir(place)
            .env("HOME", place)
            .env("TZ", "UTC")
            .output()
            .context("cannot start DuckDB")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && complaint.is_empty(), "{query}\n{complaint}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// The SQL of the page, by the heading that it stands below.
fn queries() -> Result<BTreeMap<String, String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fleet.md");
    let page = fs::read_to_string(page)?;
    let sections = page.split("\n## ").skip(1);
    let query = |section: &str| {
        let sql = section.split("```sql\n").nth(1)?.split("\n```").next()?;
        Some((section.lines().next()?.to_owned(), sql.to_owned()))
    };
    Ok(sections.filter_map(query).collect())
}

fn text<'a>(row: &'a Row, column: &str) -> Result<&'a str> {
    row.get(column).and_then(Value::as_str).with_context(|| format!("no {column} in {row:?}"))
}

fn number(row: &Row, column: &str) -> Result<u64> {
    // Numbers of 64 bits come as text.
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    row.get(column).and_then(number).with_context(|| format!("no {column} in {row:?}"))
}

fn time(row: &Row, column: &str) -> Result<Timestamp> {
    let time: DateTime = text(row, column)?.parse()?;
    Ok(time.to_zoned(TimeZone::UTC)?.timestamp())
}

/// As the generator calls it.
fn host(row: &Row) -> Result<String> {
    let host = text(row, "host")?;
    Ok(if host.starts_with("host-") { "masked" } else { host }.to_owned())
}

/// A query without a test is not known to be right.
fn each_is_asked(fleet: &Fleet) -> Result<()> {
    let headings: Vec<_> = fleet.queries.keys().map(String::as_str).collect();
    let asked = [
        "Load",
        "The worst hour of all hosts",
        "The worst incidents",
        "What changed before the first drop",
        "Which host lacks the fix",
        "Which hosts have gaps",
        "Who was refused everywhere",
    ];
    ensure!(headings == asked, "{headings:?}");
    Ok(())
}

/// What a file tells somebody who finds it.
fn as_it_says(fleet: &Fleet) -> Result<()> {
    const FUNCTION: &str = "read_ndjson_auto('";
    let first = "fleet/sw000/ctwatch-000001-20261126T000000Z.ndjson.gz";
    let how = fleet.run(&format!("SELECT how FROM {FUNCTION}{first}') LIMIT 1"), &["-readonly"])?;
    ensure!(how.contains(FUNCTION), "{how}");
    let count = format!("SELECT count(*) AS ticks FROM {FUNCTION}{first}') WHERE type = 'tick'");
    let rows: Vec<Row> = serde_json::from_str(&fleet.run(&count, &["-readonly"])?)?;
    ensure!(number(&rows[0], "ticks")? == 240, "{rows:?}");
    Ok(())
}

fn worst_hour(fleet: &Fleet) -> Result<()> {
    let rows = fleet.ask("The worst hour of all hosts")?;
    let mut found = BTreeMap::new();
    for row in &rows {
        found.insert((host(row)?, time(row, "hour")?), number(row, "dropped")?);
    }
    ensure!(found == fleet.truth.dropped, "{found:?}\n{:?}", fleet.truth.dropped);
    ensure!(found.len() > 14 && rows.len() == found.len());
    ensure!(text(&rows[0], "host")? == name(WORST), "{:?}", rows[0]);
    Ok(())
}

fn refused(fleet: &Fleet) -> Result<()> {
    let rows = fleet.ask("Who was refused everywhere")?;
    let scanner = &fleet.truth.scanner;
    let first = &rows[0];
    ensure!(text(first, "source")? == hosts::SCANNER.to_string(), "{first:?}");
    ensure!(number(first, "hosts")? == scanner.len() as u64, "{first:?} {scanner:?}");
    ensure!(number(first, "at_least")? == scanner.values().sum::<u64>(), "{first:?} {scanner:?}");
    ensure!(first["estimated"] == false, "{first:?}");
    for row in &rows[1..] {
        ensure!(number(row, "hosts")? == 1, "{row:?}");
    }
    Ok(())
}

fn lacking(fleet: &Fleet) -> Result<()> {
    let rows = fleet.ask("Which host lacks the fix")?;
    let mut found = BTreeSet::new();
    for row in &rows {
        let here = row.get("here").and_then(Value::as_str).unwrap_or("none");
        let elsewhere = text(row, "elsewhere")?;
        found.insert(format!("{} {}: {here}, {elsewhere}", host(row)?, text(row, "setting")?));
    }
    let (low, without) = (name(LOWER_LIMIT), name(WITHOUT_SETTING));
    let wanted = BTreeSet::from([
        format!("{low} nf_conntrack_buckets: 32768, 65536"),
        format!("{low} nf_conntrack_max: 32768, 65536"),
        format!(
            "{without} nf_conntrack_tcp_timeout_established in /etc/sysctl.d/90-conntrack.conf: none, 86400"
        ),
    ]);
    ensure!(found == wanted, "{found:?}");
    Ok(())
}

fn changed(fleet: &Fleet) -> Result<()> {
    let mut found = BTreeMap::new();
    for row in &fleet.ask("What changed before the first drop")? {
        let what = row.get("what").and_then(Value::as_str).map(str::to_owned);
        ensure!(what.is_none() || row["was_before"] == true, "{row:?}");
        found.insert(host(row)?, (time(row, "dropped_at")?, what));
    }
    ensure!(found == fleet.truth.first, "{found:?}\n{:?}", fleet.truth.first);
    let (with, without): (Vec<_>, Vec<_>) = found.values().partition(|(_, what)| what.is_some());
    ensure!(with.len() > 5 && without.len() > 3, "{found:?}");
    Ok(())
}

fn gaps(fleet: &Fleet) -> Result<()> {
    let mut found = BTreeSet::new();
    let mut dropped = BTreeMap::new();
    for row in &fleet.ask("Which hosts have gaps")? {
        let booted = row["booted"] == true;
        found.insert((host(row)?, time(row, "since")?, time(row, "until")?, booted));
        dropped.insert(host(row)?, number(row, "dropped_meanwhile")?);
    }
    ensure!(found == fleet.truth.gaps, "{found:?}\n{:?}", fleet.truth.gaps);
    let some: Vec<_> = dropped.iter().filter(|(_, packets)| **packets > 0).collect();
    ensure!(some == [(&name(hosts::KILLED), &hosts::IN_THE_GAP)], "{dropped:?}");
    Ok(())
}

fn incidents(fleet: &Fleet) -> Result<()> {
    let rows = fleet.ask("The worst incidents")?;
    ensure!(rows.len() == fleet.truth.incidents, "{} {}", rows.len(), fleet.truth.incidents);
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for row in &rows {
        ensure!(row["cause"] == "table_full" && row["ending"] == "quiet", "{row:?}");
        ensure!(row["at_least"] == row["at_most"], "{row:?}");
        *found.entry(text(row, "folder")?.to_owned()).or_default() += number(row, "at_least")?;
    }
    // What was dropped while nothing was recorded is of no incident.
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    for ((host, _), packets) in &fleet.truth.dropped {
        *known.entry(host.clone()).or_default() += packets;
    }
    known.remove("masked");
    *known.get_mut(&name(hosts::KILLED)).unwrap() -= hosts::IN_THE_GAP;
    ensure!(found == known, "{found:?}\n{known:?}");
    ensure!(!found.contains_key(&name(MASKED)));
    Ok(())
}
