//! `ctwatch serve`: what is scraped is what the kernel counted, whoever scrapes and however; what listens has no rights.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL,
    crowd::Crowd,
    judge,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    machine::{modprobe, unload},
    mechanism::{self, Mechanism},
    test,
    watch::{Lines, PATIENCE, ctwatch, lines},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Each, "scrapes_count_what_the_kernel_counts", counts),
    test(On::Once, "what_listens_has_no_rights", rights).anywhere(),
    test(On::Once, "clients_do_not_delay_the_counting", clients),
    test(On::Once, "slow_clients_are_cut_off", slow).anywhere(),
    test(On::Once, "ten_thousand_scrapes_take_no_memory", many).anywhere(),
    test(On::Once, "a_process_that_listens_is_started_again", again).anywhere(),
    test(On::Once, "names_end_no_label", hostile).anywhere(),
    test(On::Once, "a_namespace_that_goes_takes_its_series_along", goes),
    test(On::Once, "scrapes_of_200_namespaces_are_cheap", cheap).anywhere(),
    test(On::Once, "a_textfile_holds_what_is_scraped", textfile).anywhere(),
    test(On::Once, "systemd_hands_over_sockets_and_is_told", systemd).anywhere(),
    test(On::OnceAlone, "metrics_go_on_when_conntrack_is_unloaded", unloaded),
];

const UDP: Flows = Flows { sources: 100, services: 10, ..Flows::of(Family::V4, Protocol::Udp) };

/// ctwatch that serves.
struct Serve {
    child: Child,
    said: Lines,
    at: SocketAddr,
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A machine of its own may have nothing up yet.
fn loopback() -> Result<()> {
    let lo = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    ensure!(lo.success(), "cannot set lo up");
    Ok(())
}

impl Serve {
    /// Returns when the first reading is served.
    fn start(args: &[&str]) -> Result<Self> {
        let at = free_port()?;
        loopback()?;
        let often: &[&str] = if args.contains(&"-i") { &[] } else { &["-i", "100ms"] };
        let by = ["--mechanism", mechanism::current().name()];
        let by: &[&str] = if args.contains(&"--mechanism") { &[] } else { &by };
        let mut child = ctwatch()?
            .args(["serve", "--web.listen-address", &at.to_string()])
            .args(often)
            .args(by)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ctwatch")?;
        let said = lines(child.stderr.take().context("no error output")?);
        let serve = Self { child, said, at };
        serve.until(|_| true)?;
        Ok(serve)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that listens.
    fn listener(&self) -> Result<u32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            for entry in fs::read_dir("/proc")?.flatten() {
                let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
                let is = |key: &str, value: &str| {
                    let mut fields = status.lines().filter_map(|line| line.split_once(":\t"));
                    fields.any(|(name, of)| name == key && of == value)
                };
                if is("PPid", &self.pid().to_string()) && !is("State", "Z (zombie)") {
                    return Ok(entry.file_name().to_str().context("no number")?.parse()?);
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("no process listens")
    }

    /// What is scraped, once that is accepted.
    fn until(&self, found: impl Fn(&Metrics) -> bool) -> Result<Metrics> {
        let until = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < until {
            match self.scrape() {
                Ok(metrics) if found(&metrics) => return Ok(metrics),
                Ok(metrics) => last = format!("{metrics:?}"),
                Err(error) => last = format!("{error:#}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
        let said: Vec<_> = self.said.try_iter().flatten().collect();
        bail!("it did not come: {last} {said:?}")
    }

    /// Of a reading that began after now.
    fn fresh(&self) -> Result<Metrics> {
        let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
        let time =
            |metrics: &Metrics| metrics.0.get("ctwatch_last_tick_timestamp_seconds").copied();
        let first = self.until(|metrics| time(metrics).is_some_and(|time| time > now))?;
        // That one may have begun before.
        let first = time(&first);
        self.until(|metrics| time(metrics) > first)
    }

    fn scrape(&self) -> Result<Metrics> {
        Metrics::read(&get(self.at, "/metrics", "application/openmetrics-text;version=1.0.0")?)
    }

    fn stop(mut self) -> Result<String> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: a signal to our own child, which has not been waited for.
        ensure!(unsafe { libc::kill(pid, libc::SIGTERM) } == 0, "cannot stop ctwatch");
        let status = self.child.wait()?;
        let said: Vec<_> = self.said.iter().flatten().collect();
        ensure!(status.success(), "ctwatch ended with {status}: {said:?}");
        Ok(said.join("\n"))
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(at: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The body of an answer of 200.
fn get(at: SocketAddr, path: &str, accept: &str) -> Result<String> {
    let (status, _, body) = answer(at, path, accept)?;
    ensure!(status == 200, "{path}: {status} {body}");
    Ok(body)
}

fn answer(at: SocketAddr, path: &str, accept: &str) -> Result<(u16, String, String)> {
    let mut stream = connect(at)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    let (head, body) = all.split_once("\r\n\r\n").with_context(|| format!("no answer: {all:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, head.to_owned(), body.to_owned()))
}

/// By name and labels, as they are written.
#[derive(Debug)]
struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn read(page: &str) -> Result<Self> {
        let page = page.strip_suffix("# EOF\n").with_context(|| format!("no end: {page}"))?;
        let mut all = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').context("no value")?;
            let before = all.insert(series.to_owned(), value.parse::<f64>()?);
            ensure!(before.is_none(), "{series} is there twice");
        }
        Ok(Self(all))
    }

    fn of(&self, series: &str) -> Result<f64> {
        self.0.get(series).copied().with_context(|| format!("no {series} in {:?}", self.0.keys()))
    }

    fn netns(&self, metric: &str, netns: &str, more: &str) -> Result<f64> {
        self.of(&format!("{metric}{{netns=\"{netns}\"{more}}}"))
    }
}

/// What came between two scrapes is what the kernel counted: exactly where the gauge says that nothing is in
/// doubt, and otherwise within it.
fn grew(
    first: &Metrics,
    last: &Metrics,
    name: &str,
    netns: &str,
    more: &str,
    truth: u64,
) -> Result<bool> {
    let counter = format!("ctwatch_{name}_total");
    let came = last.netns(&counter, netns, more)? - first.netns(&counter, netns, more)?;
    let width = last.netns(&format!("ctwatch_{name}_uncertain"), netns, more)?;
    let truth = truth as f64;
    ensure!(
        came <= truth && truth <= came + width,
        "{name}: {came} +{width}, and {truth} is the truth"
    );
    Ok(width == 0.0)
}

/// Nothing was lost, or what a kprobe missed was admitted.
fn nothing_lost(serve: &Serve, metrics: &Metrics) -> Result<()> {
    let lost = metrics.of("ctwatch_probe_lost_total")?;
    if mechanism::current() != Mechanism::Kprobe && lost != 0.0 {
        bail!("lost {lost}: {}", get(serve.at, "/api/v1/snapshot", "")?);
    }
    Ok(())
}

fn counts() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    let serve = Serve::start(&[])?;
    let netns = lab.router().name().to_owned();
    let first = serve.until(|metrics| metrics.netns("ctwatch_entries", &netns, "").is_ok())?;
    let before = judge::ask(lab.router())?;
    ensure!(before.drop == 0 && first.netns("ctwatch_dropped_total", &netns, "")? == 0.0);
    let sent = lab.send(&Flood::of(UDP, 20_000))?;
    let last = serve.fresh()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 10_000, "{verdict:?}");
    ensure!(grew(&first, &last, "dropped", &netns, "", verdict.drop)?, "it is not exact");
    grew(&first, &last, "drops", &netns, ",reason=\"table_full\"", verdict.drop)?;
    grew(&first, &last, "evictions", &netns, ",reason=\"early_drop\"", verdict.early_drop)?;
    let inserted = sent.arrived - verdict.drop;
    if mechanism::current().has_programs() {
        grew(&first, &last, "insertions", &netns, "", inserted)?;
        let entries = last.netns("ctwatch_entries", &netns, "")?;
        ensure!(
            entries == verdict.entries as f64 && entries == f64::from(STAYS_FULL),
            "{entries} {verdict:?}"
        );
        nothing_lost(&serve, &last)?;
    } else {
        let absent = last.netns("ctwatch_insertions_total", &netns, "").is_err();
        let available = last.of("ctwatch_figure_available{figure=\"insertions\"}")?;
        ensure!(absent == (available == 0.0), "{last:?}");
    }
    ensure!(last.netns("ctwatch_netns_saturated", &netns, "")? == 1.0);
    ensure!(last.netns("ctwatch_time_to_full_seconds", &netns, "")? < 1.0);
    ensure!(last.of("ctwatch_entries_limit")? == f64::from(STAYS_FULL));
    // The other format, and JSON, say the same.
    let (status, head, text) = answer(serve.at, "/metrics", "text/plain")?;
    ensure!(status == 200 && head.contains("text/plain; version=0.0.4; charset=utf-8"), "{head}");
    ensure!(
        text.contains(&format!("ctwatch_dropped_total{{netns=\"{netns}\"}} {}\n", verdict.drop)),
        "{text}"
    );
    let (_, head, _) = answer(serve.at, "/metrics", "application/openmetrics-text")?;
    ensure!(head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    let object: serde_json::Value = serde_json::from_str(&get(serve.at, "/api/v1/snapshot", "")?)?;
    let table = crate::watch::table(&object, lab.router())?;
    ensure!(table["dropped"]["at_least"] == verdict.drop, "{table}");
    let top: serde_json::Value = serde_json::from_str(&get(serve.at, "/api/v1/top", "")?)?;
    let lists = top["tables"].as_array().context("no tables")?;
    ensure!(lists.is_empty() != mechanism::current().has_programs(), "{top}");
    ensure!(get(serve.at, "/-/healthy", "")? == "healthy\n");
    ensure!(get(serve.at, "/", "")?.contains("/metrics"));
    for (path, wanted) in [("/metrics/", 404), ("/api", 404), ("/../etc/passwd", 404)] {
        let (status, ..) = answer(serve.at, path, "")?;
        ensure!(status == wanted, "{path}: {status}");
    }
    serve.stop()?;
    Ok(())
}

fn status(pid: u32) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let fields = text.lines().filter_map(|line| line.split_once(":\t"));
    Ok(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

fn rights() -> Result<()> {
    let serve = Serve::start(&[])?;
    let pid = serve.listener()?;
    let of = status(pid)?;
    for (field, wanted) in [
        ("Name", "ctwatch-web"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Threads", "1"),
    ] {
        let is = of.get(field).map(String::as_str);
        ensure!(is.is_some_and(|is| is.starts_with(wanted)), "{field}: {is:?}");
    }
    ensure!(fs::read(format!("/proc/{pid}/environ"))?.is_empty(), "it has an environment");
    // Sockets, an epoll, an eventfd and nowhere: no file, no map, no program.
    let mut kinds = Vec::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        kinds.push(fs::read_link(fd.path())?.display().to_string());
    }
    let known = |kind: &String| {
        kind.starts_with("socket:") || kind == "/dev/null" || kind.starts_with("anon_inode:[event")
    };
    ensure!(kinds.iter().all(known) && kinds.len() > 4, "{kinds:?}");
    // And the one that watches listens to nobody.
    let of = status(serve.pid())?;
    ensure!(of["NoNewPrivs"] == "1" && of["CapEff"] != "0000000000000000", "{of:?}");
    // When it is killed, the other one ends too.
    let (parent, mut child) = (serve.pid(), serve);
    child.child.kill()?;
    child.child.wait()?;
    let until = Instant::now() + PATIENCE;
    while fs::exists(format!("/proc/{pid}"))? {
        ensure!(Instant::now() < until, "{pid} outlives {parent}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// In kB, of both processes: memory of their own, and all.
fn memory(serve: &Serve) -> Result<(u64, u64)> {
    let (mut own, mut all) = (0, 0);
    for pid in [serve.pid(), serve.listener()?] {
        let of = status(pid)?;
        let kilobytes = |field: &str| -> Result<u64> {
            let value = of.get(field).with_context(|| format!("no {field}"))?;
            Ok(value.trim_end_matches(" kB").parse()?)
        };
        own += kilobytes("RssAnon")?;
        all += kilobytes("VmRSS")?;
    }
    Ok((own, all))
}

/// Of memory of their own; what else they have is the executable, which in a build for tests is large.
const MOST_MEMORY: u64 = 25_000;

/// Clients of every bad kind at once, and a flood that must be counted all the same.
fn clients() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(500)?;
    let serve = Serve::start(&[])?;
    let netns = lab.router().name().to_owned();
    let first = serve.until(|metrics| metrics.netns("ctwatch_entries", &netns, "").is_ok())?;
    let at = serve.at;
    let enough = AtomicBool::new(false);
    let is_on = || !enough.load(Ordering::Relaxed);
    let (ticks, scraped) = thread::scope(|scope| -> Result<_> {
        // 500 at once that ask, and take nothing.
        let crowd = scope.spawn(|| {
            let mut open = Vec::new();
            while is_on() {
                open.clear();
                for _ in 0..500 {
                    let Ok(mut stream) = TcpStream::connect_timeout(&at, PATIENCE) else {
                        continue;
                    };
                    let _ = stream.set_nonblocking(true);
                    let _ = stream.write(&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20));
                    open.push(stream);
                }
            }
            open.len()
        });
        // Nonsense, halves of requests, and heads without an end.
        let nonsense = scope.spawn(|| {
            let mut random = 1_u64;
            while is_on() {
                let Ok(mut stream) = connect(at) else { continue };
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let _ = match random >> 62 {
                    0 => stream.write_all(&random.to_le_bytes().repeat(5000)),
                    1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nX: "),
                    2 => stream.write_all(
                        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(60_000)).as_bytes(),
                    ),
                    _ => stream.write_all(
                        &b"POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n".repeat(9),
                    ),
                };
            }
        });
        let flood = scope.spawn(|| -> Result<()> {
            for round in 0..5 {
                lab.send(&Flood { first: round << 32, ..Flood::of(UDP, 10_000) })?;
            }
            Ok(())
        });
        // Somebody who scrapes in earnest is answered all the while.
        let honest = || -> Result<_> {
            let (mut times, mut scraped) = (Vec::new(), 0);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(5)
                || times.len() < 20
                || !flood.is_finished()
            {
                ensure!(begun.elapsed() < PATIENCE, "only {} ticks came", times.len());
                // One of the crowd may push it out: then it asks again, as any client does.
                if let Ok(metrics) = serve.scrape() {
                    scraped += 1;
                    let time = metrics.of("ctwatch_last_tick_timestamp_seconds")?;
                    if times.last() != Some(&time) {
                        times.push(time);
                    }
                }
            }
            Ok((times, scraped))
        };
        let outcome = honest();
        enough.store(true, Ordering::Relaxed);
        let joined = (crowd.join().is_ok(), nonsense.join().is_ok());
        ensure!(joined == (true, true), "a client panicked");
        flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        outcome
    })?;
    let last = serve.fresh()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(grew(&first, &last, "dropped", &netns, "", verdict.drop)?, "it is not exact");
    nothing_lost(&serve, &last)?;
    let gaps = ticks.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
    let (own, all) = memory(&serve)?;
    println!(
        "{} ticks, at most {gaps:.2} s apart, {scraped} scrapes, {own} kB of their own, {all} kB",
        ticks.len()
    );
    ensure!(own < MOST_MEMORY, "{own} kB");
    serve.stop()?;
    Ok(())
}

/// Who does not finish his request, and who asks for much and takes nothing.
fn slow() -> Result<()> {
    let serve = Serve::start(&[])?;
    let pid = serve.listener()?;
    let open = || Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/fd"))?.count());
    let wait = |wanted: &dyn Fn(usize) -> bool| -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !wanted(open()?) {
            ensure!(Instant::now() < until, "{} are open", open()?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    // Those that started it are gone.
    thread::sleep(Duration::from_millis(200));
    let before = open()?;
    let mut half = connect(serve.at)?;
    half.write_all(b"GET /metrics HTTP/1.1\r\nX: ")?;
    let greedy = connect(serve.at)?;
    greedy.set_nonblocking(true)?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let requests = request.repeat(50_000);
    let (mut sent, begun) = (0, Instant::now());
    // The kernel keeps many for it, which waits for its answers to be taken.
    while sent < requests.len() / 2 {
        ensure!(begun.elapsed() < PATIENCE, "{sent} bytes");
        match (&greedy).write(&requests[sent..]) {
            Ok(bytes) => sent += bytes,
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
    let asked = sent / request.len();
    let begun = Instant::now();
    wait(&|now| now <= before)?;
    println!("{asked} requests of one client; both were cut off after {:.1?}", begun.elapsed());
    ensure!(half.read_to_end(&mut Vec::new()).is_ok_and(|read| read == 0), "it was answered");
    drop(greedy);
    serve.stop()?;
    Ok(())
}

fn many() -> Result<()> {
    let serve = Serve::start(&[])?;
    let mut stream = connect(serve.at)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut body = Vec::new();
    let mut scrape = |times: u32| -> Result<()> {
        for _ in 0..times {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
            let mut length = None;
            loop {
                let mut line = String::new();
                ensure!(reader.read_line(&mut line)? > 0, "it hung up");
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = Some(value.trim().parse::<usize>()?);
                }
                if line == "\r\n" {
                    break;
                }
            }
            body.resize(length.context("no length")?, 0);
            reader.read_exact(&mut body)?;
        }
        Ok(())
    };
    scrape(1000)?;
    let (before, _) = memory(&serve)?;
    let begun = Instant::now();
    scrape(10_000)?;
    let took = begun.elapsed();
    let (after, all) = memory(&serve)?;
    println!("10,000 scrapes in {took:.1?}; {before} kB before, {after} kB after, {all} kB in all");
    ensure!(after < before + 1000 && after < MOST_MEMORY, "{before} kB, then {after} kB");
    serve.stop()?;
    Ok(())
}

fn again() -> Result<()> {
    let serve = Serve::start(&[])?;
    let first = serve.listener()?;
    let before = serve.scrape()?;
    // SAFETY: a signal to a process that our own child started, and has not waited for.
    ensure!(unsafe { libc::kill(i32::try_from(first)?, libc::SIGKILL) } == 0);
    let until = Instant::now() + PATIENCE;
    while serve.listener()? == first {
        ensure!(Instant::now() < until, "no other came");
    }
    let after = serve.until(|_| true)?;
    let cpu = "ctwatch_process_cpu_seconds_total";
    ensure!(after.of("ctwatch_epoch")? == 1.0 && after.of(cpu)? >= before.of(cpu)?);
    let said = serve.stop()?;
    ensure!(said.contains("the process that listens ended (signal: 9"), "{said}");
    Ok(())
}

fn hostile() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let name = "a\"} 1\\ # {x=\"\u{1b}[2J";
    lab.add_called(name)?;
    let serve = Serve::start(&[])?;
    let page = get(serve.at, "/metrics", "")?;
    ensure!(!page.contains('\u{1b}') && page.contains("\\\\u{1b}[2J"), "{page}");
    let known = page.lines().filter(|line| line.starts_with("ctwatch_entries{")).count();
    ensure!(known > 1, "{page}");
    let object = get(serve.at, "/api/v1/snapshot", "")?;
    ensure!(
        serde_json::from_str::<serde_json::Value>(&object).is_ok() && !object.contains('\u{1b}')
    );
    judged(&get(serve.at, "/metrics", "application/openmetrics-text")?)?;
    serve.stop()?;
    Ok(())
}

/// By the strict parser of prometheus_client, where that is at hand.
fn judged(page: &str) -> Result<()> {
    let Some(place) = std::env::var_os("CTWATCH_PROMETHEUS_CLIENT") else { return Ok(()) };
    let script = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as read; \
                  print(sum(len(f.samples) for f in read(sys.stdin.read())))";
    let mut judge = Command::new("python3")
        .args(["-c", script])
        .env("PYTHONPATH", place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    judge.stdin.take().context("no input")?.write_all(page.as_bytes())?;
    let output = judge.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{complaint}\n{page}");
    let samples: usize = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    let lines = page.lines().filter(|line| !line.starts_with('#')).count();
    ensure!(samples == lines, "{samples} of {lines} samples were read");
    Ok(())
}

fn goes() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let crowd = Crowd::new(&mut lab, 2)?;
    lab.set_limit(1)?;
    let serve = Serve::start(&[])?;
    let member = crowd.netns().next().context("nobody")?.clone();
    let name = member.name().to_owned();
    serve.until(|metrics| metrics.netns("ctwatch_entries", &name, "").is_ok())?;
    crowd.enter(2)?;
    crowd.refuse(2)?;
    let verdict = judge::ask(&member)?;
    let last = serve.fresh()?;
    let dropped = last.netns("ctwatch_dropped_total", &name, "")?;
    ensure!(dropped == verdict.drop as f64 && dropped > 0.0, "{dropped} {verdict:?}");
    drop(crowd);
    lab.remove_netns(&member)?;
    let after =
        serve.until(|metrics| metrics.netns("ctwatch_dropped_total", &name, "").is_err())?;
    ensure!(after.netns("ctwatch_dropped_total", "(gone)", "")? >= dropped);
    ensure!(after.of("ctwatch_gone_namespaces_total")? >= 1.0);
    serve.stop()?;
    Ok(())
}

/// CPU time of both processes, all their threads.
fn cpu(serve: &Serve) -> Result<Duration> {
    let mut sum = 0;
    for pid in [serve.pid(), serve.listener()?] {
        for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            sum += text.split(' ').next().context("no time")?.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// Each scrape is the first of its tick, so that the page is made for it.
fn cheap() -> Result<()> {
    const SCRAPES: u32 = 200;
    let mut lab = Lab::new(Plan::default())?;
    let crowd = Crowd::new(&mut lab, 200)?;
    crowd.enter(200)?;
    let serve = Serve::start(&["-i", "100ms"])?;
    serve.until(|metrics| {
        metrics.0.keys().filter(|key| key.starts_with("ctwatch_entries{")).count() > 200
    })?;
    let path = "/metrics";
    let mut length = 0;
    let mut ticks = |scraping: bool| -> Result<Duration> {
        let (begun, before) = (Instant::now(), cpu(&serve)?);
        for tick in 1..=SCRAPES {
            if scraping {
                length = get(serve.at, path, "")?.len();
            }
            let next = Duration::from_millis(100) * tick;
            thread::sleep(next.saturating_sub(begun.elapsed()));
        }
        Ok((cpu(&serve)?.saturating_sub(before)) / SCRAPES)
    };
    // The first and the last without, in case the machine has become slower.
    let (first, with, last) = (ticks(false)?, ticks(true)?, ticks(false)?);
    let without = (first + last) / 2;
    let scrape = with.saturating_sub(without);
    println!("a scrape of {length} bytes: {scrape:.2?} of CPU time; a tick alone: {without:.2?}");
    let names: Vec<_> = crowd.netns().collect();
    ensure!(names.len() == 200 && length > 200 * 30 * 20, "{length}");
    // Held against a reading of the same namespaces, whatever the machine: what is shipped takes less of both.
    let is_fast = is_optimised() && std::env::var_os("CTWATCH_EMULATED").is_none();
    let most = if is_fast { without * 4 } else { Duration::from_millis(200) };
    ensure!(scrape < most, "{scrape:?} of {without:?}");
    serve.stop()?;
    Ok(())
}

fn is_optimised() -> bool {
    std::env::var("CTWATCH_BIN").is_ok_and(|path| !path.contains("/debug/"))
}

fn textfile() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_str().context("odd place")?;
    let serve = Serve::start(&["--textfile", place, "--compat", "node"])?;
    let file = folder.path().join("ctwatch.prom");
    let until = Instant::now() + PATIENCE;
    while !file.exists() {
        ensure!(Instant::now() < until, "no file");
        thread::sleep(Duration::from_millis(20));
    }
    let text = fs::read_to_string(&file)?;
    for line in [
        "# TYPE ctwatch_entries gauge\n",
        "# TYPE node_nf_conntrack_entries gauge\n",
        "ctwatch_epoch 1\n",
    ] {
        ensure!(text.contains(line), "{text}");
    }
    ensure!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    use std::os::unix::fs::PermissionsExt;
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o644);
    serve.stop()?;
    ensure!(fs::read_dir(folder.path())?.next().is_none(), "something is left");
    // Where it only writes, it opens no port.
    let mut alone = ctwatch()?
        .args(["serve", "--textfile", place, "-i", "100ms"])
        .stderr(Stdio::null())
        .spawn()?;
    let until = Instant::now() + PATIENCE;
    while !file.exists() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", alone.id()));
    // SAFETY: a signal to our own child, which has not been waited for.
    let _ = unsafe { libc::kill(i32::try_from(alone.id())?, libc::SIGTERM) };
    alone.wait()?;
    ensure!(children?.is_empty(), "it started a process");
    Ok(())
}

/// As systemd hands over a socket: as descriptor 3, and with its number in the environment.
fn systemd() -> Result<()> {
    use std::os::{
        fd::AsRawFd,
        unix::{net::UnixDatagram, process::CommandExt},
    };
    loopback()?;
    let folder = tempfile::tempdir()?;
    let notify = UnixDatagram::bind(folder.path().join("notify"))?;
    notify.set_read_timeout(Some(PATIENCE))?;
    let socket = TcpListener::bind("127.0.0.1:0")?;
    let at = socket.local_addr()?;
    let raw = socket.as_raw_fd();
    let program = ctwatch()?.get_program().to_owned();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --web.systemd-socket -i 100ms"])
        .arg(program)
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .env("WATCHDOG_USEC", "3000000")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec nothing but one system call: the copy is not closed by exec.
    unsafe {
        command.pre_exec(move || match libc::dup2(raw, 3) {
            3 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn()?;
    let said = lines(child.stderr.take().context("no error output")?);
    let serve = Serve { child, said, at };
    let mut heard = String::new();
    let mut bytes = [0; 4096];
    let until = Instant::now() + PATIENCE;
    while !heard.contains("WATCHDOG=1\n") {
        ensure!(Instant::now() < until, "{heard}");
        match notify.recv(&mut bytes) {
            Ok(length) => heard.push_str(&String::from_utf8_lossy(&bytes[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let said: Vec<_> = serve.said.try_iter().flatten().collect();
                bail!("nothing is heard: {said:?}")
            }
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(heard.starts_with("READY=1\nSTATUS="), "{heard}");
    drop(socket);
    serve.until(|metrics| metrics.of("ctwatch_epoch").is_ok())?;
    serve.stop()?;
    // And without one it says so.
    let output = ctwatch()?.args(["serve", "--web.systemd-socket"]).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && complaint.contains("systemd handed over no socket"),
        "{complaint}"
    );
    Ok(())
}

fn unloaded() -> Result<()> {
    let state = |metrics: &Metrics, state: &str| {
        metrics
            .of(&format!("ctwatch_conntrack_state{{state=\"{state}\"}}"))
            .is_ok_and(|is| is == 1.0)
    };
    modprobe(&["nf_conntrack"])?;
    let serve = Serve::start(&["--mechanism", "kprobe"])?;
    let first = serve.until(|metrics| state(metrics, "loaded"))?;
    ensure!(first.of("ctwatch_epoch")? == 1.0);
    unload()?;
    let absent = serve.until(|metrics| state(metrics, "absent"))?;
    let entries = |metrics: &Metrics| {
        metrics.0.keys().filter(|key| key.starts_with("ctwatch_entries")).count()
    };
    ensure!(entries(&first) > 0 && entries(&absent) == 0, "{absent:?}");
    ensure!(absent.of("ctwatch_figure_available{figure=\"entries\"}")? == 0.0);
    ensure!(get(serve.at, "/-/healthy", "")? == "healthy\n");
    let (status, _, why) = answer(serve.at, "/api/v1/snapshot", "")?;
    ensure!(status == 503 && why.contains("nf_conntrack was unloaded"), "{status} {why}");
    modprobe(&["nf_conntrack"])?;
    let again = serve.until(|metrics| state(metrics, "loaded"))?;
    ensure!(again.of("ctwatch_epoch")? == 2.0 && entries(&again) > 0, "{again:?}");
    for (series, before) in first.0.iter().filter(|(series, _)| series.contains("_total")) {
        ensure!(again.of(series)? >= *before, "{series} fell");
    }
    serve.stop()?;
    Ok(())
}
