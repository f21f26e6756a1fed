//! What ctwatch records is what it showed, and the kernel's counters agree.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test, mechanism, test,
    watch::{PATIENCE, ctwatch, finished},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Each, "a_recording_plays_back_byte_for_byte", same_bytes),
    test(On::Once, "a_killed_recorder_loses_a_tick", killed),
    test(On::Once, "a_recorder_on_a_full_disk_goes_on", full_disk),
    test(On::EachWithPrograms, "a_recording_tells_what_happened", told),
    test(On::Once, "who_changed_rules_is_told_where_it_is_seen", changed).anywhere(),
];

const UDP: Flows = Flows { sources: 10, ..Flows::of(Family::V4, Protocol::Udp) };

pub(crate) const TICK: &str = "\"type\":\"tick\"";

/// Its standard output in a file; stopped when it is dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command, out: &Path) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(fs::File::create(out)?).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    pub(crate) fn signal(&mut self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.0.id())?;
        // SAFETY: the child is not waited for yet, so the number is its own.
        ensure!(unsafe { libc::kill(pid, signal) } == 0, "it is gone");
        let begun = Instant::now();
        while self.0.try_wait()?.is_none() {
            ensure!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of the recording that hold this, of segments that are being written.
pub(crate) fn lines_with(folder: &Path, words: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        found.extend(text.lines().filter(|line| line.contains(words)).map(str::to_owned));
    }
    Ok(found)
}

/// How many those are.
pub(crate) fn count(folder: &Path, words: &str) -> Result<usize> {
    Ok(lines_with(folder, words)?.len())
}

/// Until there are so many.
pub(crate) fn recorded(folder: &Path, words: &str, most: usize) -> Result<()> {
    let begun = Instant::now();
    while count(folder, words)? < most {
        ensure!(begun.elapsed() < PATIENCE, "fewer than {most} times {words}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Until so many lines are printed.
fn printed_lines(file: &Path, most: usize) -> Result<()> {
    let begun = Instant::now();
    while fs::read_to_string(file)?.lines().count() < most {
        ensure!(begun.elapsed() < PATIENCE, "fewer than {most} lines in {}", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn same_bytes() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let place = tempfile::tempdir()?;
    let netns = lab.router().name().to_owned();
    for output in ["text", "json"] {
        let folder = place.path().join(output);
        let printed = place.path().join(format!("{output}.out"));
        let mechanism = mechanism::current().name();
        let args = ["watch", "-i", "200ms", "--top", "5", "--by", "source,service,interface", "-o"];
        let mut command = ctwatch()?;
        command.args(args).args([output, "--netns", &netns, "--mechanism", mechanism]);
        command.arg("--record").arg(&folder);
        let mut watch = Running::start(&mut command, &printed)?;
        recorded(&folder, TICK, 3)?;
        for _ in 0..3 {
            lab.send(&Flood::of(UDP, 1000))?;
            std::thread::sleep(Duration::from_millis(300));
        }
        watch.signal(libc::SIGINT)?;
        let live = fs::read_to_string(&printed)?;
        let mut again = ctwatch()?;
        again.args(["watch", "--top", "5", "--by", "source,service,interface", "-o", output]);
        let (played, errors, code) = finished(again.arg("--from").arg(&folder))?;
        ensure!(code == Some(0), "{code:?} {errors}");
        ensure!(live.lines().count() > 5, "{live}");
        if let Some((one, other)) = live.lines().zip(played.lines()).find(|(a, b)| a != b) {
            anyhow::bail!("{output}: live\n{one}\nplayed back\n{other}");
        }
        ensure!(live == played, "{output}: {} and {} bytes", live.len(), played.len());
        lab.router().run(&["conntrack", "-F"])?;
    }
    Ok(())
}

/// Killed in the midst of a flood, and started again.
fn killed() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let place = tempfile::tempdir()?;
    let folder = place.path().join("rec");
    let netns = lab.router().name().to_owned();
    let mut command = ctwatch()?;
    command.args(["watch", "-i", "200ms", "-o", "json", "--netns", &netns, "--record"]);
    command.arg(&folder);
    let printed = place.path().join("before");
    let mut watch = Running::start(&mut command, &printed)?;
    recorded(&folder, TICK, 3)?;
    lab.send(&Flood::of(UDP, 1000))?;
    // One may be on its way that saw only a part of it.
    let ticks = count(&folder, TICK)?;
    recorded(&folder, TICK, ticks + 2)?;
    watch.signal(libc::SIGKILL)?;
    let before = judge::ask(lab.router())?;
    // What happens while nobody records.
    lab.send(&Flood::of(UDP, 1000))?;
    let meanwhile = judge::ask(lab.router())?.drop - before.drop;
    ensure!(meanwhile > 0, "{before:?}");
    let printed_after = place.path().join("after");
    let mut watch = Running::start(&mut command, &printed_after)?;
    printed_lines(&printed_after, 3)?;
    watch.signal(libc::SIGINT)?;
    let mut again = ctwatch()?;
    again.args(["watch", "-o", "json", "--from"]).arg(&folder);
    let (played, notes, code) = finished(&mut again)?;
    ensure!(code == Some(0), "{code:?} {notes}");
    let [first, second] =
        [&printed, &printed_after].map(fs::read_to_string).map(Result::unwrap_or_default);
    let played: Vec<&str> = played.lines().collect();
    // The tick in the air: it was printed and not recorded, or the other way.
    let lost = first.lines().zip(&played).take_while(|(one, other)| one == *other).count();
    let shown = first.lines().count();
    let both = first.lines().zip(&played).nth(lost);
    ensure!(shown.abs_diff(lost) <= 1, "{lost} of {shown} are the same: {both:?} {notes}");
    let tail = second.lines().rev().zip(played.iter().rev());
    ensure!(tail.clone().count() > 1, "{second}");
    for (one, other) in tail {
        ensure!(one == *other, "live\n{one}\nplayed back\n{other}");
    }
    let gap: Vec<&str> = notes.lines().filter(|line| line.contains("begins again")).collect();
    let told = format!(" {meanwhile} in {netns}");
    ensure!(gap.len() == 1 && gap[0].contains(&told), "{told}: {notes}");
    Ok(())
}

/// The next morning: incidents, the doctor, the census and the page agree with the kernel's counters.
fn told() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let place = tempfile::tempdir()?;
    let folder = place.path().join("rec");
    let netns = lab.router().name().to_owned();
    let mut command = ctwatch()?;
    let mechanism = mechanism::current().name();
    command
        .args(["record", "-i", "200ms", "--netns", &netns, "--mechanism", mechanism])
        .arg(&folder);
    let mut record = Running::start(&mut command, &place.path().join("out"))?;
    recorded(&folder, "\"type\":\"facts\"", 1)?;
    recorded(&folder, TICK, 3)?;
    let sent = lab.send(&Flood::of(UDP, 3000))?;
    recorded(&folder, "\"type\":\"census\"", 1)?;
    recorded(&folder, "\"type\":\"facts\"", 2)?;
    record.signal(libc::SIGINT)?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 0 && sent.arrived == 3000, "{verdict:?} {sent:?}");
    let run = |args: &[&str]| -> Result<String> {
        let (out, errors, code) = finished(ctwatch()?.args(args).arg("--from").arg(&folder))?;
        ensure!(code == Some(0), "{args:?}: {code:?} {errors}");
        Ok(out)
    };
    let incidents = run(&["incidents", "--output", "json"])?;
    ensure!(incidents.lines().count() == 1, "{incidents}");
    let incident: serde_json::Value = serde_json::from_str(&incidents)?;
    let dropped = &incident["dropped"];
    ensure!(
        dropped["at_least"] == verdict.drop && dropped["at_most"] == verdict.drop,
        "{verdict:?} {incident}"
    );
    ensure!(incident["netns"]["name"] == netns, "{incident}");
    let file = fs::read_to_string(folder.join("incidents.ndjson"))?;
    ensure!(file == incidents, "recorded\n{file}\nplayed back\n{incidents}");
    let listed = run(&["incidents"])?;
    ensure!(listed.contains("table_full") && listed.contains("10.128.0."), "{listed}");
    let id = incident["id"].as_str().context("no id")?;
    let one = run(&["incidents", "--id", id])?;
    ensure!(one.contains(&format!("dropped: {}", verdict.drop)), "{one}");
    let report: serde_json::Value = serde_json::from_str(&run(&["doctor", "--output", "json"])?)?;
    let findings = report["findings"].as_array().context("no findings")?;
    let full = findings.iter().find(|finding| finding["severity"] == "critical");
    let full = full.with_context(|| report.to_string())?;
    ensure!(full.to_string().contains(&netns), "{full}");
    let census: serde_json::Value = serde_json::from_str(&run(&["census", "--output", "json"])?)?;
    // Of before the flood, or of the full table, where a walk may meet an entry that is then
    // evicted, and the one that came in its place.
    let most = 200 + verdict.early_drop;
    ensure!(census["entries"].as_u64().is_some_and(|entries| entries <= most), "{most} {census}");
    let page = run(&["report", "--output", "-"])?;
    let shown = verdict.drop.to_string();
    let with_comma = format!("{},{}", verdict.drop / 1000, &format!("{:03}", verdict.drop % 1000));
    ensure!(page.contains(&shown) || page.contains(&with_comma), "{page}");
    ensure!(page.contains(&netns) && !page.contains("http://"), "{page}");
    if let Some(kept) = std::env::var_os("CTWATCH_KEEP_PAGE") {
        fs::write(kept, &page)?;
    }
    Ok(())
}

/// It says so once, goes on watching, and records again when there is room.
fn full_disk() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    let place = tempfile::tempdir()?;
    let disk = place.path().join("disk");
    fs::create_dir(&disk)?;
    let mount = "mount -t tmpfs -o size=256k,mode=700 none \"$0\" && exec \"$@\"";
    let script = "\"$CTWATCH_BIN\" watch -i 100ms -n 200 -o json --netns \"$NETNS\" --record disk/rec & \
                  sleep 2; head -c 300k /dev/zero > disk/full 2>/dev/null; sleep 2; rm disk/full; wait; \
                  \"$CTWATCH_BIN\" watch --from disk/rec -o json > /dev/null";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount]).arg(&disk).args(["sh", "-c", script]);
    command.current_dir(place.path()).env("NETNS", lab.router().name());
    let (printed, notes, code) = finished(&mut command)?;
    ensure!(code == Some(0), "{code:?} {notes}");
    let ticks = printed.lines().filter(|line| line.starts_with('{')).count();
    ensure!(ticks == 200, "{ticks} ticks were shown: {notes}");
    let said = notes.lines().filter(|line| line.contains("not recorded from now on")).count();
    ensure!(said == 1, "said {said} times: {notes}");
    notes.lines().find(|line| line.contains("could not be written")).context(notes.clone())?;
    Ok(())
}

/// Within the namespace that it runs in.
fn changed() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    let place = tempfile::tempdir()?;
    let folder = place.path().join("rec");
    let ctwatch = std::env::var_os("CTWATCH_BIN").context("no CTWATCH_BIN")?;
    let mut command = lab.router().command(ctwatch)?;
    command.args(["record", "-i", "200ms", "--netns", lab.router().name()]).arg(&folder);
    let mut record = Running::start(&mut command, &place.path().join("out"))?;
    recorded(&folder, "\"type\":\"facts\"", 1)?;
    lab.router().nft("table inet other { chain c { type filter hook forward priority 0; }\n }")?;
    recorded(&folder, "\"type\":\"changed\"", 1)?;
    record.signal(libc::SIGINT)?;
    let (told, errors, code) =
        finished(crate::watch::ctwatch()?.args(["watch", "--from"]).arg(&folder))?;
    ensure!(code == Some(0), "{code:?} {errors}");
    let line = told.lines().find(|line| line.contains("rules changed by"));
    let line = line.with_context(|| format!("nobody changed rules: {told}"))?;
    ensure!(line.contains("rules changed by nft (PID "), "{line}");
    ensure!(line.contains("nft table inet other"), "{line}");
    Ok(())
}
