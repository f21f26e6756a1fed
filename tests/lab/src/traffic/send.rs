//! Sending frames on the client's link, in batches.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{Flows, frame};
use crate::topology::{CLIENT_LINK, Lab};

/// So many packets are handed to the kernel together.
pub const BATCH: usize = 64;

/// What to send: bounded in packets, and in time too where `within` is given.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    pub flows: Flows,
    /// The first flow's number: floods that follow each other can have flows of their own.
    pub first: u64,
    pub packets: u64,
    /// So many packets of one flow before the next flow begins.
    pub each: u64,
    /// Packets a second; `None` is flat out.
    pub rate: Option<u64>,
    pub within: Option<Duration>,
}

impl Flood {
    pub fn of(flows: Flows, packets: u64) -> Self {
        Self { flows, first: 0, packets, each: 1, rate: None, within: None }
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub packets: u64,
    /// Distinct flows among them.
    pub flows: u64,
    /// Those of `packets` that reached the router: the rest was lost in a queue on the way, before
    /// conntrack could see it.
    pub arrived: u64,
    pub elapsed: Duration,
}

impl Sent {
    pub fn per_s(&self) -> f64 {
        self.packets as f64 / self.elapsed.as_secs_f64()
    }
}

impl Lab {
    /// Sends from the client, through the router.
    pub fn send(&self, flood: &Flood) -> Result<Sent> {
        let before = self.arrived()?;
        let (packets, elapsed) = self.client().within(|| send(flood, |_, _| ()))??;
        // Packets between two queues: a moment, and then until nothing more comes and nothing waits.
        let mut arrived = self.arrived()?;
        loop {
            thread::sleep(Duration::from_millis(20));
            let now = self.arrived()?;
            if now == arrived && waiting()? == 0 {
                break;
            }
            arrived = now;
        }
        let each = flood.each.max(1);
        Ok(Sent { packets, flows: packets.div_ceil(each), arrived: arrived - before, elapsed })
    }

    /// Sends flat out without a pause, and says how long each `part` packets took. A part is of whole
    /// batches.
    pub fn send_in_parts(&self, flood: &Flood, part: u64) -> Result<Vec<Duration>> {
        ensure!(part > 0 && part.is_multiple_of(BATCH as u64), "{part} are no whole batches");
        let (mut parts, mut begun) = (Vec::new(), Duration::ZERO);
        self.client().within(|| {
            send(flood, |sent, elapsed| {
                if sent.is_multiple_of(part) {
                    parts.push(elapsed - begun);
                    begun = elapsed;
                }
            })
        })??;
        Ok(parts)
    }
}

/// Packets of this machine that came in and that no CPU has looked at yet: where one is late, they are
/// in the link's counters already, and not in conntrack's.
fn waiting() -> Result<u64> {
    // Since Linux 5.10.
    const QUEUED: usize = 11;
    let text = fs::read_to_string("/proc/net/softnet_stat").context("cannot read the queues")?;
    text.lines().try_fold(0, |sum, line| {
        let queued = line.split_whitespace().nth(QUEUED).context("a CPU tells no queue")?;
        Ok(sum + u64::from_str_radix(queued, 16)?)
    })
}

/// `after` each batch is told how many were sent, and when.
fn send(flood: &Flood, mut after: impl FnMut(u64, Duration)) -> Result<(u64, Duration)> {
    let socket = packet_socket()?;
    let mut batch = Batch::new();
    let started = Instant::now();
    let mut sent = 0;
    while sent < flood.packets {
        if flood.within.is_some_and(|within| started.elapsed() >= within) {
            break;
        }
        let wanted = (flood.packets - sent).min(BATCH as u64);
        batch.fill(flood, sent, wanted);
        sent += batch.send(&socket)?;
        after(sent, started.elapsed());
        if let Some(rate) = flood.rate {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    Ok((sent, started.elapsed()))
}

/// A raw socket on the client's link. It receives nothing: protocol 0.
fn packet_socket() -> Result<OwnedFd> {
    // SAFETY: plain system calls with arguments that outlive them; the descriptor is owned at once;
    // an address of all zero is a valid one.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        ensure!(fd >= 0, "cannot open a packet socket: {}", io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET)?;
        let name = std::ffi::CString::new(CLIENT_LINK)?;
        address.sll_ifindex = i32::try_from(libc::if_nametoindex(name.as_ptr()))?;
        let bound = libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            libc::socklen_t::try_from(size_of_val(&address))?,
        );
        ensure!(bound == 0, "cannot bind to {CLIENT_LINK}: {}", io::Error::last_os_error());
        Ok(socket)
    }
}

/// Frames that are handed to the kernel together.
struct Batch {
    frames: Vec<Vec<u8>>,
    filled: usize,
}

impl Batch {
    fn new() -> Self {
        Self { frames: vec![Vec::new(); BATCH], filled: 0 }
    }

    fn fill(&mut self, flood: &Flood, sent: u64, wanted: u64) {
        self.filled = 0;
        for (number, frame) in (sent..sent + wanted).zip(&mut self.frames) {
            let flow = flood.flows.flow(flood.first + number / flood.each.max(1));
            frame::write(frame, &flow, flood.flows.protocol, flood.flows.extended);
            self.filled += 1;
        }
    }

    /// Sends all of them, however many calls that takes.
    fn send(&mut self, socket: &OwnedFd) -> Result<u64> {
        let mut pieces: Vec<libc::iovec> = self.frames[..self.filled]
            .iter_mut()
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = pieces
            .iter_mut()
            .map(|piece| {
                // SAFETY: all zero is a valid message without address or control data.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = piece;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let mut done = 0;
        while done < messages.len() {
            let left = &mut messages[done..];
            // SAFETY: the messages point into frames that are alive and as long as they say.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    left.as_mut_ptr(),
                    libc::c_uint::try_from(left.len())?,
                    0,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => done += sent,
                // The link's own queue is full for the moment.
                Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) => {
                    thread::yield_now();
                }
                Err(_) => return Err(io::Error::last_os_error()).context("cannot send frames"),
            }
        }
        Ok(done as u64)
    }
}
