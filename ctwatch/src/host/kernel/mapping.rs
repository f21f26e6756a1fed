//! A file of the kernel's as memory of this process.

use std::{fs::File, io};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// One that never changes.
pub(super) struct Mapping {
    start: *const u8,
    len: usize,
}

// SAFETY: memory that nobody writes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Of a file in sysfs that holds what the kernel was built with: those alone cannot be truncated
    /// or written to.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if len == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: a new mapping, nowhere near anything that is in use.
        let start = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file, 0)?
        };
        Ok(Self { start: start.cast_const().cast(), len })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and readable for as long as this lives, and nobody writes it.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what was mapped, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start.cast_mut().cast(), self.len) };
    }
}
