//! `cargo xtask lab`: a first look. Builds a router with a small table, floods it, and shows
//! ctwatch watching.

use std::{
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    traffic::{Family, Flood, Flows, Protocol},
};

use super::build;
use ctwatch_provision::tools;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// nf_conntrack_max while the lab stands; the host's own value comes back after it
    #[arg(long, default_value_t = 2000)]
    limit: u32,
    /// New flows a second
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Seconds of traffic, after which the table drains; then the lab is taken down
    #[arg(long, default_value_t = 12)]
    seconds: u64,
    /// IPv6 instead of IPv4
    #[arg(long)]
    v6: bool,
    #[command(flatten)]
    build: build::Options,
    /// Arguments of ctwatch
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the lab makes network namespaces: run it as root"
    );
    let executable = build::run(&args.build)?;
    tools::use_path()?;
    // Ctrl-C goes to ctwatch, which ends with its summary; then the lab comes down here.
    ctrlc::set_handler(|| STOPPED.store(true, Ordering::Relaxed))
        .context("cannot handle Ctrl-C")?;
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(args.limit)?;
    let router = lab.router().name().to_owned();
    println!(
        "client - {router} - server: {} new flows a second for {} s, into a table of {}",
        args.rate, args.seconds, args.limit
    );
    let mut ctwatch = Command::new(&executable);
    ctwatch.args(["watch", "--netns", &router]).args(&args.args);
    let mut ctwatch = ctwatch.spawn().context("cannot start ctwatch")?;
    let sent = traffic(&lab, args)?;
    if !STOPPED.load(Ordering::Relaxed) {
        lab.router().run(&["conntrack", "-F"])?;
        thread::sleep(Duration::from_secs(2));
        interrupt(&ctwatch)?;
    }
    ctwatch.wait().context("cannot wait for ctwatch")?;
    let verdict = judge::ask(lab.router())?;
    println!(
        "\nthe generator sent {sent} packets, each a flow of its own; the kernel says: drop {}, \
         early_drop {}, {} entries left",
        verdict.drop, verdict.early_drop, verdict.entries
    );
    Ok(ExitCode::SUCCESS)
}

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Sends in short pieces, so that Ctrl-C is heard.
fn traffic(lab: &Lab, args: &Args) -> Result<u64> {
    let family = if args.v6 { Family::V6 } else { Family::V4 };
    let flows = Flows { sources: 50, services: 3, ..Flows::of(family, Protocol::Udp) };
    thread::sleep(Duration::from_secs(2));
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let mut sent = 0;
    while Instant::now() < until && !STOPPED.load(Ordering::Relaxed) {
        let packets = (args.rate / 4).max(1);
        let piece = Flood { first: sent, rate: Some(args.rate), ..Flood::of(flows, packets) };
        sent += lab.send(&piece)?.packets;
    }
    Ok(sent)
}

fn interrupt(child: &std::process::Child) -> Result<()> {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT)
        .context("cannot interrupt ctwatch")
}
