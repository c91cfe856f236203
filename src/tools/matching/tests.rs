//! What matches, what is refused, and what must hold for any text.

use proptest::prelude::*;

use super::*;

/// Returns the edited file and how the place was found.
fn edit(file: &str, old: &str, new: &str) -> Result<(String, Tier), Mismatch> {
    locate(file, old, new).map(|splice| (splice.apply(file), splice.tier))
}

#[track_caller]
fn becomes(file: &str, old: &str, new: &str, expected: &str, tier: Tier) {
    assert_eq!(edit(file, old, new), Ok((expected.to_owned(), tier)));
}

#[test]
fn an_exact_match_is_replaced_and_nothing_else() {
    becomes("a\nlet x = 1;\nb\n", "x = 1", "y = 2", "a\nlet y = 2;\nb\n", Tier::Exact);
    becomes("keep\ndrop\nkeep\n", "drop\n", "", "keep\nkeep\n", Tier::Exact);
    becomes("ünï “q”\n", "“q”", "'q'", "ünï 'q'\n", Tier::Exact);
}

#[test]
fn two_places_are_refused_with_their_lines() {
    let twice = Mismatch::Ambiguous { count: 2, lines: vec![1, 3], tier: Tier::Exact };
    assert_eq!(edit("x\ny\nx\n", "x", "z"), Err(twice));
    let overlapping = Mismatch::Ambiguous { count: 2, lines: vec![1, 1], tier: Tier::Exact };
    assert_eq!(edit("aaa", "aa", "b"), Err(overlapping));
    let blanks = Mismatch::Ambiguous { count: 2, lines: vec![1, 3], tier: Tier::TrailingBlanks };
    assert_eq!(edit("x \ny\nx  \n", "x\t", "z"), Err(blanks));
}

#[test]
fn new_lines_take_the_line_ends_of_the_file() {
    becomes("a\r\nb\r\nc\r\n", "b", "b1\nb2", "a\r\nb1\r\nb2\r\nc\r\n", Tier::Exact);
    becomes("a\r\nb\r\nc\r\n", "a\nb\n", "x\ny\n", "x\r\ny\r\nc\r\n", Tier::LineEnds);
    becomes("a\nb\nc\n", "a\r\nb", "x\r\nb", "x\nb\nc\n", Tier::LineEnds);
}

#[test]
fn where_line_ends_are_mixed_each_line_keeps_its_own() {
    let file = "one\r\ntwo\nthree\r\nfour\n";
    becomes(file, "two", "TWO", "one\r\nTWO\nthree\r\nfour\n", Tier::Exact);
    becomes(file, "one", "one\nmore", "one\r\nmore\r\ntwo\nthree\r\nfour\n", Tier::Exact);
    becomes(file, "two", "two\nmore", "one\r\ntwo\nmore\nthree\r\nfour\n", Tier::Exact);
    becomes(file, "one\ntwo\nthree", "ONE\ntwo\nTHREE", "ONE\r\ntwo\nTHREE\r\nfour\n", Tier::LineEnds);
    becomes(file, "two\nthree", "TWO\nthree", "one\r\nTWO\nthree\r\nfour\n", Tier::Exact);
    becomes(file, "one\ntwo \nthree\n", "ONE\ntwo\n3\n", "ONE\r\ntwo\n3\r\nfour\n", Tier::TrailingBlanks);
    // Carriage returns that the model wrote are meant.
    becomes(file, "one\r\n", "one\n", "one\ntwo\nthree\r\nfour\n", Tier::Exact);
}

#[test]
fn blanks_at_ends_of_lines_do_not_matter_and_unchanged_lines_keep_theirs() {
    becomes("f() {  \n  a\t\n}\n", "f() {\n  a\n}", "f() {\n  b\n}", "f() {  \n  b\n}\n", Tier::TrailingBlanks);
    becomes("end ", "end\n", "fin\n", "fin", Tier::TrailingBlanks);
}

#[test]
fn a_uniform_indentation_is_given_to_the_new_lines() {
    let file = "class A:\n    def f(self):\n        return 1\n";
    let expected = "class A:\n    def f(self):\n        x = 2\n        return x\n";
    becomes(file, "def f(self):\n    return 1", "def f(self):\n    x = 2\n    return x", expected, Tier::Indentation);
    becomes("a\nb\n", "  a\n  b", "  a\n  c", "a\nc\n", Tier::Indentation);
}

#[test]
fn an_indentation_that_differs_from_line_to_line_is_no_match() {
    assert_eq!(edit("if a:\n    b\n", "  if a:\n    b\n", "  x"), Err(Mismatch::Missing));
    // The new line would have to stand further out than the margin.
    assert_eq!(edit("a\nb\n", "  a\n  b", "  a\nc"), Err(Mismatch::Missing));
}

#[test]
fn typographic_punctuation_matches_and_survives_where_unchanged() {
    becomes("say “hi” – now\n", "say \"hi\" - now", "say \"hi\" - later", "say “hi” – later\n", Tier::Punctuation);
    becomes("it's\n", "it’s", "it is", "it is\n", Tier::Punctuation);
    becomes("  “a”  \n  b\n", "\"a\"\nb", "\"a\"\nc", "  “a”  \n  c\n", Tier::Punctuation);
}

#[test]
fn what_is_merely_alike_is_not_edited() {
    assert_eq!(edit("let total = 1;\n", "let totals = 1;", "x"), Err(Mismatch::Missing));
    assert_eq!(edit("foobar\n", "foo ", "x"), Err(Mismatch::Missing));
    assert_eq!(edit("a\n\nb\n", "  \n", "x"), Err(Mismatch::Missing));
    assert_eq!(edit("", "a", "x"), Err(Mismatch::Missing));
}

#[test]
fn an_edit_that_went_in_before_is_recognised() {
    assert_eq!(already_there("a\nlet x = 42;\n", "let x = 42;"), Some(2));
    assert_eq!(already_there("a\nb\n", "b"), None, "too short to tell");
}

/// A file of distinct lines, so that each run of them stands in one place.
fn files() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[ ]{0,4}[a-z“é-]{1,6}( [a-z]{1,3})?", 1..12)
        .prop_map(|lines| lines.iter().enumerate().map(|(number, line)| format!("{line}{number};")).collect())
}

proptest! {
    #[test]
    fn whatever_stands_once_is_spliced(before in "[a-c\n]{0,20}", old in "[x-z]{1,5}", new in "\\PC{0,10}", after in "[a-c\n]{0,20}") {
        let file = format!("{before}{old}{after}");
        if file.matches(&old).count() == 1 {
            prop_assert_eq!(edit(&file, &old, &new), Ok((format!("{before}{new}{after}"), Tier::Exact)));
        }
    }

    #[test]
    fn a_crlf_file_is_edited_like_its_lf_twin(lines in files(), from in 0_usize..12, len in 1_usize..4, new in "[a-z\n]{0,12}") {
        let from = from % lines.len();
        let old = lines[from..(from + len).min(lines.len())].join("\n");
        let file = lines.join("\n") + "\n";
        let twin = edit(&file.replace('\n', "\r\n"), &old, &new).map(|(text, _)| text);
        prop_assert_eq!(twin, edit(&file, &old, &new).map(|(text, _)| text.replace('\n', "\r\n")));
    }

    #[test]
    fn an_edit_that_changes_nothing_changes_nothing(lines in files(), from in 0_usize..12, len in 1_usize..4, blanks in "[ \t]{0,3}", by in "[ ]{0,4}", plain in any::<bool>()) {
        let from = from % lines.len();
        let file = lines.join(&format!("{blanks}\n")) + blanks.as_str() + "\n";
        let mut old = by.clone() + lines[from..(from + len).min(lines.len())].join(&format!("\n{by}")).as_str() + "\n";
        if plain {
            old = old.replace('“', "\"");
        }
        let edited = edit(&file, &old, &old).map(|(text, _)| text);
        prop_assert_eq!(edited, Ok(file));
    }

    #[test]
    fn a_deeper_file_is_edited_like_its_shallow_twin(lines in files(), from in 0_usize..12, len in 2_usize..4, by in "[ ]{1,4}", new in "[a-z]{1,4}\n[a-z]{1,4}") {
        let from = from % lines.len();
        let old = lines[from..(from + len).min(lines.len())].join("\n");
        let deeper = |text: &str| text.lines().fold(String::new(), |deeper, line| deeper + by.as_str() + line + "\n");
        let file = lines.join("\n") + "\n";
        if !old.contains('\n') || lines[from].starts_with(' ') {
            return Ok(()); // A part of one line is exact in both.
        }
        let (shallow, _) = edit(&file, &old, &new).expect("stands there once");
        let (edited, _) = edit(&deeper(&file), &old, &new).expect("found by indentation");
        prop_assert_eq!(edited, deeper(&shallow));
    }

    #[test]
    fn no_input_panics(file in "\\PC{0,40}", old in "\\PC{0,10}", new in "\\PC{0,10}") {
        if let Ok(splice) = locate(&file, &old, &new) {
            splice.apply(&file);
        }
    }
}
