//! How an object becomes a line, and how it begins.

use std::io::{self, Write};

use serde::{Serialize, ser::SerializeMap};

use crate::output::escape::json_escape;

/// What each object begins with: of which kind it is, and by which version of the contract. That goes up
/// when a field changes its meaning or goes; a new field is no new version.
#[derive(Serialize)]
pub(super) struct Begin {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Begin {
    pub(super) const fn of(kind: &'static str) -> Self {
        Self { schema: 1, kind }
    }
}

/// Pairs that are written as an object, in their order.
pub(super) struct Pairs<T>(pub(super) T);

impl<T: Serialize> Serialize for Pairs<Vec<(&str, T)>> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// One object, one line.
pub(super) fn write_line(out: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    let mut line = Vec::with_capacity(2048);
    object
        .serialize(&mut serde_json::Serializer::with_formatter(&mut line, Printable))
        .map_err(io::Error::other)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// serde_json's compact form, in which no character that does not print appears as itself.
struct Printable;

impl serde_json::ser::Formatter for Printable {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut result = Ok(());
        json_escape(fragment, |part| {
            if result.is_ok() {
                result = writer.write_all(part.as_bytes());
            }
        });
        result
    }
}
