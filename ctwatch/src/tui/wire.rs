//! From what a terminal shows to what it shall show, in few bytes: a serial line carries 960 of them a second.

use std::fmt::Write;

use super::grid::{BLANK, Face, Grid, HALF, Spot, wide};

/// Alternate screen, no cursor, no wrapping at the right end.
pub const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// All of that undone. A terminal without an alternate screen goes on below what it shows.
pub const LEAVE: &str = "\x1b[m\x1b[?7h\x1b[?25h\x1b[999;1H\r\n\x1b[?1049l";
/// Clicks and the wheel are told, and where, in decimal numbers.
pub const MOUSE: &str = "\x1b[?1000h\x1b[?1006h";
pub const NO_MOUSE: &str = "\x1b[?1006l\x1b[?1000l";
/// To move by writing what is there already is cheaper up to here.
const NEAR: usize = 4;
/// So many blanks at the end of a row are erased rather than written.
const TAIL: usize = 4;

/// How it looks, as far as that shows: of a blank only what lies behind it does.
fn shown(spot: &Spot) -> Face {
    match spot.face {
        face if spot.sign == ' ' && !face.reversed => Face { bg: face.bg, ..Face::default() },
        face => face,
    }
}

fn is_same(a: &Spot, b: &Spot) -> bool {
    a.sign == b.sign && shown(a) == shown(b)
}

/// What is written, and what the terminal is like by then.
#[derive(Default)]
struct Writing {
    out: String,
    at: Option<(usize, usize)>,
    style: Face,
}

impl Writing {
    fn go(&mut self, x: usize, y: usize) {
        match self.at {
            Some(at) if at == (x, y) => {}
            Some((from, row)) if row == y && from < x => {
                let _ = match x - from {
                    1 => write!(self.out, "\x1b[C"),
                    far => write!(self.out, "\x1b[{far}C"),
                };
            }
            Some((_, row)) if x == 0 && y == row + 1 => self.out.push_str("\r\n"),
            _ => {
                let _ = match (x, y) {
                    (0, 0) => write!(self.out, "\x1b[H"),
                    (0, _) => write!(self.out, "\x1b[{}H", y + 1),
                    _ => write!(self.out, "\x1b[{};{}H", y + 1, x + 1),
                };
            }
        }
        self.at = Some((x, y));
    }

    fn wear(&mut self, style: Face) {
        if style == self.style {
            return;
        }
        let mut codes = Vec::new();
        let is_less = style.fg.is_none() && self.style.fg.is_some()
            || style.bg.is_none() && self.style.bg.is_some()
            || !style.bold && self.style.bold
            || !style.reversed && self.style.reversed;
        let from = if is_less { Face::default() } else { self.style };
        if is_less && style != Face::default() {
            codes.push(0);
        }
        if style.bold && !from.bold {
            codes.push(1);
        }
        if style.reversed && !from.reversed {
            codes.push(7);
        }
        codes.extend(style.fg.filter(|_| style.fg != from.fg).map(|colour| 30 + colour));
        codes.extend(style.bg.filter(|_| style.bg != from.bg).map(|colour| 40 + colour));
        let codes: Vec<String> = codes.iter().map(u8::to_string).collect();
        let _ = write!(self.out, "\x1b[{}m", codes.join(";"));
        self.style = style;
    }

    /// Returns how many columns it took.
    fn spot(&mut self, spot: &Spot, columns: usize) -> usize {
        self.wear(shown(spot));
        self.out.push(spot.sign);
        let width = usize::from(wide(spot.sign.encode_utf8(&mut [0; 4]))).max(1);
        // Beyond the right end there is no place.
        self.at = self.at.map(|(x, y)| (x + width, y)).filter(|(x, _)| *x < columns);
        width
    }
}

/// `before`: what the terminal shows; `None`, or of another size: that is not known.
pub fn encode(before: Option<&Grid>, after: &Grid) -> String {
    let mut writing = Writing::default();
    let is_of_size = |before: &&Grid| (before.columns, before.rows) == (after.columns, after.rows);
    let before = before.filter(is_of_size);
    let blank = vec![BLANK; usize::from(after.columns)];
    if before.is_none() {
        writing.out.push_str("\x1b[m\x1b[H\x1b[2J");
        writing.at = Some((0, 0));
    }
    for y in 0..after.rows {
        let old = before.map_or(blank.as_slice(), |before| before.row(y));
        row(&mut writing, usize::from(y), old, after.row(y));
    }
    writing.wear(Face::default());
    writing.out
}

fn row(writing: &mut Writing, y: usize, old: &[Spot], new: &[Spot]) {
    let columns = new.len();
    let differs: Vec<bool> = old.iter().zip(new).map(|(old, new)| !is_same(old, new)).collect();
    let Some(mut last) = differs.iter().rposition(|differs| *differs) else { return };
    let mut x = differs.iter().position(|differs| *differs).unwrap_or(0);
    // Where a sign takes two columns, what lies beneath it is not known.
    let has_wide = |row: &[Spot]| row.iter().any(|spot| spot.sign == HALF);
    let is_whole = has_wide(old) || has_wide(new);
    if is_whole {
        (x, last) = (0, columns - 1);
    }
    let text_ends = new.iter().rposition(|spot| !is_same(spot, &BLANK)).map_or(0, |at| at + 1);
    let erases = last >= text_ends && (is_whole || last + 1 - text_ends.max(x) > TAIL);
    let end = if erases { text_ends.max(x) } else { last + 1 };
    while x < end {
        if !is_whole && !differs[x] {
            let far = differs[x..end].iter().position(|differs| *differs).unwrap_or(end - x);
            let is_near = far <= NEAR
                && new[x..x + far]
                    .iter()
                    .all(|spot| shown(spot) == writing.style && spot.sign.is_ascii());
            if !is_near {
                x += far;
                continue;
            }
        }
        writing.go(x, y);
        x += writing.spot(&new[x], columns);
    }
    if erases {
        writing.go(end.min(columns - 1), y);
        writing.wear(Face::default());
        writing.out.push_str("\x1b[K");
    }
}

/// Puts a text into the clipboard of the terminal's machine, where the terminal lets it (OSC 52).
pub fn copy(text: &str) -> String {
    format!("\x1b]52;c;{}\x07", base64(text.as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for sign in 0..4 {
            let value = (bits >> (18 - 6 * sign)) & 63;
            match sign <= three.len() {
                true => out.push(char::from(SIGNS[value as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(lines: &[&str]) -> Grid {
        let mut grid = Grid::new(20, u16::try_from(lines.len()).unwrap());
        for (y, line) in (0..).zip(lines) {
            grid.put(0, y, 20, line, Face::default());
        }
        grid
    }

    #[test]
    fn only_what_changed_is_sent() {
        let before = grid(&["fill 97.0%  of 1000", "quiet"]);
        assert_eq!(encode(Some(&before), &before), "");
        let after = grid(&["fill 97.5%  of 1000", "quiet"]);
        assert_eq!(encode(Some(&before), &after), "\x1b[1;9H5");
        let after = grid(&["fill 98.5%  of 1000", "quiet"]);
        assert_eq!(encode(Some(&before), &after), "\x1b[1;7H8.5");
        let after = grid(&["fill", "quiet"]);
        assert_eq!(encode(Some(&before), &after), "\x1b[1;6H\x1b[K");
    }

    #[test]
    fn all_of_it_is_sent_at_first_and_after_a_resize() {
        let small = grid(&["a"]);
        let after = grid(&["a", "b"]);
        for before in [None, Some(&small)] {
            assert_eq!(encode(before, &after), "\x1b[m\x1b[H\x1b[2Ja\r\nb", "{before:?}");
        }
    }

    #[test]
    fn a_style_ends_with_its_text() {
        let before = grid(&["abc"]);
        let mut after = before.clone();
        after.put(1, 0, 1, "b", Face { fg: Some(1), ..Face::default() });
        assert_eq!(encode(Some(&before), &after), "\x1b[1;2H\x1b[31mb\x1b[m");
        // A blank has no colour of its own.
        let mut blank = before.clone();
        blank.put(5, 0, 2, "  ", Face { fg: Some(1), bold: true, ..Face::default() });
        assert_eq!(encode(Some(&before), &blank), "");
    }

    #[test]
    fn text_is_copied_as_base64() {
        for (text, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(copy(text), format!("\x1b]52;c;{coded}\x07"));
        }
    }
}
