//! The lines of a piece. One line at a time is in memory, of bounded length.

use std::{
    borrow::Cow,
    io::{self, BufRead},
};

/// Far longer than any line that a tool prints.
pub(super) const LONGEST: usize = 1 << 20;
/// The rest of a longer line is skipped; if it does not end within so many bytes, nothing more of the piece is
/// read.
const PASSED_OVER: u64 = 64 << 20;

/// What comes next in a piece.
pub(super) enum Next {
    /// A line; it is in the buffer.
    Line,
    /// A line that was too long, and was skipped.
    TooLong,
    /// A line that does not end: nothing after it is read.
    Endless,
    End,
}

/// The length of the line with its newline.
fn end_of_line(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes).map(|at| at + 1)
}

/// Reads the next line into `line`, without its newline.
pub(super) fn next(text: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Next> {
    line.clear();
    loop {
        let there = match text.fill_buf() {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if there.is_empty() {
            return Ok(if line.is_empty() { Next::End } else { Next::Line });
        }
        let end = end_of_line(there);
        let taken = end.unwrap_or(there.len());
        if line.len() + taken > LONGEST {
            let passed = (line.len() + taken) as u64;
            text.consume(taken);
            return match end {
                Some(_) => Ok(Next::TooLong),
                None => pass_over(text, passed),
            };
        }
        line.extend_from_slice(&there[..taken]);
        text.consume(taken);
        if end.is_some() {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Next::Line);
        }
    }
}

fn pass_over(text: &mut dyn BufRead, mut passed: u64) -> io::Result<Next> {
    while passed <= PASSED_OVER {
        let there = text.fill_buf()?;
        if there.is_empty() {
            return Ok(Next::TooLong);
        }
        let end = end_of_line(there);
        let taken = end.unwrap_or(there.len());
        text.consume(taken);
        if end.is_some() {
            return Ok(Next::TooLong);
        }
        passed += taken as u64;
    }
    Ok(Next::Endless)
}

/// Without the colours of a terminal: `ESC [ … letter`, `ESC ] … BEL`.
pub(super) fn plain(line: &[u8]) -> Cow<'_, [u8]> {
    const ESCAPE: u8 = 0x1b;
    if !line.contains(&ESCAPE) {
        return Cow::Borrowed(line);
    }
    let mut plain = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != ESCAPE {
            plain.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'[') => _ = bytes.find(|byte| (0x40..0x7f).contains(byte)),
            Some(b']') => _ = bytes.find(|byte| *byte == 7 || *byte == ESCAPE),
            _ => {}
        }
    }
    Cow::Owned(plain)
}

/// The begin of a line, for a report.
pub(super) fn cut(line: &[u8]) -> String {
    const SHOWN: usize = 120;
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN)]);
    let mut cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < line.len() {
        cut.push_str("...");
    }
    cut
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn read(text: &[u8], capacity: usize) -> Vec<Option<String>> {
        let mut text = BufReader::with_capacity(capacity, text);
        let (mut line, mut all) = (Vec::new(), Vec::new());
        loop {
            match next(&mut text, &mut line).unwrap() {
                Next::Line => all.push(Some(String::from_utf8(line.clone()).unwrap())),
                Next::TooLong => all.push(None),
                Next::Endless => panic!("it ends"),
                Next::End => return all,
            }
        }
    }

    #[test]
    fn lines_come_whole_whatever_the_buffer() {
        let text = format!("a\r\n\n{}\nlast", "x".repeat(100));
        for capacity in [1, 7, 32, 33, 1000] {
            let lines: Vec<String> =
                read(text.as_bytes(), capacity).into_iter().flatten().collect();
            assert_eq!(lines, ["a", "", &"x".repeat(100), "last"], "{capacity}");
        }
    }

    #[test]
    fn a_line_too_long_is_passed_over() {
        let text = format!("a\n{}\nb\n", "x".repeat(LONGEST + 1));
        let all = read(text.as_bytes(), 8192);
        assert_eq!(all, [Some("a".to_owned()), None, Some("b".to_owned())]);
    }

    #[test]
    fn a_line_without_an_end_ends_the_piece() {
        let mut endless = BufReader::new(io::repeat(b'x'));
        let mut line = Vec::new();
        assert!(matches!(next(&mut endless, &mut line), Ok(Next::Endless)));
        assert!(line.capacity() <= 2 * LONGEST, "{}", line.capacity());
    }

    #[test]
    fn colours_are_taken_away() {
        assert_eq!(&*plain(b"\x1b[1;31mtcp\x1b[0m 6\x1b]0;title\x07!"), b"tcp 6!");
        assert_eq!(&*plain(b"\x1b["), b"");
    }
}
