//! An array that the programs write, as memory of this process.

use std::{io, os::fd::BorrowedFd};

use ctwatch_abi::Plain;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Of a map with `BPF_F_MMAPABLE`. Values of such maps lie eight bytes apart or more.
pub(super) struct Mapped<T> {
    start: *const T,
    len: usize,
    bytes: usize,
}

// SAFETY: memory that no thread of this process writes.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Plain> Mapped<T> {
    /// All of a map with `len` values.
    pub(super) fn new(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let bytes = (size_of::<T>() * len).next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping, nowhere near anything that is in use.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, map, 0)?
        };
        Ok(Self { start: start.cast_const().cast(), len, bytes })
    }

    /// Memory of the kernel that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a value is. A program may be writing it.
    pub(super) fn at(&self, index: usize) -> Option<*const T> {
        // SAFETY: within the mapping.
        (index < self.len).then(|| unsafe { self.start.add(index) })
    }

    /// A value, for as long as no program runs that writes it: another one would tear it.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: within the mapping, of a type for which any bytes are a value.
        self.at(index).map(|value| unsafe { &*value })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: what was mapped, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start.cast_mut().cast(), self.bytes) };
    }
}
