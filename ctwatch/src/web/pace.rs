//! How long a client may take: for its request, for taking the answer, and in between. What is slower is cut off.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// From the connection, or the first byte of a request, to the end of its head.
const HEAD: Duration = Duration::from_secs(5);
/// From there until all of the answer was taken.
const ANSWER: Duration = Duration::from_secs(10);
/// From one request to the next.
const IDLE: Duration = Duration::from_secs(90);
/// Read at once.
const PORTION: usize = 4096;

/// Of one connection.
pub(super) struct Pace {
    /// When it is cut off.
    until: Cell<Instant>,
    /// When it last began something.
    since: Cell<Instant>,
    /// Bytes of the answer that were not taken yet.
    owed: Cell<usize>,
    is_idle: Cell<bool>,
}

impl Pace {
    pub(super) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            until: Cell::new(now + HEAD),
            since: Cell::new(now),
            owed: Cell::new(0),
            is_idle: Cell::new(false),
        })
    }

    pub(super) fn until(&self) -> Instant {
        self.until.get()
    }

    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    /// The head of a request was read.
    pub(super) fn asked(&self) {
        self.until.set(Instant::now() + ANSWER);
        self.is_idle.set(false);
    }

    /// The answer has so many bytes, and a head.
    pub(super) fn answered(&self, bytes: usize) {
        self.owed.set(bytes.max(1));
    }

    fn was_read(&self, bytes: usize) {
        if bytes > 0 && self.is_idle.replace(false) {
            let now = Instant::now();
            self.since.set(now);
            self.until.set(now + HEAD);
        }
    }

    /// What is left of the head then is in the kernel's hands.
    fn was_written(&self, bytes: usize) {
        let owed = self.owed.get();
        self.owed.set(owed.saturating_sub(bytes));
        if owed > 0 && self.owed.get() == 0 {
            self.is_idle.set(true);
            self.until.set(Instant::now() + IDLE);
        }
    }
}

/// A stream that keeps its pace.
pub(super) struct Paced<S> {
    pub(super) stream: S,
    pub(super) pace: Rc<Pace>,
}

impl<S: AsyncRead + Unpin> Read for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; PORTION];
        let room = into.remaining().min(PORTION);
        let mut read = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        self.pace.was_read(read.filled().len());
        into.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Write for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.pace.was_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, bytes))?;
        self.pace.was_written(written);
        Poll::Ready(Ok(written))
    }

    /// So a page is written from where it is, and not copied for each client.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
