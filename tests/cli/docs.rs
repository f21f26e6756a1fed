//! What README and docs/ tell people to type can be typed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ctwatch::cli::Cli;

use crate::root;

/// All pages but CHANGELOG.md, which tells of the past.
fn pages() -> Vec<PathBuf> {
    let mut open = vec![root().join("docs")];
    let mut pages = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"] {
        pages.push(root().join(name));
    }
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// Lines of code, and what stands in backticks in the text between.
fn code(page: &str) -> Vec<String> {
    let mut code = Vec::new();
    for (number, part) in page.split("```").enumerate() {
        if number % 2 == 1 {
            let lines = part.lines();
            let is_prompt = part.lines().any(|line| line.starts_with("$ "));
            let typed = lines.filter(|line| !is_prompt || line.starts_with("$ "));
            code.extend(typed.map(|line| line.trim_start_matches("$ ").to_owned()));
        } else {
            let inline = part.split('`').skip(1).step_by(2);
            code.extend(inline.map(|code| code.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    code
}

/// The words of a command, as a shell would hand them over; a comment and what a pipe leads to are
/// left out.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        let is_new = words.last().is_some_and(String::is_empty);
        match (quote, c) {
            (Some(mark), _) if mark == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '#') if is_new => break,
            (None, '|' | ';' | '>' | '&') => break,
            (None, ' ') if !is_new => words.push(String::new()),
            (None, ' ') => {}
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The arguments, where the program is this one.
fn arguments(line: &str, program: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("sudo ").trim_start_matches("target/release/");
    let rest = line.strip_prefix(program)?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| words(rest))
}

/// What an output of ctwatch begins with.
fn is_heading(arguments: &[String]) -> bool {
    arguments.first().is_some_and(|word| word == env!("CARGO_PKG_VERSION"))
}

fn all(program: &str) -> Vec<(PathBuf, String, Vec<String>)> {
    let mut all = Vec::new();
    for page in pages() {
        for line in code(&fs::read_to_string(&page).unwrap()) {
            if let Some(arguments) = arguments(&line, program).filter(|words| !is_heading(words)) {
                all.push((page.clone(), line, arguments));
            }
        }
    }
    all
}

#[test]
fn each_ctwatch_command_in_the_docs_parses() {
    let all = all("ctwatch");
    assert!(all.len() > 30, "only {} commands were found", all.len());
    for (page, line, arguments) in all {
        let words = std::iter::once("ctwatch".to_owned()).chain(arguments);
        if let Err(error) = Cli::of(words.map(Into::into).collect()) {
            assert!(!error.use_stderr(), "{}: {line}: {error}", page.display());
        }
    }
}

#[test]
fn each_xtask_verb_in_the_docs_exists() {
    let source = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let verbs = source.split("enum Command {").nth(1).unwrap().split("\n}").next().unwrap();
    let variants = verbs.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?.split(['(', ',']).next()?;
        name.starts_with(|c: char| c.is_ascii_uppercase()).then(|| name.to_lowercase())
    });
    let variants: Vec<String> = variants.collect();
    assert!(variants.iter().any(|verb| verb == "test") && variants.len() > 8, "{variants:?}");
    let all = all("cargo xtask");
    assert!(all.len() > 10, "only {} commands were found", all.len());
    for (page, line, arguments) in all {
        let verb = arguments.first().filter(|word| !word.starts_with('-'));
        let is_known = verb.is_none_or(|verb| variants.contains(verb));
        assert!(is_known, "{}: {line}", page.display());
    }
}

#[test]
fn each_link_to_a_file_leads_there() {
    let mut found = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            found += 1;
            let target = page.parent().unwrap_or(Path::new("")).join(file);
            assert!(target.exists(), "{}: {link}", page.display());
        }
    }
    assert!(found > 10, "only {found} links were found");
}

/// README's block is compared with what ctwatch prints by tests/netns/readme.rs.
#[test]
fn docs_explain_each_column_of_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let header = readme.lines().find(|line| line.starts_with("time ")).unwrap();
    let page = fs::read_to_string(root().join("docs/watch.md")).unwrap();
    let explained = code(&page).join(" ");
    let explained: Vec<_> = explained.split_whitespace().collect();
    let columns: Vec<_> = header.split_whitespace().skip(2).collect();
    assert!(columns.len() > 8, "{header}");
    for column in columns {
        assert!(explained.contains(&column), "docs/watch.md: no {column}");
    }
}

#[test]
fn words_are_a_shells() {
    assert_eq!(words(" --netns '!pod x' -n 2 # why"), ["--netns", "!pod x", "-n", "2"]);
    assert_eq!(words("census | head"), ["census"]);
    assert_eq!(arguments("sudo ctwatch 5 12", "ctwatch").unwrap(), ["5", "12"]);
    assert!(arguments("ctwatch: waiting", "ctwatch").is_none());
    let page = "`a\nb` c\n```\nd\n```\n`e`\n```\n$ f\ng\n```\n";
    assert_eq!(code(page), ["a b", "", "d", "e", "f"]);
}
