//! Finds what looks like a secret in text that is about to leave.
//!
//! Pure. It holds back accidents, not an attacker, who can write a secret in many other ways: `docs/threats.md` says so.
//! Only shapes that hardly anything else has are known, since a finding stops a push.

/// A shape of secrets: how it begins, and what must follow.
struct Shape {
    /// What it is, for people.
    kind: &'static str,
    start: &'static [u8],
    /// How many characters follow at least.
    rest: usize,
    /// Which.
    class: fn(u8) -> bool,
}

const fn shape(kind: &'static str, start: &'static [u8], rest: usize, class: fn(u8) -> bool) -> Shape {
    Shape { kind, start, rest, class }
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

const SHAPES: &[Shape] = &[
    shape("a GitHub token", b"ghp_", 36, alphanumeric),
    shape("a GitHub token", b"gho_", 36, alphanumeric),
    shape("a GitHub token", b"ghu_", 36, alphanumeric),
    shape("a GitHub token", b"ghs_", 36, alphanumeric),
    shape("a GitHub token", b"ghr_", 36, alphanumeric),
    shape("a GitHub token", b"github_pat_", 40, word),
    shape("a GitLab token", b"glpat-", 20, word),
    shape("an AWS key", b"AKIA", 16, upper),
    shape("an AWS key", b"ASIA", 16, upper),
    shape("a Google API key", b"AIza", 35, word),
    shape("an API key", b"sk-ant-", 30, word),
    shape("an API key", b"sk-proj-", 30, word),
    shape("an API key", b"sk-or-v1-", 32, word),
    shape("an API key", b"sk-", 40, alphanumeric),
    shape("a Stripe key", b"sk_live_", 20, alphanumeric),
    shape("a Slack token", b"xoxb-", 30, word),
    shape("a Slack token", b"xoxp-", 30, word),
    shape("an npm token", b"npm_", 36, alphanumeric),
    shape("a PyPI token", b"pypi-AgEIcHlwaS5vcmc", 40, word),
    shape("a Hugging Face token", b"hf_", 34, alphanumeric),
];

/// Private keys begin like this, and end the line like that.
const KEY_START: &[u8] = b"-----BEGIN ";
const KEY_END: &[u8] = b"PRIVATE KEY-----";
/// How long the label between may be, and how much of the key has to follow.
const KEY_LABEL: usize = 24;
const KEY_BODY: usize = 64;

/// Something that looks like a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it looks like: `a GitHub token`.
    pub kind: &'static str,
    /// How it begins, which is no secret.
    pub start: &'static str,
    /// The line in which it stands, counted from 1.
    pub line: usize,
}

/// Returns the first thing that looks like a secret.
pub fn find(text: &[u8]) -> Option<Finding> {
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let is_begin = at == 0 || !alphanumeric(text[at - 1]);
        if is_begin && let Some((kind, start)) = begins(rest) {
            let line = text[..at].split(|byte| *byte == b'\n').count();
            return Some(Finding { kind, start, line });
        }
        at += 1;
    }
    None
}

fn begins(text: &[u8]) -> Option<(&'static str, &'static str)> {
    // Almost every byte ends here.
    if !matches!(text[0], b'g' | b'A' | b's' | b'x' | b'n' | b'p' | b'h' | b'-') {
        return None;
    }
    if is_private_key(text) {
        return Some(("a private key", "-----BEGIN"));
    }
    let fits = |shape: &&Shape| {
        let Some(rest) = text.strip_prefix(shape.start) else { return false };
        rest.len() >= shape.rest
            && rest[..shape.rest].iter().all(|byte| (shape.class)(*byte))
            && is_varied(&rest[..shape.rest])
    };
    let shape = SHAPES.iter().find(fits)?;
    Some((shape.kind, std::str::from_utf8(shape.start).unwrap_or_default()))
}

/// Placeholders repeat a few characters: `ghp_xxxxxxxx…`.
fn is_varied(text: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in text {
        seen[*byte as usize] = true;
    }
    seen.iter().filter(|seen| **seen).count() >= 8
}

fn is_private_key(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(KEY_START) else { return false };
    let reach = &rest[..rest.len().min(KEY_LABEL + KEY_END.len())];
    let Some(end) = reach.windows(KEY_END.len()).position(|window| window == KEY_END) else { return false };
    let body = rest[end + KEY_END.len()..].iter().filter(|byte| !byte.is_ascii_whitespace());
    let body: Vec<u8> = body.copied().take(KEY_BODY).collect();
    body.len() == KEY_BODY && body.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put together, so that this file holds none itself.
    fn secret(start: &str, length: usize) -> String {
        let letters: String = ('A'..='Z').chain('0'..='9').cycle().take(length).collect();
        format!("{start}{letters}")
    }

    #[test]
    fn secrets_are_found_with_their_line() {
        for (start, length, kind) in [
            ("ghp_", 36, "a GitHub token"),
            ("github_pat_", 60, "a GitHub token"),
            ("AKIA", 16, "an AWS key"),
            ("AIza", 35, "a Google API key"),
            ("sk-ant-", 60, "an API key"),
            ("sk-", 48, "an API key"),
            ("xoxb-", 40, "a Slack token"),
            ("glpat-", 20, "a GitLab token"),
        ] {
            let text = format!("# settings\nKEY={}\n", secret(start, length));
            let found = find(text.as_bytes()).unwrap_or_else(|| panic!("{start}"));
            assert_eq!((found.kind, found.start, found.line), (kind, start, 2));
        }
        let key = format!("-----BEGIN {} PRIVATE KEY-----\n{}\n", "RSA", secret("", 70));
        assert_eq!(find(key.as_bytes()).map(|found| found.kind), Some("a private key"));
    }

    #[test]
    fn what_only_resembles_one_is_let_through() {
        let long = secret("ghp_", 35);
        let inside = format!("x{}", secret("sk-", 48));
        let dull = format!("ghp_{}", "x".repeat(36));
        let about = "Keys begin with ghp_ or sk-; a PEM file with -----BEGIN RSA PRIVATE KEY----- and ends so.";
        for text in
            [&*long, &*inside, &*dull, about, "", "-----BEGIN PUBLIC KEY-----", "risk-assessment-of-the-whole-thing"]
        {
            assert_eq!(find(text.as_bytes()), None, "{text}");
        }
    }
}
