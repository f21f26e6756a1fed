//! Bars and charts, of signs that the terminal has.

use crate::{
    model::census::Holds,
    tui::{canvas::Canvas, look::Tone},
};

/// How full a table is, and of what: pinned, closing, reclaimable; of what kind is not known without a census.
pub(super) fn fill(
    canvas: &mut Canvas<'_>,
    (x, y, width): (u16, u16, u16),
    fill: Option<f64>,
    holds: Option<&Holds>,
    tone: Tone,
) {
    let [pinned, closing, reclaimable, unknown, free] = canvas.look.bar();
    // Of what is not known there is no bar.
    let Some(fill) = fill else { return };
    let cells = |share: f64| share_of(width, share);
    let full = match cells(fill) {
        0 if fill > 0.0 => 1,
        full => full,
    };
    canvas.signs(x + full, y, width - full, free, Tone::Faint);
    match holds.filter(|holds| holds.all() > 0) {
        None => canvas.signs(x, y, full, unknown, tone),
        Some(holds) => {
            let all = holds.all() as f64;
            let of = |count: u64| share_of(full, count as f64 / all);
            let first = of(holds.pinned);
            let second = of(holds.pinned + holds.closing) - first;
            canvas.signs(x, y, first, pinned, tone);
            canvas.signs(x + first, y, second, closing, tone);
            canvas.signs(x + first + second, y, full - first - second, reclaimable, tone);
        }
    }
}

fn share_of(width: u16, share: f64) -> u16 {
    let share = share.clamp(0.0, 1.0);
    (0..=width).rev().find(|cells| f64::from(*cells) <= share * f64::from(width) + 0.5).unwrap_or(0)
}

/// So many readings of a chart fit.
pub(super) fn windows(_canvas: &Canvas<'_>, width: u16) -> usize {
    usize::from(width)
}

/// One row, from 0 to `most`; nothing where nothing was read.
pub(super) fn chart(
    canvas: &mut Canvas<'_>,
    (x, y, rows): (u16, u16, u16),
    series: &[Option<f64>],
    most: f64,
    tone: Tone,
) {
    let levels = canvas.look.levels();
    let steps = levels.len() * usize::from(rows);
    for (at, value) in (x..).zip(series) {
        let Some(value) = value else { continue };
        let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
        let level = (1..=steps).rev().find(|level| *level as f64 <= share * steps as f64 + 0.5);
        // That it was read and is nothing shows too.
        let level = level.unwrap_or(1);
        for row in 0..rows {
            let below = usize::from(row) * levels.len();
            if let Some(sign) = level.checked_sub(below + 1).map(|over| over.min(levels.len() - 1))
            {
                canvas.signs(at, y + rows - 1 - row, 1, levels[sign], tone);
            }
        }
    }
}
