//! Which network namespaces are told of, where that goes by their names: they come and go.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use ctwatch_abi::NetnsId;

use crate::{
    host::netns::{
        Finder, Netns,
        visit::{Source, Visit, Visitor, netns_cookie},
    },
    observe::sampler::Scope,
};

pub(super) struct Choice {
    scope: Scope,
    cookies: bool,
    finder: Finder,
    visitor: Visitor,
}

impl Choice {
    pub(super) fn new(scope: Scope, cookies: bool) -> Result<Self> {
        let visitor = Visitor::new(Source::Procfs)?;
        Ok(Self { scope, cookies, finder: Finder::default(), visitor })
    }

    /// All that are there now, by what the programs call them, and whether they are wanted.
    pub(super) fn look(&mut self) -> Result<HashMap<NetnsId, bool>> {
        let found = self.finder.find(false)?;
        let wanted: HashSet<u32> =
            self.scope.among(&found).iter().map(|netns| netns.inode).collect();
        let mut looked_at = HashMap::with_capacity(found.len());
        for netns in found.values() {
            if let Visit::Read(cookie) = self.visitor.enter(netns, netns_cookie)? {
                let is_wanted = wanted.contains(&netns.inode) && self.scope.is(netns, cookie);
                looked_at.insert(self.id(netns, cookie), is_wanted);
            }
        }
        Ok(looked_at)
    }

    fn id(&self, netns: &Netns, cookie: Option<u64>) -> NetnsId {
        cookie.filter(|_| self.cookies).unwrap_or(netns.inode.into())
    }
}
