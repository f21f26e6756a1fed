//! Whatever fails around it: each verb ends by itself, says what is so, and never panics.
//!
//! A slice of all faults in each run; all of them where `CTWATCH_FAULTS` is `all`.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan,
    netns::Netns,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test,
    behaviour::until_no_programs,
    test,
    watch::{PATIENCE, Watch, ctwatch, finished, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "outputs_that_cannot_be_written", outputs).anywhere(),
    test(On::Once, "limits_that_are_too_tight", limits).anywhere(),
    test(On::Once, "capabilities_that_are_missing", capabilities),
    test(On::Once, "capabilities_are_given_up_for_good", given_up),
    test(On::Once, "a_full_disk_leaves_nothing_behind", full_disk).anywhere(),
    test(On::Once, "files_that_are_no_files", files).anywhere(),
    test(On::Once, "signals_are_heard_while_nobody_reads", unread).anywhere(),
    test(On::Once, "killed_while_it_starts", killed),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

/// Every verb, and every form of what it prints. Traced is what the flood behind it is refused.
const VERBS: [&[&str]; 7] = [
    &["watch", "-i", "100ms", "-n", "2", "--top", "3"],
    &["watch", "-i", "100ms", "-n", "2", "--output", "json"],
    &["census"],
    &["census", "--output", "json"],
    &["trace", "-n", "3"],
    &["check", "--for", "100ms"],
    &["doctor", "--output", "json"],
];

/// What none may say of a table that is full, whatever it can see of it.
const FALSE: [&str; 6] = [
    "nothing is tracked in",
    "nothing is tracked:",
    "nothing is tracked,",
    "not loaded:",
    "CTWATCH OK",
    "nothing was found",
];

/// What is done before it is started, by a shell, and how much of a run that is.
struct Fault {
    name: String,
    prepare: String,
    /// Of a shell of its own, so that nothing is left.
    by: &'static [&'static str],
}

impl Fault {
    fn of(name: &str, prepare: &str) -> Self {
        Self { name: name.to_owned(), prepare: prepare.to_owned(), by: &["sh"] }
    }

    fn command(&self, router: &Netns, args: &[&str]) -> Result<Command> {
        const IS_OVER: [&str; 4] = ["timeout", "--signal=KILL", "30", "env"];
        let mut command = match self.by {
            // Without privileges nothing leads into another namespace.
            ["nobody"] => router.command("sh")?,
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args);
                command
            }
            [] => anyhow::bail!("no shell"),
        };
        let prepare = format!("{}\nexec \"$@\"", self.prepare);
        command.args(["-ec", &prepare, "sh"]);
        if self.by != ["nobody"] {
            command.args(IS_OVER);
        }
        command.arg(ctwatch()?.get_program()).args(args);
        if self.by != ["nobody"] {
            command.args(["--netns", router.name()]);
        }
        Ok(command)
    }
}

/// What is left to say of one run.
fn verdict(fault: &Fault, args: &[&str], out: &str, err: &str, code: Option<i32>) -> Result<()> {
    let said = format!("{}: {args:?}: {code:?}\n{out}{err}", fault.name);
    ensure!(!said.contains("panicked"), "a panic: {said}");
    // 137 is the end of its time; others are signals.
    ensure!(code.is_some_and(|code| (0..=3).contains(&code)), "an end nobody knows: {said}");
    for sentence in FALSE {
        ensure!(!said.contains(sentence), "{sentence:?}: {said}");
    }
    if code == Some(0) && args.contains(&"json") {
        for line in out.lines() {
            serde_json::from_str::<Value>(line).with_context(|| said.clone())?;
        }
    }
    Ok(())
}

/// Each fault with each verb, while packets are refused.
fn suffer(faults: &[Fault]) -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 1000))?;
    let (lab, router) = (&lab, lab.router());
    let over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| -> Result<()> {
            let mut first = 1 << 32;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                lab.send(&Flood { first, ..Flood::of(UDP, 20) })?;
                first += 20;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        });
        let outcome = faults.iter().try_for_each(|fault| {
            VERBS.iter().try_for_each(|args| {
                let (out, err, code) = finished(&mut fault.command(router, args)?)?;
                verdict(fault, args, &out, &err, code)
            })
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        outcome
    })?;
    until_no_programs()
}

/// All of them, or one that chance chooses.
fn slice(faults: Vec<Fault>) -> Vec<Fault> {
    let all = std::env::var("CTWATCH_FAULTS").is_ok_and(|which| which == "all");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nth = now.map_or(0, |now| now.subsec_micros());
    let chosen = usize::try_from(nth).unwrap_or(0) % faults.len();
    let wanted = |(nth, _): &(usize, Fault)| all || *nth == chosen;
    let wanted: Vec<Fault> =
        faults.into_iter().enumerate().filter(wanted).map(|(_, fault)| fault).collect();
    for fault in &wanted {
        println!("the fault is: {}", fault.name);
    }
    wanted
}

fn outputs() -> Result<()> {
    suffer(&[
        Fault::of("both outputs full", "exec > /dev/full 2> /dev/full"),
        Fault::of("standard error full", "exec 2> /dev/full"),
    ])?;
    suffer(&slice(vec![
        Fault::of("standard output full", "exec > /dev/full"),
        Fault::of("standard error closed", "exec 2>&-"),
        Fault::of("standard output closed", "exec >&-"),
        Fault::of("all closed", "exec < /dev/null >&- 2>&-"),
    ]))
}

fn limits() -> Result<()> {
    const NOBODY: &str = "exec timeout --signal=KILL 30 setpriv --reuid=65534 --regid=65534 \
                          --clear-groups sh -c 'ulimit -u 1; exec \"$@\"' sh \"$@\"";
    let few = |most: u32| Fault::of(&format!("{most} descriptors"), &format!("ulimit -n {most}"));
    suffer(&[Fault { by: &["nobody"], ..Fault::of("no thread may be made", NOBODY) }])?;
    suffer(&slice([6, 8, 10, 12, 16, 24, 32].map(few).into()))
}

fn capabilities() -> Result<()> {
    const NAMES: [&str; 9] = [
        "bpf",
        "perfmon",
        "net_admin",
        "sys_admin",
        "syslog",
        "sys_ptrace",
        "sys_resource",
        "dac_override",
        "dac_read_search",
    ];
    let without = |name: &str| {
        let drop = format!("exec setpriv --bounding-set=-{name} --inh-caps=-{name} \"$@\"");
        Fault::of(&format!("without CAP_{}", name.to_uppercase()), &drop)
    };
    suffer(&slice(NAMES.map(without).into()))
}

/// Of each thread, the sets that hold more than may be kept, or no word of new privileges.
fn kept_too_much(pid: u32, sets: &[&str], most: u64) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that ended meanwhile.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start_matches(':').trim()).context("no such field")
        };
        for set in sets {
            if u64::from_str_radix(field(set)?, 16)? & !most != 0 {
                wrong.push(format!("{} {set} {}", field("Name")?, field(set)?));
            }
        }
        if field("NoNewPrivs")? != "1" {
            wrong.push(format!("{} may get new privileges", field("Name")?));
        }
    }
    Ok(wrong)
}

/// By number, as in capability.h.
const KEPT: [u32; 8] = [
    2,  // DAC_READ_SEARCH
    12, // NET_ADMIN
    19, // SYS_PTRACE
    21, // SYS_ADMIN
    24, // SYS_RESOURCE, before Linux 5.11
    34, // SYSLOG
    38, // PERFMON
    39, // BPF
];

pub(crate) fn only_what_is_listed(pid: u32) -> Result<()> {
    let most = KEPT.iter().fold(0, |set, number| set | 1_u64 << number);
    let wrong = kept_too_much(pid, &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"], most)?;
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

/// And what comes later still works: a first census while a table is saturated, a new namespace.
fn given_up() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let mut watch = Watch::start(&[])?;
    only_what_is_listed(watch.pid())?;
    lab.send(&Flood::of(UDP, 1000))?;
    let router = lab.router().clone();
    let counted = |object: &Value| {
        table(object, &router).is_ok_and(|table| table["census"]["entries"].as_u64() > Some(0))
    };
    watch.until(counted).context("no census")?;
    let new = lab.add_netns("new")?;
    let seen = |object: &Value| {
        table(object, &new).is_ok_and(|table| table["reachable"] == true && table["entries"] == 0)
    };
    watch.until(seen).context("the new namespace is not seen")?;
    only_what_is_listed(watch.pid())?;
    watch.stop()?;
    // A trace, which loads nothing more, keeps less.
    let mut trace = ctwatch()?;
    trace.args(["trace"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut trace = trace.spawn()?;
    let mut said = [0; 16];
    trace.stderr.take().context("no errors")?.read_exact(&mut said)?;
    let until = Instant::now() + Duration::from_secs(20);
    let tracing = 1 << 38 | 1 << 34;
    let mut outcome = Ok(Vec::new());
    while Instant::now() < until {
        outcome = kept_too_much(trace.id(), &["CapInh", "CapPrm", "CapEff", "CapAmb"], !tracing);
        if outcome.as_ref().is_ok_and(Vec::is_empty) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    trace.kill()?;
    trace.wait()?;
    let wrong = outcome?;
    ensure!(wrong.is_empty(), "the trace keeps {wrong:?}");
    // Root writes where it always could.
    let folder = tempfile::tempdir()?;
    rustix::fs::chown(
        folder.path(),
        Some(rustix::fs::Uid::from_raw(65534)),
        Some(rustix::fs::Gid::from_raw(65534)),
    )?;
    let place = |name: &str| folder.path().join(name).display().to_string();
    for args in [
        &[
            "check",
            "--for",
            "100ms",
            "-w",
            "dropped=0",
            "-c",
            "dropped=99999",
            "--state",
            &place("s"),
        ][..],
        &["doctor", "--write", &place("fixes")],
    ] {
        let (out, errors, code) = finished(ctwatch()?.args(args).args(["--netns", router.name()]))?;
        ensure!(code.is_some_and(|code| code < 3), "{args:?}: {code:?} {out}{errors}");
        ensure!(
            std::path::Path::new(args.last().context("a path")?).exists(),
            "{args:?}: {errors}"
        );
    }
    Ok(())
}

fn full_disk() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    lab.send(&Flood::of(UDP, 1000))?;
    let run = |size: &str, args: &[&str]| -> Result<(String, String, Option<i32>)> {
        let mount = format!(
            "mount -t tmpfs -o size={size} none /mnt\n\"$@\" && code=0 || code=$?\ndu -a /mnt | cut -f 2-\nexit $code"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &mount, "sh"]);
        command.arg(ctwatch()?.get_program()).args(args);
        finished(command.args(["--netns", lab.router().name()]))
    };
    let doctor = ["doctor", "--write", "/mnt/fixes"];
    let (out, errors, code) = run("4k", &doctor)?;
    ensure!(code == Some(1) && errors.contains("cannot write"), "{code:?} {errors}");
    ensure!(!out.lines().any(|line| line.starts_with("/mnt/")), "{out}");
    let (out, errors, code) = run("1m", &doctor)?;
    ensure!(code == Some(0) && out.contains("/mnt/fixes/README"), "{code:?} {out}{errors}");
    ensure!(!out.contains("unfinished"), "{out}");
    // A page is no room for a page and the next.
    let state = ["check", "--for", "100ms", "--state", "/mnt/state"];
    let (out, _, code) = run("4k,nr_inodes=1", &state)?;
    ensure!(
        code == Some(3) && !out.lines().any(|line| line.starts_with("/mnt/")),
        "{code:?} {out}"
    );
    Ok(())
}

fn files() -> Result<()> {
    const APART: &[&str] = &["unshare", "--mount", "sh"];
    const FIFOS: &str = "mount -t tmpfs none /etc
         mkdir /etc/sysctl.d /etc/modprobe.d
         mkfifo /etc/sysctl.d/a.conf /etc/modprobe.d/a.conf /etc/sysctl.conf /etc/services \
         /etc/nftables.conf /etc/localtime /etc/timezone";
    suffer(&[Fault { by: APART, ..Fault::of("FIFOs in /etc", FIFOS) }])?;
    // A namespace whose name leads to no namespace stops nobody from seeing the others.
    let mut lab = Lab::new(Plan::default())?;
    let other = lab.add_netns("other")?;
    let hide = format!(
        "mount -t tmpfs none /mnt; mkfifo /mnt/fifo; mount --bind /mnt/fifo {}",
        other.path().display()
    );
    lab.send(&Flood::of(UDP, 50))?;
    for args in VERBS.iter().filter(|args| args[0] != "trace") {
        let mut command = Command::new(APART[0]);
        command.args(&APART[1..]).args(["-ec", &format!("{hide}\nexec \"$@\""), "sh"]);
        command.args(["timeout", "--signal=KILL", "30"]);
        command.arg(ctwatch()?.get_program()).args(*args);
        let (out, err, code) = finished(&mut command)?;
        ensure!(code.is_some_and(|code| code <= 3), "{args:?}: {code:?} {out}{err}");
        let sees = args[0] != "watch" || out.contains(lab.router().name());
        ensure!(sees, "{args:?}: {out}{err}");
    }
    Ok(())
}

fn ended(child: &mut Child) -> Result<ExitStatus> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("it does not end");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether one of its threads waits in the kernel for room in its standard output.
fn is_stuck(child: &Child) -> Result<bool> {
    let writes = format!("{} 0x1 ", libc::SYS_write);
    for task in std::fs::read_dir(format!("/proc/{}/task", child.id()))? {
        // One that ended meanwhile.
        let Ok(call) = std::fs::read_to_string(task?.path().join("syscall")) else { continue };
        if call.starts_with(&writes) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A pipe that is full, and nobody at its other end.
fn unread() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    lab.send(&Flood::of(UDP, 1000))?;
    for args in [&["watch", "-i", "100ms"][..], &["watch", "-i", "100ms", "--output", "json"]] {
        let mut command = ctwatch()?;
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let pipe = child.stdout.take().context("no output")?;
        rustix::pipe::fcntl_setpipe_size(&pipe, 4096)?;
        let until = Instant::now() + PATIENCE;
        while !is_stuck(&child)? {
            ensure!(Instant::now() < until, "{args:?}: the pipe does not get full");
            thread::sleep(Duration::from_millis(50));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = ended(&mut child)?;
        let mut errors = String::new();
        child.stderr.take().context("no errors")?.read_to_string(&mut errors)?;
        ensure!(status.code() == Some(1), "{args:?}: {status:?} {errors}");
        ensure!(errors.contains("no process reads standard output"), "{args:?}: {errors}");
    }
    until_no_programs()
}

/// At any moment of the start.
fn killed() -> Result<()> {
    until_no_programs()?;
    for nth in 0..20 {
        let mut command = ctwatch()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        thread::sleep(Duration::from_millis(nth * 7));
        child.kill()?;
        child.wait()?;
    }
    until_no_programs()
}
