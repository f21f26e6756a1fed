//! Settings that somebody wrote down, and that the kernel does not have.

use super::{
    case::{Case, finding},
    fixes,
    report::{Finding, Severity},
};
use crate::record::facts::{Form, Setting};

pub(super) fn lost_at_boot(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    if facts.form == Form::Absent {
        return Vec::new();
    }
    let mut lost: Vec<(&Setting, u64)> = Vec::new();
    for setting in &facts.settings {
        // The last file wins.
        lost.retain(|(earlier, _)| earlier.name != setting.name);
        if let Some(now) = now(case, &setting.name)
            && setting.value.parse().is_ok_and(|wanted| in_force(&setting.name, wanted) != now)
        {
            lost.push((setting, now));
        }
    }
    if lost.is_empty() {
        return Vec::new();
    }
    let title = "settings for conntrack that are written down are not in force".to_owned();
    let mut found = finding("lost_at_boot", Severity::Warning, title);
    for (setting, now) in &lost {
        let Setting { file, name, value } = setting;
        found.evidence.push(format!("{file} says {name} = {value}; the kernel has {now}"));
    }
    if facts.form == Form::Module {
        found.evidence.push(
            "files of sysctl.d are read at boot; conntrack is a module and is loaded later, with \
             its defaults"
                .to_owned(),
        );
    }
    let mut fix = fixes::fix(match facts.form {
        Form::Module => "apply them now, and whenever the module is loaded",
        _ => "apply them now",
    });
    let changes: Vec<fixes::Change<'_>> = lost
        .iter()
        .filter_map(|(setting, now)| {
            Some((setting.name.as_str(), setting.value.parse().ok()?, *now))
        })
        .collect();
    fixes::set_again(case, &changes, &mut fix);
    fix.breaks = "nothing that the files did not ask for".to_owned();
    fix.expect = "the kernel has what the files say".to_owned();
    found.fixes.push(fix);
    vec![found]
}

/// What the kernel makes of it: buckets fill whole pages.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c> `nf_ct_alloc_hashtable`
fn in_force(name: &str, wanted: u64) -> u64 {
    const OF_A_PAGE: u64 = 512;
    match name {
        "nf_conntrack_buckets" => wanted.checked_next_multiple_of(OF_A_PAGE).unwrap_or(wanted),
        _ => wanted,
    }
}

fn now(case: &Case<'_>, name: &str) -> Option<u64> {
    let facts = case.facts;
    let value = match name {
        "nf_conntrack_max" => facts.limit.as_ref().ok().copied(),
        "nf_conntrack_buckets" => facts.buckets.as_ref().ok().copied(),
        "nf_conntrack_expect_max" => facts.expect_max.as_ref().ok().copied(),
        _ => {
            let host = facts.namespaces.iter().find(|namespace| namespace.is_host())?;
            host.timeouts.get(name).copied()
        }
    };
    value.map(u64::from)
}
