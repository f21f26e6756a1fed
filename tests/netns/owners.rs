//! The real owners of a firewall, as Debian has them: the advice is typed in where they run, they load
//! their rules again, and the undo leaves everything as it was.
//!
//! Each runs in the router's network namespace, in a root file system that is laid over one that xtask
//! unpacked, with processes of its own: the doctor sees it as it sees a machine.

use std::{
    env, fs,
    io::Read,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{Lab, Plan, netns::Netns};
use serde_json::Value;

use crate::{
    On, Test,
    advice::{State, datagrams, entries, go_through, hasty},
    doctor::{fix, found},
    test,
    watch::{PATIENCE, ctwatch},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::OnceWithOwners, "owner_ufw", ufw),
    test(On::OnceWithOwners, "owner_ufw_and_docker", ufw_and_docker),
    test(On::OnceWithOwners, "owner_docker", docker),
    test(On::OnceWithOwners, "owner_firewalld", firewalld),
    test(On::OnceWithOwners, "owner_nftables_service", nftables),
    test(On::OnceWithOwners, "owner_nftables_service_with_includes", nftables_with_includes),
    test(On::OnceWithOwners, "owner_netfilter_persistent", persistent),
    test(On::OnceWithOwners, "owner_systemd_undoes_what_is_not_confirmed", unconfirmed),
];

const VARIABLE: &str = "CTWATCH_OWNERS";

/// What fills the table.
struct Filled {
    to: &'static str,
    port: &'static str,
    /// What is advised.
    title: &'static str,
    is_tunnel: bool,
}

/// Passes through, and nobody answers.
const TUNNEL: Filled = Filled {
    to: "10.100.0.2:4789",
    port: "4789",
    title: "do not track the tunnels of VXLAN (udp/4789)",
    is_tunnel: true,
};
/// Of the router itself, which answers.
const SERVICE: Filled = Filled {
    to: "10.99.1.1:9000",
    port: "9000",
    title: "do not track udp/9000 of 10.99.1.1",
    is_tunnel: false,
};

/// Why these tests cannot be run here.
pub(crate) fn missing() -> Option<&'static str> {
    env::var_os(VARIABLE).is_none().then_some(
        "CTWATCH_OWNERS names no root file system with ufw, firewalld and netfilter-persistent \
         (cargo xtask test fetches one)",
    )
}

/// Puts the root file system together, in a mount namespace of its own, with processes of its own. These
/// are in a cgroup that the rest of this machine has nothing in.
const BOOT: &str = "
    mount -t tmpfs ctwatch /run
    mkdir /run/upper /run/work /run/root /run/cgroup
    mount -t overlay ctwatch -o lowerdir=$1,upperdir=/run/upper,workdir=/run/work /run/root
    cp $2 /run/root/usr/bin/ctwatch
    if [ $3 = systemd ]; then
        mount -t cgroup2 ctwatch /run/cgroup
        mkdir /run/cgroup/ctwatch-$$
        echo $$ > /run/cgroup/ctwatch-$$/cgroup.procs
        exec unshare --cgroup --ipc --uts --pid --fork --kill-child sh -ec \"$4\"
    fi
    exec unshare --pid --fork --kill-child sh -ec \"$4\"
";

/// Waits there until its input ends.
const PLAIN: &str = "
    mount -t proc proc /run/root/proc
    mount --rbind /sys /run/root/sys
    mount --rbind /dev /run/root/dev
    mount -t tmpfs ctwatch /run/root/run
    echo up
    exec chroot /run/root cat
";

/// systemd, with no unit that sets up this machine: what belongs to the kernel is not the namespace's own.
const SYSTEMD: &str = "
    mount -t proc proc /run/root/proc
    mount -t sysfs sysfs /run/root/sys
    mount -t cgroup2 cgroup2 /run/root/sys/fs/cgroup
    mount -t tmpfs ctwatch /run/root/dev
    for device in null zero full random urandom; do
        touch /run/root/dev/$device
        mount --bind /dev/$device /run/root/dev/$device
    done
    mount -t tmpfs ctwatch /run/root/run
    rm -r /run/root/usr/lib/systemd/system/sysinit.target.wants
    cd /run/root/etc/systemd/system
    printf '[Unit]\\nDefaultDependencies=no\\n' > sysinit.target
    printf '[Unit]\\nDefaultDependencies=no\\n' > ctwatch.target
    echo up
    exec chroot /run/root env -i container=ctwatch PATH=/usr/sbin:/usr/bin \\
        /lib/systemd/systemd --unit=ctwatch.target --log-target=null
";

#[derive(Clone, Copy, PartialEq)]
enum Init {
    Plain,
    Systemd,
}

/// A machine whose only network namespace is the router's.
struct Machine {
    init: Child,
    router: Netns,
    kind: Init,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Takes all of its processes along.
        let _ = self.init.kill();
        let _ = self.init.wait();
        if self.kind == Init::Systemd {
            let cgroup = format!(
                "mount -t cgroup2 ctwatch /run
                 for nth in $(seq 50); do
                     find /run/ctwatch-{} -depth -type d -exec rmdir {{}} + 2> /dev/null && break
                     sleep 0.1
                 done",
                self.init.id()
            );
            let _ = Command::new("unshare").args(["--mount", "sh", "-c", &cgroup]).status();
        }
    }
}

impl Machine {
    fn boot(router: &Netns, kind: Init) -> Result<Self> {
        let root = PathBuf::from(env::var_os(VARIABLE).context("no owners")?);
        let (word, script) = match kind {
            Init::Plain => ("plain", PLAIN),
            Init::Systemd => ("systemd", SYSTEMD),
        };
        // It does not outlive these tests, however they end.
        let mut command = router.command("setpriv")?;
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-ec", BOOT, "boot"]);
        command.arg(root).arg(ctwatch()?.get_program()).args([word, script]);
        let init = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut machine = Self { init, router: router.clone(), kind };
        let mut up = [0; 3];
        let said = machine.init.stdout.as_mut().context("no output")?;
        said.read_exact(&mut up).context("the machine does not come up")?;
        if kind == Init::Systemd {
            let is_up = "for nth in $(seq 100); do
                systemctl is-active ctwatch.target > /dev/null 2>&1 && exit 0; sleep 0.1
            done; exit 1";
            machine.types(is_up).context("systemd does not come up")?;
        }
        Ok(machine)
    }

    /// What a shell on it prints.
    fn types(&self, command: &str) -> Result<String> {
        let init = self.init.id();
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &init.to_string(), "--mount", "--net", "--cgroup"]);
        enter.arg(format!("--pid=/proc/{init}/ns/pid_for_children"));
        enter.args(["chroot", "/run/root", "env", "-i", "HOME=/root"]);
        enter.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let output = enter.args(["sh", "-ec", command]).stdin(Stdio::null()).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {complaint}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn all(&self, commands: &Value) -> Result<()> {
        let commands = commands.as_array().into_iter().flatten();
        commands.filter_map(Value::as_str).try_for_each(|c| self.types(c).map(|_| ()))
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.init.id().to_string()).join("root/run/root").join(&file[1..])
    }

    fn reads(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.path(file)).with_context(|| format!("cannot read {file}"))
    }

    fn writes(&self, file: &str, content: &str) -> Result<()> {
        let path = self.path(file);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(path, content).with_context(|| format!("cannot write {file}"))
    }

    fn report(&self) -> Result<Value> {
        let json = self.types("ctwatch doctor --output json")?;
        serde_json::from_str(&json).with_context(|| format!("not JSON: {json}"))
    }
}

/// An owner that has loaded its rules.
struct Owner {
    /// As the report calls it, with what shows it.
    known: &'static str,
    reload: &'static str,
    /// Whether rules of nftables that are not its own are there after that.
    leaves_others: bool,
    filled: Filled,
    /// Why that is not to be left untracked.
    but: Option<&'static str>,
}

fn advised<'a>(report: &'a Value, filled: &Filled) -> Result<&'a Value> {
    fix(found(report, "top_talkers", filled.port)?, filled.title)
}

/// Types all cures in, one after the other, as printed; the owner loads its rules again after each.
fn all_cures(lab: &mut Lab, machine: &Machine, owner: &Owner) -> Result<()> {
    let (router, filled) = (&machine.router, &owner.filled);
    let report = ill(lab, machine, filled)?;
    let managed = report["tracking"]["managed_by"].to_string();
    ensure!(managed.contains(owner.known), "{managed}");
    ensure!(!report.to_string().contains("flush"), "{report:#}");
    let findings = report["findings"].as_array().context("no findings")?;
    let cures = findings.iter().filter_map(|finding| finding["fixes"].as_array()).flatten();
    let cures: Vec<&Value> = cures.collect();
    match owner.but {
        Some(why) => {
            let talkers = found(&report, "top_talkers", filled.port)?;
            ensure!(talkers["fixes"].as_array().is_some_and(Vec::is_empty), "{talkers:#}");
            ensure!(talkers["evidence"].to_string().contains(why), "{talkers:#}");
        }
        None => promises_what_is_there(router, &report, filled)?,
    }
    ensure!(cures.iter().any(|cure| has_commands(cure)), "nothing is advised: {report:#}");
    machine.types(owner.reload)?;
    passes(lab, filled, "before")?;
    let before = State::of(router)?;
    for cure in cures {
        if has_commands(cure) {
            one_cure(lab, machine, owner, cure, &before)?;
        } else {
            // What only the first namespace may set.
            ensure!(cure["elsewhere"]["commands"][0].is_string(), "{cure:#}");
        }
    }
    Ok(())
}

fn has_commands(cure: &Value) -> bool {
    cure["now"].as_array().is_some_and(|now| !now.is_empty())
}

fn one_cure(
    lab: &Lab,
    machine: &Machine,
    owner: &Owner,
    cure: &Value,
    before: &State,
) -> Result<()> {
    let (router, filled) = (&machine.router, &owner.filled);
    let works = |when: &str| -> Result<()> {
        let command = cure["check"]["command"].as_str().context("no check")?;
        let said = machine.types(command).with_context(|| format!("{when}: {cure:#}"))?;
        let prints = cure["check"]["prints"].as_str().context("it prints nothing")?;
        let is_number = prints.bytes().all(|byte| byte.is_ascii_digit());
        ensure!(!is_number || said.trim() == prints, "{when}: {said}: {cure:#}");
        Ok(())
    };
    let is_rule = cure["title"] == filled.title;
    let lasts = !is_rule || owner.leaves_others || cure["files"].to_string().contains(".nft");
    for step in ["save", "arm", "now", "disarm"] {
        machine.all(&cure[step])?;
    }
    for file in cure["files"].as_array().into_iter().flatten() {
        let text = |name: &str| file[name].as_str().context("no file");
        machine.writes(text("path")?, text("content")?)?;
    }
    works("typed in")?;
    passes(lab, filled, "typed in")?;
    if is_rule {
        is_untracked(lab, router, filled, "typed in")?;
    }
    machine.types(owner.reload)?;
    passes(lab, filled, "loaded again")?;
    if lasts {
        works("loaded again")?;
    } else {
        let said = cure["lasts"].to_string();
        ensure!(works("loaded again").is_err() && said.contains("at each restart"), "{cure:#}");
    }
    if is_rule && lasts {
        is_untracked(lab, router, filled, "loaded again")?;
    }
    let undo = cure["undo"].as_array().context("no undo")?;
    for command in undo.iter().filter_map(Value::as_str) {
        let done = machine.types(command);
        // The owner has taken it away already.
        ensure!(done.is_ok() || !lasts, "{done:?}: {cure:#}");
    }
    before.is_again(router).with_context(|| format!("undone: {cure:#}"))?;
    machine.types(owner.reload)?;
    before.is_again(router).with_context(|| format!("undone and loaded again: {cure:#}"))?;
    for file in cure["files"].as_array().into_iter().flatten() {
        let path = file["path"].as_str().context("no path")?;
        ensure!(!machine.path(path).exists(), "{path} is left behind");
    }
    Ok(())
}

/// What is said while the table is full of it. There is room after that: what does not arrive then, rules
/// have dropped.
fn ill(lab: &mut Lab, machine: &Machine, filled: &Filled) -> Result<Value> {
    lab.set_limit(1000)?;
    datagrams(lab.client(), 20_000..21_200, filled.to)?;
    let report = machine.report()?;
    lab.set_limit(100_000)?;
    Ok(report)
}

/// The number of entries, while the kernel goes on making room.
fn promises_what_is_there(router: &Netns, report: &Value, filled: &Filled) -> Result<()> {
    let cure = advised(report, filled)?;
    let there = entries(router, &["-p", "udp", "--dport", filled.port])? as f64;
    let said = cure["expect"].as_str().context("nothing is promised")?;
    let said = said.split(' ').nth(1).context("no number")?.replace(',', "");
    let said: f64 = said.parse().with_context(|| format!("no number: {cure:#}"))?;
    ensure!((said - there).abs() <= 0.1 * there, "{there} entries: {cure:#}");
    Ok(())
}

/// What was let in before still is, and what was answered is answered: from ports whose entries are
/// in the table.
fn passes(lab: &Lab, filled: &Filled, when: &str) -> Result<()> {
    match filled.is_tunnel {
        true => go_through(lab, 20_000..20_100, filled.to),
        false => is_answered(lab, filled),
    }
    .with_context(|| when.to_owned())
}

fn is_answered(lab: &Lab, filled: &Filled) -> Result<()> {
    let open = |netns: &Netns, address: String| -> Result<UdpSocket> {
        let socket = netns.within(|| UdpSocket::bind(&address))??;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    };
    let server = open(lab.router(), filled.to.to_owned())?;
    for port in 20_000..20_100 {
        let client = open(lab.client(), format!("0.0.0.0:{port}"))?;
        client.connect(filled.to)?;
        let mut word = [0; 1];
        client.send(b"?")?;
        let (_, from) = server.recv_from(&mut word).context("it is cut off")?;
        server.send_to(b"!", from)?;
        client.recv(&mut word).context("the answer is cut off")?;
    }
    Ok(())
}

/// Packets that no entry is made for arrive.
fn is_untracked(lab: &Lab, router: &Netns, filled: &Filled, when: &str) -> Result<()> {
    router.run(&["conntrack", "-F"])?;
    passes(lab, filled, when)?;
    let made = entries(router, &["-p", "udp", "--dport", filled.port])?;
    ensure!(made == 0, "{when}: {made} are tracked");
    Ok(())
}

/// Where it lasts by what the owner is told: done as it stands there, and as at two boots after that.
fn lasts(lab: &mut Lab, machine: &Machine, owner: &Owner, told: &Told<'_>) -> Result<()> {
    let (router, filled) = (&machine.router, &owner.filled);
    let report = ill(lab, machine, filled)?;
    let cure = advised(&report, filled)?;
    let lines = cure["lasts"].as_array().context("nothing lasts")?;
    let line = lines.iter().filter_map(Value::as_str).find(|line| line.contains(told.by));
    let line = line.with_context(|| format!("nothing of {} in {cure:#}", told.by))?;
    machine.types(owner.reload)?;
    let before = State::of(router)?;
    machine.all(&cure["now"])?;
    (told.does)(machine, line, cure)?;
    let mut kept = None;
    // What was typed in is gone with a boot; what is loaded then is there once, however often.
    let _ = machine.all(&cure["undo"]);
    for nth in 1..=3 {
        machine.types(told.boot)?;
        is_untracked(lab, router, filled, &format!("{nth}: {line}"))?;
        // Tables change their places.
        let rules = State::of(router)?.sorted();
        let kept = kept.get_or_insert_with(|| rules.clone());
        ensure!(*kept == rules, "not the same after load {nth}: {kept:#?} {rules:#?} {line}");
    }
    (told.undoes)(machine, line)?;
    let _ = machine.all(&cure["undo"]);
    machine.types(told.boot)?;
    before.is_again(router)
}

/// What an owner is told, by a line of the report.
struct Told<'a> {
    by: &'a str,
    does: fn(&Machine, &str, &Value) -> Result<()>,
    undoes: fn(&Machine, &str) -> Result<()>,
    /// As at the next boot.
    boot: &'a str,
}

/// As after a boot: no tool takes away a table of iptables that is empty.
const WITHOUT_RAW: &str = "nft delete table ip raw";

fn lab_with(init: Init) -> Result<(Lab, Machine)> {
    let mut lab = Lab::new(Plan::without_tracking())?;
    lab.set_buckets(4096)?;
    lab.keep_entries()?;
    let machine = Machine::boot(lab.router(), init)?;
    Ok((lab, machine))
}

const UFW: Owner = Owner {
    known: "ufw (chain ufw-",
    reload: "ufw reload",
    leaves_others: true,
    filled: SERVICE,
    but: None,
};

fn start_ufw(machine: &Machine) -> Result<()> {
    machine.types("ufw allow 9000/udp; ufw limit 22/tcp; ufw --force enable")?;
    // A script of SysV beside it has systemctl look for a tool of SysV's.
    machine.types("rm /etc/init.d/ufw; systemctl enable ufw 2>&1").map(|_| ())
}

fn ufw() -> Result<()> {
    let (mut lab, machine) = lab_with(Init::Plain)?;
    start_ufw(&machine)?;
    all_cures(&mut lab, &machine, &UFW)?;
    let original = "/usr/share/ufw/before.init";
    ensure!(machine.reads(original)? == machine.reads("/etc/ufw/before.init")?);
    lasts(
        &mut lab,
        &machine,
        &UFW,
        &Told {
            by: "before.init",
            does: |machine, line, _| {
                let (_, command) = line.split_once("was typed: ").context("no command")?;
                let (command, _) = command.rsplit_once(" (seen").context("no evidence")?;
                let script = machine.reads("/etc/ufw/before.init")?;
                let script = script.replacen("start)\n", &format!("start)\n{command}\n"), 1);
                machine.writes("/etc/ufw/before.init", &script)?;
                machine.types("chmod +x /etc/ufw/before.init").map(|_| ())
            },
            undoes: |machine, _| {
                machine.types("cp /usr/share/ufw/before.init /etc/ufw/before.init").map(|_| ())
            },
            boot: "/lib/ufw/ufw-init stop; /lib/ufw/ufw-init start",
        },
    )
}

/// As Docker 28 writes them, without its daemon; and as after its restart.
const DOCKER: &str = "
    t() { iptables \"$@\" 2> /dev/null || true; }
    t -D FORWARD -j DOCKER-USER
    t -D FORWARD -j DOCKER-FORWARD
    t -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    t -t nat -D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    t -t raw -D PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
    for table in filter nat; do for chain in DOCKER DOCKER-FORWARD DOCKER-CT; do
        t -t $table -F $chain
    done; done
    for table in filter nat; do for chain in DOCKER DOCKER-FORWARD DOCKER-CT; do
        t -t $table -X $chain
    done; done
    iptables -N DOCKER
    iptables -N DOCKER-FORWARD
    iptables -N DOCKER-CT
    # Its users' own, which it leaves alone.
    t -N DOCKER-USER
    iptables -I FORWARD -j DOCKER-FORWARD
    iptables -I FORWARD -j DOCKER-USER
    iptables -P FORWARD DROP
    iptables -A DOCKER-FORWARD -j DOCKER-CT
    iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT
    iptables -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
    iptables -t nat -N DOCKER
    iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
    iptables -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
";

fn docker() -> Result<()> {
    let (mut lab, machine) = lab_with(Init::Plain)?;
    machine.types(DOCKER)?;
    machine.types("iptables -A DOCKER-USER -p udp --dport 4789 -j ACCEPT")?;
    let known = "Docker (chain DOCKER";
    let owner = Owner { known, reload: DOCKER, leaves_others: true, filled: TUNNEL, but: None };
    all_cures(&mut lab, &machine, &owner)
}

fn ufw_and_docker() -> Result<()> {
    let (mut lab, machine) = lab_with(Init::Plain)?;
    start_ufw(&machine)?;
    machine.types(DOCKER)?;
    let but = Some("it may be translated, by table ip nat, chain POSTROUTING");
    let report = ill(&mut lab, &machine, &SERVICE)?;
    let managed = report["tracking"]["managed_by"].to_string();
    ensure!(managed.contains("Docker (chain DOCKER"), "{managed}");
    all_cures(&mut lab, &machine, &Owner { but, ..UFW })
}

const FIREWALLD: Owner = Owner {
    known: "firewalld (table inet firewalld)",
    reload: "firewall-cmd --reload",
    leaves_others: true,
    filled: TUNNEL,
    but: None,
};
const START_FIREWALLD: &str = "
    mkdir -p /run/dbus
    dbus-daemon --system --fork --nopidfile 2> /dev/null
    systemctl enable firewalld 2> /dev/null
    firewalld --nofork --nopid > /dev/null 2>&1 < /dev/null &
    for nth in $(seq 100); do firewall-cmd --state > /dev/null 2>&1 && exit 0; sleep 0.2; done
    exit 1
";

fn firewalld() -> Result<()> {
    let (mut lab, machine) = lab_with(Init::Plain)?;
    machine.types(START_FIREWALLD)?;
    // Both links are of one zone, in which it forwards.
    machine.types("firewall-cmd --set-default-zone=trusted")?;
    all_cures(&mut lab, &machine, &FIREWALLD)?;
    lasts(
        &mut lab,
        &machine,
        &FIREWALLD,
        &Told {
            by: "--permanent --direct",
            does: |machine, line, _| {
                let (_, commands) = line.split_once("there it is: ").context("no commands")?;
                let (commands, _) = commands.split_once(". No reload").context("no end")?;
                machine.types(commands).map(|_| ())
            },
            undoes: |machine, line| {
                let (_, commands) = line.split_once("take it back: ").context("no commands")?;
                let (commands, _) = commands.rsplit_once(" (seen").context("no evidence")?;
                machine.types(commands)?;
                machine.types(WITHOUT_RAW).map(|_| ())
            },
            boot: FIREWALLD.reload,
        },
    )
}

const NFTABLES: Owner = Owner {
    known: "nftables.service (nftables.service is started at boot)",
    reload: "systemctl reload nftables",
    leaves_others: false,
    filled: TUNNEL,
    but: None,
};

fn start_nftables(machine: &Machine) -> Result<()> {
    machine.types("systemctl enable nftables 2>&1")?;
    let text = machine.reads("/etc/nftables.conf")?;
    let tracks = "hook forward priority filter;\n\t\tct state established,related accept";
    let text = text.replacen("hook forward priority filter;", tracks, 1);
    machine.writes("/etc/nftables.conf", &text)?;
    machine.types("systemctl start nftables").map(|_| ())
}

fn nftables() -> Result<()> {
    let (mut lab, machine) = lab_with(Init::Systemd)?;
    start_nftables(&machine)?;
    all_cures(&mut lab, &machine, &NFTABLES)?;
    lasts(
        &mut lab,
        &machine,
        &NFTABLES,
        &Told {
            by: "has to be appended there",
            does: |machine, _, cure| {
                let now = cure["now"][0].as_str().context("no command")?;
                let (_, script) = now.split_once("<<'END'\n").context("no script")?;
                let (script, _) = script.split_once("END").context("no end")?;
                let text = machine.reads("/etc/nftables.conf")?;
                machine.writes("/etc/nftables.conf.before", &text)?;
                machine.writes("/etc/nftables.conf", &format!("{text}\n{script}"))
            },
            undoes: |machine, _| {
                machine.types("mv /etc/nftables.conf.before /etc/nftables.conf").map(|_| ())
            },
            boot: "systemctl restart nftables",
        },
    )
}

fn nftables_with_includes() -> Result<()> {
    let (mut lab, machine) = lab_with(Init::Systemd)?;
    start_nftables(&machine)?;
    let text = machine.reads("/etc/nftables.conf")?;
    let text = format!("{text}\ninclude \"/etc/nftables.d/*.nft\"\n");
    machine.writes("/etc/nftables.conf", &text)?;
    machine.types("mkdir /etc/nftables.d")?;
    machine.types(NFTABLES.reload)?;
    let report = ill(&mut lab, &machine, &TUNNEL)?;
    let cure = advised(&report, &TUNNEL)?;
    let file = "/etc/nftables.d/ctwatch-udp_4789.nft";
    ensure!(cure["files"][0]["path"] == file, "{cure:#}");
    all_cures(&mut lab, &machine, &NFTABLES)
}

/// By a timer of systemd.
fn unconfirmed() -> Result<()> {
    let (mut lab, machine) = lab_with(Init::Systemd)?;
    let router = lab.router().clone();
    start_nftables(&machine)?;
    let report = ill(&mut lab, &machine, &TUNNEL)?;
    let cure = advised(&report, &TUNNEL)?;
    let arm = cure["arm"][0].as_str().context("nothing is armed")?;
    ensure!(arm.starts_with("systemd-run ") && arm.contains("--on-active=120"), "{arm}");
    let before = State::of(&router)?;
    machine.all(&hasty(&cure["arm"], "sleep 2;"))?;
    machine.all(&cure["now"])?;
    ensure!(State::of(&router)? != before, "nothing is changed by {cure:#}");
    let until = Instant::now() + PATIENCE;
    while State::of(&router)? != before {
        ensure!(Instant::now() < until, "it is not undone: {cure:#}");
        thread::sleep(Duration::from_millis(200));
    }
    // Confirmed, it stays, and its own undo takes it back.
    machine.all(&hasty(&cure["arm"], "sleep 2;"))?;
    machine.all(&cure["now"])?;
    machine.all(&cure["disarm"])?;
    thread::sleep(Duration::from_secs(4));
    is_untracked(&lab, &router, &TUNNEL, "confirmed")?;
    machine.all(&cure["undo"])?;
    before.is_again(&router)?;
    // Undone by hand, nothing is left that would undo it once more.
    machine.all(&cure["arm"])?;
    machine.all(&cure["now"])?;
    machine.all(&cure["undo"])?;
    let timers = machine.types("systemctl list-timers --all 'ctwatch-*' --no-legend")?;
    ensure!(timers.is_empty(), "{timers}");
    before.is_again(&router)
}

const PERSISTENT: Owner = Owner {
    known: "netfilter-persistent or iptables.service (netfilter-persistent.service is started at boot)",
    reload: "netfilter-persistent reload",
    leaves_others: true,
    filled: TUNNEL,
    but: None,
};

fn persistent() -> Result<()> {
    let (mut lab, machine) = lab_with(Init::Plain)?;
    machine.types(
        "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A FORWARD -p udp -j ACCEPT
         ip6tables -A FORWARD -p udp -j ACCEPT
         netfilter-persistent save
         rm -f /etc/init.d/netfilter-persistent
         systemctl enable netfilter-persistent 2> /dev/null",
    )?;
    all_cures(&mut lab, &machine, &PERSISTENT)?;
    lasts(
        &mut lab,
        &machine,
        &PERSISTENT,
        &Told {
            by: "section *raw",
            does: |machine, line, _| {
                for file in ["/etc/iptables/rules.v4", "/etc/iptables/rules.v6"] {
                    let text = machine.reads(file)?;
                    machine.writes(&format!("{file}.before"), &text)?;
                    let Some((_, rules)) = line.split_once(&format!("{file} (")) else { continue };
                    let (rules, _) = rules.split_once(')').context("no end")?;
                    let rules = rules.replace("; ", "\n");
                    machine.writes(file, &format!("{text}*raw\n{rules}\nCOMMIT\n"))?;
                }
                Ok(())
            },
            undoes: |machine, _| {
                machine.types("cd /etc/iptables; for f in rules.v?; do mv $f.before $f; done")?;
                machine.types(WITHOUT_RAW).map(|_| ())
            },
            boot: PERSISTENT.reload,
        },
    )
}
