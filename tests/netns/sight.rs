//! What cannot be seen is neither absent nor empty: in mount namespaces that hide what containers,
//! chroots and systemd's units hide, and in user namespaces that may enter nothing.

use std::process::Command;

use anyhow::{Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test, test,
    watch::{ctwatch, finished, named},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "hidden_sysctls_do_not_hide_the_table", measured),
    test(On::Once, "out_of_sight_is_not_absent", hidden).anywhere(),
    test(On::Once, "namespaces_that_cannot_be_entered_are_not_idle", barred).anywhere(),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

/// What no verb may say of a machine that tracks.
const FALSE: [&str; 4] =
    ["nf_conntrack is not loaded", "nothing is tracked", "waiting for it", "loads no modules"];

const SYSCTLS: &str = "mount -t tmpfs none /proc/sys";
const MODULES: &str = "mount -t tmpfs none /sys/module";

/// One that ends by itself within twenty seconds, or is killed; a trace, which waits for a refusal,
/// within five.
fn behind(hide: &[&str], args: &[&str]) -> Result<Command> {
    let mut command = Command::new("unshare");
    let hide = format!("{}\nexec \"$@\"", hide.join("\n"));
    command.args(["--mount", "sh", "-ec", &hide, "sh", "timeout", "--signal=KILL"]);
    command.arg(if args.first() == Some(&"trace") { "5" } else { "20" });
    command.arg(ctwatch()?.get_program()).args(args);
    Ok(command)
}

fn says_nothing_false(said: &str) -> Result<()> {
    match FALSE.into_iter().find(|sentence| said.contains(sentence)) {
        Some(sentence) => anyhow::bail!("{sentence:?} is said: {said}"),
        None => Ok(()),
    }
}

fn measured() -> Result<()> {
    const NETFILTER: &str = "mount -t tmpfs none /proc/sys/net/netfilter";
    const PROCESSES: &str = "mount -t proc -o subset=pid proc /proc";
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(1000)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 500))?;
    let name = lab.router().name().to_owned();
    for hide in [NETFILTER, SYSCTLS, PROCESSES] {
        let watch = ["-i", "100ms", "-n", "1", "--output", "json"];
        let (json, errors, code) = finished(&mut behind(&[hide], &watch)?)?;
        ensure!(code == Some(0), "{hide}: {code:?} {errors}");
        says_nothing_false(&errors)?;
        let object: Value = serde_json::from_str(&json)?;
        let table = named(&object, &name)?;
        ensure!(table["entries"] == 500 && table["limit"] == 1000, "{hide}: {table}");
        ensure!(table["fill"] == 0.5 && table["buckets"].is_u64(), "{hide}: {table}");

        let check = ["check", "--for", "100ms", "--netns", &name, "-w", "40%", "-c", "fill=50%"];
        let (line, _, code) = finished(&mut behind(&[hide], &check)?)?;
        ensure!(code == Some(2) && line.contains("50.0% full (500 of 1000)"), "{hide}: {line}");

        let (text, errors, code) = finished(&mut behind(&[hide], &["census", "--netns", &name])?)?;
        ensure!(code == Some(0) && text.contains("500 entries of 1000"), "{hide}: {text}{errors}");

        let (text, errors, code) = finished(&mut behind(&[hide], &["doctor", "--netns", &name])?)?;
        ensure!(code == Some(0) && text.contains("500 of 1000 entries"), "{hide}: {text}{errors}");
        says_nothing_false(&text)?;
    }
    Ok(())
}

fn hidden() -> Result<()> {
    const PROC: &str = "mount -t tmpfs none /proc";
    const SYS: &str = "mount -t tmpfs none /sys";
    // So that conntrack is loaded wherever this runs, and tracks something.
    let lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 50))?;
    // Without the counters of /proc/net, which some kernels do not have anyway.
    let no_counters = "mount -t proc -o subset=pid proc /proc";
    for (hide, what) in [
        (&[PROC][..], "/proc"),
        (&[SYS, PROC], "/proc"),
        (&[no_counters, MODULES], "/sys/module"),
        (&[SYSCTLS, MODULES], "/sys/module"),
    ] {
        for args in [
            &["watch", "-i", "100ms", "-n", "1"][..],
            &["census"],
            &["trace", "-n", "1"],
            &["check", "--for", "100ms"],
            &["doctor"],
        ] {
            let (text, errors, code) = finished(&mut behind(hide, args)?)?;
            let said = format!("{hide:?} {args:?}: {code:?} {text}{errors}");
            says_nothing_false(&said)?;
            // Where something else shows it, it is measured; trace then waits for a refusal.
            let measures = code == Some(0) || (args[0] == "trace" && code.is_none());
            let names = said.contains(&format!("{what} cannot be seen"))
                || said.contains(&format!("{what}, "));
            let failed = if args[0] == "check" { Some(3) } else { Some(1) };
            ensure!(measures || (code == failed && names), "{said}");
            ensure!(
                measures || said.contains("run ctwatch") || said.contains("mount it"),
                "{said}"
            );
        }
    }
    let text = finished(&mut behind(&[PROC], &["watch"])?)?.1;
    ensure!(text.lines().count() == 1, "one clear error: {text}");
    Ok(())
}

/// Root of a user namespace of its own may enter none of the network namespaces of this one, and
/// one of them is full.
fn barred() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 2000))?;
    let name = lab.router().name();
    let run = |args: &[&str]| -> Result<(String, String, Option<i32>)> {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]).arg(ctwatch()?.get_program());
        finished(command.args(args))
    };
    let (text, errors, code) = run(&["-i", "100ms", "-n", "1"])?;
    ensure!(code == Some(0), "{code:?} {text}{errors}");
    for sentence in ["namespaces seen", "namespaces tracked nothing"] {
        ensure!(!text.contains(sentence), "{sentence:?} is said: {text}");
    }
    ensure!(text.contains("cannot be read: ") && text.contains("could not be read"), "{text}");
    let (json, errors, code) = run(&["-i", "100ms", "-n", "1", "--output", "json"])?;
    ensure!(code == Some(0), "{code:?} {errors}");
    let object: Value = serde_json::from_str(&json)?;
    let full = named(&object, name)?;
    ensure!(full["reachable"] == false && full["unread"].is_string(), "{full}");
    ensure!(full["entries"].is_null() && full["saturated"] == false, "{full}");
    let (line, errors, code) = run(&["check", "--for", "100ms"])?;
    ensure!(code == Some(3) && line.contains("UNKNOWN"), "{line}{errors}");
    ensure!(line.contains(&format!("{name} fill unknown: cannot enter")), "{line}");
    ensure!(line.contains("of unknown owner judged as the host's: "), "{line}");
    let (line, ..) = run(&["check", "--for", "100ms", "--owner", "all"])?;
    ensure!(line.contains("UNKNOWN") && !line.contains("owner"), "{line}");
    let (text, errors, code) = run(&["doctor"])?;
    ensure!(code == Some(0), "{code:?} {text}{errors}");
    ensure!(!text.contains("this is the best there is"), "{text}");
    ensure!(text.contains(&format!("cannot enter /run/netns/{name}")), "{text}");
    ensure!(text.contains("as the host's: it belongs to a user namespace outside of"), "{text}");
    Ok(())
}
