//! File names as people and models can type them. Phones and desktops write names with characters that only look like
//! spaces, with decomposed accents, and with invisible characters.

use unicode_normalization::UnicodeNormalization;

/// Returns `name` with characters that a keyboard has: composed accents, plain spaces, and nothing that is invisible
/// or changes the direction of writing.
pub(crate) fn typeable(name: &str) -> String {
    name.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !invisible(*c)).nfc().collect()
}

/// Returns a key that is equal for names that look the same to whoever types them.
pub(crate) fn look_of(name: &str) -> String {
    typeable(name).trim().chars().map(plain_punctuation).collect()
}

/// Returns the ASCII character that people and models type for `char`.
pub(crate) fn plain_punctuation(char: char) -> char {
    match char {
        '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{a0}' | '\u{2002}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        other => other,
    }
}

fn invisible(c: char) -> bool {
    // A joiner between two letters or two emoji belongs to their spelling.
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_typeable() {
        for (given, typed) in [
            ("Bildschirmfoto 2026\u{202f}PM.png", "Bildschirmfoto 2026 PM.png"),
            ("a\u{a0}b\u{3000}c.txt", "a b c.txt"),
            ("Cafe\u{301} u\u{308}ber.txt", "Café über.txt"),
            ("\u{202e}gpj.exe", "gpj.exe"),
            ("a\u{200b}b\u{feff}c\u{ad}d", "abcd"),
            ("tab\tline\n", "tab line "),
            ("世界 ✓ 👩\u{200d}💻.md", "世界 ✓ 👩\u{200d}💻.md"),
        ] {
            assert_eq!(typeable(given), typed, "{given:?}");
        }
        assert_eq!(look_of("L\u{2019}e\u{301}te\u{301} \u{2013} 1.pdf "), look_of("L'été - 1.pdf"));
        assert_ne!(look_of("a.txt"), look_of("A.txt"));
    }

    proptest! {
        #[test]
        fn a_typeable_name_stays_as_it_is(name in any::<String>()) {
            let typed = typeable(&name);
            prop_assert_eq!(typeable(&typed), typed.clone());
            prop_assert!(!typed.chars().any(|c| c.is_control() || c.is_whitespace() && c != ' '));
        }
    }
}
