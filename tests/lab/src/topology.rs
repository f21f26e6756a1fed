//! Client - router - server, on veth pairs, with tracking in the router only.

use std::{
    fs::{self, File},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, ensure};

use crate::{judge, kept, netfilter, netns::Netns, rooms::Rooms};

const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const EXPECTATIONS: &str = "/proc/sys/net/netfilter/nf_conntrack_expect_max";
const BACKLOG: &str = "/proc/sys/net/core/netdev_max_backlog";
/// What a lab may change of the host.
const HOST: [&str; 4] = [LIMIT, BUCKETS, EXPECTATIONS, BACKLOG];

/// A limit with which a full table stays full. After the kernel refused a packet, in whatever namespace,
/// its collector may thin each table at any moment of the next minute: it ends entries that are not
/// assured while a table holds 95% of its limit or more. It reckons that as `limit / 100 * 95`, which
/// below a hundred is 0, and then it ends none.
pub const STAYS_FULL: u32 = 99;

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The router tracks connections. Without that, its namespace never did.
    pub tracking: bool,
    /// Made for this one use: nothing was ever counted in it, and no other use follows. For what
    /// looks at all that happened since a namespace was made, or leaves traces that do not go.
    pub fresh: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { tracking: true, fresh: false }
    }
}

impl Plan {
    pub fn fresh() -> Self {
        Self { fresh: true, ..Self::default() }
    }

    pub fn without_tracking() -> Self {
        Self { tracking: false, fresh: true }
    }
}

/// The namespaces, and the sysctls of the host that were changed for them; all undone when this
/// is dropped, or when the process ends in any other way.
///
/// The limit is one for the whole machine, so the labs of another process wait until the last of
/// this one's is gone.
pub struct Lab {
    // Dropped in this order: the lock is let go when all is undone.
    rooms: Arc<Rooms>,
    _lock: Lock,
    plan: Plan,
    client: Netns,
    router: Netns,
    server: Netns,
    others: Vec<Netns>,
}

/// The Ethernet addresses of the client's link: fixed, so that frames can be written by hand.
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
pub(crate) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The client's interface, and the router's towards it.
pub(crate) const CLIENT_LINK: &str = "up0";
pub const ROUTER_LINK: &str = "down0";

impl Lab {
    pub fn new(plan: Plan) -> Result<Self> {
        let plan = Plan { fresh: plan.fresh || !plan.tracking, ..plan };
        let lock = Lock::take()?;
        let rooms = match kept::take(plan) {
            Some(rooms) => rooms,
            None => {
                let rooms = Rooms::build()?;
                if !plan.fresh && kept::has_room() {
                    rooms.remember()?;
                }
                Arc::new(rooms)
            }
        };
        let [client, router, server] = rooms.netns().clone();
        let mut lab = Self { rooms, _lock: lock, plan, client, router, server, others: Vec::new() };
        for (path, before) in Held::get().before.iter() {
            lab.rooms.guard().at_the_end(&format!("echo {before} > {path}"))?;
        }
        if plan.tracking {
            lab.router.within(|| netfilter::lay_rules(true))??;
            lab.router.since = judge::ask(&lab.router)?;
        }
        // Flat out, packets wait between two CPUs' queues; what does not fit there is lost before
        // the router sees it, which would be counted but not be tested.
        lab.set_host(BACKLOG, "100000")?;
        Ok(lab)
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

    /// Changes one of the files that are put back.
    fn set_host(&mut self, path: &'static str, value: &str) -> Result<()> {
        fs::write(path, value).with_context(|| format!("cannot write {path}"))
    }

    /// Makes a bare namespace, which is taken down with the lab if not before.
    pub fn add_netns(&mut self, role: &str) -> Result<Netns> {
        self.add_many(&[role]).map(|mut made| made.remove(0))
    }

    /// With this name, whatever others are called.
    pub fn add_called(&mut self, name: &str) -> Result<Netns> {
        let made = Netns::named(name);
        self.rooms.goes_at_the_end(&made)?;
        self.others.push(made.clone());
        Netns::make(std::slice::from_ref(&made))?;
        Ok(made)
    }

    /// Makes many at once.
    pub fn add_many(&mut self, roles: &[&str]) -> Result<Vec<Netns>> {
        let made: Vec<Netns> = roles.iter().map(|role| self.rooms.another(role)).collect();
        for netns in &made {
            self.rooms.goes_at_the_end(netns)?;
        }
        self.others.extend_from_slice(&made);
        Netns::make(&made)?;
        Ok(made)
    }

    /// Takes a namespace down now.
    pub fn remove_netns(&self, netns: &Netns) -> Result<()> {
        netns.delete()
    }

    /// Packets that came out of the client's link into the router.
    pub fn arrived(&self) -> Result<u64> {
        self.router.within(|| link_counter(ROUTER_LINK, 1))?
    }
}

impl Lab {
    /// Puts back what was changed of the host, with the last lab that changed some of it.
    fn restore_host() -> Result<()> {
        let held = Held::get();
        if held.labs > 1 {
            return Ok(());
        }
        for (path, before) in &held.before {
            // It went with conntrack, and comes back as it was.
            let Some(now) = value(path) else { continue };
            if now != *before {
                fs::write(path, before).with_context(|| format!("cannot write {path}"))?;
                let put = value(path);
                ensure!(put.as_ref() == Some(before), "{path} is {put:?} and was {before}");
            }
        }
        Ok(())
    }

    fn undo(&self) -> Result<()> {
        self.others.iter().try_for_each(Netns::delete)?;
        if self.is_kept() {
            // Before the host's buckets come back: they would be filled with what goes.
            self.rooms.tidy()?;
        }
        Self::restore_host()?;
        self.rooms.guard().forget()
    }

    fn is_kept(&self) -> bool {
        !self.plan.fresh && !std::thread::panicking() && kept::has_room()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        match self.undo() {
            Ok(()) if self.is_kept() => kept::put(Arc::clone(&self.rooms)),
            Ok(()) => {}
            // What the guard still knows of, it tries too.
            Err(error) => eprintln!("the lab {} is not undone: {error:#}", self.router.name()),
        }
    }
}

/// What is in a file of the host; some come with conntrack.
fn value(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// What all labs of this process share.
struct Held {
    /// The very file that only one process may change. It stays open: the guards hold its lock by
    /// the same opening, until they have cleaned up.
    file: Option<Arc<File>>,
    labs: usize,
    /// What was in the host's files when the first of them came.
    before: Vec<(&'static str, String)>,
}

static HELD: Mutex<Held> = Mutex::new(Held { file: None, labs: 0, before: Vec::new() });

impl Held {
    fn get() -> MutexGuard<'static, Self> {
        HELD.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by each lab of this process, waited for by others.
pub(crate) struct Lock(());

impl Lock {
    fn take() -> Result<Self> {
        let mut held = Held::get();
        let file = match &held.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = File::open(LIMIT).with_context(|| format!("cannot open {LIMIT}"))?;
                Arc::clone(held.file.insert(Arc::new(file)))
            }
        };
        if held.labs == 0 {
            if file.try_lock().is_err() {
                eprintln!("waiting for the lab of another process to be taken down");
                file.lock().with_context(|| format!("cannot lock {LIMIT}"))?;
            }
            held.before = HOST.into_iter().filter_map(|path| Some((path, value(path)?))).collect();
        }
        held.labs += 1;
        Ok(Self(()))
    }

    /// The file whose lock a guard is to hold.
    pub(crate) fn file() -> Result<Arc<File>> {
        Held::get().file.clone().context("nobody holds the lock")
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut held = Held::get();
        held.labs -= 1;
        if held.labs == 0
            && let Some(file) = &held.file
        {
            // Nothing of the host is changed any more.
            let _ = file.unlock();
        }
    }
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
