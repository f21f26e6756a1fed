//! For as long as somebody asks: namespaces that come and go, floods, and nothing that grows; in the end
//! each figure is the generator's.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    netns::Netns,
    topology::TRACKING,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    advice::datagrams,
    test,
    watch::{Watch, agrees_with, table},
};

/// How many seconds it is to last; nothing is soaked where nobody says so.
pub(crate) const SECONDS: &str = "CTWATCH_SOAK";

pub(crate) const TESTS: &[Test] = &[test(On::Soak, "soak", soak)];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);
/// What is there before caches and lists are full is left out.
const WARM: usize = 5;

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug)]
struct Held {
    kilobytes: u64,
    descriptors: u64,
    threads: u64,
    /// Of the object that it printed last.
    bytes: u64,
}

impl Held {
    fn of(pid: u32, bytes: usize) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.with_context(|| format!("no {name}"))?.parse().context("no number")
        };
        Ok(Self {
            kilobytes: field("VmRSS:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            threads: field("Threads:")?,
            bytes: bytes as u64,
        })
    }
}

/// The middle one of some.
fn median(held: &[Held], of: impl Fn(&Held) -> u64) -> u64 {
    let mut all: Vec<u64> = held.iter().map(of).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

/// The last quarter is no more than the first, but for so much.
fn is_flat(held: &[Held], what: &str, slack: u64, of: impl Fn(&Held) -> u64 + Copy) -> Result<()> {
    let quarter = held.len() / 4;
    let (first, last) = (median(&held[..quarter], of), median(&held[held.len() - quarter..], of));
    println!("{what}: {first} at first, {last} in the end");
    ensure!(last <= first + slack, "{what} grow: {first} at first, {last} in the end");
    Ok(())
}

/// One namespace that lives for a moment, and tracks so many connections in it.
fn churn(lab: &mut Lab, nth: u64) -> Result<()> {
    let netns: Netns = lab.add_netns(&format!("churn{}", nth % 1000))?;
    netns.nft(TRACKING)?;
    netns.run(&["ip", "link", "set", "lo", "up"])?;
    datagrams(&netns, 20_000..20_050, "127.0.0.1:9000")?;
    lab.remove_netns(&netns)
}

fn soak() -> Result<()> {
    let seconds = std::env::var(SECONDS).context("for how long?")?;
    let wanted = Duration::from_secs(seconds.parse().with_context(|| seconds.clone())?);
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(1000)?;
    let mut watch = Watch::start(&["--interval", "500ms", "--top", "5"])?;
    let begun = Instant::now();
    let (mut sent, mut nth, mut held) = (0, 0, Vec::new());
    while begun.elapsed() < wanted {
        nth += 1;
        let flood = Flood { first: nth << 20, ..Flood::of(Flows { sources: 200, ..UDP }, 700) };
        sent += lab.send(&flood)?.packets;
        churn(&mut lab, nth)?;
        let object = watch.fresh()?;
        held.push(Held::of(watch.pid(), object.to_string().len())?);
    }
    println!("{nth} namespaces came and went, {sent} packets were sent");
    ensure!(held.len() >= WARM + 8, "too short: {} readings", held.len());
    let verdict = judge::ask(lab.router())?;
    let last = watch.stop()?;
    agrees_with(table(&last, lab.router())?, &verdict, sent - verdict.drop)?;
    let held = &held[WARM..];
    is_flat(held, "kB of memory", 2048, |held| held.kilobytes)?;
    is_flat(held, "descriptors", 2, |held| held.descriptors)?;
    is_flat(held, "threads", 0, |held| held.threads)?;
    is_flat(held, "bytes of an object", 2000, |held| held.bytes)
}
