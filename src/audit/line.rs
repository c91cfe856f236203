//! The lines of an audit log and the chain that they make. It reads what it is given, a line at a time, and opens nothing.
//!
//! A line is JSON on one line. Its last field, `sum`, is the SHA-256 of the `sum` of the line before it and of all bytes of this line
//! that stand before that field. So a line that was changed, taken out, put in or moved does not fit the one before it, and nobody can
//! make it fit without writing all that follow anew.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids;

/// What stands between a line's other fields and its sum.
const SUM: &str = ",\"sum\":\"";
/// Characters of a sum.
const SUM_LENGTH: usize = 64;
/// The most bytes of a name that a line holds: people and hosts have names of their own choice.
const LONGEST: usize = 200;
/// The most people that a line names.
const PEOPLE: usize = 16;
/// The longest line, in bytes: [`LONGEST`] in each of its names, each character of which may take six.
pub(super) const LONGEST_LINE: u64 = 64 << 10;
/// The kind of a line that says that others are missing.
pub(super) const GAP: &str = "gap";

/// Something that was done, or was to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deed {
    /// The room, with its account.
    pub room: String,
    /// The turn in which it was; empty outside of one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub turn: String,
    /// Who has asked for it: all who have spoken in the turn, or who gave an order.
    pub who: Vec<String>,
    /// Its kind: `tool`, `host`, `order`, `grant`, `answer`; `gap`, where lines are missing.
    pub kind: String,
    /// What it was about: a tool's name, a host, an order's word.
    pub about: String,
    /// A digest of its contents, by which they can be proven and not read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// What came of it: `done`, `failed`, `refused`.
    pub outcome: String,
}

/// How far a chain has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The number of its last line; 0 before the first.
    pub number: u64,
    /// That line's sum.
    pub sum: String,
}

/// Where and why a log is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {place} of the file {why}")]
pub(crate) struct Broken {
    /// The line's place in the file, from 1.
    pub place: usize,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    /// It has another shape than all lines.
    #[error("is no line of an audit log")]
    Shape,
    /// Its number does not follow.
    #[error("does not follow the line before it: one was taken out, put in or moved")]
    Number,
    /// Its sum is another one.
    #[error("was changed, or the line before it was")]
    Sum,
    /// The file ends in it.
    #[error("was cut off")]
    Cut,
    /// It has no end in sight.
    #[error("is longer than any line of an audit log")]
    Long,
}

/// Why a log is not shown to be what was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unproven {
    /// It is not.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unread(#[from] io::Error),
}

#[derive(Serialize, Deserialize)]
struct Line {
    n: u64,
    at: String,
    /// The sum of the line before it, in the first line of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(flatten)]
    deed: Deed,
}

impl Deed {
    /// Returns one of this kind about something, with its outcome.
    pub(crate) fn new(kind: &str, about: impl Into<String>, outcome: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), about: about.into(), outcome: outcome.into(), ..Self::default() }
    }

    /// Returns the same, asked for by this person.
    #[must_use]
    pub(crate) fn by(self, person: &str) -> Self {
        Self { who: vec![person.to_owned()], ..self }
    }
}

impl Default for Head {
    fn default() -> Self {
        Self { number: 0, sum: "0".repeat(SUM_LENGTH) }
    }
}

impl Head {
    /// Returns the line that follows, with its line break, and goes on to it. The first line of a file also says what it follows.
    pub(crate) fn write(&mut self, at: &str, deed: &Deed, begins_file: bool) -> serde_json::Result<String> {
        let after = begins_file.then(|| self.sum.clone());
        let line = Line { n: self.number + 1, at: at.to_owned(), after, deed: bounded(deed) };
        let json = serde_json::to_string(&line)?;
        let begun = json.strip_suffix('}').unwrap_or(&json);
        let sum = sum_of(&self.sum, begun);
        let whole = format!("{begun}{SUM}{sum}\"}}\n");
        *self = Self { number: line.n, sum };
        Ok(whole)
    }

    /// Reads a line, without its line break, and goes on to it; returns what it follows, and whether it says that lines are missing.
    fn read(&mut self, line: &str, begins_file: bool) -> Result<(Self, bool), Why> {
        let (begun, sum) = parts(line).ok_or(Why::Shape)?;
        let read: Line = serde_json::from_str(&format!("{begun}}}")).map_err(|_| Why::Shape)?;
        if begins_file {
            // What came before it stands in another file.
            let after = read.after.ok_or(Why::Number)?;
            *self = Self { number: read.n.checked_sub(1).ok_or(Why::Shape)?, sum: after };
        }
        if read.n != self.number + 1 {
            return Err(Why::Number);
        }
        if sum != sum_of(&self.sum, begun) {
            return Err(Why::Sum);
        }
        let before = std::mem::replace(self, Self { number: read.n, sum: sum.to_owned() });
        Ok((before, read.deed.kind == GAP))
    }

    /// Returns the head as one line: `17 ab12…`.
    pub(crate) fn shown(&self) -> String {
        format!("{} {}", self.number, self.sum)
    }

    /// Reads what [`Head::shown`] returns.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (number, sum) = text.trim().split_once(' ')?;
        Some(Self { number: number.parse().ok()?, sum: Some(sum).filter(|sum| is_sum(sum))?.to_owned() })
    }
}

/// What a log holds that is as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// What its first line follows.
    pub after: Head,
    /// Its last line.
    pub head: Head,
    /// How many of its lines say that others are missing.
    pub gaps: u64,
    /// For each head that was to be looked for, whether it holds that line.
    pub holds: Vec<bool>,
}

/// Checks a file's lines. It also looks whether the log holds the lines of the heads in `sought`: a log that was cut behind its end does
/// not show that by itself.
///
/// # Errors
///
/// The first line that is not as it was written, or why the file cannot be read.
pub(crate) fn check(mut file: impl BufRead, sought: &[&Head]) -> Result<Checked, Unproven> {
    let mut head = Head::default();
    let (mut after, mut gaps, mut holds) = (None, 0, vec![false; sought.len()]);
    for place in 1.. {
        let Some(line) = next_line(&mut file, place)? else { break };
        let (before, is_gap) = head.read(&line, place == 1).map_err(|why| Broken { place, why })?;
        after.get_or_insert(before);
        gaps += u64::from(is_gap);
        for (holds, sought) in holds.iter_mut().zip(sought) {
            *holds |= **sought == head;
        }
    }
    Ok(Checked { after: after.unwrap_or_default(), head, gaps, holds })
}

/// Returns what a file's first line says that it follows; `None` if the file is empty.
///
/// # Errors
///
/// That line is not as it was written, or the file cannot be read.
pub(crate) fn begins_after(mut file: impl BufRead) -> Result<Option<Head>, Unproven> {
    let Some(line) = next_line(&mut file, 1)? else { return Ok(None) };
    let (before, _) = Head::default().read(&line, true).map_err(|why| Broken { place: 1, why })?;
    Ok(Some(before))
}

/// Reads the line at a place in a file, without its line break; `None` at the file's end.
fn next_line(file: &mut impl BufRead, place: usize) -> Result<Option<String>, Unproven> {
    let broken = |why| Broken { place, why };
    let mut line = Vec::new();
    let length = file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? as u64;
    if length == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(broken(if length == LONGEST_LINE { Why::Long } else { Why::Cut }).into());
    }
    Ok(Some(String::from_utf8(line).map_err(|_| broken(Why::Shape))?))
}

/// Returns what stands before a line's sum, and the sum.
fn parts(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_suffix("\"}")?;
    let (begun, sum) = rest.split_at_checked(rest.len().checked_sub(SUM_LENGTH)?)?;
    Some((begun.strip_suffix(SUM)?, Some(sum).filter(|sum| is_sum(sum))?))
}

fn is_sum(text: &str) -> bool {
    text.len() == SUM_LENGTH && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn sum_of(before: &str, begun: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(before.as_bytes());
    hash.update(begun.as_bytes());
    ids::hex(&hash.finalize())
}

/// Returns a deed whose names have no more than a line should hold.
fn bounded(deed: &Deed) -> Deed {
    let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
    Deed {
        room: short(&deed.room),
        turn: short(&deed.turn),
        who: deed.who.iter().take(PEOPLE).map(|who| short(who)).collect(),
        kind: short(&deed.kind),
        about: short(&deed.about),
        digest: short(&deed.digest),
        outcome: short(&deed.outcome),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deed(number: usize) -> Deed {
        let text = |text: &str| text.to_owned();
        Deed {
            room: text("!abc:example.org"),
            turn: format!("turn-{number}"),
            who: vec![text("@anna:example.org")],
            kind: text("tool"),
            about: text("run_command"),
            digest: format!("{number:032x}"),
            outcome: text("done"),
        }
    }

    /// Checks a file that lies in memory; says of one head whether the file holds its line.
    fn checked(file: &[u8], witness: Option<&Head>) -> Result<(Checked, bool), Broken> {
        match check(file, witness.as_slice()) {
            Ok(checked) => {
                let holds = checked.holds.first().is_some_and(|holds| *holds);
                Ok((checked, holds))
            }
            Err(Unproven::Broken(broken)) => Err(broken),
            Err(Unproven::Unread(error)) => panic!("{error}"),
        }
    }

    /// A log of so many lines, and its head.
    fn log(lines: usize) -> (Vec<u8>, Head) {
        let mut head = Head::default();
        let text = (0..lines).map(|at| head.write("2026-11-30T10:00:00Z", &deed(at), at == 0).unwrap());
        (text.collect::<String>().into_bytes(), head)
    }

    #[test]
    fn a_log_is_as_it_was_written_and_another_one_goes_on_where_it_ends() {
        let (file, mut head) = log(50);
        let (found, holds) = checked(&file, Some(&head)).unwrap();
        assert_eq!((found.after, &found.head, holds), (Head::default(), &head, true));
        let before = head.clone();
        let next = head.write("2026-12-01T00:00:00Z", &deed(50), true).unwrap();
        let (found, holds) = checked(next.as_bytes(), None).unwrap();
        assert_eq!((found.after, found.head, holds), (before.clone(), head.clone(), false));
        assert_eq!(begins_after(next.as_bytes()).unwrap(), Some(before));
        assert_eq!(begins_after(&b""[..]).unwrap(), None);
        assert_eq!(Head::parse(&head.shown()), Some(head));
        assert_eq!(checked(b"", None).unwrap().0.head, Head::default());
    }

    #[test]
    fn a_line_without_an_end_is_not_read_to_it_and_the_longest_one_is() {
        let endless = io::BufReader::new(io::repeat(b'x'));
        let Err(Unproven::Broken(broken)) = check(endless, &[]) else { panic!("it is no log") };
        assert_eq!(broken, Broken { place: 1, why: Why::Long });
        let long = "\u{1}".repeat(LONGEST * 2);
        let who = vec![long.clone(); PEOPLE * 2];
        let deed = Deed {
            room: long.clone(),
            turn: long.clone(),
            who,
            kind: long.clone(),
            about: long.clone(),
            digest: long.clone(),
            outcome: long,
        };
        let line = Head::default().write("2026-11-30T10:00:00Z", &deed, true).unwrap();
        assert!(line.len() as u64 <= LONGEST_LINE, "{}", line.len());
        assert!(check(line.as_bytes(), &[]).is_ok());
    }

    /// Ten thousand changes of a log: of a byte, of a line's place, of its being there at all.
    #[test]
    fn every_change_is_found() {
        let (file, head) = log(16);
        let lines: Vec<_> = file.split_inclusive(|byte| *byte == b'\n').collect();
        let is_found = |changed: &[u8]| checked(changed, Some(&head)).map_or(true, |(_, holds)| !holds);
        assert!(!is_found(&file));
        let mut changes = 0;
        let mut found = |changed: Vec<u8>, what: &str| {
            if changed != file {
                assert!(is_found(&changed), "{what}");
                changes += 1;
            }
        };
        for at in 0..file.len() {
            for to in [file[at] ^ 1, b' '] {
                let mut changed = file.clone();
                changed[at] = to;
                found(changed, &format!("byte {at} is {to}"));
            }
            let mut cut = file.clone();
            cut.remove(at);
            found(cut, &format!("byte {at} is gone"));
        }
        for one in 0..lines.len() {
            found(lines[..one].concat(), &format!("it ends before line {one}"));
            found(lines[one..].concat(), &format!("it begins at line {one}"));
            found([&lines[..one], &lines[one + 1..]].concat().concat(), &format!("line {one} is gone"));
            found([&lines[..=one], &lines[one..]].concat().concat(), &format!("line {one} stands twice"));
            for other in one + 1..lines.len() {
                let mut swapped = lines.clone();
                swapped.swap(one, other);
                found(swapped.concat(), &format!("lines {one} and {other} are swapped"));
            }
        }
        assert!(changes >= 10_000, "{changes}");
    }

    #[test]
    fn whoever_writes_a_line_anew_must_write_all_that_follow() {
        let (file, head) = log(10);
        let lines: Vec<_> = std::str::from_utf8(&file).unwrap().lines().collect();
        let (mut before, mut forged) = (Head::default(), String::new());
        for (index, line) in lines.iter().enumerate() {
            if index == 5 {
                forged.push_str(
                    &before
                        .write("2026-11-30T10:00:00Z", &Deed { outcome: "refused".into(), ..deed(5) }, false)
                        .unwrap(),
                );
                continue;
            }
            if index < 5 {
                before.read(line, index == 0).unwrap();
            }
            forged.push_str(line);
            forged.push('\n');
        }
        assert_eq!(checked(forged.as_bytes(), Some(&head)), Err(Broken { place: 7, why: Why::Sum }));
    }

    proptest! {
        #[test]
        fn no_name_breaks_a_line_and_no_file_breaks_the_check(name in any::<String>(), file in any::<Vec<u8>>()) {
            let mut head = Head::default();
            let people = vec![name.clone(); 40];
            let deed = Deed { about: name.clone(), room: name, who: people, ..Deed::default() };
            let line = head.write("now", &deed, true).unwrap();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(checked(line.as_bytes(), Some(&head)).unwrap().1);
            let _ = check(&file[..], &[]);
        }
    }
}
