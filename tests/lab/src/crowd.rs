//! Many namespaces that track connections on their own loopback, with a socket in each.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{Lab, judge::Verdict, links::Change, netfilter, netns::Netns};

/// Taken down with the lab that made it.
pub struct Crowd {
    members: Vec<Member>,
}

struct Member {
    netns: Netns,
    /// Two of a host that talks to itself, and where that goes: two connections.
    sockets: [UdpSocket; 2],
    to: SocketAddr,
}

impl Crowd {
    /// So many in this lab.
    pub fn new(lab: &mut Lab, count: usize) -> Result<Self> {
        may_open(4 * count as u64 + 1024)?;
        let roles: Vec<String> = (0..count).map(|number| format!("crowd{number}")).collect();
        let made = lab.add_many(&roles.iter().map(String::as_str).collect::<Vec<_>>())?;
        let furnish = |netns: Netns| -> Result<Member> {
            enter(&netns)?;
            netfilter::lay_rules(true)?;
            let mut change = Change::new();
            change.up("lo")?;
            change.made()?;
            let to = SocketAddr::from(([127, 0, 0, 1], 9));
            let sockets = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
            Ok(Member { netns, sockets, to })
        };
        let members = apart(|| made.into_iter().map(furnish).collect())?;
        Ok(Self { members })
    }

    pub fn netns(&self) -> impl Iterator<Item = &Netns> {
        self.members.iter().map(|member| &member.netns)
    }

    /// In the first so many, one entry each, and with it a full table where the limit is 1.
    pub fn enter(&self, these: usize) -> Result<()> {
        self.send(these, 0)?;
        // An entry is there when its packet has come to its end.
        let held = self.entries(these)?;
        ensure!(held == these as u64, "{held} entries in {these} namespaces");
        Ok(())
    }

    /// In the first so many, of which each is full, one packet that is refused.
    pub fn refuse(&self, these: usize) -> Result<()> {
        self.send(these, 1)
    }

    fn send(&self, these: usize, which: usize) -> Result<()> {
        for member in self.members.iter().take(these) {
            // What is refused is an error of whoever sends it; so is that nobody listens.
            let _ = member.sockets[which].send_to(b"x", member.to);
        }
        Ok(())
    }

    /// Ends the entries of all.
    pub fn flush(&self) -> Result<()> {
        self.each(self.members.len(), netfilter::flush)
    }

    fn entries(&self, these: usize) -> Result<u64> {
        let mut sum = 0;
        self.each(these, || {
            sum += netfilter::entries()?;
            Ok(())
        })?;
        Ok(sum)
    }

    /// What conntrack has counted in each.
    pub fn verdicts(&self) -> Result<Vec<Verdict>> {
        let mut verdicts = Vec::with_capacity(self.members.len());
        self.each(self.members.len(), || {
            verdicts.push(netfilter::counted()?);
            Ok(())
        })?;
        Ok(verdicts)
    }

    fn each(&self, these: usize, mut work: impl FnMut() -> Result<()> + Send) -> Result<()> {
        let all = self.members.get(..these).context("there are not so many")?;
        apart(|| {
            for member in all {
                enter(&member.netns)?;
                work()?;
            }
            Ok(())
        })
    }
}

/// Two sockets in each, and whatever the tests hold.
fn may_open(files: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.map(|limit| limit.max(files));
    setrlimit(Resource::Nofile, Rlimit { current: enough(current), maximum: enough(maximum) })
        .with_context(|| format!("cannot have {files} files open"))
}

/// On a thread that may stay wherever it goes.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn enter(netns: &Netns) -> Result<()> {
    move_into_link_name_space(netns.open()?.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter a network namespace")
}
