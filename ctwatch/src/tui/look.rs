//! What a terminal can show: its colours, and its characters.

use super::grid::Face;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    None,
    Eight,
    Sixteen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    Ascii,
    Blocks,
    Braille,
}

/// What something means. Colour is never the only sign of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Faint,
    Heading,
    Good,
    Warning,
    Bad,
    /// A control plane is dropped.
    Alarm,
    Selected,
    Bar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    pub colours: Colours,
    pub glyphs: Glyphs,
}

/// What the environment says of the terminal.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub term: Option<String>,
    pub colorterm: Option<String>,
    pub no_color: bool,
    /// LC_ALL, or else LC_CTYPE, or else LANG.
    pub locale: Option<String>,
}

impl Palette {
    pub fn of(environment: &Environment) -> Self {
        let term = environment.term.as_deref().unwrap_or("dumb");
        let is = |names: &[&str]| names.iter().any(|name| term.starts_with(name));
        let colours = match () {
            () if environment.no_color || is(&["dumb", "vt"]) => Colours::None,
            () if term.contains("mono") => Colours::None,
            () if environment.colorterm.is_some() || term.contains("256") => Colours::Sixteen,
            () if is(&["linux", "ansi", "cons25", "pcansi", "xterm-color", "screen"]) => {
                Colours::Eight
            }
            () => Colours::Sixteen,
        };
        let locale = environment.locale.as_deref().unwrap_or_default().to_ascii_lowercase();
        let is_utf8 = locale.contains("utf-8") || locale.contains("utf8");
        // Fonts of consoles lack most of them.
        let is_console = is(&["dumb", "vt", "linux", "ansi", "cons25", "pcansi"]);
        let glyphs = if is_utf8 && !is_console { Glyphs::Blocks } else { Glyphs::Ascii };
        Self { colours, glyphs }
    }

    pub fn face(self, tone: Tone) -> Face {
        const RED: u8 = 1;
        const YELLOW: u8 = 3;
        const BLUE: u8 = 4;
        const CYAN: u8 = 6;
        const WHITE: u8 = 7;
        const GREY: u8 = 60;
        const BRIGHT: u8 = 60;
        let plain = Face::default();
        let bold = Face { bold: true, ..plain };
        let reversed = Face { reversed: true, ..plain };
        let fg = |colour, bright| match self.colours {
            Colours::None => None,
            Colours::Eight => Some(colour),
            Colours::Sixteen => Some(colour + bright),
        };
        match (tone, self.colours) {
            (Tone::Plain, _) => plain,
            (Tone::Faint, Colours::Sixteen) => Face { fg: Some(GREY), ..plain },
            (Tone::Faint, _) => plain,
            (Tone::Heading, _) => bold,
            (Tone::Good, _) => Face { fg: fg(CYAN, 0), ..plain },
            (Tone::Warning, _) => Face { fg: fg(YELLOW, 0), ..plain },
            (Tone::Bad, _) => Face { fg: fg(RED, BRIGHT), ..bold },
            (Tone::Alarm, Colours::None) => Face { bold: true, ..reversed },
            (Tone::Alarm, _) => Face { fg: Some(WHITE), bg: Some(RED), ..bold },
            (Tone::Selected, _) => reversed,
            (Tone::Bar, _) => Face { fg: fg(BLUE, BRIGHT), ..plain },
        }
    }

    /// Of a bar: pinned, closing, reclaimable, of what kind is not known, and free.
    pub fn bar(self) -> [&'static str; 5] {
        match self.glyphs {
            Glyphs::Ascii => ["#", "=", "-", "*", "."],
            Glyphs::Blocks | Glyphs::Braille => {
                ["\u{2588}", "\u{2593}", "\u{2592}", "\u{25a0}", "\u{b7}"]
            }
        }
    }

    /// From nothing to all.
    pub fn levels(self) -> &'static [&'static str] {
        match self.glyphs {
            Glyphs::Ascii => &["_", ".", ":", "-", "=", "+", "*", "#"],
            Glyphs::Blocks | Glyphs::Braille => &[
                "\u{2581}", "\u{2582}", "\u{2583}", "\u{2584}", "\u{2585}", "\u{2586}", "\u{2587}",
                "\u{2588}",
            ],
        }
    }

    pub fn rule(self) -> &'static str {
        match self.glyphs {
            Glyphs::Ascii => "-",
            Glyphs::Blocks | Glyphs::Braille => "\u{2500}",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_shows_what_it_can() {
        let of = |term: &str, locale: &str, no_color| {
            let look = Palette::of(&Environment {
                term: Some(term.to_owned()),
                colorterm: None,
                no_color,
                locale: Some(locale.to_owned()),
            });
            (look.colours, look.glyphs)
        };
        assert_eq!(of("xterm-256color", "de_DE.UTF-8", false), (Colours::Sixteen, Glyphs::Blocks));
        assert_eq!(of("xterm-256color", "C.utf8", true), (Colours::None, Glyphs::Blocks));
        assert_eq!(of("xterm-256color", "C", false), (Colours::Sixteen, Glyphs::Ascii));
        assert_eq!(of("linux", "en_US.UTF-8", false), (Colours::Eight, Glyphs::Ascii));
        assert_eq!(of("vt220", "en_US.UTF-8", false), (Colours::None, Glyphs::Ascii));
        assert_eq!(of("dumb", "", false), (Colours::None, Glyphs::Ascii));
        assert_eq!(of("screen", "C.UTF-8", false), (Colours::Eight, Glyphs::Blocks));
    }

    #[test]
    fn without_colours_each_alarm_still_shows() {
        let look = Palette { colours: Colours::None, glyphs: Glyphs::Ascii };
        for tone in [Tone::Bad, Tone::Alarm, Tone::Selected, Tone::Heading] {
            assert_ne!(look.face(tone), Face::default(), "{tone:?}");
            assert_eq!(look.face(tone).fg, None, "{tone:?}");
        }
    }
}
