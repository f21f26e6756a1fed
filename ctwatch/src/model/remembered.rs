//! What conntrack has dropped since the last check: by its counters then and now. Pure.

use std::collections::BTreeMap;

use ctwatch_abi::NetnsId;
use serde::{Deserialize, Serialize};

use crate::record::{
    counters::MOST_PER_S,
    sample::{Access, TableSample},
};

/// Of the file's format.
const SCHEMA: u32 = 1;

/// What is kept from one check to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    /// Tells this file from any other.
    ctwatch_check: u32,
    /// Seconds since 1970.
    time: i64,
    /// Another one after each boot.
    boot_id: String,
    /// Another one each time that the module is loaded; `None`: conntrack was not there.
    conntrack: Option<u64>,
    /// Which namespaces were looked into.
    scope: String,
    tables: Vec<Table>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// The namespace's cookie, where the kernel has them.
    netns: NetnsId,
    inode: u32,
    /// What led to it, where the kernel has no cookies: a number alone is used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    way: Option<String>,
    /// Packets since the namespace was made; `None`: the counters could not be read.
    dropped: Option<u64>,
}

/// Packets that conntrack dropped in one namespace since the last check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// This is the first one.
    Began,
    Counted(u64),
    /// So many, and perhaps more, because of this.
    AtLeast(u64, String),
    Unknown(String),
}

/// Of each namespace, and how long that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembering {
    pub of: BTreeMap<NetnsId, Since>,
    /// `None` where there is nothing before, or the clock was set back.
    pub seconds: Option<i64>,
}

/// Where and when a check is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallMoment {
    pub time: i64,
    pub boot_id: String,
    pub conntrack: Option<u64>,
    pub scope: String,
}

impl Remembered {
    /// `way`: what leads to the namespace with this inode number, where there are no cookies.
    pub fn new(
        moment: CallMoment,
        samples: &[TableSample],
        way: impl Fn(u32) -> Option<String>,
    ) -> Self {
        let CallMoment { time, boot_id, conntrack, scope } = moment;
        let tables =
            samples.iter().filter(|sample| sample.access != Access::Unseen).map(|sample| Table {
                netns: sample.id,
                inode: sample.inode,
                way: way(sample.inode),
                dropped: sample.counters.map(|sums| sums.dropped()),
            });
        let tables = tables.collect();
        Self { ctwatch_check: SCHEMA, time, boot_id, conntrack, scope, tables }
    }

    /// What such a file holds; `None`: something else.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str::<Self>(text).ok().filter(|known| known.ctwatch_check == SCHEMA)
    }

    pub fn text(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// Why what it counted before may be lost, where conntrack has gone since this.
    pub fn lost(&self) -> Option<&'static str> {
        self.conntrack.is_some().then_some(
            "nf_conntrack was unloaded since the last call: what it dropped until then is lost",
        )
    }

    /// From the check before to this one.
    pub fn since(&self, before: Option<&Self>) -> Remembering {
        let seconds = before.map(|before| self.time - before.time).filter(|s| *s >= 0);
        let of = self.tables.iter().map(|table| (table.netns, self.of_table(table, before)));
        Remembering { of: of.collect(), seconds }
    }

    /// In 1,073 seconds a CPU's counter can go on by 2^32. One that has gone round once shows in a sum
    /// that went back, or not at all.
    fn may_have_wrapped(&self, before: &Self) -> bool {
        let seconds = u64::try_from(self.time - before.time).unwrap_or(u64::MAX);
        seconds.saturating_mul(MOST_PER_S) > u64::from(u32::MAX)
    }

    fn of_table(&self, table: &Table, before: Option<&Self>) -> Since {
        let Some(before) = before else { return Since::Began };
        let Some(now) = table.dropped else {
            return Since::Unknown("its counters could not be read".to_owned());
        };
        if before.boot_id != self.boot_id {
            let why = "the machine was started since the last call: what was dropped until then is \
                       lost";
            return Since::AtLeast(now, why.to_owned());
        }
        if before.conntrack != self.conntrack {
            let why = "nf_conntrack was loaded again since the last call: what it dropped until then \
                       is lost";
            return match before.conntrack {
                Some(_) => Since::AtLeast(now, why.to_owned()),
                // It was not there: all that it counts is new.
                None => Since::Counted(now),
            };
        }
        if before.scope != self.scope {
            return Since::Unknown(format!(
                "the last call with this file looked at {}, this one at {}: use one file for each",
                before.scope, self.scope
            ));
        }
        let is_it = |other: &&Table| (other.netns, other.inode) == (table.netns, table.inode);
        let then = before.tables.iter().find(is_it);
        if table.netns == NetnsId::from(table.inode)
            && then.is_some_and(|then| then.way.is_none() || then.way != table.way)
        {
            return Since::Unknown(
                "whether it is the namespace of the last call cannot be known: its number may be \
                 another's by now"
                    .to_owned(),
            );
        }
        match then.map(|then| then.dropped) {
            // Made meanwhile.
            None => Since::Counted(now),
            Some(None) => {
                Since::Unknown("its counters could not be read at the last call".to_owned())
            }
            Some(Some(then)) if now < then => Since::Unknown(
                "its counters went back since the last call: they wrapped around, or it is another \
                 namespace"
                    .to_owned(),
            ),
            // One that is where it was has not gone all the way round, to the packet.
            Some(Some(then)) if now > then && self.may_have_wrapped(before) => Since::AtLeast(
                now - then,
                "the last call is so long ago that counters of 32 bits may have wrapped around: call \
                 more often"
                    .to_owned(),
            ),
            Some(Some(then)) => Since::Counted(now - then),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::situations::{rt, table, unread};

    /// On a kernel without cookies.
    fn remember(moment: CallMoment, samples: &[TableSample]) -> Remembered {
        Remembered::new(moment, samples, |inode| Some(format!("/run/netns/{inode} of 5")))
    }

    fn at(time: i64) -> CallMoment {
        CallMoment { time, boot_id: "b".to_owned(), conntrack: Some(7), scope: "all".to_owned() }
    }

    fn since(before: (CallMoment, TableSample), now: (CallMoment, TableSample)) -> Since {
        let before = remember(before.0, &[before.1]);
        // As it comes back from the file.
        let before = Remembered::parse(&before.text().unwrap()).unwrap();
        let now = remember(now.0, &[now.1]);
        now.since(Some(&before)).of[&1].clone()
    }

    #[test]
    fn the_first_call_begins() {
        let now = remember(at(60), &[rt(1, 5)]);
        let remembering = now.since(None);
        assert_eq!((&remembering.of[&1], remembering.seconds), (&Since::Began, None));
    }

    #[test]
    fn what_was_dropped_meanwhile_is_counted() {
        let of = |then, now| since((at(0), rt(1, then)), (at(60), rt(1, now)));
        assert_eq!(of(5, 5), Since::Counted(0));
        assert_eq!(of(5, 12), Since::Counted(7));
        let two = |time, drop| remember(at(time), &[rt(1, 5), table(2, "new", 0, drop)]);
        let one = remember(at(0), &[rt(1, 5)]);
        assert_eq!(two(60, 3).since(Some(&one)).of[&2], Since::Counted(3), "made meanwhile");
        assert_eq!(two(60, 3).since(Some(&one)).seconds, Some(60));
    }

    #[test]
    fn after_long_a_counter_may_have_wrapped() {
        let of = |seconds, now| since((at(0), rt(1, 5)), (at(seconds), rt(1, now)));
        assert_eq!(of(1000, 12), Since::Counted(7));
        assert_eq!(of(3600, 5), Since::Counted(0));
        let long = of(3600, 12);
        assert!(matches!(&long, Since::AtLeast(7, why) if why.contains("wrapped")), "{long:?}");
    }

    #[test]
    fn what_was_lost_is_never_none() {
        let of = |moment: CallMoment| since((at(0), rt(1, 5)), (moment, rt(1, 6)));
        let boot = of(CallMoment { boot_id: "other".to_owned(), ..at(60) });
        assert!(matches!(&boot, Since::AtLeast(6, why) if why.contains("started")), "{boot:?}");
        let module = of(CallMoment { conntrack: Some(8), ..at(60) });
        assert!(matches!(&module, Since::AtLeast(6, why) if why.contains("loaded")), "{module:?}");
        let scope = of(CallMoment { scope: "rt".to_owned(), ..at(60) });
        assert!(matches!(&scope, Since::Unknown(why) if why.contains("at all")), "{scope:?}");
        let wrap = since((at(0), rt(1, 5)), (at(60), rt(1, 4)));
        assert!(matches!(&wrap, Since::Unknown(why) if why.contains("went back")), "{wrap:?}");
        let blind = since((at(0), unread(1, "rt")), (at(60), rt(1, 4)));
        assert!(matches!(&blind, Since::Unknown(why) if why.contains("last call")), "{blind:?}");
        let blind = since((at(0), rt(1, 4)), (at(60), unread(1, "rt")));
        assert!(matches!(blind, Since::Unknown(_)), "{blind:?}");
        let absent = since((CallMoment { conntrack: None, ..at(0) }, rt(1, 9)), (at(60), rt(1, 4)));
        assert_eq!(absent, Since::Counted(4), "it was not there");
    }

    #[test]
    fn a_number_that_is_used_again_is_not_the_same_namespace() {
        let of =
            |way: &'static str| Remembered::new(at(60), &[rt(1, 9)], move |_| Some(way.to_owned()));
        let before = Remembered::new(at(0), &[rt(1, 5)], |_| Some("a".to_owned()));
        assert_eq!(of("a").since(Some(&before)).of[&1], Since::Counted(4));
        let other = of("b").since(Some(&before)).of[&1].clone();
        assert!(matches!(&other, Since::Unknown(why) if why.contains("another's")), "{other:?}");
        // By a cookie it is always known.
        let known = |drop| TableSample { id: 7, ..rt(1, drop) };
        let [then, now] = [(0, 5), (60, 9)]
            .map(|(time, drop)| Remembered::new(at(time), &[known(drop)], |_| None));
        assert_eq!(now.since(Some(&then)).of[&7], Since::Counted(4));
    }

    #[test]
    fn another_format_is_none_of_ours() {
        let text = remember(at(0), &[]).text().unwrap();
        assert!(Remembered::parse(&text).is_some());
        for other in [
            "",
            "{}",
            "root:x:0:0:root:/root:/bin/bash",
            &text.replace("\"ctwatch_check\":1", "\"ctwatch_check\":2"),
            &text[..text.len() - 5],
            &text.replace("\"time\"", "\"more\":1,\"time\""),
        ] {
            assert_eq!(Remembered::parse(other), None, "{other}");
        }
    }
}
