//! Running ctwatch as its users do, and reading what it says.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ctwatch_lab::{
    Lab,
    judge::Verdict,
    netns::Netns,
    traffic::{Flood, Flows},
};
use serde_json::Value;

use crate::mechanism::{self, holds};

/// An emulated machine that is not alone takes long for everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The executable with the probes inside.
pub(crate) fn ctwatch() -> Result<Command> {
    let path = std::env::var_os("CTWATCH_BIN")
        .context("CTWATCH_BIN is not set: run these tests with cargo xtask test")?;
    Ok(Command::new(path))
}

/// Lines of its output, read at once: one that nobody reads makes it wait, and then it watches
/// nothing.
pub(crate) type Lines = Receiver<std::io::Result<String>>;

pub(crate) fn lines(output: impl Read + Send + 'static) -> Lines {
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            // Nobody waits any more after a test that failed.
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// ctwatch in the background, its JSON read line by line.
pub(crate) struct Watch {
    child: Child,
    lines: Lines,
}

impl Watch {
    /// Returns when the probes are attached and the first object was read.
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        Self::by(ctwatch()?, args)
    }

    /// The same by a command that ends in ctwatch's name.
    pub(crate) fn by(mut command: Command, args: &[&str]) -> Result<Self> {
        let often: &[&str] =
            if args.contains(&"--interval") { &[] } else { &["--interval", "100ms"] };
        let mut child = command
            .args(["watch", "--output", "json"])
            .args(often)
            .args(["--mechanism", mechanism::current().name()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ctwatch")?;
        let stdout = child.stdout.take().context("ctwatch has no output")?;
        let mut watch = Self { child, lines: lines(stdout) };
        watch.next()?;
        Ok(watch)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next object.
    pub(crate) fn next(&mut self) -> Result<Value> {
        let line = self.lines.recv_timeout(PATIENCE);
        ensure!(!matches!(line, Err(RecvTimeoutError::Timeout)), "ctwatch says nothing");
        let Ok(line) = line else {
            let mut said = String::new();
            if let Some(mut errors) = self.child.stderr.take() {
                errors.read_to_string(&mut said)?;
            }
            bail!("ctwatch ended early: {said}");
        };
        let line = line?;
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }

    /// Waits for an object that `found` accepts.
    pub(crate) fn until(&mut self, mut found: impl FnMut(&Value) -> bool) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let object = self.next()?;
            if found(&object) {
                return Ok(object);
            }
        }
        bail!("it did not come within {} s", PATIENCE.as_secs())
    }

    /// An object of a reading that began after now: lines that nobody read yet are older.
    pub(crate) fn fresh(&mut self) -> Result<Value> {
        let now = jiff::Timestamp::now();
        let time = |object: &Value| object["time"].as_str()?.parse::<jiff::Timestamp>().ok();
        let mut after = |object: &Value| time(object).is_some_and(|time| time > now);
        // The first of them may have begun before.
        self.until(&mut after)?;
        self.next()
    }

    /// Asks it to stop, and returns the last object it prints.
    pub(crate) fn stop(mut self) -> Result<Value> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: a signal to our own child, which has not been waited for.
        ensure!(unsafe { libc::kill(pid, libc::SIGTERM) } == 0, "cannot stop ctwatch");
        let mut last = None;
        for line in &self.lines {
            last = Some(line?);
        }
        let mut said = String::new();
        self.child.stderr.take().context("no error output")?.read_to_string(&mut said)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "ctwatch ended with {status}: {said}");
        let last = last.context("ctwatch printed nothing at the end")?;
        serde_json::from_str(&last).with_context(|| format!("not JSON: {last}"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // After a failed test; a stopped one is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The table of a namespace in an object.
pub(crate) fn table<'a>(object: &'a Value, netns: &Netns) -> Result<&'a Value> {
    named(object, netns.name())
}

pub(crate) fn named<'a>(object: &'a Value, name: &str) -> Result<&'a Value> {
    let tables = object["tables"].as_array().context("an object without tables")?;
    tables
        .iter()
        .find(|table| table["netns"]["name"] == name)
        .with_context(|| format!("no table of {name} in {object}"))
}

/// What conntrack counted, and ctwatch must have said exactly.
pub(crate) fn agrees_with(table: &Value, verdict: &Verdict, inserted: u64) -> Result<()> {
    holds(table, "/drops/table_full", verdict.drop)?;
    holds(table, "/evictions/early_drop", verdict.early_drop)?;
    holds(table, "/invalid", verdict.invalid)?;
    holds(table, "/drops/chain_too_long", verdict.chaintoolong)?;
    for other in ["no_memory", "clash", "nat_exhausted", "tracker"] {
        holds(table, &format!("/drops/{other}"), 0)?;
    }
    // The judge was asked after ctwatch, and the time of some may be over meanwhile.
    let entries = table["entries"].as_u64().with_context(|| format!("no entries in {table}"))?;
    ensure!(entries >= verdict.entries, "entries: {} in {table}", verdict.entries);
    holds(table, "/insertions", inserted)?;
    holds(table, "/removals", inserted - entries)
}

/// What a command printed, and how it ended.
pub(crate) fn finished(command: &mut Command) -> Result<(String, String, Option<i32>)> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().context("no output")?.read_to_string(&mut out)?;
    child.stderr.take().context("no error output")?.read_to_string(&mut err)?;
    Ok((out, err, child.wait()?.code()))
}

/// ctwatch in the background, until it is interrupted.
pub(crate) struct Background {
    child: Child,
    lines: Lines,
    /// What it has printed up to now.
    text: String,
}

impl Background {
    /// Returns when it has printed its first line.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start it")?;
        let lines = lines(child.stdout.take().context("no output")?);
        let mut background = Self { child, lines, text: String::new() };
        background.until(|text| !text.is_empty())?;
        Ok(background)
    }

    /// What it has printed up to now.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Waits until what it has printed is accepted.
    pub(crate) fn until(&mut self, found: impl Fn(&str) -> bool) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !found(&self.text) {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.with_context(|| format!("it did not come: {}", self.text))??;
            self.text.push_str(&line);
            self.text.push('\n');
        }
        Ok(())
    }

    /// What Ctrl-C does; and what it printed, and how it ended.
    pub(crate) fn interrupt(mut self) -> Result<(String, String, Option<i32>)> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: a signal to our own child, which has not been waited for.
        ensure!(unsafe { libc::kill(pid, libc::SIGINT) } == 0, "cannot interrupt it");
        let mut text = std::mem::take(&mut self.text);
        for line in &self.lines {
            text.push_str(&line?);
            text.push('\n');
        }
        let mut errors = String::new();
        self.child.stderr.take().context("no error output")?.read_to_string(&mut errors)?;
        Ok((text, errors, self.child.wait()?.code()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // After a failed test; one that was interrupted is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// While new flows come in at this rate, also where that which is done takes long.
pub(crate) fn while_more_come<T>(
    lab: &Lab,
    flows: Flows,
    first: u64,
    per_s: u64,
    what: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let enough = AtomicBool::new(false);
    let keep_coming = || -> Result<()> {
        let (started, mut sent) = (Instant::now(), 0);
        while !enough.load(Ordering::Relaxed) {
            let due = u64::try_from(started.elapsed().as_micros())? * per_s / 1_000_000;
            lab.send(&Flood { first: first + sent, ..Flood::of(flows, due - sent) })?;
            sent = due;
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let sender = scope.spawn(keep_coming);
        let outcome = what();
        enough.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        let outcome = outcome?;
        sent.map(|()| outcome)
    })
}
