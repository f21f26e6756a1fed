//! What each timeout holds in the table.
//!
//! An entry that a packet refreshes has its whole time left; so one that has been idle for longer
//! than the shorter time would be gone has less left than the difference. That is arithmetic on a
//! census, and it holds where connections keep coming as they did.

use super::{Case, finding, fixes, number, percent};
use crate::{
    facts::Namespace,
    model::{census::StateCount, names::protocol},
    report::{Finding, Fix, Severity},
};

/// A timeout that may be shortened.
struct Timeout {
    sysctl: &'static str,
    /// Protocol and state, in conntrack's words, of the entries it is for.
    of: &'static [(u8, Option<&'static str>)],
    shorter: u32,
    breaks: &'static str,
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

const TIMEOUTS: &[Timeout] = &[
    Timeout {
        sysctl: "nf_conntrack_tcp_timeout_established",
        of: &[(TCP, Some("ESTABLISHED"))],
        shorter: 86_400,
        breaks: "connections that are silent for a day lose their entry: behind NAT they break",
    },
    Timeout {
        sysctl: "nf_conntrack_tcp_timeout_time_wait",
        of: &[(TCP, Some("TIME_WAIT"))],
        shorter: 30,
        breaks: "nothing but stray packets of connections that are over",
    },
    Timeout {
        sysctl: "nf_conntrack_tcp_timeout_fin_wait",
        of: &[(TCP, Some("FIN_WAIT"))],
        shorter: 30,
        breaks: "half-closed connections that are silent for half a minute",
    },
    Timeout {
        sysctl: "nf_conntrack_tcp_timeout_close_wait",
        of: &[(TCP, Some("CLOSE_WAIT"))],
        shorter: 30,
        breaks: "half-closed connections that are silent for half a minute",
    },
    Timeout {
        sysctl: "nf_conntrack_tcp_timeout_syn_sent",
        of: &[(TCP, Some("SYN_SENT"))],
        shorter: 20,
        breaks: "connections to hosts that take longer than that to answer",
    },
    Timeout {
        sysctl: "nf_conntrack_tcp_timeout_syn_recv",
        of: &[(TCP, Some("SYN_RECV"))],
        shorter: 20,
        breaks: "connections from hosts that take longer than that to answer",
    },
    Timeout {
        sysctl: "nf_conntrack_udp_timeout",
        of: &[(UDP, None)],
        shorter: 10,
        breaks: "answers that take longer than that, as of slow name servers",
    },
    Timeout {
        sysctl: "nf_conntrack_udp_timeout_stream",
        of: &[(UDP, Some("ASSURED"))],
        shorter: 60,
        breaks: "conversations by UDP that pause for more than a minute: behind NAT, calls and VPNs",
    },
    Timeout {
        sysctl: "nf_conntrack_icmp_timeout",
        of: &[(ICMP, None)],
        shorter: 10,
        breaks: "answers to ping that take longer than that",
    },
];

/// Less than this is not worth a change.
const SHARE: f64 = 0.02;
const ENTRIES: u64 = 20;

pub(super) fn timeouts(case: &Case<'_>) -> Vec<Finding> {
    let one = |namespace: &Namespace| {
        let table = case.census.ok()?.counted.table(namespace.id)?;
        let all = table.holds.all();
        let mut gains: Vec<(u64, Fix)> = TIMEOUTS
            .iter()
            .filter_map(|timeout| gain(case, namespace, &table.states, timeout, all))
            .collect();
        gains.sort_by_key(|(entries, _)| std::cmp::Reverse(*entries));
        let most = gains.first()?.0;
        let title = format!(
            "of {} entries of {}, up to {} wait for timeouts that could be shorter",
            number(all),
            namespace.called(),
            number(gains.iter().map(|(entries, _)| entries).sum::<u64>()),
        );
        let severity = match case.fill(namespace) {
            Some(fill) if fill >= super::FULL && most as f64 >= SHARE * all as f64 => {
                Severity::Warning
            }
            _ => Severity::Info,
        };
        let mut found = finding("timeouts", severity, title);
        found.evidence = table.states.iter().take(6).map(held).collect();
        found.fixes = gains.into_iter().map(|(_, fix)| fix).collect();
        Some(found)
    };
    case.facts.namespaces.iter().filter_map(one).collect()
}

fn held(state: &StateCount) -> String {
    let protocol = protocol(state.protocol);
    let name = state.name().map_or(protocol.clone(), |name| format!("{protocol} {name}"));
    format!("{name}: {} entries", number(state.holds.all()))
}

fn gain(
    case: &Case<'_>,
    namespace: &Namespace,
    states: &[StateCount],
    timeout: &Timeout,
    all: u64,
) -> Option<(u64, Fix)> {
    let now = *namespace.timeouts.get(timeout.sysctl)?;
    let difference = now.checked_sub(timeout.shorter).filter(|difference| *difference > 0)?;
    let these = states.iter().filter(|state| timeout.of.contains(&(state.protocol, state.name())));
    let gone: u64 = these.map(|state| state.lifetimes.about_below(difference)).sum();
    if gone < ENTRIES || (gone as f64) < SHARE * all as f64 {
        return None;
    }
    let name = timeout.sysctl.trim_start_matches("nf_conntrack_");
    let mut fix = fixes::fix(&format!("{name} {now} -> {}", timeout.shorter));
    let change = (timeout.sysctl, u64::from(timeout.shorter), u64::from(now));
    fixes::set(case, Some(namespace), name, &[change], &mut fix);
    timeout.breaks.clone_into(&mut fix.breaks);
    fix.expect = format!(
        "about {} entries less ({}), {now} s from now at the latest: what is in the table keeps the \
         time it was given",
        number(gone),
        percent(gone as f64 / all.max(1) as f64),
    );
    Some((gone, fix))
}
