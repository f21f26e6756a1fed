//! Which pod or container a network namespace is of, by the cgroups of its processes and the names
//! of the kubelet's folders for logs: no API server, no socket of a runtime.
//!
//! The pod's containers share the namespace, and the oldest process is the sandbox that it was made
//! for (`pause`); a younger one may have come from elsewhere (`nsenter`, an agent of the network), so
//! the oldest decides. How cgroups are named:
//! - kubelet: <https://github.com/kubernetes/kubernetes/blob/v1.31.0/pkg/kubelet/cm/cgroup_manager_linux.go>
//!   `ToSystemd`, `ToCgroupfs`, and `pod_container_manager_linux.go` `podCgroupNamePrefix`
//! - containerd: <https://github.com/containerd/containerd/blob/v2.0.0/internal/cri/server/podsandbox/helpers_linux.go>
//!   `getCgroupsPath`
//! - CRI-O: <https://github.com/cri-o/cri-o/blob/v1.31.0/internal/config/cgmgr/cgmgr_linux.go>
//! - Docker: <https://docs.docker.com/engine/containers/runmetrics/#find-the-cgroup-for-a-given-container>
//! - Podman: <https://github.com/containers/podman/blob/v5.2.0/libpod/oci_conmon_linux.go>
//!   `createUnitName`
//! - LXC: <https://github.com/lxc/lxc/blob/v6.0.0/src/lxc/cgroups/cgroup.h>
//! - systemd-nspawn: <https://systemd.io/CGROUP_DELEGATION/>

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    owner,
    way::{Netns, began_at, inode_of_process},
};
use crate::record::workload::Workload;

/// One folder for each pod: `NAMESPACE_NAME_UID`.
/// <https://github.com/kubernetes/kubernetes/blob/v1.31.0/pkg/kubelet/kuberuntime/helpers.go> `BuildPodLogsDirectory`
const LOGS: &str = "/var/log/pods";
/// A node runs some hundreds; those of pods that are gone are kept for a while.
const MOST_LOGS: usize = 16_384;
/// Each of up to 13 hierarchies has a line, with a path that the kernel cuts at 4 KiB.
const LONGEST: u64 = 64 << 10;
const LONGEST_PATH: usize = 4096;
/// Of one namespace, so many processes are looked at.
pub const MOST_RESIDENTS: usize = 8;
/// Where nothing was found, it is tried again after this, and each time after twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The first processes of each namespace, by its inode number.
pub type Residents = BTreeMap<u32, Vec<u32>>;

/// What a cgroup says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The pod with this UID. That of a static pod is a hash of its file, unless the file has one.
    /// <https://github.com/kubernetes/kubernetes/blob/v1.31.0/pkg/kubelet/config/common.go> `applyDefaults`
    Pod(String),
    Container(String),
}

/// What lives in each network namespace, as far as it was found out.
#[derive(Debug, Default)]
pub struct Workloads {
    known: HashMap<u32, Known>,
}

#[derive(Debug)]
enum Known {
    Found {
        workload: Workload,
        /// The process that showed it, and when that began: a pid is used again.
        pid: u32,
        began: u64,
        /// What led to the namespace then.
        way: Option<String>,
    },
    Nothing {
        residents: Vec<u32>,
        tried: Instant,
        wait: Duration,
    },
}

impl Workloads {
    /// Says of each namespace what lives in it, `host` excepted: pods of the host's network live
    /// there, and it is none of theirs.
    pub fn tell(&mut self, found: &mut BTreeMap<u32, Netns>, residents: &Residents, host: u32) {
        self.known.retain(|inode, _| found.contains_key(inode));
        let mut logs = Logs::default();
        let none = Vec::new();
        for netns in found.values_mut().filter(|netns| netns.inode != host) {
            let residents = residents.get(&netns.inode).unwrap_or(&none);
            netns.workload = self.workload(netns, residents, &mut logs);
        }
    }

    fn workload(&mut self, netns: &Netns, residents: &[u32], logs: &mut Logs) -> Workload {
        let mut wait = FIRST_WAIT;
        match self.known.get(&netns.inode) {
            Some(Known::Found { workload, pid, began, way }) => {
                let lives = || {
                    let is_there = inode_of_process(*pid) == Some(netns.inode);
                    is_there && began_at(*pid) == Some(*began)
                };
                // A mount keeps its namespace, also after the last process of a pod that ends.
                if (way.is_some() && netns.way() == *way) || lives() {
                    return workload.clone();
                }
            }
            Some(Known::Nothing { residents: before, tried, wait: rest }) => {
                let is_same = before == residents;
                if is_same && tried.elapsed() < *rest {
                    return Workload::default();
                }
                if is_same {
                    wait = (*rest * 2).min(LONGEST_WAIT);
                }
            }
            None => {}
        }
        let known = match found(netns, residents, logs) {
            Some((workload, pid, began)) => Known::Found { workload, pid, began, way: netns.way() },
            None => Known::Nothing { residents: residents.to_vec(), tried: Instant::now(), wait },
        };
        let workload = match &known {
            Known::Found { workload, .. } => workload.clone(),
            Known::Nothing { .. } => Workload::default(),
        };
        self.known.insert(netns.inode, known);
        workload
    }
}

/// And which process shows it, and when that began.
fn found(netns: &Netns, residents: &[u32], logs: &mut Logs) -> Option<(Workload, u32, u64)> {
    let shown = residents.iter().filter_map(|pid| {
        let origin = origin(&cgroups(*pid)?)?;
        let began = began_at(*pid)?;
        // After the rest: it may have ended, and its number be another's.
        (inode_of_process(*pid) == Some(netns.inode)).then_some((began, *pid, origin))
    });
    let (began, pid, origin) = shown.min_by_key(|(began, pid, _)| (*began, *pid))?;
    let workload = match origin {
        Origin::Container(name) => Workload { container: Some(name), ..Workload::default() },
        // A user may name cgroups of his own after anybody's pod; kubelet makes none for him.
        Origin::Pod(_) if owner::owner(netns).is_stranger() => return None,
        Origin::Pod(uid) => logs.of(&uid)?,
    };
    Some((workload, pid, began))
}

fn cgroups(pid: u32) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/cgroup")).ok()?;
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a process' `cgroup` file says: `HIERARCHY:CONTROLLERS:PATH` in each line, the unified
/// hierarchy's (version 2) with number 0. Of version 1, one hierarchy may say more than others.
/// <https://man7.org/linux/man-pages/man7/cgroups.7.html>
pub fn origin(text: &str) -> Option<Origin> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let origins: Vec<Origin> = paths.filter_map(of_path).collect();
    let pod = origins.iter().find(|origin| matches!(origin, Origin::Pod(_)));
    pod.or(origins.first()).cloned()
}

/// The innermost decides: a container may be a node, and run pods.
fn of_path(path: &str) -> Option<Origin> {
    if path.len() > LONGEST_PATH {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let above = |at: usize| at.checked_sub(1).and_then(|at| parts.get(at)).copied();
    let from_within = || parts.iter().enumerate().rev();
    let pod = from_within().find_map(|(at, part)| Some(Origin::Pod(pod(part, above(at))?)));
    let container = || from_within().find_map(|(at, part)| container(part, above(at)));
    // The container of a pod is not told of, however it is named.
    pod.or_else(|| container().map(Origin::Container))
}

/// `kubepods-burstable-podUID.slice` by systemd, with `:cri-containerd:ID` where kubelet and runtime
/// do not agree on the driver; `podUID` below `kubepods` or its class by cgroupfs. `..` is above where
/// this process' cgroup namespace hides the rest.
fn pod(part: &str, above: Option<&str>) -> Option<String> {
    let first = part.split(':').next()?;
    if let Some(slice) = first.strip_suffix(".slice") {
        let (class, uid) = slice.rsplit_once("-pod")?;
        let classes = ["kubepods", "kubepods-burstable", "kubepods-besteffort"];
        // Below a root of its own: `kubelet-kubepods-burstable`.
        let is_root = |root: &str| root.is_empty() || root.ends_with('-');
        let is_known = classes.iter().any(|known| class.strip_suffix(known).is_some_and(is_root));
        // A hyphen would be one more level of slices.
        return uid_of(uid.replace('_', "-")).filter(|_| is_known);
    }
    let is_below = matches!(above?, "kubepods" | "burstable" | "besteffort" | "..");
    let uid = first.strip_prefix("pod").filter(|_| is_below)?;
    uid_of(uid.to_owned())
}

/// A UUID, 32 digits of a hash, or what the file of a static pod says.
fn uid_of(uid: String) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    ((8..=64).contains(&uid.len()) && uid.bytes().all(plain)).then_some(uid)
}

fn container(part: &str, above: Option<&str>) -> Option<String> {
    if let Some(scope) = part.strip_suffix(".scope") {
        let by = ["docker-", "libpod-", "nerdctl-"];
        if let Some(id) = by.iter().find_map(|by| short(scope.strip_prefix(by)?)) {
            return Some(id);
        }
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return named(name);
    }
    match above? {
        "docker" => short(part),
        "libpod_parent" => short(part.strip_prefix("libpod-")?),
        "lxc" => named(part),
        "machine.slice" => {
            let service = || part.strip_prefix("systemd-nspawn@")?.strip_suffix(".service");
            let machine =
                part.strip_prefix("machine-").and_then(|name| name.strip_suffix(".scope"));
            named(&unescaped(machine.or_else(service)?)?)
        }
        _ => None,
    }
}

/// 64 digits, of which everybody writes the first twelve.
fn short(id: &str) -> Option<String> {
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id[..12].to_owned())
}

fn named(name: &str) -> Option<String> {
    (!name.is_empty() && name.len() <= 255).then(|| name.to_owned())
}

/// `\x2d` is a hyphen: in names of units, each stands for a slash.
/// <https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html#String%20Escaping%20for%20Inclusion%20in%20Unit%20Names>
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split("\\x");
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Names of pods by UID, read once for all that are asked for at one time.
#[derive(Debug, Default)]
struct Logs {
    /// `None`: two folders have this UID, and one of them is a lie.
    of: Option<HashMap<String, Option<Workload>>>,
}

impl Logs {
    fn of(&mut self, uid: &str) -> Option<Workload> {
        self.of.get_or_insert_with(|| read(Path::new(LOGS))).get(uid)?.clone()
    }
}

/// One that cannot be listed has nothing in it.
fn read(folder: &Path) -> HashMap<String, Option<Workload>> {
    let mut of = HashMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_LOGS) {
        let name = entry.file_name();
        let Some((uid, workload)) = name.to_str().and_then(folder_name) else { continue };
        of.entry(uid).and_modify(|known| *known = None).or_insert(Some(workload));
    }
    of
}

/// `kube-system_coredns-5d78c9869d-7wgzp_6f2d…`: no name in Kubernetes has an underscore.
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>
pub fn folder_name(name: &str) -> Option<(String, Workload)> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let is_name = |name: &str| (1..=253).contains(&name.len()) && name.bytes().all(plain);
    let is_whole = parts.next().is_none() && is_name(namespace) && is_name(pod);
    let workload = Workload {
        pod: Some(pod.to_owned()),
        namespace: Some(namespace.to_owned()),
        container: None,
    };
    Some((uid_of(uid.to_owned()).filter(|_| is_whole)?, workload))
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
