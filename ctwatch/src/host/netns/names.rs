//! What namespaces and their interfaces are called, looked up when they are first spoken of.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use ctwatch_abi::NetnsId;

use super::{
    Finder, Netns,
    visit::{Source, Visit, Visitor, interface, netns_cookie},
};
use crate::record::sample::Named;

/// Somebody may make interfaces faster than it is worth asking for their names.
const PATIENCE: Duration = Duration::from_secs(1);
const MOST: usize = 4096;

pub struct Namer {
    finder: Finder,
    visitor: Visitor,
    cookies: bool,
    known: HashMap<(NetnsId, u32), Named>,
    /// What was looked for in vain, and when.
    asked: HashMap<(NetnsId, u32), Instant>,
    /// Looking takes no more than a tenth of the time, however many there are that nothing shows.
    rests_until: Option<Instant>,
}

impl Namer {
    pub fn new(cookies: bool) -> Result<Self> {
        Ok(Self {
            finder: Finder::default(),
            visitor: Visitor::new(Source::Procfs)?,
            cookies,
            known: HashMap::new(),
            asked: HashMap::new(),
            rests_until: None,
        })
    }

    /// As far as it is known; what is not is asked for again, but not at once.
    pub fn name(&mut self, netns: NetnsId, ifindex: u32) -> Result<Named> {
        if let Some(named) = self.known.get(&(netns, ifindex)) {
            return Ok(named.clone());
        }
        let begin = Instant::now();
        let asked = self.asked.get(&(netns, ifindex));
        if asked.is_some_and(|asked| begin.saturating_duration_since(*asked) < PATIENCE)
            || self.rests_until.is_some_and(|until| begin < until)
        {
            return Ok(Named::default());
        }
        if self.known.len() + self.asked.len() >= MOST {
            self.known.clear();
            self.asked.clear();
        }
        let mut answer = None;
        let found = self.finder.find(true)?;
        for (inode, way) in found.iter().map(|(inode, way)| (*inode, way)) {
            let ask = || (netns_cookie(), interface(ifindex));
            let Visit::Read((cookie, interface)) = self.visitor.enter(way, ask)? else { continue };
            let id = cookie.filter(|_| self.cookies).unwrap_or(inode.into());
            let interface = interface.map(|(_, name)| name);
            let (netns_name, workload) = (way.name.clone(), way.workload.clone());
            let named = Named { netns: netns_name, workload, inode: Some(inode), interface };
            if id == netns {
                answer = Some(named.clone());
            }
            // One that is not there may come.
            if named.interface.is_some() || ifindex == 0 {
                self.known.insert((id, ifindex), named);
            }
        }
        // Also where nothing was found: who asks for it again has to wait.
        if !self.known.contains_key(&(netns, ifindex)) {
            self.asked.insert((netns, ifindex), Instant::now());
            self.rests_until = Some(Instant::now() + begin.elapsed() * 9);
        }
        Ok(answer.unwrap_or_default())
    }

    /// What the programs call the namespace with this inode number.
    pub fn id(&self, netns: &Netns) -> Result<Option<NetnsId>> {
        Ok(match self.visitor.enter(netns, netns_cookie)? {
            Visit::Read(cookie) => {
                Some(cookie.filter(|_| self.cookies).unwrap_or(netns.inode.into()))
            }
            Visit::Refused(error) => return Err(error),
            Visit::Gone => None,
        })
    }
}
