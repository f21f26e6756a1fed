//! `ctwatch top` on a real terminal.

use std::{
    env::var_os,
    fs,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL,
    traffic::{Family, Flood, Flows, Protocol},
};
use rustix::process::Signal;

use crate::{
    On, Test, mechanism,
    recordings::{Running, TICK, count, recorded},
    terminal::Terminal,
    test,
    watch::ctwatch,
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Each, "top_shows_an_incident", incident),
    test(On::Once, "top_restores_the_terminal", restored).anywhere(),
    test(On::Once, "top_takes_a_mouse_and_gives_it_back", by_mouse).anywhere(),
    test(On::Once, "top_survives_a_resize_storm", resized).anywhere(),
    test(On::Once, "top_suspends_and_resumes", suspended).anywhere(),
    test(On::Once, "top_ends_when_its_terminal_is_gone", hung_up).anywhere(),
    test(On::Once, "top_ends_though_its_terminal_is_stuck", stuck).anywhere(),
    test(On::Once, "top_counts_on_behind_a_slow_terminal", slow).anywhere(),
    test(On::Once, "top_sends_few_bytes", few_bytes).anywhere(),
    test(On::Once, "top_tells_whose_fault_it_is_in_ten_keys", story).anywhere(),
    test(On::Once, "top_plays_a_recording", played).anywhere(),
    test(On::Once, "top_takes_little_more_than_watch", little_more).anywhere(),
];

const UDP: Flows = Flows { sources: 50, services: 3, ..Flows::of(Family::V4, Protocol::Udp) };

pub(crate) fn top(args: &[&str], columns: u16, rows: u16) -> Result<Terminal> {
    let mut command = ctwatch()?;
    command.arg("top").args(["--mechanism", mechanism::current().name()]).args(args);
    Terminal::start(command, columns, rows)
}

/// Sends until `work` is done.
pub(crate) fn flooded<T>(lab: &Lab, rate: u64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    flooded_by(lab, UDP, rate, work)
}

fn flooded_by<T>(
    lab: &Lab,
    flows: Flows,
    rate: u64,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            let mut first = 0;
            while !is_over.load(Relaxed) {
                let packets = (rate / 4).max(1);
                lab.send(&Flood { first, rate: Some(rate), ..Flood::of(flows, packets) })?;
                first += packets;
            }
            Ok(())
        });
        let done = work();
        is_over.store(true, Relaxed);
        match sender.join() {
            Ok(sent) => sent?,
            Err(_) => anyhow::bail!("the sender panicked"),
        }
        done
    })
}

/// Keeps a picture of a screen, where somebody wants to look at it: those in docs/design/top are made so.
pub(crate) fn keep(terminal: &Terminal, name: &str) -> Result<()> {
    if let Some(folder) = var_os("CTWATCH_SCREENS") {
        let path = std::path::Path::new(&folder).join(format!("{name}.svg"));
        fs::write(path, terminal.svg()?)?;
    }
    Ok(())
}

fn incident() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(1000)?;
    let router = lab.router().name().to_owned();
    for (columns, rows) in [(80, 24), (200, 60), (40, 12)] {
        let mut terminal = top(&[], columns, rows)?;
        terminal.wait_for(" live")?;
        flooded(&lab, 600, || {
            let screen = terminal.wait_until("a full table", |screen| {
                screen.contains("FULL")
                    && screen.contains("table_full")
                    // Who it is, nobody knows of the counters, and a small screen shows no census.
                    && (screen.contains("10.128.0.") || !mechanism::current().has_programs())
            })?;
            ensure!(screen.contains(&router[..router.len().min(10)]), "{screen}");
            thread::sleep(Duration::from_secs(12));
            keep(&terminal, &format!("incident-{columns}x{rows}"))?;
            Ok(())
        })?;
        terminal.press("q")?;
        ensure!(terminal.wait()?.success());
        lab.router().run(&["conntrack", "-F"])?;
    }
    Ok(())
}

/// What it was like before, it is like afterwards.
fn is_restored(terminal: &Terminal) -> Result<()> {
    ensure!(terminal.is_set_as_before()?, "its settings are not those of before");
    // What it wrote last may still be on its way.
    let is_left =
        |_: &str| !terminal.is_alternate() && !terminal.hides_cursor() && !terminal.tells_mouse();
    terminal.wait_until("the screen of before", is_left).map(|_| ())
}

/// Selects and scrolls, and is given back at every end.
fn by_mouse() -> Result<()> {
    let _lab = Lab::new(Plan::default())?;
    let mut plain = top(&[], 80, 24)?;
    plain.wait_for(" live")?;
    ensure!(!plain.tells_mouse(), "nobody asked for it");
    plain.press("q")?;
    ensure!(plain.wait()?.success());
    type End = fn(&mut Terminal) -> Result<()>;
    let ends: [(&str, End); 4] = [
        ("q", |terminal| terminal.press("q")),
        ("SIGTERM", |terminal| terminal.signal(Signal::TERM)),
        ("SIGHUP", |terminal| terminal.signal(Signal::HUP)),
        ("Ctrl-Z", |terminal| {
            terminal.press("\x1a")?;
            terminal.wait_for_state('T')?;
            // Or else a shell gets what the mouse does.
            terminal.wait_until("no mouse", |_| !terminal.tells_mouse())?;
            terminal.signal(Signal::CONT)?;
            terminal.wait_for(" live")?;
            ensure!(terminal.tells_mouse(), "it is not told again");
            terminal.press("q")
        }),
    ];
    for (name, end) in ends {
        let mut terminal = top(&["--mouse"], 80, 24)?;
        let screen = terminal.wait_until("the last row", |screen| {
            screen.contains(" live")
                && screen.lines().last().is_some_and(|row| row.contains("census"))
        })?;
        ensure!(terminal.tells_mouse(), "{name}");
        // The pane is clicked by its name in the last row.
        let last = screen.lines().last().context("no last row")?.to_owned();
        let at = last.find("census").context("no pane is named")? + 1;
        terminal.press(&format!("\x1b[<0;{at};24M\x1b[<0;{at};24m"))?;
        terminal.wait_for("─ census")?;
        terminal.press("\x1b[<65;1;1M")?;
        end(&mut terminal)?;
        ensure!(terminal.wait()?.success(), "{name}");
        is_restored(&terminal).context(name)?;
    }
    Ok(())
}

fn restored() -> Result<()> {
    let _lab = Lab::new(Plan::default())?;
    type End = fn(&mut Terminal) -> Result<()>;
    let ends: [(&str, End); 5] = [
        ("q", |terminal| terminal.press("q")),
        ("Ctrl-C", |terminal| terminal.press("\x03")),
        ("SIGTERM", |terminal| terminal.signal(Signal::TERM)),
        ("SIGINT", |terminal| terminal.signal(Signal::INT)),
        ("SIGHUP", |terminal| terminal.signal(Signal::HUP)),
    ];
    for (name, end) in ends {
        let mut terminal = top(&[], 80, 24)?;
        terminal.wait_for(" live")?;
        ensure!(terminal.is_alternate() && terminal.hides_cursor());
        end(&mut terminal)?;
        let status = terminal.wait()?;
        ensure!(status.success(), "{name}: {status}\n{}", terminal.screen());
        is_restored(&terminal)?;
        terminal.wait_for("s watched")?;
    }
    // An error of the session, after the screen was there.
    let mut terminal = top(&["--netns", "no-such-namespace"], 80, 24)?;
    let status = terminal.wait()?;
    ensure!(status.code() == Some(1), "{status}");
    terminal.wait_for("no-such-namespace")?;
    ensure!(!terminal.is_alternate() && !terminal.hides_cursor(), "{}", terminal.screen());
    ensure!(terminal.is_set_as_before()?);
    Ok(())
}

/// Sends as much as a terminal's buffer holds and more, to one that takes nothing.
fn jam(terminal: &mut Terminal) -> Result<()> {
    terminal.stick(true);
    for _ in 0..100 {
        terminal.press("\x0c")?;
        thread::sleep(Duration::from_millis(60));
    }
    Ok(())
}

fn stuck() -> Result<()> {
    let _lab = Lab::new(Plan::default())?;
    let mut terminal = top(&[], 200, 60)?;
    terminal.wait_for(" live")?;
    jam(&mut terminal)?;
    terminal.press("q")?;
    terminal.wait()?;
    ensure!(terminal.is_set_as_before()?);
    Ok(())
}

fn slow() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(STAYS_FULL)?;
    let mut terminal = top(&[], 80, 24)?;
    terminal.wait_for(" live")?;
    jam(&mut terminal)?;
    // It happens, and is over, while nothing can be shown.
    lab.send(&Flood::of(UDP, 1000))?;
    thread::sleep(Duration::from_secs(5));
    lab.router().run(&["conntrack", "-F"])?;
    thread::sleep(Duration::from_secs(5));
    terminal.stick(false);
    terminal.press("\x0c")?;
    // Of the past each reading is there, and of what was not shown only the newest screen came.
    terminal.press("N")?;
    terminal.wait_until("the drops", |screen| {
        screen.contains("FROZEN") && screen.contains("FULL") && screen.contains("table_full")
    })?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    Ok(())
}

fn resized() -> Result<()> {
    let _lab = Lab::new(Plan::default())?;
    let mut terminal = top(&[], 80, 24)?;
    terminal.wait_for(" live")?;
    for step in 0..200_u16 {
        terminal.resize(1 + step * 7 % 220, 1 + step * 5 % 70)?;
        thread::sleep(Duration::from_millis(5));
    }
    terminal.resize(80, 24)?;
    terminal.press("\x0c")?;
    terminal.wait_until("a whole screen", |screen| {
        screen.lines().count() == 24
            && screen
                .lines()
                .next()
                .is_some_and(|line| line.starts_with("ctwatch") && line.ends_with(" live"))
            && screen.lines().last().is_some_and(|line| line.starts_with("q quit"))
    })?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    Ok(())
}

fn suspended() -> Result<()> {
    let _lab = Lab::new(Plan::default())?;
    let mut terminal = top(&[], 80, 24)?;
    terminal.wait_for(" live")?;
    for way in ["the key", "the signal"] {
        match way {
            "the key" => terminal.press("\x1a")?,
            _ => terminal.signal(Signal::TSTP)?,
        }
        terminal.wait_for_state('T')?;
        is_restored(&terminal)?;
        terminal.signal(Signal::CONT)?;
        terminal.wait_for(" live")?;
        ensure!(terminal.is_alternate() && terminal.hides_cursor(), "{way}");
        ensure!(!terminal.is_set_as_before()?, "{way}: it is not raw");
    }
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    is_restored(&terminal)
}

fn hung_up() -> Result<()> {
    let _lab = Lab::new(Plan::default())?;
    let mut terminal = top(&[], 80, 24)?;
    terminal.wait_for(" live")?;
    terminal.hang_up();
    terminal.wait()?;
    Ok(())
}

/// A second, over so long.
fn bytes_per_s(terminal: &Terminal, over: Duration) -> f64 {
    let (before, begun) = (terminal.received(), Instant::now());
    thread::sleep(over);
    (terminal.received() - before) as f64 / begun.elapsed().as_secs_f64()
}

/// On a line of 9600 baud there is room for 960 a second.
fn few_bytes() -> Result<()> {
    const OVER: Duration = Duration::from_secs(20);
    let mut lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(1000)?;
    let mut terminal = top(&[], 80, 24)?;
    terminal.wait_for(" live")?;
    thread::sleep(Duration::from_secs(3));
    let calm = bytes_per_s(&terminal, OVER);
    let incident = flooded(&lab, 600, || {
        terminal.wait_for("FULL")?;
        thread::sleep(Duration::from_secs(5));
        Ok(bytes_per_s(&terminal, OVER))
    })?;
    println!("80x24: {calm:.0} bytes a second on a calm box, {incident:.0} in an incident");
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    ensure!(calm < 300.0, "{calm:.0} bytes a second on a calm box");
    ensure!(incident < 700.0, "{incident:.0} bytes a second in an incident");
    Ok(())
}

/// From a calm box to whose fault it is, and the fix in the clipboard.
fn story() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(1000)?;
    let router = lab.router().name().to_owned();
    let mut terminal = top(&[], 80, 24)?;
    terminal.wait_for(" live")?;
    terminal.wait_for(&router[..10])?;
    keep(&terminal, "story-0-calm")?;
    let mut keys = 0;
    let one = Flows { sources: 1, services: 3, ..UDP };
    flooded_by(&lab, one, 600, || {
        terminal.wait_until("an incident", |screen| {
            screen.contains("FULL")
                && screen.contains("table_full")
                && screen.contains("10.128.0.0")
        })?;
        thread::sleep(Duration::from_secs(6));
        keep(&terminal, "story-1-incident")?;
        let mut press = |terminal: &mut Terminal, key: &str| {
            keys += 1;
            terminal.press(key)
        };
        // Narrow to the namespace, and to who is dropped.
        press(&mut terminal, "\r")?;
        terminal.wait_for(&format!("> {router}"))?;
        keep(&terminal, "story-2-namespace")?;
        press(&mut terminal, "\r")?;
        terminal.wait_for("> 10.128.0.0")?;
        terminal.wait_for("udp/")?;
        keep(&terminal, "story-3-source")?;
        // The doctor, before the others.
        press(&mut terminal, "\x1b[Z")?;
        press(&mut terminal, "\x1b[Z")?;
        terminal.wait_for("CRITICAL")?;
        keep(&terminal, "story-4-doctor")?;
        press(&mut terminal, "y")?;
        terminal.wait_for("copied")?;
        keep(&terminal, "story-5-copied")?;
        Ok(())
    })?;
    let sent = String::from_utf8_lossy(&terminal.sent()).into_owned();
    let copied = sent.split("\x1b]52;c;").nth(1).context("nothing was copied")?;
    ensure!(copied.len() > 20, "{copied}");
    ensure!(keys < 10, "{keys} keys");
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    Ok(())
}

fn played() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(STAYS_FULL)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("rec");
    let mut record = ctwatch()?;
    record.arg("record").arg(&path).args(["--interval", "200ms", "--free", "1MB"]);
    record.args(["--mechanism", mechanism::current().name()]);
    let mut record = Running::start(&mut record, &folder.path().join("out"))?;
    recorded(&path, TICK, 3)?;
    lab.send(&Flood { rate: Some(1000), ..Flood::of(UDP, 1000) })?;
    // One may be on its way that saw only a part of it.
    recorded(&path, TICK, count(&path, TICK)? + 2)?;
    record.signal(libc::SIGINT)?;
    let mut command = ctwatch()?;
    command.args(["top", "--from"]).arg(&path);
    let mut terminal = Terminal::start(command, 80, 24)?;
    terminal.wait_for("recorded")?;
    // To where packets are dropped, and back by a reading.
    terminal.press("n")?;
    let screen = terminal.wait_for("table_full")?;
    ensure!(screen.contains('!') && screen.contains('^'), "{screen}");
    keep(&terminal, "recording")?;
    terminal.press("[")?;
    terminal.wait_for("dropped: 0")?;
    terminal.press(" ")?;
    terminal.wait_for("table_full")?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    is_restored(&terminal)
}

/// Seconds of CPU that a process has taken.
fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(") ").next().context("no fields")?;
    let mut times = fields.split(' ').skip(11);
    let mut next = || -> Result<f64> { Ok(times.next().context("no times")?.parse()?) };
    Ok((next()? + next()?) / rustix::param::clock_ticks_per_second() as f64)
}

/// Share of a CPU, over so long.
fn share(pid: u32, over: Duration) -> Result<f64> {
    let (before, begun) = (cpu(pid)?, Instant::now());
    thread::sleep(over);
    Ok((cpu(pid)? - before) / begun.elapsed().as_secs_f64())
}

/// The screen's own share: both watch the same, with the same lists.
fn little_more() -> Result<()> {
    const OVER: Duration = Duration::from_secs(20);
    let mut lab = Lab::new(Plan::default())?;
    let roles: Vec<String> = (0..200).map(|number| format!("many{number}")).collect();
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    lab.add_many(&roles)?;
    lab.keep_entries()?;
    lab.set_limit(1000)?;
    let (plain, screen) = flooded(&lab, 600, || {
        let mut watch = ctwatch()?;
        watch.args(["watch", "--top", "20", "--by", "source,service,interface,process,flow"]);
        watch.args(["--mechanism", mechanism::current().name()]);
        let mut watch = watch.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        thread::sleep(Duration::from_secs(5));
        let plain = share(watch.id(), OVER);
        watch.kill()?;
        watch.wait()?;
        let plain = plain?;
        let top = top(&[], 200, 60)?;
        top.wait_for("table_full")?;
        Ok((plain, share(top.pid(), OVER)?))
    })?;
    println!(
        "with 203 namespaces: watch takes {:.1}% of a CPU, top on 200x60 {:.1}%",
        plain * 100.0,
        screen * 100.0
    );
    // Where nothing is optimised.
    ensure!(screen < plain + 0.1, "watch {plain:.3}, top {screen:.3}");
    Ok(())
}
