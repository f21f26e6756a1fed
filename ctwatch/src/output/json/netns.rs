//! Which network namespace it is, and what lives there.

use ctwatch_abi::NetnsId;
use serde::Serialize;

use crate::record::{sample::Owner, workload::Workload};

/// A namespace; without a number where it was gone before anybody looked.
#[derive(Default, Serialize)]
pub(super) struct NetnsObject<'a> {
    /// Never used again, as the inode number is; absent on kernels that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<NetnsId>,
    inode: Option<u32>,
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerObject>,
    /// Why the owner is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_unknown: Option<&'a str>,
    #[serde(flatten)]
    workload: WorkloadObject<'a>,
}

/// Absent where it is unknown.
#[derive(Default, Serialize)]
struct WorkloadObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    /// Of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
}

impl<'a> From<&'a Workload> for WorkloadObject<'a> {
    fn from(workload: &'a Workload) -> Self {
        Self {
            pod: workload.pod.as_deref(),
            namespace: workload.namespace.as_deref(),
            container: workload.container.as_deref(),
        }
    }
}

/// Inode numbers of namespaces start here, far above all cookies.
const FIRST_INODE: NetnsId = (1 << 32) - (1 << 28);

impl<'a> NetnsObject<'a> {
    /// What the programs call `id`: by its cookie, or where it has none by its inode number.
    pub(super) fn of(id: NetnsId, inode: Option<u32>) -> Self {
        let is_inode = inode.map_or(id >= FIRST_INODE, |inode| id == NetnsId::from(inode));
        Self { cookie: (!is_inode).then_some(id), inode, ..Self::default() }
    }

    pub(super) fn called(self, name: Option<&'a str>, workload: &'a Workload) -> Self {
        Self { name, workload: workload.into(), ..self }
    }

    pub(super) fn owned(self, owner: &'a Owner) -> Self {
        let (owner, owner_unknown) = match owner {
            Owner::Host => (OwnerObject::Named("host"), None),
            Owner::User(uid) => (OwnerObject::User(*uid), None),
            Owner::Unknown(why) => (OwnerObject::Unknown(()), Some(why.as_str())),
        };
        Self { owner: Some(owner), owner_unknown, ..self }
    }
}

/// `"host"`, the number of a user, or null.
#[derive(Serialize)]
#[serde(untagged)]
enum OwnerObject {
    Named(&'static str),
    User(u32),
    Unknown(()),
}
