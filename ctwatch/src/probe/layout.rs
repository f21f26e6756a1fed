//! Where things are in the running kernel, for the programs: from BTF and kallsyms.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use ctwatch_ebpf::{Code, Layout};

use super::functions::{Functions, Hook};
use crate::host::{self, btf::Btf, symbols::Symbols};

const FREE: &str = Hook::Free.function();
const HOOK_SLOW: &str = "nf_hook_slow";
/// What conntrack is called where it is a module.
pub const MODULE: &str = "nf_conntrack";

/// A layout, and for each part of it why it is not usable.
pub struct Resolved {
    pub layout: Layout,
    pub entries: Result<(), String>,
    pub drops: Result<(), String>,
    pub free: Result<(), String>,
    /// Conntrack's functions, as tracing programs are attached to them.
    pub fexit: Result<Functions, String>,
    /// The same, as probes are.
    pub kprobe: Result<Functions, String>,
}

impl Resolved {
    /// What is known by BTF alone: enough for programs on functions that BTF names. Reading
    /// kallsyms takes as long as all the rest of starting.
    pub fn by_btf() -> Self {
        Self::with(Err("not looked for".to_owned()))
    }

    /// Reads the kernel's BTF and symbols once; neither is kept.
    pub fn of_this_kernel() -> Self {
        let mut wanted = vec![HOOK_SLOW];
        wanted.extend(Hook::ALL.map(Hook::function));
        Self::with(Symbols::read(&wanted).map_err(|error| format!("{error:#}")))
    }

    fn with(symbols: Result<Symbols, String>) -> Self {
        let mut layout = Layout {
            pt_regs_sp: stack_pointer(),
            freed_before_told: u32::from(freed_before_told(&host::kernel_release())),
            ..Layout::default()
        };
        let said = |error: anyhow::Error| format!("{error:#}");
        let btf = Btf::vmlinux().map_err(said);
        let known = || btf.as_ref().map_err(Clone::clone);
        let named = || symbols.as_ref().map_err(Clone::clone);
        Self {
            entries: known().and_then(|btf| entries(btf, &mut layout).map_err(said)),
            drops: known().and_then(|btf| {
                let symbols = named()?;
                dropped(btf, symbols, &mut layout).map_err(said)
            }),
            free: named().and_then(|symbols| {
                layout.nf_conntrack_free = symbols.code(FREE)?;
                Ok(())
            }),
            fexit: known().and_then(|btf| traceable(btf).map_err(said)),
            kprobe: named().and_then(|symbols| probeable(symbols).map_err(said)),
            layout,
        }
    }
}

/// A packet, an entry, its tuples, and the name of its namespace.
fn entries(btf: &Btf<'_>, layout: &mut Layout) -> Result<()> {
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
    // Kernels before 5.12 have none; the inode number then stands in for it.
    layout.net_cookie = btf.offset("net", "net_cookie").unwrap_or(0);
    Ok(())
}

fn dropped(btf: &Btf<'_>, symbols: &Symbols, layout: &mut Layout) -> Result<()> {
    // Older kernels give no reasons; the place where a packet is dropped tells as much.
    layout.netfilter_drop = match btf.enumerator("skb_drop_reason", "SKB_NOT_DROPPED_YET") {
        Ok(_) => btf.enumerator("skb_drop_reason", "SKB_DROP_REASON_NETFILTER_DROP")?,
        Err(_) => 0,
    };
    layout.nf_hook_slow = code(symbols, HOOK_SLOW)?;
    Ok(())
}

fn code(symbols: &Symbols, name: &str) -> Result<Code> {
    symbols.code(name).map_err(anyhow::Error::msg)
}

/// In vmlinux's BTF where conntrack is built in, in the module's where it is a module.
fn traceable(btf: &Btf<'_>) -> Result<Functions> {
    if btf.function(FREE).is_ok() {
        return functions(btf, false);
    }
    functions(&Btf::module(MODULE, btf)?, true)
}

fn functions(btf: &Btf<'_>, module: bool) -> Result<Functions> {
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

fn probeable(symbols: &Symbols) -> Result<Functions> {
    let places = [
        "/sys/bus/event_source/devices/kprobe",
        "/sys/kernel/tracing/kprobe_events",
        "/sys/kernel/debug/tracing/kprobe_events",
    ];
    ensure!(
        places.iter().any(|place| Path::new(place).exists()),
        "this kernel has no kprobes (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)"
    );
    let module = symbols.in_module(FREE).unwrap_or(false);
    Functions::find(module, |hook| match symbols.in_module(hook.function()) {
        Some(_) => Ok(0),
        None => bail!("/proc/kallsyms has no function {}", hook.function()),
    })
}

/// Whether `kmem:kmem_cache_free` comes after the object was given back. It moved before that in
/// Linux 5.17, for this very reason, and nothing but the version tells. A kernel that moved it and
/// calls itself older gets wider bounds, not wrong ones.
/// <https://github.com/torvalds/linux/blob/v5.10/mm/slub.c#L3168>
fn freed_before_told(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (5, 17),
        _ => true,
    }
}

/// Where the kernel's `struct pt_regs` keeps the stack pointer: it begins as what `ptrace` shows.
fn stack_pointer() -> u32 {
    #[cfg(target_arch = "x86_64")]
    let offset = std::mem::offset_of!(libc::user_regs_struct, rsp);
    #[cfg(target_arch = "aarch64")]
    let offset = std::mem::offset_of!(libc::user_regs_struct, sp);
    u32::try_from(offset).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::freed_before_told;

    #[test]
    fn releases_before_and_after_the_tracepoint_moved() {
        for old in ["4.19.0-27-amd64", "5.10.0-32-cloud-amd64", "5.16.20", "", "next"] {
            assert!(freed_before_told(old), "{old}");
        }
        for new in ["5.17.0", "6.1.0-50-cloud-amd64", "6.12.117+deb13", "10.0"] {
            assert!(!freed_before_told(new), "{new}");
        }
    }
}
