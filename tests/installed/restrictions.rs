//! Each line of the unit that restricts it is in force: what it forbids is tried from inside.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    inside::{DONE, MARK, SHARED_MEMORY},
    running::{SERVICE, SOCKET, property, systemctl},
    said,
};

/// A line of the unit, what is tried, and what comes of it inside.
type Row = (&'static str, &'static str, &'static str);

/// BPF, PERFMON, NET_ADMIN, SYS_ADMIN, SYSLOG and SYS_PTRACE, as the kernel numbers them.
const SIX: &str = "000000c400281000";

const ROWS: &[Row] = &[
    ("Nice=-5", "niceness", "-5"),
    ("DynamicUser=yes", "user", "its own"),
    ("StateDirectory=ctwatch", "state folder", "/var/lib/ctwatch"),
    ("StateDirectory=ctwatch", "write into its state", DONE),
    ("StateDirectoryMode=0700", "mode of the state folder", "0700"),
    ("UMask=0077", "umask", "0077"),
    ("CapabilityBoundingSet=", "capabilities it may ever have", SIX),
    ("AmbientCapabilities=", "capabilities it has", SIX),
    ("AmbientCapabilities=", "capabilities it hands on", SIX),
    ("NoNewPrivileges=yes", "no new privileges", "1"),
    ("LimitMEMLOCK=infinity", "locked memory", "unlimited"),
    ("ProtectSystem=strict", "write into /usr", "EROFS"),
    ("ProtectSystem=strict", "write into /etc", "EROFS"),
    ("ProtectHome=yes", "list /home", "EACCES"),
    ("ProtectHome=yes", "list /root", "EACCES"),
    ("PrivateTmp=yes", "see the host's /tmp", "ENOENT"),
    ("PrivateMounts=yes", "mounts", "its own"),
    ("PrivateDevices=yes", "open /dev/kmsg", "ENOENT"),
    ("ReadOnlyPaths=/proc/sys", "change a setting", "EROFS"),
    ("ProtectControlGroups=yes", "make a control group", "EROFS"),
    ("ProtectKernelModules=yes", "list modules", "EACCES"),
    ("ProtectClock=yes", "read the clock's state", "EPERM"),
    ("ProtectHostname=yes", "name of the host", "its own"),
    ("ProtectHostname=yes", "set the name of the host", "EPERM"),
    ("RestrictAddressFamilies=", "socket of IPv4", "EAFNOSUPPORT"),
    ("RestrictAddressFamilies=", "socket of IPv6", "EAFNOSUPPORT"),
    ("RestrictAddressFamilies=", "socket for packets", "EAFNOSUPPORT"),
    ("RestrictAddressFamilies=", "socket of netlink", DONE),
    ("RestrictAddressFamilies=", "socket of Unix", DONE),
    ("IPAddressDeny=any", "programs that filter what it sends", "1"),
    ("RestrictNamespaces=net", "a user namespace", "EPERM"),
    ("RestrictNamespaces=net", "a namespace for names of hosts", "EPERM"),
    ("RestrictNamespaces=net", "a network namespace", DONE),
    ("RestrictRealtime=yes", "be scheduled in real time", "EPERM"),
    ("RestrictSUIDSGID=yes", "a file that gives its owner's rights", "EPERM"),
    ("LockPersonality=yes", "another personality", "EPERM"),
    ("MemoryDenyWriteExecute=yes", "memory to write and execute", "EPERM"),
    // That it is gone when the unit has ended is looked at from outside.
    ("RemoveIPC=yes", "shared memory", DONE),
    ("SystemCallArchitectures=native", "a call as on another CPU", "killed by signal 31"),
    ("SystemCallFilter=", "mount", "EPERM"),
    ("SystemCallFilter=", "a ruleset of Landlock", DONE),
    ("SystemCallErrorNumber=EPERM", "swap", "EPERM"),
    ("MemoryMax=256M", "most memory", "268435456"),
    ("TasksMax=32", "most tasks", "32"),
];

/// How it is started and kept running, and what systemd alone can say: each has a test of its own, or is compared below.
const OTHERS: [&str; 7] = [
    "Type=",
    "NotifyAccess=",
    "ExecStart=",
    "Restart=",
    "RestartSec=",
    "WatchdogSec=",
    // Without it a service of the system has a keyring of its own just so.
    "KeyringMode=private",
];

const IN_PLACE_OF_CTWATCH: &str = "/run/systemd/system/ctwatch.service.d/inside.conf";

/// By what it is called.
type Came = BTreeMap<String, String>;

pub(crate) fn in_force() -> Result<()> {
    let unit = fs::read_to_string("/usr/lib/systemd/system/ctwatch.service")?;
    let service = unit.split_once("[Service]\n").context("no [Service]")?.1;
    let service = service.split("[Install]").next().unwrap_or_default();
    let lines: Vec<&str> =
        service.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    for line in &lines {
        let shown = ROWS.iter().any(|(setting, ..)| line.starts_with(setting));
        ensure!(shown || OTHERS.iter().any(|o| line.starts_with(o)), "nothing shows {line}");
    }
    for (setting, ..) in ROWS {
        ensure!(lines.iter().any(|line| line.starts_with(setting)), "the unit has no {setting}");
    }
    ensure!(property(SERVICE, "KeyringMode")? == "private", "its keyring is another's");

    fs::write(MARK, "")?;
    let without = without_unit()?;
    let inside = inside()?;
    let mut wrong = Vec::new();
    for (setting, what, expected) in ROWS {
        let came = |of: &Came| of.get(*what).cloned().with_context(|| format!("not tried: {what}"));
        let (inside, without) = (came(&inside)?, came(&without)?);
        if inside != *expected {
            wrong.push(format!("{setting}: {what}: {inside}, not {expected}"));
        }
        // Otherwise it would show nothing.
        if *expected != DONE && without == *expected {
            wrong.push(format!("{what}: {without} without the unit too"));
        }
        println!("{setting}: {what}: {inside}; without the unit: {without}");
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    let left = fs::read_to_string("/proc/sysvipc/shm")?;
    let keys = || left.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    ensure!(keys().any(|key: i32| key == SHARED_MEMORY + 1), "the one without the unit: {left}");
    ensure!(!keys().any(|key: i32| key == SHARED_MEMORY), "RemoveIPC: {left}");
    Ok(())
}

fn read(text: &str) -> Came {
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    pairs.map(|(what, came)| (what.to_owned(), came.to_owned())).collect()
}

fn without_unit() -> Result<Came> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(read(&said(command.args(["--inside", "-"]))?))
}

/// The unit as it is, but for what it starts.
fn inside() -> Result<Came> {
    systemctl(&["stop", SOCKET, SERVICE])?;
    let program = std::env::current_exe()?;
    let text = format!(
        "[Service]\nType=oneshot\nRestart=no\nExecStart=\nExecStart={} --inside /var/lib/ctwatch/inside\n",
        program.display()
    );
    let folder = Path::new(IN_PLACE_OF_CTWATCH).parent().context("no folder")?;
    fs::create_dir_all(folder)?;
    fs::write(IN_PLACE_OF_CTWATCH, text)?;
    systemctl(&["daemon-reload"])?;
    let started = systemctl(&["start", SERVICE]);
    let came = fs::read_to_string("/var/lib/ctwatch/inside");
    fs::remove_dir_all(folder)?;
    let _ = fs::remove_file("/var/lib/ctwatch/inside");
    systemctl(&["daemon-reload"])?;
    systemctl(&["stop", SOCKET, SERVICE])?;
    started?;
    systemctl(&["start", SOCKET, SERVICE])?;
    Ok(read(&came.context("it wrote nothing")?))
}
