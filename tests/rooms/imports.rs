//! What a file names: modules it consists of, what it imports, and paths within its code.

use std::collections::BTreeSet;

use crate::code::{Token, after_brackets, starts};

pub(crate) type Path = Vec<String>;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Modules in files of their own, with the place of each word `mod` in the source.
    pub(crate) modules: Vec<(String, usize)>,
    /// What each import is called here, and what it is: `*` for all of a module.
    pub(crate) imports: Vec<(String, Path)>,
    /// All other paths of two words and more.
    pub(crate) paths: Vec<Path>,
    /// All of both as they are written, within modules of this file too.
    pub(crate) written: Vec<Path>,
    pub(crate) words: BTreeSet<String>,
    /// Structures and enumerations that others can see.
    pub(crate) types: Vec<String>,
}

pub(crate) fn names(tokens: &[Token<'_>]) -> Names {
    let mut names = Names::default();
    names.words.extend(tokens.iter().map(|token| token.text.to_owned()));
    // Where the modules end that are written within this file.
    let mut inner: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        inner.retain(|end| *end > at);
        let rest = &tokens[at..];
        let is_word = |token: Option<&Token<'_>>| token.is_some_and(|token| is_word(token.text));
        match rest[0].text {
            "mod" if is_word(rest.get(1)) && rest.len() > 2 => {
                match rest[2].text {
                    ";" => names.modules.push((rest[1].text.to_owned(), rest[0].at)),
                    _ => inner.push(after_brackets(tokens, at + 2)),
                }
                at += 3;
            }
            "use" => {
                let end = rest.iter().position(|token| token.text == ";").unwrap_or(rest.len());
                let mut found = Vec::new();
                tree(&rest[1..end], &mut Vec::new(), &mut found);
                names.written.extend(found.iter().map(|(_, path)| path.clone()));
                for (called, path) in found {
                    if let Some(path) = seen_from_file(path, inner.len()) {
                        names.imports.push((called, path));
                    }
                }
                at += end + 1;
            }
            "pub" => {
                let after = if starts(&rest[1..], &["("]) { after_brackets(rest, 1) } else { 1 };
                if let [kind, name, ..] = &rest[after..]
                    && matches!(kind.text, "struct" | "enum")
                {
                    names.types.push(name.text.to_owned());
                }
                at += after;
            }
            first if is_word_at_start(tokens, at) => {
                let mut path = vec![first.to_owned()];
                let mut next = at + 1;
                while starts(&tokens[next..], &["::"]) && is_word(tokens.get(next + 1)) {
                    path.push(tokens[next + 1].text.to_owned());
                    next += 2;
                }
                if path.len() > 1 {
                    names.written.push(path.clone());
                    names.paths.extend(seen_from_file(path, inner.len()));
                }
                at = next;
            }
            _ => at += 1,
        }
    }
    names
}

impl Names {
    /// Whether this word, or these words one after the other (`std::fs`), are in the file.
    pub(crate) fn has(&self, name: &str) -> bool {
        let steps: Vec<_> = name.split("::").collect();
        match steps.as_slice() {
            [word] => self.words.contains(*word),
            steps => self.written.iter().any(|path| path.windows(steps.len()).any(|w| w == steps)),
        }
    }
}

fn is_word(text: &str) -> bool {
    text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}

/// Not one of a path's later words, and no field or method.
fn is_word_at_start(tokens: &[Token<'_>], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| tokens[before].text);
    is_word(tokens[at].text) && !matches!(before, Some("::" | "."))
}

/// `a::{b, c::{self, d as e}, f::*}`
fn tree(tokens: &[Token<'_>], before: &mut Path, found: &mut Vec<(String, Path)>) {
    let length = before.len();
    let mut at = 0;
    let mut called = None;
    while at < tokens.len() {
        match tokens[at].text {
            "::" => {}
            "{" => {
                let end = after_brackets(tokens, at) - 1;
                let mut from = at + 1;
                let mut depth = 0_usize;
                for to in at + 1..=end {
                    match tokens[to].text {
                        "," if depth == 0 => {
                            tree(&tokens[from..to], before, found);
                            from = to + 1;
                        }
                        "{" => depth += 1,
                        "}" if to == end => tree(&tokens[from..to], before, found),
                        "}" => depth -= 1,
                        _ => {}
                    }
                }
                before.truncate(length);
                return;
            }
            "as" => {
                called = tokens.get(at + 1).map(|token| token.text.to_owned());
                at += 1;
            }
            "self" if !before.is_empty() => {}
            word => before.push(word.to_owned()),
        }
        at += 1;
    }
    if let Some(last) = before.last().filter(|_| !tokens.is_empty()) {
        found.push((called.unwrap_or_else(|| last.clone()), before.clone()));
    }
    before.truncate(length);
}

/// As the file itself would write it: a module that is written within it is one step further down.
/// Nothing where it does not leave the file.
fn seen_from_file(mut path: Path, depth: usize) -> Option<Path> {
    for _ in 0..depth {
        match path.first().map(String::as_str) {
            Some("super") => drop(path.remove(0)),
            Some("crate") => return Some(path),
            _ => return None,
        }
    }
    // `super::a` of a module within is `a` of the file.
    let leaves = depth == 0 || path.first().is_some_and(|first| first == "super");
    leaves.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::tokens;

    fn of(source: &str) -> Names {
        names(&tokens(source))
    }

    fn imports(source: &str) -> Vec<String> {
        let shown = |(called, path): (String, Path)| format!("{called}={}", path.join("::"));
        of(source).imports.into_iter().map(shown).collect()
    }

    fn paths(source: &str) -> Vec<String> {
        of(source).paths.into_iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn a_tree_of_imports_is_its_paths() {
        let source = "use crate::{a::{self, B, c::D as E}, f}; pub(crate) use super::g::*;";
        let found = ["a=crate::a", "B=crate::a::B", "E=crate::a::c::D", "f=crate::f"];
        assert_eq!(imports(source), [&found[..], &["*=super::g::*"]].concat());
    }

    #[test]
    fn a_trailing_comma_is_no_import() {
        assert_eq!(imports("use a::{\n    b,\n    c,\n};"), ["b=a::b", "c=a::c"]);
    }

    #[test]
    fn paths_in_code_are_found() {
        let source = "fn a(b: &crate::c::D) { e::f(); let g = h.i; j::<K>(); x.l::m() }";
        assert_eq!(paths(source), ["crate::c::D", "e::f"]);
    }

    #[test]
    fn modules_within_a_file_are_one_step_down() {
        let source = "mod a { use super::B; use super::super::C; use crate::d; } use super::E;";
        assert_eq!(imports(source), ["C=super::C", "d=crate::d", "E=super::E"]);
    }

    #[test]
    fn modules_in_files_are_found() {
        let modules = of("pub mod a; mod b {} mod c;").modules;
        assert_eq!(modules, [("a".to_owned(), 4), ("c".to_owned(), 20)]);
    }

    #[test]
    fn a_name_is_found_however_it_is_imported() {
        let names = of("use std::{fs, time::Duration as D}; mod a { use b::c; } // std::io");
        assert!(names.has("std::fs") && names.has("Duration") && names.has("b::c"));
        assert!(!names.has("std::io") && !names.has("fs::std") && !names.has("Dur"));
    }

    #[test]
    fn types_that_others_see_are_found() {
        let source = "pub struct A; struct B; pub(in crate::c) enum D {} pub fn e() {}";
        assert_eq!(of(source).types, ["A", "D"]);
    }
}
