//! Pods and containers as a node has them: cgroups named as the kubelet names them, a process in each,
//! and the kubelet's folders of logs where only ctwatch sees them.

use std::{
    ffi::CString,
    fs,
    net::UdpSocket,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{Lab, netns::Netns, topology::TRACKING};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::{Value, json};

use crate::{
    On, Test, mechanism, test,
    watch::{Background, ctwatch, finished, named},
};

pub(crate) const TESTS: &[Test] =
    &[test(On::OnceWithCgroups, "pods_are_named_from_cgroups_and_logs", pods).anywhere()];

const ID: &str = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
const NGINX: &str = "a2830d0d-b0f0-4ff0-81b5-0ee4e299cf80";
const POSTGRES: &str = "5f1924a86339fb52ac1fc0ed5c10b18e";
const DEBUG: &str = "18640755-cc12-4557-b96e-0f74d5b44d1d";
const ENTRIES: u16 = 10;
/// `nobody`.
const STRANGER: u32 = 65_534;

/// Why there is nothing to test here.
pub(crate) fn missing() -> Option<&'static str> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    (!known.contains("cgroup2")).then_some("this kernel has no cgroups of version 2")
}

/// The unified hierarchy, mounted once more for this test; what was made in it goes with this.
struct Cgroups {
    place: tempfile::TempDir,
    made: Vec<PathBuf>,
    processes: Vec<Child>,
}

impl Cgroups {
    fn mount() -> Result<Self> {
        let place = tempfile::tempdir()?;
        let flags = MountFlags::empty();
        rustix::mount::mount("none", place.path(), "cgroup2", flags, None)
            .context("cannot mount the cgroups of version 2")?;
        Ok(Self { place, made: Vec::new(), processes: Vec::new() })
    }

    /// Starts a process in the cgroup with this path below that of this test.
    fn start(&mut self, command: &mut Command, path: &str) -> Result<usize> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup")?;
        let mut folder = self.place.path().join(own);
        for part in Path::new(path).iter() {
            folder.push(part);
            if fs::create_dir(&folder).is_ok() {
                self.made.push(folder.clone());
            }
        }
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let pid = process.id();
        self.processes.push(process);
        fs::write(folder.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("cannot move a process to {}", folder.display()))?;
        let shown = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        ensure!(shown.contains(path), "{shown}");
        Ok(self.processes.len() - 1)
    }

    fn end(&mut self, number: usize) -> Result<()> {
        self.processes[number].kill()?;
        self.processes[number].wait()?;
        Ok(())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // Some have ended already, and what could not be made is not there.
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        for folder in self.made.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
        let _ = rustix::mount::unmount(self.place.path(), UnmountFlags::DETACH);
    }
}

fn sleep() -> Command {
    let mut command = Command::new("sleep");
    command.arg("600");
    command
}

/// ctwatch where /var/log/pods has these folders; nobody else sees them.
fn on_node(pods: &[String]) -> Result<Command> {
    fs::create_dir_all("/var/log")?;
    let folders = ["/var/log/pods".to_owned()]
        .into_iter()
        .chain(pods.iter().map(|pod| format!("/var/log/pods/{pod}")))
        .map(CString::new)
        .collect::<Result<Vec<_>, _>>()?;
    let mut command = ctwatch()?;
    // SAFETY: system calls alone, with what was allocated before: safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change(c"/", private)?;
            rustix::mount::mount(c"none", c"/var/log", c"tmpfs", MountFlags::empty(), None)?;
            for folder in &folders {
                rustix::fs::mkdir(folder.as_c_str(), rustix::fs::Mode::from_raw_mode(0o755))?;
            }
            Ok(())
        });
    }
    Ok(command)
}

/// Entries that stay for as long as this test runs.
fn fill(netns: &Netns) -> Result<()> {
    netns.nft(TRACKING)?;
    netns.run(&["ip", "link", "set", "lo", "up"])?;
    netns.sysctl("net/netfilter/nf_conntrack_udp_timeout", "600")?;
    netns.within(|| -> Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        for port in 1..=ENTRIES {
            socket.send_to(b"x", ("127.0.0.1", port))?;
            // Each answer is an error of the socket's.
            let _ = socket.take_error();
        }
        Ok(())
    })?
}

fn said(command: &mut Command) -> Result<String> {
    let (text, errors, code) = finished(command)?;
    ensure!(code == Some(0), "{code:?} {text} {errors}");
    Ok(text)
}

fn is(netns: &Value, keys: &Value) -> Result<()> {
    for key in ["pod", "namespace", "container"] {
        ensure!(netns.get(key) == keys.get(key), "{key} of {netns} is not that of {keys}");
    }
    Ok(())
}

fn tracked<'a>(report: &'a Value, name: &str) -> Result<&'a Value> {
    let all = report["tracking"]["namespaces"].as_array().context("no namespaces")?;
    let mut all = all.iter().map(|one| &one["netns"]);
    all.find(|netns| netns["name"] == name).with_context(|| format!("no {name} in {report}"))
}

/// The last object with that in it, as soon as there is one.
fn last(watch: &mut Background, found: impl Fn(&Value) -> bool) -> Result<Value> {
    let parse = |line: &str| serde_json::from_str(line).ok().filter(&found);
    let of = |text: &str| text.lines().rev().find_map(&parse);
    watch.until(|text| of(text).is_some())?;
    of(watch.text()).context("it is gone again")
}

fn pods() -> Result<()> {
    let mut lab = Lab::new(ctwatch_lab::Plan::default())?;
    lab.keep_entries()?;
    let mut cgroups = Cgroups::mount()?;
    // As containerd calls them; only a mount shows the first.
    let cni = format!("cni-00000000-0000-4000-8000-{:012x}", std::process::id());
    let nginx = lab.add_called(&cni)?;
    let postgres = lab.add_netns("blue")?;
    let docker = lab.add_netns("docker")?;
    for netns in [&nginx, &postgres, &docker] {
        fill(netns)?;
    }
    let of_pod = |class: &str, uid: &str| {
        let uid = uid.replace('-', "_");
        format!("kubepods.slice/{class}.slice/{class}-pod{uid}.slice/cri-containerd-{ID}.scope")
    };
    let (burstable, effort) = ("kubepods-burstable", "kubepods-besteffort");
    let pause = cgroups.start(nginx.command("sleep")?.arg("600"), &of_pod(effort, NGINX))?;
    // Somebody who looks into the pod from another one; processes are told apart by ticks.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let guest = cgroups.start(nginx.command("sleep")?.arg("600"), &of_pod(effort, DEBUG))?;
    cgroups.start(postgres.command("sleep")?.arg("600"), &of_pod(burstable, POSTGRES))?;
    let scope = format!("system.slice/docker-{ID}.scope");
    cgroups.start(docker.command("sleep")?.arg("600"), &scope)?;
    // An unprivileged user's process in a cgroup that is called after the pod.
    let mut stranger = sleep();
    stranger.uid(STRANGER);
    // SAFETY: one system call, safe between fork and exec.
    unsafe {
        stranger.pre_exec(|| {
            let flags =
                rustix::thread::UnshareFlags::NEWUSER | rustix::thread::UnshareFlags::NEWNET;
            Ok(rustix::thread::unshare_unsafe(flags)?)
        });
    }
    cgroups.start(&mut stranger, &of_pod(effort, NGINX))?;
    let folders = [
        format!("web_nginx-0_{NGINX}"),
        format!("db_postgres-node1_{POSTGRES}"),
        format!("ops_debug_{DEBUG}"),
    ];
    let (web, db) = (
        json!({"namespace": "web", "pod": "nginx-0"}),
        json!({"namespace": "db", "pod": "postgres-node1"}),
    );
    let container = json!({"container": ID[..12]});
    let node = |args: &[&str]| -> Result<Command> {
        let mut command = on_node(&folders)?;
        command.args(args);
        Ok(command)
    };

    let by = ["--interval", "100ms", "--mechanism", mechanism::current().name()];
    let watching = ["watch", "--output", "json"];
    let mut watch = Background::start(node(&watching)?.args(by))?;
    let object = last(&mut watch, |object| named(object, &cni).is_ok())?;
    is(&named(&object, &cni)?["netns"], &web)?;
    // What an operator calls it stays its name.
    is(&named(&object, postgres.name())?["netns"], &db)?;
    is(&named(&object, docker.name())?["netns"], &container)?;
    is(&named(&object, lab.router().name())?["netns"], &json!({}))?;
    let tables = object["tables"].as_array().context("no tables")?;
    let mut strangers = tables.iter().filter(|table| table["netns"]["owner"] == STRANGER);
    let theirs = strangers.next().context("the stranger's is not there")?;
    is(&theirs["netns"], &json!({})).context("a user named himself after a pod")?;

    let only = node(&["watch", "--count", "2", "--netns", "web/*", "--netns", "!db/*"])?
        .args(by)
        .output()?;
    let text = String::from_utf8(only.stdout)?;
    ensure!(text.contains(" web/nginx-0 "), "{text}{}", String::from_utf8_lossy(&only.stderr));
    ensure!(!text.contains(postgres.name()) && !text.contains("cni-"), "{text}");

    let census = ["census", "--by", "pod,namespace"];
    let text = said(&mut node(&census)?)?;
    let row = |name: &str| text.lines().find(|line| line.trim_start().starts_with(name));
    for name in ["web/nginx-0 ", "db/postgres-node1 ", "web ", "db "] {
        let line = row(name).with_context(|| format!("no {name} in {text}"))?;
        let entries: Option<u64> = line.split_whitespace().nth(1).and_then(|n| n.parse().ok());
        ensure!(entries == Some(ENTRIES.into()), "{line}");
    }
    ensure!(row("(no known pod)").is_some(), "{text}");
    let object: Value = serde_json::from_str(&said(node(&census)?.args(["--output", "json"]))?)?;
    let groups = object["groups"].as_array().context("no groups")?;
    for by in ["pod", "namespace"] {
        let of_it = groups.iter().filter(|group| group["by"] == by);
        let all: u64 = of_it.filter_map(|group| group["entries"].as_u64()).sum();
        ensure!(Some(all) == object["entries"].as_u64(), "{by}: {all} in {object}");
    }
    is(&named(&object, &cni)?["netns"], &web)?;

    let report: Value = serde_json::from_str(&said(&mut node(&["doctor", "--output", "json"])?)?)?;
    is(tracked(&report, &cni)?, &web)?;
    is(tracked(&report, docker.name())?, &container)?;
    let text = said(&mut node(&["doctor"])?)?;
    ensure!(text.contains("web/nginx-0 tracks"), "{text}");
    let text = said(&mut node(&["check", "--for", "300ms", "--netns", "web/nginx-0"])?)?;
    ensure!(text.contains("web/nginx-0 "), "{text}");

    // The mount outlives its processes for a moment.
    cgroups.end(pause)?;
    cgroups.end(guest)?;
    let before = watch.text().lines().count();
    watch.until(|text| text.lines().count() > before + 70)?;
    let object = last(&mut watch, |object| named(object, &cni).is_ok())?;
    is(&named(&object, &cni)?["netns"], &web).context("its processes are gone")?;
    Ok(())
}
