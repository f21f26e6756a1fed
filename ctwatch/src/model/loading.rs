//! Who has conntrack's modules loaded. Listing a table is enough: the kernel then runs `modprobe` by
//! itself, and from then on every connection is tracked.
//!
//! What was loaded says its process, but that is `modprobe`, and gone. Who wanted it is known in two
//! ways. Where a process ran `modprobe`, that is its parent. Where the kernel ran it, it was told for
//! whom, right before; the name that was asked for stands at the end of `modprobe`'s command line,
//! so that of several who ask at once each gets his own.

use std::{collections::VecDeque, time::Duration};

use ctwatch_abi::loading::{Event, Kind, NAME};
use serde::{Deserialize, Serialize};

use crate::family;

/// So many requests are remembered, and for so long: `modprobe` is run right after.
const REQUESTS: usize = 256;
const AFTER: Duration = Duration::from_secs(10);
/// So many loaded modules are remembered, the last ones.
const LOADED: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub comm: String,
}

/// A module of conntrack's that was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    pub time: jiff::Timestamp,
    pub module: String,
    pub by: Process,
    /// `None` where that was not seen.
    pub asked_by: Option<Asker>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    pub process: Process,
    /// What it made the kernel ask for. `None`: it is the parent of the one that loaded the module.
    pub request: Option<String>,
    /// Its own parent, where that is known and no thread of the kernel.
    pub parent: Option<Process>,
}

/// What was seen, as far as it is remembered.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    requests: VecDeque<Request>,
    loaded: VecDeque<Loaded>,
}

#[derive(Clone, Debug)]
struct Request {
    at: u64,
    name: String,
    process: Process,
    parent: Option<Process>,
}

impl Loads {
    /// Takes in what happened next, on a machine that started at `booted`; answers with a module of
    /// conntrack's that was loaded.
    pub fn take(&mut self, event: &Event, booted: jiff::Timestamp) -> Option<&Loaded> {
        if event.kind == Kind::Asked as u32 {
            push(&mut self.requests, REQUESTS, Request::of(event));
            return None;
        }
        let module = text(&event.module);
        if event.kind != Kind::Loaded as u32 || family::role(&module).is_none() {
            return None;
        }
        let asked_by = self.asker(event);
        let time = booted + Duration::from_nanos(event.at);
        push(&mut self.loaded, LOADED, Loaded { time, module, by: process(event), asked_by });
        self.loaded.back()
    }

    /// The oldest first.
    pub fn loaded(&self) -> impl ExactSizeIterator<Item = &Loaded> {
        self.loaded.iter()
    }

    fn asker(&self, event: &Event) -> Option<Asker> {
        if event.by_kernel == 0 {
            let process = parent(event)?;
            return Some(Asker { process, request: None, parent: None });
        }
        let name = last_argument(&event.command)?;
        // Somebody may have asked for the same since: for him another one was run.
        let asked = |request: &&Request| {
            let until = event.began.checked_sub(request.at).map(Duration::from_nanos);
            request.name == name && until.is_some_and(|until| until < AFTER)
        };
        let Request { name, process, parent, .. } = self.requests.iter().rev().find(asked)?.clone();
        Some(Asker { process, request: Some(name), parent })
    }
}

impl Request {
    fn of(event: &Event) -> Self {
        Self {
            at: event.at,
            name: text(&event.module),
            process: process(event),
            parent: parent(event),
        }
    }
}

fn push<T>(to: &mut VecDeque<T>, most: usize, value: T) {
    if to.len() == most {
        to.pop_front();
    }
    to.push_back(value);
}

fn process(event: &Event) -> Process {
    Process { pid: event.pid, comm: text(&event.comm) }
}

fn parent(event: &Event) -> Option<Process> {
    let parent = Process { pid: event.parent_pid, comm: text(&event.parent_comm) };
    (event.by_kernel == 0 && parent.pid != 0).then_some(parent)
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Of a command line, of which this is the end; `None` where it does not begin in here.
fn last_argument(command: &[u8; NAME]) -> Option<String> {
    let (0, rest) = command.split_last()? else { return None };
    let before = rest.iter().rposition(|byte| *byte == 0)?;
    Some(text(&rest[before + 1..])).filter(|argument| !argument.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        let mut bytes = [0; N];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    /// A process, and a parent of its own.
    fn event(kind: Kind, at: u64, module: &str, (pid, comm): (u32, &str)) -> Event {
        Event {
            at,
            began: at,
            kind: kind as u32,
            pid,
            parent_pid: 7,
            by_kernel: 0,
            comm: bytes(comm),
            parent_comm: bytes("bash"),
            module: bytes(module),
            command: [0; NAME],
        }
    }

    fn asked(at: u64, name: &str, who: (u32, &str)) -> Event {
        event(Kind::Asked, at, name, who)
    }

    /// By a `modprobe` that the kernel ran.
    fn loaded(began: u64, at: u64, module: &str, pid: u32, request: &str) -> Event {
        let line = format!("/sbin/modprobe\0-q\0--\0{request}\0");
        let mut command = [0xff; NAME];
        let end = line.as_bytes();
        let kept = &end[end.len().saturating_sub(NAME)..];
        command[NAME - kept.len()..].copy_from_slice(kept);
        let by = event(Kind::Loaded, at, module, (pid, "modprobe"));
        Event { began, by_kernel: 0x20_0000, parent_comm: bytes("kworker/0:1"), command, ..by }
    }

    fn take<'a>(loading: &'a mut Loads, event: &Event) -> Option<&'a Loaded> {
        loading.take(event, jiff::Timestamp::UNIX_EPOCH)
    }

    fn process(pid: u32, comm: &str) -> Process {
        Process { pid, comm: comm.to_owned() }
    }

    #[test]
    fn listing_a_table_is_asking_for_its_module() {
        let mut loading = Loads::default();
        assert_eq!(take(&mut loading, &asked(SECOND, "iptable_nat", (12, "iptables"))), None);
        let (began, at) = (SECOND + 5, 2 * SECOND);
        for module in ["x_tables", "nf_defrag_ipv4", "nf_conntrack", "iptable_nat"] {
            let found = take(&mut loading, &loaded(began, at, module, 13, "iptable_nat")).cloned();
            assert_eq!(found.is_some(), module != "x_tables", "{module}");
            let Some(found) = found else { continue };
            assert_eq!((found.module.as_str(), found.time.as_second()), (module, 2));
            assert_eq!(found.by, process(13, "modprobe"));
            let asker = Asker {
                process: process(12, "iptables"),
                request: Some("iptable_nat".to_owned()),
                parent: Some(process(7, "bash")),
            };
            assert_eq!(found.asked_by, Some(asker));
        }
        assert_eq!(loading.loaded().len(), 3);
    }

    #[test]
    fn of_several_who_ask_at_once_each_gets_his_own() {
        let mut loading = Loads::default();
        take(&mut loading, &asked(10, "nft-expr-ct", (1, "nft")));
        take(&mut loading, &asked(20, "net-pf-40", (2, "curious")));
        take(&mut loading, &asked(30, "nft-expr-ct", (3, "late")));
        let ct = take(&mut loading, &loaded(25, 40, "nft_ct", 4, "nft-expr-ct")).unwrap();
        assert_eq!(ct.asked_by.as_ref().unwrap().process, process(1, "nft"));
        let ct = take(&mut loading, &loaded(35, 50, "nft_ct", 5, "nft-expr-ct")).unwrap();
        assert_eq!(ct.asked_by.as_ref().unwrap().process, process(3, "late"));
    }

    #[test]
    fn whoever_runs_modprobe_is_its_parent() {
        let mut loading = Loads::default();
        // Meanwhile somebody else asks for the very same.
        take(&mut loading, &asked(10, "nf_conntrack", (1, "other")));
        let line = loaded(15, 20, "nf_conntrack", 2, "nf_conntrack");
        let by_hand = Event { by_kernel: 0, parent_comm: bytes("make"), ..line };
        let found = take(&mut loading, &by_hand).unwrap();
        let asker = Asker { process: process(7, "make"), request: None, parent: None };
        assert_eq!(found.asked_by, Some(asker));
    }

    #[test]
    fn nobody_is_named_who_was_not_seen() {
        let mut loading = Loads::default();
        take(&mut loading, &asked(SECOND, "iptable_nat", (1, "iptables")));
        let unseen = [
            // Another name, long ago, after it had begun, no readable name, no parent.
            loaded(SECOND + 1, SECOND + 2, "nf_nat", 2, "ip6table_nat"),
            loaded(20 * SECOND, 21 * SECOND, "nf_nat", 2, "iptable_nat"),
            loaded(SECOND - 1, SECOND + 2, "nf_nat", 2, "iptable_nat"),
            loaded(SECOND + 1, SECOND + 2, "nf_nat", 2, &"x".repeat(2 * NAME)),
            Event {
                command: [0; NAME],
                ..loaded(SECOND + 1, SECOND + 2, "nf_nat", 2, "iptable_nat")
            },
            Event { parent_pid: 0, ..event(Kind::Loaded, SECOND, "nf_nat", (2, "insmod")) },
        ];
        for event in unseen {
            assert_eq!(take(&mut loading, &event).unwrap().asked_by, None, "{event:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut loading = Loads::default();
        for at in 0..1000 {
            take(&mut loading, &asked(at, "nft-expr-ct", (at as u32, "nft")));
            take(&mut loading, &loaded(at, at, "nft_ct", at as u32, "nft-expr-ct"));
        }
        assert_eq!((loading.requests.len(), loading.loaded().len()), (REQUESTS, LOADED));
        assert_eq!(loading.loaded().last().unwrap().by.pid, 999);
        let strange = Event { kind: 9, ..asked(0, "nf_nat", (1, "a")) };
        assert_eq!(take(&mut loading, &strange), None);
    }
}
