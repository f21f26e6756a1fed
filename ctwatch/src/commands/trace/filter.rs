//! From options to what the programs let through, and what the programs in use can tell.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    cli::{Port, TraceArgs, Which},
    model::names,
    observe::wanted::Whose,
    output::services::Services,
    probe::trace::{ANY_OWNER, Filter, Reason},
    record::measurement::Mechanism,
};

/// Reasons that were asked for and that the programs in use cannot tell.
pub(super) fn unseen(args: &TraceArgs, mechanism: Mechanism) -> Option<String> {
    let wanted = args.reason.iter().map(|reason| Reason::from(*reason));
    let unseen = wanted.filter(|reason| !is_told(*reason, mechanism));
    let unseen: Vec<&str> = unseen.map(Reason::name).collect();
    (!unseen.is_empty()).then(|| unseen.join(", "))
}

pub(super) fn is_told(reason: Reason, mechanism: Mechanism) -> bool {
    let by_tracepoint = mechanism == Mechanism::Tracepoint;
    matches!(reason, Reason::Untracked | Reason::Unconfirmed) == by_tracepoint
}

/// The port that is wanted, whatever it is called.
pub(super) fn port(args: &TraceArgs, services: &Services) -> Result<Option<u16>, String> {
    let protocol = args.proto.map(|protocol| names::protocol(protocol.0));
    match &args.dport {
        None => Ok(None),
        Some(Port::Number(port)) => Ok(Some(*port)),
        Some(Port::Service(name)) => services.port(name, protocol.as_deref()).map(Some),
    }
}

/// In whichever namespace.
pub(in crate::commands) fn filter(args: &TraceArgs, dport: Option<u16>) -> Result<Filter, String> {
    let reasons = args.reason.iter().map(|reason| 1 << Reason::from(*reason) as u32);
    let reasons = reasons.fold(0, |all, one| all | one);
    let (src_family, src, src_mask) = prefix(args.src.as_ref());
    let (dst_family, dst, dst_mask) = prefix(args.dst.as_ref());
    if src_family != 0 && dst_family != 0 && src_family != dst_family {
        return Err("--src and --dst are of different families: no packet has both".to_owned());
    }
    Ok(Filter {
        rate: args.rate,
        netns: 0,
        owner: wanted_owner(&args.which),
        is_chosen: 0,
        src,
        src_mask,
        dst,
        dst_mask,
        reasons: if reasons == 0 { u32::MAX } else { reasons },
        family: src_family.max(dst_family),
        protocol: args.proto.map_or(256, |protocol| protocol.0.into()),
        dport: dport.map_or(65_536, |port| port.to_be().into()),
    })
}

/// Family, address and mask.
pub(super) fn prefix(wanted: Option<&IpNet>) -> (u32, [u64; 2], [u64; 2]) {
    let Some(net) = wanted else { return (0, [0; 2], [0; 2]) };
    let family = match net {
        IpNet::V4(_) => 2,
        IpNet::V6(_) => 10,
    };
    (family, words(net.network()), words(net.netmask()))
}

/// As the programs keep addresses.
pub(super) fn words(address: IpAddr) -> [u64; 2] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)]
}

/// As the programs know it. Those of others are told of too, unless somebody says otherwise: each line
/// says whose it is, and none is an alarm.
pub(super) fn wanted_owner(which: &Which) -> u64 {
    match which.owner {
        None | Some(Whose::HostFirst | Whose::All) => ANY_OWNER,
        Some(Whose::Host) => 0,
        Some(Whose::User(uid)) => uid.into(),
    }
}
