//! Finding the network namespaces of this host, and naming them.
//!
//! A namespace is found by a bind mount (`ip netns`, container runtimes) or by a process in it.
//! One that only an open file descriptor or a thread keeps alive is not found here; the probes
//! still count in it, under its inode number.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{Mode, OFlags, fstat, fstatfs, open},
};

use super::{
    pods::{MOST_RESIDENTS, Residents, Workloads},
    way::{Netns, inode_of, link_inode, ns_inode},
};
use crate::record::workload::Workload;

/// A box may run ten thousand processes; those are not all asked at every tick.
const RESCAN: Duration = Duration::from_secs(5);
/// Looking through them takes no more than this share of the time, and where something new is looked
/// for, no more than that.
const SHARE: u32 = 100;
const URGENT_SHARE: u32 = 20;

/// Finds namespaces again and again, and remembers what showed one.
#[derive(Debug, Default)]
pub struct Finder {
    mounts: Mounts,
    of_processes: BTreeMap<u32, Netns>,
    /// The first processes of each namespace, mounted or not.
    residents: Residents,
    workloads: Workloads,
    /// When processes were looked through, and how long that took.
    scanned: Option<(Instant, Duration)>,
    /// What all of these came to.
    found: Arc<BTreeMap<u32, Netns>>,
    host: Option<Netns>,
}

impl Finder {
    /// Every namespace that a bind mount or a process shows, by inode number. Processes are looked
    /// through every few seconds, and where `now` asks for it.
    pub fn find(&mut self, now: bool) -> Result<Arc<BTreeMap<u32, Netns>>> {
        let stale = self.scanned.is_none_or(|(at, took)| at.elapsed() >= RESCAN.max(took * SHARE));
        let mut changed = self.mounts.look()?;
        let looks = now || stale;
        if looks {
            let begin = Instant::now();
            (self.of_processes, self.residents) = of_processes()?;
            self.scanned = Some((Instant::now(), begin.elapsed()));
            changed = true;
        }
        let host = current_of_init(&self.mounts.found)?;
        if changed || self.host.as_ref() != Some(&host) {
            let begin = Instant::now();
            let mut found = self.mounts.found.clone();
            // Before the processes: else it would be called after one of them.
            found.entry(host.inode).or_insert_with(|| host.clone());
            for netns in self.of_processes.values() {
                found.entry(netns.inode).or_insert_with(|| netns.clone());
            }
            self.workloads.tell(&mut found, &self.residents, host.inode);
            // Part of a look at the processes, which is what costs; a change of mounts adds a few.
            if let Some((_, took)) = self.scanned.as_mut().filter(|_| looks) {
                *took += begin.elapsed();
            }
            (self.found, self.host) = (Arc::new(found), Some(host));
        }
        Ok(Arc::clone(&self.found))
    }

    /// Whether processes may be looked through before it is time: not all the time, however often
    /// something new turns up.
    pub fn may_hurry(&self) -> bool {
        self.scanned.is_none_or(|(at, took)| at.elapsed() >= took * URGENT_SHARE)
    }
}

/// Namespaces that are mounted somewhere. The kernel says when that may have changed.
/// <https://www.kernel.org/doc/man-pages/online/pages/man5/proc_pid_mounts.5.html>
#[derive(Debug, Default)]
struct Mounts {
    /// `None`: it cannot be had, and is read each time.
    watched: Option<File>,
    found: BTreeMap<u32, Netns>,
}

impl Mounts {
    /// Whether they are others than before.
    fn look(&mut self) -> Result<bool> {
        match &self.watched {
            Some(file) if !has_changed(file) => return Ok(false),
            Some(_) => {}
            // Opened before it is read: what changes in between is read again.
            None => self.watched = File::open(MOUNTS).ok(),
        }
        let found = of_mounts()?;
        let changed = found != self.found;
        self.found = found;
        Ok(changed)
    }
}

const MOUNTS: &str = "/proc/self/mountinfo";

/// Since it was opened, or this was last asked.
fn has_changed(mounts: &File) -> bool {
    let mut asked = [PollFd::new(mounts, PollFlags::PRI | PollFlags::ERR)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Where nobody knows, it is read.
    rustix::event::poll(&mut asked, Some(&now)).map_or(true, |ready| ready > 0)
}

/// Every namespace that a bind mount or a process shows, by inode number.
pub fn find() -> Result<BTreeMap<u32, Netns>> {
    Finder::default().find(true).map(Arc::unwrap_or_clone)
}

/// The namespaces that go by this name, each once: by any of their mounts, as `host`, by a process
/// where nothing else shows them, or as `NAMESPACE/POD`.
pub fn by_name(name: &str) -> Result<Vec<Netns>> {
    let mut ways = mounts()?;
    // Also where its namespace is mounted, and goes by another name.
    ways.push(current_of_init(&of_mounts()?)?);
    ways.extend(find()?.into_values());
    ways.retain(|way| {
        way.name.as_deref() == Some(name) || way.workload.of_pod().as_deref() == Some(name)
    });
    ways.retain(leads_there);
    Ok(chosen(ways))
}

/// Not so where another was mounted over it, or the process is gone.
fn leads_there(way: &Netns) -> bool {
    inode_of(way).ok() == Some(way.inode)
}

/// One of each namespace; what `ip netns` calls so is what is meant, where it calls any so.
fn chosen(mut ways: Vec<Netns>) -> Vec<Netns> {
    if ways.iter().any(Netns::is_by_ip) {
        ways.retain(Netns::is_by_ip);
    }
    let mut seen = BTreeSet::new();
    ways.retain(|way| seen.insert(way.inode));
    ways
}

/// The namespace that this path leads to: a mount of it, or a process's `ns/net`.
pub fn at(path: &Path) -> Result<Netns> {
    let place = path.display();
    // What it is does not matter to this kind of opening, and nothing comes of it.
    let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {place}"))?;
    let inode = u32::try_from(fstat(&file)?.st_ino);
    // Of 32 bits or 64, as the machine has it.
    let is_of_nsfs = u64::try_from(fstatfs(&file)?.f_type).is_ok_and(|kind| kind == NSFS_MAGIC);
    let inode = inode.ok().filter(|_| is_of_nsfs);
    let inode = inode.with_context(|| format!("{place} is no network namespace"))?;
    // A process's file tells its kind; of a mounted one, mountinfo does.
    let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let mounts = mounts()?;
    let is_net = link_inode(&link).is_ok() || mounts.iter().any(|mounted| mounted.inode == inode);
    ensure!(is_net, "{place} is a namespace of another kind");
    let known = find()?.remove(&inode);
    let (name, workload) = known.map(|known| (known.name, known.workload)).unwrap_or_default();
    // Links on the way are resolved, but never that of a process, which leads to no path.
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(_) => path.to_owned(),
    };
    Ok(Netns { inode, name, path, workload })
}

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h>
const NSFS_MAGIC: u64 = 0x6e73_6673;

fn of_mounts() -> Result<BTreeMap<u32, Netns>> {
    let mut found: BTreeMap<u32, Netns> = BTreeMap::new();
    for netns in mounts()? {
        match found.get(&netns.inode) {
            // The name of `ip netns` is the one that an operator knows, unless another was mounted
            // over it.
            Some(known) if known.is_by_ip() && leads_there(known) => {}
            Some(_) if !leads_there(&netns) => {}
            _ => _ = found.insert(netns.inode, netns),
        }
    }
    Ok(found)
}

fn mounts() -> Result<Vec<Netns>> {
    let mounts = fs::read(MOUNTS).with_context(|| format!("cannot read {MOUNTS}"))?;
    let mounts = bind_mounts(&mounts);
    let netns =
        |(inode, path): (u32, PathBuf)| without_workload(inode, Some(mount_name(&path)), path);
    Ok(mounts.map(netns).collect())
}

/// The namespace of the init process where that may be read, else this process's own: the one
/// that is called "host".
fn current_of_init(mounted: &BTreeMap<u32, Netns>) -> Result<Netns> {
    let path = PathBuf::from("/proc/1/ns/net");
    match link_inode(&path) {
        Ok(inode) => Ok(without_workload(inode, Some("host".to_owned()), path)),
        Err(_) => current_among(|| Ok(mounted.get(&current_inode()?).cloned())),
    }
}

fn current_inode() -> Result<u32> {
    link_inode(Path::new("/proc/self/ns/net"))
}

/// The namespace this process is in.
pub fn current() -> Result<Netns> {
    current_among(|| Ok(of_mounts()?.remove(&current_inode()?)))
}

fn current_among(mounted: impl FnOnce() -> Result<Option<Netns>>) -> Result<Netns> {
    let path = PathBuf::from("/proc/self/ns/net");
    let inode = current_inode()?;
    let init = link_inode(Path::new("/proc/1/ns/net"));
    if init.as_ref().is_ok_and(|init| *init == inode) {
        return Ok(without_workload(inode, Some("host".to_owned()), path));
    }
    // Everybody may see what is mounted; not everybody may look at init.
    match mounted()? {
        Some(mounted) => Ok(mounted),
        None => Ok(without_workload(inode, init.is_err().then(|| "host".to_owned()), path)),
    }
}

fn without_workload(inode: u32, name: Option<String>, path: PathBuf) -> Netns {
    Netns { inode, name, path, workload: Workload::default() }
}

/// The first process of each namespace, which is most often the one that the others came from, and
/// the few after it.
fn of_processes() -> Result<(BTreeMap<u32, Netns>, Residents)> {
    let (mut found, mut residents) = (BTreeMap::new(), Residents::new());
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let Ok(entry) = entry else { continue };
        if !entry.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let path = entry.path().join("ns/net");
        // A process that ended meanwhile, or that this user may not look at, has nothing to add.
        let Ok(inode) = link_inode(&path) else { continue };
        let known = residents.entry(inode).or_default();
        if known.len() < MOST_RESIDENTS
            && let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok())
        {
            known.push(pid);
        }
        found
            .entry(inode)
            .or_insert_with(|| without_workload(inode, process_name(&entry.path()), path));
    }
    Ok((found, residents))
}

/// `ss[4711]`: a namespace without a name of its own is best known by who lives there.
fn process_name(process: &Path) -> Option<String> {
    let comm = fs::read(process.join("comm")).ok()?;
    let comm = String::from_utf8_lossy(&comm);
    let pid = process.file_name()?.to_string_lossy();
    Some(format!("{}[{pid}]", comm.trim_end_matches('\n')))
}

/// The last part of the path; with what made it where that is not `ip netns`.
fn mount_name(path: &Path) -> String {
    let last = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    if path.starts_with("/run/docker/netns") || path.starts_with("/var/run/docker/netns") {
        return format!("docker/{last}");
    }
    last
}

/// Inode number and mount point of every network namespace in a `mountinfo` file. Only fields 4
/// and 5 of a line are looked at.
/// <https://docs.kernel.org/filesystems/proc.html#proc-pid-mountinfo-information-about-mounts>
pub fn bind_mounts(mountinfo: &[u8]) -> impl Iterator<Item = (u32, PathBuf)> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let inode = ns_inode(fields.next()?)?;
        Some((inode, PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(fields.next()?)))))
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{
        super::way::{Target, began},
        *,
    };

    #[test]
    fn bind_mounts_of_network_namespaces_are_found_among_others() {
        let text = b"\
22 27 0:21 / /proc rw,nosuid shared:13 - proc proc rw
331 25 0:4 net:[4026532246] /run/netns/rt rw shared:168 - nsfs nsfs rw
332 25 0:4 net:[4026532300] /run/netns/a\\040b\\134c rw - nsfs nsfs rw
333 25 0:4 mnt:[4026532301] /run/snapd/ns/x.mnt rw - nsfs nsfs rw
garbage
334 25 0:4 net:[nan] /x rw - nsfs nsfs rw
";
        let found: Vec<_> = bind_mounts(text).collect();
        assert_eq!(
            found,
            [
                (4026532246, PathBuf::from("/run/netns/rt")),
                (4026532300, PathBuf::from("/run/netns/a b\\c")),
            ]
        );
    }

    #[test]
    fn names_tell_who_made_the_namespace() {
        assert_eq!(mount_name(Path::new("/run/netns/rt")), "rt");
        assert_eq!(mount_name(Path::new("/run/docker/netns/1f0b")), "docker/1f0b");
    }

    #[test]
    fn a_name_of_ip_netns_is_not_ambiguous() {
        let way = |inode, path: &str| without_workload(inode, None, path.into());
        let (ip, same) = (way(1, "/run/netns/rt"), way(1, "/mnt/rt"));
        let (other, process) = (way(2, "/mnt/other/rt"), way(3, "/proc/7/ns/net"));
        let all = vec![same.clone(), other.clone(), process, ip.clone()];
        assert_eq!(chosen(all), [ip]);
        let two = vec![same.clone(), other.clone(), same.clone()];
        assert_eq!(chosen(two), [same, other]);
    }

    #[test]
    fn paths_lead_to_network_namespaces_only() {
        let own = current().unwrap();
        assert_eq!(at(Path::new("/proc/self/ns/net")).unwrap().inode, own.inode);
        let why = |path: &str| format!("{:#}", at(Path::new(path)).unwrap_err());
        assert!(
            why("/proc/self/ns/mnt").contains("of another kind"),
            "{}",
            why("/proc/self/ns/mnt")
        );
        assert!(why("/dev/null").contains("no network namespace"));
        assert!(why("/no such").contains("cannot open"));
    }

    #[test]
    fn a_process_began_whatever_it_is_called() {
        let rest = "S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 2";
        for name in ["sh", "a b", "x) S 1", ") R 0 0"] {
            assert_eq!(began(&format!("12 ({name}) {rest}")), Some("4711"), "{name}");
        }
        assert_eq!(began("12 (sh) S 1"), None);
    }

    #[test]
    fn an_inode_number_alone_is_no_namespace() {
        let own = current().unwrap();
        let found = find().unwrap();
        // A stranger under the number of one with another cookie.
        let known = Target::new(own.clone(), Some(7));
        assert!(known.is(Some(7)) && !known.is(Some(8)) && !known.is(None));
        assert!(known.is_counted_as(7, true) && !known.is_counted_as(8, true));
        assert!(!known.is_counted_as(own.inode.into(), true), "its number is used again");
        // Without cookies it lives as long as what led to it.
        let process = Netns { path: "/proc/self/ns/net".into(), ..own.clone() };
        let led = Target::new(process.clone(), None);
        assert_eq!(led.among(&found), Some(process.clone()));
        assert!(led.is_counted_as(own.inode.into(), false));
        let other = Target { way: Some("/proc/self/ns/net of 0".to_owned()), ..led };
        assert_eq!(other.among(&found), None);
        assert!(!other.is_counted_as(own.inode.into(), false));
        let mount = Netns { path: "/run/netns/no such".into(), ..own };
        assert_eq!(Target::new(mount, None).among(&found), None);
    }

    #[test]
    fn this_process_is_in_a_namespace_that_is_found() {
        let current = current().unwrap();
        assert!(find().unwrap().contains_key(&current.inode));
    }
}
