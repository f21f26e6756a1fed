//! `ctwatch top` on a real terminal.

use std::{
    env::var_os,
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use ctwatch_lab::{
    Lab, Plan,
    traffic::{Family, Flood, Flows, Protocol},
};
use rustix::process::Signal;

use crate::{On, Test, mechanism, terminal::Terminal, test, watch::ctwatch};

pub(crate) const TESTS: &[Test] = &[
    test(On::Each, "top_shows_an_incident", incident),
    test(On::Once, "top_restores_the_terminal", restored).anywhere(),
    test(On::Once, "top_survives_a_resize_storm", resized).anywhere(),
    test(On::Once, "top_suspends_and_resumes", suspended).anywhere(),
];

const UDP: Flows = Flows { sources: 50, services: 3, ..Flows::of(Family::V4, Protocol::Udp) };

fn top(args: &[&str], columns: u16, rows: u16) -> Result<Terminal> {
    let mut command = ctwatch()?;
    command.arg("top").args(["--mechanism", mechanism::current().name()]).args(args);
    Terminal::start(command, columns, rows)
}

/// Sends until `work` is done.
fn flooded<T>(lab: &Lab, rate: u64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            let mut first = 0;
            while !is_over.load(Relaxed) {
                let packets = (rate / 4).max(1);
                lab.send(&Flood { first, rate: Some(rate), ..Flood::of(UDP, packets) })?;
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

/// Keeps what is on a screen, where somebody wants to look at it.
fn keep(terminal: &Terminal, name: &str) -> Result<()> {
    if let Some(folder) = var_os("CTWATCH_SCREENS") {
        let path = std::path::Path::new(&folder).join(format!("{name}.ansi"));
        fs::write(path, terminal.formatted())?;
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
                    && screen.contains("10.128.0.")
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
fn is_restored(terminal: &Terminal, before: &rustix::termios::Termios) -> Result<()> {
    let after = terminal.settings()?;
    ensure!(after.local_modes == before.local_modes, "{after:?}");
    ensure!(after.input_modes == before.input_modes, "{after:?}");
    ensure!(after.output_modes == before.output_modes, "{after:?}");
    ensure!(!terminal.is_alternate() && !terminal.hides_cursor(), "{}", terminal.screen());
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
        let before = terminal.settings()?;
        terminal.wait_for(" live")?;
        ensure!(terminal.is_alternate() && terminal.hides_cursor());
        end(&mut terminal)?;
        let status = terminal.wait()?;
        ensure!(status.success(), "{name}: {status}\n{}", terminal.screen());
        is_restored(&terminal, &before)?;
        ensure!(terminal.screen().contains("s watched"), "{name}: {}", terminal.screen());
    }
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
    let before = terminal.settings()?;
    terminal.wait_for(" live")?;
    for way in ["the key", "the signal"] {
        match way {
            "the key" => terminal.press("\x1a")?,
            _ => terminal.signal(Signal::TSTP)?,
        }
        terminal.wait_for_state('T')?;
        is_restored(&terminal, &before)?;
        terminal.signal(Signal::CONT)?;
        terminal.wait_for(" live")?;
        ensure!(terminal.is_alternate() && terminal.hides_cursor(), "{way}");
        ensure!(terminal.settings()?.local_modes != before.local_modes, "{way}: it is not raw");
    }
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    is_restored(&terminal, &before)
}
