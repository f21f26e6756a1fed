//! Reading conntrack's state inside each namespace.
//!
//! Entering a namespace changes the calling thread, so this belongs on a thread of its own.
//! Nothing is kept open between two visits: an open socket or namespace file would keep a
//! namespace alive that its owner has deleted.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{fs::MetadataExt, net::UnixDatagram},
    },
    path::Path,
};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    ctnetlink::Ctnetlink,
    modules,
    netns::{self, Netns},
    procstat,
};
use crate::sample::{CpuCounters, EntryCounts};

/// Where a namespace's numbers are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Everything, and it may enter other namespaces' sockets: needs `CAP_NET_ADMIN`.
    Ctnetlink,
    /// `/proc/sys/net/netfilter/nf_conntrack_count` and `/proc/net/stat/nf_conntrack`: readable
    /// by anyone, the latter absent on some kernels.
    Procfs,
}

/// What one visit found.
#[derive(Debug)]
pub struct Reading {
    pub cookie: Option<u64>,
    pub entries: Result<u32>,
    pub counters: Result<Vec<CpuCounters>>,
    /// The names of those interfaces that were asked for and are here.
    pub interfaces: Vec<(u32, String)>,
}

/// What came of a visit.
#[derive(Debug)]
pub enum Visit<T = Reading> {
    Read(T),
    /// There is such a namespace, and it may not be entered.
    Refused(anyhow::Error),
    /// Between being found and being visited, it went.
    Gone,
}

/// A thread that can go into namespaces and comes back.
pub struct Visitor {
    home: File,
    home_inode: u32,
    source: Source,
}

impl Visitor {
    pub fn new(source: Source) -> Result<Self> {
        let Netns { inode, .. } = netns::current()?;
        let home = File::open("/proc/thread-self/ns/net")
            .or_else(|_| File::open("/proc/self/ns/net"))
            .context("cannot open this thread's network namespace")?;
        Ok(Self { home, home_inode: inode, source })
    }

    /// Reads one namespace. An `Err` is the end, as in [`Visitor::enter`].
    pub fn read(&self, netns: &Netns, interfaces: &[u32]) -> Result<Visit> {
        self.enter(netns, || self.read_here(interfaces))
    }

    /// Does something in one namespace. An `Err` is the end: this thread is lost in another
    /// namespace, and whatever it did next would be done there.
    pub fn enter<T>(&self, netns: &Netns, there: impl FnOnce() -> T) -> Result<Visit<T>> {
        if netns.inode == self.home_inode {
            return Ok(Visit::Read(there()));
        }
        let file = match super::files::open(&netns.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Visit::Gone),
            Err(error) => return Ok(Visit::Refused(refused(netns, error))),
        };
        // The path may lead elsewhere by now: a name used again, a process id used again.
        if !file.metadata().is_ok_and(|file| file.ino() == u64::from(netns.inode)) {
            return Ok(Visit::Gone);
        }
        if let Err(error) = enter(&file) {
            return Ok(Visit::Refused(refused(netns, error)));
        }
        let reading = there();
        enter(&self.home).context("cannot return from another network namespace")?;
        Ok(Visit::Read(reading))
    }

    /// Reads the namespace that this thread is in.
    pub fn read_here(&self, interfaces: &[u32]) -> Reading {
        let (entries, counters) = self.counters_here();
        Reading {
            cookie: netns_cookie(),
            entries,
            counters,
            interfaces: interfaces.iter().filter_map(|index| interface(*index)).collect(),
        }
    }

    fn counters_here(&self) -> (Result<u32>, Result<Vec<CpuCounters>>) {
        match self.source {
            // Unloaded since: asking would bring it back, and conntrack with it.
            Source::Ctnetlink if modules::ctnetlink() == Some(false) => {
                let gone = || anyhow::anyhow!("asking ctnetlink would load its module");
                (Err(gone()), Err(gone()))
            }
            Source::Ctnetlink => match Ctnetlink::open() {
                Ok(mut socket) => {
                    let counters = socket.counters();
                    (socket.entries(), counters)
                }
                Err(error) => (Err(anyhow::anyhow!("{error:#}")), Err(error)),
            },
            Source::Procfs => (entries(), procstat::counters()),
        }
    }
}

/// What the interface of this number is called in the calling thread's namespace.
pub(super) fn interface(index: u32) -> Option<(u32, String)> {
    let socket = UnixDatagram::unbound().ok()?;
    let name = rustix::net::netdevice::index_to_name(&socket, index).ok()?;
    Some((index, name))
}

/// `SO_NETNS_COOKIE` (Linux 5.14) of the calling thread's namespace: its name that is never used
/// again. Any socket tells.
pub fn netns_cookie() -> Option<u64> {
    let socket = UnixDatagram::unbound().ok()?;
    let mut cookie = 0u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: an open socket, and a buffer of the length that is passed along.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    (answer == 0).then_some(cookie)
}

/// Whether the kernel counts insertions and removals, as far as this thread's namespace shows it.
pub fn entry_counts(source: Source) -> Result<(), String> {
    // Where entries come and go, the two readings are seldom of one moment.
    const TRIES: u32 = 3;
    let visitor = Visitor::new(source).map_err(|error| format!("{error:#}"))?;
    let mut counts = Err("not read".to_owned());
    for _ in 0..TRIES {
        let Reading { entries, counters, .. } = visitor.read_here(&[]);
        let both = entries.and_then(|entries| Ok((entries, counters?)));
        let (entries, cpus) = both.map_err(|error| format!("{error:#}"))?;
        let found = EntryCounts::of(entries, &cpus);
        counts = found.why();
        if !matches!(found, EntryCounts::Differ { .. }) {
            break;
        }
    }
    counts
}

fn enter(netns: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn refused(netns: &Netns, error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("cannot enter {}", netns.path.display()))
}

fn entries() -> Result<u32> {
    sysctl("nf_conntrack_count")
}

/// How many entries there may be in each namespace. Where sysctls are hidden, ctnetlink tells
/// (Linux 4.18), which whoever names it as the source has asked before.
pub fn limit(source: Source) -> Result<u32> {
    sysctl("nf_conntrack_max").or_else(|error| match source {
        Source::Ctnetlink if modules::ctnetlink() != Some(false) => {
            Ctnetlink::open().and_then(|mut socket| socket.limit()).or(Err(error))
        }
        _ => Err(error),
    })
}

/// How many buckets there are for all of them.
pub fn buckets() -> Result<u32> {
    const PATH: &str = "/sys/module/nf_conntrack/parameters/hashsize";
    sysctl("nf_conntrack_buckets").or_else(|error| {
        let text = fs::read_to_string(PATH).ok();
        text.and_then(|text| text.trim().parse().ok()).ok_or(error)
    })
}

/// A number below `/proc/sys/net/netfilter`, of the calling thread's namespace.
pub fn sysctl(name: &str) -> Result<u32> {
    let path = Path::new("/proc/sys/net/netfilter").join(name);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds no number: {text:?}", path.display()))
}
