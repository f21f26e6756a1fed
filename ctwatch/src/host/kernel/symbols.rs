//! Where the kernel's functions and variables are, from `/proc/kallsyms`.

use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result};
use ctwatch_abi::Code;

use super::guards;
use crate::record::measurement::Guard;

const KALLSYMS: &str = "/proc/kallsyms";
const HIDDEN: &str = "kernel addresses are hidden (kernel.kptr_restrict): needs CAP_SYSLOG";

/// The code ranges of a few wanted functions, and where a few wanted variables are.
#[derive(Debug)]
pub struct Symbols {
    found: Vec<(&'static str, Code)>,
    variables: Vec<(&'static str, u64)>,
    /// The wanted names that are there at all, and whether in a module.
    named: Vec<(&'static str, bool)>,
    /// Why all addresses read as zero, where they do.
    hidden: Option<String>,
}

/// A function or variable, as the kernel itself tells of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Up to where the next one begins.
    pub code: Code,
    pub module: bool,
}

impl Symbols {
    /// What somebody else found out, of each wanted name.
    pub fn told(symbols: &[(&'static str, Option<Symbol>)]) -> Self {
        let there = || symbols.iter().filter_map(|(name, symbol)| Some((*name, (*symbol)?)));
        Self {
            found: there().map(|(name, symbol)| (name, symbol.code)).collect(),
            variables: there().map(|(name, symbol)| (name, symbol.code.start)).collect(),
            named: there().map(|(name, symbol)| (name, symbol.module)).collect(),
            hidden: None,
        }
    }

    pub fn read(wanted: &[&'static str]) -> Result<Self> {
        let file = std::fs::File::open(KALLSYMS).with_context(|| {
            format!("cannot open {KALLSYMS} (a kernel without CONFIG_KALLSYMS?)")
        })?;
        Self::parse(file, wanted).with_context(|| format!("cannot read {KALLSYMS}"))
    }

    /// A function ends where the next one begins: kallsyms has no sizes. The file lists the kernel's
    /// own in order of address, then each module's in any. It is read up to where all that is wanted
    /// is known, for the kernel takes longer to write it than this to read it.
    pub fn parse(text: impl Read, wanted: &[&'static str]) -> std::io::Result<Self> {
        let mut reader = BufReader::with_capacity(64 << 10, text);
        let mut search = Search::default();
        let mut line = Vec::with_capacity(256);
        while reader.read_until(b'\n', &mut line)? != 0 {
            if let Some(symbol) = Line::parse(&line)
                && search.take(&symbol, wanted)
                && wanted.iter().all(|name| search.knows(name))
            {
                break;
            }
            line.clear();
        }
        Ok(search.symbols())
    }

    /// Whether there is a function of this name, and if so whether it is a module's.
    pub fn in_module(&self, name: &str) -> Option<bool> {
        self.named.iter().find(|(named, _)| *named == name).map(|(_, module)| *module)
    }

    /// The code of `name`, or why it is not known.
    pub fn code(&self, name: &str) -> Result<Code, String> {
        match self.found.iter().find(|(found, _)| *found == name) {
            Some((_, code)) => Ok(*code),
            None => {
                Err(self.hidden.clone().unwrap_or(format!("{KALLSYMS} has no function {name}")))
            }
        }
    }

    /// Where the variable `name` is, or why that is not known. Kernels without
    /// `CONFIG_KALLSYMS_ALL` name functions only.
    pub fn variable(&self, name: &str) -> Result<u64, String> {
        if let Some(why) = &self.hidden {
            return Err(why.clone());
        }
        let found = self.variables.iter().find(|(found, _)| *found == name);
        found.map(|(_, address)| *address).ok_or(format!("{KALLSYMS} has no variable {name}"))
    }
}

/// `ffffffff81f34770 T nf_conntrack_free\t[nf_conntrack]`
struct Line<'a> {
    digits: &'a [u8],
    kind: u8,
    name: &'a [u8],
    /// With its brackets; empty where it is the kernel's own.
    module: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        // So they all look, and there are a hundred thousand of them.
        if let (Some((digits, [b' ', kind, b' ', rest @ ..])), b'\n') =
            (line.split_first_chunk::<16>(), *line.last()?)
            && !rest.ends_with(b"]\n")
            && let [name @ .., _] = rest
        {
            return Some(Self { digits, kind: *kind, name, module: &[] });
        }
        let mut fields = line.split(|byte| byte.is_ascii_whitespace());
        let digits = fields.next()?;
        let [kind] = fields.next()? else { return None };
        let name = fields.next()?;
        Some(Self { digits, kind: *kind, name, module: fields.next().unwrap_or_default() })
    }
}

/// What was read so far.
#[derive(Default)]
struct Search {
    starts: Vec<Start>,
    variables: Vec<(&'static str, u64)>,
    /// Of modules' functions: those that were read before a wanted one may lie behind it.
    addresses: Vec<u64>,
    /// The module that the last function was of.
    module: Vec<u8>,
    /// With kptr_restrict every address reads as zero.
    functions: bool,
    visible: bool,
}

struct Start {
    name: &'static str,
    address: u64,
    /// The nearest address behind it.
    end: Option<u64>,
    in_module: bool,
    /// Nothing that is yet to come is nearer.
    settled: bool,
}

impl Search {
    /// True where more is known than before, for sure.
    fn take(&mut self, symbol: &Line<'_>, wanted: &[&'static str]) -> bool {
        let want = wanted.iter().find(|want| want.as_bytes() == symbol.name);
        let in_module = !symbol.module.is_empty();
        let pending = self.starts.iter().any(|start| !start.settled);
        if want.is_none() && !in_module && !pending && self.visible {
            return false;
        }
        // On Arm they mark where code and data begin within a function, and end none:
        // <https://github.com/ARM-software/abi-aa/blob/main/aaelf64/aaelf64.rst#mapping-symbols>
        if symbol.name.starts_with(b"$") {
            return false;
        }
        let Some(address) = hex(symbol.digits) else { return false };
        if !is_function(symbol.kind) {
            self.variables.extend(want.map(|want| (*want, address)));
            return want.is_some();
        }
        let mut settled = false;
        if self.module != symbol.module {
            // What a module has lies together.
            for start in self.starts.iter_mut().filter(|start| !start.settled) {
                start.settled = start.end.is_some();
                settled |= start.settled;
            }
            self.module = symbol.module.to_vec();
        }
        if in_module {
            self.addresses.push(address);
        }
        self.functions = true;
        self.visible |= address != 0;
        for start in self.starts.iter_mut().filter(|start| !start.settled) {
            if address > start.address && start.end.is_none_or(|end| address < end) {
                start.end = Some(address);
                start.settled = !start.in_module;
                settled |= start.settled;
            }
        }
        if let Some(name) = want {
            let behind = self.addresses.iter().copied().filter(|before| *before > address);
            let end = behind.min().filter(|_| in_module);
            self.starts.push(Start { name, address, end, in_module, settled: address == 0 });
        }
        settled || want.is_some()
    }

    fn knows(&self, name: &str) -> bool {
        self.starts.iter().any(|start| start.name == name && start.settled)
            || self.variables.iter().any(|(variable, at)| *variable == name && *at != 0)
    }

    fn symbols(self) -> Symbols {
        let code =
            |start: &Start| Some(Code { start: start.address, len: start.end? - start.address });
        let named = self.starts.iter().filter(|start| start.address != 0);
        Symbols {
            found: named.filter_map(|start| Some((start.name, code(start)?))).collect(),
            named: self.starts.iter().map(|start| (start.name, start.in_module)).collect(),
            hidden: (self.functions && !self.visible).then(why_hidden),
            variables: self.variables,
        }
    }
}

/// CAP_SYSLOG helps up to level 1.
fn why_hidden() -> String {
    let hidden = Guard::HiddenAddresses;
    if guards::in_force().contains(&hidden) { hidden.why() } else { HIDDEN.to_owned() }
}

fn is_function(kind: u8) -> bool {
    matches!(kind, b't' | b'T' | b'w' | b'W')
}

/// Without a detour over `str`: modules have ten thousands of them.
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

    /// A file that must not be read any further.
    struct End;

    impl Read for End {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("nobody wanted that"))
        }
    }

    #[test]
    fn reads_no_further_than_the_last_end() {
        let read = |text: &str, wanted: &[&'static str]| {
            Symbols::parse(text.as_bytes().chain(End), wanted)
        };
        let own = read(TEXT, &["_text", "nf_conntrack_free"]).unwrap();
        assert_eq!(own.code("nf_conntrack_free").unwrap().len, 0x20);
        let zeros = "0000000000000000 T nf_conntrack_free\n";
        assert!(read(zeros, &["nf_conntrack_free"]).unwrap().code("nf_conntrack_free").is_err());
        // Another function of the module may lie right behind it.
        assert!(read(TEXT, &["early_drop"]).is_err());
        let more = format!("{TEXT}ffffffffc0000000 t next\t[another]\n");
        let module = read(&more, &["nf_conntrack_free", "early_drop"]).unwrap();
        assert_eq!(module.code("early_drop").unwrap().len, 0x40);
        assert!(read(&more, &["nf_conntrack_free", "absent"]).is_err());
        assert!(read(&more, &["data_symbol", "other"]).is_ok());
    }

    #[test]
    fn symbols_of_one_address_end_where_the_next_begins() {
        let text = "10 T other\n20 T wanted\n20 T alias\n20 T more\n30 T end\n";
        let symbols = Symbols::parse(text.as_bytes(), &["wanted", "alias"]).unwrap();
        assert_eq!(symbols.code("wanted").unwrap(), Code { start: 0x20, len: 0x10 });
        assert_eq!(symbols.code("alias").unwrap(), Code { start: 0x20, len: 0x10 });
    }

    #[test]
    fn marks_within_a_function_do_not_end_it() {
        let text = "20 t wanted\t[m]\n20 t $x\t[m]\n28 t $d\t[m]\n30 t end\t[m]\n40 t x\t[n]\n";
        let symbols = Symbols::parse(text.as_bytes(), &["wanted"]).unwrap();
        assert_eq!(symbols.code("wanted").unwrap(), Code { start: 0x20, len: 0x10 });
    }

    #[test]
    fn symbols_that_were_told_are_found_and_the_absent_are_not() {
        let code = Code { start: 0x20, len: 0x10 };
        let told = [("there", Some(Symbol { code, module: true })), ("absent", None)];
        let symbols = Symbols::told(&told);
        assert_eq!((symbols.code("there"), symbols.variable("there")), (Ok(code), Ok(0x20)));
        assert_eq!(symbols.in_module("there"), Some(true));
        assert!(symbols.code("absent").unwrap_err().contains("has no function absent"));
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
