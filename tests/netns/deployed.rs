//! What is deployed beside ctwatch, at work: a real Prometheus that scrapes a real `ctwatch serve` over an incident
//! answers each panel of the dashboard, and the restrictions of the unit take nothing away.

use std::{
    collections::BTreeSet,
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
    Lab, Plan, judge,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

#[path = "../deploy/panels.rs"]
mod panels;

use crate::{
    On, Test, test,
    watch::{PATIENCE, ctwatch},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::OnceWithJudges, "prometheus_answers_each_panel", dashboard).anywhere(),
    test(On::Once, "the_units_restrictions_take_nothing_away", unit),
    test(On::Once, "the_pods_restrictions_take_nothing_away", pod),
];

/// To 200 ports, of control planes among them.
const SYNS: Flows = Flows { sources: 10, services: 200, ..Flows::of(Family::V4, Protocol::TcpSyn) };

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
    child: Child,
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
fn serve(command: &mut Command, port: u16, folder: &Path, name: &str) -> Result<Server> {
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
fn sample(page: &str, name: &str) -> Option<f64> {
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
    lab.set_limit(500)?;
    lab.keep_entries()?;
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
    let sent = lab.send(&Flood::of(SYNS, 3000))?;
    let verdict = judge::ask(lab.router())?;
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
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd/ctwatch.service");
    let unit = fs::read_to_string(unit)?;
    let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let values: Vec<_> = values.map(str::to_owned).collect();
    ensure!(!values.is_empty(), "the unit has no {name}");
    Ok(values)
}

/// What `setpriv` is to do: these capabilities and no others, for good.
fn only(user: &[&str]) -> Result<Vec<String>> {
    // A test of what is deployed holds the pod's against the same list.
    let names = setting(CAPABILITIES)?.join(" ");
    let names = names.split(' ').map(|name| {
        let name = name.trim_start_matches("CAP_").to_lowercase();
        format!(",+{name}")
    });
    let kept = format!("-all{}", names.collect::<String>());
    let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={kept}"));
    let user = user.iter().map(|option| (*option).to_owned());
    let alone = ["setpriv".to_owned(), "--clear-groups".to_owned(), "--no-new-privs".to_owned()];
    Ok(alone.into_iter().chain(sets).chain(user).collect())
}

/// As systemd starts it: another user, these capabilities, a read-only file system in a mount namespace of its own
/// that follows the host's.
fn unit() -> Result<()> {
    const PREPARE: &str = "mount --make-rslave / && mount -o remount,bind,ro / && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "unchanged", "sh", "-ec", PREPARE, "sh"]);
    command.args(only(&["--reuid=61234", "--regid=61234"])?).arg(ctwatch()?.get_program());
    restricted(&mut command, 61234)
}

/// As a container runtime starts it: root with these capabilities, namespaces of its own but for the network's and the
/// processes', and a read-only root with nothing in it but what the manifest mounts.
fn pod() -> Result<()> {
    // /usr and its libraries are for setpriv, and for a build that is not static.
    const PREPARE: &str = "
        root=$1 ctwatch=$2; shift 2
        mount --make-rslave /
        mount -t tmpfs none $root
        cd $root
        mkdir -p proc sys dev run/netns var/log/pods
        touch ctwatch dev/null
        mount --bind /dev/null dev/null
        mount --bind $ctwatch ctwatch
        mount -t proc proc proc
        mount --bind proc/sys proc/sys
        mount -o remount,bind,ro proc/sys
        mount -t sysfs -o ro sysfs sys
        mount --rbind /run/netns run/netns
        for folder in usr lib lib64; do
            if [ -d /$folder ]; then
                mkdir $folder
                mount --bind /$folder $folder
                mount -o remount,bind,ro $folder
            fi
        done
        mount -o remount,ro $root
        exec chroot $root \"$@\"";
    let root = tempfile::tempdir()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--uts", "--ipc", "--cgroup", "--propagation", "unchanged"]);
    command.args(["sh", "-ec", PREPARE, "sh"]);
    command.arg(root.path()).arg(ctwatch()?.get_program()).args(only(&[])?).arg("/ctwatch");
    restricted(&mut command, 0)
}

/// A process in a network namespace of its own, which nothing else leads to.
struct Lodger(Child);

impl Lodger {
    fn start() -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo in; exec sleep 600"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut said = [0; 3];
        let output = child.stdout.take();
        let lodger = Self(child);
        output.context("no output")?.read_exact(&mut said)?;
        Ok(lodger)
    }

    fn inode(&self) -> Result<String> {
        let link = fs::read_link(format!("/proc/{}/ns/net", self.0.id()))?;
        let link = link.to_string_lossy();
        let inode = link.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
        Ok(inode.with_context(|| link.to_string())?.to_owned())
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Lodger {
    fn drop(&mut self) {
        self.end();
    }
}

fn available(page: &str) -> BTreeSet<String> {
    let figures =
        page.lines().filter_map(|line| line.strip_prefix("ctwatch_figure_available{figure="));
    figures.filter_map(|line| line.strip_suffix("} 1")).map(str::to_owned).collect()
}

/// Everything is counted as it is without restrictions; a namespace that is deleted goes.
fn restricted(command: &mut Command, user: u32) -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(500)?;
    lab.keep_entries()?;
    let folder = tempfile::tempdir()?;
    // As root first.
    let port = free_port()?;
    let mut whole = serve(&mut ctwatch()?, port, folder.path(), "root.log")?;
    let before = available(&whole.get("/metrics")?);
    ensure!(before.contains("\"dropped\"") && before.contains("\"insertions\""), "{before:?}");
    drop(whole);

    let port = free_port()?;
    let mut serve = serve(command, port, folder.path(), "serve.log")?;
    let pid = serve.child.id();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(status.contains(&format!("\nUid:\t{user}\t{user}\t")), "{status}");
    ensure!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
    let name = lab.router().name().to_owned();
    let counter = |page: &str, counter: &str| sample(page, &format!("{counter}{{netns={name:?}}}"));
    let page = serve.get("/metrics")?;
    ensure!(available(&page) == before, "as root {before:?}, confined {:?}", available(&page));
    let first = counter(&page, "ctwatch_dropped_total").context("drops are not measured")?;
    let inserted =
        counter(&page, "ctwatch_insertions_total").context("insertions are not measured")?;
    let sent = lab.send(&Flood::of(SYNS, 2000))?;
    let verdict = judge::ask(lab.router())?;
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let (truth, let_in) = (verdict.drop as f64, (sent.packets - verdict.drop) as f64);
    ensure!(truth > 1000.0 && sent.arrived == sent.packets, "{sent:?} {verdict:?}");
    let page = serve.until("the drops", |serve| {
        let page = serve.get("/metrics")?;
        Ok(counter(&page, "ctwatch_dropped_total")
            .is_some_and(|now| now - first >= truth)
            .then_some(page))
    })?;
    let grown = |name, from| counter(&page, name).map(|now| now - from);
    ensure!(grown("ctwatch_dropped_total", first) == Some(truth), "{truth} {page}");
    ensure!(grown("ctwatch_insertions_total", inserted) == Some(let_in), "{let_in} {page}");
    ensure!(counter(&page, "ctwatch_entries") == Some(500.0), "{page}");
    // Who, and what it is made of, while it is saturated.
    serve.until("a census and lists", |serve| {
        let page = serve.get("/metrics")?;
        let here = page.contains("ctwatch_census_entries{") && page.contains("ctwatch_top_share{");
        Ok(here.then_some(()))
    })?;

    // One that only a process of root shows, as a pod's, and only while there is that process.
    let mut process = Lodger::start()?;
    let of_process = format!("inode=\"{}\"", process.inode()?);
    serve.until("the namespace of a process", |serve| {
        Ok(serve.get("/metrics")?.contains(&of_process).then_some(()))
    })?;
    process.end();
    serve.until("that the process is gone", |serve| {
        Ok((!serve.get("/metrics")?.contains(&of_process)).then_some(()))
    })?;

    // What is made later is seen, and what is deleted is not kept.
    let later = lab.add_netns("later")?;
    let inode = later.inode()?;
    let readable = format!("ctwatch_netns_readable{{netns={:?}}}", later.name());
    serve.until("the new namespace", |serve| {
        Ok(sample(&serve.get("/metrics")?, &readable).filter(|readable| *readable == 1.0))
    })?;
    lab.remove_netns(&later)?;
    serve.until("that it is gone", |serve| {
        Ok(sample(&serve.get("/metrics")?, &readable).is_none().then_some(()))
    })?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    ensure!(!mounts.contains(&format!("net:[{inode}]")), "it is still mounted: {mounts}");
    let root =
        mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).context("no root")?;
    let options = root.split(' ').nth(5).unwrap_or_default();
    ensure!(options.split(',').any(|option| option == "ro"), "it may write: {root}");
    Ok(())
}
