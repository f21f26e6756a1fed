//! The last rows: where in the past it is, what was just said, or which keys there are.

use crate::tui::{
    canvas::Canvas, grid::wide, look::Tone, pointing::ClickTarget, scene::Scene, state::Pane,
};

/// From here on the panes are named.
const WITH_TABS: u16 = 78;

pub(super) fn rows(scene: &Scene<'_>) -> u16 {
    1 + u16::from(has_time_line(scene))
}

fn has_time_line(scene: &Scene<'_>) -> bool {
    scene.state.cursor.is_some() || scene.state.is_recorded
}

pub(super) fn draw(canvas: &mut Canvas<'_>, scene: &Scene<'_>) {
    let (columns, y) = (canvas.columns(), canvas.rows() - 1);
    if has_time_line(scene) && scene.state.help.is_none() {
        time_line(canvas, scene, y - 1);
    }
    if scene.state.is_typing {
        let end = canvas.text(0, y, columns, &format!("/{}", scene.state.filter()), Tone::Heading);
        canvas.text(end, y, columns - end, "_  Enter: keep, Esc: all rows", Tone::Plain);
        return;
    }
    if let Some(notice) = scene.notice {
        canvas.text(0, y, columns, notice, Tone::Heading);
        return;
    }
    let keys = [
        ("Enter", "narrow"),
        ("Esc", "back"),
        ("/", "filter"),
        ("d", scene.state.listed.name()),
        ("g", scene.state.by.name()),
        ("Space", if scene.state.cursor.is_some() { "go on" } else { "freeze" }),
        ("[ ]", "past"),
        ("n", "next drops"),
        ("s", "save"),
    ];
    let mut x = 0;
    let first = [("q", "quit"), ("?", "keys"), ("Tab", scene.state.pane.name())];
    // All panes by name, where there is room for them.
    let has_tabs = columns >= WITH_TABS;
    let first = &first[..if has_tabs { 2 } else { 3 }];
    let tabs = |canvas: &mut Canvas<'_>, mut x: u16| {
        for pane in Pane::ALL.into_iter().filter(|_| has_tabs) {
            let tone = if pane == scene.state.pane { Tone::Selected } else { Tone::Plain };
            let end = canvas.text(x, y, columns - x, pane.name(), tone);
            canvas.target((x, y, end - x), ClickTarget::Pane(pane));
            x = end + 1;
        }
        x + u16::from(has_tabs)
    };
    for (at, (key, says)) in first.iter().chain(&keys).enumerate() {
        if at == first.len() {
            x = tabs(canvas, x);
        }
        let wide = wide(key) + wide(says) + 3;
        if x + wide > columns + 2 {
            break;
        }
        x = canvas.text(x, y, columns - x, key, Tone::Heading);
        x = canvas.text(x, y, columns - x, &format!(" {says}  "), Tone::Plain);
    }
}

/// All that is kept, from left to right: where packets were dropped, and which moment is shown.
fn time_line(canvas: &mut Canvas<'_>, scene: &Scene<'_>, y: u16) {
    let columns = canvas.columns();
    let (Some(oldest), Some(newest)) = (scene.history.oldest(), scene.history.newest()) else {
        return;
    };
    let time = |number: &jiff::Timestamp| {
        number.to_zoned(scene.zone.clone()).strftime("%H:%M:%S").to_string()
    };
    let (from, to) = (time(&oldest.snapshot.time), time(&newest.snapshot.time));
    let width = columns.saturating_sub(wide(&from) + wide(&to) + 2);
    let begin = wide(&from) + 1;
    canvas.text(0, y, columns, &from, Tone::Faint);
    canvas.right(0, y, columns, &to, Tone::Faint);
    canvas.signs(begin, y, width, canvas.look.rule(), Tone::Faint);
    let span = newest.number.saturating_sub(oldest.number).max(1);
    let place = |number: u64| {
        let far =
            number.saturating_sub(oldest.number).min(span) * u64::from(width.saturating_sub(1));
        begin + u16::try_from(far / span).unwrap_or(0)
    };
    for (number, drops) in scene.history.marks() {
        if drops {
            canvas.signs(place(number), y, 1, "!", Tone::Bad);
        }
    }
    let at = scene.state.cursor.unwrap_or(newest.number);
    canvas.signs(place(at), y, 1, "^", Tone::Selected);
}
