//! The first row: what is looked at, and of when it is. Below it what must not be missed.

use crate::{
    model::{Snapshot, Table, planes::ControlPlane},
    output::text::words::{marked, name, number},
    tui::{canvas::Canvas, grid::wide, look::Tone, rows, scene::Scene, state::Pane},
};

pub(super) fn draw(canvas: &mut Canvas<'_>, scene: &Scene<'_>) {
    let columns = canvas.columns();
    let when = when(scene);
    let room = columns.saturating_sub(wide(&when) + 1);
    let mut x = canvas.text(0, 0, room, "ctwatch", Tone::Heading);
    if scene.state.narrowed.is_empty()
        && let Some(header) = scene.header
    {
        x = canvas.text(
            x,
            0,
            room - x,
            &format!(" {}", mechanisms(scene, header.interval, columns)),
            Tone::Plain,
        );
    }
    for step in &scene.state.narrowed {
        x = canvas.text(x, 0, room - x, " > ", Tone::Plain);
        x = canvas.text(x, 0, room - x, step.to.name(), Tone::Heading);
    }
    // That some namespaces are left out shows in each pane.
    let mut filters = vec![scene.state.filter_of(Pane::Namespaces), scene.state.filter()];
    filters.dedup_by(|_, _| scene.state.pane == Pane::Namespaces);
    if scene.state.is_typing {
        filters.pop();
    }
    for filter in filters.into_iter().filter(|filter| !filter.is_empty()) {
        let room = room.saturating_sub(x);
        x = canvas.text(x, 0, room, &format!(" /{filter}"), Tone::Heading);
    }
    let tone = if scene.state.cursor.is_some() { Tone::Selected } else { Tone::Plain };
    canvas.right(0, 0, columns, &when, tone);
}

/// `every 1 s, drops by tracepoint`
fn mechanisms(scene: &Scene<'_>, interval: std::time::Duration, columns: u16) -> String {
    let Some(header) = scene.header else { return String::new() };
    let drops = header.mechanisms.iter().find(|measured| measured.signal == "drops");
    let by = drops.and_then(|measured| measured.mechanism.as_deref());
    let by = by.map_or_else(|| "drops are not measured".to_owned(), |by| format!("drops by {by}"));
    let on = match columns {
        0..100 => String::new(),
        _ => format!(" on Linux {}", header.kernel),
    };
    format!("{}{on}, every {interval:?}, {by}", header.version)
}

/// Of when it is that what is shown.
fn when(scene: &Scene<'_>) -> String {
    let Some(snapshot) = scene.state.shown(scene.history) else { return String::new() };
    let time = snapshot.time.to_zoned(scene.zone.clone()).strftime("%H:%M:%S").to_string();
    let newest = scene.history.newest().map(|kept| kept.snapshot.time);
    let back = newest.map_or(0, |newest| newest.duration_since(snapshot.time).as_secs());
    let state = scene.state;
    match (state.cursor, state.is_recorded, state.is_playing) {
        (_, true, true) => format!("{time} playing"),
        (_, true, false) => format!("{time} recorded"),
        (None, false, _) => format!("{time} live"),
        (Some(_), false, _) => format!("{time} FROZEN -{back}s"),
    }
}

/// Control planes that are dropped now: on a switch they are the outage. Returns how many rows it took.
pub(super) fn alarms(
    canvas: &mut Canvas<'_>,
    scene: &Scene<'_>,
    snapshot: &Snapshot,
    y: u16,
) -> u16 {
    let dropped = |table: &Table| {
        let now = table.control_plane.iter().filter(|of| of.per_s.is_some_and(|per_s| per_s > 0.0));
        let now: Vec<String> = now.map(rate).collect();
        (!now.is_empty()).then(|| format!("{}: {}", name(table), now.join(", ")))
    };
    let mut tables = rows::tables(snapshot, scene.state);
    tables.retain(|table| table.is_judged);
    let all: Vec<String> = tables.into_iter().filter_map(dropped).collect();
    if all.is_empty() {
        return 0;
    }
    let columns = canvas.columns();
    let words = if columns < 60 { "CONTROL PLANE" } else { "CONTROL PLANE DROPPED" };
    canvas.text(0, y, columns, &format!("!! {words} in {}", all.join("; ")), Tone::Alarm);
    canvas.tint(y, Tone::Alarm);
    1
}

fn rate(of: &ControlPlane) -> String {
    let per_s = of.per_s.map_or_else(|| "-".to_owned(), |per_s| format!("{}/s", number(per_s)));
    format!("{} {}", of.protocol, marked(of.exactness, &per_s))
}
