//! Where things are in the running kernel, for the programs: from BTF and kallsyms.

use anyhow::{Result, ensure};
use ctwatch_ebpf::{Code, Layout};

use crate::host::{btf::Btf, symbols::Symbols};

const FREE: &str = "nf_conntrack_free";
const HOOK_SLOW: &str = "nf_hook_slow";

/// A layout, and for each half of it why it is not usable.
pub struct Resolved {
    pub layout: Layout,
    pub drops: Result<(), String>,
    pub entries: Result<(), String>,
}

impl Resolved {
    /// Reads the kernel's BTF and symbols once; neither is kept.
    pub fn of_this_kernel() -> Self {
        let mut layout = Layout::default();
        let both = Btf::vmlinux().and_then(|btf| {
            let symbols = Symbols::read(&[FREE, HOOK_SLOW])?;
            Ok((btf, symbols))
        });
        let (btf, symbols) = match both {
            Ok(both) => both,
            Err(error) => {
                let why = Err(format!("{error:#}"));
                return Self { layout, drops: why.clone(), entries: why };
            }
        };
        let drops = named(&btf, &mut layout)
            .and_then(|()| dropped(&btf, &symbols, &mut layout))
            .map_err(|error| format!("{error:#}"));
        let entries = named(&btf, &mut layout)
            .and_then(|()| ended(&symbols, &mut layout))
            .map_err(|error| format!("{error:#}"));
        Self { layout, drops, entries }
    }
}

/// What both need: an entry, and the name of its namespace.
fn named(btf: &Btf, layout: &mut Layout) -> Result<()> {
    layout.nf_conn_status = btf.offset("nf_conn", "status")?;
    layout.nf_conn_net = btf.offset("nf_conn", "ct_net")?;
    layout.net_inum = btf.offset("net", "ns.inum")?;
    // Kernels before 5.12 have none; the inode number then stands in for it.
    layout.net_cookie = btf.offset("net", "net_cookie").unwrap_or(0);
    Ok(())
}

fn dropped(btf: &Btf, symbols: &Symbols, layout: &mut Layout) -> Result<()> {
    layout.netfilter_drop = btf.enumerator("skb_drop_reason", "SKB_DROP_REASON_NETFILTER_DROP")?;
    layout.skb_nfct = btf.offset("sk_buff", "_nfct")?;
    layout.skb_dev_sk = btf.offset("sk_buff", "dev")?;
    let sk = btf.offset("sk_buff", "sk")?;
    ensure!(sk == layout.skb_dev_sk + 8, "this kernel's struct sk_buff is laid out otherwise");
    layout.net_device_nd_net = btf.offset("net_device", "nd_net")?;
    layout.sock_net = btf.offset("sock", "__sk_common.skc_net")?;
    layout.nf_hook_slow = code(symbols, HOOK_SLOW)?;
    Ok(())
}

fn ended(symbols: &Symbols, layout: &mut Layout) -> Result<()> {
    layout.nf_conntrack_free = code(symbols, FREE)?;
    Ok(())
}

fn code(symbols: &Symbols, name: &str) -> Result<Code> {
    symbols.code(name).map_err(anyhow::Error::msg)
}
