//! Client - router - server, on veth pairs, with tracking in the router only.

use std::{
    fmt::Write as _,
    fs::{self, File},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};

use crate::{
    guard::Guard,
    netns::{Netns, output},
};

const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const EXPECTATIONS: &str = "/proc/sys/net/netfilter/nf_conntrack_expect_max";
const BACKLOG: &str = "/proc/sys/net/core/netdev_max_backlog";

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The router tracks connections.
    pub tracking: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { tracking: true }
    }
}

/// The namespaces, and the sysctls of the host that were changed for them; all undone when this
/// is dropped, or when the process ends in any other way.
///
/// The limit is one for the whole machine, so the labs of another process wait until the last of
/// this one's is gone.
pub struct Lab {
    // Dropped in this order: the lock is let go when all is undone.
    guard: Guard,
    _lock: Arc<File>,
    client: Netns,
    router: Netns,
    server: Netns,
    prefix: String,
}

/// The Ethernet addresses of the client's link: fixed, so that frames can be written by hand.
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
pub(crate) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The client's interface, and the router's towards it.
pub(crate) const CLIENT_LINK: &str = "up0";
pub const ROUTER_LINK: &str = "down0";

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    pub fn new(plan: Plan) -> Result<Self> {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("ctw{}{number}", std::process::id());
        let named = |role: &str| Netns::named(&format!("{prefix}-{role}"));
        let lock = lock()?;
        let mut lab = Self {
            guard: Guard::start(&lock)?,
            _lock: lock,
            client: named("cl"),
            router: named("rt"),
            server: named("sv"),
            prefix: prefix.clone(),
        };
        for netns in [&lab.client, &lab.router, &lab.server] {
            lab.guard.at_the_end(&format!("ip netns del {}", netns.name()))?;
        }
        output(Command::new("ip").args(["-batch", "-"]), &lab.links())?;
        for netns in [&lab.client, &lab.router, &lab.server] {
            lab.quieten(netns)?;
        }
        for (netns, script) in lab.addresses() {
            output(Command::new("ip").args(["-n", netns.name(), "-batch", "-"]), &script)?;
        }
        lab.router.sysctl("net/ipv4/ip_forward", "1")?;
        lab.router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        if plan.tracking {
            lab.router.nft(TRACKING)?;
        }
        // Flat out, packets wait between two CPUs' queues; what does not fit there is lost before
        // the router sees it, which would be counted but not be tested.
        lab.set_host(BACKLOG, "100000")?;
        Ok(lab)
    }

    /// Namespaces and veth pairs; the link names are the same in every lab.
    fn links(&self) -> String {
        let (client, router, server) = (self.client.name(), self.router.name(), self.server.name());
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        format!(
            "netns add {client}\nnetns add {router}\nnetns add {server}\n\
             link add {CLIENT_LINK} address {} netns {client} type veth \
             peer name {ROUTER_LINK} address {} netns {router}\n\
             link add up0 address 02:00:00:00:02:01 netns {router} type veth \
             peer name down0 address 02:00:00:00:02:02 netns {server}\n",
            mac(CLIENT_MAC),
            mac(ROUTER_MAC),
        )
    }

    /// No packet that the tests did not send: no duplicate address detection, no router
    /// solicitation, no multicast reports.
    fn quieten(&self, netns: &Netns) -> Result<()> {
        for (name, value) in [
            ("accept_dad", "0"),
            ("router_solicitations", "0"),
            ("autoconf", "0"),
            ("accept_ra", "0"),
            ("mldv2_unsolicited_report_interval", "0"),
        ] {
            for which in ["all", "default"] {
                netns.sysctl(&format!("net/ipv6/conf/{which}/{name}"), value)?;
            }
        }
        netns.sysctl("net/ipv6/conf/default/addr_gen_mode", "1")?;
        if netns == &self.client {
            // Its frames are written by hand; the kernel's own IPv6 would only add to them.
            netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        Ok(())
    }

    fn addresses(&self) -> [(&Netns, String); 3] {
        let client = "link set lo up\nlink set up0 up\n\
             addr add 10.99.1.2/24 dev up0\n\
             neigh add 10.99.1.1 lladdr 02:00:00:00:01:01 dev up0\n\
             route add default via 10.99.1.1\n";
        // Whatever source the client's frames bear, it is reached over there; whatever
        // destination, over yonder.
        let router = "link set lo up\nlink set down0 up\nlink set up0 up\n\
             addr add 10.99.1.1/24 dev down0\naddr add fd99:1::1/64 dev down0 nodad\n\
             addr add 10.99.2.1/24 dev up0\naddr add fd99:2::1/64 dev up0 nodad\n\
             neigh add 10.99.1.2 lladdr 02:00:00:00:01:02 dev down0\n\
             neigh add fd99:1::2 lladdr 02:00:00:00:01:02 dev down0\n\
             neigh add 10.99.2.2 lladdr 02:00:00:00:02:02 dev up0\n\
             neigh add fd99:2::2 lladdr 02:00:00:00:02:02 dev up0\n\
             route add 10.128.0.0/9 via 10.99.1.2\nroute add fd99:3::/32 via fd99:1::2\n\
             route add 10.100.0.0/16 via 10.99.2.2\nroute add fd99:4::/32 via fd99:2::2\n";
        // The server swallows what it gets: an answer would be traffic that nobody counted.
        let server = "link set lo up\nlink set down0 up\n\
             addr add 10.99.2.2/24 dev down0\naddr add fd99:2::2/64 dev down0 nodad\n\
             route add blackhole 10.100.0.0/16\nroute add blackhole fd99:4::/32\n";
        [
            (&self.client, client.to_owned()),
            (&self.router, router.to_owned()),
            (&self.server, server.to_owned()),
        ]
    }

    pub fn client(&self) -> &Netns {
        &self.client
    }

    pub fn router(&self) -> &Netns {
        &self.router
    }

    pub fn server(&self) -> &Netns {
        &self.server
    }

    /// `nf_conntrack_max`: one number for all namespaces, the host's included.
    pub fn set_limit(&mut self, limit: u32) -> Result<()> {
        self.set_host(LIMIT, &limit.to_string())
    }

    /// Entries of UDP and ICMP in the router stay for five minutes: an emulated machine may take
    /// longer than half of one from filling the table to looking at it.
    pub fn keep_entries(&self) -> Result<()> {
        for name in ["udp", "icmp", "icmpv6"] {
            self.router.sysctl(&format!("net/netfilter/nf_conntrack_{name}_timeout"), "300")?;
        }
        Ok(())
    }

    /// The number of buckets, which all namespaces share.
    pub fn set_buckets(&mut self, buckets: u32) -> Result<()> {
        self.set_host(BUCKETS, &buckets.to_string())
    }

    /// How many connections each namespace may expect.
    pub fn set_expectations(&mut self, most: u32) -> Result<()> {
        self.set_host(EXPECTATIONS, &most.to_string())
    }

    /// Changes a file below /proc/sys or /sys; the guard puts back what was there.
    fn set_host(&mut self, path: &str, value: &str) -> Result<()> {
        let before = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        self.guard.at_the_end(&format!("echo {} > {path}", before.trim()))?;
        fs::write(path, value).with_context(|| format!("cannot write {path}"))
    }

    /// Makes a bare namespace, which is taken down with the lab if not before.
    pub fn add_netns(&mut self, role: &str) -> Result<Netns> {
        self.add_many(&[role]).map(|mut made| made.remove(0))
    }

    /// Makes many at once.
    pub fn add_many(&mut self, roles: &[&str]) -> Result<Vec<Netns>> {
        let mut script = String::new();
        let mut made = Vec::new();
        for role in roles {
            let netns = Netns::named(&format!("{}-{role}", self.prefix));
            self.guard.at_the_end(&format!("ip netns del '{}'", netns.name()))?;
            writeln!(script, "netns add {}", netns.name())?;
            made.push(netns);
        }
        output(Command::new("ip").args(["-batch", "-"]), &script)?;
        Ok(made)
    }

    /// Takes a namespace down now.
    pub fn remove_netns(&self, netns: &Netns) -> Result<()> {
        output(Command::new("ip").args(["netns", "del", netns.name()]), "").map(|_| ())
    }

    /// Packets that came out of the client's link into the router.
    pub fn arrived(&self) -> Result<u64> {
        self.router.within(|| link_counter(ROUTER_LINK, 1))?
    }
}

/// Shared by the labs of this process, waited for by others.
fn lock() -> Result<Arc<File>> {
    static LOCK: Mutex<Weak<File>> = Mutex::new(Weak::new());
    let mut held = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lock) = held.upgrade() {
        return Ok(lock);
    }
    // The very file that only one may change.
    let file = File::open(LIMIT).with_context(|| format!("cannot open {LIMIT}"))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for the lab of another process to be taken down");
        file.lock().with_context(|| format!("cannot lock {LIMIT}"))?;
    }
    let lock = Arc::new(file);
    *held = Arc::downgrade(&lock);
    Ok(lock)
}

/// A rule that looks at the state is what makes a namespace track connections.
pub const TRACKING: &str = "
table inet lab {
    chain in { type filter hook input priority 0; ct state established counter; }
    chain forward { type filter hook forward priority 0; ct state established counter; }
    chain out { type filter hook output priority 0; ct state established counter; }
}
";

/// Column of `/proc/thread-self/net/dev`: 1 is packets received, 3 is drops while receiving.
fn link_counter(link: &str, column: usize) -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix(link)?.strip_prefix(':'))
        .find_map(|numbers| numbers.split_whitespace().nth(column)?.parse().ok())
        .with_context(|| format!("no link {link} here"))
}
