//! The pages that `ctwatch report` writes, looked at by a real browser: they load nothing, complain of
//! nothing, and fit.
//!
//! `CTWATCH_CHROMIUM` names the browser; without it every test here is counted as skipped. Pictures of
//! all that is looked at are left in target/pages.

#![expect(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a test may, and its numbers are small"
)]

mod browser;
mod hostile;
mod looking;
mod refused;
#[path = "../values/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod values;

use std::{
    env::var_os,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use browser::Browser;
use libtest_mimic::{Arguments, Trial};
use looking::{How, Look, look};
use serde_json::json;

const BROWSER: &str = "CTWATCH_CHROMIUM";
/// A phone, half a screen, a whole one.
const WIDTHS: [u32; 3] = [360, 900, 1600];

type Test = (&'static str, fn() -> Result<()>);

const TESTS: [Test; 5] = [
    ("a_report_fits_each_screen_by_day_and_night", report_fits),
    ("a_report_reads_the_same_without_its_script", without_script),
    ("a_report_tells_what_is_below_the_pointer", pointer),
    ("hostile_names_are_text_to_a_browser", hostile_names),
    ("pages_that_do_not_hold_are_refused", refused::pages),
];

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // A browser is several processes by itself.
    args.test_threads = Some(1);
    let skipped = var_os(BROWSER).is_none();
    if skipped {
        eprintln!("the tests of pages need a browser in {BROWSER}: skipped");
    }
    let trial = |(name, run): Test| {
        let run = move || run().map_err(|error| format!("{error:#}").into());
        Trial::test(name, run).with_ignored_flag(skipped)
    };
    libtest_mimic::run(&args, TESTS.map(trial).into()).exit_code()
}

fn browser() -> Result<Browser> {
    Browser::start(Path::new(&var_os(BROWSER).context("no browser")?))
}

/// Of the workspace.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The page of a recording.
fn report(recording: &Path, page: &Path) -> Result<()> {
    let built = option_env!("CARGO_BIN_EXE_ctwatch").unwrap_or("ctwatch");
    let mut command = Command::new(var_os("CTWATCH_BIN").unwrap_or_else(|| built.into()));
    command.arg("report").arg("--from").arg(recording).arg("--output").arg(page).env("TZ", "UTC");
    let output = command.output().context("cannot start ctwatch")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ctwatch report failed: {said}");
    Ok(())
}

/// A page of a recording that is kept, in a folder of its own.
fn page() -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let page = folder.path().join("report.html");
    report(&root().join("tests/fixtures/recordings/1"), &page)?;
    Ok((folder, page))
}

/// Without any fault, or all of them.
fn good(browser: &mut Browser, page: &Path, how: How) -> Result<Look> {
    let look = look(browser, page, how).with_context(|| format!("{how}"))?;
    ensure!(look.faults.is_empty(), "{how}:\n{}", look.faults.join("\n"));
    ensure!(look.texts.len() > 30, "{how}: only {} texts", look.texts.len());
    Ok(look)
}

/// At each width, by day and by night, with pictures.
fn each_screen(browser: &mut Browser, page: &Path, name: &str) -> Result<()> {
    let pictures = root().join("target/pages");
    fs::create_dir_all(&pictures)?;
    let mut complaints = Vec::new();
    for width in WIDTHS {
        let mut taken = Vec::new();
        for dark in [false, true] {
            let how = How { width, dark, ..How::PLAIN };
            let look = look(browser, page, how)?;
            // A PNG says how wide it is in its bytes 16 to 19.
            let wide = look.picture.get(16..20).and_then(|wide| wide.try_into().ok());
            ensure!(wide.map(u32::from_be_bytes) == Some(width), "{how}: not that wide");
            fs::write(pictures.join(format!("{name}-{how}.png")), &look.picture)?;
            complaints.extend(look.faults.iter().map(|fault| format!("{how}: {fault}")));
            taken.push(look.picture);
        }
        ensure!(taken[0] != taken[1], "by night it looks as by day");
    }
    if !complaints.is_empty() {
        bail!("{name}: pictures are in {}\n{}", pictures.display(), complaints.join("\n"));
    }
    Ok(())
}

fn report_fits() -> Result<()> {
    let (_folder, page) = page()?;
    each_screen(&mut browser()?, &page, "report")
}

fn without_script() -> Result<()> {
    let (_folder, page) = page()?;
    let mut browser = browser()?;
    let with = good(&mut browser, &page, How::PLAIN)?;
    let without = good(&mut browser, &page, How { scripts: false, ..How::PLAIN })?;
    let more: Vec<_> = with.texts.iter().filter(|text| !without.texts.contains(text)).collect();
    ensure!(more.is_empty(), "only to be read with its script: {more:?}");
    let less: Vec<_> = without.texts.iter().filter(|text| !with.texts.contains(text)).collect();
    ensure!(less.is_empty(), "only to be read without its script: {less:?}");
    Ok(())
}

/// The script is run under the page's own policy.
fn pointer() -> Result<()> {
    const MIDDLE: &str = "(() => {
        const box = document.querySelector('[data-points] svg.area').getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2];
    })()";
    const READ: &str = "document.querySelector('.readout')?.textContent ?? ''";
    let (_folder, page) = page()?;
    let mut browser = browser()?;
    let window = looking::open(&mut browser, &page, How::PLAIN)?;
    let before = browser.evaluate(&window, READ)?;
    let scroll = "document.querySelector('[data-points]').scrollIntoView({ block: 'center' })";
    browser.evaluate(&window, &format!("({scroll}, 0)"))?;
    let middle = browser.evaluate(&window, MIDDLE)?;
    let moved = json!({"type": "mouseMoved", "x": middle[0], "y": middle[1]});
    browser.call(Some(&window), "Input.dispatchMouseEvent", moved)?;
    let after = browser.evaluate(&window, READ)?;
    ensure!(
        before != after && after.as_str().is_some_and(|text| text.contains("entries")),
        "{after}"
    );
    Ok(())
}

fn hostile_names() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (recording, page) = (folder.path().join("recording"), folder.path().join("hostile.html"));
    hostile::record(&recording);
    report(&recording, &page)?;
    let mut browser = browser()?;
    each_screen(&mut browser, &page, "hostile")?;
    // They are text by themselves, and not only because the policy forbids more.
    for policy in [true, false] {
        let look = good(&mut browser, &page, How { policy, ..How::PLAIN })?;
        for name in hostile::SHOWN {
            let shown = look.texts.iter().any(|text| text.contains(name));
            ensure!(shown, "{name} is not to be read: the page does not show what it is to bear");
        }
    }
    Ok(())
}
