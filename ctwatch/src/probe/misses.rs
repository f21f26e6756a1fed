//! How many events the kernel did not hand to a program, because the program was already running
//! on that CPU (a softirq on top of it). aya does not wrap this field of `bpf_prog_info`.

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use aya_obj::generated::{bpf_attr, bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, bpf_prog_info};

/// `recursion_misses` (Linux 5.12); an older kernel leaves it 0.
pub(super) fn of_program(program: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: both are plain C structs for which all zero is a valid value.
    let (mut info, mut attr): (bpf_prog_info, bpf_attr) = unsafe { std::mem::zeroed() };
    attr.info.bpf_fd = u32::try_from(program.as_raw_fd())?;
    attr.info.info_len = u32::try_from(size_of::<bpf_prog_info>())?;
    attr.info.info = (&raw mut info).addr() as u64;
    // SAFETY: the kernel writes at most info_len bytes to info, which outlives the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD as libc::c_long,
            &raw mut attr,
            size_of::<bpf_attr>(),
        )
    };
    if answer != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot read a program's statistics");
    }
    Ok(info.recursion_misses)
}
