//! Reads what other tools printed on a box where ctwatch never ran, and turns it into the facts that a diagnosis
//! goes by. Pure: text comes in, plain values go out; no file is opened here.
//!
//! A bundle consists of pieces. A piece is the output of one command, or a file, or a paste: several outputs, each
//! behind the command that printed it. The lines tell what a piece is; its name is a hint. Every length is bounded,
//! because strangers make bundles.

mod assemble;
mod entries;
mod forms;
mod gathered;
mod iptables;
mod iptables_list;
mod kind;
mod lines;
mod lists;
mod log;
mod missing;
mod nft;
mod nft_json;
mod nft_rule;
mod outcome;
mod part;
mod place;
mod prompt;
mod small;
mod words;

use std::{io, io::BufRead};

use ctwatch_abi::top::By;

use gathered::BundleParts;
pub use kind::Printed;
use lines::Next;
pub use outcome::{Bundle, CountersAt, InBundle, Misread};
use part::Section;
use prompt::Typed;

/// Reads the pieces of one bundle, one after the other.
pub struct Reader {
    gathered: BundleParts,
}

/// Top lists that the doctor wants, and their length.
const BY: [By; 3] = [By::Service, By::Source, By::Destination];
const MOST: usize = 20;

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// Keeps the top lists that the doctor wants.
    pub fn new() -> Self {
        Self::counting(&BY, MOST)
    }

    /// Keeps these top lists, each of this length.
    pub fn counting(by: &[By], most: usize) -> Self {
        Self { gathered: BundleParts::new(by, most) }
    }

    /// Tells when the bundle is read: no line of a log is later, which tells the year of lines without one.
    #[must_use]
    pub fn read_at(mut self, now: jiff::Timestamp) -> Self {
        self.gathered.log.now = Some(now);
        self
    }

    /// Takes in one piece; `name` is its path within the bundle. After an error of reading, the lines before it
    /// count.
    pub fn piece(&mut self, name: &str, text: &mut dyn BufRead) -> io::Result<()> {
        self.gathered.evidence_of(name);
        if place::is_about_itself(name) || Printed::is_configuration(name) {
            self.gathered.unknown_pieces += 1;
            return Ok(());
        }
        let mut piece = Piece::new(name);
        match opening(text)? {
            Opening::Binary => {
                self.gathered.unknown_pieces += 1;
                return Ok(());
            }
            Opening::Nft => {
                let read = nft_json::read(text);
                let namespace = place::of_name(name).map(str::to_owned);
                self.gathered.count(Printed::NftJson);
                match read {
                    Ok(tables) => self.gathered.nft(namespace, tables),
                    Err(why) => self.gathered.misread(name, 1, b"{\"nftables\": ...", Some(why)),
                }
                return Ok(());
            }
            Opening::Facts => {
                self.gathered.count(Printed::Facts);
                match small::facts(text) {
                    Some(facts) => self.gathered.collected = Some(facts),
                    None => self.gathered.misread(
                        name,
                        1,
                        b"{\"release\": ...",
                        Some("no facts that this version of ctwatch can read"),
                    ),
                }
                return Ok(());
            }
            Opening::Lines => {}
        }
        let mut line = Vec::new();
        let outcome = loop {
            match lines::next(text, &mut line) {
                Ok(Next::Line) => {
                    piece.number += 1;
                    piece.line(&line, &mut self.gathered);
                }
                Ok(Next::TooLong) => {
                    piece.number += 1;
                    piece.complain(&mut self.gathered, &line, "longer than any line of a tool");
                }
                Ok(Next::Endless) => {
                    piece.number += 1;
                    piece.complain(
                        &mut self.gathered,
                        &line,
                        "a line without an end: nothing after it was read",
                    );
                    break Ok(());
                }
                Ok(Next::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        piece.end(&mut self.gathered);
        outcome
    }

    pub fn finish(self) -> Bundle {
        assemble::bundle(self.gathered)
    }
}

/// How a piece is to be read, by its begin.
enum Opening {
    Lines,
    /// `nft -j`: one JSON value, which may be one line of many megabytes.
    Nft,
    Facts,
    Binary,
}

fn opening(text: &mut dyn BufRead) -> io::Result<Opening> {
    const LOOKED_AT: usize = 4096;
    let there = loop {
        match text.fill_buf() {
            Ok(there) => break &there[..there.len().min(LOOKED_AT)],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    if there.contains(&0) {
        return Ok(Opening::Binary);
    }
    let first = there.trim_ascii_start();
    let Some(rest) = first.strip_prefix(b"{") else { return Ok(Opening::Lines) };
    let rest = rest.trim_ascii_start();
    Ok(if rest.starts_with(b"\"nftables\"") {
        Opening::Nft
    } else if rest.starts_with(b"\"release\"") {
        Opening::Facts
    } else {
        Opening::Lines
    })
}

/// A piece that is being read.
struct Piece<'a> {
    name: &'a str,
    number: u64,
    /// The namespace that its name tells.
    namespace: Option<String>,
    part: Section,
    is_known: bool,
    /// Lines before the first that was understood: text around a paste. In a file that is not read at all they
    /// are not reported.
    held: Vec<(u64, String)>,
    more_held: u64,
}

impl<'a> Piece<'a> {
    fn new(name: &'a str) -> Self {
        let namespace = place::of_name(name).map(str::to_owned);
        let kind = Printed::of_file(name).unwrap_or_default();
        let mut part = Section::of(kind, namespace.clone(), name);
        part.is_by_name = true;
        let (held, more_held) = (Vec::new(), 0);
        Self { name, number: 0, namespace, part, is_known: false, held, more_held }
    }

    fn line(&mut self, line: &[u8], gathered: &mut BundleParts) {
        // Most lines are entries of a table: they are tried first, and none looks like a prompt.
        let is_table = self.part.kind == Printed::Entries;
        if is_table && self.part.take(line, self.name, gathered).is_ok() {
            self.is_known |= self.part.is_known();
            return;
        }
        let plain = lines::plain(line);
        let line = &*plain;
        // Before the line is offered to the part: some kinds accept any line.
        if !is_table && let Some(typed) = prompt::prompted(line) {
            return self.typed(&typed, gathered);
        }
        if self.part.take(line, self.name, gathered).is_ok() {
            self.is_known |= self.part.is_known();
            return;
        }
        if line.trim_ascii().is_empty() {
            return;
        }
        if let Some(typed) = prompt::command(line, self.part.kind) {
            return self.typed(&typed, gathered);
        }
        let why = match self.part.take(line, self.name, gathered) {
            Ok(()) => return self.is_known |= self.part.is_known(),
            Err(why) => why,
        };
        let looks = Printed::of_line(line);
        if let Some(kind) = looks.filter(|kind| *kind != self.part.kind) {
            // The command before it named the namespace, and that still holds.
            let namespace = self.part.namespace.clone();
            self.switch(Section::of(kind, namespace, self.name), gathered);
            match self.part.take(line, self.name, gathered) {
                Ok(()) => self.is_known = true,
                Err(why) => self.misread(line, why, gathered),
            }
            return;
        }
        // Messages of conntrack to the terminal, and the first line of its XML.
        if line.starts_with(b"conntrack v") || line.starts_with(b"<?xml ") {
            return;
        }
        self.misread(line, why, gathered);
    }

    /// A command was typed: the lines after it are its output.
    fn typed(&mut self, typed: &Typed<'_>, gathered: &mut BundleParts) {
        self.switch(Section::of_command(typed, self.namespace.as_deref(), self.name), gathered);
        if let Some(host) = typed.host {
            gathered.host.get_or_insert_with(|| host.to_owned());
        }
    }

    fn switch(&mut self, part: Section, gathered: &mut BundleParts) {
        let old = std::mem::replace(&mut self.part, part);
        old.finish(self.name, gathered);
    }

    fn misread(&mut self, line: &[u8], why: Option<&'static str>, gathered: &mut BundleParts) {
        /// Lines of text around a paste that are shown.
        const MOST_HELD: usize = 10;
        if why.is_some() {
            self.part.lose();
        }
        if self.is_known {
            gathered.misread(self.name, self.number, line, why);
        } else if self.held.len() < MOST_HELD {
            self.held.push((self.number, lines::cut(line)));
        } else {
            self.more_held += 1;
        }
    }

    fn complain(&mut self, gathered: &mut BundleParts, line: &[u8], why: &'static str) {
        self.is_known = true;
        gathered.misread(self.name, self.number, line, Some(why));
    }

    fn end(self, gathered: &mut BundleParts) {
        let is_known = self.is_known;
        self.part.finish(self.name, gathered);
        if !is_known {
            gathered.unknown_pieces += u64::from(self.number > 0);
            return;
        }
        for (line, text) in self.held {
            gathered.misread(self.name, line, text.as_bytes(), None);
        }
        gathered.more_misread += self.more_held;
    }
}

#[cfg(test)]
mod tests;
