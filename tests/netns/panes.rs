//! The panes of `ctwatch top` on a real terminal: the census, the trace, and what is written of them.

use std::fs;

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{Lab, Plan, STAYS_FULL};

use crate::{
    On, Test, mechanism,
    screen::{flooded, keep, top},
    terminal::Terminal,
    test,
    watch::ctwatch,
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "top_traces_single_drops", traced),
    test(On::Once, "top_traces_what_it_is_narrowed_to_masked", traced_masked),
    test(On::Once, "top_narrows_to_a_state", of_state).anywhere(),
    test(On::Once, "top_writes_what_is_seen_and_masks_it", written).anywhere(),
];

fn traced() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(STAYS_FULL)?;
    let router = lab.router().name().to_owned();
    let mut terminal = top(&[], 120, 24)?;
    terminal.wait_for(" live")?;
    flooded(&lab, 300, || {
        terminal.wait_for("FULL")?;
        terminal.press("\r")?;
        terminal.wait_for(&format!("> {router}"))?;
        // Census, and then trace.
        terminal.press("\t")?;
        terminal.wait_for("states by time left")?;
        keep(&terminal, "census")?;
        terminal.press("\t")?;
        terminal.wait_until("single drops", |screen| {
            screen.lines().filter(|line| line.contains("src=10.128.0.")).count() > 10
        })?;
        keep(&terminal, "trace")
    })?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    Ok(())
}

/// One source among fifty, chosen by what it is called when it is masked.
fn traced_masked() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(STAYS_FULL)?;
    let router = lab.router().name().to_owned();
    let mut terminal = top(&["--mask"], 120, 24)?;
    terminal.wait_for(" live")?;
    flooded(&lab, 300, || {
        terminal.wait_for("FULL")?;
        terminal.press("\r")?;
        terminal.wait_for("> ns-")?;
        // The first source that is dropped.
        terminal.press("\r")?;
        let screen = terminal.wait_until("a source", |screen| {
            screen.lines().next().is_some_and(|line| line.matches(" > ").count() == 2)
        })?;
        let first = screen.lines().next().unwrap_or_default();
        let source = first.split(" > ").nth(2).and_then(|rest| rest.split_whitespace().next());
        let source = format!("src={}", source.context("no source")?);
        terminal.press("\t")?;
        terminal.press("\t")?;
        let screen = terminal.wait_until("its drops", |screen| {
            screen.lines().filter(|line| line.contains(&source)).count() > 5
        })?;
        let others = screen.lines().filter(|line| line.contains("src=") && !line.contains(&source));
        ensure!(others.count() == 0, "{screen}");
        let sent = String::from_utf8_lossy(&terminal.sent()).into_owned();
        ensure!(!sent.contains("10.128.0.") && !sent.contains(&router), "not masked");
        Ok(())
    })?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    Ok(())
}

fn of_state() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(1000)?;
    let router = lab.router().name().to_owned();
    let mut terminal = top(&["--netns", &router], 80, 24)?;
    terminal.wait_for(" live")?;
    flooded(&lab, 300, || {
        terminal.press("\t\t")?;
        terminal.wait_for("census by")?;
        terminal.wait_for("holding by source")?;
        keep(&terminal, "census-80x24")?;
        terminal.press("/")?;
        terminal.press("udp\r\r")?;
        terminal.wait_for(&format!("> {router} > udp"))?;
        // Who is in this state is told by the next census, and not by one that was not asked for it.
        let screen = terminal.wait_until("who is in this state", |screen| {
            screen.contains("census of udp") && screen.contains("10.128.0.")
        })?;
        ensure!(!screen.contains("tcp"), "{screen}");
        keep(&terminal, "state-80x24")?;
        terminal.press("\x1b")?;
        terminal.wait_until("one step wider", |screen| {
            screen.contains("census by") && !screen.contains("> udp")
        })?;
        Ok(())
    })?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    Ok(())
}

fn written() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(STAYS_FULL)?;
    let router = lab.router().name().to_owned();
    let folder = tempfile::tempdir()?;
    let mut command = ctwatch()?;
    command.args(["top", "--mask", "--mechanism", mechanism::current().name()]);
    command.current_dir(folder.path());
    let mut terminal = Terminal::start(command, 120, 24)?;
    terminal.wait_for(" live")?;
    flooded(&lab, 300, || {
        let screen = terminal.wait_for("FULL")?;
        ensure!(!screen.contains(&router) && !screen.contains("10.128.0."), "{screen}");
        terminal.press("s")?;
        terminal.wait_for("wrote ctwatch-top-")?;
        terminal.press("r")?;
        terminal.wait_until("a report", |screen| screen.contains(".html"))?;
        Ok(())
    })?;
    terminal.press("q")?;
    ensure!(terminal.wait()?.success());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.path())? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        ensure!(!text.contains(&router) && !text.contains("10.128.0."), "{}", path.display());
        ensure!(text.contains("table_full"), "{}: {text}", path.display());
        found.push(path.extension().context("no ending")?.to_owned());
    }
    found.sort();
    ensure!(found == ["html", "txt"], "{found:?}");
    Ok(())
}
