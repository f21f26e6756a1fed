//! Bars and charts, of signs that the terminal has.

use crate::{
    model::census::Holds,
    tui::{
        canvas::Canvas,
        look::{Palette, Tone},
    },
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
    // In halves of signs, where a sign has two.
    let parts = u16::try_from(canvas.look.beside()).unwrap_or(1);
    let full = match share_of(width * parts, fill) {
        0 if fill > 0.0 => 1,
        full => full,
    };
    canvas.signs(x, y, width, free, Tone::Faint);
    let ends = match holds.filter(|holds| holds.all() > 0) {
        None => vec![(full, unknown)],
        Some(holds) => {
            let of = |count: u64| share_of(full, count as f64 / holds.all() as f64);
            let second = of(holds.pinned + holds.closing);
            vec![(of(holds.pinned), pinned), (second, closing), (full, reclaimable)]
        }
    };
    let kind = |part: u16| ends.iter().find(|(end, _)| part < *end).map(|(_, sign)| *sign);
    for at in 0..width {
        // What begins in the middle of a sign begins with the next one.
        let Some(sign) = kind(at * parts) else { break };
        match kind(at * parts + parts - 1) {
            Some(_) => canvas.signs(x + at, y, 1, sign, tone),
            None => canvas.signs(x + at, y, 1, &Palette::half(sign), tone),
        }
    }
}

fn share_of(width: u16, share: f64) -> u16 {
    let share = share.clamp(0.0, 1.0);
    (0..=width).rev().find(|cells| f64::from(*cells) <= share * f64::from(width) + 0.5).unwrap_or(0)
}

/// One chart, from 0 to `most`, of as many windows in each sign as the terminal shows; nothing where nothing was read.
pub(super) fn chart(
    canvas: &mut Canvas<'_>,
    (x, y, rows): (u16, u16, u16),
    series: &[Option<f64>],
    most: f64,
    tone: Tone,
) {
    let levels = canvas.look.levels();
    let steps = levels * usize::from(rows);
    let level = |value: &Option<f64>| {
        let Some(value) = value else { return 0 };
        let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
        let level = (1..=steps).rev().find(|level| *level as f64 <= share * steps as f64 + 0.5);
        // That it was read and is nothing shows too.
        level.unwrap_or(1)
    };
    for (at, windows) in (x..).zip(series.chunks(canvas.look.beside())) {
        for row in 0..rows {
            let below = usize::from(row) * levels;
            let windows: Vec<usize> = windows
                .iter()
                .map(|value| level(value).saturating_sub(below).min(levels))
                .collect();
            if windows.iter().any(|level| *level > 0) {
                let sign = canvas.look.sign(&windows);
                canvas.signs(at, y + rows - 1 - row, 1, &sign, tone);
            }
        }
    }
}
