//! Debian packages, unpacked instead of installed: private package lists, no root.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Store, say};
use ctwatch_provision::{
    machine::Machine,
    process::{find, output, run},
};

/// Read by apt after its own configuration. The hooks of `apt-get update` are other packages'
/// commands, which as root empty the system's caches and wake its daemons; translations and the
/// catalogues of graphical shops are of no use here.
const CONFIGURATION: &str = r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
Acquire::Languages "none";
// The locks are root's; ours are in target/provision.
Debug::NoLocking "true";
APT::Sandbox::User "root";
"#;

/// Where other kernels than this machine's come from, oldest first. A suite that a mirror does not
/// have any more is passed over.
const KERNEL_SUITES: [&str; 6] =
    ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"];
/// The release that packages for few machines are looked for in too.
const LATER: &str = "trixie";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Older lists name packages that security updates have replaced since.
const LISTS_ARE_FRESH: Duration = Duration::from_secs(3600);

pub(super) struct Apt {
    dir: PathBuf,
    /// apt's own locks are off, so whoever uses these lists waits for the others here.
    _alone: File,
}

/// What there is to fetch of a package.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Package {
    name: String,
    version: String,
    /// Of the archive, in bytes.
    size: u64,
    /// Unpacked, in kB.
    unpacked: u64,
}

impl Apt {
    /// Private package lists, fetched where there are none that are fresh.
    pub(super) fn open(store: &Store) -> Result<Self> {
        Self::with_lists(store, "apt", CONFIGURATION)
    }

    /// The lists of all suites that kernels come from, by the mirror that this machine uses. What
    /// is installed here is of no meaning for them.
    pub(super) fn of_kernels(store: &Store, machine: Machine) -> Result<Self> {
        let sites = output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
        let site = sites.lines().find(|site| site.ends_with("/debian"));
        let site = site.context("this machine's package sources name no mirror of Debian")?;
        let by = signed_by();
        let sources: String =
            KERNEL_SUITES.map(|suite| format!("deb{by} {site} {suite} main\n")).concat();
        if Machine::of_this().is_ok_and(|own| own == machine) {
            return Self::of_list(store, "apt-kernels", &sources, "");
        }
        let name = format!("apt-kernels-{}", machine.debian());
        Self::of_list(store, &name, &sources, &foreign(machine))
    }

    /// The lists for another machine, from where this one's come, and from Debian's next release: it
    /// has what was built for few machines only.
    pub(super) fn of_machine(store: &Store, machine: Machine) -> Result<Self> {
        let name = format!("apt-{}", machine.debian());
        let targets = output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(SITE) $(RELEASE)",
        ]))?;
        let is_debians = |line: &&str| {
            let site = line.split(' ').next().unwrap_or_default();
            site.ends_with("/debian") || site.ends_with("/debian-security")
        };
        let mut sources: Vec<&str> = targets.lines().filter(is_debians).collect();
        sources.sort_unstable();
        sources.dedup();
        let own = sources.first().and_then(|line| line.split_once(' '));
        let (_, release) = own.context("this machine's package sources name no Debian")?;
        let mut lines: Vec<String> = sources.iter().map(|line| (*line).to_owned()).collect();
        let later = sources.iter().map(|line| line.replace(release, LATER));
        lines.extend(later.filter(|line| !sources.contains(&line.as_str())));
        let by = signed_by();
        let list: String = lines.iter().map(|line| format!("deb{by} {line} main\n")).collect();
        let more = foreign(machine) + &format!("APT::Default-Release \"{release}\";\n");
        Self::of_list(store, &name, &list, &more)
    }

    /// Of sources that are named here and not this machine's; nothing is installed.
    fn of_list(store: &Store, name: &str, sources: &str, more: &str) -> Result<Self> {
        let list = store.path(&format!("{name}.list"));
        fs::write(&list, sources).with_context(|| format!("cannot write {}", list.display()))?;
        let configuration = format!(
            "{CONFIGURATION}Dir::Etc::SourceList \"{}\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             Dir::State::status \"/dev/null\";\n{more}",
            list.display()
        );
        let dir = store.path(name);
        Self::with_lists(store, name, &configuration)
            .with_context(|| format!("cannot read package lists in {}", dir.display()))
    }

    fn with_lists(store: &Store, name: &str, configuration: &str) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg", "dpkg-query"] {
            ensure!(find(program).is_some(), "this machine has no {program}: it is no Debian");
        }
        let alone = store.lock(name)?;
        if age(&store.path(name)).is_none_or(|age| age > LISTS_ARE_FRESH) {
            store.forget(name)?;
        }
        let dir = store
            .passing(name, |dir| update(dir, configuration))
            .context("cannot fetch Debian's package lists")?;
        Ok(Self { dir, _alone: alone })
    }

    fn ask(&self, program: &str, args: &[&str]) -> Result<String> {
        output(command(program, &self.dir).args(args))
    }

    /// All packages that `package` depends on, in any number of steps.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let no = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
        let no = no.map(|relation| format!("--no-{relation}"));
        let mut args = vec!["depends", "--recurse"];
        args.extend(no.iter().map(String::as_str));
        args.push(package);
        Ok(packages_at_line_start(&self.ask("apt-cache", &args)?))
    }

    /// These packages and what they depend on, without what is installed here. Asked as if nothing
    /// was, so that no held, conflicting or half installed package of this machine is in the way;
    /// never the C library: the one here runs everything else, and no second one goes with this
    /// one's loader.
    pub(super) fn missing_for(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut missing = self.everything_for(packages)?;
        let format = "--showformat=${Package} ${db:Status-Status}\n";
        let here = installed(&output(Command::new("dpkg-query").args(["--show", format]))?);
        missing.retain(|package| {
            let system = here.contains(package) || matches!(package.as_str(), "libc6" | "libc-bin");
            !system || packages.contains(&package.as_str())
        });
        Ok(missing)
    }

    /// The names of all packages that match a regular expression.
    pub(super) fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let found = self.ask("apt-cache", &["search", "--names-only", pattern])?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// All packages that are needed where nothing is installed, these included.
    pub(super) fn everything_for(&self, packages: &[&str]) -> Result<Vec<String>> {
        let nothing = ["-o", "Dir::State::status=/dev/null"];
        let simulate = ["-s", "install", "--no-install-recommends"];
        let args = [&nothing[..], &simulate[..], packages].concat();
        Ok(to_be_installed(&self.ask("apt-get", &args)?))
    }

    /// All versions of a package that the lists have.
    pub(super) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let lines = self.ask("apt-cache", &["madison", package])?;
        let versions = lines.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.map(|version| version.trim().to_owned()).collect())
    }

    /// This version of it.
    pub(super) fn look_up_version(&self, package: &str, version: &str) -> Result<Package> {
        let shown = self.ask("apt-cache", &["show", &format!("{package}={version}")])?;
        packages(&shown).pop().with_context(|| format!("apt shows no {package} {version}"))
    }

    /// The newest version of each package, or which of them there is none of.
    pub(super) fn look_up(&self, names: &[String]) -> Result<Vec<Package>> {
        self.look_up_by(&[], names)
    }

    /// The version that this suite has.
    pub(super) fn look_up_in(&self, suite: &str, names: &[String]) -> Result<Vec<Package>> {
        self.look_up_by(&["--target-release", suite], names)
    }

    fn look_up_by(&self, options: &[&str], names: &[String]) -> Result<Vec<Package>> {
        let mut args = [options, &["show", "--no-all-versions"]].concat();
        args.extend(names.iter().map(String::as_str));
        // It fails when it finds none of them, which shows below.
        let found = packages(&self.ask("apt-cache", &args).unwrap_or_default());
        let is_unknown = |name: &&String| !found.iter().any(|package| package.name == **name);
        let unknown: Vec<_> = names.iter().filter(is_unknown).map(String::as_str).collect();
        ensure!(unknown.is_empty(), "apt knows no package {}", unknown.join(", "));
        Ok(found)
    }

    /// Downloads the packages and unpacks them below `root`.
    pub(super) fn unpack(&self, packages: &[Package], root: &Path) -> Result<()> {
        self.unpack_and(packages, root, |_| Ok(()))
    }

    /// The same, and dpkg is told below `root` that they are installed there.
    pub(super) fn unpack_known_to_dpkg(&self, packages: &[Package], root: &Path) -> Result<()> {
        let known = root.join("var/lib/dpkg");
        for folder in ["info", "updates", "triggers"] {
            fs::create_dir_all(known.join(folder))?;
        }
        // A file of its list for each machine's package of one name.
        fs::write(known.join("info/format"), "1\n")?;
        let mut status = String::new();
        self.unpack_and(packages, root, |archive| {
            status.push_str(&known_to_dpkg(archive, &known.join("info"))?);
            Ok(())
        })?;
        fs::write(known.join("status"), status).context("cannot write dpkg's list of packages")
    }

    fn unpack_and(
        &self,
        packages: &[Package],
        root: &Path,
        mut each: impl FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        let archives = root.join("archives.partial");
        fs::create_dir_all(&archives)?;
        let exact = |package: &Package| format!("{}={}", package.name, package.version);
        run(command("apt-get", &self.dir)
            .args(["-q", "download"])
            .args(packages.iter().map(exact))
            .current_dir(&archives))
        .context("cannot download Debian's packages")?;
        let mut unpacked = 0;
        for archive in fs::read_dir(&archives)? {
            let archive = archive?.path();
            if archive.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg").arg("-x").arg(&archive).arg(root))?;
                each(&archive)?;
                unpacked += 1;
            }
        }
        if unpacked != packages.len() {
            bail!("{} packages were asked for, {unpacked} came", packages.len());
        }
        fs::remove_dir_all(&archives).context("cannot remove downloaded archives")
    }
}

/// Writes what dpkg keeps of the archive into `info`, and returns its stanza of dpkg's status.
fn known_to_dpkg(archive: &Path, info: &Path) -> Result<String> {
    let fields = output(Command::new("dpkg-deb").arg("--field").arg(archive))?;
    let field =
        |name: &str| fields.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let mut name = field("Package").context("a package without a name")?.to_owned();
    if field("Multi-Arch") == Some("same") {
        name = format!("{name}:{}", field("Architecture").context("no architecture")?);
    }
    let mut tar = Command::new("sh");
    tar.args(["-ec", "dpkg-deb --fsys-tarfile \"$0\" | tar -t"]).arg(archive);
    let files = output(&mut tar)?;
    let files = files.lines().map(|file| match file.trim_end_matches('/') {
        "." => "/.\n".to_owned(),
        file => format!("{}\n", file.trim_start_matches('.')),
    });
    fs::write(info.join(format!("{name}.list")), files.collect::<String>())?;
    let control = info.join("control.partial");
    run(Command::new("dpkg-deb").arg("--control").arg(archive).arg(&control))?;
    for file in fs::read_dir(&control)? {
        let file = file?;
        let ending = file.file_name();
        if ending != "control" {
            fs::rename(file.path(), info.join(format!("{name}.{}", ending.display())))?;
        }
    }
    fs::remove_dir_all(&control)?;
    let (first, rest) = fields.split_once('\n').context("a package of one line")?;
    Ok(format!("{first}\nStatus: install ok installed\n{rest}\n"))
}

fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(dir.join("apt.conf"))
        .arg("-o")
        .arg(format!("Dir::State::Lists={}", dir.join("lists").display()))
        .arg("-o")
        .arg(format!("Dir::Cache={}", dir.join("cache").display()))
        .env("LC_ALL", "C");
    command
}

fn update(dir: &Path, configuration: &str) -> Result<()> {
    say("fetching Debian's package lists, 10 MB a suite");
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    fs::write(dir.join("apt.conf"), configuration)?;
    let updated = run(command("apt-get", dir).args(["-qq", "update"]));
    // One foreign source that does not answer is no reason to give up on Debian's.
    let mut lists = fs::read_dir(dir.join("lists"))?.flatten();
    if lists.any(|list| list.file_name().to_string_lossy().contains("_Packages")) {
        return Ok(());
    }
    updated.and_then(|()| bail!("none came: is there a network, and are sources configured?"))
}

/// Packages for another machine alone.
fn foreign(machine: Machine) -> String {
    let architecture = machine.debian();
    format!("#clear APT::Architectures;\nAPT::Architecture \"{architecture}\";\n")
}

fn signed_by() -> String {
    let signed = Path::new(KEYRING).is_file();
    if signed { format!(" [signed-by={KEYRING}]") } else { String::new() }
}

fn age(path: &Path) -> Option<Duration> {
    SystemTime::now().duration_since(path.metadata().ok()?.modified().ok()?).ok()
}

/// Removes folders of an unpacked package that no build and no test uses.
pub(super) fn leave_out(dir: &Path, folders: &[&str]) -> Result<()> {
    for folder in folders.iter().map(|folder| dir.join(folder)).filter(|folder| folder.is_dir()) {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// `rustc-web libllvm22 (34 MB, 163 MB unpacked)`
pub(super) fn summary(packages: &[Package]) -> String {
    let names: Vec<_> = packages.iter().map(|package| package.name.as_str()).collect();
    let size: u64 = packages.iter().map(|package| package.size).sum();
    let unpacked: u64 = packages.iter().map(|package| package.unpacked).sum();
    format!(
        "{} ({:.0} MB, {:.0} MB unpacked)",
        names.join(" "),
        size as f64 / 1e6,
        unpacked as f64 / 1e3
    )
}

/// `apt-cache depends` writes each package at the start of a line and what it needs indented;
/// `<virtual>` packages are nothing that can be fetched.
fn packages_at_line_start(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with([' ', '<', '|']));
    lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// `Inst nftables (1.0.6-2 Debian:12.5/stable [amd64])`
fn to_be_installed(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// `libz3-4 installed`
fn installed(text: &str) -> HashSet<String> {
    text.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect()
}

/// The stanzas of `apt-cache show`.
fn packages(text: &str) -> Vec<Package> {
    let package = |stanza: &str| {
        let field = |name: &str| {
            let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
            stanza.lines().find_map(value)
        };
        let number = |name| field(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        Some(Package {
            name: field("Package")?,
            version: field("Version")?,
            size: number("Size"),
            unpacked: number("Installed-Size"),
        })
    };
    text.split("\n\n").filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_the_lines_that_are_not_indented() {
        let text = "rustc-web\n  Depends: libc6\n |Depends: x\nlibllvm22\n<virtual>\n";
        assert_eq!(packages_at_line_start(text), ["rustc-web", "libllvm22"]);
    }

    #[test]
    fn a_simulated_installation_names_its_packages() {
        let text = "Reading package lists...\nInst nftables (1.0.6-2 Debian)\nConf nftables (x)\n\
                    Inst libc6 [2.36-9] (2.36-10 Debian)\n";
        assert_eq!(to_be_installed(text), ["nftables", "libc6"]);
    }

    #[test]
    fn what_was_removed_is_not_installed() {
        let here = installed("zlib1g installed\nlibz3-4 config-files\n");
        assert!(here.contains("zlib1g") && !here.contains("libz3-4"));
    }

    #[test]
    fn a_package_has_a_version_and_sizes() {
        let text = "Package: libllvm22\nSource: llvm\nVersion: 1:22.1.8-1\nInstalled-Size: 146243\n\
                    Depends: libc6 (>= 2.36)\nSize: 29378692\nDescription: LLVM\n more\n\n\
                    Package: rustc-web\nVersion: 1.96.0-1\nInstalled-Size: 13205\nSize: 4450500\n\n";
        let packages = packages(text);
        assert_eq!(packages[0].version, "1:22.1.8-1");
        assert_eq!(summary(&packages), "libllvm22 rustc-web (34 MB, 159 MB unpacked)");
    }
}
