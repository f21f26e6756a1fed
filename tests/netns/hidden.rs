//! Files that are not there for one program, however it comes by them: mounts cannot hide what is below
//! /proc/thread-self, of which each thread has its own.

use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

/// Of a path that a program names.
const LONGEST: usize = 256;

/// A CPU of 32 bits has it by another name.
#[cfg(target_pointer_width = "64")]
const STAT_AT: libc::c_long = libc::SYS_newfstatat;
#[cfg(target_pointer_width = "32")]
const STAT_AT: libc::c_long = libc::SYS_fstatat64;

/// System calls that find a file by its name, and which of their arguments that is.
const BY_NAME: &[(libc::c_long, usize)] = &[
    (libc::SYS_openat, 1),
    (libc::SYS_openat2, 1),
    (STAT_AT, 1),
    (libc::SYS_statx, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, 0),
];

/// Files whose paths end like one of these are not there for the command, and for all that it starts.
///
/// <https://docs.kernel.org/userspace-api/seccomp_filter.html#userspace-notification>
pub(crate) fn hide(mut command: Command, ends: &'static [&'static str]) -> Command {
    // SAFETY: system calls alone between fork and exec, and no memory of the heap.
    unsafe { command.pre_exec(move || begin(ends)) };
    command
}

fn checked(answer: libc::c_long) -> io::Result<libc::c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn begin(ends: &[&str]) -> io::Result<()> {
    let listener = filter()?;
    // SAFETY: plain system calls.
    unsafe {
        let hidden_from = libc::getpid();
        if checked(libc::fork().into())? != 0 {
            return Ok(());
        }
        // A child that answers, for as long as its parent is there, and holds none of its files: someone waits for
        // them to be closed. The filter is its own too, so it calls nothing that it would have to answer.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let own = listener.as_raw_fd();
        for file in (0..1024).filter(|file| *file != own) {
            libc::close(file);
        }
        while libc::getppid() == hidden_from && answer(own, ends).is_ok() {}
        libc::_exit(0)
    }
}

/// Asks this process' child about each call by name.
fn filter() -> io::Result<OwnedFd> {
    const NOTIFY: u32 = 0x7fc0_0000;
    let step = |code: u32, jt, jf, k| {
        let code = u16::try_from(code).unwrap_or(0);
        libc::sock_filter { code, jt, jf, k }
    };
    let nothing = step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW);
    let mut steps = [nothing; 2 * 6 + 2];
    // `struct seccomp_data` begins with the number of the call.
    steps[0] = step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
    for ((number, _), place) in BY_NAME.iter().zip(steps[1..].chunks_exact_mut(2)) {
        let number = u32::try_from(*number).unwrap_or(u32::MAX);
        place[0] = step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number);
        place[1] = step(libc::BPF_RET | libc::BPF_K, 0, 0, NOTIFY);
    }
    let program = libc::sock_fprog {
        len: u16::try_from(1 + 2 * BY_NAME.len() + 1).unwrap_or(0),
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: plain numbers, and a program of as many steps as it says, which the kernel copies.
    unsafe {
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        let listener = checked(libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        ))?;
        Ok(OwnedFd::from_raw_fd(i32::try_from(listener).unwrap_or(-1)))
    }
}

/// Waits for one call, and lets it go on or says that there is no such file.
fn answer(listener: i32, ends: &[&str]) -> io::Result<()> {
    // `_IOWR('!', 0, struct seccomp_notif)`, of 80 bytes, and `_IOWR('!', 1, struct seccomp_notif_resp)`, of 24.
    const RECEIVE: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    // `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
    const GO_ON: u32 = 1;
    let asked = |answer: libc::c_int| match checked(answer.into()) {
        // Whoever called was interrupted.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(false),
        other => other.map(|_| true),
    };
    // SAFETY: structures of plain numbers, of the sizes that the kernel expects.
    unsafe {
        let mut call: libc::seccomp_notif = std::mem::zeroed();
        if !asked(libc::ioctl(listener, RECEIVE as _, &raw mut call))? {
            return Ok(());
        }
        let mut response: libc::seccomp_notif_resp = std::mem::zeroed();
        response.id = call.id;
        if is_hidden(&call, ends) {
            response.error = -libc::ENOENT;
        } else {
            response.flags = GO_ON;
        }
        asked(libc::ioctl(listener, SEND as _, &raw mut response)).map(|_| ())
    }
}

fn is_hidden(call: &libc::seccomp_notif, ends: &[&str]) -> bool {
    let by_name = BY_NAME.iter().find(|(number, _)| *number == libc::c_long::from(call.data.nr));
    let Some((_, argument)) = by_name else { return false };
    let mut path = [0_u8; LONGEST];
    let mut read = 0;
    // A page at most at a time: what comes behind the path's end may not be there.
    while read < LONGEST {
        let from = call.data.args[*argument].wrapping_add(read as u64);
        let left = usize::try_from(4096 - from % 4096).unwrap_or(0).min(LONGEST - read);
        let to = libc::iovec { iov_base: path[read..].as_mut_ptr().cast(), iov_len: left };
        let from = libc::iovec { iov_base: from as *mut libc::c_void, iov_len: left };
        let pid = i32::try_from(call.pid).unwrap_or(0);
        // SAFETY: into memory of ours, from whatever the other process has there.
        let got = unsafe { libc::process_vm_readv(pid, &raw const to, 1, &raw const from, 1, 0) };
        let Ok(got @ 1..) = usize::try_from(got) else { return false };
        read += got;
        if let Some(end) = path[..read].iter().position(|byte| *byte == 0) {
            return ends.iter().any(|tail| path[..end].ends_with(tail.as_bytes()));
        }
    }
    false
}
