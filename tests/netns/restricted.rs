//! The restrictions of the unit and of the pod, without systemd and without a cluster: what ctwatch may do there is
//! enough for all that it promises.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{Lab, Plan, STAYS_FULL, judge, traffic::Flood};

use crate::{
    On, Test,
    deployed::{CAPABILITIES, SYNS, free_port, sample, serve, setting},
    test,
    watch::ctwatch,
};

pub(crate) const TESTS: &[Test] = &[
    // So far here alone: machines of their own have not all that these restrictions are made with.
    test(On::OnceHere, "the_units_restrictions_take_nothing_away", unit),
    test(On::OnceHere, "the_pods_restrictions_take_nothing_away", pod),
];

/// What `setpriv` is to do: these capabilities and no others, for good.
fn only(user: &[&str]) -> Result<Vec<String>> {
    // A test of what is deployed holds the pod's against the same list.
    let names = setting(CAPABILITIES)?.join(" ");
    let names = names.split(' ').map(|name| {
        let name = name.trim_start_matches("CAP_").to_lowercase();
        format!(",+{name}")
    });
    let kept = format!("-all{}", names.collect::<String>());
    let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={kept}"));
    let user = user.iter().map(|option| (*option).to_owned());
    let alone = ["setpriv".to_owned(), "--clear-groups".to_owned(), "--no-new-privs".to_owned()];
    Ok(alone.into_iter().chain(sets).chain(user).collect())
}

/// As systemd starts it: another user, these capabilities, a read-only file system in a mount namespace of its own
/// that follows the host's.
fn unit() -> Result<()> {
    const PREPARE: &str = "mount --make-rslave / && mount -o remount,bind,ro / && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "unchanged", "sh", "-ec", PREPARE, "sh"]);
    command.args(only(&["--reuid=61234", "--regid=61234"])?).arg(ctwatch()?.get_program());
    restricted(&mut command, 61234)
}

/// As a container runtime starts it: root with these capabilities, namespaces of its own but for the network's and the
/// processes', and a read-only root with nothing in it but what the manifest mounts.
fn pod() -> Result<()> {
    // /usr and its libraries are for setpriv, and for a build that is not static.
    const PREPARE: &str = "
        root=$1 ctwatch=$2; shift 2
        mount --make-rslave /
        mount -t tmpfs none $root
        cd $root
        mkdir -p proc sys dev run/netns var/log/pods
        touch ctwatch dev/null
        mount --bind /dev/null dev/null
        mount --bind $ctwatch ctwatch
        mount -t proc proc proc
        mount --bind proc/sys proc/sys
        mount -o remount,bind,ro proc/sys
        mount -t sysfs -o ro sysfs sys
        mount --rbind /run/netns run/netns
        for folder in usr lib lib64; do
            if [ -d /$folder ]; then
                mkdir $folder
                mount --bind /$folder $folder
                mount -o remount,bind,ro $folder
            fi
        done
        mount -o remount,ro $root
        exec chroot $root \"$@\"";
    let root = tempfile::tempdir()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--uts", "--ipc", "--cgroup", "--propagation", "unchanged"]);
    command.args(["sh", "-ec", PREPARE, "sh"]);
    command.arg(root.path()).arg(ctwatch()?.get_program()).args(only(&[])?).arg("/ctwatch");
    restricted(&mut command, 0)
}

/// A process in a network namespace of its own, which nothing else leads to.
struct Lodger(Child);

impl Lodger {
    fn start() -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo in; exec sleep 600"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut said = [0; 3];
        let output = child.stdout.take();
        let lodger = Self(child);
        output.context("no output")?.read_exact(&mut said)?;
        Ok(lodger)
    }

    fn inode(&self) -> Result<String> {
        let link = fs::read_link(format!("/proc/{}/ns/net", self.0.id()))?;
        let link = link.to_string_lossy();
        let inode = link.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
        Ok(inode.with_context(|| link.to_string())?.to_owned())
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Lodger {
    fn drop(&mut self) {
        self.end();
    }
}

fn available(page: &str) -> BTreeSet<String> {
    let figures =
        page.lines().filter_map(|line| line.strip_prefix("ctwatch_figure_available{figure="));
    figures.filter_map(|line| line.strip_suffix("} 1")).map(str::to_owned).collect()
}

/// Everything is counted as it is without restrictions; a namespace that is deleted goes.
fn restricted(command: &mut Command, user: u32) -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    let folder = tempfile::tempdir()?;
    // As root first.
    let port = free_port()?;
    let mut whole = serve(&mut ctwatch()?, port, folder.path(), "root.log")?;
    let before = available(&whole.get("/metrics")?);
    ensure!(before.contains("\"dropped\"") && before.contains("\"insertions\""), "{before:?}");
    drop(whole);

    let port = free_port()?;
    let mut serve = serve(command, port, folder.path(), "serve.log")?;
    let pid = serve.child.id();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(status.contains(&format!("\nUid:\t{user}\t{user}\t")), "{status}");
    ensure!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
    let name = lab.router().name().to_owned();
    let counter = |page: &str, counter: &str| sample(page, &format!("{counter}{{netns={name:?}}}"));
    let page = serve.get("/metrics")?;
    ensure!(available(&page) == before, "as root {before:?}, confined {:?}", available(&page));
    let first = counter(&page, "ctwatch_dropped_total").context("drops are not measured")?;
    let inserted =
        counter(&page, "ctwatch_insertions_total").context("insertions are not measured")?;
    let sent = lab.send(&Flood::of(SYNS, 2000))?;
    let verdict = judge::ask(lab.router())?;
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let (truth, let_in) = (verdict.drop as f64, (sent.packets - verdict.drop) as f64);
    ensure!(truth > 1000.0 && sent.arrived == sent.packets, "{sent:?} {verdict:?}");
    let page = serve.until("the drops", |serve| {
        let page = serve.get("/metrics")?;
        Ok(counter(&page, "ctwatch_dropped_total")
            .is_some_and(|now| now - first >= truth)
            .then_some(page))
    })?;
    let grown = |name, from| counter(&page, name).map(|now| now - from);
    ensure!(grown("ctwatch_dropped_total", first) == Some(truth), "{truth} {page}");
    ensure!(grown("ctwatch_insertions_total", inserted) == Some(let_in), "{let_in} {page}");
    ensure!(counter(&page, "ctwatch_entries") == Some(STAYS_FULL.into()), "{page}");
    // Who, and what it is made of, while it is saturated.
    serve.until("a census and lists", |serve| {
        let page = serve.get("/metrics")?;
        let here = page.contains("ctwatch_census_entries{") && page.contains("ctwatch_top_share{");
        Ok(here.then_some(()))
    })?;

    // One that only a process of root shows, as a pod's, and only while there is that process.
    let mut process = Lodger::start()?;
    let of_process = format!("inode=\"{}\"", process.inode()?);
    serve.until("the namespace of a process", |serve| {
        Ok(serve.get("/metrics")?.contains(&of_process).then_some(()))
    })?;
    process.end();
    serve.until("that the process is gone", |serve| {
        Ok((!serve.get("/metrics")?.contains(&of_process)).then_some(()))
    })?;

    // What is made later is seen, and what is deleted is not kept.
    let later = lab.add_netns("later")?;
    let inode = later.inode()?;
    let readable = format!("ctwatch_netns_readable{{netns={:?}}}", later.name());
    serve.until("the new namespace", |serve| {
        Ok(sample(&serve.get("/metrics")?, &readable).filter(|readable| *readable == 1.0))
    })?;
    lab.remove_netns(&later)?;
    serve.until("that it is gone", |serve| {
        Ok(sample(&serve.get("/metrics")?, &readable).is_none().then_some(()))
    })?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    ensure!(!mounts.contains(&format!("net:[{inode}]")), "it is still mounted: {mounts}");
    let root =
        mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).context("no root")?;
    let options = root.split(' ').nth(5).unwrap_or_default();
    ensure!(options.split(',').any(|option| option == "ro"), "it may write: {root}");
    Ok(())
}
