//! The three namespaces of a lab: building them, and making them as good as new.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    guard::Guard,
    links::{self, Change, End},
    netfilter,
    netns::Netns,
    topology::{CLIENT_LINK, CLIENT_MAC, Lock, ROUTER_LINK, ROUTER_MAC},
};

const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];
const UPSTREAM_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
const NETFILTER: &str = "net/netfilter";
/// One for the whole machine, or a number of what is there.
const NOT_OF_THE_NAMESPACE: [&str; 4] =
    ["nf_conntrack_max", "nf_conntrack_buckets", "nf_conntrack_expect_max", "nf_conntrack_count"];
const PATIENCE: Duration = Duration::from_secs(20);

/// What is the same before each use.
#[derive(PartialEq)]
struct State {
    links: BTreeSet<Vec<u8>>,
    settings: BTreeMap<String, String>,
}

pub(crate) struct Rooms {
    // The guard comes last: it finds everything gone.
    netns: [Netns; 3],
    prefix: String,
    /// As built, of each namespace.
    states: OnceLock<[State; 3]>,
    guard: Guard,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Rooms {
    pub(crate) fn build() -> Result<Self> {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("ctw{}{number}", std::process::id());
        let netns = ["cl", "rt", "sv"].map(|role| Netns::named(&format!("{prefix}-{role}")));
        let guard = Guard::start(&*Lock::file()?)?;
        let rooms = Self { netns, prefix, states: OnceLock::new(), guard };
        for netns in &rooms.netns {
            rooms.goes_at_the_end(netns)?;
        }
        rooms.guard.keep()?;
        Netns::make(&rooms.netns)?;
        rooms.furnish()?;
        Ok(rooms)
    }

    /// The client's, the router's and the server's.
    pub(crate) fn netns(&self) -> &[Netns; 3] {
        &self.netns
    }

    pub(crate) fn name(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(crate) fn another(&self, role: &str) -> Netns {
        Netns::named(&format!("{}-{role}", self.prefix))
    }

    /// The guard takes it down if nobody else does.
    pub(crate) fn goes_at_the_end(&self, netns: &Netns) -> Result<()> {
        let (path, name) = (netns.path(), netns.name());
        self.guard.at_the_end(&format!("[ ! -e '{}' ] || ip netns del '{name}'", path.display()))
    }

    /// Links, addresses and routes; their names are the same in every lab.
    fn furnish(&self) -> Result<()> {
        let [client, router, server] = &self.netns;
        client.within(|| set(&settings(Role::Client)))??;
        server.within(|| set(&settings(Role::Server)))??;
        let (to_client, to_server) = (client.open()?, server.open()?);
        router.within(|| {
            set(&settings(Role::Router))?;
            let mut pairs = Change::new();
            let near = End { name: ROUTER_LINK, mac: ROUTER_MAC };
            pairs.pair(&near, &End { name: CLIENT_LINK, mac: CLIENT_MAC }, &to_client)?;
            let near = End { name: "up0", mac: UPSTREAM_MAC };
            pairs.pair(&near, &End { name: "down0", mac: SERVER_MAC }, &to_server)?;
            pairs.made()?;
            set_up(&["lo", ROUTER_LINK, "up0"])
        })??;
        client.within(|| set_up(&["lo", CLIENT_LINK]))??;
        server.within(|| set_up(&["lo", "down0"]))??;
        client.within(|| {
            let mut change = Change::new();
            change.address("10.99.1.2/24", CLIENT_LINK)?;
            change.neighbour("10.99.1.1", ROUTER_MAC, CLIENT_LINK)?;
            change.route("0.0.0.0/0", Some("10.99.1.1"))?;
            change.made()
        })??;
        server.within(|| {
            let mut change = Change::new();
            change.address("10.99.2.2/24", "down0")?;
            change.address("fd99:2::2/64", "down0")?;
            // The server swallows what it gets: an answer would be traffic that nobody counted.
            change.route("10.100.0.0/16", None)?;
            change.route("fd99:4::/32", None)?;
            change.made()
        })??;
        router.within(|| {
            // The other ends, which were set up later, are ready since.
            links::until_ready(&[ROUTER_LINK, "up0"])?;
            let mut change = Change::new();
            change.address("10.99.1.1/24", ROUTER_LINK)?;
            change.address("fd99:1::1/64", ROUTER_LINK)?;
            change.address("10.99.2.1/24", "up0")?;
            change.address("fd99:2::1/64", "up0")?;
            for (address, mac, link) in [
                ("10.99.1.2", CLIENT_MAC, ROUTER_LINK),
                ("fd99:1::2", CLIENT_MAC, ROUTER_LINK),
                ("10.99.2.2", SERVER_MAC, "up0"),
                ("fd99:2::2", SERVER_MAC, "up0"),
            ] {
                change.neighbour(address, mac, link)?;
            }
            // Whatever source the client's frames bear, it is reached over there; whatever
            // destination, over yonder.
            change.route("10.128.0.0/9", Some("10.99.1.2"))?;
            change.route("fd99:3::/32", Some("fd99:1::2"))?;
            change.route("10.100.0.0/16", Some("10.99.2.2"))?;
            change.route("fd99:4::/32", Some("fd99:2::2"))?;
            change.made()
        })?
    }

    /// Remembers what it is like, to be held against it before the next use.
    pub(crate) fn remember(&self) -> Result<()> {
        let [client, router, server] = &self.netns;
        let states = [
            client.within(|| state(Role::Client))??,
            router.within(|| state(Role::Router))??,
            server.within(|| state(Role::Server))??,
        ];
        let _ = self.states.set(states);
        Ok(())
    }

    /// Takes out of the router what a use leaves there.
    pub(crate) fn tidy(&self) -> Result<()> {
        let [_, router, _] = &self.netns;
        router.within(|| {
            netfilter::lay_rules(false)?;
            if let Some([_, built, _]) = self.states.get() {
                for (name, value) in &built.settings {
                    if setting(name).as_ref() != Some(value) {
                        set(&[(name.clone(), value.clone())])?;
                    }
                }
            }
            let until = Instant::now() + PATIENCE;
            // Packets on their way may still make some.
            while netfilter::entries()? > 0 {
                ensure!(Instant::now() < until, "entries do not go");
                netfilter::flush()?;
                if netfilter::entries()? > 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(())
        })?
    }

    /// Whether it is as it was built; if not, what is different.
    pub(crate) fn verify(&self) -> Result<()> {
        let built = self.states.get().context("nobody knows how it was built")?;
        let roles = [Role::Client, Role::Router, Role::Server];
        for ((netns, role), built) in self.netns.iter().zip(roles).zip(built) {
            netns.within(|| {
                let now = state(role)?;
                let name = netns.name();
                ensure!(now.links == built.links, "{name} has other links, addresses or routes");
                for (setting, value) in &now.settings {
                    let before = built.settings.get(setting);
                    ensure!(before == Some(value), "{name}: {setting} is {value}, not {before:?}");
                }
                ensure!(netfilter::entries()? == 0, "{name} holds entries");
                for names in ["ip_tables_names", "ip6_tables_names"] {
                    let tables = fs::read_to_string(format!("/proc/thread-self/net/{names}"));
                    let tables = tables.unwrap_or_default();
                    ensure!(tables.is_empty(), "{name} has tables of iptables: {}", tables.trim());
                }
                anyhow::Ok(())
            })??;
        }
        let [_, router, _] = &self.netns;
        router.within(|| {
            let tables = netfilter::tables()?;
            ensure!(tables.is_empty(), "tables of nftables are left: {tables:?}");
            let expected = netfilter::expected()?;
            ensure!(expected == 0, "{expected} connections are expected");
            anyhow::Ok(())
        })??;
        self.nobody_else()
    }

    /// No namespace beside the three, and no process in them.
    fn nobody_else(&self) -> Result<()> {
        let folder = self.netns[0].path();
        let folder = folder.parent().context("no folder")?;
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let ours = name.strip_prefix(self.prefix.as_str()).is_some_and(|n| n.starts_with('-'));
            let known = self.netns.iter().any(|netns| netns.name() == name);
            ensure!(known || !ours, "the namespace {name} is left");
        }
        let inodes = self.netns.iter().map(Netns::inode).collect::<Result<Vec<_>>>()?;
        for process in fs::read_dir("/proc")? {
            let process = process?.path();
            // One that has ended meanwhile is in no namespace.
            let Ok(netns) = fs::read_link(process.join("ns/net")) else { continue };
            let netns = netns.to_string_lossy();
            let within = inodes.iter().any(|inode| netns == format!("net:[{inode}]"));
            ensure!(!within, "the process {} is in it", process.display());
        }
        Ok(())
    }
}

impl Drop for Rooms {
    fn drop(&mut self) {
        for netns in &self.netns {
            // The guard tries again what does not succeed.
            let _ = netns.delete();
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Client,
    Router,
    Server,
}

/// No packet that the tests did not send: no duplicate address detection, no router
/// solicitation, no multicast reports. Set before there are links, which inherit it.
fn settings(role: Role) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut add = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
    for name in [
        "accept_dad",
        "router_solicitations",
        "autoconf",
        "accept_ra",
        "mldv2_unsolicited_report_interval",
    ] {
        for which in ["all", "default"] {
            add(&format!("net/ipv6/conf/{which}/{name}"), "0");
        }
    }
    add("net/ipv6/conf/default/addr_gen_mode", "1");
    match role {
        Role::Client => {
            // Its frames are written by hand; the kernel's own IPv6 would only add to them.
            add("net/ipv6/conf/all/disable_ipv6", "1");
            add("net/ipv6/conf/default/disable_ipv6", "1");
        }
        Role::Router => {
            add("net/ipv4/ip_forward", "1");
            add("net/ipv6/conf/all/forwarding", "1");
        }
        Role::Server => {}
    }
    all
}

fn set(settings: &[(String, String)]) -> Result<()> {
    for (name, value) in settings {
        let path = format!("/proc/sys/{name}");
        fs::write(&path, value).with_context(|| format!("cannot set {path}"))?;
    }
    Ok(())
}

fn setting(name: &str) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().to_owned())
}

fn set_up(links: &[&str]) -> Result<()> {
    let mut change = Change::new();
    links.iter().try_for_each(|link| change.up(link))?;
    change.made()
}

/// Of the namespace of this thread.
fn state(role: Role) -> Result<State> {
    let mut names: Vec<String> = settings(role).into_iter().map(|(name, _)| name).collect();
    if role == Role::Router {
        for entry in fs::read_dir(format!("/proc/sys/{NETFILTER}"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_file() && !NOT_OF_THE_NAMESPACE.contains(&name.as_str()) {
                names.push(format!("{NETFILTER}/{name}"));
            }
        }
    }
    let settings = names.into_iter().filter_map(|name| {
        let value = setting(&name)?;
        Some((name, value))
    });
    Ok(State { links: links::state()?, settings: settings.collect() })
}
