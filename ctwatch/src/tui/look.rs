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

/// From nothing to all.
const ASCII: [&str; 8] = ["_", ".", ":", "-", "=", "+", "*", "#"];
const BLOCKS: [&str; 8] = [
    "\u{2581}", "\u{2582}", "\u{2583}", "\u{2584}", "\u{2585}", "\u{2586}", "\u{2587}", "\u{2588}",
];

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
        let glyphs = if is_utf8 && !is_console { Glyphs::Braille } else { Glyphs::Ascii };
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
            // Four, three or two dots of four are as high as what they stand for is hard to get rid of.
            Glyphs::Braille => ["\u{28ff}", "\u{28f6}", "\u{28e4}", "\u{282d}", "\u{b7}"],
            Glyphs::Blocks => ["\u{2588}", "\u{2593}", "\u{2592}", "\u{25a0}", "\u{b7}"],
        }
    }

    /// How many windows of time one sign of a chart shows beside each other.
    pub fn beside(self) -> usize {
        if self.glyphs == Glyphs::Braille { 2 } else { 1 }
    }

    /// How many levels one sign of a chart tells apart.
    pub fn levels(self) -> usize {
        match self.glyphs {
            Glyphs::Ascii => ASCII.len(),
            Glyphs::Blocks => BLOCKS.len(),
            Glyphs::Braille => 4,
        }
    }

    /// The sign of a chart whose windows are so high; 0: nothing is there.
    pub fn sign(self, levels: &[usize]) -> String {
        let [left, right] = [0, 1].map(|at| levels.get(at).copied().unwrap_or(0));
        match self.glyphs {
            Glyphs::Ascii | Glyphs::Blocks => {
                let signs = if self.glyphs == Glyphs::Ascii { &ASCII } else { &BLOCKS };
                let sign = left.checked_sub(1).map(|at| signs[at.min(signs.len() - 1)]);
                sign.unwrap_or(" ").to_owned()
            }
            Glyphs::Braille => {
                // From the lowest dot to the highest.
                const LEFT: [u32; 4] = [0x40, 0x04, 0x02, 0x01];
                const RIGHT: [u32; 4] = [0x80, 0x20, 0x10, 0x08];
                let dots = |dots: [u32; 4], level: usize| dots.iter().take(level).sum::<u32>();
                match dots(LEFT, left) + dots(RIGHT, right) {
                    0 => " ".to_owned(),
                    dots => char::from_u32(0x2800 + dots).unwrap_or(' ').to_string(),
                }
            }
        }
    }

    /// Of a braille sign only the left half, where a bar ends in the middle of it.
    pub fn half(sign: &str) -> String {
        const LEFT: u32 = 0x47;
        let half = sign.chars().map(|sign| match u32::from(sign) {
            dots @ 0x2800..0x2900 => char::from_u32(0x2800 + (dots & LEFT)).unwrap_or(sign),
            _ => sign,
        });
        half.collect()
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
        assert_eq!(of("xterm-256color", "de_DE.UTF-8", false), (Colours::Sixteen, Glyphs::Braille));
        assert_eq!(of("xterm-256color", "C.utf8", true), (Colours::None, Glyphs::Braille));
        assert_eq!(of("xterm-256color", "C", false), (Colours::Sixteen, Glyphs::Ascii));
        assert_eq!(of("linux", "en_US.UTF-8", false), (Colours::Eight, Glyphs::Ascii));
        assert_eq!(of("vt220", "en_US.UTF-8", false), (Colours::None, Glyphs::Ascii));
        assert_eq!(of("dumb", "", false), (Colours::None, Glyphs::Ascii));
        assert_eq!(of("screen", "C.UTF-8", false), (Colours::Eight, Glyphs::Braille));
    }

    #[test]
    fn each_sign_tells_its_windows_apart() {
        let look = |glyphs| Palette { colours: Colours::None, glyphs };
        assert_eq!(look(Glyphs::Ascii).sign(&[8]), "#");
        assert_eq!(look(Glyphs::Blocks).sign(&[1]), "\u{2581}");
        let braille = look(Glyphs::Braille);
        let signs = [[4, 4], [1, 0], [0, 1], [2, 3], [0, 0]].map(|levels| braille.sign(&levels));
        assert_eq!(
            signs,
            ["\u{28ff}", "\u{2840}", "\u{2880}", "\u{28e4}", " "].map(|sign| {
                // Two dots, and three of the other half.
                if sign == "\u{28e4}" { "\u{28f4}" } else { sign }
            })
        );
        assert_eq!(Palette::half("\u{28ff}"), "\u{2847}");
        assert_eq!(Palette::half("#"), "#");
        // In black and white the kinds of a bar differ too.
        for glyphs in [Glyphs::Ascii, Glyphs::Blocks, Glyphs::Braille] {
            let signs = look(glyphs).bar();
            for (at, sign) in signs.iter().enumerate() {
                assert!(signs.iter().skip(at + 1).all(|other| other != sign), "{signs:?}");
            }
        }
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
