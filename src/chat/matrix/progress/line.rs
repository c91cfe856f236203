//! One line of a progress message: text from a sandbox or a model, changed so that no Markdown acts in it. Pure.

use crate::text;

/// Returns a summary in which the part that repeats `detail` (a command, a path) is code and the rest is prose.
pub(super) fn around(summary: &str, detail: &str, limit: usize) -> String {
    let summary = &text::one_line(summary, limit);
    // The summary may have cut the detail earlier.
    let cut = summary.find('…').filter(|at| detail.starts_with(&summary[..*at])).map(|at| at + '…'.len_utf8());
    let known = if summary.contains(detail) { detail } else { &summary[..cut.unwrap_or(0)] };
    let Some((before, after)) = summary.split_once(known).filter(|_| !known.is_empty()) else {
        return prose(summary, limit);
    };
    let space = |is: bool| if is { " " } else { "" };
    let (head, tail) = (prose(before, limit / 4), prose(after, limit / 4));
    format!("{head}{}{}{}{tail}", space(before.ends_with(' ')), code(known), space(after.starts_with(' ')))
}

/// Returns `text` as one line of inline code that nothing in the text can end.
pub(super) fn code(text: &str) -> String {
    let text = text::one_line(text, usize::MAX).replace('`', "'");
    if text.is_empty() { text } else { format!("`{text}`") }
}

/// Returns `text` as one line of at most `limit` characters in which no Markdown acts: words that could act, and
/// names of files (of which clients make links), become inline code.
pub(super) fn prose(text: &str, limit: usize) -> String {
    let mut line = String::new();
    let mut length = 0;
    for (number, word) in text::one_line(text, limit).split(' ').enumerate() {
        let word = if is_plain(word) { word.to_owned() } else { as_code(word) };
        let added = word.chars().count() + usize::from(number > 0);
        if length + added > limit {
            if length < limit {
                line.push('…');
            }
            break;
        }
        line.extend((number > 0).then_some(' '));
        line.push_str(&word);
        length += added;
    }
    line
}

/// Formats a word as code, without the punctuation around it.
fn as_code(word: &str) -> String {
    let inner = word.trim_start_matches('(').trim_end_matches([',', ':', ';', ')']);
    let Some((before, after)) = word.split_once(inner).filter(|_| !inner.is_empty()) else { return code(word) };
    format!("{before}{}{after}", code(inner))
}

fn is_plain(word: &str) -> bool {
    let marks = |c: char| matches!(c, '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '\\' | '~' | '@');
    let inner = word.trim_end_matches(['.', ',', ':', ';', ')', '/']);
    let is_name = inner.contains(['.', '/']) && inner.contains(char::is_alphabetic);
    !word.contains(marks) && !is_name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_that_could_act_and_names_of_files_are_code() {
        for (text, line) in [
            ("cloned acme/site", "cloned `acme/site`"),
            ("It took 1.5 s (+12 −3). Done.", "It took 1.5 s (+12 −3). Done."),
            ("(main.rs, lib.rs): *b* a_b", "(`main.rs`, `lib.rs`): `*b*` `a_b`"),
            ("[a](http://x) <b> &amp; @room", "`[a](http://x`) `<b>` `&amp`; `@room`"),
            ("`x\\ ``` \x1b[1mb", "`'x\\` `'''` b"),
            ("@:) ( a", "`@`:) ( a"),
        ] {
            assert_eq!(prose(text, 100), line);
        }
        assert_eq!(prose("ab c_d ef", 7), "ab…", "code is never cut open");
    }

    #[test]
    fn what_a_call_does_is_code_in_its_summary() {
        let command = format!("{} && yy zz > *{}", "x".repeat(50), "z".repeat(50));
        let (detail, shorter) = (text::one_line(&command, 80), text::one_line(&command, 60));
        for (summary, detail, line) in [
            ("cargo test | tail (exit code 1)", "cargo test | tail", "`cargo test | tail` (exit code 1)"),
            ("test: cargo test", "cargo test", "test: `cargo test`"),
            ("edited src/a.rs (+1 −0)", "/workspace/src/a.rs", "edited `src/a.rs` (+1 −0)"),
            ("ended", "", "ended"),
            (&format!("{detail} (exit code 1)"), &detail, &format!("`{detail}` (exit code 1)")),
            (&format!("{shorter} (no)"), &detail, &format!("`{shorter}` (no)")),
        ] {
            assert_eq!(around(summary, detail, 180), line);
        }
    }

    proptest! {
        #[test]
        fn no_markup_acts_and_the_limit_holds(text in "[a-z`*_./@ …(:,<&é\\x1b\\\\]{0,300}", detail in "[a-z`*]{0,80}") {
            let lines = [prose(&text, 60), around(&format!("{text}{detail}{text}"), &detail, 180)];
            for (line, limit) in lines.iter().zip([60, 180]) {
                prop_assert!(line.chars().count() <= limit, "{}", line);
                prop_assert_eq!(line.matches('`').count() % 2, 0, "{}", line);
                let outside: String = line.split('`').step_by(2).collect();
                prop_assert!(!outside.contains(['*', '_', '[', '<', '&', '\\', '~', '@']), "{}", line);
            }
        }
    }
}
