//! What lives in a network namespace, where Kubernetes or a container runtime made it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::is_default;

/// A pod's containers share one network namespace, so the pod is the fact and its containers are not
/// named. `container` is for what has a network namespace of its own: Docker, Podman, LXC, nspawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod: Option<String>,
    /// Of Kubernetes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespace: Option<String>,
    /// A name, or the first 12 digits of an id, as `docker ps` prints it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub container: Option<String>,
}

impl Workload {
    /// `NAMESPACE/POD`
    pub fn of_pod(&self) -> Option<String> {
        Some(format!("{}/{}", self.namespace.as_ref()?, self.pod.as_ref()?))
    }

    /// The name of a network namespace as text shows it: `NAMESPACE/POD` in place of a name that only
    /// a machine knows.
    pub fn shown<'a>(&self, name: Option<&'a str>) -> Option<Cow<'a, str>> {
        match (name, self.of_pod()) {
            (Some(name), Some(_)) if !is_made_up(name) => Some(name.into()),
            (_, Some(pod)) => Some(pod.into()),
            (name, None) => name.map(Cow::from),
        }
    }

    /// All names by which a pattern knows it; `called` is the one without the pod.
    pub fn names(&self, called: String) -> impl Iterator<Item = String> {
        std::iter::once(called).chain(self.of_pod())
    }
}

/// Whether a runtime or ctwatch made this name up: `cni-UUID` (containerd), a bare UUID (CRI-O), a
/// number, `docker/ID`, `pause[4711]` after a process.
/// <https://github.com/containerd/containerd/blob/v2.0.0/pkg/netns/netns_linux.go> `newNS`
/// <https://github.com/cri-o/cri-o/blob/v1.31.0/internal/config/nsmgr/nsmgr_linux.go> `NewPodNamespaces`
fn is_made_up(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let of_process = || {
        let (_, pid) = name.strip_suffix(']')?.rsplit_once('[')?;
        Some(digits(pid))
    };
    name.starts_with("docker/")
        || digits(name)
        || is_uuid(name.strip_prefix("cni-").unwrap_or(name))
        || of_process() == Some(true)
}

fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    text.split('-').count() == lengths.len()
        && text.split('-').zip(lengths).all(|(part, length)| hex(part, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coredns() -> Workload {
        let (pod, namespace) = (Some("coredns-0".to_owned()), Some("kube-system".to_owned()));
        Workload { pod, namespace, container: None }
    }

    #[test]
    fn a_pod_replaces_only_names_of_machines() {
        let pod = coredns();
        for machine in [
            "cni-2a4b6c8d-0e1f-2a3b-4c5d-6e7f8a9b0c1d",
            "2a4b6c8d-0e1f-2a3b-4c5d-6e7f8a9b0c1d",
            "4711",
            "docker/1f0b2c3d4e5f",
            "pause[4711]",
        ] {
            assert_eq!(pod.shown(Some(machine)).unwrap(), "kube-system/coredns-0", "{machine}");
            assert_eq!(Workload::default().shown(Some(machine)).unwrap(), machine);
        }
        for person in ["rt", "host", "cni-blue", "a[b]", "x]", "cni-", ""] {
            assert_eq!(pod.shown(Some(person)).unwrap(), person);
        }
        assert_eq!(pod.shown(None).unwrap(), "kube-system/coredns-0");
        assert_eq!(Workload::default().shown(None), None);
    }

    #[test]
    fn half_a_pod_is_no_name() {
        for half in [
            Workload { pod: None, ..coredns() },
            Workload { namespace: None, ..coredns() },
            Workload { container: Some("web".to_owned()), ..Workload::default() },
        ] {
            assert_eq!((half.of_pod(), half.shown(None)), (None, None));
        }
    }
}
