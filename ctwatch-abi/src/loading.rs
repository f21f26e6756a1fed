//! The loading of modules: what is told of it, and where to look for that.

use crate::Plain;

/// As much of a name, or of the end of a command line, as is told. The kernel's own limit for names
/// of modules, `MODULE_NAME_LEN`, is 56.
pub const NAME: usize = 64;

/// What happened.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process did something for which the kernel wants a module, and it has `modprobe` fetch it.
    Asked = 1,
    /// A process hands a module to the kernel.
    Loaded = 2,
}

/// One of these, and the process that has the CPU: in both cases it is the one that does it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the machine started, without what it slept; and when the process began.
    pub at: u64,
    pub began: u64,
    /// A [`Kind`].
    pub kind: u32,
    pub pid: u32,
    pub parent_pid: u32,
    /// Not 0: the parent is a thread of the kernel, so the kernel itself runs this process.
    pub by_kernel: u32,
    pub comm: [u8; 16],
    pub parent_comm: [u8; 16],
    /// Of the module; where it was asked for, as it was asked for. Ends with the first zero.
    pub module: [u8; NAME],
    /// The end of the process' command line. The kernel has the name that was asked for there.
    pub command: [u8; NAME],
}

/// Where things are in a task, and in a module.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub module_name: u32,
    pub task_parent: u32,
    pub task_tgid: u32,
    pub task_comm: u32,
    pub task_flags: u32,
    pub task_began: u32,
    pub task_mm: u32,
    pub mm_arg_end: u32,
}

const _: () = {
    assert!(size_of::<Event>() == 2 * 8 + 4 * 4 + 2 * 16 + 2 * NAME);
    assert!(size_of::<Layout>() == 8 * 4);
};

// SAFETY: repr(C), integers and bytes, and no implicit padding (the assertions above).
unsafe impl Plain for Event {}
// SAFETY: as above.
unsafe impl Plain for Layout {}
