//! A loader of aya's that has not parsed the kernel's BTF.
//!
//! `EbpfLoader::new` does so first of all, for CO-RE relocations that these programs do not have:
//! 30 ms and more memory than all the rest of ctwatch, of which allocation patterns give little
//! back. It takes a file that is not there for "no BTF": so it is called on a thread of its own, to which the
//! kernel says that of every file. Nothing else of the process notices.

use std::thread;

use anyhow::{Context, Result, anyhow};
use aya::EbpfLoader;

pub(super) fn loader() -> Result<EbpfLoader<'static>> {
    let made = thread::Builder::new().name("loader".to_owned()).spawn(|| {
        // Where the kernel has no seccomp, it takes longer and is as right.
        let _ = see_no_file();
        EbpfLoader::new()
    });
    let made = made.context("cannot start a thread")?.join();
    let mut loader = made.map_err(|_| anyhow!("making a loader came to a bad end"))?;
    loader.btf(None);
    Ok(loader)
}

/// From now on, for this thread alone.
/// <https://docs.kernel.org/userspace-api/seccomp_filter.html>
fn see_no_file() -> std::io::Result<()> {
    const NO_SUCH_FILE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOENT.cast_unsigned();
    let step = |code: u32, jt, jf, k| {
        let code = u16::try_from(code).unwrap_or(0);
        libc::sock_filter { code, jt, jf, k }
    };
    let is = |call: libc::c_long| {
        let call = u32::try_from(call).unwrap_or(u32::MAX);
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call)
    };
    let answer = |what| step(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    let mut filter = vec![
        // `struct seccomp_data` begins with the number of the call.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        is(libc::SYS_openat),
        answer(NO_SUCH_FILE),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    #[cfg(target_arch = "x86_64")]
    filter.splice(1..1, [is(libc::SYS_open), answer(NO_SUCH_FILE)]);
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or(0),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: plain numbers.
    let told = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if told != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: a program of as many steps as it says, which the kernel copies.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind};

    use super::*;

    #[test]
    fn files_are_out_of_sight_of_one_thread_alone() {
        let read = || fs::read_to_string("/proc/self/stat");
        let seen = thread::spawn(move || {
            let before = read().is_ok();
            see_no_file().unwrap();
            (before, read().map(drop).map_err(|error| error.kind()))
        });
        assert_eq!(seen.join().unwrap(), (true, Err(ErrorKind::NotFound)));
        assert!(read().is_ok());
    }
}
