//! From what a terminal sends to keys.

use super::keys::Press;

/// A sequence that is longer is none.
const LONGEST: usize = 32;

/// What has come of a sequence that is not complete.
#[derive(Debug, Default)]
pub struct KeyDecoder {
    pending: Vec<u8>,
    /// What a mouse does is told.
    mouse: bool,
}

enum Step {
    Key(Press, usize),
    /// Something that no key is bound to, or nonsense.
    Nothing(usize),
    More,
}

impl KeyDecoder {
    pub fn new(mouse: bool) -> Self {
        Self { mouse, ..Self::default() }
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Press> {
        self.pending.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut at = 0;
        while at < self.pending.len() {
            match step(&self.pending[at..], self.mouse) {
                Step::Key(press, length) => {
                    keys.push(press);
                    at += length;
                }
                Step::Nothing(length) => at += length,
                Step::More => break,
            }
        }
        self.pending.drain(..at);
        keys
    }

    /// Whether more must come, or else [`KeyDecoder::flush`]: the escape key begins like a sequence.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nothing more has come for a while.
    pub fn flush(&mut self) -> Option<Press> {
        let is_escape = self.pending == b"\x1b";
        self.pending.clear();
        is_escape.then_some(Press::Escape)
    }
}

fn step(bytes: &[u8], mouse: bool) -> Step {
    let [first, rest @ ..] = bytes else { return Step::More };
    match *first {
        b'\x1b' => escape(rest, mouse),
        b'\r' | b'\n' => Step::Key(Press::Enter, 1),
        b'\t' => Step::Key(Press::Tab, 1),
        b'\x08' | b'\x7f' => Step::Key(Press::Backspace, 1),
        0 => Step::Nothing(1),
        control @ 1..=26 => Step::Key(Press::Ctrl(char::from(b'a' + control - 1)), 1),
        28..=31 => Step::Nothing(1),
        ascii @ 32..=126 => Step::Key(Press::Char(char::from(ascii)), 1),
        lead => {
            let length = match lead {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => return Step::Nothing(1),
            };
            let Some(whole) = bytes.get(..length) else { return Step::More };
            match std::str::from_utf8(whole).ok().and_then(|text| text.chars().next()) {
                Some(char) => Step::Key(Press::Char(char), length),
                None => Step::Nothing(1),
            }
        }
    }
}

/// What follows an escape.
fn escape(rest: &[u8], mouse: bool) -> Step {
    match rest {
        [] => Step::More,
        [b'[', parameters @ ..] => control_sequence(parameters, mouse),
        [b'O', key, ..] => named(*key, 3),
        [b'O'] => Step::More,
        // The escape key, and what was pressed after it.
        _ => Step::Key(Press::Escape, 1),
    }
}

fn control_sequence(bytes: &[u8], mouse: bool) -> Step {
    // The Linux console's function keys.
    if bytes.first() == Some(&b'[') {
        return if bytes.len() > 1 { Step::Nothing(4) } else { Step::More };
    }
    // A terminal that knows only the old way tells a mouse in three more bytes.
    if mouse && bytes.first() == Some(&b'M') {
        return if bytes.len() > 3 { Step::Nothing(6) } else { Step::More };
    }
    match bytes.iter().position(|byte| (0x40..=0x7e).contains(byte)) {
        Some(end) => {
            let length = end + 3;
            match (&bytes[..end], bytes[end]) {
                ([b'<', parameters @ ..], b'M') if mouse => match pointed(parameters) {
                    Some(press) => Step::Key(press, length),
                    None => Step::Nothing(length),
                },
                ([b'<', ..], _) => Step::Nothing(length),
                (b"1" | b"7", b'~') => Step::Key(Press::Home, length),
                (b"4" | b"8", b'~') => Step::Key(Press::End, length),
                (b"5", b'~') => Step::Key(Press::PageUp, length),
                (b"6", b'~') => Step::Key(Press::PageDown, length),
                (_, b'~') => Step::Nothing(length),
                (_, key) => named(key, length),
            }
        }
        None if bytes.len() > LONGEST => Step::Nothing(bytes.len() + 2),
        None => Step::More,
    }
}

/// A button, and where: `0;12;3`.
fn pointed(parameters: &[u8]) -> Option<Press> {
    /// Shift, Meta and Control are held.
    const HELD: u16 = 4 | 8 | 16;
    let text = std::str::from_utf8(parameters).ok()?;
    let mut numbers = text.split(';').map(str::parse::<u16>);
    let (button, x, y) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    match button & !HELD {
        0 => Some(Press::Click(x.checked_sub(1)?, y.checked_sub(1)?)),
        64 => Some(Press::WheelUp),
        65 => Some(Press::WheelDown),
        _ => None,
    }
}

fn named(key: u8, length: usize) -> Step {
    let press = match key {
        b'A' => Press::Up,
        b'B' => Press::Down,
        b'C' => Press::Right,
        b'D' => Press::Left,
        b'H' => Press::Home,
        b'F' => Press::End,
        b'Z' => Press::BackTab,
        b'M' if length == 3 => Press::Enter,
        _ => return Step::Nothing(length),
    };
    Step::Key(press, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Press> {
        KeyDecoder::default().feed(bytes)
    }

    #[test]
    fn sequences_of_terminals_are_keys() {
        for (bytes, key) in [
            (&b"\x1b[A"[..], Press::Up),
            (b"\x1bOB", Press::Down),
            (b"\x1b[1;5C", Press::Right),
            (b"\x1b[H", Press::Home),
            (b"\x1b[4~", Press::End),
            (b"\x1b[5~", Press::PageUp),
            (b"\x1b[6~", Press::PageDown),
            (b"\x1b[Z", Press::BackTab),
            (b"\r", Press::Enter),
            (b"\x7f", Press::Backspace),
            (b"\x03", Press::Ctrl('c')),
            (b"\x1a", Press::Ctrl('z')),
            ("ö".as_bytes(), Press::Char('ö')),
        ] {
            assert_eq!(keys(bytes), [key], "{bytes:?}");
            // One byte at a time, as a serial line brings them.
            let mut decoder = KeyDecoder::default();
            let slowly: Vec<Press> = bytes.iter().flat_map(|byte| decoder.feed(&[*byte])).collect();
            assert_eq!(slowly, [key], "{bytes:?}");
            assert!(!decoder.is_waiting(), "{bytes:?}");
        }
    }

    #[test]
    fn an_escape_alone_is_told_after_a_while() {
        let mut decoder = KeyDecoder::default();
        assert_eq!(decoder.feed(b"\x1b"), []);
        assert!(decoder.is_waiting());
        assert_eq!(decoder.flush(), Some(Press::Escape));
        assert_eq!(decoder.flush(), None);
        assert_eq!(keys(b"\x1bq"), [Press::Escape, Press::Char('q')]);
        assert_eq!(keys(b"\x1b\x1b[A"), [Press::Escape, Press::Up]);
    }

    #[test]
    fn a_mouse_is_told_where_it_is_wanted() {
        let sent = b"\x1b[<0;12;3M\x1b[<0;12;3m\x1b[<64;1;1M\x1b[<65;1;1M\x1b[<2;1;1M\x1b[<0;0;1Mq";
        let wanted = [Press::Click(11, 2), Press::WheelUp, Press::WheelDown, Press::Char('q')];
        assert_eq!(KeyDecoder::new(true).feed(sent), wanted);
        assert_eq!(KeyDecoder::new(false).feed(sent), [Press::Char('q')]);
        // In the old way, whatever the bytes are.
        assert_eq!(KeyDecoder::new(true).feed(b"\x1b[M q!q"), [Press::Char('q')]);
        let mut decoder = KeyDecoder::new(true);
        let slowly: Vec<Press> = sent.iter().flat_map(|byte| decoder.feed(&[*byte])).collect();
        assert_eq!(slowly, wanted);
    }

    #[test]
    fn nonsense_ends() {
        for bytes in [&b"\x1b[[A"[..], b"\x1b[200~", b"\xff\xfe\x00\x1c", b"\x1b[<0;1;2M"] {
            assert_eq!(keys(&[bytes, b"q"].concat()), [Press::Char('q')], "{bytes:?}");
        }
        let long = [b"\x1b[".as_slice(), &[b'1'; 100]].concat();
        let mut decoder = KeyDecoder::default();
        decoder.feed(&long);
        assert_eq!(decoder.feed(b"q"), [Press::Char('q')]);
    }
}
