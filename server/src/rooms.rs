//! The rooms of the broker, in their order, and the test that keeps it: each uses what lies below it, and nothing above. What is in
//! a file's own room it may use as it likes, but no more than two files may need each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// From the lowest to the highest; each is the module of its name.
const ROOMS: &[&str] = &[
    "machine",
    "config",
    "failure",
    "tokens",
    "tls",
    "model",
    "image",
    "metrics",
    "core",
    "admin_http",
    "cluster",
    "partition",
    "coordinator",
    "ops",
    "session",
    "check",
    "broker",
    "commands",
];

/// Files in one folder.
const FILES_MAX: usize = 16;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file but those of tests, by its module's path.
fn files() -> BTreeMap<String, String> {
    fn below(directory: &Path, module: &str, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let module = match module {
                "" => name.clone(),
                folder if name == "mod" => folder.to_owned(),
                folder => format!("{folder}::{name}"),
            };
            if ["tests", "simulated", "simulation"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                below(&path, &module, files);
            } else {
                files.insert(module, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    below(&sources(), "", &mut files);
    for apart in ["lib", "main", "rooms"] {
        files.remove(apart).unwrap();
    }
    files
}

/// The paths that a file names, from the crate's root, in its `use` declarations and elsewhere; those of its tests left out.
fn uses(module: &str, text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let code = code.join("\n");
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut paths = BTreeSet::new();
    for (at, declared) in code.match_indices("use ") {
        let before = code[..at].rsplit('\n').next();
        if !matches!(before, Some("" | "pub " | "pub(crate) " | "pub(super) ")) {
            continue;
        }
        let tree = code[at + declared.len()..].split(';').next().unwrap();
        let tree: String = tree.split_whitespace().collect();
        match tree.split_once("::") {
            Some(("crate", below)) => expand("", below, &mut paths),
            Some(("super", below)) => expand(parent, below, &mut paths),
            Some(("self", below)) => expand(module, below, &mut paths),
            _ => {}
        }
    }
    for (at, root) in code.match_indices("crate::") {
        let is_declared = ["use ", "in "].iter().any(|before| code[..at].ends_with(before));
        let path = &code[at + root.len()..];
        let end = path.find(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':');
        if !is_declared {
            paths.insert(path[..end.unwrap_or(path.len())].trim_end_matches(':').to_owned());
        }
    }
    paths
}

/// Takes a tree of uses apart: `a::{b, c::{self, d}}` is `a::b`, `a::c` and `a::c::d`.
fn expand(base: &str, tree: &str, paths: &mut BTreeSet<String>) {
    let join = |name: &str| {
        if base.is_empty() {
            name.to_owned()
        } else {
            format!("{base}::{name}")
        }
    };
    if let Some(inner) = tree.strip_prefix('{').and_then(|tree| tree.strip_suffix('}')) {
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(base, &inner[start..at], paths);
                    start = at + 1;
                }
                _ => {}
            }
        }
    } else if let Some((name, below)) = tree.split_once("::") {
        expand(&join(name), below, paths);
    } else if !tree.is_empty() {
        paths.insert(if tree == "self" { base.to_owned() } else { join(tree) });
    }
}

fn room_of(path: &str) -> Option<usize> {
    let module = path.split("::").next().unwrap();
    ROOMS.iter().position(|room| *room == module)
}

/// The files that each file uses.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let files = files();
    let of_path = |path: &String| {
        let mut module = path.as_str();
        while !files.contains_key(module) {
            module = module.rsplit_once("::")?.0;
        }
        Some(module.to_owned())
    };
    let arrows = files.iter().map(|(module, text)| {
        let used = uses(module, text)
            .iter()
            .filter_map(of_path)
            .filter(|used| used != module)
            .collect();
        (module.clone(), used)
    });
    arrows.collect()
}

#[test]
fn a_tree_of_uses_is_read_whole() {
    let text = "use crate::{\n    a::{self, b::{C, D}},\n    e,\n};\npub(crate) use self::f::G;\nuse super::h::I;\nuse std::io;\n// crate::no\nlet x = crate::j::k(io);\n";
    let uses = uses("x::y", text);
    let expected = ["a", "a::b::C", "a::b::D", "e", "j::k", "x::h::I", "x::y::f::G"];
    assert_eq!(uses.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn every_file_is_in_a_room() {
    for module in files().keys() {
        assert!(room_of(module).is_some(), "{module}");
    }
}

#[test]
fn no_room_uses_one_above_it() {
    let mut wrong = Vec::new();
    for (module, used) in arrows() {
        let above = used.iter().filter(|used| room_of(used) > room_of(&module));
        wrong.extend(above.map(|used| format!("{module} uses {used}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_more_than_two_files_need_each_other() {
    let arrows = arrows();
    let reached = |from: &String| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            for used in &arrows[module] {
                if reached.insert(used.clone()) {
                    next.push(used);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = arrows.keys().map(|module| (module, reached(module))).collect();
    for (module, uses) in &reached {
        let circle: Vec<_> = uses.iter().filter(|used| reached[used].contains(*module)).collect();
        assert!(circle.len() <= 2, "{circle:#?}");
    }
}

#[test]
fn no_folder_is_crowded() {
    fn look(directory: &Path) {
        let paths: Vec<PathBuf> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let files = paths.iter().filter(|path| path.is_file()).count();
        assert!(files <= FILES_MAX, "{} has {files} files", directory.display());
        for folder in paths.iter().filter(|path| path.is_dir()) {
            look(folder);
        }
    }
    look(&sources());
}
