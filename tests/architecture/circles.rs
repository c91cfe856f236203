//! No two files know each other, directly or through others, but for a parent and the files beneath it. What a file knows is
//! what its paths lead to: through `pub use`, to the file that has the name.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Token, follows, module_of, read, sources, tokens};

/// A path from the crate's root: of a module, or of something in one.
type Name = Vec<String>;

/// What a file says of others.
struct File {
    /// What it names.
    named: Vec<Name>,
    /// The names that it passes on with `pub use`, and what each stands for.
    passed_on: BTreeMap<String, Name>,
}

#[test]
fn no_two_files_know_each_other() {
    let code = sources().into_iter().map(|file| (module_of(&file), read(&file))).collect();
    let circles = circles(&code);
    assert!(circles.is_empty(), "files that know each other in a circle:\n{}", circles.join("\n"));
}

/// Returns the circles among modules, each in a line.
fn circles(code: &BTreeMap<Name, String>) -> Vec<String> {
    // What tests know is theirs.
    let written = |text: &str| tokens(text.split("#[cfg(test)]").next().unwrap_or_default());
    let files: BTreeMap<&Name, File> =
        code.iter().map(|(module, text)| (module, File::read(module, &written(text), code))).collect();
    let knows: BTreeMap<&Name, BTreeSet<&Name>> = files
        .iter()
        .map(|(module, file)| {
            let known = file.named.iter().filter_map(|name| home(name, &files, 0));
            // A parent holds what the files beneath it use.
            (*module, known.filter(|known| !module.starts_with(known)).collect())
        })
        .collect();
    let reach: BTreeMap<_, _> = knows.keys().map(|module| (*module, reachable(module, &knows))).collect();
    let mut circles = BTreeSet::new();
    for (module, reached) in &reach {
        let circle: Vec<_> = reached.iter().filter(|other| reach[**other].contains(module)).collect();
        if circle.len() > 1 {
            circles.insert(circle.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(", "));
        }
    }
    circles.into_iter().collect()
}

/// Returns all modules that a module knows, directly or through others.
fn reachable<'a>(from: &'a Name, knows: &BTreeMap<&'a Name, BTreeSet<&'a Name>>) -> BTreeSet<&'a Name> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![from];
    while let Some(module) = waiting.pop() {
        for known in &knows[module] {
            if reached.insert(*known) {
                waiting.push(known);
            }
        }
    }
    reached
}

/// Returns the module in which something is.
fn home<'a>(name: &[String], files: &BTreeMap<&'a Name, File>, depth: usize) -> Option<&'a Name> {
    let length = (1..=name.len()).rev().find(|length| files.contains_key(&name[..*length].to_vec()))?;
    let (module, file) = files.get_key_value(&name[..length].to_vec())?;
    let passed_on = name.get(length).and_then(|next| file.passed_on.get(next));
    match passed_on {
        // A `pub use` of a name of the same module would lead round for ever.
        Some(stands_for) if depth < 8 => home(stands_for, files, depth + 1),
        _ => Some(module),
    }
}

impl File {
    fn read(module: &Name, tokens: &[Token], code: &BTreeMap<Name, String>) -> Self {
        let mut file = Self { named: Vec::new(), passed_on: BTreeMap::new() };
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let (mut at, mut in_use, mut is_public) = (0, false, false);
        while at < tokens.len() {
            match text(at) {
                "use" => {
                    in_use = true;
                    is_public = at > 0 && matches!(text(at - 1), "pub" | ")");
                }
                ";" => in_use = false,
                "mod" if text(at + 2) == ";" => file.named.push(joined(module, text(at + 1))),
                first if follows(tokens, at + 1, "::") && (at == 0 || text(at - 1) != ":") => {
                    let start = match first {
                        "crate" => Some((Vec::new(), at + 3)),
                        "self" => Some((module.clone(), at + 3)),
                        "super" => {
                            let (mut above, mut next) = (module.len().saturating_sub(1), at + 3);
                            while text(next) == "super" {
                                (above, next) = (above.saturating_sub(1), next + 3);
                            }
                            Some((module[..above].to_vec(), next))
                        }
                        child if in_use && code.contains_key(&joined(module, child)) => Some((module.clone(), at)),
                        _ => None,
                    };
                    if let Some((prefix, next)) = start {
                        let mut names = Vec::new();
                        at = expand(tokens, next, &prefix, &mut names);
                        if in_use && is_public {
                            file.passed_on
                                .extend(names.iter().filter_map(|(own, name)| Some((own.clone()?, name.clone()))));
                        }
                        file.named.extend(names.into_iter().map(|(_, name)| name));
                        continue;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        file
    }
}

fn joined(module: &Name, child: &str) -> Name {
    module.iter().map(String::as_str).chain([child]).map(str::to_owned).collect()
}

/// Reads a path or a tree of paths; returns the place behind it. Each path comes with the name that it gets there.
fn expand(tokens: &[Token], mut at: usize, prefix: &Name, names: &mut Vec<(Option<String>, Name)>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut path = prefix.clone();
    if text(at) == "{" {
        at += 1;
        while !matches!(text(at), "}" | "") {
            at = if text(at) == "," { at + 1 } else { expand(tokens, at, &path, names) };
        }
        return at + 1;
    }
    if text(at) != "self" {
        path.push(text(at).to_owned());
    }
    if follows(tokens, at + 1, "::") && text(at + 3) != "<" {
        return expand(tokens, at + 3, &path, names);
    }
    let renamed = text(at + 1) == "as";
    names.push((if renamed { Some(text(at + 2).to_owned()) } else { path.last().cloned() }, path));
    at + if renamed { 3 } else { 1 }
}

#[test]
fn circles_are_found_through_names_that_are_passed_on() {
    let found = |files: &[(&str, &str)]| {
        let module = |name: &str| name.split("::").map(str::to_owned).collect::<Name>();
        circles(&files.iter().map(|(name, text)| (module(name), (*text).to_owned())).collect())
    };
    let parent = ("a", "mod b; mod c; pub use b::B; pub(crate) use c::{C as D};");
    assert_eq!(found(&[parent, ("a::b", "use super::c::C;"), ("a::c", "use super::B;")]), ["a::b, a::c"]);
    assert_eq!(found(&[parent, ("a::b", "fn f() -> super::D {}"), ("a::c", "use crate::{a::{B}};")]), ["a::b, a::c"]);
    assert_eq!(found(&[parent, ("a::b", "use super::{c::{self, C}, Own};"), ("a::c", "use super::Own;")]), [""; 0]);
    assert_eq!(found(&[parent, ("a::b", "use super::C;"), ("a::c", "#[cfg(test)] use super::B;")]), [""; 0]);
    assert_eq!(
        found(&[("a", "use crate::b::B;"), ("b", "use crate::c;"), ("c", "fn f() { crate::a::g() }")]),
        ["a, b, c"]
    );
}
