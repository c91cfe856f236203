//! The repository's sources as words and signs: text, not types.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A word or a single sign, with its line.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Returns whether these signs stand there.
pub(crate) fn follows(tokens: &[Token], at: usize, signs: &str) -> bool {
    signs.chars().enumerate().all(|(offset, sign)| {
        tokens.get(at + offset).is_some_and(|token| token.text.len() == 1 && token.text.starts_with(sign))
    })
}

/// Takes a source apart; comments, strings and characters are left out.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < text.len() {
        let end = skipped(&text, at);
        if end > at {
            line += text[at..end].iter().filter(|sign| **sign == '\n').count();
            at = end;
            continue;
        }
        let end = word_end(&text, at);
        if !text[at].is_whitespace() {
            tokens.push(Token { text: text[at..end].iter().collect(), line });
        } else if text[at] == '\n' {
            line += 1;
        }
        at = end;
    }
    tokens
}

fn word_end(text: &[char], at: usize) -> usize {
    let length = text[at..].iter().take_while(|sign| sign.is_alphanumeric() || **sign == '_').count();
    at + length.max(1)
}

/// Returns where the comment, string or character that starts at `at` ends; `at` itself where none starts.
fn skipped(text: &[char], at: usize) -> usize {
    let starts = |signs: &str| signs.chars().enumerate().all(|(offset, sign)| text.get(at + offset) == Some(&sign));
    let in_word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    if starts("//") {
        return text[at..].iter().position(|sign| *sign == '\n').map_or(text.len(), |length| at + length);
    }
    if starts("/*") {
        return block_comment_end(text, at);
    }
    if !in_word && (starts("r\"") || starts("r#") || starts("br\"") || starts("br#")) {
        let hashes_at = at + if text[at] == 'b' { 2 } else { 1 };
        let hashes = text[hashes_at..].iter().take_while(|sign| **sign == '#').count();
        if text.get(hashes_at + hashes) == Some(&'"') {
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = hashes_at + hashes + 1;
            let length = text[body..].windows(close.len()).position(|window| window == close);
            return length.map_or(text.len(), |length| body + length + close.len());
        }
    }
    if starts("\"") {
        return quoted_end(text, at, '"');
    }
    // A lifetime is a quote as well, but nothing closes it.
    if starts("'") && (text.get(at + 1) == Some(&'\\') || text.get(at + 2) == Some(&'\'')) {
        return quoted_end(text, at, '\'');
    }
    at
}

fn block_comment_end(text: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn quoted_end(text: &[char], mut at: usize, quote: char) -> usize {
    at += 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// Returns the module path of a file: `src/hub/actor.rs` is `[hub, actor]`, `src/hub/mod.rs` is `[hub]`.
pub(crate) fn module_of(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix("src").expect("every source lies in src").with_extension("");
    let mut path: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    if path == ["lib"] || path == ["main"] {
        path.clear();
    }
    path
}

/// Returns every Rust file in `src/`, relative to the repository.
pub(crate) fn sources() -> Vec<PathBuf> {
    rust_files("src")
}

/// Returns every Rust file in a folder, relative to the repository.
pub(crate) fn rust_files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("it can be read") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(root).expect("it lies in the repository").to_owned());
            }
        }
    }
    files.sort();
    files
}

/// Reads a file of the repository.
pub(crate) fn read(file: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
