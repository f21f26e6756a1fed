//! What is said of one namespace: what is dropped and why, what holds it, how it came to that, and who it is.

use ctwatch_abi::top::By;

use super::{bars, lists};
use crate::{
    model::{
        Snapshot, Table,
        census::Holds,
        figure::{Exactness, Figure},
    },
    output::text::{
        shares::shares,
        words::{marked, name, number, percent, time_to_full, total},
    },
    tui::{
        canvas::Canvas,
        columns::rate,
        history,
        look::Tone,
        rows::grouping,
        scene::{Band, Scene, WINDOW},
        state::TopState,
        states::states,
    },
};

pub(super) fn draw(
    canvas: &mut Canvas<'_>,
    scene: &Scene<'_>,
    snapshot: &Snapshot,
    table: &Table,
    place: Band,
) {
    let Band { mut y, rows } = place;
    let end = y + rows;
    let columns = canvas.columns();
    if rows < 2 {
        return;
    }
    canvas.rule(y, &heading(table), Tone::Heading);
    y += 1;
    // Lists of who it is come before what takes room.
    let listed = match rows {
        0..5 => 0,
        5..9 => 3,
        9..14 => 4,
        _ => 6,
    };
    let free = |y: u16| end.saturating_sub(y + listed);
    for line in dropped(table, columns) {
        if free(y) == 0 && rows >= 5 {
            break;
        }
        let parts: Vec<(&str, Tone)> =
            line.iter().map(|(text, tone)| (text.as_str(), *tone)).collect();
        canvas.parts(1, y, columns - 1, &parts);
        y += 1;
    }
    if let Some(planes) = planes(table).filter(|_| free(y) > 0) {
        canvas.text(1, y, columns - 1, &planes, Tone::Bad);
        y += 1;
    }
    if free(y) > 0 {
        canvas.text(
            1,
            y,
            columns - 1,
            &holding(scene.state, snapshot, table, columns),
            Tone::Plain,
        );
        y += 1;
    }
    let tall = if rows >= 30 { 4 } else { 1 };
    if free(y) >= 2 * tall {
        charts(canvas, scene, table, y, tall);
        y += 2 * tall;
    }
    // Where there is room, by each of the other groupings too.
    let by = grouping(scene.state);
    let others = scene.state.groupings.iter().copied().filter(|other| *other != by);
    let groupings: Vec<By> = std::iter::once(by).chain(others).collect();
    let many = match end.saturating_sub(y) {
        room @ 20.. => usize::from(room / 10).min(groupings.len()),
        _ => 1,
    };
    for (at, by) in groupings.into_iter().take(many).enumerate() {
        let left = end.saturating_sub(y);
        let rows = left / u16::try_from(many - at).unwrap_or(1);
        let taken = lists::three(canvas, scene, snapshot, table, by, Band { y, rows });
        y += taken.min(rows) + u16::from(taken < rows);
    }
}

/// `rt: 950 of 1000 entries, full in 12s`
fn heading(table: &Table) -> String {
    let full = match time_to_full(table).as_str() {
        "FULL" => ", FULL".to_owned(),
        "-" => String::new(),
        time => format!(", full in {time}"),
    };
    let entries = match (table.entries, table.limit) {
        (Some(entries), Some(limit)) if limit > 0 => {
            format!(": {entries} of {limit} entries ({})", percent(table.fill))
        }
        (Some(entries), _) => format!(": {entries} entries, no limit"),
        (None, _) => ": not readable".to_owned(),
    };
    format!("{}{entries}{full}", name(table))
}

/// Each reason with its rate and its total; what is exactly none, and what is not measured, together.
fn dropped(table: &Table, columns: u16) -> Vec<Vec<(String, Tone)>> {
    let all = &table.dropped;
    let is_none = |figure: &Figure| figure.exactness == Exactness::Exact && figure.total == Some(0);
    let is_unknown = |figure: &Figure| figure.total.is_none();
    let reasons = table.drops.named();
    let mut parts: Vec<(String, Tone)> = Vec::new();
    match () {
        () if is_unknown(all) => parts.push(("dropped: not measured".to_owned(), Tone::Warning)),
        () if is_none(all) => parts.push(("dropped: 0".to_owned(), Tone::Plain)),
        () => {
            let tone = if all.per_s > Some(0.0) { Tone::Bad } else { Tone::Plain };
            parts.push((format!("dropped: {}/s, {} in all", rate(all), total(all)), tone));
        }
    }
    for (reason, figure) in
        reasons.iter().filter(|(_, figure)| !is_none(figure) && !is_unknown(figure))
    {
        let tone = if figure.per_s > Some(0.0) { Tone::Bad } else { Tone::Plain };
        parts.push((format!("{reason} {}/s {}", rate(figure), total(figure)), tone));
    }
    let together = &table.drops.clash_or_nat_exhausted;
    let is_exact = |figure: &Figure| figure.exactness == Exactness::Exact;
    if is_exact(together) && !(is_exact(&table.drops.clash) && is_exact(&table.drops.nat_exhausted))
    {
        parts.push((format!("clash and nat_exhausted together {}", total(together)), Tone::Plain));
    }
    let evicted = &table.evictions.early_drop;
    if !is_none(evicted) && !is_unknown(evicted) {
        parts.push((format!("evicted {}/s {}", rate(evicted), total(evicted)), Tone::Warning));
    }
    let names = |wanted: &dyn Fn(&Figure) -> bool| {
        let named = reasons.iter().filter(|(_, figure)| wanted(figure)).map(|(name, _)| *name);
        named.collect::<Vec<_>>().join(", ")
    };
    let (none, unknown) = (names(&is_none), names(&is_unknown));
    if !none.is_empty() && !is_none(all) {
        parts.push((format!("0 {none}"), Tone::Faint));
    }
    if !unknown.is_empty() {
        parts.push((format!("not measured {unknown}"), Tone::Faint));
    }
    flowing(parts, columns)
}

/// As many to a line as fit.
fn flowing(parts: Vec<(String, Tone)>, columns: u16) -> Vec<Vec<(String, Tone)>> {
    let mut lines: Vec<Vec<(String, Tone)>> = vec![Vec::new()];
    let mut used = 0;
    for (text, tone) in parts {
        let wide = text.chars().count() + 2;
        if used > 0 && used + wide > usize::from(columns) {
            lines.push(Vec::new());
            used = 0;
        }
        let separator = if used > 0 { "; " } else { "" };
        used += wide;
        if let Some(line) = lines.last_mut() {
            line.push((format!("{separator}{text}"), tone));
        }
    }
    lines
}

/// What was dropped of control planes, also a while ago.
fn planes(table: &Table) -> Option<String> {
    let each = table.control_plane.iter();
    let each: Vec<String> = each
        .map(|of| format!("{} {}", of.protocol, marked(of.exactness, &of.at_least.to_string())))
        .collect();
    (!each.is_empty()).then(|| format!("control plane dropped: {}", each.join(", ")))
}

/// By the last census, which may be of before: its age is told.
fn holding(state: &TopState, snapshot: &Snapshot, table: &Table, columns: u16) -> String {
    let Some((taken, age)) = &snapshot.census else { return "holding: no census yet".to_owned() };
    let age = age.as_secs();
    if let Some((_, name)) = state.state() {
        let rows = states(snapshot, table, state).unwrap_or_default();
        let (entries, share) = rows.first().map_or((0, None), |row| (row.entries, row.share));
        let share = percent(share);
        return format!("{name}: {entries} entries, {share} ({age} s ago); *: of all states");
    }
    match snapshot.census(table).map(|census| &census.holds).filter(|holds| holds.all() > 0) {
        Some(holds) if columns >= 100 => {
            format!("holding: {}; census by {} {age} s ago", shares(holds), taken.by)
        }
        Some(holds) => {
            let share = |count: u64| percent(Some(count as f64 / holds.all() as f64));
            let Holds { pinned, closing, reclaimable, .. } = *holds;
            format!(
                "holding: pinned {}, closing {}, reclaimable {} ({age} s ago)",
                share(pinned),
                share(closing),
                share(reclaimable)
            )
        }
        None => format!("holding: nothing at the census {age} s ago"),
    }
}

/// How full it was, and what was dropped: each row to its own scale.
fn charts(canvas: &mut Canvas<'_>, scene: &Scene<'_>, table: &Table, y: u16, tall: u16) {
    const LABEL: u16 = 7;
    const SCALE: u16 = 14;
    let columns = canvas.columns();
    let width = columns.saturating_sub(LABEL + SCALE + 1);
    let until = scene.state.cursor.unwrap_or(u64::MAX);
    let windows = (usize::from(width), canvas.look.beside());
    let of = |value: &dyn Fn(&Table) -> Option<f64>| {
        let value = |snapshot: &Snapshot| value(history::table(snapshot, table.id)?);
        scene.history.series(until, windows, WINDOW, value)
    };
    let fills = of(&|table| table.fill);
    let drops = of(&|table| table.dropped.per_s.or(table.drops.table_full.per_s));
    let largest = |series: &[Option<f64>]| series.iter().flatten().copied().fold(0.0, f64::max);
    let is_known = |series: &[Option<f64>]| series.iter().any(Option::is_some);
    let tone = if largest(&fills) >= 0.95 { Tone::Bad } else { Tone::Bar };
    canvas.text(1, y, LABEL - 1, "fill", Tone::Plain);
    bars::chart(canvas, (LABEL, y, tall), &fills, 1.0, tone);
    canvas.text(LABEL + width + 1, y, SCALE, "of 100%", Tone::Faint);
    let y = y + tall;
    let most = largest(&drops);
    canvas.text(1, y, LABEL - 1, "drop/s", Tone::Plain);
    bars::chart(
        canvas,
        (LABEL, y, tall),
        &drops,
        most,
        if most > 0.0 { Tone::Bad } else { Tone::Bar },
    );
    let scale = match is_known(&drops) {
        true => format!("of {}/s", number(most)),
        false => "not measured".to_owned(),
    };
    canvas.text(LABEL + width + 1, y, SCALE, &scale, Tone::Faint);
}
