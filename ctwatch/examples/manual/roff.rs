//! Markdown as docs/ has it, as a man page.

use std::fmt::Write as _;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

pub(crate) struct Page<'a> {
    pub(crate) name: &'a str,
    pub(crate) section: u8,
    pub(crate) about: &'a str,
    pub(crate) usage: Option<&'a str>,
}

impl Page<'_> {
    pub(crate) fn render(&self, markdown: &str) -> String {
        let mut out = String::new();
        let title = self.name.to_uppercase();
        let (title, section, version) = (plain(&title), self.section, env!("CARGO_PKG_VERSION"));
        let _ = writeln!(out, ".TH {title} {section} \"\" \"ctwatch {version}\" \"ctwatch\"");
        // Words of commands must not be broken, and what is narrow not be stretched.
        out.push_str(".nh\n.ad l\n");
        let _ = writeln!(out, ".SH NAME\n{} \\- {}", plain(self.name), plain(self.about));
        if let Some(usage) = self.usage {
            let _ = writeln!(out, ".SH SYNOPSIS\n\\fB{}\\fR", plain(usage));
        }
        out.push_str(".SH DESCRIPTION\n");
        let mut writer = Writer::new(out);
        for event in Parser::new_ext(&without_more(markdown), Options::ENABLE_TABLES) {
            writer.take(event);
        }
        writer
            .out
            .push_str(".SH SEE ALSO\n\\fBctwatch\\fR(8), \\fBconntrack\\fR(8), \\fBnft\\fR(8)\n");
        writer.out
    }
}

/// Where there is more is a link to another page, which paper does not follow.
fn without_more(markdown: &str) -> String {
    let mut parts = markdown.split(" ([more](");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once("))").map_or("", |(_, rest)| rest));
    }
    text
}

/// As text, wherever it stands.
fn plain(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('"', "\\(dq")
}

struct Writer {
    out: String,
    /// The line that is being written: the kernel of roff is lines.
    line: String,
    /// Of each list that is open: the next number, where it has numbers.
    lists: Vec<Option<u64>>,
    /// The heading of the document is the page's name.
    is_title: bool,
    is_code: bool,
    /// Where a link leads that is worth typing.
    link: Option<String>,
    /// The row that is being read, cell by cell.
    cells: Vec<String>,
    heads: Vec<String>,
}

impl Writer {
    fn new(out: String) -> Self {
        Self {
            out,
            line: String::new(),
            lists: Vec::new(),
            is_title: false,
            is_code: false,
            link: None,
            cells: Vec::new(),
            heads: Vec::new(),
        }
    }

    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.is_code => self.code(&text),
            Event::Text(text) => self.line.push_str(&plain(&text)),
            Event::Code(text) => {
                let _ = write!(self.line, "\\fB{}\\fR", plain(&text));
            }
            Event::SoftBreak => self.line.push(' '),
            Event::HardBreak => self.flush("", ".br\n"),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => self.is_title = level == HeadingLevel::H1,
            Tag::Emphasis => self.line.push_str("\\fI"),
            Tag::Strong => self.line.push_str("\\fB"),
            Tag::Link { dest_url, .. } if dest_url.starts_with("http") => {
                self.link = Some(dest_url.into_string());
            }
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.flush(".PP\n", "");
                self.is_code = true;
                self.out.push_str(".PP\n.RS 4\n.nf\n");
            }
            Tag::List(first) => {
                self.flush("", "");
                if !self.lists.is_empty() {
                    self.out.push_str(".RS 4\n");
                }
                self.lists.push(first);
            }
            Tag::Item => match self.lists.last_mut() {
                Some(Some(number)) => {
                    let _ = writeln!(self.out, ".IP \"{number}.\" 4");
                    *number += 1;
                }
                _ => self.out.push_str(".IP \\(bu 2\n"),
            },
            Tag::TableHead | Tag::TableRow => self.cells.clear(),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let text = std::mem::take(&mut self.line);
                match level {
                    HeadingLevel::H1 => {}
                    HeadingLevel::H2 => {
                        let _ = writeln!(self.out, ".SH \"{}\"", text.to_uppercase());
                    }
                    _ => {
                        let _ = writeln!(self.out, ".SS \"{text}\"");
                    }
                }
                self.is_title = false;
            }
            // In an item it is the item's text.
            TagEnd::Paragraph if self.lists.is_empty() => self.flush(".PP\n", ""),
            TagEnd::Paragraph | TagEnd::Item => self.flush("", ""),
            TagEnd::List(_) => {
                self.lists.pop();
                if !self.lists.is_empty() {
                    self.out.push_str(".RE\n");
                }
            }
            TagEnd::CodeBlock => {
                self.is_code = false;
                self.out.push_str(".fi\n.RE\n");
            }
            TagEnd::Emphasis | TagEnd::Strong => self.line.push_str("\\fR"),
            TagEnd::Link => {
                if let Some(url) = self.link.take() {
                    let _ = write!(self.line, " <{}>", plain(&url));
                }
            }
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.line)),
            TagEnd::TableHead => self.heads = std::mem::take(&mut self.cells),
            TagEnd::TableRow => self.row(),
            _ => {}
        }
    }

    /// The first cell as what is explained, the others below it, by their heads where there are several.
    fn row(&mut self) {
        let Some((first, rest)) = self.cells.split_first() else { return };
        let _ = writeln!(self.out, ".TP\n{}", safe(first));
        for (nth, cell) in rest.iter().enumerate().filter(|(_, cell)| !cell.is_empty()) {
            let head = self.heads.get(nth + 1).filter(|_| rest.len() > 1);
            let text = head.map_or_else(|| cell.clone(), |head| format!("{head}: {cell}"));
            let _ = writeln!(self.out, "{}", safe(&text));
            if nth + 1 < rest.len() {
                self.out.push_str(".br\n");
            }
        }
    }

    fn code(&mut self, text: &str) {
        for line in text.lines() {
            let _ = writeln!(self.out, "{}", safe(&plain(line)));
        }
    }

    fn flush(&mut self, before: &str, after: &str) {
        let line = std::mem::take(&mut self.line);
        if !line.trim().is_empty() && !self.is_title {
            let _ = write!(self.out, "{before}{}\n{after}", safe(line.trim()));
        }
    }
}

/// A line that begins like a request is none.
fn safe(line: &str) -> String {
    match line.starts_with(['.', '\'']) || line.is_empty() {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    }
}
