//! A screen as cells. Every character takes one column or two: what takes none was escaped before.

use unicode_width::UnicodeWidthChar;

/// How a cell looks: colours by the numbers of ECMA-48, 60 more where they are bright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Face {
    pub fg: Option<u8>,
    pub bg: Option<u8>,
    pub bold: bool,
    pub reversed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub sign: char,
    pub face: Face,
}

/// The right half of a sign that takes two columns.
pub const HALF: char = '\0';
pub const BLANK: Spot =
    Spot { sign: ' ', face: Face { fg: None, bg: None, bold: false, reversed: false } };

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    pub columns: u16,
    pub rows: u16,
    spots: Vec<Spot>,
}

impl Grid {
    pub fn new(columns: u16, rows: u16) -> Self {
        let spots = vec![BLANK; usize::from(columns) * usize::from(rows)];
        Self { columns, rows, spots }
    }

    pub fn row(&self, y: u16) -> &[Spot] {
        let from = usize::from(y) * usize::from(self.columns);
        self.spots.get(from..from + usize::from(self.columns)).unwrap_or_default()
    }

    fn row_mut(&mut self, y: u16) -> &mut [Spot] {
        let from = usize::from(y) * usize::from(self.columns);
        self.spots.get_mut(from..from + usize::from(self.columns)).unwrap_or_default()
    }

    /// As much of it as there is room for. Returns where it ends.
    pub fn put(&mut self, x: u16, y: u16, width: u16, text: &str, face: Face) -> u16 {
        let row = self.row_mut(y);
        let (mut at, end) = (usize::from(x), usize::from(x.saturating_add(width)).min(row.len()));
        for sign in text.chars() {
            let takes = usize::from(columns_of(sign));
            if takes == 0 || at + takes > end {
                continue;
            }
            row[at] = Spot { sign, face };
            if takes == 2 {
                row[at + 1] = Spot { sign: HALF, face };
            }
            at += takes;
        }
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// All of a row looks so, whatever is written there.
    pub fn tint(&mut self, y: u16, face: Face) {
        self.row_mut(y).iter_mut().for_each(|spot| spot.face = face);
    }

    /// All of a row is reversed, in the colour of what it begins with.
    pub fn reverse(&mut self, y: u16) {
        let row = self.row_mut(y);
        let fg = row.iter().find(|spot| spot.sign != ' ').and_then(|spot| spot.face.fg);
        row.iter_mut().for_each(|spot| spot.face = Face { fg, reversed: true, ..spot.face });
    }

    /// Without colours, and without blanks at the ends of rows.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for y in 0..self.rows {
            let signs = self.row(y).iter().map(|spot| spot.sign).filter(|sign| *sign != HALF);
            let row: String = signs.collect();
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

fn columns_of(sign: char) -> u16 {
    match sign.width() {
        None | Some(0) => 0,
        Some(1) => 1,
        Some(_) => 2,
    }
}

/// Columns that a text takes.
pub fn wide(text: &str) -> u16 {
    text.chars().fold(0, |sum: u16, sign| sum.saturating_add(columns_of(sign)))
}

/// So much of it as fits, with a tilde where it was cut.
pub fn cut(text: String, width: u16) -> String {
    if wide(&text) <= width {
        return text;
    }
    let mut room = width.saturating_sub(1);
    let mut cut = String::new();
    for sign in text.chars() {
        let Some(left) = room.checked_sub(columns_of(sign)) else { break };
        room = left;
        cut.push(sign);
    }
    if width > 0 {
        cut.push('~');
    }
    cut
}
