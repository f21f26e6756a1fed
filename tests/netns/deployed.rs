//! What is deployed beside ctwatch, at work: a real Prometheus that scrapes a real `ctwatch serve` over an incident
//! answers each panel of the dashboard, and alarms by the rules.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::{Value, json};

#[path = "../deploy/panels.rs"]
mod panels;

use crate::{
    On, Test, test,
    watch::{PATIENCE, ctwatch, finished},
};

pub(crate) const TESTS: &[Test] =
    &[test(On::OnceWithJudges, "prometheus_answers_each_panel", dashboard).anywhere()];

/// To 200 ports, of control planes among them.
pub(crate) const SYNS: Flows =
    Flows { sources: 10, services: 200, ..Flows::of(Family::V4, Protocol::TcpSyn) };

/// What is not there to ask.
pub(crate) fn missing() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let all = ["prometheus", "promtool", "strace", "systemd-analyze"].iter().all(is_there);
    let why =
        "prometheus, strace or systemd-analyze is not on PATH (cargo xtask test fetches them)";
    (!all).then_some(why)
}

/// Killed when it is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// What it said, for the case that it ends.
    log: PathBuf,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Server {
    fn start(command: &mut Command, port: u16, log: PathBuf) -> Result<Self> {
        let file = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log, port })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<String> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it ended with {status}: {}", fs::read_to_string(&self.log)?);
        }
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.lines().next().is_some_and(|line| line.contains(" 200 ")), "{path}: {head}");
        Ok(body.to_owned())
    }

    /// Asks it to stop, and waits until it did.
    pub(crate) fn ended(&mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: the child is not waited for yet, so the number is its own.
        ensure!(unsafe { libc::kill(pid, libc::SIGTERM) } == 0, "it is gone");
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status}: {}", fs::read_to_string(&self.log)?);
        Ok(())
    }

    /// Until `found` finds what it looks for.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut found: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let until = Instant::now() + PATIENCE;
        loop {
            let last = match found(self) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            if self.child.try_wait()?.is_some() || Instant::now() > until {
                bail!("{what}: it did not come{last}: {}", fs::read_to_string(&self.log)?);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Returns when tables are read.
pub(crate) fn serve(command: &mut Command, port: u16, folder: &Path, name: &str) -> Result<Server> {
    serve_with(command, &[], port, folder, name)
}

pub(crate) fn serve_with(
    command: &mut Command,
    more: &[&Path],
    port: u16,
    folder: &Path,
    name: &str,
) -> Result<Server> {
    command.args(["serve", "-i", "200ms", "--web.listen-address", &format!("127.0.0.1:{port}")]);
    let mut serve = Server::start(command.args(more), port, folder.join(name))?;
    serve.until("the first tick", |serve| {
        Ok(serve.get("/metrics")?.contains("ctwatch_entries{").then_some(()))
    })?;
    Ok(serve)
}

/// The value of one sample, named as on the page.
pub(crate) fn sample(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn prometheus(folder: &Path, target: u16) -> Result<Server> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/prometheus/ctwatch.rules.yml");
    let config = folder.join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [{}]\n\
         scrape_configs:\n\
         - job_name: ctwatch\n  honor_labels: true\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n",
        rules.display()
    );
    fs::write(&config, text)?;
    let port = free_port()?;
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--log.level=warn");
    let mut prometheus = Server::start(&mut command, port, folder.join("prometheus.log"))?;
    prometheus.until("Prometheus", |server| server.get("/-/ready").map(Some))?;
    Ok(prometheus)
}

/// What an expression comes to now: series, each with its labels and one or many values.
fn ask(prometheus: &mut Server, expression: &str) -> Result<Vec<Value>> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer: Value =
        serde_json::from_str(&prometheus.get(&format!("/api/v1/query?query={encoded}"))?)?;
    ensure!(answer["status"] == "success", "{expression}: {answer}");
    answer["data"]["result"].as_array().cloned().with_context(|| answer.to_string())
}

fn number(value: &Value) -> Result<f64> {
    value[1].as_str().with_context(|| value.to_string())?.parse().context("no number")
}

/// The only one's.
fn value(prometheus: &mut Server, expression: &str) -> Result<Option<f64>> {
    match &ask(prometheus, expression)?[..] {
        [] => Ok(None),
        [one] => number(&one["value"]).map(Some),
        more => bail!("{expression} is {} series", more.len()),
    }
}

/// Last sample less the first, of all that were scraped: nothing is extrapolated.
fn grown(prometheus: &mut Server, series: &str) -> Result<f64> {
    let found = ask(prometheus, &format!("{series}[1h]"))?;
    let [one] = &found[..] else { bail!("{series} is {} series", found.len()) };
    let values = one["values"].as_array().context("no values")?;
    let (first, last) = (values.first().context("no first")?, values.last().context("no last")?);
    Ok(number(last)? - number(first)?)
}

fn dashboard() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    // The first census, at the start, finds it full: the next one may be minutes away on a slow machine.
    lab.send(&Flood::of(SYNS, 1000))?;
    let before = judge::ask(lab.router())?.drop;
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let mut serve = serve(&mut ctwatch()?, port, folder.path(), "serve.log")?;
    let mut prometheus = prometheus(folder.path(), port)?;
    let netns = format!("netns={:?}", lab.router().name());
    let dropped = format!("ctwatch_dropped_total{{{netns}}}");
    prometheus.until("a scrape before the flood", |server| {
        let scrapes = value(server, &format!("count_over_time({dropped}[1h])"))?;
        Ok(scrapes.filter(|scrapes| *scrapes >= 2.0))
    })?;
    let sent = lab.send(&Flood { first: 1 << 32, ..Flood::of(SYNS, 3000) })?;
    let verdict = judge::ask(lab.router())?;
    let verdict = judge::Verdict { drop: verdict.drop - before, ..verdict };
    ensure!(verdict.drop > 1000 && sent.arrived == sent.packets, "{sent:?} {verdict:?}");
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let (truth, let_in) = (verdict.drop as f64, (sent.packets - verdict.drop) as f64);
    prometheus.until("the drops", |server| {
        Ok(value(server, &dropped)?.filter(|dropped| *dropped >= truth))
    })?;
    for (series, expected) in [
        (dropped.clone(), truth),
        (format!("ctwatch_drops_total{{{netns}, reason=\"table_full\"}}"), truth),
        (format!("ctwatch_insertions_total{{{netns}}}"), let_in),
    ] {
        let grown = grown(&mut prometheus, &series)?;
        ensure!(grown == expected, "{series} grew by {grown}, and it was {expected}");
    }
    judged(&serve.get("/metrics")?)?;
    // It goes by the certain total, without delay.
    prometheus.until("the alarm", |server| {
        let firing =
            format!("ALERTS{{alertname=\"CtwatchDropping\", alertstate=\"firing\", {netns}}}");
        value(server, &firing)
    })?;
    replayed(&mut prometheus, folder.path(), &netns)?;
    // The last counts came with the drops; a census and lists come while the table is saturated.
    let mut empty = Vec::new();
    prometheus.until("data for each panel", |server| {
        empty.clear();
        for query in panels::queries("5m")? {
            let series = ask(server, &query.expression)?;
            let of_nothing = series.iter().all(|one| one["value"][1] == "NaN");
            if of_nothing && !is_unavailable(server, &query.expression)? {
                empty.push(format!("{}: {}", query.panel, query.expression));
            }
        }
        ensure!(empty.is_empty(), "{empty:#?}");
        Ok(Some(()))
    })
}

/// What was scraped, with nothing new for twenty minutes after it: the alarm begins, is kept for ten minutes after the
/// last drop is five minutes old, and ends. That the table is full pages nobody, as its entries make room.
fn replayed(prometheus: &mut Server, folder: &Path, netns: &str) -> Result<()> {
    prometheus.until("a census", |server| {
        let class = format!("ctwatch_census_entries{{{netns}, class=\"reclaimable\"}}");
        Ok(value(server, &class)?.filter(|entries| *entries > 0.0))
    })?;
    let names = "ctwatch_(dropped|drops|insertions)_total|ctwatch_(entries|time_to_full_seconds|census_entries)";
    let mut scraped = ask(prometheus, &format!("{{__name__=~{names:?}, {netns}}}[1h]"))?;
    scraped.extend(ask(prometheus, "ctwatch_entries_limit[1h]")?);
    let times = scraped.iter().filter_map(|series| series["values"][0][0].as_f64());
    let begin = times.fold(f64::INFINITY, f64::min);
    let mut dropped_at = None;
    let mut input = Vec::new();
    for series in &scraped {
        let mut values: Vec<String> = Vec::new();
        for sample in series["values"].as_array().context("no values")? {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
            let second = (sample[0].as_f64().context("no time")? - begin).round() as usize;
            values.resize(second.max(values.len()), "_".to_owned());
            values.push(sample[1].as_str().context("no value")?.to_owned());
            if series["metric"]["__name__"] == "ctwatch_dropped_total" && number(sample)? > 0.0 {
                dropped_at.get_or_insert(second);
            }
        }
        let last = values.last().context("no value")?.clone();
        // The notation has no way to repeat an infinity.
        let rest = if last.contains("Inf") { last } else { format!("{last}x1300") };
        let labels = series["metric"].as_object().context("no labels")?;
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let series = format!("{{{}}}", labels.join(","));
        input.push(json!({ "series": series, "values": format!("{} {rest}", values.join(" ")) }));
    }
    let dropped_at = dropped_at.context("no drop was scraped")?;
    let case = |alert: &str, state: &str, second: usize, fires: bool| {
        let expression = format!("count(ALERTS{{alertname=~{alert:?}, alertstate={state:?}}})");
        let samples = if fires { json!([{ "labels": "{}", "value": 1 }]) } else { json!([]) };
        json!({ "expr": expression, "eval_time": format!("{second}s"), "exp_samples": samples })
    };
    let full = "CtwatchFull.*|CtwatchPinned|CtwatchFilling";
    let cases = [
        case("CtwatchDropping", "firing", 0, false),
        case("CtwatchDropping", "firing", dropped_at + 30, true),
        case("CtwatchDropping", "firing", dropped_at + 14 * 60, true),
        case("CtwatchDropping", "firing", dropped_at + 16 * 60, false),
        case(full, "firing", dropped_at + 60, false),
        case(full, "firing", dropped_at + 10 * 60, false),
    ];
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/prometheus/ctwatch.rules.yml");
    let test = json!({
        "rule_files": [rules],
        "evaluation_interval": "15s",
        "tests": [{ "interval": "1s", "input_series": input, "promql_expr_test": cases }],
    });
    let file = folder.join("scraped.yml");
    fs::write(&file, test.to_string())?;
    let (said, errors, code) =
        finished(Command::new("promtool").args(["test", "rules"]).arg(&file))?;
    ensure!(code == Some(0), "{said}{errors}\n{test}");
    Ok(())
}

/// By promtool, which comes with Prometheus and has nothing to say.
fn judged(page: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut promtool = command.stderr(Stdio::piped()).spawn().context("cannot start promtool")?;
    promtool.stdin.take().context("no input")?.write_all(page.as_bytes())?;
    let said = promtool.wait_with_output()?;
    let text = [said.stdout, said.stderr].concat();
    ensure!(said.status.success() && text.is_empty(), "{}", String::from_utf8_lossy(&text));
    Ok(())
}

/// What nothing on this machine measures, and is said to be so.
fn is_unavailable(prometheus: &mut Server, expression: &str) -> Result<bool> {
    const FIGURES: [(&str, &str); 1] = [("ctwatch_ctnetlink_refused_total", "ctnetlink_refused")];
    for (series, figure) in FIGURES {
        let available = format!("ctwatch_figure_available{{figure={figure:?}}}");
        if expression.contains(series) && value(prometheus, &available)? == Some(0.0) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) const CAPABILITIES: &str = "AmbientCapabilities";

/// What the unit says of it, a value for each line.
pub(crate) fn setting(name: &str) -> Result<Vec<String>> {
    // In a virtual machine there is no such file.
    let unit = include_str!("../../dist/systemd/ctwatch.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let values: Vec<_> = values.map(str::to_owned).collect();
    ensure!(!values.is_empty(), "the unit has no {name}");
    Ok(values)
}
