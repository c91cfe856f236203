//! Helpers for text that people and models read: cleaning what comes out of a sandbox, cutting what is too long, and
//! writing sizes and durations.
//!
//! A low layer that knows nothing of rooms, tools or chats. Escaping (HTML, `@room`) is left to the chat adapter that
//! knows the markup.

mod names;

use std::{error::Error, iter, time::Duration};

pub(crate) use names::{look_of, plain_punctuation, typeable};

/// Returns `bytes` as text that is safe to show: terminal escapes and control characters are removed, invalid UTF-8
/// is replaced, newlines and tabs stay.
///
/// Of a line that was overwritten with carriage returns (a progress bar) only the last state stays. An escape
/// sequence that is never closed ends with its line, so that it cannot hide the lines after it. Characters that
/// change the direction of writing, or are invisible copies of ASCII, are removed too: people would read something
/// else than the model. Not for callers that need a file's exact bytes.
pub(crate) fn strip(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut clean = String::with_capacity(bytes.len());
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if number > 0 {
            clean.push('\n');
        }
        if line.contains(&b'\r') {
            let last = line.split(|byte| *byte == b'\r').rev().map(strip_line).find(|part| !part.trim().is_empty());
            clean.push_str(&last.unwrap_or_default());
        } else {
            clean.push_str(&strip_line(line));
        }
    }
    clean
}

/// Cleans one line. `strip_ansi_escapes` drops tabs, so it gets only the text between them.
fn strip_line(line: &[u8]) -> String {
    let mut clean = String::with_capacity(line.len());
    for (number, part) in line.split(|byte| *byte == b'\t').enumerate() {
        if number > 0 {
            clean.push('\t');
        }
        // Most output has no escapes, and the parser for them is the slowest part.
        if part.contains(&0x1b) {
            let plain = strip_ansi_escapes::strip(part);
            clean.extend(String::from_utf8_lossy(&plain).chars().filter(|c| visible(*c)));
        } else {
            clean.extend(String::from_utf8_lossy(part).chars().filter(|c| visible(*c)));
        }
    }
    clean
}

fn visible(c: char) -> bool {
    !c.is_control() && !deceives(c)
}

/// Returns whether a character changes the direction of writing, or is an invisible copy of ASCII (a "tag").
fn deceives(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns `text` without the characters that [`strip`] removes because people would read something else; terminal escapes and control
/// characters stay.
pub(crate) fn undeceiving(text: &str) -> String {
    text.chars().filter(|c| !deceives(*c)).collect()
}

/// The most characters of a name in a list; Matrix has no longer ones.
const NAME: usize = 255;

/// Returns a name that somebody else has chosen (a room's, a person's) as it may stand in a line: visible, and of bounded length.
pub(crate) fn shown_name(name: &str) -> String {
    one_line(&typeable(name), NAME)
}

/// Returns `text` without invisible characters (joiners, marks of direction, variation selectors, a byte order mark)
/// and without surrounding white space.
pub(crate) fn bare(text: &str) -> String {
    let is_seen = |c: &char| {
        !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
    };
    text.chars().filter(is_seen).collect::<String>().trim().to_owned()
}

/// Returns the text that replaces `bytes` bytes that were cut out.
pub(crate) fn cut_mark(bytes: u64) -> String {
    format!("… [{bytes} bytes cut] …")
}

/// Returns `text` with its middle cut out, so that it has at most `limit` bytes. Both ends stay, the end a little
/// longer because errors are there; the cut is between characters, at a line end if one is near.
pub(crate) fn cut_middle(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    // The mark's length depends on the number in it; the whole length has at least as many digits.
    let mark_room = cut_mark(text.len() as u64).len() + 2;
    let Some(room) = limit.checked_sub(mark_room) else {
        return text[..floor(text, limit)].to_owned();
    };
    let head = head_end(text, room * 2 / 5);
    let tail = tail_start(text, text.len() - (room - room * 2 / 5));
    let mark = cut_mark((tail - head) as u64);
    format!("{}\n{mark}\n{}", &text[..head], &text[tail..])
}

/// How far a line end may be from the cut to be preferred, in bytes.
const NEAR: usize = 200;

fn head_end(text: &str, wished: usize) -> usize {
    let wished = floor(text, wished);
    match text[..wished].rfind('\n') {
        Some(at) if wished - at <= NEAR => at,
        _ => wished,
    }
}

fn tail_start(text: &str, wished: usize) -> usize {
    let wished = ceil(text, wished);
    match text[wished..].find('\n') {
        Some(at) if at <= NEAR => wished + at + 1,
        _ => wished,
    }
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn ceil(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// Returns `text` as one clean line of at most `limit` characters: runs of white space become one space, and a longer
/// text ends in `…`.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let clean = strip(text);
    let mut line = String::new();
    let mut length = 0;
    for (number, word) in clean.split_whitespace().enumerate() {
        for c in (number > 0).then_some(' ').into_iter().chain(word.chars()) {
            if length == limit {
                line.pop();
                if limit > 0 {
                    line.push('…');
                }
                return line;
            }
            line.push(c);
            length += 1;
        }
    }
    line
}

/// Returns a size for people: `512 B`, `1.5 KiB`, `20 GiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0 of the smaller unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

/// Returns a count as `950`, `84k`, `1.2M`.
pub(crate) fn short(count: u64) -> String {
    match count {
        0..1000 => count.to_string(),
        1000..999_500 => format!("{}k", (count + 500) / 1000),
        _ => {
            let tenths = (count + 50_000) / 100_000;
            format!("{}.{}M", tenths / 10, tenths % 10)
        }
    }
}

/// Reads a count as people write it: `500k`, `1.5M`, `200,000`; `None` unless it is from 1 to a million millions. Only thousands and
/// millions have fractions, and a comma stands only between thousands: `1.5` and `1,5M` are mistakes for something larger or smaller.
pub(crate) fn amount(word: &str) -> Option<u64> {
    const MOST: f64 = 1e12;
    let word = word.to_lowercase();
    let word = word.strip_prefix('+').unwrap_or(&word);
    let (number, unit) = match word.strip_suffix(['k', 'm']) {
        Some(number) if word.ends_with('k') => (number, 1e3),
        Some(number) => (number, 1e6),
        None => (word, 1.0),
    };
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    if unit < 1e3 && fraction.is_some() {
        return None;
    }
    // `inf`, `nan` and `1e9` are numbers to a computer only.
    let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let mut groups = whole.split([',', '_']);
    let first = groups.next().is_some_and(plain);
    if !first || !groups.all(|group| group.len() == 3 && plain(group)) || !fraction.is_none_or(plain) {
        return None;
    }
    let count = number.replace([',', '_'], "").parse::<f64>().ok()? * unit;
    (1.0..=MOST).contains(&count).then_some(count.round() as u64)
}

/// Returns a duration for a sentence: `350 ms`, `4.2 s`, `1 min 12 s`, `3 h 5 min`, `2 d 4 h`.
pub(crate) fn human_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0 s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis} ms");
    }
    // From 9.95 s on whole seconds are shown.
    if millis < 9950 {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    let seconds = (millis + 500) / 1000;
    let pair = |large: u128, name: &str, small: u128, small_name: &str| {
        if small == 0 { format!("{large} {name}") } else { format!("{large} {name} {small} {small_name}") }
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3600..86400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => pair(seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    }
}

/// Returns an error and its causes, the innermost one last.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(error.source(), |&cause| cause.source())
}

/// Returns the text of an error's innermost cause, often the only informative one: "connection refused" instead of
/// "client error (Connect)".
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

/// Returns elapsed time as on a stopwatch, for lines that are updated: `0:42`, `1:02:03`.
pub(crate) fn stopwatch(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    if hours == 0 { format!("{minutes}:{seconds:02}") } else { format!("{hours}:{minutes:02}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_are_short_without_jumping() {
        let shown: Vec<_> = [0, 999, 1000, 1499, 1500, 999_499, 999_500, 1_000_000].map(short).into();
        assert_eq!(shown, ["0", "999", "1k", "1k", "2k", "999k", "1.0M", "1.0M"]);
    }

    #[test]
    fn a_count_is_read_as_people_write_it_and_a_part_of_one_is_none() {
        for (word, count) in [
            ("500k", 500_000),
            ("1.5M", 1_500_000),
            ("+2k", 2000),
            ("200,000", 200_000),
            ("1_000", 1000),
            ("1,500k", 1_500_000),
            (".5k", 500),
            ("7", 7),
        ] {
            assert_eq!(amount(word), Some(count), "{word}");
        }
        for word in [
            "1.5", "0.5", "5.", "1,5", "1,5M", "1,50,000", "1.2.3k", "", "k", ".", ".k", "0", "0k", "-1", "1e9", "inf",
            "2000000M",
        ] {
            assert_eq!(amount(word), None, "{word}");
        }
    }

    #[test]
    fn a_name_in_a_list_is_visible_and_bounded() {
        assert_eq!(shown_name("terminal:\u{202e}toor\u{200b}\u{e0041}"), "terminal:toor");
        assert_eq!(shown_name(&"x".repeat(3000)).chars().count(), 255);
        assert_eq!(undeceiving("\x1b[1ma\u{202e}b\u{2066}\x1b[0m"), "\x1b[1mab\x1b[0m");
    }

    #[test]
    fn strips_what_a_terminal_would_obey() {
        assert_eq!(strip("\x1b[32mok\x1b[0m\tdone\n"), "ok\tdone\n");
        assert_eq!(strip("\x1b]0;title\x07text\x07"), "text");
        assert_eq!(strip(b"a\xffb\x00\x08c"), "a\u{fffd}bc");
        assert_eq!(strip("one\r\ntwo"), "one\ntwo");
        assert_eq!(strip("10 %\r50 %\r100 %\r\x1b[K\nnext"), "100 %\nnext");
        assert_eq!(strip("\u{9b}31mred"), "31mred");
    }

    #[test]
    fn an_unclosed_escape_hides_one_line_at_most() {
        assert_eq!(strip("a\x1b]0;never closed\nb\x1bPnor this\nc"), "a\nb\nc");
    }

    #[test]
    fn characters_that_deceive_the_eye_go() {
        assert_eq!(strip("if \u{202e}admin\u{2066}"), "if admin");
        assert_eq!(strip("hi\u{e0041}\u{e0042}"), "hi");
    }

    #[test]
    fn cuts_at_line_ends_and_keeps_both_ends() {
        let text: String = (0..1000).fold(String::new(), |text, line| format!("{text}line {line}\n"));
        let cut = cut_middle(&text, 1000);
        assert!(cut.len() <= 1000 && cut.len() > 800, "{}", cut.len());
        assert!(cut.starts_with("line 0\n") && cut.ends_with("line 999\n"));
        assert!(cut.lines().all(|line| line.starts_with("line ") || line.starts_with("… [")), "{cut}");
    }

    #[test]
    fn tells_how_much_was_cut() {
        let cut = cut_middle(&"x".repeat(10_000), 300);
        let kept = cut.matches('x').count();
        assert!(cut.contains(&format!("… [{} bytes cut] …", 10_000 - kept)), "{cut}");
    }

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line("  a\n\tb \x1b[1mc\x1b[0m ", 20), "a b c");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(one_line("abcd", 4), "abcd");
        assert_eq!(one_line("ab cd", 2), "a…");
        assert_eq!(one_line("abc", 0), "");
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1 MiB"),
            (10 << 30, "10 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn durations() {
        for (millis, text, watch) in [
            (0, "0 s", "0:00"),
            (999, "999 ms", "0:00"),
            (4_210, "4.2 s", "0:04"),
            (9_949, "9.9 s", "0:09"),
            (42_000, "42 s", "0:42"),
            (59_700, "1 min", "0:59"),
            (72_000, "1 min 12 s", "1:12"),
            (3_723_000, "1 h 2 min", "1:02:03"),
            (187_200_000, "2 d 4 h", "52:00:00"),
        ] {
            assert_eq!(human_duration(Duration::from_millis(millis)), text);
            assert_eq!(stopwatch(Duration::from_millis(millis)), watch);
        }
    }

    proptest! {
        #[test]
        fn stripped_text_is_clean_and_stays_so(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let clean = strip(&bytes);
            prop_assert!(clean.chars().all(|c| c == '\n' || c == '\t' || visible(c)));
            prop_assert_eq!(clean.matches('\n').count(), bytes.split(|byte| *byte == b'\n').count() - 1);
            prop_assert_eq!(strip(&clean), clean);
        }

        #[test]
        fn cut_text_fits(text in "\\PC{0,50}[a-zé✓\n]{0,600}", limit in 0_usize..700) {
            let cut = cut_middle(&text, limit);
            prop_assert!(cut.len() <= limit);
            if text.len() <= limit {
                prop_assert_eq!(cut, text);
            }
        }

        #[test]
        fn one_line_fits(text in any::<String>(), limit in 0_usize..60) {
            let line = one_line(&text, limit);
            prop_assert!(line.chars().count() <= limit);
            prop_assert!(line.chars().all(visible));
        }
    }
}
