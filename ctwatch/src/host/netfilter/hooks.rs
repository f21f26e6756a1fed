//! Functions that netfilter calls for packets in the calling thread's namespace (Linux 5.14).
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nfnetlink_hook.h>

use anyhow::{Context, Result};

use super::{
    attributes::{attribute, be32, text},
    ctnetlink::{Ctnetlink, Dumped, NFGENMSG, whole},
    nft::is_unknown,
};
use crate::{
    host::kernel::modules,
    record::facts::{Hook, Known},
};

/// `NFNL_SUBSYS_HOOK << 8 | NFNL_MSG_HOOK_GET`
const GET: u16 = 12 << 8;
const NFNLA_HOOK_HOOKNUM: u16 = 1;
const NFNLA_HOOK_PRIORITY: u16 = 2;
const NFNLA_HOOK_FUNCTION_NAME: u16 = 4;
const NFNLA_HOOK_MODULE_NAME: u16 = 5;

const FAMILIES: [(u8, &str); 2] = [(2, "ip"), (10, "ip6")];
/// `enum nf_inet_hooks`
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// Whether asking loads nothing; the same in all namespaces.
pub fn may_be_asked() -> Known<()> {
    // Kernels before 5.14 do not have it: nobody is told to load what is not there.
    match modules::is_on_disk("nfnetlink_hook") {
        Some(true) => Err("nfnetlink_hook is not loaded (modprobe nfnetlink_hook)".to_owned()),
        None => {
            let why = "whether nfnetlink_hook is loaded is not known, and asking could load it";
            Err(why.to_owned())
        }
        Some(false) => Ok(()),
    }
}

/// Where they [may be asked for](may_be_asked).
pub fn hooks() -> Known<Vec<Hook>> {
    read().map_err(|error| match is_unknown(&error) {
        true => "this kernel does not say (CONFIG_NETFILTER_NETLINK_HOOK, Linux 5.14)".to_owned(),
        false => format!("{error:#}"),
    })
}

fn read() -> Result<Vec<Hook>> {
    let mut socket = Ctnetlink::open()?;
    whole("the hooks", || read_once(&mut socket))
}

fn read_once(socket: &mut Ctnetlink) -> Result<(Vec<Hook>, Dumped)> {
    let (mut hooks, mut dumped) = (Vec::new(), Dumped::Whole);
    for (number, family) in FAMILIES {
        for (at, hook) in (0u32..).zip(HOOKS) {
            let question = question(at);
            dumped = dumped.and(socket.dump_of(GET, GET, number, &question, |body| {
                hooks.push(parse(body, family, hook)?);
                Ok(())
            })?);
        }
    }
    Ok((hooks, dumped))
}

fn question(hook: u32) -> Vec<u8> {
    let mut bytes = [8u16.to_ne_bytes(), NFNLA_HOOK_HOOKNUM.to_ne_bytes()].concat();
    bytes.extend_from_slice(&hook.to_be_bytes());
    bytes
}

/// One message of the dump.
pub fn parse(body: &[u8], family: &'static str, hook: &'static str) -> Result<Hook> {
    let body = body.get(NFGENMSG..).context("an answer without a netfilter header")?;
    let priority = attribute(body, NFNLA_HOOK_PRIORITY).and_then(be32);
    Ok(Hook {
        family: family.into(),
        hook: hook.into(),
        priority: priority.context("a hook without a priority")?.cast_signed(),
        function: attribute(body, NFNLA_HOOK_FUNCTION_NAME).map(text).unwrap_or_default(),
        module: attribute(body, NFNLA_HOOK_MODULE_NAME).map(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0];
        body.extend([8, 0, 2, 0, 0xff, 0xff, 0xff, 0x38]);
        let name = b"ipv4_conntrack_in\0";
        body.extend(u16::to_ne_bytes(4 + name.len() as u16));
        body.extend([4, 0]);
        body.extend(name);
        body
    }

    #[test]
    fn a_hook_has_a_name_and_a_priority() {
        let hook = parse(&body(), "ip", "prerouting").unwrap();
        assert_eq!((hook.priority, hook.function.as_str()), (-200, "ipv4_conntrack_in"));
        assert!(hook.tracks() && hook.module.is_none());
    }

    #[test]
    fn a_truncated_answer_is_an_error_or_less() {
        for len in 0..body().len() {
            let hook = parse(&body()[..len], "ip", "input");
            assert!(hook.map_or(true, |hook| !hook.tracks()), "{len}");
        }
    }
}
