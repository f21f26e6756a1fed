//! With --mask no verb tells whose it is: neither of what happens now, nor of what was recorded.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    recordings::{Running, recorded},
    test,
    watch::{ctwatch, finished, while_more_come},
};

pub(crate) const TESTS: &[Test] = &[test(On::Once, "masked_no_verb_tells_whose_it_is", all)];

const UDP: Flows = Flows { sources: 10, ..Flows::of(Family::V4, Protocol::Udp) };

/// What a verb prints, on both outputs.
fn said(args: &[&str], more: &[&Path]) -> Result<String> {
    let (out, errors, code) = finished(ctwatch()?.args(args).args(more))?;
    ensure!(code.is_some_and(|code| code < 3), "{args:?}: {code:?} {errors}");
    ensure!(!out.is_empty(), "{args:?} says nothing: {errors}");
    Ok(out + &errors)
}

fn all() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let place = tempfile::tempdir()?;
    let [folder, key, cut] = ["rec", "key", "cut.gz"].map(|name| place.path().join(name));
    fs::write(&key, b"sixteen bytes or more")?;
    let netns = lab.router().name().to_owned();
    let words = lab.router().run(&["ip", "-o", "link"])?;
    let links = words.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(str::trim);
    let mut originals: Vec<String> =
        links.filter(|link| *link != "lo").map(|link| format!("{link}\"")).collect();
    ensure!(!originals.is_empty(), "no link: {words}");
    originals.extend([netns.clone(), "10.128.0.".to_owned(), "10.100.0.".to_owned()]);
    let is_masked = |args: &[&str], said: &str| -> Result<()> {
        let told = originals.iter().find(|original| said.contains(original.as_str()));
        ensure!(told.is_none(), "{args:?} tells {told:?}: {said}");
        Ok(())
    };
    let mut record = ctwatch()?;
    record.args(["record", "-i", "200ms", "--netns", &netns]).arg(&folder);
    let mut record = Running::start(&mut record, &place.path().join("out"))?;
    recorded(&folder, "\"type\":\"facts\"", 1)?;
    let live: [&[&str]; 7] = [
        &["watch", "-n", "3", "-i", "300ms", "--top", "5", "--by", "source,service,flow,interface"],
        &["watch", "-n", "3", "-i", "300ms", "--top", "5", "-o", "json"],
        &["census", "--by", "source,destination,service"],
        &["census", "-o", "json"],
        &["doctor"],
        &["doctor", "-o", "json"],
        &["check"],
    ];
    while_more_come(&lab, UDP, 0, 500, || {
        for args in live {
            let args = [args, &["--netns", &netns, "--mask"]].concat();
            let told = said(&args, &[])?;
            is_masked(&args, &told)?;
            ensure!(told.contains("ns-"), "{args:?} names no namespace: {told}");
        }
        let args = ["trace", "-n", "3", "--netns", &netns, "--mask"];
        let told = said(&args, &[])?;
        is_masked(&args, &told)?;
        ensure!(told.contains("ns-") && told.contains("dst="), "{told}");
        Ok(())
    })?;
    lab.send(&Flood::of(UDP, 1000))?;
    recorded(&folder, "\"type\":\"facts\"", 2)?;
    record.signal(libc::SIGINT)?;
    let args = ["record", "--cut"];
    let copied =
        finished(ctwatch()?.args(args).arg(&cut).arg(&folder).arg("--mask-key").arg(&key))?;
    ensure!(copied.2 == Some(0), "{copied:?}");
    let played: [&[&str]; 8] = [
        &["watch", "--top", "5"],
        &["watch", "--top", "5", "-o", "json"],
        &["census"],
        &["doctor"],
        &["doctor", "-o", "json"],
        &["incidents"],
        &["incidents", "-o", "json"],
        &["report", "-o", "-"],
    ];
    for args in played {
        let masked = said(args, &[Path::new("--from"), &folder, Path::new("--mask-key"), &key])?;
        is_masked(args, &masked)?;
        let of_cut = said(args, &[Path::new("--from"), &cut])?;
        let differ = masked.lines().zip(of_cut.lines()).find(|(one, other)| one != other);
        if let Some((one, other)) = differ {
            anyhow::bail!("{args:?}: masked as it is played\n{one}\nand as it was copied\n{other}");
        }
        let plain = said(args, &[Path::new("--from"), &folder])?;
        // Where it takes long there is no census but the first one, of an empty table.
        if plain.contains(&netns) || args[0] != "census" {
            ensure!(plain.contains(&netns) && masked.contains("ns-"), "{args:?}: {plain} {masked}");
        }
    }
    fs::metadata(&cut).context("no copy").map(|_| ())
}
