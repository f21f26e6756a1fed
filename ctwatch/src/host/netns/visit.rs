//! Reading conntrack's state inside each namespace.
//!
//! Entering a namespace changes the calling thread, so this belongs on a thread of its own.
//! Nothing is kept open between two visits: an open socket or namespace file would keep a
//! namespace alive that its owner has deleted.

use std::{
    cell::{Cell, RefCell},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixDatagram},
    },
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{Dir, Mode, OFlags},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::Netns;
use crate::{
    host::{
        kernel::modules,
        netfilter::{ctnetlink::Ctnetlink, procstat},
    },
    record::counters::{CounterSums, CpuCounters, EntryCounts},
};

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
    bounds: Sizes,
    ctnetlink: modules::CtnetlinkModule,
    /// This thread is in another namespace.
    is_away: Cell<bool>,
    /// For answers.
    memory: RefCell<Vec<u8>>,
}

impl Visitor {
    pub fn new(source: Source) -> Result<Self> {
        let Netns { inode, .. } = super::current()?;
        let home = File::open("/proc/thread-self/ns/net")
            .or_else(|_| File::open("/proc/self/ns/net"))
            .context("cannot open this thread's network namespace")?;
        Ok(Self {
            home,
            home_inode: inode,
            source,
            bounds: Sizes::new(source),
            ctnetlink: modules::CtnetlinkModule::look(),
            is_away: Cell::new(false),
            memory: RefCell::default(),
        })
    }

    /// What holds for all namespaces.
    pub fn bounds(&self) -> &Sizes {
        &self.bounds
    }

    /// Does something in one namespace, and comes back. An `Err` is the end: this thread is lost in another
    /// namespace, and whatever it did next would be done there.
    pub fn enter<T>(&self, netns: &Netns, there: impl FnOnce() -> T) -> Result<Visit<T>> {
        let visit = self.enter_next(netns, there);
        self.go_home()?;
        visit
    }

    /// As [`Self::enter`], of many one after the other: it stays there until it goes to the next, or
    /// [`home`](Self::go_home).
    pub fn enter_next<T>(&self, netns: &Netns, there: impl FnOnce() -> T) -> Result<Visit<T>> {
        if netns.inode == self.home_inode {
            self.go_home()?;
            return Ok(Visit::Read(there()));
        }
        let file = match crate::host::machine::files::open(&netns.path) {
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
        self.is_away.set(true);
        Ok(Visit::Read(there()))
    }

    /// Back to where it came from.
    pub fn go_home(&self) -> Result<()> {
        if self.is_away.get() {
            enter(&self.home).context("cannot return from another network namespace")?;
            self.is_away.set(false);
        }
        Ok(())
    }

    /// Reads the namespace that this thread is in, and the names of those of its interfaces that
    /// `wanted` names when it knows which namespace it is.
    pub fn read_here(&self, wanted: impl FnOnce(Option<u64>) -> Vec<u32>) -> Reading {
        let of_any_socket = |wanted| {
            let socket = UnixDatagram::unbound().ok();
            socket.map(|socket| about(&socket, wanted)).unwrap_or_default()
        };
        match self.source {
            Source::Ctnetlink => match self.ctnetlink() {
                Ok(mut socket) => {
                    let counters = socket.counters();
                    let entries = socket.entries();
                    let (cookie, interfaces) = about(socket.socket(), wanted);
                    self.memory.replace(socket.into_memory());
                    Reading { cookie, entries, counters, interfaces }
                }
                Err(error) => {
                    let (cookie, interfaces) = of_any_socket(wanted);
                    let entries = Err(anyhow::anyhow!("{error:#}"));
                    Reading { cookie, entries, counters: Err(error), interfaces }
                }
            },
            Source::Procfs => {
                let (cookie, interfaces) = of_any_socket(wanted);
                let read = procstat::read();
                // The same number as the sysctl's, which takes longer to be found the more namespaces
                // there are.
                let entries = match &read {
                    Ok((Some(entries), _)) => Ok(*entries),
                    _ => entries(),
                };
                Reading {
                    cookie,
                    entries,
                    counters: read.map(|(_, counters)| counters),
                    interfaces,
                }
            }
        }
    }

    /// The cookie of the namespace that this thread is in, and how many entries it holds.
    pub fn entries_here(&self) -> (Option<u64>, Result<u32>) {
        match self.source {
            Source::Ctnetlink => match self.ctnetlink() {
                Ok(mut socket) => {
                    let entries = socket.entries();
                    let cookie = cookie_of(socket.socket());
                    self.memory.replace(socket.into_memory());
                    (cookie, entries)
                }
                Err(error) => (netns_cookie(), Err(error)),
            },
            Source::Procfs => (netns_cookie(), entries()),
        }
    }

    fn ctnetlink(&self) -> Result<Ctnetlink> {
        // Unloaded since: asking would bring it back, and conntrack with it.
        if self.ctnetlink.is_there() == Some(false) {
            bail!("asking ctnetlink would load its module");
        }
        Ctnetlink::with(self.memory.take())
    }
}

/// What any socket tells of its namespace: its cookie, and the names of these interfaces.
fn about(
    socket: &(impl AsFd + AsRawFd),
    wanted: impl FnOnce(Option<u64>) -> Vec<u32>,
) -> (Option<u64>, Vec<(u32, String)>) {
    let cookie = cookie_of(socket);
    let named = |index| Some((index, rustix::net::netdevice::index_to_name(socket, index).ok()?));
    (cookie, wanted(cookie).into_iter().filter_map(named).collect())
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
    cookie_of(&UnixDatagram::unbound().ok()?)
}

fn cookie_of(socket: &impl AsRawFd) -> Option<u64> {
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
        let Reading { entries, counters, .. } = visitor.read_here(|_| Vec::new());
        let both = entries.and_then(|entries| Ok((entries, counters?)));
        let (entries, cpus) = both.map_err(|error| format!("{error:#}"))?;
        let found = EntryCounts::of(entries, &CounterSums::of(&cpus));
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
    sysctl(LIMIT).or_else(|error| limit_by(source).unwrap_or(Err(error)))
}

/// `None` where only a sysctl tells.
fn limit_by(source: Source) -> Option<Result<u32>> {
    let may_ask = source == Source::Ctnetlink && modules::ctnetlink() != Some(false);
    may_ask.then(|| Ctnetlink::open()?.limit()).filter(Result::is_ok)
}

/// How many buckets there are for all of them.
pub fn buckets() -> Result<u32> {
    sysctl(BUCKETS).or_else(|error| hashsize().ok_or(error))
}

fn hashsize() -> Option<u32> {
    const PATH: &str = "/sys/module/nf_conntrack/parameters/hashsize";
    fs::read_to_string(PATH).ok()?.trim().parse().ok()
}

const LIMIT: &str = "nf_conntrack_max";
const BUCKETS: &str = "nf_conntrack_buckets";

/// Both of these again and again, of the namespace in which it was made.
pub struct Sizes {
    source: Source,
    /// `None`: they are hidden.
    sysctls: Option<Sysctls>,
}

impl Sizes {
    pub fn new(source: Source) -> Self {
        Self { source, sysctls: Sysctls::open().ok() }
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.sysctls.as_ref()?.number(name).ok()
    }

    pub fn limit(&self) -> Option<u32> {
        self.number(LIMIT).or_else(|| limit_by(self.source)?.ok())
    }

    pub fn buckets(&self) -> Option<u32> {
        self.number(BUCKETS).or_else(hashsize)
    }
}

const SYSCTLS: &str = "/proc/sys/net/netfilter";

/// A number below `/proc/sys/net/netfilter`, of the calling thread's namespace.
pub fn sysctl(name: &str) -> Result<u32> {
    let path = Path::new(SYSCTLS).join(name);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds no number: {text:?}", path.display()))
}

/// All of them, of the calling thread's namespace. To find the folder, the kernel looks at those of all
/// namespaces, so it is found once.
pub struct Sysctls(OwnedFd);

impl Sysctls {
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(SYSCTLS, flags, Mode::empty())?))
    }

    pub fn names(&self) -> Vec<String> {
        let entries = Dir::read_from(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned)).collect()
    }

    pub fn number(&self, name: &str) -> Result<u32> {
        Ok(self.text(name)?.trim().parse()?)
    }

    pub fn text(&self, name: &str) -> Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, name, flags, Mode::empty())?;
        let mut bytes = [0; 256];
        let length = rustix::io::read(&file, &mut bytes)?;
        Ok(std::str::from_utf8(&bytes[..length])?.to_owned())
    }
}
