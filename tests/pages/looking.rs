//! One look at a page, and what is wrong with it.

use std::{fmt, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::browser::Browser;

const LAYOUT: &str = include_str!("layout.js");
/// All that a page has to say, in its order.
const TEXTS: &str =
    "[...document.querySelectorAll('h1,h2,h3,h4,h5,p,li,td,th,dt,dd,pre,summary,text')]
    .filter(e => !e.closest('.readout') && e.checkVisibility({ visibilityProperty: true }))
    .map(e => e.textContent.trim())";

/// How it is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) width: u32,
    pub(crate) dark: bool,
    /// The page's own script is run.
    pub(crate) scripts: bool,
    /// Its policy binds it.
    pub(crate) policy: bool,
}

impl How {
    pub(crate) const PLAIN: Self = Self { width: 900, dark: false, scripts: true, policy: true };
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", if self.dark { "dark" } else { "light" }, self.width)
    }
}

/// What came of it.
pub(crate) struct Look {
    pub(crate) faults: Vec<String>,
    pub(crate) texts: Vec<String>,
    pub(crate) picture: Vec<u8>,
}

/// Opens the page, and leaves its window open.
pub(crate) fn open(browser: &mut Browser, page: &Path, how: How) -> Result<String> {
    let window = browser.window()?;
    let on = Some(window.as_str());
    for room in ["Page", "Network", "Runtime", "Log", "Audits"] {
        browser.call(on, &format!("{room}.enable"), json!({}))?;
    }
    browser.call(on, "Page.setLifecycleEventsEnabled", json!({"enabled": true}))?;
    let size = json!({"width": how.width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
    browser.call(on, "Emulation.setDeviceMetricsOverride", size)?;
    let scheme = if how.dark { "dark" } else { "light" };
    let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
    browser.call(on, "Emulation.setEmulatedMedia", features)?;
    browser.call(on, "Emulation.setScriptExecutionDisabled", json!({"value": !how.scripts}))?;
    browser.call(on, "Page.setBypassCSP", json!({"enabled": !how.policy}))?;
    browser.take_events(&window);
    let url = address(page);
    browser.call(on, "Page.navigate", json!({"url": url}))?;
    // What it wanted to load is there by then, or was refused.
    browser.wait(&window, |event| {
        event["method"] == "Page.lifecycleEvent" && event["params"]["name"] == "networkIdle"
    })?;
    Ok(window)
}

/// All faults of a page.
pub(crate) fn look(browser: &mut Browser, page: &Path, how: How) -> Result<Look> {
    let window = open(browser, page, how)?;
    let faults = browser.evaluate(&window, LAYOUT).context("the layout cannot be looked at")?;
    let mut faults = strings(&faults);
    let texts = strings(&browser.evaluate(&window, TEXTS)?);
    let picture = browser.picture(&window)?;
    let url = address(page);
    let events = browser.take_events(&window);
    faults.extend(events.iter().filter_map(|event| fault(event, &url)));
    browser.call(Some(&window), "Page.close", json!({}))?;
    Ok(Look { faults, texts, picture })
}

fn address(page: &Path) -> String {
    format!("file://{}", page.display())
}

fn strings(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What a page that is one file, and says nothing to anybody, does not do.
pub(crate) fn fault(event: &Value, own: &str) -> Option<String> {
    let params = &event["params"];
    let method = event["method"].as_str()?;
    let what = match method {
        "Network.requestWillBeSent" if params["request"]["url"] == own => return None,
        "Network.requestWillBeSent" => &params["request"]["url"],
        "Network.webSocketCreated" | "Network.webTransportCreated" => &params["url"],
        "Page.frameNavigated" if params["frame"]["url"] == own => return None,
        "Page.frameNavigated" => &params["frame"]["url"],
        "Page.frameAttached" | "Page.windowOpen" | "Page.downloadWillBegin" => params,
        "Page.javascriptDialogOpening" => &params["message"],
        "Runtime.consoleAPICalled" => &params["args"],
        "Runtime.exceptionThrown" => &params["exceptionDetails"],
        "Log.entryAdded" => &params["entry"]["text"],
        "Audits.issueAdded" => &params["issue"]["code"],
        _ => return None,
    };
    Some(format!("{method}: {what}"))
}
