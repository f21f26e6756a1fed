//! Who makes the kernel load a module: the process that asks for it, and the one that loads it.
//!
//! Both happen a few times in the life of a machine, so each is told as it is, and what of it
//! matters is for user space to find out.

use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns,
        generated::{bpf_get_current_task, bpf_probe_read_kernel_str, bpf_probe_read_user},
    },
    macros::map,
    maps::{Array, RingBuf},
};
use ctwatch_abi::{
    add_one,
    loading::{Event, Kind, Layout, NAME},
};

use crate::kernel::read;

/// User space makes room for more where it wants to know.
#[map]
static LOADING: RingBuf = RingBuf::with_byte_size(4096, 0);

/// What there was no room for.
#[map]
static UNTOLD: Array<u64> = Array::with_max_entries(1, 0);

/// Overwritten before loading.
#[unsafe(no_mangle)]
static TASK: Layout = Layout {
    module_name: 0,
    task_parent: 0,
    task_tgid: 0,
    task_comm: 0,
    task_flags: 0,
    task_began: 0,
    task_mm: 0,
    mm_arg_end: 0,
};

/// One field of [`TASK`], read where the verifier sees a constant.
macro_rules! at {
    ($field:ident) => {
        // SAFETY: a static of plain integers; volatile, because the loader rewrites it.
        unsafe { core::ptr::read_volatile(&raw const TASK.$field) }
    };
}

/// As the helpers want to be told.
#[expect(clippy::cast_possible_truncation, reason = "it is small")]
const ROOM: u32 = NAME as u32;

/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/sched.h>
const PF_KTHREAD: u32 = 0x0020_0000;

/// The kernel is about to run `modprobe` for whoever has the CPU.
#[inline(always)]
pub(crate) fn asked(name: u64) {
    tell(Kind::Asked, name);
}

/// Whoever has the CPU has handed over this module, which is about to be started.
#[inline(always)]
pub(crate) fn loaded(module: u64) {
    tell(Kind::Loaded, module + u64::from(at!(module_name)));
}

#[inline(always)]
fn tell(kind: Kind, name: u64) {
    let Some(mut entry) = LOADING.reserve::<Event>(0) else {
        if let Some(untold) = UNTOLD.get_ptr_mut(0) {
            // SAFETY: a live map value, added to in one instruction.
            unsafe { add_one(&mut *untold) };
        }
        return;
    };
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    // What cannot be read is zero, and means nobody.
    let parent = read::<u64>(task, at!(task_parent)).unwrap_or(0);
    let began = read(task, at!(task_began)).unwrap_or(0);
    let parent_pid = read(parent, at!(task_tgid)).unwrap_or(0);
    let parent_flags = read::<u32>(parent, at!(task_flags)).unwrap_or(0);
    let parent_comm = read(parent, at!(task_comm)).unwrap_or_default();
    let event = entry.as_mut_ptr();
    // SAFETY: reserved, and as large as an event; written field by field, because the stack has no
    // room for another one. The helpers write as much as they are told there is room for.
    unsafe {
        (*event).at = bpf_ktime_get_ns();
        (*event).began = began;
        (*event).kind = kind as u32;
        (*event).pid = process();
        (*event).parent_pid = parent_pid;
        (*event).by_kernel = parent_flags & PF_KTHREAD;
        (*event).comm = bpf_get_current_comm().unwrap_or_default();
        (*event).parent_comm = parent_comm;
        (*event).module = [0; NAME];
        bpf_probe_read_kernel_str((&raw mut (*event).module).cast(), ROOM, name as *const _);
        (*event).command = [0; NAME];
        if let Some(end) = command_end(task) {
            let start = end.wrapping_sub(ROOM.into()) as *const _;
            bpf_probe_read_user((&raw mut (*event).command).cast(), ROOM, start);
        }
    }
    entry.submit(0);
}

fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Where in the process' own memory its command line ends. A thread of the kernel has none.
#[inline(always)]
fn command_end(task: u64) -> Option<u64> {
    let mm = read::<u64>(task, at!(task_mm)).filter(|mm| *mm != 0)?;
    read(mm, at!(mm_arg_end))
}
