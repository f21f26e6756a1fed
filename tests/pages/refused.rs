//! Pages that must be found fault with: a look that finds none in them would find none in a report.

use std::fs;

use anyhow::{Result, ensure};

use crate::{How, browser, look, page};

/// What is in the body, and a word of the fault that it has.
const BODIES: [(&str, &str); 16] = [
    ("<img src='http://192.0.2.1/x.png'>", "requestWillBeSent: \"http://192.0.2.1"),
    ("<img src='missing.png'>", "missing.png"),
    ("<link rel=stylesheet href='//192.0.2.1/x.css'>", "192.0.2.1"),
    ("<style>p { background: url(http://192.0.2.1/x) }</style>", "192.0.2.1"),
    ("<style>@import 'http://192.0.2.1/x.css';</style>", "192.0.2.1"),
    ("<iframe srcdoc='<p>in'></iframe>", "frame"),
    ("<meta http-equiv=refresh content='0;url=about:blank'>", "frameNavigated"),
    ("<script>new WebSocket('ws://192.0.2.1/')</script>", "192.0.2.1"),
    ("<script>fetch('http://192.0.2.1/').catch(() => 0)</script>", "192.0.2.1"),
    ("<script>console.error('so')</script>", "consoleAPICalled"),
    ("<script>console.log('so')</script>", "consoleAPICalled"),
    ("<script>nothing.at.all</script>", "exceptionThrown"),
    ("<svg onload='alert(1)'></svg>", "javascriptDialogOpening"),
    ("<div style='width:400px'>wide</div>", "px wide in a window of 360"),
    ("<div style='width:40px;overflow:hidden'>unbreakablewords</div>", "cut off"),
    ("<div style='width:40px'>unbreakablewords</div>", "beyond the sides"),
];

/// The same of a drawing.
const LABELS: &str =
    "<svg width=300 height=40><text x=5 y=20>one label</text><text x=9 y=22>another</text></svg>";

pub(crate) fn pages() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("page.html");
    let mut browser = browser()?;
    let narrow = How { width: 360, ..How::PLAIN };
    let mut faults = |page: &str| -> Result<String> {
        fs::write(&file, page)?;
        Ok(look(&mut browser, &file, narrow)?.faults.join("\n"))
    };
    let bare = |body: &str| {
        format!(
            "<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>x</title>\
             <meta name=viewport content='width=device-width'></head><body><p>text</p>{body}</body></html>"
        )
    };
    let none = faults(&bare(""))?;
    ensure!(none.is_empty(), "a page without fault has one: {none}");
    for (body, wanted) in BODIES.into_iter().chain([(LABELS, "lie on each other")]) {
        let found = faults(&bare(body))?;
        ensure!(found.contains(wanted), "{body}: {wanted:?} is not in {found:?}");
    }
    // A report with one thing wrong.
    let (_folder, good) = page()?;
    let good = fs::read_to_string(good)?;
    let none = faults(&good)?;
    ensure!(none.is_empty(), "{none}");
    let script = "script-src 'sha256-";
    let at = good.find(script).unwrap() + script.len();
    let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
    let hash = format!("{}{other}{}", &good[..at], &good[at + 1..]);
    let added = |what: &str| good.replace("</main>", &format!("{what}</main>"));
    for (page, wanted) in [
        (hash, "Content Security Policy"),
        (good.replace("\"use strict\"", "\"use  strict\""), "Content Security Policy"),
        (added("<img src=\"http://192.0.2.1/x\">"), "Content Security Policy"),
        (added("<svg onload=\"alert(1)\"></svg>"), "Content Security Policy"),
        (added(&format!("<p>{}</p>", "x".repeat(300))), "px wide"),
    ] {
        ensure!(page != good, "nothing was changed");
        let found = faults(&page)?;
        ensure!(found.contains(wanted), "{wanted:?} is not in {found:?}");
    }
    Ok(())
}
