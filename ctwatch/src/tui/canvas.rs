//! The only way from a text to the screen: whatever is drawn is escaped and fits its place.

use super::{
    grid::{Grid, cut, wide},
    look::{Glyphs, Palette, Tone},
    pointing::{ClickArea, ClickTarget},
};
use crate::output::escape::escaped;

pub struct Canvas<'a> {
    grid: &'a mut Grid,
    pub look: Palette,
    /// What a mouse points at.
    pub areas: Vec<ClickArea>,
}

impl<'a> Canvas<'a> {
    pub fn new(grid: &'a mut Grid, look: Palette) -> Self {
        Self { grid, look, areas: Vec::new() }
    }

    pub fn columns(&self) -> u16 {
        self.grid.columns
    }

    pub fn rows(&self) -> u16 {
        self.grid.rows
    }

    /// Left-aligned, at most so wide. Returns where it ends.
    pub fn text(&mut self, x: u16, y: u16, width: u16, text: &str, tone: Tone) -> u16 {
        let fitted = self.fitted(text, width);
        self.put(x, y, width, &fitted, tone)
    }

    /// Right-aligned.
    pub fn right(&mut self, x: u16, y: u16, width: u16, text: &str, tone: Tone) {
        let fitted = self.fitted(text, width);
        let gap = width.saturating_sub(wide(&fitted));
        self.put(x + gap, y, width - gap, &fitted, tone);
    }

    /// One part after another, until there is no more room.
    pub fn parts(&mut self, x: u16, y: u16, width: u16, parts: &[(&str, Tone)]) -> u16 {
        let end = x + width;
        parts.iter().fold(x, |at, (text, tone)| self.text(at, y, end - at, text, *tone))
    }

    /// A sign of our own, so often.
    pub fn signs(&mut self, x: u16, y: u16, times: u16, sign: &str, tone: Tone) {
        for at in x..x.saturating_add(times) {
            self.put(at, y, 1, sign, tone);
        }
    }

    /// A line from here to the right end, with a heading in it.
    pub fn rule(&mut self, y: u16, heading: &str, tone: Tone) {
        let width = self.columns();
        let rule = self.look.rule();
        self.signs(0, y, width, rule, Tone::Faint);
        if !heading.is_empty() {
            self.text(1, y, width.saturating_sub(2), &format!(" {heading} "), tone);
        }
    }

    /// All of a row in this tone, whatever is written there.
    pub fn tint(&mut self, y: u16, tone: Tone) {
        let face = self.look.face(tone);
        self.grid.tint(y, face);
    }

    /// A click there is on this.
    pub fn target(&mut self, (x, y, width): (u16, u16, u16), target: ClickTarget) {
        self.areas.push(ClickArea { x, y, width, target });
    }

    /// The chosen row.
    pub fn choose(&mut self, y: u16) {
        self.grid.reverse(y);
    }

    fn put(&mut self, x: u16, y: u16, width: u16, text: &str, tone: Tone) -> u16 {
        let face = self.look.face(tone);
        self.grid.put(x, y, width, text, face)
    }

    /// Escaped, and cut with a tilde.
    fn fitted(&self, text: &str, width: u16) -> String {
        let mut escaped = escaped(text);
        if self.look.glyphs == Glyphs::Ascii && !escaped.is_ascii() {
            let each = escaped.chars().map(|char| match char.is_ascii() {
                true => char.to_string(),
                false => char.escape_unicode().to_string(),
            });
            escaped = each.collect();
        }
        cut(escaped, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::look::Colours;

    fn drawn(text: &str, width: u16, glyphs: Glyphs) -> String {
        let mut grid = Grid::new(12, 1);
        let look = Palette { colours: Colours::None, glyphs };
        Canvas::new(&mut grid, look).text(0, 0, width, text, Tone::Plain);
        grid.text().trim_end().to_owned()
    }

    #[test]
    fn nothing_is_drawn_unescaped() {
        assert_eq!(drawn("a\x1b[2J", 12, Glyphs::Blocks), "a\\u{1b}[2J");
        assert_eq!(drawn("\u{9b}31m", 12, Glyphs::Blocks), "\\u{9b}31m");
        assert_eq!(drawn("\u{202e}x", 12, Glyphs::Blocks), "\\u{202e}x");
        assert_eq!(drawn("ö", 12, Glyphs::Blocks), "ö");
        assert_eq!(drawn("ö", 12, Glyphs::Ascii), "\\u{f6}");
    }

    #[test]
    fn what_is_too_long_is_cut_where_it_shows() {
        assert_eq!(drawn("abcdef", 4, Glyphs::Blocks), "abc~");
        assert_eq!(drawn("abcd", 4, Glyphs::Blocks), "abcd");
        assert_eq!(drawn("日本語", 4, Glyphs::Blocks), "日~");
        assert_eq!(drawn("abc", 0, Glyphs::Blocks), "");
    }
}
