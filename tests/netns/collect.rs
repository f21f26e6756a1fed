//! What is collected on a box in trouble is what its doctor sees, and collecting changes nothing there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    net::IpAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL,
    traffic::{Family, Flood, Flows, Protocol},
};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::{
    On, Test, test,
    watch::{ctwatch, finished},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "an_archive_tells_what_the_doctor_sees", told),
    test(On::Once, "a_masked_archive_names_nothing", masked),
    test(On::Once, "collecting_loads_no_module", nothing_loaded),
    test(On::OnceHere, "collect_waits_for_no_source_that_hangs", hanging),
    test(On::Once, "a_large_table_is_cut_and_takes_little_memory", large).anywhere(),
];

const MODULES: &str = "/proc/modules";
const UDP: Flows = Flows { sources: 10, ..Flows::of(Family::V4, Protocol::Udp) };
/// For all of it, with a second between the readings.
const TIME: Duration = Duration::from_secs(30);

/// The files of an archive, without its folder.
fn pieces(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(path)?));
    let mut pieces = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let (_, name) = name.split_once('/').context("not in a folder")?;
        let name = name.to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        pieces.insert(name, text);
    }
    Ok(pieces)
}

fn piece<'a>(pieces: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str> {
    let all = || format!("no {name} among {:?}", pieces.keys().collect::<Vec<_>>());
    pieces.get(name).map(String::as_str).with_context(all)
}

fn modules() -> Result<BTreeSet<String>> {
    // A kernel without modules has no such file.
    let text = match Path::new(MODULES).exists() {
        true => fs::read_to_string(MODULES)?,
        false => String::new(),
    };
    Ok(text.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect())
}

fn collect(path: &Path, args: &[&str]) -> Result<BTreeMap<String, String>> {
    let begun = Instant::now();
    let mut command = ctwatch()?;
    command.args(["collect", "--duration", "1s"]).args(args).arg("-o").arg(path);
    let (_, said, code) = finished(&mut command)?;
    ensure!(code == Some(0), "{code:?} {said}");
    ensure!(begun.elapsed() < TIME, "it took {:?}", begun.elapsed());
    pieces(path)
}

fn full() -> Result<Lab> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 1000))?;
    Ok(lab)
}

/// What each finding is called.
fn findings(command: &mut Command) -> Result<BTreeSet<String>> {
    let (json, said, code) = finished(command)?;
    ensure!(code == Some(0), "{code:?} {said}");
    let report: Value = serde_json::from_str(&json)?;
    let findings = report["findings"].as_array().context("no findings")?;
    Ok(findings.iter().filter_map(|finding| Some(finding["id"].as_str()?.to_owned())).collect())
}

fn told() -> Result<()> {
    let lab = full()?;
    let router = lab.router().name().to_owned();
    let place = tempfile::tempdir()?;
    let path = place.path().join("case.tar.gz");
    let args = ["--netns", &router];
    let pieces = collect(&path, &args)?;
    let readme = piece(&pieces, "README")?;
    for words in ["ctwatch doctor --from case.tar.gz", &*format!("    {router}: inode")] {
        ensure!(readme.contains(words), "no {words:?} in {readme}");
    }
    let file = |command: &str| format!("sos_commands/conntrack/ip_netns_exec_{router}_{command}");
    let listed = piece(&pieces, &file("conntrack_-L_-o_extended"))?;
    let entries: u32 =
        lab.router().run(&["cat", "/proc/sys/net/netfilter/nf_conntrack_count"])?.trim().parse()?;
    ensure!(listed.lines().count() == entries as usize, "{entries}: {}", listed.lines().count());
    let line = listed.lines().next().context("no line")?;
    for words in ["ipv4     2 udp      17 ", " src=", " sport=", " [UNREPLIED] src=", " use="] {
        ensure!(line.contains(words), "no {words:?} in {line}");
    }
    // The tool prints the same but for the time that is left, and for who has hold of an entry while it
    // is listed.
    let theirs = lab.router().run(&["conntrack", "-L", "-o", "extended"])?;
    let of = |text: &str| -> BTreeSet<String> {
        let words = |line: &str| {
            let words = line.split_whitespace().filter(|word| !word.starts_with("use="));
            let words: Vec<&str> = words.collect();
            (words.len() > 5).then(|| [&words[..4], &words[5..]].concat().join(" "))
        };
        text.lines().filter_map(words).collect()
    };
    let (ours, theirs) = (of(listed), of(&theirs));
    let missing: Vec<_> = ours.difference(&theirs).take(3).collect();
    ensure!(missing.len() < 3, "conntrack has no {missing:?} among {:?}", theirs.first());
    for again in ["", ".1"] {
        let counters = piece(&pieces, &file(&format!("conntrack_-S{again}")))?;
        ensure!(counters.lines().all(|line| line.starts_with("cpu=")), "{counters}");
        // Where the kernel finds an entry to evict, the packet is let in.
        let drops = |line: &str| -> u64 {
            let of = |name: &str| {
                let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
                word.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
            };
            of("drop=") + of("early_drop=")
        };
        let dropped: u64 = counters.lines().map(drops).sum();
        ensure!(dropped >= 1000 - u64::from(STAYS_FULL) - 100, "{dropped} in {counters}");
    }
    let sysctls =
        format!("sos_commands/networking/namespaces/{router}/ip_netns_exec_{router}_sysctl_-a");
    let wanted = format!("net.netfilter.nf_conntrack_max = {STAYS_FULL}\n");
    ensure!(piece(&pieces, &sysctls)?.contains(&wanted), "{}", pieces[&sysctls]);
    if Path::new(MODULES).exists() {
        ensure!(piece(&pieces, "proc/modules")?.contains("nf_conntrack"));
    }
    let facts: Value = serde_json::from_str(piece(&pieces, "ctwatch/facts.json")?)?;
    ensure!(facts["namespaces"][0]["name"] == router.as_str(), "{}", facts["namespaces"]);

    let live = findings(ctwatch()?.args(["doctor", "--output", "json"]).args(args))?;
    let read = findings(ctwatch()?.args(["doctor", "--output", "json", "--from"]).arg(&path))?;
    let missing: Vec<_> = live.difference(&read).collect();
    ensure!(live.len() > 1 && missing.is_empty(), "live {live:?}, from the archive {read:?}");
    let (census, said, code) = finished(ctwatch()?.arg("census").arg("--from").arg(&path))?;
    ensure!(code == Some(0) && census.contains(&format!("of {STAYS_FULL}")), "{census}{said}");
    Ok(())
}

fn masked() -> Result<()> {
    let lab = full()?;
    let router = lab.router().name().to_owned();
    let place = tempfile::tempdir()?;
    let clear = collect(&place.path().join("clear.tar.gz"), &["--netns", &router])?;
    let masked = collect(&place.path().join("m.tar.gz"), &["--mask", "--netns", &router])?;
    let file = format!("sos_commands/conntrack/ip_netns_exec_{router}_conntrack_-L_-o_extended");
    let addresses: BTreeSet<IpAddr> = piece(&clear, &file)?
        .split_whitespace()
        .filter_map(|word| word.split_once('=')?.1.parse().ok())
        .collect();
    ensure!(addresses.len() > 5, "{addresses:?}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
    for (name, text) in &masked {
        ensure!(!name.contains(&router), "{name}");
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '-');
        for word in text.split(|c: char| !is_part(c)) {
            let known = word.parse().is_ok_and(|address| addresses.contains(&address));
            ensure!(!known, "{word} is in {name}");
            ensure!(word != router && (host.len() < 6 || word != host), "{word} is in {name}");
        }
    }
    let lines = |all: &BTreeMap<String, String>| {
        let listed = all.iter().find(|(name, _)| name.ends_with("conntrack_-L_-o_extended"));
        listed.map_or(0, |(_, text)| text.lines().count())
    };
    ensure!(lines(&masked) == lines(&clear), "{} of {}", lines(&masked), lines(&clear));
    let path = place.path().join("m.tar.gz");
    let read = findings(ctwatch()?.args(["doctor", "--output", "json", "--from"]).arg(&path))?;
    ensure!(read.iter().any(|id| id.contains("full")), "{read:?}");
    Ok(())
}

/// Of all namespaces, with all that there are to be asked.
fn nothing_loaded() -> Result<()> {
    let lab = full()?;
    let place = tempfile::tempdir()?;
    let before = modules()?;
    let pieces = collect(&place.path().join("all.tar.gz"), &[])?;
    let after = modules()?;
    let loaded: Vec<_> = after.difference(&before).collect();
    ensure!(loaded.is_empty(), "{loaded:?} were loaded");
    let readme = piece(&pieces, "README")?;
    ensure!(readme.contains("No module was loaded while it was collected"), "{readme}");
    ensure!(readme.contains(lab.router().name()), "{readme}");
    Ok(())
}

/// More entries than are written down.
fn large() -> Result<()> {
    const FLOWS: u64 = 230_000;
    const MOST: usize = 200_000;
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(300_000)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(Flows { sources: 200, ..UDP }, FLOWS))?;
    let router = lab.router().name().to_owned();
    let place = tempfile::tempdir()?;
    let path = place.path().join("large.tar.gz");
    // Instructions that are emulated may be so slow that the time is over before.
    let is_slow = std::env::var_os("CTWATCH_EMULATED").is_some();
    let time = if is_slow { 10 * TIME } else { TIME };
    let begun = Instant::now();
    let mut command = ctwatch()?;
    command.args(["collect", "--duration", "1s", "--netns", &router, "-o"]).arg(&path);
    let mut child = command.stderr(std::process::Stdio::null()).spawn()?;
    let mut memory: u64 = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        ensure!(begun.elapsed() < time, "it takes {:?}", begun.elapsed());
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        memory = memory.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    };
    ensure!(status.success(), "{status}");
    let pieces = pieces(&path)?;
    let file = format!("sos_commands/conntrack/ip_netns_exec_{router}_conntrack_-L_-o_extended");
    let listed = piece(&pieces, &file)?;
    let entries = listed.lines().filter(|line| line.starts_with("ipv4 ")).count();
    let last = listed.lines().last().unwrap_or_default();
    let is_late = is_slow && last == "# not all of the table: there was no more time";
    let why = if is_late { "there was no more time" } else { "200000 lines" };
    ensure!(last.starts_with(&format!("# not all of the table: {why}")), "{last}");
    ensure!(entries == MOST || is_late && (1..MOST).contains(&entries), "{entries} are listed");
    ensure!(listed.lines().count() == entries + 1, "{entries} of {} lines", listed.lines().count());
    let readme = piece(&pieces, "README")?;
    for words in [format!("more entries of {router}: {why}"), format!("{entries} listed")] {
        ensure!(readme.contains(&words), "no {words:?} in {readme}");
    }
    // All else of the namespace is there, however long its list took.
    for again in ["", ".1"] {
        let file = format!("sos_commands/conntrack/ip_netns_exec_{router}_conntrack_-S{again}");
        ensure!(piece(&pieces, &file)?.starts_with("cpu="), "{}", pieces[&file]);
    }
    println!("{entries} of {FLOWS} entries are listed: {why}");
    // Packed, they are a few MB; 36 MB they would be as they are.
    ensure!((1..40 << 10).contains(&memory), "{memory} kB");
    Ok(())
}

/// In front of a file, a file system whose server never answers: whoever opens the file waits for ever.
fn never_answers(file: &str) -> Result<File> {
    use std::{ffi::CString, os::fd::AsRawFd};
    let server = File::options().read(true).write(true).open("/dev/fuse").context("no FUSE")?;
    let kind = fs::metadata(file)?.is_dir();
    let mode = if kind { "40555" } else { "100444" };
    let options = format!("fd={},rootmode={mode},user_id=0,group_id=0", server.as_raw_fd());
    let [source, target, name, options] =
        [c"ctwatch".to_owned(), CString::new(file)?, c"fuse".to_owned(), CString::new(options)?];
    // SAFETY: strings that end, and live until it returns.
    let mounted = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            name.as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    };
    let why = || format!("cannot mount over {file}: {}", std::io::Error::last_os_error());
    ensure!(mounted == 0, why());
    Ok(server)
}

/// Collects while these do not answer: what it said, and how long it took. They are seen by it alone.
fn collected_without(answers: &[&str], path: &Path, router: &str) -> Result<(String, Duration)> {
    let in_a_view_of_its_own = || -> Result<(String, Duration)> {
        use rustix::{
            mount::{MountPropagationFlags, mount_change},
            thread::{UnshareFlags, unshare_unsafe},
        };
        // SAFETY: of this thread alone, which shares no open file that it closes.
        unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS)? };
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let servers = answers.iter().map(|file| never_answers(file));
        let servers: Vec<File> = servers.collect::<Result<_>>()?;
        let begun = Instant::now();
        let mut command = ctwatch()?;
        command.args(["collect", "--duration", "1s", "--netns", router, "-o"]).arg(path);
        let (_, said, code) = finished(&mut command)?;
        let took = begun.elapsed();
        drop(servers);
        ensure!(code == Some(0), "{code:?} {said}");
        Ok((said, took))
    };
    std::thread::scope(|scope| {
        let collecting = scope.spawn(in_a_view_of_its_own).join();
        collecting.map_err(|_| anyhow::anyhow!("the thread panicked"))
    })?
}

fn hanging() -> Result<()> {
    let lab = full()?;
    let router = lab.router().name().to_owned();
    let place = tempfile::tempdir()?;
    let begin = |name: &str| place.path().join(name);
    let all = ["/proc/meminfo", "/proc/slabinfo", "/etc/modprobe.d"];
    let answers: Vec<&str> = all.into_iter().filter(|file| Path::new(file).exists()).collect();
    let path = begin("hung.tar.gz");
    let (said, took) = collected_without(&answers, &path, &router)?;
    ensure!(took < TIME, "it took {took:?}: {said}");
    let pieces = pieces(&path)?;
    let readme = piece(&pieces, "README")?;
    for (what, file) in [("proc/meminfo", "/proc/meminfo"), ("proc/slabinfo", "/proc/slabinfo")] {
        if answers.contains(&file) {
            ensure!(said.contains(&format!("not in it: {what}: ")), "{what}: {said}");
            ensure!(readme.contains(&format!("{what}: it could not be read in time")), "{readme}");
        }
    }
    if answers.contains(&"/etc/modprobe.d") {
        let why = "files of modprobe.d: no answer within 5 s";
        ensure!(said.contains(why) && readme.contains(why), "{said}");
    }
    // All else is there.
    let file = format!("sos_commands/conntrack/ip_netns_exec_{router}_conntrack_-L_-o_extended");
    ensure!(piece(&pieces, &file)?.lines().count() == STAYS_FULL as usize, "{said}");
    let doctor =
        |path: &Path| findings(ctwatch()?.args(["doctor", "--output", "json", "--from"]).arg(path));
    let found = doctor(&path)?;
    ensure!(found.contains("table_full"), "{found:?}");
    Ok(())
}
