//! The modules' arrows point down. `src/lib.rs` lists the modules from top to bottom: a blank line is a step down, and
//! modules of one paragraph do not know each other. This test reads every file under `src/` and names each import that
//! points up or sideways. It reads text, not types: comments and string literals are taken out, then every path that
//! starts at the crate's root (`crate::x`, `crate::{x, y}`, enough `super::`) is an arrow to its first segment.

mod circles;
mod source;

use std::{collections::BTreeMap, path::Path};

use source::{Token, follows, module_of, read, rust_files, sources, tokens};

/// What a module must not know although it stands above it (ARCHITECTURE.md says why).
const STRANGERS: [(&str, &str); 3] = [("chat", "tools"), ("chat", "llm"), ("chat", "sandbox")];

/// Crates that these places alone may name, so that the rest does not depend on how they speak.
const KEPT_IN: [(&str, &[&str]); 4] = [
    ("async_openai", &["src/llm"]),
    ("bollard", &["src/sandbox"]),
    ("podman_api", &["src/sandbox/engine_info.rs"]),
    // `doctor` looks at a database that the store may be unable to open.
    ("rusqlite", &["src/store", "src/ops/doctor/database.rs"]),
];

#[test]
fn arrows_point_down() {
    let levels = levels(&read("src/lib.rs"));
    assert!(levels.len() > 3, "src/lib.rs lists too few modules: {levels:?}");
    let mut wrong = Vec::new();
    for file in sources() {
        let inside = module_of(&file);
        let Some(from) = inside.first() else { continue };
        for arrow in arrows(&read(&file), inside.len()) {
            if let Some(why) = judge(&levels, from, &arrow.to) {
                wrong.push(format!("{}:{}: {from} → {}: {why}", file.display(), arrow.line, arrow.to));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the order of src/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn the_binary_is_thin() {
    let main = tokens(&read("src/main.rs"));
    for (at, token) in main.iter().enumerate() {
        if token.text == "matrix_agent" && follows(&main, at + 1, "::") {
            let to = &main[at + 3].text;
            assert_eq!(to, "cli", "src/main.rs:{}: the binary calls `cli` and nothing else", token.line);
        }
    }
}

#[test]
fn foreign_crates_stay_where_they_belong() {
    for file in sources() {
        let tokens = tokens(&read(&file));
        for (name, homes) in KEPT_IN {
            let named =
                tokens.iter().enumerate().any(|(at, token)| token.text == name && follows(&tokens, at + 1, "::"));
            let at_home = homes.iter().any(|home| file.starts_with(home));
            assert!(!named || at_home, "{}: `{name}` belongs into {}", file.display(), homes.join(" or "));
        }
    }
}

/// Whoever makes a command by itself passes the server's environment on, with all secrets in it.
#[test]
fn programs_are_started_in_one_place() {
    for file in sources() {
        // What tests start is theirs.
        let tokens = tokens(read(&file).split("#[cfg(test)]").next().unwrap_or_default());
        let makes =
            |at: usize| tokens[at].text == "Command" && follows(&tokens, at + 1, "::") && tokens[at + 3].text == "new";
        let made = (0..tokens.len().saturating_sub(3)).any(makes);
        assert!(!made || file.ends_with("src/child.rs"), "{}: use `child::command`", file.display());
    }
}

#[test]
fn the_unit_bounds_the_server_and_leaves_no_core_with_its_secrets() {
    let unit = read("systemd/matrix-agent.service");
    for line in ["UMask=0077", "LimitCORE=0", "MemoryMax=1G"] {
        assert!(unit.lines().any(|written| written == line), "{line}");
    }
}

#[test]
fn the_map_names_every_module() {
    let map = read("ARCHITECTURE.md");
    for module in levels(&read("src/lib.rs")).keys() {
        assert!(map.contains(&format!("`{module}`")), "ARCHITECTURE.md does not tell what `{module}` is");
    }
}

/// A row that says what stops a stranger is only worth the test that would fail if it did not.
#[test]
fn the_threats_name_tests_and_each_is_there() {
    let threats = read("docs/threats.md");
    let tests: Vec<_> = rust_files("tests").into_iter().chain(sources()).map(read).collect();
    let is_path =
        |named: &str| Path::new(named).extension().is_some_and(|ending| ending == "rs") || named.ends_with('/');
    let is_there = |named: &str| {
        if is_path(named) {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            return root.join(named).exists() || root.join("tests").join(named).exists();
        }
        let name = named.rsplit("::").next().unwrap_or_default();
        let function = match name.strip_suffix('…') {
            Some(begin) => format!("fn {begin}"),
            None => format!("fn {name}("),
        };
        // Those of a macro stand before their arguments.
        let of_macro = format!("\n    {name}: ");
        tests.iter().any(|test| test.contains(&function) || test.contains(&of_macro))
    };
    // In backquotes: a file or folder, or the long name of a test.
    let is_test = |named: &&str| {
        let name = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_:…".contains(letter);
        is_path(named) || named.chars().all(name) && named.matches('_').count() > 2
    };
    let named = |text: &str| text.split('`').skip(1).step_by(2).filter(is_test).map(str::to_owned).collect::<Vec<_>>();
    let missing: Vec<_> = named(&threats).into_iter().filter(|named| !is_there(named)).collect();
    assert!(missing.is_empty(), "docs/threats.md names what is not there: {missing:#?}");

    let rows = || threats.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    let held: Vec<_> = rows().filter(|(_, rest)| !named(rest).is_empty()).map(|(who, _)| who.to_lowercase()).collect();
    let strangers: Vec<_> = rows().filter_map(|(who, _)| who.strip_prefix("**")?.split("**").next()).collect();
    assert!(strangers.len() > 8, "the table was not read: {strangers:?}");
    for who in strangers {
        let who = who.to_lowercase();
        let is_held = held.iter().any(|held| who.starts_with(held) || held.trim_start_matches("**").starts_with(&who));
        assert!(is_held, "docs/threats.md names no test for the row of {who}");
    }
}

/// Says what is wrong with an arrow, if anything is. A name that is no module is the root's own (a macro, a constant).
fn judge(levels: &BTreeMap<String, usize>, from: &str, to: &str) -> Option<String> {
    if from == to {
        return None;
    }
    let (Some(above), Some(below)) = (levels.get(from), levels.get(to)) else {
        return (!levels.contains_key(from)).then(|| format!("`{from}` is not in src/lib.rs"));
    };
    if below < above {
        Some(format!("`{to}` stands above; let what must travel up travel as an event or a parameter"))
    } else if below == above {
        Some("they stand side by side and do not know each other".to_owned())
    } else if STRANGERS.contains(&(from, to)) {
        Some("it must not know it, though it stands above it".to_owned())
    } else {
        None
    }
}

/// Returns the modules of `lib.rs` with their level, the top being 0.
fn levels(lib: &str) -> BTreeMap<String, usize> {
    let mut levels = BTreeMap::new();
    let mut level = 0;
    let mut paragraph_had_module = false;
    for line in lib.lines() {
        let module = line.trim().strip_prefix("pub ").unwrap_or(line.trim()).strip_prefix("mod ");
        if let Some(name) = module.and_then(|rest| rest.strip_suffix(';')) {
            levels.insert(name.to_owned(), level);
            paragraph_had_module = true;
        } else if line.trim().is_empty() && paragraph_had_module {
            level += 1;
            paragraph_had_module = false;
        }
    }
    levels
}

/// An import that starts at the crate's root.
#[derive(Debug, PartialEq)]
struct Arrow {
    to: String,
    line: usize,
}

/// Finds the arrows of a file whose own module is `depth` segments below the root.
fn arrows(source: &str, depth: usize) -> Vec<Arrow> {
    let tokens = tokens(source);
    let mut arrows = Vec::new();
    let mut braces = 0_usize;
    let mut inline: Vec<usize> = Vec::new(); // the brace depths at which inline modules were opened
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => {
                if at >= 2 && tokens[at - 2].text == "mod" {
                    inline.push(braces);
                }
                braces += 1;
            }
            "}" => {
                braces = braces.saturating_sub(1);
                if inline.last() == Some(&braces) {
                    inline.pop();
                }
            }
            "crate" if follows(&tokens, at + 1, "::") => targets(&tokens, at + 3, &mut arrows),
            "super" if at == 0 || tokens[at - 1].text != ":" => {
                let mut steps = 1;
                let mut next = at + 1;
                while follows(&tokens, next, "::") && tokens.get(next + 2).is_some_and(|token| token.text == "super") {
                    steps += 1;
                    next += 3;
                }
                if steps >= depth + inline.len() && follows(&tokens, next, "::") {
                    targets(&tokens, next + 2, &mut arrows);
                }
            }
            _ => {}
        }
        at += 1;
    }
    arrows
}

/// Notes what a path from the root leads to: one name, or each first name in a brace.
fn targets(tokens: &[Token], at: usize, arrows: &mut Vec<Arrow>) {
    let Some(first) = tokens.get(at) else { return };
    if first.text != "{" {
        arrows.push(Arrow { to: first.text.clone(), line: first.line });
        return;
    }
    let mut depth = 0;
    let mut expected = false;
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => {
                depth += 1;
                expected = depth == 1;
            }
            "}" => depth -= 1,
            "," => expected = depth == 1,
            _ if expected => {
                arrows.push(Arrow { to: token.text.clone(), line: token.line });
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

#[test]
fn reads_imports_as_rust_does() {
    let found = |source: &str, depth: usize| -> Vec<String> {
        arrows(source, depth).into_iter().map(|arrow| arrow.to).collect()
    };
    assert_eq!(found("use crate::hub::Actor;", 1), ["hub"]);
    assert_eq!(
        found("use crate::{ids::{RoomKey, digest}, store};\nfn f() { crate::hub::run() }", 2),
        ["ids", "store", "hub"]
    );
    assert_eq!(found("use super::store::Store;", 1), ["store"], "from a top-level file `super` is the root");
    assert_eq!(found("use super::store::Store;", 2), Vec::<String>::new());
    assert_eq!(found("use super::super::{store::Store, ids};", 2), ["store", "ids"]);
    assert_eq!(found("mod tests { use super::super::hub; } use super::hub;", 1), ["hub", "hub"]);
    assert_eq!(found("// crate::hub\n/* crate::a /* crate::b */ */ /// [`crate::c`]\n", 1), Vec::<String>::new());
    assert_eq!(
        found(r##"const A: &str = r#"crate::hub " "#; let b = "\"crate::x"; let c = '"'; crate::yes"##, 1),
        ["yes"]
    );
    assert_eq!(found("fn f<'a>(x: &'a str) {} use crate::ids;", 1), ["ids"]);
}

#[test]
fn tells_up_and_sideways_from_down() {
    let levels = levels("//! Words.\n\npub mod hub;\n\npub mod llm;\npub mod sandbox;\n\nmod ids;\n");
    assert_eq!(judge(&levels, "hub", "ids"), None);
    assert_eq!(judge(&levels, "hub", "hub"), None);
    assert!(judge(&levels, "ids", "hub").is_some_and(|why| why.contains("above")));
    assert!(judge(&levels, "llm", "sandbox").is_some_and(|why| why.contains("side by side")));
    assert!(judge(&levels, "new", "ids").is_some_and(|why| why.contains("src/lib.rs")));
    assert_eq!(judge(&levels, "hub", "root_macro"), None);
}
