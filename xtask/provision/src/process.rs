//! Starting other programs, with errors that say which and what to do.

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/")).to_path_buf()
}

/// Cargo, as it was called, building into `target/` of the workspace for this host, whatever its
/// user is used to.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).env("CARGO_TARGET_DIR", root().join("target"));
    cargo.env_remove("CARGO_BUILD_TARGET");
    cargo
}

/// Cargo's progress is for somebody who watches; a log is better off with errors only.
pub fn quiet_in_logs(cargo: &mut Command) -> &mut Command {
    cargo.env("CARGO_TERM_QUIET", if io::stderr().is_terminal() { "false" } else { "true" })
}

/// Runs to the end. All it prints goes to standard error: standard output is for what the command
/// was called for, which may be ctwatch's JSON on its way into another program.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    command.stdin(Stdio::null()).stdout(io::stderr());
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// Runs to the end and returns its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    output_and(command, Stdio::piped())
}

/// As [`output`], with its complaints shown as they come.
pub fn output_with_errors(command: &mut Command) -> Result<String> {
    output_and(command, Stdio::inherit())
}

fn output_and(command: &mut Command, errors: Stdio) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(errors)
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        match String::from_utf8_lossy(&output.stderr).trim() {
            "" => bail!("{shown} failed ({})", output.status),
            complaint => bail!("{shown} failed ({}): {complaint}", output.status),
        }
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Where a program is; system administrators' directories are looked into though a user's PATH
/// may lack them.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|file| file.is_file())
}
