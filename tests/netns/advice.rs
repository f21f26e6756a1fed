//! What the doctor advises, applied as printed: what passed still passes, what it announces is there,
//! and its undo leaves everything as it was.

use std::{
    io::Read,
    net::{TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{Lab, Plan, judge, netns::Netns};
use serde_json::{Value, json};

use crate::{
    On, Test,
    doctor::{fix, found, report, type_in},
    test,
    watch::{PATIENCE, ctwatch, finished},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "advice_leaves_cluster_dns_alive_nft", cluster_dns_nft),
    test(On::Once, "advice_leaves_cluster_dns_alive_legacy", cluster_dns_legacy),
    test(On::Once, "advice_takes_a_tunnel_apart_from_services", tunnel),
    test(On::Once, "advice_where_there_is_no_nft", without_nft),
    test(On::Once, "advice_removes_no_rule_that_has_an_owner", owned),
    test(On::Once, "advice_that_is_not_confirmed_undoes_itself", unconfirmed),
    test(On::Once, "advice_removes_rules_and_brings_them_back", removal),
    test(On::Once, "advice_knows_where_a_limit_is_read_only", read_only),
    test(On::Once, "advice_enters_a_namespace_without_a_name", unnamed),
    test(On::Once, "advice_is_quiet_about_idle_namespaces", idle),
    test(On::Once, "advice_writes_no_file_for_openwrt", openwrt),
    test(On::Once, "advice_does_not_cut_off_what_a_policy_lets_in", policy),
];

/// All rules and settings of a namespace, without what only counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    nft: Vec<String>,
    iptables: Vec<String>,
    legacy: Vec<String>,
    sysctls: Vec<String>,
}

impl State {
    pub(crate) fn of(netns: &Netns) -> Result<Self> {
        let lines = |words: &[&str]| -> Result<Vec<String>> {
            let said = netns.run(words)?;
            let lines = said.lines().filter(|line| !line.starts_with('#')).map(uncounted);
            Ok(lines.filter(|line| !line.is_empty()).collect())
        };
        let both = |tool: &str| -> Result<Vec<String>> {
            let of = |family: &str| lines(&[&format!("{family}-{tool}")]);
            Ok([of("iptables")?, of("ip6tables")?].concat())
        };
        let sysctls = lines(&["sysctl", "-a", "--pattern", "^net.(netfilter.)?nf_conntrack"])?;
        Ok(Self {
            nft: lines(&["nft", "list", "ruleset"])?,
            iptables: both("nft-save")?,
            legacy: both("legacy-save")?,
            sysctls: sysctls.into_iter().filter(|line| !line.contains("_count")).collect(),
        })
    }

    /// In whatever order it is listed.
    pub(crate) fn sorted(mut self) -> Self {
        for lines in [&mut self.nft, &mut self.iptables, &mut self.legacy] {
            lines.sort();
        }
        self
    }

    pub(crate) fn is_again(&self, netns: &Netns) -> Result<()> {
        let now = Self::of(netns)?;
        ensure!(*self == now, "it is not as it was: {self:#?}\n{now:#?}");
        Ok(())
    }
}

/// `counter packets 5 bytes 300` and `[5:300]` without the numbers.
fn uncounted(line: &str) -> String {
    let line = line.split(" [").next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let counts = |at: usize| {
        at > 0 && matches!(words[at - 1], "packets" | "bytes") && words[at].parse::<u64>().is_ok()
    };
    let kept = (0..words.len()).filter(|at| !counts(*at)).map(|at| words[at]);
    kept.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

fn words(netns: &Netns, lines: &str) -> Result<()> {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        netns.run(&line.split(' ').collect::<Vec<_>>()).map(|_| ())?;
    }
    Ok(())
}

/// All cures of findings that speak of this namespace.
fn cures(report: &Value, of: &Netns) -> Result<Vec<Value>> {
    let all = report["findings"].as_array().context("no findings")?;
    let of_it = all.iter().filter(|finding| finding.to_string().contains(of.name()));
    Ok(of_it.filter_map(|finding| finding["fixes"].as_array()).flatten().cloned().collect())
}

/// As printed, but for what would be written to the machine's own files.
pub(crate) fn undo(fix: &Value) -> Result<()> {
    let commands = fix["undo"].as_array().context("no undo")?.iter();
    type_in(&Value::Array(commands.filter(|c| !c.to_string().contains("/etc/")).cloned().collect()))
}

/// The same commands, and the self-undo comes after two seconds where systemd has a timer for it;
/// elsewhere this is how it waits.
pub(crate) fn hasty(commands: &Value, waits: &str) -> Value {
    let hasten = |command: &Value| {
        let text = command.as_str().unwrap_or_default();
        Value::String(text.replace("sleep 120;", waits).replace(TIMER, "--on-active=2"))
    };
    json!(commands.as_array().into_iter().flatten().map(hasten).collect::<Vec<_>>())
}

const TIMER: &str = "--on-active=120";

/// A self-undo that comes when this is let go: where a machine is slow, two seconds are over before there
/// is something to undo.
struct Armed {
    held_back: tempfile::NamedTempFile,
    by_timer: bool,
}

impl Armed {
    fn by(commands: &Value) -> Result<Self> {
        let by_timer = commands.to_string().contains(TIMER);
        let armed = Self { held_back: tempfile::NamedTempFile::new()?, by_timer };
        type_in(&hasty(commands, &armed.waits()))?;
        ensure!(by_timer || is_run(&armed.waits())?, "nothing is armed by {commands:#}");
        Ok(armed)
    }

    fn waits(&self) -> String {
        format!("while test -e {}; do sleep 0.1; done;", self.held_back.path().display())
    }

    /// Returns when it waits no more.
    fn let_go(self) -> Result<()> {
        let waits = self.waits();
        if self.by_timer {
            thread::sleep(Duration::from_secs(4));
        }
        drop(self);
        let until = Instant::now() + PATIENCE;
        while is_run(&waits)? {
            ensure!(Instant::now() < until, "what was armed waits still");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Whether a process was started with this in its arguments.
fn is_run(words: &str) -> Result<bool> {
    for process in std::fs::read_dir("/proc")? {
        // One that ended meanwhile, or no process.
        let Ok(line) = std::fs::read(process?.path().join("cmdline")) else { continue };
        if String::from_utf8_lossy(&line).contains(words) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn check(fix: &Value) -> Result<String> {
    let command = fix["check"]["command"].as_str().context("no check")?;
    let output = Command::new("sh").args(["-ec", command]).output()?;
    ensure!(output.status.success(), "{command}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Packets from so many ports of the client, to this address.
pub(crate) fn datagrams(from: &Netns, ports: std::ops::Range<u16>, to: &str) -> Result<()> {
    from.within(|| -> Result<()> {
        for port in ports {
            let socket = UdpSocket::bind(("0.0.0.0", port))?;
            // What a full table refuses is told to local senders.
            let _ = socket.send_to(b"x", to);
        }
        Ok(())
    })?
}

/// Packets that came to the server.
fn arrived(lab: &Lab) -> Result<u64> {
    let said = lab.server().run(&["ip", "-s", "-j", "link", "show", "down0"])?;
    let links: Value = serde_json::from_str(&said)?;
    links[0]["stats64"]["rx"]["packets"].as_u64().context("no packets")
}

/// Sends, and waits until as many packets came to the server.
pub(crate) fn go_through(lab: &Lab, ports: std::ops::Range<u16>, to: &str) -> Result<()> {
    let (before, sent) = (arrived(lab)?, u64::from(ports.end - ports.start));
    datagrams(lab.client(), ports, to)?;
    let until = Instant::now() + PATIENCE;
    while arrived(lab)? < before + sent {
        ensure!(Instant::now() < until, "{} of {sent} arrive", arrived(lab)? - before);
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

pub(crate) fn entries(netns: &Netns, words: &[&str]) -> Result<usize> {
    let listed = netns.run(&[&["conntrack", "-L"], words].concat())?;
    Ok(listed.lines().count())
}

/// Answers what it is asked until it is dropped.
struct Answers<'a> {
    stop: &'a AtomicBool,
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn while_dns_answers(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stop = AtomicBool::new(false);
    let serve = || -> Result<()> {
        lab.server().within(|| -> Result<()> {
            let socket = UdpSocket::bind("10.99.2.2:53")?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            let mut question = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut question) {
                    let _ = socket.send_to(&question[..len], from);
                }
            }
            Ok(())
        })?
    };
    thread::scope(|scope| {
        let server = scope.spawn(serve);
        let outcome = {
            let _answers = Answers { stop: &stop };
            work()
        };
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
        outcome
    })
}

/// Whether one of some questions is answered: a full table may refuse the others.
fn resolves(client: &Netns, service: &str) -> Result<bool> {
    client.within(|| -> Result<bool> {
        for _ in 0..20 {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            let _ = socket.send_to(b"?", service);
            let mut answer = [0; 16];
            if let Ok((1, from)) = socket.recv_from(&mut answer) {
                ensure!(from.to_string() == service, "{from} answers for {service}");
                return Ok(true);
            }
        }
        Ok(false)
    })?
}

/// kube-proxy's rules for one service, as iptables-save shows them on a node.
pub(crate) fn kube_proxy(netns: &Netns, iptables: &str) -> Result<()> {
    let rules = "
        -t nat -N KUBE-SERVICES
        -t nat -N KUBE-SVC-TCOU7JCQXEZGVUNU
        -t nat -N KUBE-SEP-YIL6JZP7A3QYXJU2
        -t nat -N KUBE-MARK-MASQ
        -t nat -N KUBE-POSTROUTING
        -t nat -A PREROUTING -m comment --comment kubernetes-service-portals -j KUBE-SERVICES
        -t nat -A OUTPUT -m comment --comment kubernetes-service-portals -j KUBE-SERVICES
        -t nat -A POSTROUTING -m comment --comment kubernetes-postrouting-rules -j KUBE-POSTROUTING
        -t nat -A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU
        -t nat -A KUBE-SVC-TCOU7JCQXEZGVUNU -j KUBE-SEP-YIL6JZP7A3QYXJU2
        -t nat -A KUBE-SEP-YIL6JZP7A3QYXJU2 -s 10.99.2.2/32 -j KUBE-MARK-MASQ
        -t nat -A KUBE-SEP-YIL6JZP7A3QYXJU2 -p udp -m udp -j DNAT --to-destination 10.99.2.2:53
        -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
        -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
        -t nat -A KUBE-POSTROUTING -j MASQUERADE
        -P FORWARD DROP
        -N KUBE-FORWARD
        -A FORWARD -m comment --comment kubernetes-forwarding-rules -j KUBE-FORWARD
        -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
        -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A FORWARD -d 10.99.2.2/32 -j ACCEPT
    ";
    for rule in rules.lines().map(str::trim).filter(|rule| !rule.is_empty()) {
        words(netns, &format!("{iptables} {rule}"))?;
    }
    Ok(())
}

fn cluster_dns_nft() -> Result<()> {
    cluster_dns("iptables-nft")
}

fn cluster_dns_legacy() -> Result<()> {
    cluster_dns("iptables-legacy")
}

/// kubernetes#18604, #71261: DNS to a service fills the table.
fn cluster_dns(iptables: &str) -> Result<()> {
    const SERVICE: &str = "10.96.0.10:53";
    let mut lab = Lab::new(Plan::without_tracking())?;
    let (client, router) = (lab.client().clone(), lab.router().clone());
    kube_proxy(&router, iptables)?;
    words(lab.server(), "ip route add default via 10.99.2.1")?;
    lab.set_buckets(4096)?;
    lab.set_limit(400)?;
    lab.keep_entries()?;
    while_dns_answers(&lab, || {
        ensure!(resolves(&client, SERVICE)?, "DNS is dead before anything was advised");
        datagrams(&client, 20_000..20_600, SERVICE)?;
        let said = report(&[])?;
        let before = State::of(&router)?;
        let talkers = found(&said, "top_talkers", router.name())?;
        let why = "to leave udp/53 of 10.96.0.10 untracked is not proposed: some of its entries are \
                   translated";
        ensure!(talkers["evidence"].to_string().contains(why), "{talkers:#}");
        ensure!(!said["findings"].to_string().contains("notrack"), "{:#}", said["findings"]);
        let managed = said["tracking"]["managed_by"].to_string();
        ensure!(managed.contains("kube-proxy (chain KUBE-"), "{managed}");
        let needed = found(&said, "needed_by", router.name())?;
        ensure!(needed["fixes"].as_array().is_some_and(Vec::is_empty), "{needed:#}");
        let full = found(&said, "table_full", router.name())?;
        let raise = fix(full, "raise the limit")?;
        ensure!(raise["lasts"].to_string().contains("conntrack.maxPerCore"), "{raise:#}");
        ensure!(raise["files"].as_array().is_some_and(Vec::is_empty), "{raise:#}");
        let cures = cures(&said, &router)?;
        for cure in &cures {
            type_in(&cure["now"])?;
            ensure!(resolves(&client, SERVICE)?, "DNS is dead by {cure:#}");
            let prints = cure["check"]["prints"].as_str().context("no check")?;
            ensure!(check(cure)? == prints, "{cure:#}");
        }
        for cure in cures.iter().rev() {
            undo(cure)?;
        }
        before.is_again(&router)
    })
}

/// calico#8934: one tunnel is spread over all of its source ports.
fn tunnel() -> Result<()> {
    const VXLAN: &str = "10.100.0.2:4789";
    let mut lab = Lab::new(Plan::default())?;
    let (client, router) = (lab.client().clone(), lab.router().clone());
    lab.set_limit(1000)?;
    lab.keep_entries()?;
    datagrams(&client, 20_000..20_600, VXLAN)?;
    client.within(|| {
        for _ in 0..240 {
            let to = std::net::SocketAddr::from(([10, 100, 0, 2], 8443));
            // Nobody answers; what counts is that it was asked.
            let _ = TcpStream::connect_timeout(&to, Duration::from_millis(1));
        }
    })?;
    let before = State::of(&router)?;
    let said = report(&[])?;
    let talkers = found(&said, "top_talkers", router.name())?;
    let all = talkers["fixes"].as_array().context("no fixes")?;
    ensure!(all.len() == 2, "{talkers:#}");
    let cure = fix(talkers, "do not track the tunnels of VXLAN (udp/4789)")?;
    ensure!(!cure["now"].to_string().contains("8443"), "{cure:#}");
    ensure!(cure["expect"].to_string().contains("its 600 entries"), "{cure:#}");
    let of_tunnel = || entries(&router, &["-p", "udp", "--dport", "4789"]);
    let of_service = entries(&router, &["-p", "tcp", "--dport", "8443"])?;
    ensure!(of_tunnel()? == 600 && of_service == 240, "{} {of_service}", of_tunnel()?);
    type_in(&cure["arm"])?;
    type_in(&cure["now"])?;
    go_through(&lab, 30_000..30_100, VXLAN).context("packets of the tunnel are lost")?;
    ensure!(of_tunnel()? == 600, "it is tracked still: {}", of_tunnel()?);
    ensure!(entries(&router, &["-p", "tcp"])? == 240, "the service is tracked as before");
    ensure!(check(cure)?.contains("counter packets 100 "), "{}", check(cure)?);
    type_in(&cure["disarm"])?;
    undo(cure)?;
    before.is_again(&router)?;
    datagrams(&client, 40_000..40_100, VXLAN)?;
    ensure!(of_tunnel()? == 700, "not undone: {}", of_tunnel()?);
    // Each can be taken by itself.
    let service = fix(talkers, "do not track tcp/8443 of 10.100.0.2")?;
    type_in(&service["now"])?;
    undo(service)?;
    before.is_again(&router)
}

/// What the doctor says on a machine that lacks this program: in a view of its own of the files.
fn report_without(tool: &str) -> Result<Value> {
    use rustix::{
        mount::{MountPropagationFlags, mount_bind, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };
    const ALWAYS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let looked_for = || -> Result<Value> {
        // SAFETY: of this thread alone, which shares no open file that it closes.
        unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS)? };
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        for folder in std::env::split_paths(&path).chain(ALWAYS.map(Into::into)) {
            let file = folder.join(tool);
            if file.is_file() {
                mount_bind("/dev/null", file)?;
            }
        }
        report(&[])
    };
    thread::scope(|scope| {
        scope.spawn(looked_for).join().map_err(|_| anyhow::anyhow!("the thread panicked"))
    })?
}

/// By iptables: whole for each family, and its effect is the one announced.
fn without_nft() -> Result<()> {
    const VXLAN: &str = "10.100.0.2:4789";
    let mut lab = Lab::new(Plan::default())?;
    let (client, router) = (lab.client().clone(), lab.router().clone());
    // Else the undo leaves a table behind that was not there before, as it says.
    words(
        &router,
        "iptables -t raw -A PREROUTING -p icmp
         iptables -t raw -A OUTPUT -p icmp",
    )?;
    lab.set_limit(1000)?;
    lab.keep_entries()?;
    let before = State::of(&router)?;
    datagrams(&client, 20_000..20_800, VXLAN)?;
    let of_tunnel = || entries(&router, &["-p", "udp", "--dport", "4789"]);
    let said = report_without("nft")?;
    let announced = of_tunnel()?;
    ensure!(announced == 800, "{announced}");
    let talkers = found(&said, "top_talkers", router.name())?;
    let cure = fix(talkers, "do not track the tunnels of VXLAN (udp/4789)")?;
    ensure!(cure["expect"].to_string().contains("its 800 entries"), "{cure:#}");
    ensure!(!cure.to_string().contains("nft "), "{cure:#}");
    let leaves = cure["lasts"].to_string();
    ensure!(!leaves.contains("the table raw of iptables is made for it"), "{leaves}");
    for commands in ["save", "arm", "now", "disarm"] {
        type_in(&cure[commands])?;
    }
    datagrams(&client, 30_000..30_100, VXLAN)?;
    ensure!(of_tunnel()? == announced, "{} of {announced}", of_tunnel()?);
    // As if their time were over: none comes after them.
    router.run(&["conntrack", "-D", "-p", "udp", "--dport", "4789"])?;
    datagrams(&client, 31_000..31_100, VXLAN)?;
    ensure!(of_tunnel()? == 0, "{}", of_tunnel()?);
    ensure!(check(cure)?.contains("CT"), "{}", check(cure)?);
    undo(cure)?;
    before.is_again(&router)?;
    datagrams(&client, 40_000..40_100, VXLAN)?;
    ensure!(of_tunnel()? == 100, "not undone: {}", of_tunnel()?);
    Ok(())
}

/// Docker and ufw on one server; rules as `ufw limit`, ipset and a bridge write them.
pub(crate) fn ufw_and_docker(router: &Netns) -> Result<()> {
    for rule in "
        -N ufw-before-input
        -N ufw-user-input
        -N ufw-user-limit
        -A INPUT -j ufw-before-input
        -A INPUT -j ufw-user-input
        -A ufw-before-input -i lo -j ACCEPT
        -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A ufw-before-input -m conntrack --ctstate INVALID -j DROP
        -A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource
        -A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --mask 255.255.255.255 --rsource -j ufw-user-limit
        -A ufw-user-limit -j REJECT --reject-with icmp-port-unreachable
        -P INPUT DROP
        -N DOCKER
        -N DOCKER-USER
        -A FORWARD -j DOCKER-USER
        -A FORWARD -m physdev --physdev-is-bridged -j ACCEPT
        -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A FORWARD -j ACCEPT
        -t nat -N DOCKER
        -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
        -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
        -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
    "
    .lines()
    .map(str::trim)
    .filter(|rule| !rule.is_empty())
    {
        words(router, &format!("iptables-nft {rule}"))?;
    }
    Ok(())
}

fn owned() -> Result<()> {
    let mut lab = Lab::new(Plan::without_tracking())?;
    let (client, router) = (lab.client().clone(), lab.router().clone());
    ufw_and_docker(&router)?;
    lab.set_limit(300)?;
    lab.keep_entries()?;
    datagrams(&client, 20_000..20_600, "10.100.0.2:9000")?;
    let before = State::of(&router)?;
    let said = report(&[])?;
    let text = said.to_string();
    ensure!(!text.contains("flush"), "{said:#}");
    let needed = found(&said, "needed_by", router.name())?;
    ensure!(needed["fixes"].as_array().is_some_and(Vec::is_empty), "{needed:#}");
    let evidence = needed["evidence"].to_string();
    ensure!(
        evidence.contains("those of ufw (") || evidence.contains("those of Docker ("),
        "{evidence}"
    );
    let managed = said["tracking"]["managed_by"].to_string();
    ensure!(managed.contains("ufw (chain ufw-") && managed.contains("Docker (chain"), "{managed}");
    let talkers = found(&said, "top_talkers", router.name())?;
    ensure!(talkers["fixes"].as_array().is_some_and(Vec::is_empty), "{talkers:#}");
    let translated = "it may be translated, by table ip nat, chain POSTROUTING";
    ensure!(talkers["evidence"].to_string().contains(translated), "{talkers:#}");
    for cure in cures(&said, &router)? {
        type_in(&cure["now"])?;
        undo(&cure)?;
    }
    before.is_again(&router)
}

/// Rules of all kinds, and none has an owner.
fn unowned(lab: &mut Lab) -> Result<State> {
    let router = lab.router().clone();
    router.nft(
        "table inet mine {
           set ports { type inet_service; elements = { 22, 80 }; }
           chain f {
             type filter hook forward priority 5; policy accept;
             ct state established,related counter accept comment \"first; of all\"
             tcp dport @ports counter
             ip saddr { 10.1.1.1, 10.1.1.2 } counter
             ct state invalid counter drop
             ct mark 7 counter accept
             udp dport 9 counter
           }
         }",
    )?;
    for rule in "
        -N OWN
        -A OWN -p tcp -m tcp --dport 80 -j ACCEPT
        -A OWN -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment of-mine -j ACCEPT
        -A OWN -p udp -j RETURN
        -A FORWARD -j OWN
        -A FORWARD -m state --state INVALID -j DROP
    "
    .lines()
    .map(str::trim)
    .filter(|rule| !rule.is_empty())
    {
        for tool in ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"] {
            words(&router, &format!("{tool} {rule}"))?;
        }
    }
    lab.set_limit(300)?;
    lab.keep_entries()?;
    datagrams(&lab.client().clone(), 20_000..20_600, "10.100.0.2:9000")?;
    State::of(&router)
}

/// With its own file names in each report.
fn removal_cure(router: &Netns) -> Result<Value> {
    // The stamp in the names has seconds.
    thread::sleep(Duration::from_millis(1100));
    let said = report(&[])?;
    ensure!(!said.to_string().contains("flush"), "{said:#}");
    Ok(fix(found(&said, "needed_by", router.name())?, "if nobody needs them")?.clone())
}

/// Commit confirmed: whoever is locked out waits.
fn unconfirmed() -> Result<()> {
    let mut lab = Lab::new(Plan::without_tracking())?;
    let before = unowned(&mut lab)?;
    let router = lab.router().clone();
    let cure = removal_cure(&router)?;
    let files = Files::of(&cure);
    type_in(&cure["save"])?;
    let armed = Armed::by(&cure["arm"])?;
    type_in(&cure["now"])?;
    let changed = State::of(&router)?;
    ensure!(changed != before, "nothing was removed by {cure:#}");
    armed.let_go()?;
    let until = Instant::now() + PATIENCE;
    while State::of(&router)? != before {
        ensure!(Instant::now() < until, "{:#?}\n{before:#?}\n{cure:#}", State::of(&router)?);
        thread::sleep(Duration::from_millis(200));
    }
    drop(files);
    Ok(())
}

/// What a cure saves, taken away at the end.
pub(crate) struct Files(Vec<String>);

impl Files {
    pub(crate) fn of(cure: &Value) -> Self {
        let text = cure["save"].to_string() + &cure["now"].to_string();
        let parts =
            text.split([' ', ';', ')', '"', '\\']).filter(|w| w.starts_with("/root/ctwatch-"));
        Self(parts.map(str::to_owned).collect())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in &self.0 {
            let _ = std::fs::remove_file(file);
        }
    }
}

fn removal() -> Result<()> {
    let mut lab = Lab::new(Plan::without_tracking())?;
    let before = unowned(&mut lab)?;
    let router = lab.router().clone();
    let cure = removal_cure(&router)?;
    let _files = Files::of(&cure);
    type_in(&cure["save"])?;
    let armed = Armed::by(&cure["arm"])?;
    type_in(&cure["now"])?;
    ensure!(check(&cure)? == cure["check"]["prints"].as_str().unwrap_or_default(), "{cure:#}");
    type_in(&cure["disarm"])?;
    armed.let_go()?;
    let without = State::of(&router)?;
    let all = format!("{without:?}");
    ensure!(!all.contains("ct state") && !all.contains("conntrack --ctstate"), "{without:#?}");
    ensure!(
        all.contains("dport @ports") && all.contains("-A OWN -p udp -j RETURN"),
        "{without:#?}"
    );
    let tracked = judge::ask(&router)?.entries;
    datagrams(&lab.client().clone(), 30_000..30_200, "10.100.0.2:9000")?;
    ensure!(judge::ask(&router)?.entries <= tracked, "it is tracked still");
    // A second save does not overwrite the first.
    ensure!(type_in(&cure["save"]).is_err(), "what was saved is overwritten");
    undo(&cure)?;
    before.is_again(&router)?;
    Ok(())
}

/// kind#2240: in a container.
fn read_only() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let router = lab.router().clone();
    lab.set_limit(300)?;
    datagrams(&lab.client().clone(), 20_000..20_600, "10.100.0.2:9000")?;
    let program = ctwatch()?;
    let mut inside = router.command(program.get_program())?;
    inside.args(["doctor", "--output", "json", "--netns", router.name()]);
    let (said, errors, code) = finished(&mut inside)?;
    ensure!(code == Some(0), "{errors}");
    let said: Value = serde_json::from_str(&said)?;
    let names = said["tracking"]["namespaces"].as_array().context("no namespaces")?;
    ensure!(names.len() == 1, "{names:?}");
    let raise = fix(found(&said, "table_full", router.name())?, "raise the limit")?;
    ensure!(raise["now"].as_array().is_some_and(Vec::is_empty), "{raise:#}");
    ensure!(
        raise["elsewhere"].to_string().contains("only the first network namespace"),
        "{raise:#}"
    );
    let limit = || -> Result<String> {
        Ok(std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")?.trim().to_owned())
    };
    let commands = raise["elsewhere"]["commands"].as_array().context("no commands")?;
    for command in commands.iter().filter_map(Value::as_str) {
        // It is refused; not every sysctl says so by its exit code.
        let _ = router.run(&command.split(' ').collect::<Vec<_>>());
    }
    ensure!(limit()? == "300", "it can be set here: {raise:#}");
    type_in(&raise["elsewhere"]["commands"])?;
    ensure!(limit()? == "1024", "{} after {raise:#}", limit()?);
    Ok(())
}

/// As of a container whose runtime mounts nothing.
struct Lives(Child);

impl Drop for Lives {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn unnamed() -> Result<()> {
    let mut lab = Lab::new(Plan::without_tracking())?;
    lab.set_limit(300)?;
    let netns = lab.add_netns("nameless")?;
    netns.nft(ctwatch_lab::topology::TRACKING)?;
    words(&netns, "ip link set lo up")?;
    let timeout = "net/netfilter/nf_conntrack_udp_timeout";
    netns.sysctl(timeout, "300")?;
    datagrams(&netns, 20_000..20_300, "127.0.0.1:9000")?;
    let mut command = netns.command("sh")?;
    // Says so once it is in there.
    command.args(["-c", "echo in; exec sleep 600"]).stdout(Stdio::piped());
    let mut lives = Lives(command.spawn()?);
    lives.0.stdout.as_mut().context("no output")?.read_exact(&mut [0; 3])?;
    let pid = lives.0.id();
    lab.remove_netns(&netns)?;
    let said = report(&[])?;
    let timeouts = found(&said, "timeouts", &format!("[{pid}]"))?;
    let cure = fix(timeouts, "udp_timeout 300 -> 10")?;
    let enters = format!("nsenter -t {pid} -n sysctl -w");
    ensure!(cure["now"][0].as_str().is_some_and(|now| now.starts_with(&enters)), "{cure:#}");
    type_in(&cure["now"])?;
    ensure!(check(cure)? == "10", "{}", check(cure)?);
    undo(cure)?;
    ensure!(check(cure)? == "300", "{}", check(cure)?);
    Ok(())
}

fn idle() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let names: Vec<String> = (0..40).map(|nth| format!("idle{nth}")).collect();
    let made = lab.add_many(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    for netns in &made {
        netns.nft(ctwatch_lab::topology::TRACKING)?;
    }
    let (text, errors, code) = finished(ctwatch()?.arg("doctor"))?;
    ensure!(code == Some(0), "{errors}");
    let spoken: Vec<&str> = text.lines().filter(|line| line.contains("-idle")).collect();
    // Where the machine is too slow for all of them, one line more says which they are.
    let late = text.lines().find_map(|line| line.trim().split_once(" namespaces were not looked"));
    let late = late.and_then(|(count, _)| count.parse::<u32>().ok()).unwrap_or(0);
    ensure!(spoken.len() <= 3 + usize::from(late > 0), "{}", spoken.join("\n"));
    let one: Vec<&str> = text.lines().filter(|line| line.contains("hold no entries")).collect();
    let [one] = one.as_slice() else { anyhow::bail!("{text}") };
    let count = one.trim().split(' ').next().and_then(|count| count.parse::<u32>().ok());
    ensure!(count.is_some_and(|count| count + late >= 40), "{one}");
    Ok(())
}

/// As OpenWrt's `fw4 print` shows it, in short.
pub(crate) const FW4: &str = "
        table inet fw4 {
           chain forward { type filter hook forward priority filter; policy accept;
             ct state vmap { established : accept, related : accept } comment \"!fw4: Handle forwarded flows\"
           }
           chain srcnat { type nat hook postrouting priority srcnat; policy accept;
             oifname \"wan\" jump srcnat_wan comment \"!fw4: Handle wan IPv4/IPv6 srcnat traffic\"
           }
           chain srcnat_wan { meta nfproto ipv4 masquerade comment \"!fw4: Masquerade IPv4 wan traffic\"; }
         }";

fn openwrt() -> Result<()> {
    let mut lab = Lab::new(Plan::without_tracking())?;
    let (client, router) = (lab.client().clone(), lab.router().clone());
    router.nft(FW4)?;
    lab.set_limit(300)?;
    lab.keep_entries()?;
    datagrams(&client, 20_000..20_600, "10.100.0.2:4789")?;
    let before = State::of(&router)?;
    let said = report(&[])?;
    let managed = said["tracking"]["managed_by"].to_string();
    ensure!(managed.contains("OpenWrt's firewall (table inet fw4)"), "{managed}");
    for cure in cures(&said, &router)? {
        ensure!(!cure["files"].to_string().contains("/etc/nftables"), "{cure:#}");
        type_in(&cure["now"])?;
        undo(&cure)?;
    }
    // The map lets in what is established, and nobody is asked after that.
    let talkers = found(&said, "top_talkers", router.name())?;
    fix(talkers, "do not track the tunnels of VXLAN (udp/4789)")?;
    before.is_again(&router)?;
    // As it is on a router: what no zone lets in is dropped at the end.
    router.nft(
        "add rule inet fw4 forward iifname \"br-lan\" accept
         add rule inet fw4 forward counter drop",
    )?;
    let said = report(&[])?;
    let talkers = found(&said, "top_talkers", router.name())?;
    let why = "it would be cut off, by table inet fw4, chain forward";
    ensure!(talkers["evidence"].to_string().contains(why), "{talkers:#}");
    ensure!(talkers["fixes"].as_array().is_some_and(Vec::is_empty), "{talkers:#}");
    Ok(())
}

/// A router lets in answers as established; what is not tracked has no answers.
fn policy() -> Result<()> {
    let mut lab = Lab::new(Plan::without_tracking())?;
    let (client, router) = (lab.client().clone(), lab.router().clone());
    let chain = |rules: &str| {
        format!(
            "table inet mine {{ chain f {{ type filter hook forward priority 0; policy drop;
             ct state established,related accept; {rules}; }}\n }}"
        )
    };
    lab.set_limit(300)?;
    lab.keep_entries()?;
    router.nft(&chain("iifname \"down0\" accept"))?;
    datagrams(&client, 20_000..20_600, "10.100.0.2:9000")?;
    let said = report(&[])?;
    let talkers = found(&said, "top_talkers", router.name())?;
    ensure!(talkers["fixes"].as_array().is_some_and(Vec::is_empty), "{talkers:#}");
    let why = "it would be cut off, by table inet mine, chain f: its policy is to drop";
    ensure!(talkers["evidence"].to_string().contains(why), "{talkers:#}");
    // Where both directions are let in by themselves it can be done.
    router.nft("delete table inet mine")?;
    router.nft(&chain("udp dport 9000 accept; udp sport 9000 accept"))?;
    let said = report(&[])?;
    let talkers = found(&said, "top_talkers", router.name())?;
    let cure = fix(talkers, "do not track udp/9000 of 10.100.0.2")?;
    type_in(&cure["now"])?;
    go_through(&lab, 30_000..30_100, "10.100.0.2:9000").context("it is cut off")?;
    undo(cure)?;
    // A map of states says what it does with packets that are not tracked, or that they go on.
    router.nft("delete table inet mine")?;
    let by_state = |more: &str| {
        format!(
            "table inet mine {{ chain f {{ type filter hook forward priority 0; policy accept;
             ct state vmap {{ established : accept, related : accept, invalid : drop{more} }}
             }}\n }}"
        )
    };
    router.nft(&by_state(", untracked : drop"))?;
    let said = report(&[])?;
    let talkers = found(&said, "top_talkers", router.name())?;
    ensure!(talkers["fixes"].as_array().is_some_and(Vec::is_empty), "{talkers:#}");
    let why = "it drops what is not tracked";
    ensure!(talkers["evidence"].to_string().contains(why), "{talkers:#}");
    router.nft("delete table inet mine")?;
    router.nft(&by_state(""))?;
    let said = report(&[])?;
    let cure = fix(found(&said, "top_talkers", router.name())?, "do not track udp/9000")?.clone();
    type_in(&cure["now"])?;
    go_through(&lab, 40_000..40_100, "10.100.0.2:9000").context("it is cut off")?;
    undo(&cure)?;
    // Where there are several ways out, the mark of a connection may say which.
    let marks = ["nft", "iptables-nft", "iptables-legacy"];
    for tool in marks {
        match tool {
            "nft" => router.nft(
                "table inet ways { chain p { type filter hook prerouting priority mangle;
                 ct mark != 0 meta mark set ct mark & 0xff; }\n }",
            )?,
            tool => words(
                &router,
                &format!("{tool} -t mangle -A PREROUTING -j CONNMARK --restore-mark"),
            )?,
        }
        let said = report(&[])?;
        let talkers = found(&said, "top_talkers", router.name())?;
        ensure!(talkers["fixes"].as_array().is_some_and(Vec::is_empty), "{tool}: {talkers:#}");
        let why = "it gives packets the mark of their connection";
        ensure!(talkers["evidence"].to_string().contains(why), "{tool}: {talkers:#}");
        match tool {
            "nft" => router.nft("delete table inet ways")?,
            tool => words(&router, &format!("{tool} -t mangle -F PREROUTING"))?,
        }
    }
    Ok(())
}
