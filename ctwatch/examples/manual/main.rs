//! Writes the man pages, from docs/, and the shells' completions: `cargo xtask dist` packs them.
//!
//! Usage: manual DOCS FOLDER

mod roff;

use std::{env, ffi::OsString, fs, io, path::Path, process::ExitCode};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use ctwatch::cli::Cli;

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let [docs, folder] = args.as_slice() else {
        eprintln!("usage: manual DOCS FOLDER");
        return ExitCode::from(2);
    };
    match write(Path::new(docs), Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write the manual: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(docs: &Path, folder: &Path) -> io::Result<()> {
    let [pages, formats, completions] =
        ["man", "man5", "completions"].map(|name| folder.join(name));
    for folder in [&pages, &formats, &completions] {
        fs::create_dir_all(folder)?;
    }
    let mut command = Cli::command();
    command.build();
    let verbs: Vec<&Command> =
        command.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
    page(&pages, "ctwatch", &command, &overview(&verbs))?;
    for verb in &verbs {
        let name = verb.get_name();
        let place = docs.join(format!("{name}.md"));
        let text = read(&place)?;
        page(&pages, &format!("ctwatch-{name}"), verb, &text)?;
    }
    recordings(&formats, &read(&docs.join("record.md"))?)?;
    let mut command = Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "ctwatch", &completions)?;
    }
    Ok(())
}

fn read(place: &Path) -> io::Result<String> {
    fs::read_to_string(place)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", place.display())))
}

/// In section 8, of what system administrators use.
fn page(folder: &Path, name: &str, command: &Command, text: &str) -> io::Result<()> {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let page = roff::Page { name, section: 8, about: &about, usage: Some(&usage) };
    fs::write(folder.join(format!("{name}.8")), page.render(text))
}

/// The part of the verb's page that is about files.
fn recordings(folder: &Path, text: &str) -> io::Result<()> {
    let part = text.split("\n## ").find(|part| part.starts_with("The files\n"));
    let part = part.ok_or_else(|| io::Error::other("docs/record.md has no part \"The files\""))?;
    let about = "the files of a recording of ctwatch";
    let page = roff::Page { name: "ctwatch-record", section: 5, about, usage: None };
    fs::write(folder.join("ctwatch-record.5"), page.render(&format!("# {part}")))
}

/// Of all verbs: what each does, and where its page is.
fn overview(verbs: &[&Command]) -> String {
    let mut text = String::from(
        "# ctwatch\n\nThe kernel drops packets when its table of connections is full, and says neither how \
         many nor whose. ctwatch counts them in the kernel, and says whose they are, who fills the table, why \
         it is tracked at all, and what to type. It needs root, no network and no other file, and it changes \
         nothing.\n\n## Commands\n\n| command | what it does |\n| --- | --- |\n",
    );
    for verb in verbs {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!(
            "| `ctwatch-{}`(8) | {} |\n",
            verb.get_name(),
            about.replace('|', "\\|")
        ));
    }
    text.push_str(
        "\nWithout a command it is `ctwatch watch`.\n\n## Exit status\n\n| status | meaning |\n| --- | --- |\n\
         | `0` | done |\n| `1` | it failed |\n| `2` | wrong usage |\n\n`ctwatch check` exits as monitoring plugins \
         do: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.\n",
    );
    text
}
