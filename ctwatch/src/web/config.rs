//! The file of `--web.config.file`, as all exporters have it: certificates, who may come in, and their passwords.
//! <https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>
//!
//! Of YAML it takes what that file is made of: sections, and below each its keys, one a line. A key that is not
//! known here is refused by its name: what is not done must not look as if it were.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::host::machine::files;

/// What the process that listens gets of it: the files' text, as it opens none.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Secured {
    pub(super) tls: Option<Certificates>,
    /// A name, and what bcrypt made of the password.
    pub(super) users: BTreeMap<String, String>,
}

/// As PEM.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Certificates {
    pub(super) chain: String,
    pub(super) key: String,
    /// Who may sign what a client shows, and whether it must show something.
    pub(super) client_ca: Option<(String, bool)>,
    pub(super) only_13: bool,
}

/// As it is handed over.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let place = || format!("cannot use {}", path.display());
    let text = files::text(path).with_context(place)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let file = |name: &str| -> Result<String> {
        let path = folder.join(PathBuf::from(name));
        files::text(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let secured = secured(&text, file).with_context(place)?;
    Ok(serde_json::to_vec(&secured)?)
}

fn secured(text: &str, file: impl Fn(&str) -> Result<String>) -> Result<Secured> {
    let mut sections = sections(text)?;
    let users = sections.remove("basic_auth_users").unwrap_or_default();
    for (user, hash) in &users {
        let is_hash =
            hash.len() == 60 && ["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind));
        ensure!(
            is_hash,
            "basic_auth_users: the password of {user:?} is not one that bcrypt made (htpasswd -nBC 10 NAME)"
        );
    }
    let http = sections.remove("http_server_config").unwrap_or_default();
    for (key, value) in http {
        ensure!(
            key == "http2" && value == "false",
            "http_server_config: {key}: {value} is not known here"
        );
    }
    let tls =
        sections.remove("tls_server_config").map(|keys| certificates(keys, file)).transpose()?;
    if let Some(other) = sections.keys().next() {
        bail!("{other} is not known here");
    }
    ensure!(tls.is_some() || !users.is_empty(), "it asks for nothing");
    Ok(Secured { tls, users })
}

fn certificates(
    mut keys: BTreeMap<String, String>,
    file: impl Fn(&str) -> Result<String>,
) -> Result<Certificates> {
    let mut named = |name: &str| keys.remove(name);
    let chain = named("cert_file").context("tls_server_config: no cert_file")?;
    let key = named("key_file").context("tls_server_config: no key_file")?;
    let ca = named("client_ca_file");
    let wanted = named("client_auth_type");
    let must = match wanted.as_deref() {
        None | Some("NoClientCert") => None,
        Some("VerifyClientCertIfGiven") => Some(false),
        Some("RequireAndVerifyClientCert") => Some(true),
        Some(other) => bail!(
            "tls_server_config: client_auth_type: {other} is not known here: it verifies nothing"
        ),
    };
    let client_ca = match (ca, must) {
        (None, None) => None,
        (Some(ca), Some(must)) => Some((file(&ca)?, must)),
        (Some(_), None) => {
            bail!("tls_server_config: client_ca_file without a client_auth_type that verifies")
        }
        (None, Some(_)) => bail!("tls_server_config: client_auth_type without client_ca_file"),
    };
    let version = named("min_version");
    let only_13 = match version.as_deref() {
        None | Some("TLS12") => false,
        Some("TLS13") => true,
        Some(other) => bail!("tls_server_config: min_version: {other} is neither TLS12 nor TLS13"),
    };
    if let Some(other) = keys.keys().next() {
        bail!("tls_server_config: {other} is not known here");
    }
    Ok(Certificates { chain: file(&chain)?, key: file(&key)?, client_ca, only_13 })
}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

fn sections(text: &str) -> Result<Sections> {
    let mut sections = Sections::new();
    let mut section = None;
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end())) {
        let words = line.trim_start();
        if words.is_empty() || words.starts_with('#') || line == "---" {
            continue;
        }
        let what = || format!("line {number} is no NAME: VALUE");
        let (key, value) = pair(words).with_context(what)?;
        match line.starts_with(' ') {
            false => {
                ensure!(value.is_empty() || value == "{}", "line {number}: {key} is a section");
                ensure!(
                    sections.insert(key.clone(), BTreeMap::new()).is_none(),
                    "{key} is there twice"
                );
                section = Some(key);
            }
            true => {
                let name =
                    section.as_ref().with_context(|| format!("line {number} is in no section"))?;
                let keys = sections.entry(name.clone()).or_default();
                ensure!(keys.insert(key.clone(), value).is_none(), "{name}: {key} is there twice");
            }
        }
    }
    Ok(sections)
}

/// `key: value`, `"key": 'value' # why`
fn pair(words: &str) -> Option<(String, String)> {
    let (key, rest) = scalar(words, true)?;
    let rest = rest.strip_prefix(':')?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start();
    let (value, rest) = scalar(rest, false)?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some((key, value))
}

/// What it is, and what comes after it.
fn scalar(text: &str, is_key: bool) -> Option<(String, &str)> {
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let (inside, after) = rest.split_once(quote)?;
            // What is escaped in it would be something else.
            return (!inside.contains('\\') && !after.starts_with(quote))
                .then(|| (inside.to_owned(), after));
        }
    }
    // What begins a list, a block or a reference is no word.
    if text.starts_with(['[', '|', '>', '&', '*', '-', '!', '%', '@', '\t']) {
        return None;
    }
    let end = match is_key {
        true => text.find(':')?,
        false => text.find(" #").unwrap_or(text.len()),
    };
    let (word, after) = text.split_at(end);
    (!is_key || !word.is_empty()).then(|| (word.trim_end().to_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2b$04$T9lYLKXG7Cd/1kwqm5KfUOXXz3PZUWpEpLUuvc.vK3hZ0ZP0M1A2C";

    fn of(text: &str) -> Result<Secured, String> {
        secured(text, |name| Ok(format!("<{name}>"))).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_file_is_read_as_exporters_have_it() {
        let text = format!(
            "# who may come in\ntls_server_config:\n  cert_file: server.pem\n  key_file: 'server.key' # secret\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: \"ca.pem\"\n  min_version: TLS13\n\n\
             http_server_config:\n  http2: false\nbasic_auth_users:\n  prometheus: {HASH}\n  \"a b\": {HASH}\n"
        );
        let secured = of(&text).unwrap();
        let tls = secured.tls.unwrap();
        assert_eq!((tls.chain.as_str(), tls.key.as_str()), ("<server.pem>", "<server.key>"));
        assert_eq!((tls.client_ca, tls.only_13), (Some(("<ca.pem>".to_owned(), true)), true));
        let users: Vec<_> =
            secured.users.iter().map(|(name, hash)| (name.as_str(), hash.as_str())).collect();
        assert_eq!(users, [("a b", HASH), ("prometheus", HASH)]);
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        let tls = "tls_server_config:\n  cert_file: a\n  key_file: b\n";
        for (text, why) in [
            ("", "it asks for nothing"),
            ("tls_server_config:\n  cert_file: a\n", "no key_file"),
            (&format!("{tls}  cipher_suites: x\n"), "cipher_suites is not known here"),
            (&format!("{tls}  cert_file: c\n"), "cert_file is there twice"),
            (
                &format!("{tls}  client_auth_type: RequestClientCert\n"),
                "RequestClientCert is not known here",
            ),
            (
                &format!("{tls}  client_auth_type: RequireAndVerifyClientCert\n"),
                "without client_ca_file",
            ),
            (&format!("{tls}  client_ca_file: c\n"), "without a client_auth_type"),
            (&format!("{tls}  min_version: TLS10\n"), "TLS10 is neither"),
            (&format!("{tls}rate_limit:\n"), "rate_limit is not known here"),
            ("basic_auth_users:\n  a: secret\n", "not one that bcrypt made"),
            ("http_server_config:\n  http2: true\n", "http2: true is not known here"),
            ("  a: b\n", "in no section"),
            ("tls_server_config:\n  cert_file: [a, b]\n", "line 2 is no NAME: VALUE"),
            ("tls_server_config:\n  cert_file: \"a\\n\"\n", "line 2 is no NAME: VALUE"),
            ("tls_server_config: yes\n", "is a section"),
            ("nonsense\n", "line 1 is no NAME: VALUE"),
        ] {
            let refused = of(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
