//! `cargo xtask dist`: packages of the executable for distributions, with manual, completions, units, licences
//! and a list of what is linked in.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::{
    machine::Machine,
    nfpm,
    process::{find, output, root, run as run_process},
};
use flate2::{Compression, GzBuilder};

use super::{build, image};
use crate::{linked::Linked, vendored};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    build: build::Options,
    /// For this machine instead of the one at hand; more than once, or "all"
    #[arg(long = "machine", value_name = "MACHINE", value_parser = machines())]
    machines: Vec<String>,
    /// Where to write it instead of target/dist
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

const ALL: &str = "all";

fn machines() -> Vec<&'static str> {
    Machine::ALL.map(Machine::name).into_iter().chain([ALL]).collect()
}

impl Args {
    fn chosen(&self) -> Result<Vec<Machine>> {
        let is_chosen =
            |machine: &Machine| self.machines.iter().any(|n| n == ALL || n == machine.name());
        match self.machines.is_empty() {
            true => Ok(vec![Machine::of_this()?]),
            false => Ok(Machine::ALL.into_iter().filter(is_chosen).collect()),
        }
    }
}

/// As nfpm calls them.
const PACKAGERS: [&str; 4] = ["deb", "rpm", "apk", "ipk"];

/// As nfpm calls it, which knows what each packager calls that.
const fn of_nfpm(machine: Machine) -> &'static str {
    match machine {
        Machine::X86_64 => "amd64",
        Machine::Aarch64 => "arm64",
        Machine::Armv7 => "arm7",
    }
}

/// Of the executable with TLS: what it has, and a little. docs/design/cost.md says what it is made of.
const fn most(machine: Machine) -> u64 {
    match machine {
        Machine::X86_64 => 8_950_000,
        Machine::Aarch64 => 8_400_000,
        Machine::Armv7 => 7_900_000,
    }
}

/// An executable, and the machine that it is for.
pub(crate) struct Shipped {
    pub(crate) machine: Machine,
    pub(crate) executable: PathBuf,
}

/// All that is made at a time.
pub(crate) struct Distribution<'a> {
    pub(crate) shipped: &'a [Shipped],
    /// Writes the man pages and completions.
    pub(crate) manual: &'a Path,
    /// With an archive of the sources, these in it.
    pub(crate) sources: Option<&'a [(Machine, PathBuf)]>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (mut shipped, mut probes) = (Vec::new(), Vec::new());
    for machine in args.chosen()? {
        let built = build::packed(machine, &args.build)?;
        let (name, size) = (machine.name(), fs::metadata(&built.ctwatch)?.len());
        let most = most(machine);
        ensure!(size <= most, "the executable for {name} has {size} bytes, more than {most}");
        probes.extend(built.probes.map(|probes| (machine, probes)));
        shipped.push(Shipped { machine, executable: built.ctwatch });
    }
    let manual = build::manual()?;
    let to = args.output.clone().unwrap_or_else(|| root().join("target/dist"));
    // tar is started in another folder.
    let to = std::path::absolute(to)?;
    let made = Distribution { shipped: &shipped, manual: &manual, sources: Some(&probes) };
    for file in made.write(&to)? {
        println!("{}", file.display());
        judged(&file)?;
    }
    println!("\nwithout installing it:");
    for shipped in &shipped {
        println!("  {}", one_liner(&to.join(shipped.name()).display().to_string()));
    }
    Ok(())
}

impl Distribution<'_> {
    /// Everything, into a folder of its own.
    pub(crate) fn write(&self, to: &Path) -> Result<Vec<PathBuf>> {
        let nfpm = nfpm::provide()?;
        if to.exists() {
            ensure!(
                to.join(SUMS).is_file() || is_empty(to)?,
                "{} holds something else",
                to.display()
            );
            fs::remove_dir_all(to)?;
        }
        let made = to.join("made");
        fs::create_dir_all(&made)?;
        run_process(Command::new(self.manual).arg(root().join("docs")).arg(&made))?;
        let commit = Commit::read()?;
        for folder in ["man", "man5"] {
            packed(&made.join(folder))?;
        }
        let changelog = fs::read(root().join("CHANGELOG.md"))?;
        fs::write(made.join("changelog.gz"), gzip(&changelog)?)?;
        let of_debian = debian_changelog(&commit);
        fs::write(made.join("changelog.Debian.gz"), gzip(of_debian.as_bytes())?)?;
        let mut files = Vec::new();
        for shipped in self.shipped {
            files.extend(shipped.write(&nfpm, &made, &commit, to)?);
        }
        fs::remove_dir_all(&made)?;
        if let Some(probes) = self.sources {
            files.push(vendored::write(version(), &commit.seconds, probes, to)?);
        }
        files.push(sums(to, &files)?);
        Ok(files)
    }
}

impl Shipped {
    fn name(&self) -> String {
        format!("ctwatch-{}-{}", version(), self.machine.name())
    }

    /// What is of this machine alone.
    fn write(&self, nfpm: &Path, made: &Path, commit: &Commit, to: &Path) -> Result<Vec<PathBuf>> {
        let (name, linked) = (self.name(), Linked::read(self.machine)?);
        text(&made.join("copyright"), &linked.copyright()?)?;
        of_then(made, UNIX_EPOCH + Duration::from_secs(commit.seconds.parse()?))?;
        let bare = to.join(&name);
        fs::copy(&self.executable, &bare)
            .with_context(|| format!("cannot copy {}", self.executable.display()))?;
        let sbom = to.join(format!("{name}.cdx.json"));
        text(&sbom, &linked.sbom(version())?)?;
        let oci = to.join(format!("{name}-oci.tar"));
        image::write(&self.executable, &oci)?;
        let mut files = vec![bare, sbom, oci];
        for packager in PACKAGERS {
            let configured = self.configuration(packager, made, commit)?;
            files.push(package(nfpm, packager, &configured, commit, to)?);
        }
        Ok(files)
    }

    /// nfpm takes variables in a few fields only, so they are put in here.
    fn configuration(&self, packager: &str, made: &Path, commit: &Commit) -> Result<PathBuf> {
        let mut text = fs::read_to_string(root().join("dist/packages/nfpm.yaml"))?;
        let (doc, license, licenses) = match packager {
            "rpm" => ("doc", "license", "/usr/share/licenses/ctwatch"),
            _ => ("\"\"", "\"\"", "/usr/share/doc/ctwatch"),
        };
        let (executable, root) = (path(&self.executable)?, root());
        let values = [
            // First: it has variables of its own.
            ("PAGES", pages(made)?),
            ("EXECUTABLE", executable.to_owned()),
            ("MADE", path(made)?.to_owned()),
            ("ROOT", path(&root)?.to_owned()),
            ("VERSION", version().to_owned()),
            ("ARCH", of_nfpm(self.machine).to_owned()),
            ("MADE_AT", commit.iso.clone()),
            ("DOC", doc.to_owned()),
            ("LICENSE", license.to_owned()),
            ("LICENSES", licenses.to_owned()),
        ];
        for (name, value) in values {
            text = text.replace(&format!("${{{name}}}"), &value);
        }
        ensure!(!text.contains("${"), "dist/packages/nfpm.yaml has a variable that nobody knows");
        if packager == "rpm" {
            let changelog = made.join("changelog.yaml");
            fs::write(&changelog, rpm_changelog(commit))?;
            text.push_str(&format!("changelog: {}\n", path(&changelog)?));
        }
        let file = made.join("nfpm.yaml");
        fs::write(&file, text)?;
        Ok(file)
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

/// An entry for each man page: a whole folder has no type.
fn pages(made: &Path) -> Result<String> {
    let mut entries = Vec::new();
    for (folder, section) in [("man", "man8"), ("man5", "man5")] {
        for page in listed(&made.join(folder))? {
            let name = page.file_name().unwrap_or_default().display().to_string();
            entries.push(format!(
                "  - src: ${{MADE}}/{folder}/{name}\n    dst: /usr/share/man/{section}/{name}\n    type: ${{DOC}}"
            ));
        }
    }
    entries.sort();
    Ok(entries.join("\n"))
}

/// When what is packed was committed: everything is of that moment, and so of the same bytes tomorrow.
struct Commit {
    seconds: String,
    iso: String,
    /// As mail has it.
    mail: String,
}

impl Commit {
    fn read() -> Result<Self> {
        let mut git = Command::new("git");
        git.current_dir(root()).args(["log", "-1", "--format=%ct%n%cI%n%cD"]);
        let said = output(&mut git)?;
        let mut lines = said.lines().map(str::to_owned);
        let mut next = || lines.next().context("git names no time of the commit");
        Ok(Self { seconds: next()?, iso: next()?, mail: next()? })
    }
}

const SUMS: &str = "SHA256SUMS";

/// By the tools of those who will take it, where they are; a complaint that is not stated beside nfpm.yaml is an error.
fn judged(file: &Path) -> Result<()> {
    let rpmlintrc = root().join("dist/packages/rpmlintrc");
    let (judge, args): (&str, Vec<&OsStr>) = match file.extension().and_then(OsStr::to_str) {
        Some("deb") => ("lintian", vec!["--fail-on".as_ref(), "error,warning".as_ref()]),
        Some("rpm") => (
            "rpmlint",
            vec![
                "--strict".as_ref(),
                "--ignore-unused-rpmlintrc".as_ref(),
                "--rpmlintrc".as_ref(),
                rpmlintrc.as_ref(),
            ],
        ),
        _ => return Ok(()),
    };
    match find(judge) {
        Some(program) => run_process(Command::new(program).args(args).arg(file)),
        None => {
            eprintln!("xtask: NOT JUDGED: there is no {judge} here");
            Ok(())
        }
    }
}

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn text(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

const WHO: &str = "The ctwatch developers <ctwatch@users.noreply.github.com>";

/// Of the package, as Debian reads it; what changed is in the other one.
fn debian_changelog(commit: &Commit) -> String {
    let (version, time) = (version(), &commit.mail);
    format!(
        "ctwatch ({version}-1) unstable; urgency=medium\n\n  * What changed is in changelog.gz.\n\n -- {WHO}  {time}\n"
    )
}

/// The same, as nfpm reads it for .rpm.
fn rpm_changelog(commit: &Commit) -> String {
    let (version, time) = (version(), &commit.iso);
    format!(
        "- semver: {version}-1\n  date: {time}\n  packager: {WHO}\n  changes:\n    - note: What changed is in changelog.gz.\n"
    )
}

/// Man pages, as distributions keep them.
fn packed(folder: &Path) -> Result<()> {
    for page in listed(folder)? {
        let mut name = page.clone().into_os_string();
        name.push(".gz");
        fs::write(name, gzip(&fs::read(&page)?)?)?;
        fs::remove_file(page)?;
    }
    Ok(())
}

/// What was made now gets the commit's time.
fn of_then(folder: &Path, then: SystemTime) -> Result<()> {
    for path in listed(folder)? {
        if path.is_dir() {
            of_then(&path, then)?;
        }
        fs::File::open(&path)?.set_modified(then)?;
    }
    Ok(())
}

/// Without a time or a name in it, so that the same bytes come of the same bytes.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}

fn package(
    nfpm: &Path,
    packager: &str,
    configured: &Path,
    commit: &Commit,
    to: &Path,
) -> Result<PathBuf> {
    let before: Vec<PathBuf> = listed(to)?;
    let mut command = Command::new(nfpm);
    command.current_dir(root()).args(["package", "--packager", packager, "--config"]);
    command.arg(configured).arg("--target").arg(to);
    command.env("SOURCE_DATE_EPOCH", &commit.seconds);
    output(&mut command).with_context(|| format!("nfpm made no {packager}"))?;
    let new = listed(to)?.into_iter().find(|file| !before.contains(file));
    new.with_context(|| format!("nfpm made no {packager}"))
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// As `sha256sum --check` reads it.
fn sums(to: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let names = files.iter().filter_map(|file| file.file_name());
    let mut sha256sum = Command::new("sha256sum");
    let printed = output(sha256sum.current_dir(to).arg("--").args(names))?;
    let place = to.join(SUMS);
    fs::write(&place, printed)?;
    Ok(place)
}

/// How it is used without being installed: it exits as ctwatch does, and leaves nothing.
fn one_liner(executable: &str) -> String {
    format!(
        "ssh root@HOST 'f=$(mktemp) && trap \"rm -f $f\" EXIT && trap \"exit 129\" HUP INT TERM && cat > $f && \
         chmod 700 $f && $f doctor' < {executable}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_have_the_line_that_is_printed() {
        let docs = fs::read_to_string(root().join("docs/deploy.md")).unwrap();
        assert!(docs.lines().any(|line| line == one_liner("ctwatch")), "{}", one_liner("ctwatch"));
    }
}
