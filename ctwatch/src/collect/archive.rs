//! The archive: a gzip tar of one folder.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};

use super::spool::PackedText;

pub struct Archive<W: Write> {
    builder: Builder<GzEncoder<W>>,
    folder: String,
    /// Seconds since 1970.
    time: u64,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W, folder: &str, time: u64) -> Self {
        let builder = Builder::new(GzEncoder::new(out, Compression::default()));
        Self { builder, folder: folder.to_owned(), time }
    }

    pub fn add(&mut self, name: &str, text: &PackedText) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(text.bytes);
        header.set_mode(0o640);
        header.set_mtime(self.time);
        self.builder.append_data(&mut header, format!("{}/{name}", self.folder), text.reader())
    }

    pub fn finish(self) -> io::Result<W> {
        self.builder.into_inner()?.finish()
    }
}

/// As sos names files: what is neither a letter, a digit, `_`, `-` nor `.` becomes `_`.
pub fn mangled(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') => out.push(c),
            _ if out.ends_with('_') => {}
            _ => out.push('_'),
        }
    }
    // A folder of this name would lead elsewhere.
    match out.chars().all(|c| c == '.') {
        true => out.replace('.', "_"),
        false => out,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn an_archive_holds_what_was_added() {
        let mut archive = Archive::new(Vec::new(), "ctwatch-x", 1);
        let long = format!("a/{}", "n".repeat(200));
        archive.add("README", &PackedText::of("read me\n").unwrap()).unwrap();
        archive.add(&long, &PackedText::of("long\n").unwrap()).unwrap();
        let bytes = archive.finish().unwrap();
        let mut read = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
        let mut found = Vec::new();
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        let wanted = [("ctwatch-x/README", "read me\n"), (&*format!("ctwatch-x/{long}"), "long\n")];
        assert_eq!(found, wanted.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn names_are_as_sos_has_them() {
        assert_eq!(mangled("kube/pod 7:a"), "kube_pod_7_a");
        assert_eq!(
            (mangled("../x"), mangled(".."), mangled("a__b")),
            (".._x".into(), "__".into(), "a_b".into())
        );
    }
}
