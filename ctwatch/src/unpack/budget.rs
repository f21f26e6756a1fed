//! How much of a stranger's file is read at most, and what was left out of it.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read},
};

/// What may be read at most.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    /// Unpacked, of all of it.
    pub bytes: u64,
    /// Unpacked, of one file in it.
    pub piece: u64,
    /// Files, folders, links and all else.
    pub entries: u64,
    /// Folders in each other.
    pub depth: usize,
    /// Bytes of a name, with its folders.
    pub name: usize,
    /// So many times as long as it was packed it may become, once it is longer than `ratio_from`. Text that
    /// repeats itself is packed to a hundredth, by gzip never to less than a thousandth.
    pub ratio: u64,
    pub ratio_from: u64,
    /// What xz may keep of what it unpacked: as much as `xz -9` needs.
    pub dictionary: usize,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            bytes: 4 << 30,
            piece: 1 << 30,
            entries: 500_000,
            depth: 32,
            name: 1024,
            ratio: 250,
            ratio_from: 64 << 20,
            dictionary: 64 << 20,
        }
    }
}

/// What is not opened for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub why: String,
    pub count: u64,
    /// The first few of them.
    pub names: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files that were handed over whole.
    pub pieces: u64,
    pub bytes: u64,
    pub left_out: Vec<LeftOut>,
    /// Why the rest was not read.
    pub stopped: Option<String>,
}

impl Unpacked {
    /// What a person is to be told of it; names are as they were.
    pub fn notes(&self) -> Vec<String> {
        let left_out = self.left_out.iter().map(|LeftOut { why, count, names }| {
            let more = count.saturating_sub(names.len() as u64);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            format!("left out: {}{more}: {why}", names.join(", "))
        });
        let stopped = self.stopped.iter().map(|why| format!("the rest is not read: {why}"));
        left_out.chain(stopped).collect()
    }
}

/// Names for one reason, and reasons, that are remembered.
const NAMES: usize = 5;
const REASONS: usize = 16;
/// Of a name that is told.
const SHOWN: usize = 200;

pub(super) struct Budget {
    pub(super) limits: UnpackLimits,
    bytes: Cell<u64>,
    entries: Cell<u64>,
    pieces: Cell<u64>,
    stopped: RefCell<Option<String>>,
    /// Why the file that is being read is at its end.
    failure: RefCell<Option<String>>,
    left_out: RefCell<Vec<LeftOut>>,
}

impl Budget {
    pub(super) fn new(limits: UnpackLimits) -> Self {
        Self {
            limits,
            bytes: Cell::default(),
            entries: Cell::default(),
            pieces: Cell::default(),
            stopped: RefCell::default(),
            failure: RefCell::default(),
            left_out: RefCell::default(),
        }
    }

    pub(super) fn unpacked(self) -> Unpacked {
        Unpacked {
            pieces: self.pieces.get(),
            bytes: self.bytes.get(),
            left_out: self.left_out.into_inner(),
            stopped: self.stopped.into_inner(),
        }
    }

    /// Nothing more is to be read.
    pub(super) fn is_over(&self) -> bool {
        self.stopped.borrow().is_some()
    }

    pub(super) fn stop(&self, why: String) {
        self.stopped.borrow_mut().get_or_insert(why);
    }

    /// One more; whether there may be.
    pub(super) fn enter(&self) -> bool {
        self.entries.set(self.entries.get() + 1);
        if self.entries.get() > self.limits.entries {
            self.stop(format!("there are more than {} files in it", self.limits.entries));
        }
        !self.is_over()
    }

    pub(super) fn count_piece(&self) {
        self.pieces.set(self.pieces.get() + 1);
    }

    pub(super) fn leave_out(&self, name: &str, why: &str) {
        let mut all = self.left_out.borrow_mut();
        let is_known = all.iter().any(|reason| reason.why == why);
        let why = if is_known || all.len() < REASONS { why } else { "for other reasons" };
        let at = all.iter().position(|reason| reason.why == why).unwrap_or_else(|| {
            all.push(LeftOut { why: why.to_owned(), count: 0, names: Vec::new() });
            all.len() - 1
        });
        let reason = &mut all[at];
        reason.count += 1;
        if reason.names.len() < NAMES {
            reason.names.push(name.chars().take(SHOWN).collect());
        }
    }

    /// One file could not be read.
    pub(super) fn fail(&self, name: &str, error: &io::Error) {
        // Also where it stopped at a bound.
        let why = self.take_failure().unwrap_or_else(|| error.to_string());
        self.leave_out(name, &why);
    }

    /// Why the last file was not read to its end, and is not any more.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.failure.take()
    }

    fn too_long(&self, why: String) -> io::Error {
        self.stop(why.clone());
        io::Error::other(why)
    }
}

/// All that is unpacked goes through one of these.
pub(super) struct Metered<'a, R> {
    inner: R,
    budget: &'a Budget,
}

impl<'a, R> Metered<'a, R> {
    pub(super) fn new(inner: R, budget: &'a Budget) -> Self {
        Self { inner, budget }
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let bytes = self.budget.bytes.get().saturating_add(read as u64);
        self.budget.bytes.set(bytes);
        match bytes > self.budget.limits.bytes {
            true => Err(self.budget.too_long(format!(
                "it is longer than {} MiB unpacked",
                self.budget.limits.bytes >> 20
            ))),
            false => Ok(read),
        }
    }
}

/// What comes of what is packed, and how much there was of it.
pub(super) struct Unzipped<'a, R> {
    inner: R,
    packed: std::rc::Rc<Cell<u64>>,
    bytes: u64,
    budget: &'a Budget,
}

impl<'a, R> Unzipped<'a, R> {
    pub(super) fn new(inner: R, packed: std::rc::Rc<Cell<u64>>, budget: &'a Budget) -> Self {
        Self { inner, packed, bytes: 0, budget }
    }
}

impl<R: Read> Read for Unzipped<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes = self.bytes.saturating_add(read as u64);
        let UnpackLimits { ratio, ratio_from, .. } = self.budget.limits;
        let most = self.packed.get().saturating_mul(ratio);
        match self.bytes > ratio_from && self.bytes > most {
            true => Err(self.budget.too_long(format!(
                "{} bytes became {} when they were unpacked: that is no text of a machine",
                self.packed.get(),
                self.bytes
            ))),
            false => Ok(read),
        }
    }
}

/// Counts what is read through it.
pub(super) struct CountingReader<R> {
    inner: R,
    count: std::rc::Rc<Cell<u64>>,
}

impl<R> CountingReader<R> {
    pub(super) fn new(inner: R) -> (Self, std::rc::Rc<Cell<u64>>) {
        let count = std::rc::Rc::new(Cell::default());
        (Self { inner, count: std::rc::Rc::clone(&count) }, count)
    }
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.set(self.count.get().saturating_add(read as u64));
        Ok(read)
    }
}

/// One file, up to its bound. Whoever reads it may take an error for its end: it is kept.
pub(super) struct PieceReader<'a, R> {
    inner: R,
    left: u64,
    budget: &'a Budget,
}

impl<'a, R> PieceReader<'a, R> {
    pub(super) fn new(inner: R, budget: &'a Budget) -> Self {
        Self { inner, left: budget.limits.piece, budget }
    }

    fn failed(&self, error: io::Error) -> io::Error {
        self.budget.failure.borrow_mut().get_or_insert(error.to_string());
        error
    }
}

impl<R: Read> Read for PieceReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.inner.read(buffer) {
            Ok(read) => read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.failed(error)),
        };
        match self.left.checked_sub(read) {
            Some(left) => self.left = left,
            None => {
                let most = self.budget.limits.piece >> 20;
                let error = io::Error::other(format!("longer than {most} MiB"));
                return Err(self.failed(error));
            }
        }
        Ok(usize::try_from(read).unwrap_or(buffer.len()))
    }
}
