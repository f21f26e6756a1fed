//! What each timeout holds in the table.
//!
//! An entry that a packet refreshes has its whole time left; so one that has been idle for longer
//! than the shorter time would be gone has less left than the difference. That is arithmetic on a
//! census, and it holds where connections keep coming as they did. It is done only for entries that
//! live by that timeout, and only where room is short.

use ctwatch_abi::protocol::{ICMP, TCP, UDP};

use super::{
    case::{Case, finding, number, percent},
    fixes, incident,
    report::{Finding, Fix, Severity},
};
use crate::{
    model::{census::StateCount, effect::Effect, names::protocol},
    record::facts::Namespace,
};

/// A timeout that may be shortened.
struct Timeout {
    sysctl: &'static str,
    /// Protocol and state, in conntrack's words, of the entries it is for.
    of: &'static [(u8, Option<&'static str>)],
    shorter: u32,
    breaks: &'static str,
}

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

/// TCP entries whose last packet was not acknowledged, or repeated too often, live by these where
/// the timeout of their state is longer.
const STALLED: [&str; 2] =
    ["nf_conntrack_tcp_timeout_unacknowledged", "nf_conntrack_tcp_timeout_max_retrans"];

pub(super) fn timeouts(case: &Case<'_>) -> Vec<Finding> {
    let one = |namespace: &Namespace| {
        // A table with room has no use for it.
        if !case.is_filling(namespace) && !incident::was_short(namespace) {
            return None;
        }
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
            Some(fill) if fill >= super::case::FULL && most as f64 >= SHARE * all as f64 => {
                Severity::Warning
            }
            _ => Severity::Info,
        };
        let mut found = finding("timeouts", severity, title).about([namespace]);
        found.evidence = table.states.iter().take(6).map(|state| held(namespace, state)).collect();
        found.fixes = gains.into_iter().map(|(_, fix)| fix).collect();
        Some(found)
    };
    case.facts.namespaces.iter().filter_map(one).collect()
}

fn held(namespace: &Namespace, state: &StateCount) -> String {
    let protocol = protocol(state.protocol);
    let name = state.name().map_or(protocol.clone(), |name| format!("{protocol} {name}"));
    let mut words = format!("{name}: {} entries", number(state.holds.all()));
    if let Some(picked_up) = picked_up(namespace, state) {
        words += &format!("; {picked_up}");
    }
    let others = by_something_else(namespace, state);
    if others > 0 {
        words += &format!(
            "; about {} have more time left than their sysctl gives: a helper, a timeout policy or \
             ctnetlink set it, or the sysctl was shortened since",
            number(others),
        );
    }
    words
}

/// Connections of which one direction never came by here.
pub(super) fn picked_up(namespace: &Namespace, state: &StateCount) -> Option<String> {
    let is_picked_up = (state.protocol, state.name()) == (TCP, Some("ESTABLISHED"));
    if !is_picked_up || state.unreplied == 0 {
        return None;
    }
    let [unacknowledged, _] = STALLED;
    let seconds = namespace.timeouts.get(unacknowledged);
    let seconds = seconds.map_or_else(String::new, |seconds| format!(" ({seconds} s)"));
    Some(format!(
        "no reply was ever seen for {} of the {} connections of TCP in ESTABLISHED: they were picked \
         up in the middle, one direction passes elsewhere, and they live by \
         {unacknowledged}{seconds} at most",
        number(state.unreplied),
        number(state.holds.all()),
    ))
}

/// Entries with more time left than the timeout of their state gives.
fn by_something_else(namespace: &Namespace, state: &StateCount) -> u64 {
    let id = (state.protocol, state.name());
    let timeout = TIMEOUTS.iter().find(|timeout| timeout.of.contains(&id));
    let now = timeout.and_then(|timeout| namespace.timeouts.get(timeout.sysctl));
    now.map_or(0, |now| {
        state.regular.below(u32::MAX).saturating_sub(state.regular.below(beyond(*now)))
    })
}

/// Longer than this by any reading: lifetimes are counted in steps of a sixteenth.
fn beyond(seconds: u32) -> u32 {
    seconds.saturating_add(seconds / 8).saturating_add(2)
}

/// How many entries would be gone.
#[derive(Clone, Copy, Default)]
struct Gone {
    at_least: u64,
    about: u64,
    at_most: u64,
}

impl std::iter::Sum for Gone {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            at_least: sum.at_least + one.at_least,
            about: sum.about + one.about,
            at_most: sum.at_most + one.at_most,
        })
    }
}

/// Entries that live by this timeout and would be gone with the shorter one.
fn gone(namespace: &Namespace, state: &StateCount, now: u32, shorter: u32) -> Gone {
    let difference = now.saturating_sub(shorter);
    let regular = &state.regular;
    let stalled = STALLED.iter().filter_map(|name| namespace.timeouts.get(*name)).max();
    // It may be that these are stalled, and not that they were silent for so long.
    let stalled = stalled.filter(|stalled| state.protocol == TCP && **stalled <= shorter);
    let stalled = |count: &dyn Fn(u32) -> u64| stalled.map_or(0, |stalled| count(stalled + 1));
    // Those that live by something longer pass through here too, each second as many as above.
    let longer = regular.below(beyond(now).saturating_mul(2));
    let longer = longer.saturating_sub(regular.below(beyond(now)));
    let passing = longer.saturating_mul(difference.into()) / u64::from(beyond(now).max(1));
    let less = |count: u64, stalled: u64| count.saturating_sub(stalled).saturating_sub(passing);
    let about = |seconds| regular.about_below(seconds);
    let above = |seconds| regular.below(beyond(seconds));
    Gone {
        at_least: less(regular.below(difference), stalled(&above)),
        about: less(about(difference), stalled(&about)),
        at_most: above(difference) + state.holds.expired,
    }
}

fn gain(
    case: &Case<'_>,
    namespace: &Namespace,
    states: &[StateCount],
    timeout: &Timeout,
    all: u64,
) -> Option<(u64, Fix)> {
    let now = *namespace.timeouts.get(timeout.sysctl)?;
    if now <= timeout.shorter {
        return None;
    }
    let these = states.iter().filter(|state| timeout.of.contains(&(state.protocol, state.name())));
    let all_gone: Gone = these.map(|state| gone(namespace, state, now, timeout.shorter)).sum();
    let gone = all_gone.about;
    if gone < ENTRIES || (gone as f64) < SHARE * all as f64 {
        return None;
    }
    let name = timeout.sysctl.trim_start_matches("nf_conntrack_");
    let mut fix = fixes::fix(&format!("{name} {now} -> {}", timeout.shorter));
    let change = (timeout.sysctl, u64::from(timeout.shorter), u64::from(now));
    fixes::set(case, Some(namespace), name, &[change], &mut fix);
    timeout.breaks.clone_into(&mut fix.breaks);
    // What lives by a policy is not told from what lives by the sysctl.
    let may_have_policy =
        namespace.timeout_policy().is_some() || namespace.nft.is_err() || namespace.legacy.is_err();
    let at_least = if may_have_policy { 0 } else { all_gone.at_least };
    fix.effect =
        Some(Effect::Fewer { netns: namespace.id, of: all, at_least, at_most: all_gone.at_most });
    let share = percent(gone as f64 / all.max(1) as f64);
    let how_many = match namespace.timeout_policy() {
        None => format!("about {} entries less ({share})", number(gone)),
        Some((table, rule)) => format!(
            "at most {} entries less ({share}), without those that live by the timeout policy of table \
             {} {}, chain {}, rule {}",
            number(gone),
            table.family,
            table.name,
            rule.chain,
            rule.number
        ),
    };
    fix.expect = format!(
        "{how_many}, {now} s from now at the latest: what is in the table keeps the time it was given"
    );
    Some((gone, fix))
}

#[cfg(test)]
mod tests {

    use ctwatch_abi::top::{By, Key};

    use super::{
        super::cases::{facts, found, of, taken},
        *,
    };
    use crate::{
        model::census::{Census, SEED, Taken},
        record::{
            entry::{Held, Left, Status},
            facts::Facts,
        },
    };

    const REPLIED: u32 = 1 << 1 | 1 << 2;

    /// Entries of TCP: state, status, seconds left.
    fn census(held: impl Iterator<Item = (u8, u32, u32)>) -> Taken {
        let mut census = Census::new(&[By::Service], SEED);
        for (state, status, seconds) in held {
            let key = Key { netns: 1, protocol: TCP, family: 2, ..Key::default() };
            let (status, left) = (Status(1 << 3 | status), Left::Seconds(seconds));
            census.enter(&Held { key, translated: key, status, state, zone: 0, left });
        }
        taken(census)
    }

    fn machine(entries: u32) -> Facts {
        let mut facts = facts(entries);
        facts.namespaces[0].timeouts.extend(
            [
                ("nf_conntrack_tcp_timeout_established", 432_000),
                ("nf_conntrack_tcp_timeout_close_wait", 3_600),
                ("nf_conntrack_tcp_timeout_unacknowledged", 300),
                ("nf_conntrack_tcp_timeout_max_retrans", 300),
            ]
            .map(|(name, seconds)| (name.to_owned(), seconds)),
        );
        facts
    }

    fn advised(facts: &Facts, taken: &Taken) -> Vec<String> {
        let all = found(facts, Some(taken));
        let fixes = all.iter().filter(|one| one.id == "timeouts").flat_map(|one| &one.fixes);
        fixes.map(|fix| format!("{}: {}", fix.title, fix.expect)).collect()
    }

    #[test]
    fn what_was_never_answered_lives_by_another_timeout() {
        let picked_up = census((0..950).map(|_| (3, 0, 299)));
        let facts = machine(950);
        assert_eq!(advised(&facts, &picked_up), [""; 0]);
        // Beside others that a fix helps, it is said.
        let some = (0..950).map(|_| (3, 0, 299));
        let both = census(some.chain((0..950).map(|_| (3, REPLIED, 1_000))));
        let all = found(&facts, Some(&both));
        let timeouts = of(&all, "timeouts");
        assert!(timeouts.fixes[0].expect.starts_with("about 950 entries less"), "{timeouts:?}");
        let evidence = timeouts.evidence.join("\n");
        assert!(evidence.contains("no reply was ever seen for 950 of the 1,900"), "{evidence}");
        assert!(evidence.contains("unacknowledged (300 s)"), "{evidence}");
    }

    #[test]
    fn what_may_be_stalled_or_offloaded_is_not_credited() {
        let facts = machine(950);
        let stalled = census((0..950).map(|at| (3, REPLIED, at % 300)));
        assert_eq!(advised(&facts, &stalled), [""; 0]);
        let offloaded = census((0..950).map(|_| (3, REPLIED | 1 << 14, 86_399)));
        assert_eq!(advised(&facts, &offloaded), [""; 0]);
        let silent = census((0..950).map(|_| (3, REPLIED, 86_399)));
        assert_eq!(advised(&facts, &silent).len(), 1);
    }

    #[test]
    fn what_lives_by_something_longer_is_not_credited() {
        // By a policy of 600 s, one for each second; the sysctl says 120.
        let mut facts = machine(950);
        let policy = census((0..600).map(|second| (7, REPLIED, second)));
        assert_eq!(advised(&facts, &policy), [""; 0]);
        facts.namespaces[0].timeouts.insert("nf_conntrack_tcp_timeout_time_wait".to_owned(), 600);
        assert_eq!(advised(&facts, &policy).len(), 1, "and now it says 600");
    }

    #[test]
    fn a_table_with_room_gets_no_advice_on_timeouts() {
        let silent = census((0..700).map(|_| (3, REPLIED, 1_000)));
        assert!(found(&machine(700), Some(&silent)).is_empty());
        let mut was_full = machine(700);
        was_full.namespaces[0].totals.as_mut().unwrap().early_drop = 1;
        assert_eq!(advised(&was_full, &silent).len(), 1);
    }

    #[test]
    fn what_kube_proxy_sets_is_said_to_be_its_own() {
        let mut facts = machine(950);
        facts.namespaces[0].nft.as_mut().unwrap()[0].chain("KUBE-SERVICES");
        let waiting = census((0..950).map(|at| (5, REPLIED, at * 3)));
        let all = found(&facts, Some(&waiting));
        let fix = &of(&all, "timeouts").fixes[0];
        assert!(fix.title.starts_with("tcp_timeout_close_wait 3600 -> 30"), "{fix:?}");
        assert!(fix.files.is_empty(), "{fix:?}");
        assert!(fix.lasts.iter().any(|line| line.contains("tcpCloseWaitTimeout")), "{fix:?}");
    }
}
