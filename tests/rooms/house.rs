//! Which file is which module, and which of them names which.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path as FilePath, PathBuf},
    slice,
};

use crate::{
    code::{product, tokens},
    imports::{Names, Path, names},
};

/// What the kernel's half and ctwatch agree on: a crate of its own, and a room like the others.
const ABI: &str = "ctwatch_abi";

pub(crate) struct File {
    /// Below `src`.
    pub(crate) path: String,
    module: Path,
    /// Without tests.
    product: Names,
    /// With them.
    all: Names,
    is_for_tests: bool,
}

#[derive(Default)]
pub(crate) struct House {
    files: Vec<File>,
}

/// Who names whom.
pub(crate) type Arrows = BTreeSet<(String, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Product,
    Tests,
}

impl House {
    /// All files that the library and the executable consist of.
    pub(crate) fn read(src: &FilePath) -> Self {
        let mut house = Self::default();
        for (root, module) in [("lib.rs", None), ("main.rs", Some("main"))] {
            let module = module.map(str::to_owned).into_iter().collect();
            house.add(&|file| fs::read_to_string(src.join(file)).ok(), root.into(), module, false);
        }
        house
    }

    fn add(
        &mut self,
        source: &dyn Fn(&FilePath) -> Option<String>,
        path: PathBuf,
        module: Path,
        for_tests: bool,
    ) {
        let Some(text) = source(&path) else { return };
        let tokens = tokens(&text);
        let (product, all) = (names(&product(&tokens)), names(&tokens));
        let folder = path.parent().unwrap_or(FilePath::new("")).to_owned();
        let stem = path.file_stem().unwrap_or_default();
        let below = match stem.to_str() {
            Some("lib" | "main" | "mod") => folder.clone(),
            _ => folder.join(stem),
        };
        for (name, at) in &all.modules {
            let is_for_tests = for_tests || !product.modules.contains(&(name.clone(), *at));
            let file = match path_attribute(&text[..*at]) {
                Some(named) => folder.join(named),
                None => [below.join(format!("{name}.rs")), below.join(name).join("mod.rs")]
                    .into_iter()
                    .find(|file| source(file).is_some())
                    .unwrap_or_default(),
            };
            self.add(source, file, [&module[..], slice::from_ref(name)].concat(), is_for_tests);
        }
        let path = path.display().to_string();
        self.files.push(File { path, module, product, all, is_for_tests: for_tests });
    }

    pub(crate) fn paths(&self) -> BTreeSet<&str> {
        self.files.iter().map(|file| file.path.as_str()).collect()
    }

    /// The first part of each module's path.
    pub(crate) fn rooms(&self) -> BTreeSet<&str> {
        self.files.iter().map(|file| room(&file.module)).collect()
    }

    /// What is named in the files of a room, but in its tests.
    pub(crate) fn of_room(&self, name: &str) -> impl Iterator<Item = (&str, &Names)> {
        let files = self.files.iter().filter(move |file| room(&file.module) == name);
        files.map(|file| (file.path.as_str(), &file.product))
    }

    /// `sample -> host`: the room on the left names the one on the right.
    pub(crate) fn rooms_named(&self, of: Of) -> Arrows {
        let mut arrows = Arrows::new();
        self.each_name(of, |file, named, _| {
            let (from, to) = (room(&file.module), room(named));
            if from != to {
                arrows.insert((from.to_owned(), to.to_owned()));
            }
        });
        arrows
    }

    /// Which file of the product names which. What a module passes on is where it is defined.
    pub(crate) fn files_named(&self) -> Arrows {
        let mut arrows = Arrows::new();
        self.each_name(Of::Product, |file, _, real| {
            let target = self.file(real).map(|target| &target.path);
            if let Some(target) = target.filter(|target| **target != file.path) {
                arrows.insert((file.path.clone(), target.clone()));
            }
        });
        arrows
    }

    fn each_name(&self, of: Of, mut each: impl FnMut(&File, &[String], &[String])) {
        for file in self.files.iter().filter(|file| of == Of::Tests || !file.is_for_tests) {
            let names = if of == Of::Tests { &file.all } else { &file.product };
            let imports = names.imports.iter().map(|(_, path)| path);
            for path in imports.chain(&names.paths) {
                if let Some((named, real)) = self.resolve(file, names, path, 0) {
                    each(file, &named, &real);
                }
            }
        }
    }

    /// The module that a path leads to, and the one in which what it names is defined.
    fn resolve(
        &self,
        file: &File,
        names: &Names,
        path: &[String],
        steps: usize,
    ) -> Option<(Path, Path)> {
        // `use a::b` in a and `use b::a` in b, which would not compile.
        if steps > 8 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let mut whole = match first.as_str() {
            "crate" => Path::new(),
            "ctwatch" if file.path == "main.rs" => Path::new(),
            "self" => file.module.clone(),
            "super" => {
                let ups = path.iter().take_while(|step| *step == "super").count();
                let up = file.module.len().checked_sub(ups)?;
                let start = [&["crate".to_owned()], &file.module[..up], &path[ups..]].concat();
                return self.resolve(file, names, &start, steps + 1);
            }
            ABI => return Some((vec![ABI.to_owned()], vec![ABI.to_owned()])),
            child if names.modules.iter().any(|(name, _)| name == child) => {
                [&file.module[..], &[child.to_owned()]].concat()
            }
            _ => {
                let import = names.imports.iter().find(|(called, path)| {
                    called == first && path.first().is_some_and(|start| start != first)
                });
                let path = [&import?.1[..], rest].concat();
                return self.resolve(file, names, &path, steps + 1);
            }
        };
        let mut rest = rest.iter().peekable();
        while let Some(step) = rest.peek() {
            whole.push((*step).clone());
            if self.file(&whole).is_none() {
                whole.pop();
                break;
            }
            rest.next();
        }
        let passed_on = rest.next().and_then(|item| {
            let module = self.file(&whole)?;
            let (_, path) = module.all.imports.iter().find(|(called, _)| called == item)?;
            Some(self.resolve(module, &module.all, path, steps + 1)?.1)
        });
        Some((whole.clone(), passed_on.unwrap_or(whole)))
    }

    fn file(&self, module: &[String]) -> Option<&File> {
        self.files.iter().find(|file| file.module == module)
    }

    /// Names of types that are defined in more than one file, with the files.
    pub(crate) fn types_of_many(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut types: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for file in self.files.iter().filter(|file| !file.is_for_tests) {
            for name in &file.product.types {
                types.entry(name).or_default().insert(&file.path);
            }
        }
        let types = types.into_iter().filter(|(_, files)| files.len() > 1);
        types.map(|(name, files)| (name, files.into_iter().collect())).collect()
    }
}

fn room(module: &[String]) -> &str {
    module.first().map_or("lib", |room| if room == ABI { "abi" } else { room })
}

/// `#[path = "owners_tests.rs"]` of the `mod` that comes after this text.
fn path_attribute(before: &str) -> Option<&str> {
    let (_, after) = before.rsplit_once("#[path = \"")?;
    let (file, rest) = after.split_once("\"]")?;
    let is_next = !rest.contains([';', '{', '}']);
    is_next.then_some(file)
}

/// One way around: each names the next, the last the first.
pub(crate) fn cycle(arrows: &Arrows) -> Option<Vec<String>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in arrows {
        next.entry(from).or_default().push(to);
    }
    let mut done = BTreeSet::new();
    next.keys().find_map(|start| around(start, &next, &mut Vec::new(), &mut done))
}

fn around<'a>(
    at: &'a str,
    next: &BTreeMap<&'a str, Vec<&'a str>>,
    way: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<String>> {
    if let Some(begin) = way.iter().position(|step| *step == at) {
        return Some(way[begin..].iter().map(|step| (*step).to_owned()).collect());
    }
    if done.contains(at) {
        return None;
    }
    way.push(at);
    for to in next.get(at).into_iter().flatten() {
        if let Some(cycle) = around(to, next, way, done) {
            return Some(cycle);
        }
    }
    way.pop();
    done.insert(at);
    None
}

/// Whether one of them leads to the other.
pub(crate) fn leads(arrows: &Arrows, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            open.extend(arrows.iter().filter(|(a, _)| a == at).map(|(_, b)| b.as_str()));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(files: &[(&str, &str)]) -> House {
        let source = |file: &FilePath| {
            let found = files.iter().find(|(path, _)| FilePath::new(path) == file);
            found.map(|(_, text)| (*text).to_owned())
        };
        let mut house = House::default();
        house.add(&source, "lib.rs".into(), Path::new(), false);
        house
    }

    fn shown(arrows: &Arrows) -> Vec<String> {
        arrows.iter().map(|(from, to)| format!("{from} -> {to}")).collect()
    }

    #[test]
    fn a_re_export_leads_to_where_it_is_defined() {
        let house = house(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::C;"),
            ("b/mod.rs", "mod c; pub use c::C;"),
            ("b/c.rs", "pub struct C;"),
        ]);
        assert_eq!(shown(&house.rooms_named(Of::Product)), ["a -> b"]);
        assert_eq!(shown(&house.files_named()), ["a.rs -> b/c.rs", "b/mod.rs -> b/c.rs"]);
    }

    #[test]
    fn an_imported_module_is_followed_in_the_code() {
        let house = house(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b; fn f() { b::c::g(); }"),
            ("b.rs", "pub mod c;"),
            ("b/c.rs", "fn g() { super::super::a::f(); }"),
        ]);
        let arrows = ["a.rs -> b.rs", "a.rs -> b/c.rs", "b/c.rs -> a.rs"];
        assert_eq!(shown(&house.files_named()), arrows);
        assert_eq!(cycle(&house.files_named()).unwrap(), ["a.rs", "b/c.rs"]);
    }

    #[test]
    fn tests_are_no_part_of_the_product() {
        let house = house(&[
            ("lib.rs", "mod a; #[cfg(test)] mod b;"),
            ("a.rs", "#[cfg(test)] #[path = \"a_tests.rs\"] mod tests;"),
            ("a_tests.rs", "use crate::b::x; use super::y;"),
            ("b.rs", "use crate::a::z; use ctwatch_abi::T;"),
        ]);
        assert_eq!(shown(&house.files_named()), [""; 0]);
        assert_eq!(shown(&house.rooms_named(Of::Tests)), ["a -> b", "b -> a", "b -> abi"]);
        assert_eq!(house.paths().len(), 4);
    }

    #[test]
    fn a_cycle_of_any_length_is_found() {
        let arrows = |all: &[(&str, &str)]| -> Arrows {
            all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let mut all = arrows(&[("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")]);
        assert_eq!(cycle(&all), None);
        assert!(leads(&all, "a", "d") && !leads(&all, "d", "a"));
        all.insert(("d".to_owned(), "b".to_owned()));
        assert_eq!(cycle(&all).unwrap(), ["b", "c", "d"]);
    }
}
