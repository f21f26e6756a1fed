//! `cargo xtask dist`: packages of the executable for distributions, with manual, completions, units, licences
//! and a list of what is linked in.

use std::{
    env::consts::ARCH,
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use ctwatch_provision::{
    nfpm,
    process::{output, root, run as run_process},
};
use flate2::{Compression, GzBuilder};

use super::{build, image};
use crate::linked::Linked;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    build: build::Options,
    /// Where to write it instead of target/dist
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// As nfpm calls them.
const PACKAGERS: [&str; 4] = ["deb", "rpm", "apk", "ipk"];

pub(crate) fn run(args: &Args) -> Result<()> {
    let (executable, manual) = build::packed(&args.build)?;
    let to = args.output.clone().unwrap_or_else(|| root().join("target/dist"));
    for file in write(&executable, &manual, &to)? {
        println!("{}", file.display());
    }
    println!("\n{}", one_liner(&to));
    Ok(())
}

/// Everything, into a folder of its own. `manual` writes the man pages and completions.
pub(crate) fn write(executable: &Path, manual: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let nfpm = nfpm::provide()?;
    if to.exists() {
        ensure!(to.join(SUMS).is_file() || is_empty(to)?, "{} holds something else", to.display());
        fs::remove_dir_all(to)?;
    }
    let made = to.join("made");
    fs::create_dir_all(&made)?;
    run_process(Command::new(manual).arg(root().join("docs")).arg(&made))?;
    let linked = Linked::read()?;
    for folder in ["man", "man5"] {
        packed(&made.join(folder))?;
    }
    text(&made.join("copyright"), &linked.copyright()?)?;
    let changelog = fs::read(root().join("CHANGELOG.md"))?;
    fs::write(made.join("changelog.gz"), gzip(&changelog)?)?;
    fs::write(made.join("changelog.Debian.gz"), gzip(debian_changelog()?.as_bytes())?)?;
    of_then(&made)?;
    let bare = to.join(format!("ctwatch-{}-{ARCH}", version()));
    fs::copy(executable, &bare).with_context(|| format!("cannot copy {}", executable.display()))?;
    let sbom = to.join(format!("ctwatch-{}.cdx.json", version()));
    text(&sbom, &linked.sbom(version())?)?;
    let oci = to.join(format!("ctwatch-{}-{ARCH}-oci.tar", version()));
    image::write(executable, &oci)?;
    let mut files = vec![bare, sbom, oci];
    for packager in PACKAGERS {
        files.push(package(&nfpm, packager, executable, &made, to)?);
    }
    fs::remove_dir_all(&made)?;
    files.push(sums(to, &files)?);
    Ok(files)
}

const SUMS: &str = "SHA256SUMS";

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn text(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Of the package, as Debian reads it; what changed is in the other one.
fn debian_changelog() -> Result<String> {
    let (version, time) = (version(), commit_time("%cD")?);
    let who = "The ctwatch developers <ctwatch@users.noreply.github.com>";
    Ok(format!(
        "ctwatch ({version}-1) unstable; urgency=medium\n\n  * What changed is in changelog.gz.\n\n -- {who}  {time}\n"
    ))
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

/// What was made now is of the commit's time: the same bytes tomorrow.
fn of_then(folder: &Path) -> Result<()> {
    let then = UNIX_EPOCH + Duration::from_secs(commit_time("%ct")?.parse()?);
    for path in listed(folder)? {
        if path.is_dir() {
            of_then(&path)?;
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
    executable: &Path,
    made: &Path,
    to: &Path,
) -> Result<PathBuf> {
    let arch = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no package is made for {other}"),
    };
    let before: Vec<PathBuf> = listed(to)?;
    let mut command = Command::new(nfpm);
    command.current_dir(root()).args(["package", "--packager", packager, "--config"]);
    command.arg(configuration(executable, made, arch)?).arg("--target").arg(to);
    // Of the change that is packed, not of the moment.
    command.env("SOURCE_DATE_EPOCH", commit_time("%ct")?);
    output(&mut command).with_context(|| format!("nfpm made no {packager}"))?;
    let new = listed(to)?.into_iter().find(|file| !before.contains(file));
    new.with_context(|| format!("nfpm made no {packager}"))
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// nfpm takes variables in a few fields only, so they are put in here.
fn configuration(executable: &Path, made: &Path, arch: &str) -> Result<PathBuf> {
    let mut text = fs::read_to_string(root().join("dist/packages/nfpm.yaml"))?;
    let root = root();
    let paths: [(&str, &OsStr); 3] = [
        ("EXECUTABLE", executable.as_os_str()),
        ("MADE", made.as_os_str()),
        ("ROOT", root.as_os_str()),
    ];
    for (name, path) in paths {
        let path = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
        text = text.replace(&format!("${{{name}}}"), path);
    }
    text = text.replace("${VERSION}", version()).replace("${ARCH}", arch);
    text = text.replace("${MADE_AT}", &commit_time("%cI")?);
    ensure!(!text.contains("${"), "dist/packages/nfpm.yaml has a variable that nobody knows");
    let file = made.join("nfpm.yaml");
    fs::write(&file, text)?;
    Ok(file)
}

fn commit_time(format: &str) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["log", "-1", &format!("--format={format}")]);
    Ok(output(&mut git)?.trim().to_owned())
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

/// How it is used without being installed.
fn one_liner(to: &Path) -> String {
    let file = to.join(format!("ctwatch-{}-{ARCH}", version()));
    format!(
        "without installing it:\n  ssh root@HOST 'f=$(mktemp) && cat > \"$f\" && chmod 700 \"$f\" && \"$f\" doctor; \
         rm -f \"$f\"' < {}",
        file.display()
    )
}
