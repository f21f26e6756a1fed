//! Entries of a table, one a line. Each goes into the census at once, so that memory does not grow with them.

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

/// The most lists in one piece that are told apart.
const MOST_LISTS: usize = 64;

pub(super) struct EntriesPart {
    list: EntryList,
    /// Lists before this one in the same piece: a list ends where its first entries come again.
    ended: Vec<EntryList>,
    /// The first entries of this list. Where they come again, the next list begins.
    first: Vec<First>,
    /// An entry that repeats one of `first`, held back. The kernel may list one entry twice, so a new list
    /// begins only if the next line repeats one too.
    again: Option<Held>,
    /// The begin of a line that conntrack's trailer cut in two.
    head: Option<Vec<u8>>,
    expected: u64,
    /// Lines of this list end with `use=`, so a line that does not was cut off.
    have_ends: bool,
}

/// An entry to be recognised. The key has no source port, so the text is compared too.
#[derive(PartialEq)]
struct First {
    key: Key,
    zone: u16,
    text: Vec<u8>,
}

/// How many entries are remembered. The first ones may be gone when the table is listed again.
const FIRST: usize = 4;

impl EntriesPart {
    /// `of` is the command, or the path of the file.
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
                    // The trailer ended a list, so one repeated entry is enough.
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

    /// conntrack writes its trailer to standard error, unbuffered. If both outputs go into one file, it comes
    /// before the end of the list, and often into the middle of a line.
    fn said(&mut self, trailer: &Trailer<'_>) {
        if !trailer.before.trim_ascii().is_empty() {
            self.head = Some(trailer.before.to_owned());
        }
        // Two families listed one after the other have a trailer each.
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

    /// Whether this entry repeats one of the first; remembers it if it is one of the first.
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

    /// Begins the next list: the same table was listed again, and is not to be counted twice.
    fn begin_again(&mut self) {
        if self.ended.len() < MOST_LISTS {
            let EntryList { is_part, families, .. } = self.list;
            let next = EntryList { is_part, families, ..EntryList::default() };
            self.ended.push(std::mem::replace(&mut self.list, next));
        }
    }

    /// A line of this list was not understood.
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

/// The original direction, `src=… dst=… sport=… dport=…`, without the counters, which change.
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
    /// This version of conntrack lists both families unless it is asked for one.
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

/// Debian's 1.4.7 was seen to list both; of older versions it is not known.
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
