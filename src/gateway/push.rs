//! What a push asks for: which names it sets to what, read from the beginning of its body; and how it is told no in git's own
//! words.
//!
//! Pure. The body is a sandbox's: whatever is not read to the last byte is refused.

use bytes::Bytes;

/// The names that a push may set.
pub(super) const BRANCHES: &str = "refs/heads/agent/";

/// The most names in one push.
const MOST: usize = 100;
/// The most characters of a name.
const LONGEST: usize = 200;
/// The most bytes of a packet, its length included.
const PACKET: usize = 65_520;

/// A push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Push {
    /// What it sets; empty for a probe, with which git asks whether it may send something large.
    pub(super) updates: Vec<Update>,
    /// Whether the answer may carry words for people beside the report.
    sideband: bool,
    /// Where in the body the pack begins.
    pub(super) pack: usize,
}

/// A name that is to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Update {
    /// What it stood at, by the client's word; zeros if it is new.
    pub(super) old: String,
    /// What it is to stand at.
    pub(super) new: String,
    pub(super) name: String,
}

/// Why a push is refused, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPush {
    /// It is none, or one with parts that are not known.
    #[error("the request is no push that the gateway understands (signed pushes and push options are not taken)")]
    Malformed,
    /// A name elsewhere than below `refs/heads/agent/`.
    #[error(
        "only branches whose names begin with `agent/` may be pushed: `git push origin HEAD:refs/heads/agent/NAME`"
    )]
    Name,
    /// A branch is to go.
    #[error("no branch may be deleted from here")]
    Deletion,
    /// Too many names.
    #[error("at most {MOST} branches may be pushed at once")]
    Many,
}

impl Push {
    /// Reads the beginning of a push's body.
    pub fn read(body: &[u8]) -> Result<Self, BadPush> {
        let mut push = Self::default();
        let mut at = 0;
        loop {
            let (line, next) = packet(body, at).ok_or(BadPush::Malformed)?;
            at = next;
            let Some(line) = line else { break };
            let text = std::str::from_utf8(line).map_err(|_| BadPush::Malformed)?;
            // What a shallow clone does not have. It sets nothing.
            if push.updates.is_empty()
                && text.strip_prefix("shallow ").is_some_and(|id| is_id(id.trim_end_matches('\n')))
            {
                continue;
            }
            let command = match text.split_once('\0') {
                Some((command, abilities)) if push.updates.is_empty() => {
                    let mut abilities = abilities.split_ascii_whitespace();
                    push.sideband = abilities.clone().any(|ability| ability == "side-band-64k");
                    if abilities.any(|ability| ability == "push-options" || ability.starts_with("push-cert")) {
                        return Err(BadPush::Malformed);
                    }
                    command
                }
                Some(_) => return Err(BadPush::Malformed),
                None if push.updates.is_empty() => return Err(BadPush::Malformed),
                None => text,
            };
            push.updates.push(Update::read(command.trim_end_matches('\n')).ok_or(BadPush::Malformed)?);
            if push.updates.len() > MOST {
                return Err(BadPush::Many);
            }
        }
        push.pack = at;
        // A probe is nothing but the end of an empty list.
        if push.updates.is_empty() && body != b"0000" {
            return Err(BadPush::Malformed);
        }
        Ok(push)
    }

    /// Returns why it may not be done, if it may not.
    pub fn check(&self) -> Result<(), BadPush> {
        for update in &self.updates {
            if !is_open(&update.name) {
                return Err(BadPush::Name);
            }
            if is_zero(&update.new) {
                return Err(BadPush::Deletion);
            }
        }
        Ok(())
    }

    /// Returns the branches that it sets, for a sentence: `agent/login`.
    pub(super) fn branches(&self) -> String {
        let names: Vec<&str> =
            self.updates.iter().map(|update| update.name.strip_prefix("refs/heads/").unwrap_or(&update.name)).collect();
        names.join(", ")
    }

    /// Returns the answer that refuses it, as git shows it: a line for people, and that no name was set.
    pub(super) fn refused(&self, why: &str) -> Bytes {
        let mut report = packed(b"unpack ok\n");
        for update in &self.updates {
            report.extend(packed(format!("ng {} {}\n", update.name, short(why)).as_bytes()));
        }
        report.extend_from_slice(b"0000");
        if !self.sideband {
            return report.into();
        }
        let mut answer = packed(&[b"\x02", why.as_bytes(), b"\n"].concat());
        for piece in report.chunks(PACKET - 5) {
            answer.extend(packed(&[b"\x01", piece].concat()));
        }
        answer.extend_from_slice(b"0000");
        answer.into()
    }
}

impl Update {
    fn read(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let (old, new, name) = (parts.next()?, parts.next()?, parts.next()?);
        let sound = is_id(old) && is_id(new) && old.len() == new.len() && (1..=1024).contains(&name.len());
        (sound && !name.bytes().any(|byte| byte.is_ascii_control())).then(|| Self {
            old: old.to_owned(),
            new: new.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Git cuts reasons at the end of a packet; what people need stands in their own line.
fn short(why: &str) -> &str {
    why.split_once(['.', ':', '(']).map_or(why, |(first, _)| first).trim()
}

/// Returns the packet at a place, `None` for the one that ends a list, and where the next begins.
fn packet(body: &[u8], at: usize) -> Option<(Option<&[u8]>, usize)> {
    let digits = body.get(at..at + 4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let length = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    match length {
        0 => Some((None, at + 4)),
        5..=PACKET => Some((Some(body.get(at + 4..at + length)?), at + length)),
        _ => None,
    }
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut packet = format!("{:04x}", content.len() + 4).into_bytes();
    packet.extend_from_slice(content);
    packet
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(id: &str) -> bool {
    id.bytes().all(|byte| byte == b'0')
}

/// Tells whether a name is one of the agents' own. Plain letters only, so that nobody reads it as another.
fn is_open(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(BRANCHES) else { return false };
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && part.strip_suffix(".lock").is_none()
            && !part.contains("..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
    };
    rest.len() <= LONGEST && rest.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "0000000000000000000000000000000000000000";
    const NEW: &str = "1111111111111111111111111111111111111111";

    fn body(commands: &[String], abilities: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for (nth, command) in commands.iter().enumerate() {
            let line = if nth == 0 { format!("{command}\0{abilities}") } else { command.clone() };
            body.extend(packed(line.as_bytes()));
        }
        body.extend_from_slice(b"0000PACK");
        body
    }

    fn verdict(name: &str, new: &str) -> Result<(), BadPush> {
        Push::read(&body(&[format!("{OLD} {new} {name}")], " report-status side-band-64k"))
            .and_then(|push| push.check())
    }

    #[test]
    fn the_agents_own_branches_pass_and_no_other_name() {
        for name in ["refs/heads/agent/x", "refs/heads/agent/login-page.2", "refs/heads/agent/a/b_c"] {
            assert_eq!(verdict(name, NEW), Ok(()), "{name}");
        }
        for name in [
            "refs/heads/main",
            "refs/heads/agent",
            "refs/heads/agent/",
            "refs/heads/agentx/y",
            "refs/heads/agent/../main",
            "refs/heads/agent//x",
            "refs/heads/agent/.x",
            "refs/heads/agent/x.lock",
            "refs/heads/agent/x y",
            "refs/heads/agent/x~1",
            "refs/heads/agent/м",
            "refs/heads/Agent/x",
            "refs/tags/v1",
            "refs/tags/agent/x",
            "agent/x",
            "HEAD",
        ] {
            assert_eq!(verdict(name, NEW), Err(BadPush::Name), "{name}");
        }
        assert_eq!(verdict("refs/heads/agent/x", OLD), Err(BadPush::Deletion));
        let long = format!("{BRANCHES}{}", "x".repeat(LONGEST + 1));
        assert_eq!(verdict(&long, NEW), Err(BadPush::Name));
    }

    #[test]
    fn one_bad_name_among_good_ones_refuses_all() {
        let commands = [format!("{OLD} {NEW} refs/heads/agent/x"), format!("{OLD} {NEW} refs/heads/main")];
        let push = Push::read(&body(&commands, " report-status")).unwrap();
        assert_eq!((push.updates.len(), push.check()), (2, Err(BadPush::Name)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = format!("{OLD} {NEW} refs/heads/agent/x");
        let whole = body(std::slice::from_ref(&good), " report-status");
        assert_eq!(&whole[Push::read(&whole).unwrap().pack..], b"PACK");
        for bad in [
            whole[..30].to_vec(),
            b"".to_vec(),
            b"0000PACK".to_vec(),
            b"0001".to_vec(),
            b"zzzz".to_vec(),
            b"+04a".to_vec(),
            b"push".to_vec(),
            body(std::slice::from_ref(&good), " push-options"),
            body(&["push-cert".to_owned()], " push-cert=x"),
            body(&[good.replace('1', "g")], ""),
            [packed(good.as_bytes()), b"0000".to_vec()].concat(),
            body(&[good.clone(), format!("{good}\0 x")], ""),
        ] {
            assert_eq!(Push::read(&bad), Err(BadPush::Malformed), "{:?}", String::from_utf8_lossy(&bad));
        }
        let shallow = [packed(format!("shallow {NEW}").as_bytes()), whole].concat();
        assert!(Push::read(&shallow).is_ok());
        assert_eq!(Push::read(b"0000"), Ok(Push { pack: 4, ..Push::default() }), "a probe");
        let many = vec![good; MOST + 1];
        assert_eq!(Push::read(&body(&many, "")), Err(BadPush::Many));
    }

    #[test]
    fn a_refusal_is_what_git_reads() {
        let good = format!("{OLD} {NEW} refs/heads/main");
        let push = Push::read(&body(std::slice::from_ref(&good), " report-status")).unwrap();
        assert_eq!(&push.refused("it may not. Do this")[..], b"000eunpack ok\n0022ng refs/heads/main it may not\n0000");
        let push = Push::read(&body(&[good], " report-status-v2 side-band-64k")).unwrap();
        assert!(push.refused("it may not").starts_with(b"0010\x02it may not\n"));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Push::read(&bytes).map(|push| push.check());
        }
    }
}
