//! The process that listens.

use std::{
    cell::Cell,
    ffi::CString,
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as Blocking,
    },
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
#[cfg(feature = "tls")]
use hyper::header::AUTHORIZATION;
use hyper::{Request, StatusCode, server::conn::http1, service::service_fn};
use rustix::thread::set_name;
use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{
        DumpableBehavior, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
    },
};
#[cfg(feature = "tls")]
use tokio::time::timeout_at;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    runtime::Runtime,
    sync::{mpsc, oneshot},
    task::{LocalSet, spawn_local},
    time::{Instant, sleep, sleep_until, timeout},
};

#[cfg(feature = "tls")]
use super::guard::Doorkeeper;
use super::{
    connections::{Connections, MOST},
    http::{answer, refusal, wanted},
    pace::{Pace, Paced},
    wire::{HEAD, HELLO, Head, Hello, MOST_SOCKETS, Page, READY},
};
use crate::host::kernel::{
    privileges::{Work, keep},
    sandbox, seccomp,
};

/// What this executable is called where it is to be that.
pub const NAME: &str = "ctwatch-web";

/// An answer as young as that is given again: so many clients are no more work than one.
const FRESH: Duration = Duration::from_millis(10);
/// The watching process answers within this time, or it is said that it does not.
const PATIENCE: Duration = Duration::from_secs(5);
/// After an error of the kernel, as for too many open files.
const AGAIN: Duration = Duration::from_millis(100);
/// The longest head of a request.
const LONGEST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 64;

/// Standard input is the way to the process that watches: it hears why this one cannot begin. When it ends, so
/// does this one.
pub fn run() -> Result<()> {
    close_others();
    let way = io::stdin().as_fd().try_clone_to_owned().context("no standard input")?;
    let mut beside = Blocking::from(way.try_clone()?);
    let begun = begin(way);
    let (runtime, ready) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let _ = beside.write_all(format!("{error:#}").as_bytes());
            return Err(error);
        }
    };
    drop(beside);
    let local = LocalSet::new();
    local.block_on(&runtime, ready.serve())
}

/// What a careless program left open, and whoever started ctwatch was given, is none of this process's.
fn close_others() {
    // SAFETY: nothing was opened in this process yet but the first three, which stay. Where the kernel has no such
    // call (before Linux 5.9), what was left open stays so.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// What is had before rights are given up.
struct Ready {
    way: UnixStream,
    listeners: Vec<tokio::net::TcpListener>,
    telemetry_path: String,
    #[cfg(feature = "tls")]
    guard: Doorkeeper,
}

fn begin(way: OwnedFd) -> Result<(Runtime, Ready)> {
    // As `ps` and `top` show it.
    set_name(&CString::new(NAME)?)?;
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot tie this process to its parent")?;
    let (hello, sockets) = hello(&way)?;
    // It may have been gone before that was asked for.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
    ensure!(parent == Some(hello.parent), "the process that watches is gone");
    let mut way = Blocking::from(way);
    let mut secured = vec![0; hello.secured];
    way.read_exact(&mut secured).context("it is not said who may come in")?;
    #[cfg(feature = "tls")]
    let guard = Doorkeeper::of(&secured).context("--web.config.file")?;
    #[cfg(not(feature = "tls"))]
    ensure!(secured.is_empty(), "this ctwatch was built without TLS and passwords");
    way.set_nonblocking(true)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let entered = runtime.enter();
    let way = UnixStream::from_std(way)?;
    let listener = |socket: OwnedFd| {
        let socket = TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(socket)
    };
    let listeners = sockets.into_iter().map(listener).collect::<io::Result<_>>()?;
    drop(entered);
    confine()?;
    let ready = Ready {
        way,
        listeners,
        telemetry_path: hello.telemetry_path,
        #[cfg(feature = "tls")]
        guard,
    };
    Ok((runtime, ready))
}

impl Ready {
    async fn serve(self) -> Result<()> {
        put(&self.way, &[READY]).await?;
        let (ask, questions) = mpsc::channel(MOST);
        let shared = Rc::new(Shared {
            telemetry_path: self.telemetry_path,
            ask,
            #[cfg(feature = "tls")]
            guard: self.guard,
        });
        let (all, number) = (Rc::new(Connections::default()), Rc::new(Cell::new(0)));
        for listener in self.listeners {
            spawn_local(accept(listener, Rc::clone(&shared), Rc::clone(&all), Rc::clone(&number)));
        }
        Desk::new(self.way).run(questions).await
    }
}

/// Nothing of what this process is not to do can be done from here on, whatever becomes of it.
fn confine() -> Result<()> {
    // Nothing of its memory is for processes of the same user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("cannot hide this process's memory")?;
    keep(Work::Rest, false)?;
    // Where the kernel cannot, the rest holds: docs/threat-model.md says so.
    let _ = sandbox::seal()?;
    let _ = seccomp::serve_only()?;
    Ok(())
}

/// The kernel ends a message where sockets come with it, whatever was written after it (unix(7)).
fn hello(way: &OwnedFd) -> Result<(Hello, Vec<OwnedFd>)> {
    let mut bytes = vec![0; HELLO];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut beside = RecvAncillaryBuffer::new(&mut room);
    let got =
        recvmsg(way, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)
            .context("this is no program to be started by hand: no sockets came")?;
    let hello: Hello = serde_json::from_slice(&bytes[..got.bytes]).context("no sockets came")?;
    let mut sockets = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            sockets.extend(fds);
        }
    }
    ensure!(sockets.len() == hello.sockets, "{} of {} sockets came", sockets.len(), hello.sockets);
    Ok((hello, sockets))
}

type Answer = Result<Bytes, Bytes>;
type Question = (Page, oneshot::Sender<Answer>);

/// What each connection knows.
struct Shared {
    telemetry_path: String,
    ask: mpsc::Sender<Question>,
    #[cfg(feature = "tls")]
    guard: Doorkeeper,
}

async fn accept(
    listener: tokio::net::TcpListener,
    shared: Rc<Shared>,
    all: Rc<Connections>,
    number: Rc<Cell<u64>>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let pace = Pace::new();
                number.set(number.get() + 1);
                let work = serve(stream, Rc::clone(&pace), Rc::clone(&shared));
                all.add(number.get(), pace, work);
            }
            Err(_) => sleep(AGAIN).await,
        }
    }
}

async fn serve(stream: TcpStream, pace: Rc<Pace>, shared: Rc<Shared>) {
    let _ = stream.set_nodelay(true);
    #[cfg(feature = "tls")]
    if let Some(acceptor) = shared.guard.acceptor() {
        // As long as for the head of a request.
        if let Ok(Ok(stream)) = timeout_at(pace.until(), acceptor.accept(stream)).await {
            converse(stream, pace, Rc::clone(&shared)).await;
        }
        return;
    }
    converse(stream, pace, shared).await;
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    pace: Rc<Pace>,
    shared: Rc<Shared>,
) {
    let answering = service_fn(|request| {
        pace.asked();
        let (pace, shared) = (Rc::clone(&pace), Rc::clone(&shared));
        async move {
            let response = match shared.wanted(&request) {
                Ok(page) => answer(page, shared.page(page).await),
                Err(status) => refusal(status),
            };
            pace.answered(response.body().length());
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(Paced { stream, pace: Rc::clone(&pace) }, answering);
    let mut connection = std::pin::pin!(connection);
    loop {
        let until = pace.until();
        tokio::select! {
            // What went wrong with a client is no news.
            _ = &mut connection => return,
            () = sleep_until(until) => if Instant::now() >= pace.until() { return },
        }
    }
}

impl Shared {
    /// Who may not come in learns nothing, not even what there is.
    fn wanted<B>(&self, request: &Request<B>) -> Result<Page, StatusCode> {
        #[cfg(feature = "tls")]
        self.guard.admits(request.headers().get(AUTHORIZATION))?;
        wanted(request, &self.telemetry_path)
    }

    async fn page(&self, page: Page) -> Answer {
        const SILENT: &[u8] = b"the process that watches does not answer\n";
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.ask.send((page, reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten().unwrap_or(Err(Bytes::from_static(SILENT)))
    }
}

/// Asks the watching process for one page after the other, and keeps the last of each.
struct Desk {
    way: UnixStream,
    pages: [Option<(Instant, Answer)>; Page::COUNT],
}

impl Desk {
    fn new(way: UnixStream) -> Self {
        Self { way, pages: Default::default() }
    }

    /// Until the other process ends.
    async fn run(mut self, mut questions: mpsc::Receiver<Question>) -> Result<()> {
        loop {
            let (page, reply) = tokio::select! {
                question = questions.recv() => question.context("no one asks")?,
                _ = self.way.readable() => {
                    let end = self.way.try_read(&mut [0; 1]);
                    match end {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        // It says nothing that it was not asked.
                        _ => return Ok(()),
                    }
                }
            };
            let known = &self.pages[page as usize];
            if known.as_ref().is_none_or(|(at, _)| at.elapsed() >= FRESH) {
                self.fetch(page).await?;
            }
            if let Some((_, answer)) = &self.pages[page as usize] {
                let _ = reply.send(answer.clone());
            }
        }
    }

    async fn fetch(&mut self, page: Page) -> Result<()> {
        put(&self.way, &[page as u8]).await?;
        let mut head = [0; HEAD];
        get(&self.way, &mut head).await?;
        let known = &mut self.pages[page as usize];
        let answer = match (Head::of(head)?, known.take()) {
            (Head::Same, Some((_, answer))) => answer,
            (Head::Same, None) => Err(Bytes::new()),
            (Head::New(length), old) => {
                drop(old);
                Ok(bytes(&self.way, length).await?)
            }
            (Head::None(length), _) => Err(bytes(&self.way, length).await?),
        };
        *known = Some((Instant::now(), answer));
        Ok(())
    }
}

async fn bytes(way: &UnixStream, length: u32) -> io::Result<Bytes> {
    let mut bytes = vec![0; length as usize];
    get(way, &mut bytes).await?;
    Ok(bytes.into())
}

async fn put(way: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        way.writable().await?;
        match way.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn get(way: &UnixStream, bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        way.readable().await?;
        match way.try_read(&mut bytes[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
