//! What a contributor types: `cargo xtask --help`.

mod commands;
mod dwarf;
mod linked;
mod matrix;
mod oci;
mod summary;
mod vendored;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, run and test ctwatch. Whatever is missing for that is fetched into target/provision
///
/// What was fetched or built there once is kept for other clones, with checksums, in the folder
/// CTWATCH_CACHE names (without it ~/.cache/ctwatch-xtask; empty: nowhere). It may be deleted at any
/// time. Nothing else outside target/ is changed.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and start ctwatch on this host; arguments after `--` are ctwatch's
    ///
    /// It starts with your privileges, and says what it cannot see with them.
    Run(commands::run::Args),
    /// Build target/release/ctwatch, the probes inside
    ///
    /// The probes are compiled by rustup's nightly with rust-src and the bpf-linker on PATH where
    /// both are there, otherwise by Debian's rustc, unpacked into target/provision (120 MB).
    Build(commands::build::Args),
    /// Make an image for containers of the executable alone: target/release/ctwatch-oci.tar
    ///
    /// An OCI layout in a tar, made without a daemon: the same bytes from the same executable. Load it with
    /// `podman load -i`, or copy it with `skopeo copy oci-archive:FILE docker://REGISTRY/ctwatch`.
    Image(commands::image::Args),
    /// Make packages for distributions, an image, checksums and a list of what is linked in: target/dist
    ///
    /// .deb, .rpm, .apk and .ipk, with the manual, completions for bash, zsh and fish, units of systemd that are
    /// off, and the licences of every crate: the same bytes from the same commit. It prints how to use ctwatch
    /// without installing it. For another machine nothing is emulated; where clang is not on PATH, it is unpacked into
    /// target/provision (50 MB, and 160 MB of LLVM where that is not installed).
    Dist(commands::dist::Args),
    /// Make a version of what is checked out, up to the tag, which it prints
    ///
    /// It checks that the tree is clean, that the docs are true and that what they measured is of this code; cuts
    /// CHANGELOG.md's Unreleased part to the version, with today's date; and writes the version wherever it stands.
    /// It commits, tags and pushes nothing. docs/release.md is the whole list.
    Release(commands::release::Args),
    /// Run all tests; those that need root and network namespaces are skipped without root
    ///
    /// The suite matrix is a slice of `cargo xtask matrix`: the oldest and the newest kernel,
    /// each scenario once on each, with the mechanism that was run longest ago by tests/matrix.tsv,
    /// and what failed there when it was run last; and some scenarios on Debian's kernel for arm64. The
    /// file is written, and docs/matrix.md and docs/platforms.md of it; commit them with the change.
    /// The suite packages opens packages of the executables for arm64 and armv7.
    /// The suite armv7 has the command line of the executable for armv7 run by QEMU on this kernel.
    /// The last suite, costs, measures on one kernel, by a clock that counts instructions, what an event
    /// costs with the default lists, and fails where that exceeds the limits in tests/netns/cost.rs.
    /// Where QEMU cannot be had, both are skipped.
    ///
    /// The suite pages looks at the pages of `ctwatch report` in Chromium, and leaves pictures in
    /// target/pages; fleet asks DuckDB the queries of docs/fleet.md; deploy has the tools of Prometheus, systemd,
    /// Kubernetes and containers judge what is in dist/. The suite installed boots a clean Debian with systemd in a
    /// virtual machine, installs the package there and runs it as its unit.
    ///
    /// The suite netns changes what the whole machine shares, above all nf_conntrack_max, and
    /// restores it: one such run at a time. Every suite's output is shown as it comes; the last
    /// line is the sum of all. In CI (the variable CI is set) as root, a skipped test is a failure.
    Test(commands::test::Args),
    /// Run the tests of the live kernel on other kernels, with each mechanism they offer
    ///
    /// All cells, or those that options choose. Debian's kernels 5.10, 6.1, 6.12 and the newest there
    /// is, 6.12 with PREEMPT_RT, and 6.12 for arm64 and armv7, emulated where KVM boots none (no privileges
    /// needed); what each cell took, and what came of it, is written to tests/matrix.tsv, and docs/matrix.md and
    /// docs/platforms.md of that.
    Matrix(commands::matrix::Args),
    /// Build a router with a small table in network namespaces, saturate it, watch, clean up (root)
    Lab(commands::lab::Args),
    /// Measure what watching costs, beside nothing and beside conntrack -E (root)
    Bench(commands::bench::Args),
    /// Watch while namespaces come and go and tables overflow: nothing may grow, each figure must hold (root)
    Soak(commands::live::Soak),
    /// Make every output, limit, capability and file fail around each verb (root)
    ///
    /// `cargo xtask test` does a slice of it.
    Faults(commands::live::Faults),
    /// Feed nonsense to every parser, guided by what it reaches (libFuzzer; needs a C++ compiler)
    ///
    /// `cargo xtask test` does the same, shorter and unguided. What makes a parser fall is kept in
    /// target/fuzz/found.
    Fuzz(commands::fuzz::Args),
    /// Boot other kernels under QEMU and run something in them; without a command, a look at ctwatch
    ///
    /// Debian's kernels 5.10, 6.1, 6.12 and the newest there is, and 6.12-armmp for armv7, emulated (no
    /// privileges needed), from memory. The logs of a run are in target/vm.
    Vm(commands::vm::Args),
    /// Check formatting, lints, licences of dependencies, and that the oldest Rust compiles it
    ///
    /// rustfmt and clippy over the workspace, clippy over the probes as the BPF target compiles
    /// them, and cargo-deny, which is built into target/provision where it is not on PATH. At last
    /// the workspace is compiled by the oldest Rust that Cargo.toml states.
    Lint,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => commands::run::run(&args),
        Command::Build(args) => commands::build::ask(&args).map(|_| ExitCode::SUCCESS),
        Command::Image(args) => commands::image::run(&args).map(|_| ExitCode::SUCCESS),
        Command::Dist(args) => commands::dist::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Release(args) => commands::release::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Test(args) => commands::test::run(&args),
        Command::Matrix(args) => commands::matrix::run(&args),
        Command::Lab(args) => commands::lab::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Soak(args) => commands::live::soak(&args),
        Command::Faults(args) => commands::live::faults(&args),
        Command::Fuzz(args) => commands::fuzz::run(&args),
        Command::Vm(args) => commands::vm::run(&args),
        Command::Lint => commands::lint::run().map(|()| ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
