//! Entries of a table, one a line: into the census at once, so that memory does not grow with them.

use ctwatch_abi::{
    NetnsId,
    top::{AF_INET6, Key},
};

use super::{
    forms,
    gathered::{BundleParts, EntryList, Families, FamilyList},
    kind::{self, Why},
};
use crate::{host::netfilter::listing, record::entry::Held};

/// Lists of one piece that are told apart: each repeats the one before it.
const MOST_LISTS: usize = 64;

pub(super) struct EntriesPart {
    list: EntryList,
    /// Lists that ended: the lines after them began again with the same entries.
    ended: Vec<EntryList>,
    /// The first entries of this list: where they come again, a list begins again.
    first: Vec<First>,
    /// One of these, come again. The kernel may list an entry twice: the next line tells which it is.
    again: Option<Held>,
    /// The begin of a line that the tool's last words came into.
    head: Option<Vec<u8>>,
    expected: u64,
    /// Lines of it end with `use=`: one that does not was cut off.
    have_ends: bool,
}

/// An entry, to be recognised: its key does not tell ports of sources apart, and its text does.
#[derive(PartialEq)]
struct First {
    key: Key,
    zone: u16,
    text: Vec<u8>,
}

/// Entries by which a list that begins again is recognised: some may be gone by then.
const FIRST: usize = 4;

impl EntriesPart {
    /// `of`: the command, or the path.
    pub(super) fn of(of: &str) -> Self {
        let list = EntryList {
            is_part: kind::is_filtered(of),
            families: Families::of(of),
            ..EntryList::default()
        };
        let (ended, first) = (Vec::new(), Vec::new());
        Self { list, ended, first, again: None, head: None, expected: 0, have_ends: false }
    }

    pub(super) fn take(&mut self, line: &[u8], gathered: &mut BundleParts) -> Result<(), Why> {
        if let Some(mut head) = self.head.take() {
            head.extend_from_slice(line);
            if self.whole(&head, gathered).is_ok() {
                return Ok(());
            }
            self.lose();
        }
        self.whole(line, gathered)
    }

    fn whole(&mut self, line: &[u8], gathered: &mut BundleParts) -> Result<(), Why> {
        if let Some(listed) = forms::as_listed(line) {
            let listed = listed.map_err(Some)?;
            return if listed.is_empty() {
                Ok(())
            } else {
                self.entry(listed.as_bytes(), gathered)
            };
        }
        self.entry(line, gathered)
    }

    fn entry(&mut self, line: &[u8], gathered: &mut BundleParts) -> Result<(), Why> {
        match listing::entry(NetnsId::default(), line) {
            Ok(listed) if listed.has_end || !self.have_ends => {
                self.have_ends = listed.has_end;
                let held = listed.held;
                let is_first = self.is_first(&held, line);
                match self.again.take() {
                    None if is_first && self.list.said.is_none() => {
                        self.again = Some(held);
                        return Ok(());
                    }
                    // After the last line of a list, one is enough.
                    None if is_first => self.begin_again(),
                    None => {}
                    Some(before) => {
                        if is_first {
                            self.begin_again();
                        }
                        self.enter(before, gathered);
                    }
                }
                self.enter(held, gathered);
                Ok(())
            }
            Ok(_) => Err(Some("it is cut off")),
            Err(why) => {
                if let Some(trailer) = Trailer::of(line) {
                    self.said(&trailer);
                    return Ok(());
                }
                if !line.windows(4).any(|window| window == b"src=") {
                    return Err(None);
                }
                Err(Some(why))
            }
        }
    }

    /// Standard error has no buffer: where both go into one file, it comes before the end of the list, and
    /// often into the middle of a line.
    fn said(&mut self, trailer: &Trailer<'_>) {
        if !trailer.before.trim_ascii().is_empty() {
            self.head = Some(trailer.before.to_owned());
        }
        // One for each family, where they were listed one after the other.
        *self.list.said.get_or_insert(0) += trailer.said;
        if trailer.lists_both {
            self.list.families.assume_all();
        }
    }

    fn enter(&mut self, mut held: Held, gathered: &mut BundleParts) {
        let family = self.list.family(held.key.family == AF_INET6);
        if family.entries == 0 {
            family.netns = gathered.new_list();
        }
        family.entries += 1;
        (held.key.netns, held.translated.netns) = (family.netns, family.netns);
        gathered.census.enter(&held);
    }

    /// Whether it is one of the first entries, come again; remembers those.
    fn is_first(&mut self, held: &Held, line: &[u8]) -> bool {
        let (key, zone) = (held.key, held.zone);
        let is_filled = self.first.len() == FIRST;
        if is_filled && self.first.iter().all(|first| first.key != key) {
            return false;
        }
        let entry = First { key, zone, text: original(line).to_owned() };
        if self.first.contains(&entry) {
            return true;
        }
        if !is_filled {
            self.first.push(entry);
        }
        false
    }

    /// A list pasted twice is two lists, and is not counted twice.
    fn begin_again(&mut self) {
        if self.ended.len() < MOST_LISTS {
            let EntryList { is_part, families, .. } = self.list;
            let next = EntryList { is_part, families, ..EntryList::default() };
            self.ended.push(std::mem::replace(&mut self.list, next));
        }
    }

    /// A line of it was not understood, however it was looked at.
    pub(super) fn lose(&mut self) {
        self.list.lost += 1;
    }

    /// `297 proto=6 src=… dst=…`, `300 l3proto = 2 proto=6 src=…`
    pub(super) fn expectation(&mut self, line: &[u8]) -> Result<(), Why> {
        if Trailer::of(line).is_some() {
            return Ok(());
        }
        let is_one = line.first().is_some_and(u8::is_ascii_digit)
            && line.windows(6).any(|window| window == b"proto=")
            && line.windows(4).any(|window| window == b"src=");
        self.expected += u64::from(is_one);
        if is_one { Ok(()) } else { Err(None) }
    }

    pub(super) fn expected(&self) -> u32 {
        u32::try_from(self.expected).unwrap_or(u32::MAX)
    }

    pub(super) fn finish(
        mut self,
        namespace: Option<&str>,
        piece: &str,
        gathered: &mut BundleParts,
    ) {
        if let Some(head) = self.head.take()
            && self.whole(&head, gathered).is_err()
        {
            self.lose();
        }
        if let Some(last) = self.again.take() {
            // A list of one entry, twice.
            if self.list.entries() == 1 {
                self.begin_again();
            }
            self.enter(last, gathered);
        }
        for list in self.ended.into_iter().chain([self.list]) {
            gathered.list(namespace, EntryList { piece: piece.to_owned(), ..list });
        }
    }
}

impl EntryList {
    fn family(&mut self, is_ipv6: bool) -> &mut FamilyList {
        if is_ipv6 { &mut self.ipv6 } else { &mut self.ipv4 }
    }
}

/// Its original direction: `src=… dst=… sport=… dport=…`, without what grows.
fn original(line: &[u8]) -> &[u8] {
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|w| w == what);
    let begin = find(line, b"src=").unwrap_or(line.len());
    let rest = &line[begin..];
    let ends: [&[u8]; 3] = [b" src=", b" packets=", b" ["];
    let end = ends.iter().filter_map(|end| find(rest, end)).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// The last line of a list: `conntrack v1.4.7 (conntrack-tools): 12 flow entries have been shown.`
struct Trailer<'a> {
    /// What stands before it in the same line.
    before: &'a [u8],
    said: u64,
    /// This version lists both families where it is not asked for one.
    lists_both: bool,
}

impl<'a> Trailer<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        const BEGIN: &[u8] = b"conntrack v";
        let at = line.windows(BEGIN.len()).position(|window| window == BEGIN)?;
        let (before, text) = line.split_at(at);
        let text = std::str::from_utf8(text).ok()?;
        let (version, said) = text.split_once("(conntrack-tools): ")?;
        let (count, rest) = said.split_once(' ')?;
        let is_end = rest.contains("have been shown");
        let said = count.parse().ok().filter(|_| is_end)?;
        Some(Self { before, said, lists_both: lists_both(version) })
    }
}

/// `conntrack v1.4.7 `. Debian's 1.4.7 lists both; what older ones list is not known here.
fn lists_both(version: &str) -> bool {
    let Some((_, version)) = version.split_once('v') else { return false };
    let mut numbers = version.trim().split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor, patch) = (numbers.next(), numbers.next(), numbers.next());
    matches!((major, minor), (Some(Some(major)), Some(Some(minor)))
        if (major, minor, patch.flatten().unwrap_or(0)) >= (1, 4, 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_tells_what_is_listed_unasked() {
        let both = |text: &str| Trailer::of(text.as_bytes()).map(|trailer| trailer.lists_both);
        for (version, wanted) in [("1.4.7", true), ("1.4.8", true), ("1.5", true), ("1.4.6", false)]
        {
            let text =
                format!("conntrack v{version} (conntrack-tools): 2 flow entries have been shown.");
            assert_eq!(both(&text), Some(wanted), "{version}");
        }
        assert_eq!(both("conntrack v1.4.7 (conntrack-tools): Operation failed"), None);
    }
}
