//! A terminal's screen as a picture.

use std::fmt::Write;

use vt100::{Cell, Color, Screen};

/// Of one cell, in pixels.
const WIDE: usize = 8;
const HIGH: usize = 17;
const PLAIN: &str = "#d8dee4";
const GROUND: &str = "#14181d";
const COLOURS: [&str; 16] = [
    "#14181d", "#c4453c", "#6aa84f", "#c9a227", "#4a7fc1", "#a06cb5", "#3fa7a3", "#d8dee4",
    "#7d8790", "#ff6b60", "#8bc97a", "#e5c15a", "#7aaaf0", "#c397d8", "#70d0cb", "#ffffff",
];

#[derive(Clone, PartialEq)]
struct Look {
    fg: &'static str,
    bg: &'static str,
    bold: bool,
}

fn look(cell: &Cell) -> Look {
    let colour = |colour, plain| match colour {
        Color::Idx(number) => COLOURS.get(usize::from(number)).copied().unwrap_or(plain),
        _ => plain,
    };
    let (fg, bg) = (colour(cell.fgcolor(), PLAIN), colour(cell.bgcolor(), GROUND));
    let (fg, bg) = if cell.inverse() { (bg, fg) } else { (fg, bg) };
    Look { fg, bg, bold: cell.bold() }
}

pub(crate) fn svg(screen: &Screen) -> String {
    let (rows, columns) = screen.size();
    let (width, height) = (usize::from(columns) * WIDE + 16, usize::from(rows) * HIGH + 16);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans Mono, monospace\" \
         font-size=\"13\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"{GROUND}\"/>\n"
    );
    for row in 0..rows {
        let cells: Vec<(String, Look)> = (0..columns)
            .filter_map(|column| screen.cell(row, column))
            .map(|cell| {
                let text = if cell.has_contents() { cell.contents() } else { " " };
                (text.to_owned(), look(cell))
            })
            .collect();
        let mut at = 0;
        for run in cells.chunk_by(|a, b| a.1 == b.1) {
            let (x, y) = (8 + at * WIDE, 8 + usize::from(row) * HIGH);
            let (text, look) =
                (run.iter().map(|(text, _)| text.as_str()).collect::<String>(), &run[0].1);
            at += run.len();
            self::run(&mut out, (x, y, run.len() * WIDE), &text, look);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn run(out: &mut String, (x, y, width): (usize, usize, usize), text: &str, look: &Look) {
    let Look { fg, bg, bold } = look;
    if *bg != GROUND {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HIGH}\" fill=\"{bg}\"/>"
        );
    }
    let trimmed = text.trim_end();
    if trimmed.is_empty() {
        return;
    }
    let weight = if *bold { " font-weight=\"bold\"" } else { "" };
    let text = trimmed.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let (base, length) = (y + 13, trimmed.chars().count() * WIDE);
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{base}\" fill=\"{fg}\"{weight} xml:space=\"preserve\" \
         textLength=\"{length}\" lengthAdjust=\"spacingAndGlyphs\">{text}</text>"
    );
}
