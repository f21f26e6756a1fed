//! By what the doctor's report of another machine goes.

use crate::diagnosis::report::{NotUnderstood, Offline};

/// Of which machine, and of when, it is.
pub(super) fn head(offline: &Offline, kernel: &str) -> String {
    let host = offline.host.as_deref().map_or("a host without a name", |host| host);
    let time = match &offline.time {
        Some(time) => format!("as of {time}"),
        None => "of an unknown time".to_owned(),
    };
    format!("on {}: {host}, Linux {kernel}, {time}", offline.path)
}

/// What was read, what could not be, and what that leaves open.
pub(super) fn lines(offline: &Offline) -> Vec<String> {
    let mut lines = vec!["read".to_owned()];
    lines.extend(offline.read.iter().map(|(what, count)| match count {
        1 => format!("  {what}"),
        count => format!("  {what}, {count} times"),
    }));
    if offline.read.is_empty() {
        lines.push("  nothing that is known here".to_owned());
    }
    match offline.not_recognised {
        0 => {}
        1 => lines.push("  1 piece more, which is none of these".to_owned()),
        more => lines.push(format!("  {more} pieces more, which are none of these")),
    }
    lines.extend(offline.notes.iter().map(|note| format!("  {note}")));
    if !offline.undecided.is_empty() {
        lines.push("undecided, and what settles it".to_owned());
    }
    lines.extend(
        offline
            .undecided
            .iter()
            .map(|one| format!("  {}: {} ({})", one.unknown, one.command, one.findings.join(", "))),
    );
    if !offline.not_understood.is_empty() {
        lines.push("not understood".to_owned());
    }
    lines.extend(offline.not_understood.iter().map(not_understood));
    if offline.more_not_understood > 0 {
        lines.push(format!("  and {} lines more", offline.more_not_understood));
    }
    lines
}

fn not_understood(one: &NotUnderstood) -> String {
    let NotUnderstood { piece, line, text, why } = one;
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    format!("  {piece} line {line}{why}: {text}")
}
