//! What a process may do, tried from the inside: run by the unit in place of ctwatch, and once without any unit.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Error},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result};

/// What came of a try that succeeded.
pub(crate) const DONE: &str = "done";
/// Of that which systemd is to remove when the unit ends.
pub(crate) const SHARED_MEMORY: i32 = 0x6374_7761;
/// A file of the host's, in the folder for temporary ones.
pub(crate) const MARK: &str = "/tmp/ctwatch-mark";
/// Users that systemd makes for as long as a unit runs.
const DYNAMIC: std::ops::RangeInclusive<u32> = 61184..=65519;

/// A line for each try: what was tried, and what came of it. Each has a name that the table of restrictions knows.
pub(crate) fn tries(writable: &Path) -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let of_status = |name: &str| -> String {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or("unknown").to_owned()
    };
    let limits = fs::read_to_string("/proc/self/limits")?;
    let locked = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let group = fs::read_to_string("/proc/self/cgroup")?;
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).context("no group")?;
    let group = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
    let of_group = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
    let user = rustix::process::getuid().as_raw();
    let file = writable.join("tried");
    let state = std::env::var_os("STATE_DIRECTORY");
    let mode = state.as_ref().map(|folder| fs::metadata(folder).map(|about| about.mode() & 0o7777));
    let lines = [
        ("user", if DYNAMIC.contains(&user) { "its own".to_owned() } else { user.to_string() }),
        ("state folder", state.map_or("none".into(), |f| f.display().to_string())),
        ("mode of the state folder", mode.map_or("none".into(), |m| m.map_or_else(name, octal))),
        ("umask", octal(rustix::process::umask(rustix::fs::Mode::empty()).as_raw_mode())),
        ("niceness", rustix::process::getpriority_process(None)?.to_string()),
        ("capabilities it may ever have", of_status("CapBnd")),
        ("capabilities it has", of_status("CapEff")),
        ("capabilities it hands on", of_status("CapAmb")),
        ("no new privileges", of_status("NoNewPrivs")),
        ("locked memory", locked.and_then(|l| l.split_whitespace().next()).unwrap_or("?").into()),
        ("most memory", of_group("memory.max").trim().to_owned()),
        ("most tasks", of_group("pids.max").trim().to_owned()),
        ("write into /usr", tried(File::create("/usr/tried"))),
        ("write into /etc", tried(File::create("/etc/tried"))),
        ("write into its state", tried(File::create(&file))),
        ("list /home", tried(fs::read_dir("/home"))),
        ("list /root", tried(fs::read_dir("/root"))),
        ("see the host's /tmp", tried(fs::metadata(MARK))),
        ("mounts", own("mnt")?),
        ("name of the host", own("uts")?),
        ("open /dev/kmsg", tried(File::open("/dev/kmsg"))),
        ("change a setting", tried(opened("/proc/sys/net/ipv4/ip_forward"))),
        ("make a control group", tried(fs::DirBuilder::new().mode(0o755).create(group.join("t")))),
        ("list modules", tried(fs::read_dir("/usr/lib/modules"))),
        ("read the clock's state", called(clock_state)),
        (
            "set the name of the host",
            called(|| unsafe_call(libc::SYS_sethostname, [c"clean".as_ptr() as usize, 5, 0, 0])),
        ),
        ("socket of IPv4", called(|| socket(libc::AF_INET))),
        ("socket of IPv6", called(|| socket(libc::AF_INET6))),
        ("socket for packets", called(|| socket(libc::AF_PACKET))),
        ("socket of netlink", called(|| socket(libc::AF_NETLINK))),
        ("socket of Unix", called(|| socket(libc::AF_UNIX))),
        ("programs that filter what it sends", filters(&group)),
        ("a user namespace", called(|| unshare(libc::CLONE_NEWUSER))),
        ("a namespace for names of hosts", called(|| unshare(libc::CLONE_NEWUTS))),
        ("a network namespace", called(|| unshare(libc::CLONE_NEWNET))),
        ("be scheduled in real time", called(real_time)),
        ("a file that gives its owner's rights", gives_rights(&file)),
        ("another personality", called(|| unsafe_call(libc::SYS_personality, [0x4_0000, 0, 0, 0]))),
        ("memory to write and execute", called(write_and_execute)),
        ("shared memory", called(shared_memory)),
        ("a call as on another CPU", called(of_another_cpu)),
        ("swap", called(|| unsafe_call(libc::SYS_swapon, [c"/none".as_ptr() as usize, 0, 0, 0]))),
        ("mount", called(mount)),
        (
            "a ruleset of Landlock",
            called(|| unsafe_call(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0])),
        ),
    ];
    Ok(lines.map(|(what, came)| format!("{what}: {came}\n")).concat())
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

fn tried<T>(outcome: io::Result<T>) -> String {
    outcome.map_or_else(name, |_| DONE.to_owned())
}

fn opened(path: &str) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn name(error: Error) -> String {
    let names = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::EACCES, "EACCES"),
        (libc::EROFS, "EROFS"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
    ];
    let known = names.iter().find(|(number, _)| error.raw_os_error() == Some(*number));
    known.map_or_else(|| error.to_string(), |(_, name)| (*name).to_owned())
}

/// Whose namespace of that kind this is.
fn own(kind: &str) -> Result<String> {
    let [host, own] = ["1", "self"].map(|who| fs::read_link(format!("/proc/{who}/ns/{kind}")));
    Ok(if host? == own? { "the host's" } else { "its own" }.to_owned())
}

/// What came of it in a process of its own: it may change that, and end it.
fn called(what: impl FnOnce() -> io::Result<()>) -> String {
    // SAFETY: there is one thread, and the child calls the kernel and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = what().err().map_or(0, |error| error.raw_os_error().unwrap_or(255));
        // SAFETY: it ends this process, and runs nothing of its parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is there to be written.
    if child < 0 || unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return format!("no process: {}", Error::last_os_error());
    }
    if libc::WIFSIGNALED(status) {
        return format!("killed by signal {}", libc::WTERMSIG(status));
    }
    match libc::WEXITSTATUS(status) {
        0 => DONE.to_owned(),
        code => name(Error::from_raw_os_error(code)),
    }
}

fn unsafe_call(number: libc::c_long, args: [usize; 4]) -> io::Result<()> {
    // SAFETY: no argument of what is called here makes the kernel write into this process.
    let answer = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3]) };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn clock_state() -> io::Result<()> {
    // SAFETY: all bytes 0 are a value of it, which asks and sets nothing; the kernel writes into it alone.
    let answer = unsafe {
        let mut asked: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut asked)
    };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn socket(family: libc::c_int) -> io::Result<()> {
    let kind = if family == libc::AF_PACKET { libc::SOCK_RAW } else { libc::SOCK_DGRAM };
    // SAFETY: it takes numbers.
    if unsafe { libc::socket(family, kind, 0) } < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn unshare(what: libc::c_int) -> io::Result<()> {
    // SAFETY: this process ends right after it.
    if unsafe { libc::unshare(what) } < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn real_time() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads `priority`.
    let answer = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn gives_rights(file: &Path) -> String {
    let outcome = tried(fs::set_permissions(file, fs::Permissions::from_mode(0o4755)));
    let _ = fs::remove_file(file);
    outcome
}

fn write_and_execute() -> io::Result<()> {
    let kinds = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    // SAFETY: new memory, which nothing uses.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, kinds, -1, 0) };
    if place == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(()) }
}

fn shared_memory() -> io::Result<()> {
    // Root's is another, and stays.
    let key = SHARED_MEMORY + i32::from(rustix::process::getuid().is_root());
    // SAFETY: it takes numbers.
    let made = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o600) };
    if made < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// The folder to mount on does not exist, so this fails even where mounting is allowed, but with another error.
fn mount() -> io::Result<()> {
    let none = std::ptr::null();
    // SAFETY: names that end, and nothing else.
    let answer = unsafe {
        libc::mount(c"/usr".as_ptr(), c"/nowhere".as_ptr(), none, libc::MS_BIND, std::ptr::null())
    };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// As a program of 32 bits does.
#[cfg(target_arch = "x86_64")]
fn of_another_cpu() -> io::Result<()> {
    const GETPID: usize = 20;
    let mut answer = GETPID;
    // SAFETY: it takes no argument; 64-bit registers that the kernel clears on this way in are named.
    unsafe {
        std::arch::asm!(
            "int 0x80", inlateout("rax") answer,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _
        );
    }
    if answer == std::process::id() as usize {
        Ok(())
    } else {
        Err(Error::from_raw_os_error(libc::ENOSYS))
    }
}

/// Which machine runs another's programs is not known here.
#[cfg(not(target_arch = "x86_64"))]
fn of_another_cpu() -> io::Result<()> {
    Err(Error::from_raw_os_error(libc::ENOSYS))
}

/// As `struct bpf_attr` is where attached programs are asked for.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach: u32,
    flags: u32,
    attached: u32,
    programs: u64,
    count: u32,
    padding: [u32; 9],
}

/// How many of them the group has at what it sends.
fn filters(group: &Path) -> String {
    use std::os::fd::AsRawFd;
    const QUERY: libc::c_int = 16;
    const EGRESS: u32 = 1;
    let ask = || -> io::Result<u32> {
        let folder = File::open(group)?;
        let target = u32::try_from(folder.as_raw_fd()).unwrap_or_default();
        let mut query = Query { target, attach: EGRESS, ..Query::default() };
        let size = size_of::<Query>();
        // SAFETY: the kernel reads and writes `query`, of that size, and has no list to write to.
        let answer = unsafe { libc::syscall(libc::SYS_bpf, QUERY, &raw mut query, size) };
        if answer < 0 { Err(Error::last_os_error()) } else { Ok(query.count) }
    };
    ask().map_or_else(name, |count| count.to_string())
}
