//! Entries of a table, one a line: into the census at once, so that memory does not grow with them.

use ctwatch_abi::{NetnsId, top::AF_INET6};

use super::{
    gathered::{BundleParts, EntryList},
    kind::{self, Why},
};
use crate::host::netfilter::listing;

#[derive(Default)]
pub(super) struct EntriesPart {
    /// Once there is one.
    netns: Option<NetnsId>,
    entries: u64,
    lost: u64,
    said: Option<u64>,
    has_ipv6: bool,
    is_part: bool,
    /// Lines of it end with `use=`: one that does not was cut off.
    have_ends: bool,
}

impl EntriesPart {
    /// `of`: the command, or the path.
    pub(super) fn of(of: &str) -> Self {
        Self { is_part: kind::is_filtered(of), ..Self::default() }
    }

    pub(super) fn take(&mut self, line: &[u8], gathered: &mut BundleParts) -> Result<(), Why> {
        let netns = match self.netns {
            Some(netns) => netns,
            None => *self.netns.insert(gathered.new_list()),
        };
        match listing::entry(netns, line) {
            Ok(listed) if listed.has_end || !self.have_ends => {
                self.have_ends = listed.has_end;
                self.entries += 1;
                self.has_ipv6 |= listed.held.key.family == AF_INET6;
                gathered.census.enter(&listed.held);
                Ok(())
            }
            Ok(_) => Err(Some("it is cut off")),
            Err(why) => {
                if let Some(said) = trailer(line) {
                    self.said = Some(said);
                    return Ok(());
                }
                if !line.windows(4).any(|window| window == b"src=") {
                    return Err(None);
                }
                Err(Some(why))
            }
        }
    }

    /// A line of it was not understood, however it was looked at.
    pub(super) fn lose(&mut self) {
        self.lost += 1;
    }

    /// `297 proto=6 src=… dst=…`, `300 l3proto = 2 proto=6 src=…`
    pub(super) fn expectation(&mut self, line: &[u8]) -> Result<(), Why> {
        if trailer(line).is_some() {
            return Ok(());
        }
        let is_one = line.first().is_some_and(u8::is_ascii_digit)
            && line.windows(6).any(|window| window == b"proto=")
            && line.windows(4).any(|window| window == b"src=");
        self.entries += u64::from(is_one);
        if is_one { Ok(()) } else { Err(None) }
    }

    pub(super) fn expected(&self) -> u32 {
        u32::try_from(self.entries).unwrap_or(u32::MAX)
    }

    pub(super) fn finish(self, namespace: Option<&str>, piece: &str, gathered: &mut BundleParts) {
        let Self { netns, entries, lost, said, has_ipv6, is_part, .. } = self;
        let netns = netns.unwrap_or_else(|| gathered.new_list());
        let piece = piece.to_owned();
        gathered
            .list(namespace, EntryList { netns, piece, entries, lost, said, has_ipv6, is_part });
    }
}

/// The last line of a list: `conntrack v1.4.7 (conntrack-tools): 12 flow entries have been shown.`
fn trailer(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    let (_, said) = text.split_once("(conntrack-tools): ")?;
    let (count, rest) = said.split_once(' ')?;
    let is_end = rest.contains("flow entries") || rest.contains("expectations");
    count.parse().ok().filter(|_| is_end)
}
