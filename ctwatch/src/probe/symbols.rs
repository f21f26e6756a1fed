//! Where a few of the kernel's functions and variables are: asked of the kernel itself where it
//! answers, read from `/proc/kallsyms` where it does not. For that file the kernel writes a hundred
//! thousand lines, which takes longer than all the rest of a start.
//!
//! A program that is run once looks up the names (`bpf_kallsyms_lookup_name`, Linux 5.16) and has the
//! kernel print each address with `%pS`, as `nf_conntrack_free+0x0/0x120 [nf_conntrack]`: with the
//! distance to the next symbol, which is what kallsyms has for a size.
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/kallsyms.c> `__sprint_symbol`

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use aya_obj::generated::bpf_insn;
use ctwatch_abi::Code;

use super::bpf;
use crate::host::kernel::symbols::{Symbol, Symbols};

/// Where these are, as far as they are anywhere.
pub fn find(wanted: &[&'static str]) -> Result<Symbols> {
    match ask(wanted) {
        Ok(symbols) => Ok(symbols),
        Err(_) => Symbols::read(wanted),
    }
}

/// As the program finds it and leaves it: the name goes in, the rest comes out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Question {
    name: [u8; NAME],
    /// What looking it up came to, and how long the text is or should have been.
    found: i64,
    printed: i64,
    address: u64,
    text: [u8; TEXT],
}

const NAME: usize = 64;
const TEXT: usize = 192;
const ABSENT: i64 = -(libc::ENOENT as i64);

/// Asks the kernel; an error where it does not answer.
pub fn ask(wanted: &[&'static str]) -> Result<Symbols> {
    let format = bpf::constant(b"%pS\0\0\0\0\0")?;
    let code = program(format.as_fd().as_raw_fd())?;
    let program = bpf::load_for_a_run("ask_symbols", &code)?;
    let mut answers = Vec::with_capacity(wanted.len());
    for name in wanted {
        let mut question =
            Question { name: [0; NAME], found: 0, printed: 0, address: 0, text: [0; TEXT] };
        ensure!(name.len() < NAME, "{name} is too long a name");
        question.name[..name.len()].copy_from_slice(name.as_bytes());
        bpf::run_with(program.as_fd(), &mut question)?;
        match question.found {
            0 => answers.push((*name, Some(question.symbol()?))),
            ABSENT => answers.push((*name, None)),
            error => bail!("the kernel does not look up {name}: {error}"),
        }
    }
    Ok(Symbols::told(&answers))
}

// SAFETY: integers without padding between them.
unsafe impl bpf::Given for Question {}

impl Question {
    fn symbol(&self) -> Result<Symbol> {
        let printed = usize::try_from(self.printed).context("the kernel does not print it")?;
        ensure!((1..=TEXT).contains(&printed), "{printed} bytes for {TEXT}");
        let text = self.text.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = str::from_utf8(text)?;
        let (len, module) = size(text).with_context(|| format!("the kernel prints {text:?}"))?;
        Ok(Symbol { code: Code { start: self.address, len }, module })
    }
}

/// Of `name+0x0/0x120 [module]`; and whether there is a module.
fn size(text: &str) -> Option<(u64, bool)> {
    let (_, rest) = text.rsplit_once("+0x0/0x")?;
    let (digits, module) = match rest.split_once(' ') {
        Some((digits, module)) => (digits, module.starts_with('[')),
        None => (rest, false),
    };
    let len = u64::from_str_radix(digits, 16).ok()?;
    (len > 0).then_some((len, module))
}

/// On the program's stack, from its top down.
const ADDRESS_AT: i16 = -8;
const NAME_AT: i16 = -72;
const TEXT_AT: i16 = -264;

const _: () = {
    assert!(NAME_AT.unsigned_abs() as usize == NAME + ADDRESS_AT.unsigned_abs() as usize);
    assert!(TEXT_AT.unsigned_abs() as usize == TEXT + NAME_AT.unsigned_abs() as usize);
};

/// The few instructions of the program.
fn program(format: i32) -> Result<Vec<bpf_insn>> {
    use instruction::{
        ADD, CALL, CONSTANT, EXIT, MOVE, STORE, constant, immediate, load, register, store,
    };
    const KALLSYMS_LOOKUP_NAME: i32 = 179;
    const SNPRINTF: i32 = 165;
    const CONTEXT: u8 = 6;
    const STACK: u8 = 10;
    let field = |offset: usize| i16::try_from(offset).context("a field is out of reach");
    let words = |bytes: usize| (0..bytes / 8).map(|word| word * 8);
    let name_at = field(std::mem::offset_of!(Question, name))?;
    let text_at = field(std::mem::offset_of!(Question, text))?;
    let mut code = vec![register(MOVE, CONTEXT, 1)];
    for word in words(NAME) {
        let word = field(word)?;
        code.extend([load(0, CONTEXT, name_at + word), store(STACK, NAME_AT + word, 0)]);
    }
    // The verifier wants to see all of it written before it is handed over.
    for word in words(TEXT) {
        code.push(immediate(STORE, STACK, TEXT_AT + field(word)?, 0));
    }
    code.extend([
        immediate(STORE, STACK, ADDRESS_AT, 0),
        register(MOVE, 1, STACK),
        immediate(ADD, 1, 0, NAME_AT.into()),
        immediate(CONSTANT, 2, 0, i32::try_from(NAME)?),
        immediate(CONSTANT, 3, 0, 0),
        register(MOVE, 4, STACK),
        immediate(ADD, 4, 0, ADDRESS_AT.into()),
        immediate(CALL, 0, 0, KALLSYMS_LOOKUP_NAME),
        store(CONTEXT, field(std::mem::offset_of!(Question, found))?, 0),
        register(MOVE, 1, STACK),
        immediate(ADD, 1, 0, TEXT_AT.into()),
        immediate(CONSTANT, 2, 0, i32::try_from(TEXT)?),
    ]);
    code.extend(constant(3, format));
    code.extend([
        register(MOVE, 4, STACK),
        immediate(ADD, 4, 0, ADDRESS_AT.into()),
        immediate(CONSTANT, 5, 0, 8),
        immediate(CALL, 0, 0, SNPRINTF),
        store(CONTEXT, field(std::mem::offset_of!(Question, printed))?, 0),
        load(0, STACK, ADDRESS_AT),
        store(CONTEXT, field(std::mem::offset_of!(Question, address))?, 0),
    ]);
    for word in words(TEXT) {
        let word = field(word)?;
        code.extend([load(0, STACK, TEXT_AT + word), store(CONTEXT, text_at + word, 0)]);
    }
    code.extend([immediate(CONSTANT, 0, 0, 0), immediate(EXIT, 0, 0, 0)]);
    Ok(code)
}

/// <https://docs.kernel.org/bpf/standardization/instruction-set.html>
mod instruction {
    use aya_obj::generated::bpf_insn;

    /// `dst = src`
    pub(super) const MOVE: u8 = 0xbf;
    /// `dst = imm`
    pub(super) const CONSTANT: u8 = 0xb7;
    /// `dst += imm`
    pub(super) const ADD: u8 = 0x07;
    /// `*(u64 *)(dst + off) = imm`
    pub(super) const STORE: u8 = 0x7a;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;

    fn instruction(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
        let registers = bpf_insn::new_bitfield_1(dst, src);
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: registers, off, imm }
    }

    pub(super) fn immediate(code: u8, dst: u8, off: i16, imm: i32) -> bpf_insn {
        instruction(code, dst, 0, off, imm)
    }

    pub(super) fn register(code: u8, dst: u8, src: u8) -> bpf_insn {
        instruction(code, dst, src, 0, 0)
    }

    /// `dst = *(u64 *)(src + off)`
    pub(super) fn load(dst: u8, src: u8, off: i16) -> bpf_insn {
        instruction(0x79, dst, src, off, 0)
    }

    /// `*(u64 *)(dst + off) = src`
    pub(super) fn store(dst: u8, off: i16, src: u8) -> bpf_insn {
        instruction(0x7b, dst, src, off, 0)
    }

    /// `dst` = where the value of this map is.
    pub(super) fn constant(dst: u8, map: i32) -> [bpf_insn; 2] {
        const BPF_PSEUDO_MAP_VALUE: u8 = 2;
        [instruction(0x18, dst, BPF_PSEUDO_MAP_VALUE, 0, map), instruction(0, 0, 0, 0, 0)]
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn a_size_is_told_with_or_without_a_module() {
        assert_eq!(size("nf_hook_slow+0x0/0x1a0"), Some((0x1a0, false)));
        assert_eq!(size("early_drop+0x0/0x40 [nf_conntrack]"), Some((0x40, true)));
    }

    #[test]
    fn what_is_no_beginning_of_a_symbol_has_no_size() {
        for text in ["", "0xffffffff81f34770", "a+0x10/0x20", "a+0x0/0x0", "a+0x0/0xzz", "a+0x0/0x"]
        {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
