//! Limits this thread to the system calls that answering requests takes: all others fail with `EPERM`.
//! <https://docs.kernel.org/userspace-api/seccomp_filter.html>

use std::{ffi::c_long, io};

use anyhow::{Context, Result};
use libc::{sock_filter, sock_fprog};

/// What a program that serves connections on sockets that are open already asks of the kernel. The last ones are
/// the C library's.
const ALLOWED: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_close,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
];

/// These get memory, which must not be for code.
const WITHOUT_CODE: [c_long; 2] = [MMAP, libc::SYS_mprotect];

/// 32 bits of an offset were too few.
#[cfg(target_arch = "arm")]
const MMAP: c_long = libc::SYS_mmap2;
#[cfg(not(target_arch = "arm"))]
const MMAP: c_long = libc::SYS_mmap;

/// Of `seccomp_data`: the number of the call, the architecture, and the lower half of the third argument.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/seccomp.h>
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const THIRD: u32 = 16 + 2 * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };

#[cfg(target_arch = "x86_64")]
const THIS: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const THIS: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const THIS: Option<u32> = None;

const EPERM: u32 = 1;

const fn step(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    #[expect(clippy::cast_possible_truncation, reason = "codes of BPF are below 256")]
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

const fn load(offset: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// Over so many steps where it is this number, or else over so many.
const fn jump(number: u32, then: u8, or: u8) -> sock_filter {
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, or, number)
}

const fn answer(what: u32) -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, 0, 0, what)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of system calls are below 1,000"
)]
fn program(architecture: u32) -> Vec<sock_filter> {
    let refuse = answer(libc::SECCOMP_RET_ERRNO | EPERM);
    let mut steps = vec![
        load(ARCHITECTURE),
        jump(architecture, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    for number in ALLOWED {
        steps.extend([jump(*number as u32, 0, 1), answer(libc::SECCOMP_RET_ALLOW)]);
    }
    for number in WITHOUT_CODE {
        let is_code =
            step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 1, 0, libc::PROT_EXEC as u32);
        steps.extend([
            jump(number as u32, 0, 4),
            load(THIRD),
            is_code,
            answer(libc::SECCOMP_RET_ALLOW),
            refuse,
        ]);
    }
    steps.push(refuse);
    steps
}

/// From here on this thread does nothing else. `false`: the kernel, or this architecture, cannot do that.
///
/// New privileges must be given up before.
pub fn serve_only() -> Result<bool> {
    let Some(architecture) = THIS else { return Ok(false) };
    let mut steps = program(architecture);
    let filter = sock_fprog {
        len: u16::try_from(steps.len()).context("the filter is too long")?,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: a filter of the length that it tells, which the kernel copies.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    if answer == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Built without it.
        Some(libc::ENOSYS | libc::EINVAL) => Ok(false),
        _ => Err(error).context("cannot limit this process's system calls by seccomp"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::host::kernel::privileges::{Work, keep};

    /// On a thread of its own: it does not get out again. It ends by itself, as threads may not.
    #[test]
    fn a_limited_thread_serves_and_does_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut file = File::open("/proc/self/status").unwrap();
        let limited = std::thread::spawn(move || {
            keep(Work::Rest, false).unwrap();
            if !serve_only().unwrap() {
                return true;
            }
            let refused = |error: io::Error| error.raw_os_error() == Some(libc::EPERM);
            assert!(refused(File::open("/proc/self/status").unwrap_err()));
            assert!(refused(TcpListener::bind("127.0.0.1:0").unwrap_err()));
            assert!(refused(TcpStream::connect(address).unwrap_err()));
            // SAFETY: it takes no pointer.
            assert!(unsafe { libc::fork() } == -1);
            // SAFETY: a new place of one page for code, which is not had.
            let code = unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_EXEC, flags, -1, 0)
            };
            assert_eq!(code, libc::MAP_FAILED);
            // What was opened before is read, and memory is to be had.
            let mut bytes = vec![1_u8; 4 << 20];
            assert!(file.read(&mut bytes).unwrap() > 0);
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"x").unwrap();
            true
        });
        let mut client = TcpStream::connect(address).unwrap();
        let mut said = [0; 1];
        let served = client.read_exact(&mut said).is_ok();
        assert!(limited.join().unwrap());
        assert!(served || THIS.is_none());
    }
}
