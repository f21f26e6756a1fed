//! Where the kernel's functions and variables are, from `/proc/kallsyms`.

use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result};
use ctwatch_ebpf::Code;

const KALLSYMS: &str = "/proc/kallsyms";
const HIDDEN: &str = "kernel addresses are hidden (kptr_restrict): needs CAP_SYSLOG";

/// The code ranges of a few wanted functions, and where a few wanted variables are.
#[derive(Debug)]
pub struct Symbols {
    found: Vec<(&'static str, Code)>,
    variables: Vec<(&'static str, u64)>,
    /// The wanted names that are there at all, and whether in a module.
    named: Vec<(&'static str, bool)>,
    hidden: bool,
}

impl Symbols {
    pub fn read(wanted: &[&'static str]) -> Result<Self> {
        let file = std::fs::File::open(KALLSYMS).with_context(|| {
            format!("cannot open {KALLSYMS} (a kernel without CONFIG_KALLSYMS?)")
        })?;
        Self::parse(file, wanted).with_context(|| format!("cannot read {KALLSYMS}"))
    }

    /// A function ends where the next symbol begins: kallsyms has no sizes. The file lists the
    /// kernel in order of address but modules in any, so every address is kept until the end.
    pub fn parse(text: impl Read, wanted: &[&'static str]) -> std::io::Result<Self> {
        let mut reader = BufReader::with_capacity(64 << 10, text);
        let mut addresses: Vec<u64> = Vec::with_capacity(128 << 10);
        let mut starts: Vec<(&'static str, u64)> = Vec::new();
        let mut named: Vec<(&'static str, bool)> = Vec::new();
        let mut variables: Vec<(&'static str, u64)> = Vec::new();
        let mut line = Vec::with_capacity(256);
        while reader.read_until(b'\n', &mut line)? != 0 {
            if let Some((address, kind, name)) = symbol(&line) {
                let want = wanted.iter().find(|want| want.as_bytes() == name);
                if is_function(kind) {
                    addresses.push(address);
                    if let Some(want) = want {
                        starts.push((want, address));
                        named.push((want, line.contains(&b'[')));
                    }
                } else if let Some(want) = want {
                    variables.push((want, address));
                }
            }
            line.clear();
        }
        // With kptr_restrict every address reads as zero.
        let hidden = !addresses.is_empty() && addresses.iter().all(|address| *address == 0);
        let found = starts
            .into_iter()
            .filter(|(_, start)| *start != 0)
            .filter_map(|(name, start)| {
                let end = addresses.iter().copied().filter(|address| *address > start).min()?;
                Some((name, Code { start, len: end - start }))
            })
            .collect();
        Ok(Self { found, variables, named, hidden })
    }

    /// Whether there is a function of this name, and if so whether it is a module's.
    pub fn in_module(&self, name: &str) -> Option<bool> {
        self.named.iter().find(|(named, _)| *named == name).map(|(_, module)| *module)
    }

    /// The code of `name`, or why it is not known.
    pub fn code(&self, name: &str) -> Result<Code, String> {
        match self.found.iter().find(|(found, _)| *found == name) {
            Some((_, code)) => Ok(*code),
            None if self.hidden => Err(HIDDEN.to_owned()),
            None => Err(format!("{KALLSYMS} has no function {name}")),
        }
    }

    /// Where the variable `name` is, or why that is not known. Kernels without
    /// `CONFIG_KALLSYMS_ALL` name functions only.
    pub fn variable(&self, name: &str) -> Result<u64, String> {
        match self.variables.iter().find(|(found, _)| *found == name) {
            _ if self.hidden => Err(HIDDEN.to_owned()),
            Some((_, address)) => Ok(*address),
            None => Err(format!("{KALLSYMS} has no variable {name}")),
        }
    }
}

/// `ffffffff81f34770 T nf_conntrack_free\t[nf_conntrack]`: the address, the kind and the name.
fn symbol(line: &[u8]) -> Option<(u64, u8, &[u8])> {
    let mut fields = line.split(|byte| byte.is_ascii_whitespace());
    let address = hex(fields.next()?)?;
    let [kind] = fields.next()? else { return None };
    Some((address, *kind, fields.next()?))
}

fn is_function(kind: u8) -> bool {
    matches!(kind, b't' | b'T' | b'w' | b'W')
}

/// Without a detour over `str`: this runs a hundred thousand times before the first line is shown.
fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |sum: u64, digit| Some(sum << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _text
ffffffff81f34770 T nf_conntrack_free
ffffffff81f34790 T after
0000000000001000 d data_symbol
ffffffffc0002000 t early_drop\t[nf_conntrack]
ffffffffc0001000 t other\t[nf_conntrack]
ffffffffc0002040 t third\t[nf_conntrack]
";

    #[test]
    fn a_function_ends_at_the_next_address_also_in_an_unsorted_module() {
        let symbols =
            Symbols::parse(TEXT.as_bytes(), &["nf_conntrack_free", "early_drop"]).unwrap();
        let free = symbols.code("nf_conntrack_free").unwrap();
        assert_eq!(free, Code { start: 0xffff_ffff_81f3_4770, len: 0x20 });
        assert_eq!(symbols.code("early_drop").unwrap().len, 0x40);
        assert_eq!(symbols.in_module("early_drop"), Some(true));
        assert_eq!(symbols.in_module("nf_conntrack_free"), Some(false));
        assert_eq!(symbols.in_module("absent"), None);
    }

    #[test]
    fn hidden_addresses_and_absent_functions_are_told_apart() {
        let absent = Symbols::parse(TEXT.as_bytes(), &["gone"]).unwrap();
        assert!(absent.code("gone").unwrap_err().contains("has no function gone"));
        let zeros = "0000000000000000 T nf_conntrack_free\n0000000000000000 T other\n";
        let hidden = Symbols::parse(zeros.as_bytes(), &["nf_conntrack_free"]).unwrap();
        assert!(hidden.code("nf_conntrack_free").unwrap_err().contains("CAP_SYSLOG"));
        assert!(hidden.variable("nf_conntrack_hash").unwrap_err().contains("CAP_SYSLOG"));
    }

    #[test]
    fn variables_are_no_functions() {
        let symbols = Symbols::parse(TEXT.as_bytes(), &["data_symbol", "after"]).unwrap();
        assert_eq!(symbols.variable("data_symbol"), Ok(0x1000));
        assert!(symbols.code("data_symbol").is_err());
        assert!(symbols.variable("after").unwrap_err().contains("has no variable after"));
    }

    #[test]
    fn malformed_lines_are_passed_over() {
        let text = "\n \nzz T a\nffffffffffffffffff T b\n10 T\n10\n20 T wanted\n30 T x\n";
        let symbols = Symbols::parse(text.as_bytes(), &["wanted"]).unwrap();
        assert_eq!(symbols.code("wanted").unwrap(), Code { start: 0x20, len: 0x10 });
    }
}
