//! `cargo xtask release`: makes of the change that is checked out a version, up to the tag, which a person makes.

use std::{fmt, fs, process::Command, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use ctwatch_provision::process::{cargo, output, root, run as run_process};

use crate::matrix::Ledger;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The version: three numbers
    version: Version,
    /// Check and print all of it, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// As Semantic Versioning has them, without what may follow the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version([u32; 3]);

impl FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |word: &str| word.parse().ok().filter(|n: &u32| n.to_string() == word);
        let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.map(Self).with_context(|| format!("{text} is no version: 1.2.3"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Where the version of Cargo.toml is repeated, because those who read it there cannot ask Cargo: a file, and what
/// stands around the version.
const REPEATED: [(&str, &str, &str); 6] = [
    ("README.md", "\nctwatch ", " on Linux "),
    ("dist/helm/ctwatch/Chart.yaml", "\nversion: ", "\n"),
    ("dist/helm/ctwatch/Chart.yaml", "\nappVersion: ", "\n"),
    ("dist/kubernetes/base/kustomization.yaml", "ctwatch=registry.example/ctwatch:", "\n"),
    ("dist/kubernetes/base/kustomization.yaml", "newTag: ", "\n"),
    ("docs/deploy.md", "registry.example/ctwatch:", "\n"),
];

/// What is measured, and of which files it tells.
const CELLS: (&str, &[&str]) =
    ("tests/matrix.tsv", &["ctwatch/src", "ctwatch-abi/src", "ctwatch-ebpf/src"]);
const COSTS: (&str, &[&str]) =
    ("docs/costs.md", &["ctwatch/src/probe", "ctwatch-abi/src", "ctwatch-ebpf/src"]);

pub(crate) fn run(args: &Args) -> Result<()> {
    let version = args.version;
    let today = output(Command::new("date").args(["--utc", "+%F"]))?;
    let files = files(version, today.trim())?;
    let wrong = wrong(version)?;
    for what in &wrong {
        eprintln!("xtask: {what}");
    }
    println!("{}", section(&files, version)?);
    for (path, _) in &files {
        println!("{} {path}", if args.dry_run { "would write" } else { "writes" });
    }
    if !args.dry_run {
        ensure!(wrong.is_empty(), "nothing was written");
        for (path, text) in &files {
            fs::write(root().join(path), text).with_context(|| format!("cannot write {path}"))?;
        }
    }
    println!("\nthen, after `cargo xtask test --lint`:\n{}", commands(version, &files));
    ensure!(wrong.is_empty(), "this is not ready to be version {version}");
    Ok(())
}

/// All that must be so, and is not.
fn wrong(version: Version) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let changed = git(&["status", "--porcelain"])?;
    if !changed.is_empty() {
        wrong.push(format!("the tree is not clean:\n{changed}"));
    }
    if !git(&["tag", "--list", &format!("v{version}")])?.is_empty() {
        wrong.push(format!("the tag v{version} exists"));
    }
    let costs = read(COSTS.0)?;
    let commit = made_of(&costs).with_context(|| format!("{} names no commit", COSTS.0))?;
    wrong.extend(since(commit, COSTS.1).map(|why| format!("{} is {why}", COSTS.0)));
    let ledger = Ledger::read()?;
    for (commit, cells) in ledger.commits() {
        let commit = commit.unwrap_or("an unknown commit");
        let clean = commit.strip_prefix("commit ");
        let why = match clean.filter(|name| name.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            Some(clean) => since(clean, CELLS.1),
            None => Some(format!("of {commit}")),
        };
        wrong.extend(why.map(|why| format!("{}: {cells} cells are {why}", CELLS.0)));
    }
    let failed = ledger.failed().map(|cell| format!("{}: {cell} did not hold", CELLS.0));
    wrong.extend(failed);
    // Each command line, option, field and link of the docs is held against the program there.
    let mut docs = cargo();
    docs.args(["test", "--quiet", "--locked", "--package", "ctwatch", "--test", "cli"]);
    if let Err(error) = run_process(&mut docs) {
        wrong.push(format!("the docs are not true: {error:#}"));
    }
    Ok(wrong)
}

fn git(args: &[&str]) -> Result<String> {
    let said = output(Command::new("git").current_dir(root()).args(args))?;
    Ok(said.trim_end().to_owned())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// What is wrong with a measurement of this commit, if something is.
fn since(commit: &str, tells_of: &[&str]) -> Option<String> {
    let range = format!("{commit}..HEAD");
    let mut args = vec!["log", "--oneline", &range, "--"];
    args.extend(tells_of);
    match git(&args) {
        Ok(log) if log.is_empty() => None,
        Ok(log) => Some(format!("of {commit}, {} changes ago", log.lines().count())),
        Err(error) => Some(format!("of {commit}, which is not here: {error:#}")),
    }
}

/// `… of commit 81b598a856da …`
fn made_of(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once(" of commit ")?;
    let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    rest.get(..end).filter(|commit| commit.len() >= 7)
}

/// A file of this repository, and its text.
type File = (&'static str, String);

/// Each file that a version changes, as it will be; the changelog first.
fn files(version: Version, date: &str) -> Result<Vec<File>> {
    let mut files = vec![("CHANGELOG.md", cut(&read("CHANGELOG.md")?, version, date)?)];
    files.extend(raised(version)?);
    Ok(files)
}

/// Where the version stands.
fn raised(version: Version) -> Result<Vec<File>> {
    let now: Version = env!("CARGO_PKG_VERSION").parse()?;
    ensure!(version >= now, "{version} is older than {now}, which Cargo.toml states");
    let mut files: Vec<File> = Vec::new();
    if version == now {
        // The first one: it stands there already, and nothing came out with it.
        return Ok(files);
    }
    let (old, new) = (now.to_string(), version.to_string());
    let manifest = replaced(&read("Cargo.toml")?, "\nversion = \"", &old, &new, "\"\n");
    files.push(("Cargo.toml", manifest.context("Cargo.toml states no version")?));
    files.push(("Cargo.lock", locked(&read("Cargo.lock")?, &old, &new)));
    for (path, before, after) in REPEATED {
        let known = files.iter().position(|(known, _)| *known == path);
        let text = match known {
            Some(at) => files.swap_remove(at).1,
            None => read(path)?,
        };
        let text = replaced(&text, before, &old, &new, after);
        files.push((path, text.with_context(|| format!("{path} does not say {before}{old}"))?));
    }
    Ok(files)
}

/// Wherever it stands between the two; `None`: nowhere.
fn replaced(text: &str, before: &str, old: &str, new: &str, after: &str) -> Option<String> {
    let found = format!("{before}{old}{after}");
    text.contains(&found).then(|| text.replace(&found, &format!("{before}{new}{after}")))
}

/// Of packages that come from nowhere else: ours.
fn locked(lock: &str, old: &str, new: &str) -> String {
    let mut packages = lock.split("[[package]]");
    let mut out = packages.next().unwrap_or_default().to_owned();
    let (old, new) = (format!("\nversion = \"{old}\"\n"), format!("\nversion = \"{new}\"\n"));
    for package in packages {
        out.push_str("[[package]]");
        match package.contains("\nsource = ") {
            true => out.push_str(package),
            false => out.push_str(&package.replacen(&old, &new, 1)),
        }
    }
    out
}

const UNRELEASED: &str = "\n## [Unreleased]\n";

/// What is unreleased becomes the version, and nothing is unreleased.
fn cut(changelog: &str, version: Version, date: &str) -> Result<String> {
    let (before, after) =
        changelog.split_once(UNRELEASED).context("CHANGELOG.md has no [Unreleased]")?;
    let heading = format!("\n## [{version}]");
    ensure!(!changelog.contains(&heading), "CHANGELOG.md has a part of {version} already");
    let changes = after.split("\n## ").next().unwrap_or_default();
    if !changes.lines().any(|line| line.starts_with("- ")) {
        bail!("nothing is unreleased in CHANGELOG.md");
    }
    Ok(format!("{before}{UNRELEASED}{heading} - {date}\n{after}"))
}

/// What a release says of itself: its part of the changelog.
fn section(files: &[File], version: Version) -> Result<String> {
    let (_, changelog) = files.first().context("no changelog")?;
    let heading = format!("\n## [{version}]");
    let begin = changelog.find(&heading).context("the changelog has no part of it")? + 1;
    let rest = &changelog[begin..];
    let end = rest.find("\n## ").map_or(rest.len(), |at| at + 1);
    Ok(rest[..end].trim_end().to_owned())
}

fn commands(version: Version, files: &[File]) -> String {
    let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
    format!(
        "  git commit -m 'release: {version}' {}\n  git tag --sign v{version} -m 'ctwatch {version}'\n  \
         cargo xtask dist --machine all\n  git push origin HEAD v{version}",
        paths.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n## [0.1.0] - 2026-01-02\n\n- First.\n";

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_three_numbers_in_order() {
        assert!(version("0.10.0") > version("0.9.9"));
        for text in ["1.2", "1.2.3.4", "v1.2.3", "1.2.03", "1.2.-3", "1.2.3-rc1", ""] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_changelog_is_cut_once() {
        let once = cut(CHANGELOG, version("0.2.0"), "2026-11-26").unwrap();
        let begin = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-11-26\n\n### Added\n\n- A thing.\n\n## [0.1.0]";
        assert!(once.starts_with(begin), "{once}");
        assert!(cut(&once, version("0.3.0"), "2026-11-27").is_err(), "nothing is unreleased");
        assert!(cut(CHANGELOG, version("0.1.0"), "2026-11-26").is_err(), "it is there");
        let part = section(&[("CHANGELOG.md", once)], version("0.2.0")).unwrap();
        assert_eq!(part, "## [0.2.0] - 2026-11-26\n\n### Added\n\n- A thing.");
    }

    #[test]
    fn only_our_own_packages_change_in_the_lock() {
        let ours = "[[package]]\nname = \"ctwatch\"\nversion = \"0.1.0\"\ndependencies = []\n";
        let theirs = "[[package]]\nname = \"x\"\nversion = \"0.1.0\"\nsource = \"registry\"\n";
        let changed = locked(&format!("version = 4\n\n{ours}\n{theirs}"), "0.1.0", "0.2.0");
        let ours = ours.replace("0.1.0", "0.2.0");
        assert_eq!(changed, format!("version = 4\n\n{ours}\n{theirs}"));
    }

    #[test]
    fn the_version_is_the_same_wherever_it_is_repeated() {
        let now = env!("CARGO_PKG_VERSION");
        for (path, before, after) in REPEATED {
            let text = read(path).unwrap();
            assert!(replaced(&text, before, now, now, after).is_some(), "{path}: {before}{now}");
        }
    }

    #[test]
    fn the_next_version_touches_what_repeats_it() {
        let [major, minor, _] = env!("CARGO_PKG_VERSION").parse::<Version>().unwrap().0;
        let next = Version([major, minor + 1, 0]);
        let files = raised(next).unwrap();
        let text = |name: &str| &files.iter().find(|(path, _)| *path == name).unwrap().1;
        assert!(text("Cargo.toml").contains(&format!("\nversion = \"{next}\"\n")));
        let name = "name = \"ctwatch\"\nversion = ";
        assert!(text("Cargo.lock").contains(&format!("{name}\"{next}\"\n")));
        assert!(text("dist/helm/ctwatch/Chart.yaml").contains(&format!("appVersion: {next}\n")));
        assert!(raised(Version([0, 0, 0])).is_err(), "an older one");
    }

    #[test]
    fn pages_name_the_commit_that_they_measured() {
        assert_eq!(made_of("Made by `x` of commit 81b598a856da: each"), Some("81b598a856da"));
        assert_eq!(made_of("Made by hand"), None);
        assert!(made_of(&read(COSTS.0).unwrap()).is_some());
    }
}
