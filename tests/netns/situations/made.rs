//! How each situation is made.

use std::{process::Command, thread, time::Instant};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    netns::Netns,
    topology::TRACKING,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    advice::{self, datagrams},
    claims, watch,
};

/// Whether iptables sees packets that only cross a bridge.
pub(super) const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

/// A lab in a situation.
pub(super) struct Made {
    pub(super) lab: Lab,
    /// Namespaces that are looked at instead of the router.
    others: Vec<Netns>,
    /// What is found live, at least.
    pub(super) expected: &'static [&'static str],
    /// Findings of it that are about the whole machine.
    pub(super) about: &'static [&'static str],
    /// The census of it is compared, too.
    pub(super) by_columns: bool,
    /// New flows go on coming in while it is looked at.
    goes_on: bool,
    /// It is looked at from inside, as in a container.
    is_inside: bool,
    /// Shown as /etc/sysctl.d.
    settings: Option<tempfile::TempDir>,
}

impl Made {
    fn of(lab: Lab, expected: &'static [&'static str]) -> Self {
        let (others, about) = (Vec::new(), &[]);
        let (by_columns, goes_on, is_inside, settings) = (false, false, false, None);
        Self { lab, others, expected, about, by_columns, goes_on, is_inside, settings }
    }

    /// Does it while the situation lasts.
    pub(super) fn while_it_lasts<T>(&self, what: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.goes_on {
            true => watch::while_more_come(&self.lab, UDP, 1 << 32, 100, what),
            false => what(),
        }
    }

    /// The same program, run where the situation is.
    pub(super) fn command(&self, program: &Command) -> Result<Command> {
        let program = program.get_program();
        let Some(settings) = &self.settings else {
            return match self.is_inside {
                true => self.lab.router().command(program),
                false => Ok(Command::new(program)),
            };
        };
        const VIEW: &str = "mount --make-rprivate /; mkdir -p /etc/sysctl.d
            mount --bind \"$1\" /etc/sysctl.d; shift; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", VIEW, "view"]).arg(settings.path()).arg(program);
        Ok(command)
    }

    /// What `--netns` takes for it.
    pub(super) fn place(&self) -> String {
        match self.others.first() {
            Some(first) => first.name().trim_end_matches('0').to_owned() + "*",
            None => self.lab.router().name().to_owned(),
        }
    }

    /// What plain commands print in the router, as if it were a machine of its own, each behind a prompt.
    pub(super) fn pasted(&self) -> Result<String> {
        let router = self.lab.router();
        let mut text = String::new();
        for netns in &self.others {
            for command in ["conntrack -L", "conntrack -S", "sysctl -a", "nft -a list ruleset"] {
                let said = netns.run(&command.split(' ').collect::<Vec<_>>())?;
                let typed = format!("ip netns exec {} {command}", netns.name());
                text += &format!("root@box:~# {typed}\n{said}");
            }
        }
        if !self.others.is_empty() {
            return Ok(text);
        }
        for command in [
            "date",
            "uname -a",
            "conntrack -L -o extended",
            "conntrack -S",
            "conntrack -L expect",
            "sysctl -a",
            "nft -a list ruleset",
            "iptables-legacy-save",
            "ip6tables-legacy-save",
            "ip -d link",
            "dmesg",
            "ps -e",
            "lsmod",
            "cat /proc/slabinfo",
            "cat /proc/meminfo",
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            // Not every machine of ours has each of them.
            let Ok(said) = router.run(&words) else { continue };
            text += &format!("root@box:~# {command}\n{said}");
        }
        for file in self.settings.iter().flat_map(|folder| folder.path().read_dir()) {
            for file in file {
                let path = file?.path();
                let name = path.file_name().and_then(|name| name.to_str()).context("no name")?;
                text += &format!("root@box:~# cat /etc/sysctl.d/{name}\n");
                text += &std::fs::read_to_string(&path)?;
            }
        }
        Ok(text + "root@box:~# \n")
    }
}

fn full(rules: impl FnOnce(&Netns) -> Result<()>, to: &str) -> Result<Lab> {
    let mut lab = Lab::new(Plan::without_tracking())?;
    rules(lab.router())?;
    lab.set_limit(300)?;
    lab.keep_entries()?;
    datagrams(&lab.client().clone(), 20_000..20_600, to)?;
    Ok(lab)
}

/// kubernetes#18604, #71261
pub(super) fn dns() -> Result<Made> {
    let lab = full(|router| advice::kube_proxy(router, "iptables-nft"), "10.96.0.10:53")?;
    Ok(Made::of(lab, &["table_full", "top_talkers", "needed_by"]))
}

/// calico#8934
pub(super) fn tunnel() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(1000)?;
    lab.keep_entries()?;
    let client = lab.client().clone();
    datagrams(&client, 20_000..20_600, "10.100.0.2:4789")?;
    client.within(|| {
        for _ in 0..240 {
            let to = std::net::SocketAddr::from(([10, 100, 0, 2], 8443));
            // Nobody answers; what counts is that it was asked.
            let _ = std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(1));
        }
    })?;
    Ok(Made::of(lab, &["table_filling", "top_talkers"]))
}

/// So many entries that were never sent, as `conntrack -I` makes them.
fn inserted(netns: &Netns, entries: u32, of: impl Fn(u32) -> String) -> Result<()> {
    let script: String = (0..entries)
        .map(|nth| {
            format!(
                "conntrack -I -s 192.0.2.1 -d 192.0.2.2 -p tcp --sport {} {}\n",
                1000 + nth,
                of(nth)
            )
        })
        .collect();
    netns.run(&["sh", "-ec", &script]).map(|_| ())
}

/// kubernetes#97377
pub(super) fn close_wait() -> Result<Made> {
    const ENTRIES: u32 = 120;
    let mut lab = Lab::new(Plan::fresh())?;
    let router = lab.router().clone();
    lab.set_limit(ENTRIES + 15)?;
    router.sysctl("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600")?;
    for rule in ["-N KUBE-SERVICES", "-A FORWARD -j KUBE-SERVICES"] {
        router.run(&format!("iptables-nft {rule}").split(' ').collect::<Vec<_>>())?;
    }
    inserted(&router, ENTRIES, |nth| {
        let left = 3600 - nth * 3600 / ENTRIES;
        format!("--dport 80 --state CLOSE_WAIT -u SEEN_REPLY,ASSURED -t {left}")
    })?;
    Ok(Made::of(lab, &["timeouts"]))
}

/// kind#2240
pub(super) fn container() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(300)?;
    lab.keep_entries()?;
    datagrams(&lab.client().clone(), 20_000..20_600, "10.100.0.2:9000")?;
    Ok(Made { is_inside: true, ..Made::of(lab, &["table_full"]) })
}

pub(super) fn ports() -> Result<Made> {
    let lab = Lab::new(Plan::fresh())?;
    lab.router().nft(
        "table ip nat { chain c { type nat hook postrouting priority srcnat;
         meta l4proto udp snat to 10.99.2.1:1000-1009; }\n }",
    )?;
    lab.send(&Flood::of(Flows { sources: 1, ..UDP }, 500))?;
    Ok(Made { goes_on: true, ..Made::of(lab, &["nat_exhausted"]) })
}

/// nordvpn-linux#36
pub(super) fn over() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    claims::fill_and_empty(&mut lab, 0)?;
    Ok(Made::of(lab, &["was_full"]))
}

/// kubernetes#117924
pub(super) fn invalid() -> Result<Made> {
    let lab = Lab::new(Plan::fresh())?;
    lab.router().nft(
        "table inet drops { chain c { type filter hook forward priority 10;
         ct state vmap { established : accept, related : accept, invalid : drop }
         ct state invalid,untracked counter drop; }\n }",
    )?;
    lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEchoReply, ..UDP }, 100))?;
    Ok(Made::of(lab, &["invalid_rule"]))
}

/// openwrt#24873
pub(super) fn one_way() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(300)?;
    inserted(lab.router(), 250, |_| "--dport 80 --state ESTABLISHED -t 299".to_owned())?;
    Ok(Made::of(lab, &["table_filling"]))
}

pub(super) fn openwrt() -> Result<Made> {
    let lab = full(|router| router.nft(advice::FW4), "10.100.0.2:4789")?;
    Ok(Made::of(lab, &["table_full", "top_talkers"]))
}

pub(super) fn owned() -> Result<Made> {
    let lab = full(advice::ufw_and_docker, "10.100.0.2:9000")?;
    Ok(Made::of(lab, &["table_full", "needed_by"]))
}

/// Proxmox, GNS3
pub(super) fn bridge() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(STAYS_FULL)?;
    lab.send(&Flood::of(UDP, 80))?;
    let router = lab.router();
    router.sysctl(BRIDGED.trim_start_matches("/proc/sys/"), "1")?;
    router.run(&["ip", "link", "add", "ctwbr0", "type", "bridge"])?;
    Ok(Made { about: &["bridge_tracked"], ..Made::of(lab, &["bridge_tracked"]) })
}

/// segfault#50
pub(super) fn scan() -> Result<Made> {
    const SYNS: Flows = Flows { protocol: Protocol::TcpSyn, sources: 1, ..UDP };
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(1_250)?;
    lab.send(&Flood::of(SYNS, 1_000))?;
    Ok(Made::of(lab, &["table_filling"]))
}

/// kubernetes#125467
pub(super) fn gone() -> Result<Made> {
    let rules = |router: &Netns| {
        advice::kube_proxy(router, "iptables-legacy")?;
        router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "300")
    };
    let mut lab = Lab::new(Plan::without_tracking())?;
    rules(lab.router())?;
    lab.set_limit(300)?;
    datagrams(&lab.client().clone(), 20_000..20_250, "10.96.0.10:53")?;
    let sep = "iptables-legacy -t nat -F KUBE-SEP-YIL6JZP7A3QYXJU2";
    lab.router().run(&sep.split(' ').collect::<Vec<_>>())?;
    Ok(Made::of(lab, &["table_filling"]))
}

/// BGP, BFD and SSH, to the router itself.
pub(super) fn control_plane() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(300)?;
    lab.keep_entries()?;
    let client = lab.client().clone();
    datagrams(&client, 20_000..20_350, "10.100.0.2:9000")?;
    datagrams(&client, 30_000..30_020, "10.99.1.1:3784")?;
    client.within(|| {
        for port in [22, 179] {
            let to = std::net::SocketAddr::from(([10, 99, 1, 1], port));
            let _ = std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(10));
        }
    })?;
    Ok(Made::of(lab, &["table_full"]))
}

/// Four odd spellings.
pub(super) fn boot() -> Result<Made> {
    let lab = Lab::new(Plan::fresh())?;
    let folder = tempfile::tempdir()?;
    for (file, line) in [
        ("10-a.conf", "net.netfilter.nf_conntrack_max=123457"),
        ("20-b.conf", "net/netfilter/nf_conntrack_udp_timeout = 77"),
        ("30-c.conf", "-net.netfilter.nf_conntrack_icmp_timeout = 78"),
        ("40-d.conf", "net.nf_conntrack_max = 123458"),
    ] {
        std::fs::write(folder.path().join(file), format!("# settings\n{line}\n"))?;
    }
    let about = &["lost_at_boot"];
    Ok(Made { settings: Some(folder), about, ..Made::of(lab, about) })
}

pub(super) fn idle() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(100_000)?;
    lab.send(&Flood::of(Flows { sources: 10, ..UDP }, 300))?;
    Ok(Made::of(lab, &[]))
}

pub(super) fn buckets() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_buckets(1024)?;
    lab.set_limit(32_768)?;
    lab.send(&Flood::of(Flows { sources: 100, ..UDP }, 3000))?;
    Ok(Made { about: &["few_buckets"], ..Made::of(lab, &["few_buckets"]) })
}

pub(super) fn expectations() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_expectations(10)?;
    lab.router().nft(
        "table ip expecting {
           ct expectation second { protocol udp; dport 9; timeout 60s; size 1; l3proto ip; }
           chain c { type filter hook forward priority 10; ct expectation set \"second\"; }
         }",
    )?;
    lab.send(&Flood::of(Flows { sources: 100, ..UDP }, 100))?;
    Ok(Made { about: &["expectations_full"], ..Made::of(lab, &["expectations_full"]) })
}

/// kubernetes#56903: equal SYNs come in on two CPUs, and the second of two is lost.
pub(super) fn clashes() -> Result<Made> {
    const SYNS: Flows = Flows { protocol: Protocol::TcpSyn, ..UDP };
    const EACH: u64 = 2000;
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(1_000_000)?;
    lab.router().nft(
        "table ip nat { chain c { type nat hook prerouting priority dstnat;
         tcp dport 1 dnat to 10.100.0.3; }\n }",
    )?;
    let until = Instant::now() + watch::PATIENCE;
    let mut first = 0;
    while judge::ask(lab.router())?.insert_failed == 0 {
        ensure!(Instant::now() < until, "no two of {first} pairs met");
        let flood = Flood { first, ..Flood::of(SYNS, EACH) };
        thread::scope(|scope| -> Result<()> {
            let twin = scope.spawn(|| lab.send(&flood));
            lab.send(&flood)?;
            twin.join().map_err(|_| anyhow::anyhow!("the twin panicked"))?.map(|_| ())
        })?;
        first += EACH;
    }
    Ok(Made::of(lab, &["lost_clashes"]))
}

/// A bit less than an hour is left for each.
pub(super) fn columns() -> Result<Made> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(120)?;
    inserted(lab.router(), 100, |_| {
        "--dport 80 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 3595".to_owned()
    })?;
    Ok(Made { by_columns: true, ..Made::of(lab, &["table_filling"]) })
}

pub(super) fn many_idle() -> Result<Made> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(100_000)?;
    let names: Vec<String> = (0..40).map(|nth| format!("idle{nth}")).collect();
    let others = lab.add_many(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    for netns in &others {
        netns.nft(TRACKING)?;
    }
    Ok(Made { others, ..Made::of(lab, &[]) })
}
