//! The side of the process that watches: it starts the one that listens, answers it, and starts another one when
//! it ends. On a thread of its own: nothing that the other one does delays the counting.

use std::{
    collections::VecDeque,
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::sync::oneshot;

use super::{
    child::NAME,
    listen::Listening,
    wire::{Head, Hello, MOST_SOCKETS, Page, READY},
};
use crate::{output::aside, threads};

/// It has to be ready within this time, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// It is started so often again within this time, and each time it is waited so long before.
const RESTARTS: usize = 10;
const WITHIN: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(200);
/// It is asked no more often than that in a second, whatever the other process has become.
const MOST_PER_S: u32 = 2000;

/// Why it could not begin, in words.
const LONGEST_COMPLAINT: u64 = 1000;

/// Makes the pages.
pub trait PageSource: Send {
    /// Another number as soon as the page would be another one.
    fn tick(&mut self, page: Page) -> u64;
    /// The page, or in a line why there is none.
    fn page(&mut self, page: Page) -> Result<Vec<u8>, String>;
    /// The process that listens now is this one.
    fn listens(&mut self, pid: u32);
}

pub struct Setup {
    pub listening: Listening,
    pub telemetry_path: String,
    /// Who may come in, as `config::read` has it; nothing: everybody.
    pub secured: Vec<u8>,
}

/// Returns once it listens. What comes from it later is why it cannot be kept alive.
pub fn start(
    setup: Setup,
    source: impl PageSource + 'static,
) -> Result<oneshot::Receiver<anyhow::Error>> {
    let (over, mut ended) = oneshot::channel();
    let (tell, first) = mpsc::channel();
    threads::start("web", move || {
        let why = run(&setup, source, &tell);
        // It never began: whoever started it is told by the other way.
        let _ = over.send(why);
    })?;
    match first.recv() {
        Ok(()) => Ok(ended),
        Err(_) => Err(ended.try_recv().unwrap_or_else(|_| anyhow!("the thread web has ended"))),
    }
}

fn run(setup: &Setup, mut source: impl PageSource, tell: &mpsc::Sender<()>) -> anyhow::Error {
    let (mut ends, mut has_begun) = (VecDeque::new(), false);
    loop {
        let ended = match Process::start(setup) {
            Ok(mut process) => {
                source.listens(process.child.id());
                has_begun = true;
                let _ = tell.send(());
                let why = process.answer(&mut source);
                let status = process.end();
                anyhow!("the process that listens ended ({status}): {why:#}")
            }
            // What is wrong from the start will not get better.
            Err(error) if !has_begun => return error,
            Err(error) => error,
        };
        let now = Instant::now();
        ends.push_back(now);
        while ends.front().is_some_and(|at| now.duration_since(*at) > WITHIN) {
            ends.pop_front();
        }
        if ends.len() > RESTARTS {
            return ended.context(format!("it ended {} times", ends.len()));
        }
        aside::say(&format!("{ended:#}; starting another one"));
        std::thread::sleep(PAUSE);
    }
}

struct Process {
    child: Child,
    way: UnixStream,
    /// What it has of each page.
    has: [Option<u64>; Page::COUNT],
}

impl Process {
    fn start(setup: &Setup) -> Result<Self> {
        let (way, its) = UnixStream::pair().context("cannot open a pair of sockets")?;
        for timeout in [UnixStream::set_write_timeout, UnixStream::set_read_timeout] {
            timeout(&way, Some(PATIENCE))?;
        }
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(its))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the process that listens")?;
        let mut process = Self { child, way, has: [None; Page::COUNT] };
        match process.hand_over(setup) {
            Ok(()) => Ok(process),
            Err(error) => {
                let status = process.end();
                Err(error.context(format!("the process that listens did not begin ({status})")))
            }
        }
    }

    fn hand_over(&mut self, setup: &Setup) -> Result<()> {
        let sockets: Vec<BorrowedFd<'_>> =
            setup.listening.sockets.iter().map(AsFd::as_fd).collect();
        let hello = Hello {
            sockets: sockets.len(),
            parent: std::process::id(),
            telemetry_path: setup.telemetry_path.clone(),
            secured: setup.secured.len(),
        };
        let hello = serde_json::to_vec(&hello)?;
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut beside = SendAncillaryBuffer::new(&mut room);
        if !beside.push(SendAncillaryMessage::ScmRights(&sockets)) {
            bail!("too many sockets");
        }
        sendmsg(&self.way, &[IoSlice::new(&hello)], &mut beside, SendFlags::NOSIGNAL)?;
        self.way.write_all(&setup.secured)?;
        match self.byte()? {
            Some(READY) => {}
            first => {
                let mut why: Vec<u8> = first.into_iter().collect();
                let _ = Read::by_ref(&mut self.way).take(LONGEST_COMPLAINT).read_to_end(&mut why);
                bail!("{}", String::from_utf8_lossy(&why));
            }
        }
        // From here on it asks when it likes.
        self.way.set_read_timeout(None)?;
        Ok(())
    }

    /// `None`: it has ended.
    fn byte(&mut self) -> Result<Option<u8>> {
        let mut byte = [0];
        loop {
            match self.way.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Until it ends, or says what it must not: why.
    fn answer(&mut self, source: &mut impl PageSource) -> anyhow::Error {
        let (mut second, mut asked) = (Instant::now(), 0);
        loop {
            let page = match self.byte() {
                Ok(Some(byte)) => Page::of(byte),
                Ok(None) => return anyhow!("it hung up"),
                Err(error) => return error,
            };
            let Some(page) = page else { return anyhow!("it asked for what there is not") };
            if let Err(error) = self.one(page, source) {
                return error.context("it takes no answer");
            }
            asked += 1;
            if asked >= MOST_PER_S {
                std::thread::sleep(Duration::from_secs(1).saturating_sub(second.elapsed()));
                (second, asked) = (Instant::now(), 0);
            }
        }
    }

    fn one(&mut self, page: Page, source: &mut impl PageSource) -> Result<()> {
        let tick = source.tick(page);
        let has = &mut self.has[page as usize];
        if has.replace(tick) == Some(tick) {
            return Ok(self.way.write_all(&Head::Same.bytes())?);
        }
        let (head, bytes): (fn(u32) -> Head, _) = match source.page(page) {
            Ok(bytes) => (Head::New, bytes),
            Err(why) => (Head::None, why.into_bytes()),
        };
        let length = u32::try_from(bytes.len())?;
        self.way.write_all(&head(length).bytes())?;
        Ok(self.way.write_all(&bytes)?)
    }

    /// How it ended; where it did not, it is made to.
    fn end(&mut self) -> String {
        let _ = self.child.kill();
        let status = self.child.wait();
        status.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string())
    }
}
