//! How full the table is.

use ctwatch_abi::top::Stream;

use super::{
    case::{Case, FULL, MUCH, finding, number, percent, so_many},
    causes, fixes,
    report::{Finding, Fix, Severity},
};
use crate::{
    model::{Table, effect::Effect},
    record::facts::{Namespace, Setting, Writable},
};

/// Full, or it was: packets are refused.
pub(super) fn table_full(case: &Case<'_>) -> Vec<Finding> {
    let full = case.facts.namespaces.iter().filter(|namespace| case.is_full(namespace));
    full.filter_map(|namespace| full_one(case, namespace)).collect()
}

fn full_one(case: &Case<'_>, namespace: &Namespace) -> Option<Finding> {
    let (entries, limit) = (*namespace.entries.as_ref().ok()?, case.limit()?);
    let refused = case.live(namespace).map(|table| table.drops.table_full);
    let so = match refused.map(|refused| (refused.at_least, refused.total)) {
        Some((Some(1..), _)) => "packets of new connections are dropped".to_owned(),
        Some((_, Some(0))) => "none was dropped during the look".to_owned(),
        Some((_, Some(most))) => {
            format!("up to {} were dropped during the look", number(most))
        }
        _ => "packets of new connections are dropped where nothing makes room for them".to_owned(),
    };
    let full = if entries >= limit { "full" } else { "as good as full" };
    let title = format!(
        "the table of {} is {full}: {} of {} entries; {so}",
        namespace.called(),
        number(entries),
        number(limit),
    );
    let mut found = finding("table_full", Severity::Critical, title).about([namespace]);
    found.evidence = evidence(case, namespace);
    found.fixes.extend(raise(case, entries, limit));
    found.fixes.extend(causes::limit_source(case, namespace));
    Some(found)
}

/// Not full yet.
pub(super) fn filling(case: &Case<'_>) -> Vec<Finding> {
    let one = |namespace: &Namespace| {
        let fill = case.fill(namespace).filter(|fill| (MUCH..FULL).contains(fill))?;
        let (entries, limit) = (*namespace.entries.as_ref().ok()?, case.limit()?);
        let title = format!("the table of {} is {} full", namespace.called(), percent(fill));
        let mut found = finding("table_filling", Severity::Warning, title).about([namespace]);
        found.evidence = evidence(case, namespace);
        found.fixes.extend(raise(case, entries, limit));
        found.fixes.extend(causes::limit_source(case, namespace));
        Some(found)
    };
    case.facts.namespaces.iter().filter_map(one).collect()
}

fn evidence(case: &Case<'_>, namespace: &Namespace) -> Vec<String> {
    let mut evidence = Vec::new();
    match &namespace.totals {
        Ok(totals) => evidence.push(format!(
            "{}, by the kernel's counters: drop {} (full table, no memory and lost clashes \
             together), early_drop {}, insert_failed {}",
            if namespace.is_host() { "since boot" } else { "since the namespace was made" },
            number(totals.drop),
            number(totals.early_drop),
            number(totals.insert_failed),
        )),
        Err(why) => evidence.push(format!("the kernel's counters are unknown: {why}")),
    }
    if let Some(table) = case.live(namespace) {
        let seconds = case.live.map_or(0.0, |live| live.elapsed.as_secs_f64());
        let mut words = Vec::new();
        for (reason, figure) in table.drops.named() {
            match figure.total {
                Some(0) => {}
                Some(total) => {
                    words.push(format!("{reason} {} ({})", number(total), figure.exactness.name()))
                }
                None => words.push(format!("{reason} unavailable")),
            }
        }
        let mut words = if words.is_empty() { "none".to_owned() } else { words.join(", ") };
        if let Some(all) = table.dropped.total.filter(|all| *all > 0) {
            words += &format!("; {} in all", number(all));
        }
        evidence.push(format!("dropped in the last {seconds:.1} s: {words}"));
        evidence.extend(refused(table));
    }
    match case.census {
        Ok(taken) => {
            let holds = taken.counted.table(namespace.id).map(|table| table.holds);
            let holds = holds.unwrap_or_default();
            let all = holds.all().max(1);
            let share = |count: u64| percent(count as f64 / all as f64);
            let mut held = format!(
                "{} pinned ({}): they stay until their time is over; {} closing ({}); {} \
                 reclaimable ({}): thrown out for new ones where the kernel finds them in a chain",
                number(holds.pinned),
                share(holds.pinned),
                number(holds.closing),
                share(holds.closing),
                number(holds.reclaimable),
                share(holds.reclaimable),
            );
            if holds.expired > 0 {
                held += &format!(
                    "; {} expired ({}): gone when the garbage collector comes across them",
                    number(holds.expired),
                    share(holds.expired),
                );
            }
            evidence.push(held);
        }
        Err(why) => evidence.push(format!("pinned or reclaimable is unknown: {why}")),
    }
    evidence.extend(causes::common(case, namespace));
    evidence.extend(log_evidence(case, namespace));
    evidence
}

/// Whose packets were refused meanwhile, as far as that is certain.
fn refused(table: &Table) -> Vec<String> {
    const MOST: usize = 5;
    let mut lines = Vec::new();
    for list in table.top.iter().filter(|list| list.stream == Stream::Drops) {
        let certain = list.entries.iter().filter(|entry| entry.at_least() > 0).take(MOST);
        let words = certain.map(|entry| {
            let name = entry.name(list.by, |_, _| None);
            let (least, most) = (entry.at_least(), entry.at_most());
            match (least == most, entry.estimate) {
                (true, None) => format!("{name} {}", number(most)),
                (false, None) => format!("{name} {} to {}", number(least), number(most)),
                (_, Some(_)) => format!("{name} about {} to {}", number(least), number(most)),
            }
        });
        let words: Vec<String> = words.collect();
        if !words.is_empty() {
            lines.push(format!("dropped by {}: {}", list.by.name(), words.join("; ")));
        }
    }
    let control = table.control_plane.iter();
    let control = control.map(|found| format!("{} {}", found.protocol, number(found.at_least)));
    let control: Vec<String> = control.collect();
    if !control.is_empty() {
        lines.push(format!("control plane dropped, at least: {}", control.join(", ")));
    }
    lines
}

/// What the log says, against what was counted.
fn log_evidence(case: &Case<'_>, namespace: &Namespace) -> Option<String> {
    let log = match &case.facts.log {
        Ok(log) => log,
        Err(why) => return Some(format!("the kernel's log is unknown: {why}")),
    };
    if log.table_full == 0 {
        return None;
    }
    let lines = so_many(log.table_full, "line", "lines");
    let mut said = format!(
        "the kernel's log holds {lines} of \"table full, dropping packet\", of all namespaces"
    );
    if log.suppressed > 0 {
        said += &format!("; up to {} more were suppressed", number(log.suppressed));
    }
    if let Ok(totals) = &namespace.totals {
        said += &format!("; its counters say {} in this namespace", number(totals.drop));
    }
    Some(said)
}

/// Twice as much room, as many buckets, and what it takes.
fn raise(case: &Case<'_>, entries: u32, limit: u32) -> Option<Fix> {
    // One number for all namespaces: what the fullest needs, and the same in each finding.
    let fullest =
        case.facts.namespaces.iter().filter_map(|n| n.entries.as_ref().ok().copied()).max();
    let most = limit.max(entries).max(fullest.unwrap_or(0));
    let wanted = u64::from(most).checked_mul(2)?.next_power_of_two();
    // Where nobody knows how many there are, an undo could not be told.
    let old_buckets = case.facts.buckets.as_ref().map(|buckets| u64::from(*buckets));
    // Elsewhere, they can be.
    let here = case.facts.limit_is == Writable::Yes;
    let buckets = match (&case.facts.buckets_by, old_buckets) {
        (_, Err(_)) => 0,
        (Err(_), Ok(old)) if here => old,
        (_, Ok(old)) => wanted.max(old),
    };
    let mut fix = fixes::fix(match buckets < wanted {
        false => "raise the limit, with as many buckets",
        true => "raise the limit",
    });
    let of_buckets = old_buckets.iter().map(|old| ("nf_conntrack_buckets", buckets, *old));
    let of_limit = ("nf_conntrack_max", wanted, u64::from(limit));
    let changes: Vec<_> = of_buckets.chain([of_limit]).collect();
    fixes::set(case, None, "limit", &changes, &mut fix);
    fix.effect = Some(Effect::Limit { to: wanted });
    fix.breaks = match &case.facts.slab {
        Ok(slab) => {
            let bytes = wanted * slab.size + buckets.max(old_buckets.unwrap_or(0)) * 8;
            let of = case.facts.memory.as_ref().ok().filter(|memory| **memory > 0);
            let of = of.map(|all| format!(", {} of all", percent(bytes as f64 / *all as f64)));
            format!(
                "nothing, but a full table then takes {} MB of memory{}",
                number(bytes / 1_000_000),
                of.unwrap_or_default()
            )
        }
        Err(why) => format!("nothing; what memory a full table then takes is unknown: {why}"),
    };
    let fill = f64::from(entries) / wanted as f64;
    fix.expect = format!(
        "the table is {} full instead of {}, until more come; nothing is dropped until it is full again. This \
         does not stop the source",
        percent(fill),
        percent(f64::from(entries) / f64::from(limit)),
    );
    match (old_buckets, &case.facts.buckets_by) {
        (Err(why), _) => {
            fix.expect += &format!(". Chains grow longer where there are few buckets: {why}");
        }
        (Ok(old), Err(why)) if buckets < wanted => {
            fix.expect +=
                &format!(". Chains grow longer: there are {} buckets, and {why}", number(old));
        }
        _ => {}
    }
    for setting in later_settings(case, &fix) {
        fix.expect += &format!(
            ". At boot {} comes later and says {} = {}: change it there too",
            setting.file, setting.name, setting.value
        );
    }
    Some(fix)
}

/// Settings of files that are read after ours, and of the same name.
fn later_settings<'a>(case: &Case<'a>, fix: &Fix) -> Vec<&'a Setting> {
    let Some(ours) = fix.files.first() else { return Vec::new() };
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let is_later = |file: &str| file == "/etc/sysctl.conf" || name(file) > name(&ours.path);
    let is_ours = |setting: &&Setting| {
        let line = format!("net.netfilter.{} = ", setting.name);
        ours.content.contains(&line) && is_later(&setting.file)
    };
    case.facts.settings.iter().filter(is_ours).collect()
}

/// What could not be found out: said once, never guessed.
pub(super) fn unknown(case: &Case<'_>) -> Vec<Finding> {
    if case.facts.form == crate::record::facts::Form::Absent {
        return Vec::new();
    }
    let mut unknown = Vec::new();
    let mut note =
        |what: &str, why: &str| unknown.push(format!("{what} is unknown, because {why}"));
    if let Err(why) = &case.facts.limit {
        note("the limit", why);
    }
    for namespace in &case.facts.namespaces {
        if let Err(why) = &namespace.entries {
            note(&format!("how many entries {} has", namespace.called()), why);
        }
        if let Err(why) = &namespace.totals {
            note(&format!("what was counted in {}", namespace.called()), why);
        }
    }
    if unknown.is_empty() {
        return Vec::new();
    }
    let title = "how full the table is could not all be found out".to_owned();
    let mut found = finding("unknown", Severity::Warning, title);
    found.evidence = unknown;
    vec![found]
}
