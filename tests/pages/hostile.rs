//! A recording in which strangers have named all that can be named.

use std::{path::Path, time::Duration};

use ctwatch::{
    record::{session::Epoch, workload::Workload},
    recording::line::{Line, RecordedOn},
};

use crate::values::{
    machine::{Machine, Talk},
    tape::Tape,
};

const SCRIPT: &str = "<script>alert(1)</script>";
const BREAKS_OUT: &str = "x\" onload=\"alert(1)' --><svg/onload=alert(1)>";
const PICTURE: &str = "<img src=http://192.0.2.1/x onerror=alert(1)>";
const BIDI: &str = "\u{202e}live\u{2066}\u{1b}[31m\u{9b}\u{7}";
const ENDS: &str = "</title></style></script><iframe src=//192.0.2.1>";
const LONG: &str =
    "a-name-without-any-place-to-break-it-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on";
const BOOT: &str = "0b9e8b7c-5a3c-4a0e-9d1e-2f6a7f1c1d11";

/// What must be there to read of them.
pub(crate) const SHOWN: [&str; 4] =
    [SCRIPT, "onload=\"alert(1)'", "<img src=http:", "\\u{202e}live"];

/// All of them are full and drop packets for five minutes of ten.
pub(crate) fn record(folder: &Path) {
    let on = RecordedOn {
        host: Some(SCRIPT.to_owned()),
        boot_id: Some(BOOT.to_owned()),
        kernel: SCRIPT.to_owned(),
    };
    let mut tape = Tape::new(folder, on);
    let mut machine = Machine::new("2026-11-26T03:00:00Z".parse().unwrap(), 1000, 7);
    for (id, name) in (1..).zip([SCRIPT, BREAKS_OUT, PICTURE, BIDI, ENDS, LONG]) {
        let at = machine.place(id, name, 900);
        let table = &mut machine.places[at].table;
        table.interfaces = vec![(2, if id == 1 { BREAKS_OUT } else { PICTURE }.to_owned())];
        if id == 2 {
            let namespace = Some(PICTURE.to_owned());
            table.workload = Workload { pod: Some(ENDS.to_owned()), namespace, container: None };
            table.name = Some("cni-2a4b6c8d-0e1f-2a3b-4c5d-6e7f8a9b0c1d".to_owned());
        }
    }
    machine.process = Some(("<img src=x id=y".to_owned(), 7));
    machine.cgroups = vec![(7, format!("/system.slice/{SCRIPT}"))];
    let mut header = machine.header(BOOT, Duration::from_secs(5));
    (header.kernel, header.notes) =
        (SCRIPT.to_owned(), vec![BREAKS_OUT.to_owned(), BIDI.to_owned()]);
    tape.segment(machine.now);
    let (time, facts) = (machine.now, Box::new(machine.facts(1, &[(SCRIPT, BREAKS_OUT)])));
    tape.line(&Line::Facts { time, facts });
    tape.begin(header, Epoch { number: 1, gap: None });
    for tick in 0..120_u32 {
        tape.tick(&machine.sample());
        if tick == 20 {
            let what = vec![format!("{SCRIPT}: nft table ip {BREAKS_OUT} is new, with 3 rules")];
            let (since, until) = (machine.now, machine.now);
            tape.line(&Line::Changed { since, until, what });
        }
        machine.pass(Duration::from_secs(5));
        let mut talk = Talk::dns("10.128.0.35".parse().unwrap());
        for at in 0..machine.places.len() {
            let (inserted, refused) = (machine.below(10) as u32, machine.below(90) as u32);
            talk.source = [10, 128, at as u8, machine.below(9) as u8].into();
            match tick {
                30..90 => {
                    let room = 1000 - machine.entries(at);
                    machine.insert(at, talk, room);
                    machine.refuse(at, talk, refused, true);
                }
                _ => {
                    machine.remove(at, inserted + if tick > 90 { 30 } else { 0 });
                    let room = 1000 - machine.entries(at);
                    machine.insert(at, talk, inserted.min(room));
                }
            }
        }
    }
    tape.line(&Line::End);
    tape.seal();
}
