//! What is said beside the output: to standard error, where nobody may be listening.

use std::io::{self, Write};

use super::escape::escaped;

/// One line. A standard error that cannot be written to is no reason to end, and there is nobody else
/// to tell.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "ctwatch: {}", escaped(text));
}
