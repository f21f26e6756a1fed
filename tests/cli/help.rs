//! Help is one screen, and what has no room there is in docs/.
//!
//! What each page says is in tests/cli/help. With `CTWATCH_WRITE_HELP` the test writes those files: read
//! the difference, and commit it.

use std::{fs, path::PathBuf};

use clap::CommandFactory;
use ctwatch::cli::Cli;

use crate::{command, root, text};

/// A serial console.
const ROWS: usize = 24;
const COLUMNS: usize = 80;

/// The verbs, and "" for none.
fn verbs() -> Vec<String> {
    let cli = Cli::command();
    let verbs = cli.get_subcommands().map(|verb| verb.get_name().to_owned());
    let all: Vec<_> = std::iter::once(String::new()).chain(verbs).collect();
    assert!(all.len() > 5, "{all:?}");
    all
}

/// All `--long` options of a verb.
fn options(verb: &str) -> Vec<String> {
    let cli = Cli::command();
    let verb = if verb.is_empty() { &cli } else { cli.find_subcommand(verb).unwrap() };
    let longs = verb.get_arguments().filter_map(|arg| arg.get_long());
    longs.map(|long| format!("--{long}")).collect()
}

/// Those that each verb has beside its own: its page has no room for them.
fn of_each_verb() -> Vec<String> {
    let cli = Cli::command();
    let everywhere = cli.get_arguments().filter(|arg| arg.is_global_set());
    let longs = everywhere.filter_map(|arg| arg.get_long()).filter(|long| *long != "help");
    longs.map(|long| format!("--{long}")).collect()
}

/// What ctwatch prints on a terminal of so many columns.
fn printed(args: &[&str], columns: usize) -> String {
    let output = command(args).env("COLUMNS", columns.to_string()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}");
    text(&output.stdout)
}

fn page(verb: &str, flag: &str, columns: usize) -> String {
    let words: Vec<&str> = [verb, flag].into_iter().filter(|word| !word.is_empty()).collect();
    printed(&words, columns)
}

fn golden(verb: &str) -> PathBuf {
    let name = if verb.is_empty() { "ctwatch" } else { verb };
    root().join(format!("tests/cli/help/{name}.txt"))
}

#[test]
fn each_help_page_says_what_it_said() {
    for verb in verbs() {
        let (page, golden) = (page(&verb, "--help", COLUMNS), golden(&verb));
        if std::env::var_os("CTWATCH_WRITE_HELP").is_some() {
            fs::write(&golden, &page).unwrap();
        }
        let said = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(
            page,
            said,
            "{}: if that is meant, run this test with CTWATCH_WRITE_HELP=1",
            golden.display()
        );
    }
}

#[test]
fn no_help_file_is_left_over() {
    let there = fs::read_dir(root().join("tests/cli/help")).unwrap();
    let mut there: Vec<_> = there.map(|entry| entry.unwrap().path()).collect();
    let mut golden: Vec<_> = verbs().iter().map(|verb| golden(verb)).collect();
    there.sort();
    golden.sort();
    assert_eq!(there, golden);
}

#[test]
fn each_help_page_fits_one_screen() {
    for verb in verbs() {
        let page = page(&verb, "--help", COLUMNS);
        let rows = page.lines().count();
        assert!(rows <= ROWS, "{verb}: {rows} rows\n{page}");
        for line in page.lines() {
            assert!(line.chars().count() <= COLUMNS, "{verb}: {line}");
        }
    }
}

#[test]
fn all_ways_to_ask_for_help_answer_alike() {
    for verb in verbs() {
        let long = page(&verb, "--help", COLUMNS);
        assert_eq!(page(&verb, "-h", COLUMNS), long, "{verb}");
        assert_eq!(page(&verb, "--help", 200), long, "{verb}: a wide terminal");
        let words = ["help", &verb];
        let words = if verb.is_empty() { &words[..1] } else { &words[..] };
        assert_eq!(printed(words, COLUMNS), long, "help {verb}");
    }
}

#[test]
fn help_names_each_option() {
    for verb in verbs().iter().filter(|verb| !verb.is_empty()) {
        let page = page(verb, "--help", COLUMNS);
        let options = options(verb);
        assert!(options.len() > 3, "{verb}: {options:?}");
        for option in options {
            assert!(page.contains(&format!("{option} ")), "{verb}: no {option} in\n{page}");
        }
    }
}

/// The first cell of a row of the table below `## Options`, without backticks.
fn rows(page: &str) -> Vec<String> {
    let table = page.split("\n## Options\n").nth(1).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.map(|cell| cell.replace('`', "")).collect()
}

#[test]
fn docs_hold_each_option_of_each_verb() {
    for verb in verbs().iter().filter(|verb| !verb.is_empty()) {
        let file = root().join(format!("docs/{verb}.md"));
        let rows = rows(&fs::read_to_string(&file).unwrap());
        let of_row = |row: &String, option: &str| row.split([' ', ',']).any(|word| word == option);
        let options = [options(verb), of_each_verb()].concat();
        for option in options.iter().filter(|option| *option != "--help") {
            assert!(rows.iter().any(|row| of_row(row, option)), "{}: {option}", file.display());
        }
        // And none that there is not.
        let named = rows.iter().flat_map(|row| row.split([' ', ',']));
        for word in named.filter(|word| word.starts_with("--") && !word.starts_with("---")) {
            assert!(options.iter().any(|option| option == word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn docs_name_each_value_of_an_option() {
    let cli = Cli::command();
    let mut found = 0;
    for verb in cli.get_subcommands() {
        let file = root().join(format!("docs/{}.md", verb.get_name()));
        let page = fs::read_to_string(&file).unwrap();
        let valued = verb.get_arguments().filter(|arg| arg.get_action().takes_values());
        for value in valued.flat_map(|arg| arg.get_possible_values()) {
            let name = value.get_name();
            found += 1;
            assert!(page.contains(&format!("`{name}`")), "{}: no `{name}`", file.display());
        }
    }
    assert!(found > 30, "{found} values");
}
