//! The recording that is kept of each version: eight minutes, with all that one can hold.

use std::{path::Path, time::Duration};

use ctwatch::{
    model::{
        incident::Ending,
        loading::{Asker, Loaded, Process},
    },
    record::{
        sample::{Access, Owner},
        session::Epoch,
        workload::Workload,
    },
    recording::line::{Line, RecordedOn},
};
use ctwatch_abi::plane::Plane;

use crate::values::{
    machine::{Machine, Talk},
    tape::Tape,
};

const BOOT: &str = "0b9e8b7c-5a3c-4a0e-9d1e-2f6a7f1c1d11";
const STEP: Duration = Duration::from_secs(5);
const LIMIT: u32 = 2000;

struct Evening {
    machine: Machine,
    tape: Tape,
}

/// Of a router with a pod, a namespace of a user's, one that is sealed, and one that goes.
pub(crate) fn record(folder: &Path) {
    let on = RecordedOn {
        host: Some("router".to_owned()),
        boot_id: Some(BOOT.to_owned()),
        kernel: "6.12.0".to_owned(),
    };
    let mut machine = Machine::new("2026-11-26T03:00:00Z".parse().unwrap(), LIMIT, 19);
    machine.place(1, "host", 120);
    machine.place(2, "rt", 600);
    machine.place(3, "cni-2a4b6c8d-0e1f-2a3b-4c5d-6e7f8a9b0c1d", 40);
    machine.place(4, "his", 10);
    machine.place(5, "sealed", 0);
    machine.place(6, "quiet", 7);
    machine.place(7, "short", 3);
    machine.places[2].table.workload = Workload {
        pod: Some("coredns-7c65d6cfc9-abcde".to_owned()),
        namespace: Some("kube-system".to_owned()),
        container: None,
    };
    let his = &mut machine.places[3].table;
    (his.owner, his.is_judged) = (Owner::User(1000), false);
    let sealed = &mut machine.places[4].table;
    (sealed.access, sealed.entries) = (Access::Refused, None);
    sealed.unread = Some("cannot enter it: Operation not permitted".to_owned());
    machine.process = Some(("resolver".to_owned(), 7));
    machine.cgroups = vec![(7, "/system.slice/resolver.service".to_owned())];
    let mut evening = Evening { machine, tape: Tape::new(folder, on) };
    evening.first_life();
    evening.second_life();
    evening.tape.leave(true);
}

fn talk(source: u64) -> Talk {
    let source = [10, 128, 0, u8::try_from(source).unwrap()].into();
    Talk { source, service: ([10, 100, 0, 2].into(), 17, 40_053), ifindex: 2 }
}

impl Evening {
    /// It fills, drops, and is killed over a line.
    fn first_life(&mut self) {
        self.begin(1, None);
        for tick in 0..32 {
            self.tick(tick, (10..20).contains(&tick));
            match tick {
                2 => self.machine.places[5].idle_since = Some(self.machine.now),
                4 => _ = self.machine.places.pop(),
                6 => self.rules_change(),
                7 => self.module_is_loaded(),
                14 => {
                    let taken = self.machine.census(1);
                    self.tape.census(taken);
                }
                22 => self.tape.line(&Line::NoCensus { why: "the walk was too slow".to_owned() }),
                24 => self.tape.line(&Line::Slow {
                    seconds: 5,
                    netns: Some("rt".to_owned()),
                    is_last: false,
                }),
                25 => self.tape.line(&Line::LoadsLost { more: 3 }),
                26 => {
                    self.tape.line(&Line::LoadsBlind { why: "the ring buffer is gone".to_owned() })
                }
                _ => {}
            }
        }
        self.tape.killed();
        // Nobody watches.
        self.machine.pass(Duration::from_secs(90));
        self.machine.refuse(1, talk(35), 70, false);
    }

    /// Conntrack is unloaded and comes back; then the segment is another, and is being written still.
    fn second_life(&mut self) {
        self.machine.restart();
        self.begin(1, None);
        (0..14).for_each(|tick| self.tick(tick, (6..9).contains(&tick)));
        self.tape.line(&Line::Gone);
        self.tape.finish(Ending::Unloaded);
        self.tape.line(&Line::Absent { was_there: true });
        self.machine.pass(Duration::from_secs(12));
        self.machine.reboot();
        let gap = Some(Duration::from_secs(12));
        let header = self.machine.header(BOOT, STEP);
        self.tape.begin(header, Epoch { number: 2, gap });
        (0..8).for_each(|tick| self.tick(tick, false));
        self.tape.stop();
        self.machine.pass(Duration::from_secs(3));
        self.machine.restart();
        self.begin(1, None);
        self.tape.line(&Line::Unwritten { lines: 2 });
        (0..14).for_each(|tick| self.tick(tick, (4..7).contains(&tick)));
        self.tape.segment(self.machine.now);
        (14..20).for_each(|tick| self.tick(tick, false));
    }

    fn begin(&mut self, number: u32, gap: Option<Duration>) {
        self.tape.segment(self.machine.now);
        self.tape.line(&Line::LoadsSince { since: Some(self.machine.now) });
        let written = [("nf_conntrack_max", "2000")];
        let (time, facts) = (self.machine.now, Box::new(self.machine.facts(1, &written)));
        self.tape.line(&Line::Facts { time, facts });
        let mut header = self.machine.header(BOOT, STEP);
        header.notes = vec!["no processes of others: needs CAP_SYS_PTRACE".to_owned()];
        self.tape.begin(header, Epoch { number, gap });
    }

    fn rules_change(&mut self) {
        let until = self.machine.now;
        let what = vec![
            "rt: nft table ip nat has 3 rules instead of 1".to_owned(),
            "nf_conntrack_max 4000 -> 2000".to_owned(),
        ];
        let since = until.checked_sub(Duration::from_secs(60)).unwrap();
        self.tape.line(&Line::Changed { since, until, what });
        let (time, facts) =
            (until, Box::new(self.machine.facts(3, &[("nf_conntrack_max", "2000")])));
        self.tape.line(&Line::Facts { time, facts });
    }

    fn module_is_loaded(&mut self) {
        let process = |pid, comm: &str| Process { pid, comm: comm.to_owned() };
        let loaded = Loaded {
            time: self.machine.now,
            module: "nf_conntrack_ftp".to_owned(),
            by: process(4711, "modprobe"),
            asked_by: Some(Asker {
                process: process(4709, "nft"),
                request: Some("nfct-helper-ftp".to_owned()),
                parent: Some(process(4000, "ansible")),
            }),
        };
        self.tape.line(&Line::Loaded { loaded: vec![loaded] });
    }

    fn tick(&mut self, tick: u64, is_full: bool) {
        self.tape.tick(&self.machine.sample());
        self.machine.pass(STEP);
        let machine = &mut self.machine;
        let busy = u32::try_from(machine.below(30)).unwrap();
        let source = machine.below(24);
        machine.insert(0, talk(source), busy);
        machine.remove(0, busy);
        machine.insert(2, talk(200 + source), busy / 4);
        machine.remove(2, busy / 4);
        let entries = machine.entries(1);
        if is_full {
            machine.insert(1, talk(35), (LIMIT - entries).min(450));
            if machine.entries(1) == LIMIT {
                machine.evict(1, 10);
                machine.insert(1, talk(36), 10);
                machine.refuse(1, talk(35), 200 + busy, true);
                machine.refuse(1, talk(source), 5, true);
                machine.insert(3, talk(250), 2);
                machine.plane(1, Plane::Bgp, tick % 3);
            }
        } else if entries > 900 {
            machine.remove(1, 300);
        } else {
            machine.insert(1, talk(source), busy);
            machine.remove(1, busy / 2);
        }
    }
}
