//! Plain text in HTML, protected from what clients make of it by themselves. Element turns `lib.rs` into a link to a
//! site in Serbia, and a user id into a pill; in `<code>` it leaves both alone. `@room` is broken up everywhere.

/// Goes between the `@` and the `room`: WORD JOINER. The push rule for `@room` looks for these five characters in the
/// body, in any case, and Element looks for them in what it shows; with a character between them neither matches.
/// This one has no width, breaks no line (as U+200B would), changes the shape of no neighbour (as the joiners U+200C
/// and U+200D may), and is not removed by [`crate::text::strip`].
const JOINER: char = '\u{2060}';

/// Endings of file names. Those that are also top-level domains (`rs`, `py`, `sh`, `md`) are the reason for this
/// list; the others make a list of files look uniform. An ending of one letter needs a longer name: `d.h.` is no
/// header.
pub(super) const ENDINGS: [&str; 112] = [
    "adoc", "bash", "bat", "bin", "bz2", "c", "cc", "cfg", "cjs", "clj", "conf", "cpp", "crt", "cs", "css", "csv",
    "dart", "db", "deb", "diff", "dll", "env", "ex", "exe", "exs", "gif", "go", "gradle", "gz", "h", "hpp", "hs",
    "htm", "html", "ico", "ini", "ipynb", "iso", "java", "jl", "jpeg", "jpg", "js", "json", "jsonl", "jsx", "key",
    "kt", "kts", "lock", "log", "lua", "md", "mjs", "mk", "ml", "mli", "mod", "mov", "mp3", "mp4", "nim", "patch",
    "pdf", "pem", "php", "pl", "pm", "png", "proto", "ps", "ps1", "pub", "py", "pyi", "rb", "rpm", "rs", "rst",
    "scala", "scss", "service", "sh", "so", "socket", "sql", "sqlite", "sum", "svelte", "svg", "swift", "tar", "tex",
    "tf", "tgz", "timer", "toml", "ts", "tsv", "tsx", "txt", "vue", "wasm", "wav", "webp", "whl", "xml", "xz", "yaml",
    "yml", "zig", "zip",
];

/// Appends `text` as HTML text: escaped, with file names and user ids in `<code>`.
pub(super) fn write(out: &mut String, text: &str) {
    let text = defuse(text);
    for token in text.split_inclusive(char::is_whitespace) {
        if ["://", "www.", "matrix:u"].iter().any(|mark| token.contains(mark)) {
            // Clients may link a bare address themselves, unless it would show as a user's name.
            let end = token.trim_end_matches(|c: char| c.is_whitespace() || ".,;:!?)\"'".contains(c)).len();
            if names_user(token) {
                code(out, &token[..end]);
                push_escaped(out, &token[end..]);
            } else {
                push_escaped(out, token);
            }
        } else {
            write_token(out, token);
        }
    }
}

/// Returns whether clients would show this address as a user's name: `…/#/@bob:example.org` of matrix.to and its
/// copies, also with an encoded `@`, and `matrix:u/bob:example.org`.
pub(super) fn names_user(address: &str) -> bool {
    let to_user = |fragment: &str| fragment.contains('@') || fragment.contains("%40");
    address.contains("matrix:u") || address.split_once('#').is_some_and(|(_, fragment)| to_user(fragment))
}

/// Appends one word with the characters around it.
fn write_token(out: &mut String, token: &str) {
    let mut rest = token;
    while let Some(start) = rest.find(in_name) {
        push_escaped(out, &rest[..start]);
        rest = &rest[start..];
        let run = &rest[..rest.find(|c| !in_name(c)).unwrap_or(rest.len())];
        let (before, marked) = named(rest, run);
        push_escaped(out, &rest[..before]);
        if marked > before {
            code(out, &rest[before..marked]);
        }
        let done = marked.max(run.len());
        push_escaped(out, &rest[marked..done]);
        rest = &rest[done..];
    }
    push_escaped(out, rest);
}

/// Finds a user id or file name in `run`, the first word of `text`; returns where it starts and ends. It may end
/// after the word (`lib.rs:42`, `@bob:example.org`).
fn named(text: &str, run: &str) -> (usize, usize) {
    if let Some(at) = run.find('@') {
        let before = run[..at].chars().next_back();
        if !before.is_some_and(char::is_alphanumeric)
            && let Some(server) = text[run.len()..].strip_prefix(':')
        {
            let server =
                server.find(|c: char| c == '@' || !(in_name(c) || c == ':')).map_or(server, |end| &server[..end]);
            let server = server.trim_end_matches(|c: char| !c.is_alphanumeric());
            if !server.is_empty() && run.len() > at + 1 {
                return (at, run.len() + 1 + server.len());
            }
        }
        // A mail address, or a scope (`@types/node`).
        return (0, 0);
    }
    let name = run.trim_end_matches(['.', '-', '/', '+', '=', '~', '\\']);
    if !is_file(name) {
        return (0, 0);
    }
    let mut end = name.len();
    if name.len() == run.len() {
        // `src/main.rs:42:7` is one place.
        for _ in 0..2 {
            let digits = text[end..]
                .strip_prefix(':')
                .map_or("", |after| &after[..after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())]);
            if !digits.is_empty() {
                end += 1 + digits.len();
            }
        }
    }
    (0, end)
}

/// Returns whether a character is allowed in a file's path.
fn in_name(c: char) -> bool {
    c.is_alphanumeric() || "._-+/~@=\\".contains(c)
}

fn is_file(path: &str) -> bool {
    let mut parts = path.split(['/', '\\']);
    // `example.org/lib.rs` is an address; `./lib.rs` and `.github/ci.yml` are paths.
    if let Some(first) = parts.next()
        && parts.next().is_some()
        && let Some((host, ending)) = first.rsplit_once('.')
        && !host.trim_start_matches('.').is_empty()
        && !is_ending(ending)
    {
        return false;
    }
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    if !stem.contains(char::is_alphanumeric) || !is_ending(ending) {
        return false;
    }
    let in_folder = name.len() < path.len();
    match ending {
        // Node.js is no file, and no client takes it for a site.
        "js" => in_folder || !stem.starts_with(char::is_uppercase),
        _ => ending.len() > 1 || in_folder || stem.len() > 1,
    }
}

fn is_ending(ending: &str) -> bool {
    ENDINGS.binary_search(&ending).is_ok()
}

/// Breaks up each `@room`, in any case.
pub(super) fn defuse(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_address = false;
    while let Some(at) = rest.find('@') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        safe.push_str(before);
        let word = before.rsplit(char::is_whitespace).next().unwrap_or(before);
        in_address = (in_address && word.len() == before.len()) || word.contains("://");
        if !is_room(after) {
            safe.push('@');
        } else if in_address {
            // In an address the `@` is percent-encoded, so that the address still works.
            safe.push_str("%40");
        } else {
            safe.push('@');
            safe.push(JOINER);
        }
        rest = after;
    }
    safe.push_str(rest);
    safe
}

/// Returns whether what follows an `@` makes it an `@room`.
pub(super) fn is_room(after: &str) -> bool {
    after.as_bytes().get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"room"))
}

/// Returns `text` escaped for HTML, otherwise unchanged.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_escaped(&mut out, text);
    out
}

pub(super) fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
}

/// Appends `text` as code.
pub(super) fn code(out: &mut String, text: &str) {
    out.push_str("<code>");
    push_escaped(out, text);
    out.push_str("</code>");
}
