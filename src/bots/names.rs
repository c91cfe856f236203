//! Names in a text: how people call somebody, and what they say besides. Pure.
//!
//! Used by bots that answer only when they are called, and by the chat protocols that know what an account is called.

use std::ops::Range;

/// Characters that may go on a name, such as those of `llama-2` and `@llama.two`.
const GOES_ON: &[char] = &['.', '-', '_', '=', '/', '+'];
/// What stands between a name and what is said to it.
const BETWEEN: &[char] = &[':', ',', ';', ' ', '\u{a0}', '\t', '\n', '\r'];

/// Returns where a name stands first in a text as a whole word, in any case. A name that begins with `@` and names no server
/// is not found in the name of somebody at one, as `@llama` in `@llama:example.org`.
pub(crate) fn find(text: &str, name: &str) -> Option<Range<usize>> {
    text.char_indices().find_map(|(start, _)| {
        let before = text[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || "_@/-=+".contains(c)) {
            return None;
        }
        let end = start + prefix(&text[start..], name)?;
        ends_there(&text[end..], name).then_some(start..end)
    })
}

/// Returns a text without what is only shown in it: code, and what somebody else has said. Who is named there is not called.
pub(crate) fn said(text: &str) -> String {
    let (mut said, mut fence) = (String::with_capacity(text.len()), None);
    for line in text.lines() {
        let begun = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| begun.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => {}
            (None, None) if begun.starts_with('>') => {}
            (None, None) => {
                let mut line = line.to_owned();
                while line.contains("``") {
                    line = line.replace("``", "`");
                }
                // Every second part stands between marks, unless the last mark is alone.
                let parts: Vec<_> = line.split('`').collect();
                let all_closed = parts.len() % 2 == 1;
                for (index, part) in parts.iter().enumerate() {
                    if index % 2 == 0 || (!all_closed && index + 1 == parts.len()) {
                        said.push_str(part);
                    }
                    said.push(' ');
                }
            }
        }
        said.push('\n');
    }
    said
}

/// Returns what is said to whoever is called by these names: a text without those at its beginning and its end, and
/// without those that begin with `@` anywhere.
pub(crate) fn without(text: &str, names: &[String]) -> String {
    // Longest first, since one name may begin with another.
    let mut names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let mut rest = text.trim().to_owned();
    for name in names.iter().filter(|name| name.starts_with('@')) {
        while let Some(found) = find(&rest, name) {
            let (before, behind) = (&rest[..found.start], &rest[found.end..]);
            rest = match before.trim_end_matches([' ', '\u{a0}']) {
                "" => after_name(behind).to_owned(),
                before => format!("{before}{behind}"),
            };
        }
    }
    while let Some(shorter) = names.iter().find_map(|name| after(&rest, name)) {
        rest = shorter.to_owned();
    }
    while let Some(shorter) = names.iter().find_map(|name| before(&rest, name)) {
        rest = shorter.to_owned();
    }
    rest.trim().to_owned()
}

/// Returns what follows a name at the beginning of a text.
fn after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let found = find(text, name).filter(|found| found.start == 0)?;
    let rest = &text[found.end..];
    let parted = rest.is_empty() || rest.starts_with(BETWEEN) || rest.starts_with(['?', '!', '.']);
    parted.then(|| after_name(rest))
}

/// Returns what stands before a name at the end of a text, where a comma or a mark sets it apart.
fn before<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let end = text.trim_end_matches(['.', '!', '?', ' ']);
    let start =
        end.char_indices().rev().map(|(at, _)| at).find(|at| prefix(&end[*at..], name) == Some(end.len() - at))?;
    let rest = text[..start].trim_end_matches([' ', '\u{a0}']);
    let rest = rest.strip_suffix(',')?;
    (!rest.trim().is_empty()).then_some(rest)
}

/// Leaves out what stands between a name and what is said to it. Some clients show the display name in brackets.
fn after_name(rest: &str) -> &str {
    let shown = rest.strip_prefix(" (").and_then(|shown| shown.split_once(')'));
    let rest = shown.filter(|(_, rest)| rest.is_empty() || rest.starts_with(':')).map_or(rest, |(_, rest)| rest);
    rest.trim_start_matches(BETWEEN)
}

/// Returns how many bytes of a text are this name, in any case, if it begins with it.
fn prefix(text: &str, name: &str) -> Option<usize> {
    let mut rest = text.chars();
    for expected in name.chars() {
        let same = |c: char| c == expected || c.to_lowercase().eq(expected.to_lowercase());
        rest.next().filter(|c| same(*c))?;
    }
    (!name.is_empty()).then_some(text.len() - rest.as_str().len())
}

/// Returns whether a name ends before this text.
fn ends_there(rest: &str, name: &str) -> bool {
    if rest.starts_with(char::is_alphanumeric) {
        return false;
    }
    if rest.trim_start_matches(GOES_ON).starts_with(char::is_alphanumeric) && rest.starts_with(GOES_ON) {
        return false;
    }
    let at_a_server = name.starts_with('@') && !name.contains(':');
    !(at_a_server
        && rest.strip_prefix(':').is_some_and(|server| server.starts_with(|c: char| c.is_alphanumeric() || c == '[')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_is_named_in_code_or_in_what_somebody_else_has_said_is_not_called() {
        for (text, is_called) in [
            ("@llama hello", true),
            ("`@llama` hello", false),
            ("run `pull @llama`, @llama", true),
            ("an open ` mark, @llama", true),
            ("> @llama hello\nwho was that?", false),
            ("```\n@llama\n```\nwhat is this?", false),
            ("```\nx\n```\n@llama what is this?", true),
            ("~~~\n```\n@llama\n~~~", false),
            ("``@llama``", false),
        ] {
            assert_eq!(find(&said(text), "@llama").is_some(), is_called, "{text}");
        }
    }

    #[test]
    fn a_name_is_found_as_a_whole_word() {
        for (text, name) in [
            ("llama", "llama"),
            ("Llama: hello", "llama"),
            ("what does LLAMA think?", "llama"),
            ("ask llama.", "llama"),
            ("(llama)", "llama"),
            ("llama's turn", "llama"),
            ("@llama what?", "@llama"),
            ("@llama: what?", "@llama"),
            ("hey @llama, you", "@llama"),
            ("@llama:example.org: what?", "@llama:example.org"),
            ("Der Bär, bitte", "der bär"),
            ("llama…", "llama"),
        ] {
            let found = find(text, name).map(|found| text[found].to_lowercase());
            assert_eq!(found.as_deref(), Some(name), "{text}");
        }
        for (text, name) in [
            ("llamas eat grass", "llama"),
            ("ollama", "llama"),
            ("llama-2 is older", "llama"),
            ("llama.cpp", "llama"),
            ("@llama", "llama"),
            ("my_llama", "llama"),
            ("@llama:other.org hello", "@llama"),
            ("@llama2 hello", "@llama"),
            ("mail@llama.org", "@llama"),
            ("https://example.org/@llama", "@llama"),
            ("my-llama", "llama"),
            ("models/llama", "llama"),
            ("@llama:example.org.evil", "@llama:example.org"),
            ("", "llama"),
            ("llama", ""),
        ] {
            assert_eq!(find(text, name), None, "{text}");
        }
    }

    #[test]
    fn what_is_said_comes_without_the_name() {
        let names = ["llama", "@llama", "@llama:example.org", "Llama Bot"].map(str::to_owned);
        for (text, said) in [
            ("llama: hello", "hello"),
            ("@llama hello", "hello"),
            ("@llama:example.org: hello", "hello"),
            ("@llama:example.org (Llama Bot): hello", "hello"),
            ("Llama Bot: hello", "hello"),
            ("LLAMA, hello", "hello"),
            ("llama", ""),
            ("@llama:", ""),
            ("llama ?", "?"),
            ("llama?", "?"),
            ("hello @llama", "hello"),
            ("hello, llama", "hello"),
            ("hello, llama!", "hello"),
            ("hey @llama what is up", "hey what is up"),
            ("how does llama work?", "how does llama work?"),
            ("I like llama", "I like llama"),
            ("llama's wool", "llama's wool"),
            ("@llama @llama hello", "hello"),
            ("@llama llama: hello", "hello"),
            ("llama\nfirst\n  second", "first\n  second"),
        ] {
            assert_eq!(without(text, &names), said, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_only_names_go(text in "(llama|@llama|[ :,.()a-zé@\\n]){0,12}", name in "@?(llama|é|a)") {
            if let Some(found) = find(&text, &name) {
                prop_assert!(text[found].to_lowercase() == name.to_lowercase());
            }
            let names = [name];
            let rest = without(&text, &names);
            prop_assert!(rest.len() <= text.len());
            prop_assert_eq!(without(&rest, &names), rest);
        }
    }
}
