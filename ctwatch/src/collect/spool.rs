//! PackedText that is kept packed until it is written: what would take 40 MB takes three.

use std::io::{self, BufRead, BufReader, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

/// Takes text in.
pub struct Spool {
    packed: GzEncoder<Vec<u8>>,
    bytes: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct PackedText {
    packed: Vec<u8>,
    pub bytes: u64,
}

impl Spool {
    #[expect(clippy::new_without_default, reason = "nothing asks for one by default")]
    pub fn new() -> Self {
        Self { packed: GzEncoder::new(Vec::new(), Compression::fast()), bytes: 0 }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.write_all(line.as_bytes())?;
        self.write_all(b"\n")
    }

    pub fn finish(self) -> io::Result<PackedText> {
        Ok(PackedText { packed: self.packed.finish()?, bytes: self.bytes })
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.packed.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PackedText {
    pub fn of(text: &str) -> io::Result<Self> {
        let mut spool = Spool::new();
        spool.write_all(text.as_bytes())?;
        spool.finish()
    }

    pub fn reader(&self) -> impl BufRead + '_ {
        BufReader::new(GzDecoder::new(self.packed.as_slice()))
    }

    /// Each of its lines as another one.
    pub fn mapped(&self, mut map: impl FnMut(&str) -> String) -> io::Result<Self> {
        let mut spool = Spool::new();
        for line in self.reader().lines() {
            spool.line(&map(&line?))?;
        }
        spool.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn text_comes_out_as_it_went_in() {
        let mut spool = Spool::new();
        for number in 0..1000 {
            spool.line(&format!("line {number}")).unwrap();
        }
        let bytes = spool.bytes();
        let text = spool.finish().unwrap();
        assert!(text.bytes == bytes && (text.packed.len() as u64) < bytes / 2);
        let mut out = String::new();
        text.mapped(|line| line.replace("line", "x"))
            .unwrap()
            .reader()
            .read_to_string(&mut out)
            .unwrap();
        assert!(out.starts_with("x 0\nx 1\n") && out.ends_with("x 999\n"), "{out}");
    }
}
