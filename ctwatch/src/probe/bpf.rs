//! The `bpf` system calls that aya does not make: tracing programs on the functions of a module,
//! and what the kernel says that programs and probes missed. Unsafe inside, safe to use.
//!
//! A tracing program is attached by the number of a function in some BTF object. aya knows only
//! that of vmlinux; where conntrack is a module the number is one of the module's own BTF, and the
//! program must be loaded with that object too.
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h>

use std::{
    ffi::{CStr, CString},
    io,
    mem::{offset_of, zeroed},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use aya_obj::generated::{
    BPF_F_RDONLY_PROG, BPF_F_SLEEPABLE, bpf_attach_type, bpf_attr, bpf_btf_info, bpf_cmd, bpf_insn,
    bpf_link_info, bpf_link_type, bpf_map_type, bpf_prog_info, bpf_prog_type,
};

use crate::host::kernel::guards;

/// Where a tracing program runs: of a function, or in place of one that a tracepoint calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TracedAt {
    Entry,
    Exit,
    Tracepoint,
}

/// A function, or the type of a tracepoint's: its number in a BTF object, that of vmlinux where there is
/// none.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramTarget<'a> {
    pub(super) btf: Option<BorrowedFd<'a>>,
    pub(super) number: u32,
}

/// Of the verifier's complaints, enough for the last lines.
const LOG: usize = 64 << 10;

fn attr() -> bpf_attr {
    // SAFETY: a plain C union for which all zero is a valid value, and what the kernel wants of
    // every field that is not meant.
    unsafe { zeroed() }
}

/// Whether this kernel has the system call at all.
pub fn is_there() -> bool {
    // SAFETY: without any address in it; no map is made of nothing.
    let answer = unsafe { bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr()) };
    !answer.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS))
}

/// SAFETY: whatever addresses `attr` holds must be as large as it says, and outlive the call.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes no more than the size that is passed along.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        i32::try_from(answer).map_err(io::Error::other)
    }
}

/// SAFETY: as for [`bpf`], and the command answers with a new file descriptor.
unsafe fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: passed on.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T: ?Sized>(of: *const T) -> u64 {
    of.cast::<u8>().addr() as u64
}

/// Loads a tracing program for this function or tracepoint.
pub(super) fn load(
    name: &str,
    instructions: &[bpf_insn],
    license: &CStr,
    when: TracedAt,
    target: ProgramTarget<'_>,
) -> Result<OwnedFd> {
    let mut log = vec![0u8; LOG];
    load_logged(name, instructions, license, when, target, &mut []).or_else(|first| {
        // Again, with the verifier's complaints: a kernel makes room for them even where it has
        // none, so they are asked for only when they are wanted.
        load_logged(name, instructions, license, when, target, &mut log).or_else(|_| {
            let text = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
            if let Some(guard) = guards::cause(&text) {
                bail!("{}", guard.why());
            }
            let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
            let last = lines[lines.len().saturating_sub(3)..].join("; ");
            let why = [&first.to_string(), last.as_str()].join(": ");
            let why = guards::explained(why.trim_end_matches(": "));
            bail!("the kernel refused the program {name}: {why}")
        })
    })
}

fn load_logged(
    name: &str,
    instructions: &[bpf_insn],
    license: &CStr,
    when: TracedAt,
    target: ProgramTarget<'_>,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let mut attr = attr();
    // SAFETY: this is the part of the union that the command reads.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    program.expected_attach_type = match when {
        TracedAt::Entry => bpf_attach_type::BPF_TRACE_FENTRY,
        TracedAt::Exit => bpf_attach_type::BPF_TRACE_FEXIT,
        TracedAt::Tracepoint => bpf_attach_type::BPF_TRACE_RAW_TP,
    } as u32;
    program.insns = address(instructions.as_ptr());
    program.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    program.license = address(license.as_ptr());
    // The last byte stays zero.
    for (to, from) in program.prog_name[..15].iter_mut().zip(name.bytes()) {
        // Signed on some machines and unsigned on others.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    program.attach_btf_id = target.number;
    if let Some(btf) = target.btf {
        program.__bindgen_anon_1.attach_btf_obj_fd =
            u32::try_from(btf.as_raw_fd()).map_err(io::Error::other)?;
    }
    if !log.is_empty() {
        program.log_level = 1;
        program.log_buf = address(log.as_ptr());
        program.log_size = u32::try_from(log.len()).map_err(io::Error::other)?;
    }
    // SAFETY: instructions, license and log are as long as said and outlive the call.
    unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
}

/// Programs that do nothing may be of any license.
const LICENSE: &CStr = c"Dual MIT/GPL";

/// Loads a program of the kind that is attached nowhere and run when it is asked for (Linux 5.14).
pub(super) fn load_for_a_run(name: &str, instructions: &[bpf_insn]) -> Result<OwnedFd> {
    load_simple(name, bpf_prog_type::BPF_PROG_TYPE_SYSCALL, BPF_F_SLEEPABLE, instructions)
        .with_context(|| format!("the kernel refused the program {name}"))
}

fn load_simple(
    name: &str,
    kind: bpf_prog_type,
    flags: u32,
    instructions: &[bpf_insn],
) -> io::Result<OwnedFd> {
    let mut attr = attr();
    // SAFETY: this is the part of the union that the command reads.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = kind as u32;
    program.prog_flags = flags;
    program.insns = address(instructions.as_ptr());
    program.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    program.license = address(LICENSE.as_ptr());
    // The last byte stays zero.
    for (to, from) in program.prog_name[..15].iter_mut().zip(name.bytes()) {
        // Signed on some machines and unsigned on others.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: instructions and license are as long as said and outlive the call.
    unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
}

/// A map that holds this and nothing else, for ever: what programs may take for a constant.
pub(super) fn constant(value: &[u8; 8]) -> Result<OwnedFd> {
    let mut made = attr();
    // SAFETY: this is the part of the union that the command reads.
    let map = unsafe { &mut made.__bindgen_anon_1 };
    map.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    (map.key_size, map.value_size, map.max_entries) = (4, 8, 1);
    map.map_flags = BPF_F_RDONLY_PROG;
    // SAFETY: it holds no address.
    let map = unsafe { bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut made) }
        .context("the kernel refused a map for a constant")?;
    let number = u32::try_from(map.as_raw_fd())?;
    let key = 0_u32;
    let mut set = attr();
    // SAFETY: this is the part of the union that both commands read.
    let element = unsafe { &mut set.__bindgen_anon_2 };
    (element.map_fd, element.key) = (number, address(&raw const key));
    element.__bindgen_anon_1.value = address(value.as_ptr());
    // SAFETY: key and value are as large as the map was made for, and outlive the call.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut set) }.context("cannot set a constant")?;
    let mut frozen = attr();
    frozen.__bindgen_anon_2.map_fd = number;
    // SAFETY: it holds no address.
    unsafe { bpf(bpf_cmd::BPF_MAP_FREEZE, &mut frozen) }.context("cannot freeze a constant")?;
    Ok(map)
}

/// Whether the kernel takes tracing programs on this function: tried with one that does nothing and is
/// not attached, for that takes a kernel that can do it longer than all the rest.
pub(super) fn try_tracing(target: ProgramTarget<'_>) -> Result<()> {
    load("ct_try", &nothing(), LICENSE, TracedAt::Entry, target).map(drop)
}

/// `return 0`
fn nothing() -> [bpf_insn; 2] {
    let instruction = |code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    };
    [instruction(0xb7), instruction(0x95)]
}

/// Whether this kernel's description of a link has room for what a probe missed (Linux 6.7): of any
/// link, for it is the same for all of them.
pub(super) fn probes_tell_misses() -> Result<bool> {
    let raw_tracepoint = bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT;
    let program = load_simple("ct_try", raw_tracepoint, 0, &nothing())?;
    let mut attr = attr();
    // SAFETY: this is the part of the union that the command reads.
    let open = unsafe { &mut attr.raw_tracepoint };
    open.prog_fd = u32::try_from(program.as_raw_fd())?;
    open.name = address(c"mm_page_alloc".as_ptr());
    // SAFETY: the name ends with a zero, and lives for ever.
    let link = unsafe { bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr) }
        .context("the kernel refused to attach")?;
    // SAFETY: a plain C struct for which all zero is a valid value.
    let (_, known) = info::<bpf_link_info>(link.as_fd(), unsafe { zeroed() })?;
    Ok(known >= MISSED + size_of::<u64>())
}

/// Attaches it to what it was loaded for, for as long as the answer lives.
pub(super) fn attach(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attr = attr();
    // SAFETY: this is the part of the union that the command reads.
    let open = unsafe { &mut attr.raw_tracepoint };
    open.prog_fd = u32::try_from(program.as_raw_fd())?;
    // SAFETY: it holds no address: such a program needs no name.
    unsafe { bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr) }
        .context("the kernel refused to attach")
}

/// Runs a program that is attached to nothing, once (Linux 5.10 for raw tracepoints').
pub(super) fn run(program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attr();
    // SAFETY: this is the part of the union that the command reads.
    let test = unsafe { &mut attr.test };
    test.prog_fd = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: it holds no address: the program takes no arguments.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) }.map(|_| ())
}

/// What such a program may be given: as many bytes as it has are read and written.
///
/// # Safety
///
/// Of integers alone, without padding between them.
pub(super) unsafe trait Given {}

/// Runs a program of [`load_for_a_run`] once, with this to read and to write.
pub(super) fn run_with<T: Given>(program: BorrowedFd<'_>, context: &mut T) -> io::Result<()> {
    let mut attr = attr();
    // SAFETY: this is the part of the union that the command reads.
    let test = unsafe { &mut attr.test };
    test.prog_fd = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    test.ctx_in = address(std::ptr::from_mut(context));
    test.ctx_size_in = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes as many bytes of the context as it has, and any of them are
    // a value of its type.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) }.map(|_| ())
}

/// The BTF object of a module that is loaded.
pub(super) fn module_btf(module: &str) -> Result<OwnedFd> {
    const REFUSED: &str = "reading the types of modules by number needs CAP_SYS_ADMIN";
    let wanted = CString::new(module)?;
    let mut id = 0;
    loop {
        let mut attr = attr();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        // SAFETY: it holds no address.
        if let Err(error) = unsafe { bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr) } {
            return match error.raw_os_error() {
                Some(libc::EPERM) => bail!(REFUSED),
                _ => Err(error).with_context(|| format!("the kernel has no BTF object {module}")),
            };
        }
        // SAFETY: written by the command.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        let btf = match by_id(bpf_cmd::BPF_BTF_GET_FD_BY_ID, id) {
            Ok(btf) => btf,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => bail!(REFUSED),
            // It went in between.
            Err(_) => continue,
        };
        let mut name = [0u8; 64];
        // SAFETY: a plain C struct for which all zero is a valid value.
        let mut asked: bpf_btf_info = unsafe { zeroed() };
        asked.name = address(name.as_mut_ptr());
        asked.name_len = u32::try_from(name.len())?;
        let (info, _) = info(btf.as_fd(), asked)?;
        let found = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        if info.kernel_btf != 0 && found == wanted.as_c_str() {
            return Ok(btf);
        }
    }
}

/// Opens an object by its number: `btf_id`, `link_id` and the others are one word of the union.
fn by_id(command: bpf_cmd, id: u32) -> io::Result<OwnedFd> {
    let mut attr = attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
    // SAFETY: it holds no address.
    unsafe { bpf_fd(command, &mut attr) }
}

/// Asks about an object; also says how much of the answer this kernel knows.
fn info<T: Info>(object: BorrowedFd<'_>, mut info: T) -> Result<(T, usize)> {
    let mut attr = attr();
    // SAFETY: this is the part of the union that the command reads.
    let question = unsafe { &mut attr.info };
    question.bpf_fd = u32::try_from(object.as_raw_fd())?;
    question.info_len = u32::try_from(size_of::<T>())?;
    question.info = address(&raw mut info);
    // SAFETY: the kernel writes at most info_len bytes to info, which outlives the call, and to
    // buffers that the caller of `info` keeps alive.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }
        .context("the kernel says nothing about a BPF object")?;
    // SAFETY: written by the command.
    let known = unsafe { attr.info.info_len };
    Ok((info, known as usize))
}

const MISSED: usize =
    offset_of!(bpf_link_info, __bindgen_anon_1.perf_event.__bindgen_anon_1.kprobe.missed);

/// Plain C structs that the kernel fills in.
trait Info {}
impl Info for bpf_prog_info {}
impl Info for bpf_link_info {}
impl Info for bpf_btf_info {}

/// Events that the kernel did not run this program for, because it was running already on that
/// CPU (a softirq on top of it). `None` before Linux 5.12.
pub(super) fn missed_by_program(program: BorrowedFd<'_>) -> Result<Option<u64>> {
    // SAFETY: a plain C struct for which all zero is a valid value.
    let (info, known) = info::<bpf_prog_info>(program, unsafe { zeroed() })?;
    let needed = offset_of!(bpf_prog_info, recursion_misses) + size_of::<u64>();
    Ok((known >= needed).then_some(info.recursion_misses))
}

/// Hits of the probe behind this link that no program was run for: another probe was busy on that
/// CPU, or too many calls were under way. `None` before Linux 6.7, or where it is no such link.
pub(super) fn missed_by_probe(link: u32) -> Result<Option<u64>> {
    let link = by_id(bpf_cmd::BPF_LINK_GET_FD_BY_ID, link).context("a probe's link is gone")?;
    // SAFETY: a plain C struct for which all zero is a valid value.
    let (info, known) = info::<bpf_link_info>(link.as_fd(), unsafe { zeroed() })?;
    if known < MISSED + size_of::<u64>()
        || info.type_ != bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32
    {
        return Ok(None);
    }
    // SAFETY: integers, whichever of them the kernel has written.
    Ok(Some(unsafe { info.__bindgen_anon_1.perf_event.__bindgen_anon_1.kprobe.missed }))
}
