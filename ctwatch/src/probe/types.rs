//! What the kernel's BTF says, of everything that is wanted here. Gone over once: what comes of it
//! is a few numbers, which are kept; the types themselves only for as long as somebody holds them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use anyhow::{Result, bail, ensure};
use ctwatch_abi::{Layout, loading};

use super::{
    functions::{Functions, HookedFunction},
    offsets::Offsets,
};
use crate::host::kernel::btf::Btf;

/// What conntrack is called where it is a module.
pub const MODULE: &str = "nf_conntrack";

/// The type of functions that the tracepoint `skb:kfree_skb` calls, by which programs are attached to it.
const DROP_TRACEPOINT: &str = "btf_trace_kfree_skb";

/// Structs, enums, functions and tracepoints.
const WANTED: &[&str] = &[
    "mm_struct",
    "module",
    "net",
    "net_device",
    "nf_conn",
    "nf_conntrack_tuple",
    "nf_conntrack_tuple_hash",
    "sk_buff",
    "skb_drop_reason",
    "sock",
    "task_struct",
    "user_namespace",
    DROP_TRACEPOINT,
    HookedFunction::Alloc.function(),
    HookedFunction::EarlyDrop.function(),
    HookedFunction::Insert.function(),
    HookedFunction::Free.function(),
    HookedFunction::Clash.function(),
    HookedFunction::Confirm.function(),
];

/// Each part by itself: what one lacks may be of no matter to another.
pub(super) struct Types {
    /// Of a layout, where things are in packets and entries.
    pub(super) entries: Result<Layout, String>,
    /// `SKB_DROP_REASON_NETFILTER_DROP`; 0 where packets are dropped without a reason.
    pub(super) netfilter_drop: Result<u32, String>,
    /// The number of that type; `None`: programs are attached by the tracepoint's name.
    pub(super) drop_tracepoint: Option<u32>,
    pub(super) census: Result<(Offsets, Layout), String>,
    pub(super) loading: Result<loading::Layout, String>,
    /// Conntrack's functions; `None` where they are not vmlinux's.
    functions: Option<Result<Functions, String>>,
}

static TYPES: OnceLock<Result<Types, String>> = OnceLock::new();
static VMLINUX: Mutex<Weak<Btf>> = Mutex::new(Weak::new());

/// Holds vmlinux's types: whoever needs them meanwhile need not read them again.
pub struct HeldTypes(#[expect(dead_code, reason = "held, and not looked at")] Result<Arc<Btf>>);

pub fn hold() -> HeldTypes {
    HeldTypes(vmlinux())
}

fn vmlinux() -> Result<Arc<Btf>> {
    let mut known = VMLINUX.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(btf) = known.upgrade() {
        return Ok(btf);
    }
    let btf = Arc::new(Btf::vmlinux(WANTED)?);
    *known = Arc::downgrade(&btf);
    Ok(btf)
}

impl Types {
    pub(super) fn of_this_kernel() -> Result<&'static Self, String> {
        let types = TYPES.get_or_init(|| vmlinux().map(|btf| Self::find(&btf)).map_err(said));
        types.as_ref().map_err(Clone::clone)
    }

    fn find(btf: &Btf) -> Self {
        let mut entries = Layout::default();
        Self {
            entries: find_entries(btf, &mut entries).map(|()| entries).map_err(said),
            netfilter_drop: netfilter_drop(btf).map_err(said),
            drop_tracepoint: btf.typedef(DROP_TRACEPOINT),
            census: Offsets::find(btf).map_err(said),
            loading: find_loading(btf).map_err(said),
            functions: btf
                .function(HookedFunction::Free.function())
                .is_ok()
                .then(|| functions(btf, false).map_err(said)),
        }
    }

    /// In vmlinux's BTF where conntrack is built in, in the module's where it is a module: that is
    /// read each time, for it may have been loaded anew.
    pub(super) fn functions(&self) -> Result<Functions, String> {
        match &self.functions {
            Some(functions) => functions.clone(),
            None => vmlinux()
                .and_then(|base| functions(&Btf::module(MODULE, &base, WANTED)?, true))
                .map_err(said),
        }
    }
}

fn said(error: anyhow::Error) -> String {
    format!("{error:#}")
}

/// A packet, an entry, its tuples, and the name of its namespace.
fn find_entries(btf: &Btf, layout: &mut Layout) -> Result<()> {
    layout.nf_conn_status = btf.offset("nf_conn", "status")?;
    layout.nf_conn_net = btf.offset("nf_conn", "ct_net")?;
    layout.nf_conn_use = btf.offset("nf_conn", "ct_general.use")?;
    layout.net_inum = btf.offset("net", "ns.inum")?;
    layout.skb_nfct = btf.offset("sk_buff", "_nfct")?;
    layout.skb_dev_sk = btf.offset("sk_buff", "dev")?;
    let sk = btf.offset("sk_buff", "sk")?;
    ensure!(sk == layout.skb_dev_sk + 8, "this kernel's struct sk_buff is laid out otherwise");
    let (tail, head) = (btf.offset("sk_buff", "tail")?, btf.offset("sk_buff", "head")?);
    layout.skb_tail_to_head = head.saturating_sub(tail);
    // With a gap in between where `tail` is aligned that way.
    let is_known = matches!(layout.skb_tail_to_head, 8 | 12);
    ensure!(is_known, "this kernel's struct sk_buff is laid out otherwise");
    layout.skb_before_head = head - 16;
    layout.skb_network_header = btf.offset("sk_buff", "network_header")?;
    layout.skb_iif = btf.offset("sk_buff", "skb_iif")?;
    layout.net_device_nd_net = btf.offset("net_device", "nd_net")?;
    layout.sock_net = btf.offset("sock", "__sk_common.skc_net")?;
    let hash = "nf_conntrack_tuple_hash";
    layout.hash_tuple = btf.offset(hash, "tuple")?;
    layout.nf_conn_original = btf.offset("nf_conn", "tuplehash")? + layout.hash_tuple;
    layout.nf_conn_reply = layout.nf_conn_original + btf.size(hash)?;
    let tuple = btf.size("nf_conntrack_tuple")?;
    ensure!(tuple == 40, "this kernel's struct nf_conntrack_tuple has {tuple} bytes and not 40");
    // Without it, all namespaces are taken for the host's.
    if let (Ok(user_ns), Ok(owner)) =
        (btf.offset("net", "user_ns"), btf.offset("user_namespace", "owner"))
    {
        (layout.net_user_ns, layout.user_ns_owner) = (user_ns, owner);
    }
    // Kernels before 5.12 have none; the inode number then stands in for it.
    layout.net_cookie = btf.offset("net", "net_cookie").unwrap_or(0);
    Ok(())
}

/// Where things are in a process and in a module.
fn find_loading(btf: &Btf) -> Result<loading::Layout> {
    let task = |path| btf.offset("task_struct", path);
    Ok(loading::Layout {
        module_name: btf.offset("module", "name")?,
        task_parent: task("real_parent")?,
        task_tgid: task("tgid")?,
        task_comm: task("comm")?,
        task_flags: task("flags")?,
        task_began: task("start_time")?,
        task_mm: task("mm")?,
        mm_arg_end: btf.offset("mm_struct", "arg_end")?,
    })
}

/// Older kernels give no reasons; the place where a packet is dropped tells as much.
fn netfilter_drop(btf: &Btf) -> Result<u32> {
    match btf.enumerator("skb_drop_reason", "SKB_NOT_DROPPED_YET") {
        Ok(_) => btf.enumerator("skb_drop_reason", "SKB_DROP_REASON_NETFILTER_DROP"),
        Err(_) => Ok(0),
    }
}

fn functions(btf: &Btf, module: bool) -> Result<Functions> {
    Functions::find(module, |hook| {
        let function = btf.function(hook.function())?;
        // What the programs take for arguments must be that.
        let arguments = function.arguments;
        match hook.arguments() {
            Some(wanted) if wanted != arguments => {
                bail!("this kernel's {} takes {arguments} arguments", hook.function())
            }
            _ => Ok(function.id),
        }
    })
}
