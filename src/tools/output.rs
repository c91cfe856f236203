//! A command's end and output as a model reads them.
//!
//! Pure: takes what the sandbox captured, gives text. Called by the tools that run commands.

use super::shorten::{self, Shown};
use crate::{
    sandbox::{Captured, Exit},
    text,
};

/// The most bytes of output that one result carries: head and tail, the middle cut. Every later request carries them too.
pub(super) const SHOWN: usize = 10_000;

/// Returns what a command wrote, clean and without what says little, in at most `limit` bytes.
pub(super) fn show(captured: &Captured, limit: usize) -> Shown {
    let size = captured.head.len() as u64 + captured.omitted + captured.tail.len() as u64;
    if size == 0 {
        return Shown { text: "(no output)".to_owned(), cut: false };
    }
    if is_binary(&captured.head) || is_binary(&captured.tail) {
        let size = text::human_bytes(size);
        let text = format!(
            "(binary output, {size}, not shown: write it to a file, or pipe it through `file -`, `strings` or `xxd | head`)"
        );
        return Shown { text, cut: false };
    }
    if captured.omitted > 0 {
        let (head, tail) = (text::strip(&captured.head), text::strip(&captured.tail));
        let (head, tail) = (shorten::fold(&head), shorten::fold(tail.trim_end()));
        return shorten::joined(&head.text, captured.omitted, &tail.text, limit);
    }
    let whole = text::strip([&captured.head[..], &captured.tail[..]].concat());
    let folded = shorten::fold(whole.trim_end());
    if folded.text.is_empty() {
        return Shown { text: "(only blanks)".to_owned(), cut: false };
    }
    let fitting = shorten::fit(&folded.text, limit);
    Shown { cut: folded.cut || fitting.cut, ..fitting }
}

/// Returns whether nobody could read `bytes`: more than a tenth is neither text nor what a terminal obeys.
pub(super) fn is_binary(bytes: &[u8]) -> bool {
    let strange = |byte: &&u8| matches!(byte, 0..=6 | 14..=26 | 28..=31 | 127);
    let controls = bytes.iter().filter(strange).count();
    // A piece may begin or end inside a character: that makes a handful of invalid bytes, not a tenth.
    let invalid: usize = bytes.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    (controls + invalid) * 10 > bytes.len() + 60
}

/// Returns how a command ended, on one line, and the hint that belongs to it.
pub(super) fn ending(exit: &Exit) -> (String, Option<&'static str>) {
    match exit {
        Exit::Code(code) => (format!("exit code: {code}"), None),
        Exit::Signal(signal) => (format!("ended by signal {signal}{}", signal_name(*signal)), None),
        Exit::TimedOut => (
            "timed out: it and everything it had started were ended".to_owned(),
            Some(
                "If it needs longer, raise timeout_seconds; a server or watcher needs background=true; a prompt for input needs a flag that answers it.",
            ),
        ),
        Exit::Killed => ("stopped from outside: it and everything it had started were ended".to_owned(), None),
        Exit::OutOfMemory => (
            "out of memory: the sandbox's memory limit was reached and the command was ended".to_owned(),
            Some("Let it use less: fewer parallel jobs, smaller inputs."),
        ),
        Exit::DiskFull => (
            "disk full: the sandbox's disk limit was reached and the command was ended".to_owned(),
            Some("Delete what is not needed (see `du -xsh /workspace/* ~/.cache`), then try again."),
        ),
        Exit::NotStarted(why) => (format!("not started: {}", text::one_line(why, 300)), None),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        6 => " (SIGABRT)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        _ => "",
    }
}

/// Returns whether a command ended with exit code 0.
pub(super) fn succeeded(exit: &Exit) -> bool {
    *exit == Exit::Code(0)
}

/// Lines that begin with this are a script's word to the server and not shown while it runs.
pub(super) const MARK: &str = "@@matrix-agent-";

/// Returns the last line of a piece of output, for the room.
pub(super) fn last_line(piece: &[u8]) -> Option<String> {
    // The end of a piece is enough, and cheap for one of any size.
    let end = &piece[piece.len().saturating_sub(512)..];
    let clean = text::strip(end);
    let line = clean.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with(MARK))?;
    Some(text::one_line(line, 120))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(head: &[u8], omitted: u64, tail: &[u8]) -> Captured {
        Captured { head: head.to_vec().into(), tail: tail.to_vec().into(), omitted, ..Captured::default() }
    }

    fn whole(bytes: &[u8]) -> String {
        show(&captured(bytes, 0, b""), SHOWN).text
    }

    #[test]
    fn output_is_shown_clean() {
        assert_eq!(whole(b""), "(no output)");
        assert_eq!(whole(b" \n\n"), "(only blanks)");
        assert_eq!(whole(b"  \x1b[31mred\x1b[0m\n10%\r100%\n\n"), "  red\n100%");
        // A character that is torn between head and tail is whole again.
        assert_eq!(show(&captured(b"caf\xc3", 0, b"\xa9"), SHOWN).text, "café");
    }

    #[test]
    fn binary_output_is_described() {
        let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
        assert!(whole(&noise).starts_with("(binary output, 4 KiB, not shown"), "{}", whole(&noise));
        assert!(!is_binary("Grüße, 世界 ✓\n".repeat(50).as_bytes()));
        assert!(!is_binary(&"世界".repeat(50).as_bytes()[1..]), "torn at its ends");
        assert!(!is_binary(b"\x1b[1m\x1b[2Jx\x08\x07\r\n"));
        assert!(is_binary(&[0; 100]));
    }

    #[test]
    fn the_middle_is_cut_and_counted() {
        let lines = |from: u32| (from..from + 2000).fold(String::new(), |all, line| format!("{all}line {line}\n"));
        let (head, tail) = (lines(0), lines(900_000));
        let shown = show(&captured(head.as_bytes(), 5_000_000, tail.as_bytes()), 2000);
        assert!(shown.cut && shown.text.len() <= 2100, "{}", shown.text.len());
        assert!(shown.text.starts_with("line 0\nline 1\n") && shown.text.ends_with("\nline 901999"));
        assert!(
            shown.text.lines().all(|line| line.starts_with("line ") || line.contains("bytes cut")),
            "{}",
            shown.text
        );
        let kept: usize = shown.text.lines().filter(|line| line.starts_with("line")).map(|line| line.len() + 1).sum();
        let cut = head.len() + tail.len() + 5_000_000 - kept;
        // The ends of the last lines kept on either side count as cut or not: the mark stands in their place.
        assert!(shown.text.contains(&text::cut_mark(cut as u64)), "{cut}: {}", shown.text);

        let short = show(&captured(b"one\n", 10, b"end\n"), 2000);
        assert_eq!(short, Shown { text: format!("one\n{}\nend", text::cut_mark(10)), cut: true });
        let one = show(&captured(&[b'x'; 9000], 0, &[b'y'; 9000]), 1000);
        assert!(one.cut && one.text.len() <= 1000);
    }

    #[test]
    fn the_last_line_is_what_the_room_sees() {
        assert_eq!(last_line(b"one\n\x1b[1mtwo\x1b[0m\n\n").as_deref(), Some("two"));
        assert_eq!(last_line(b"10%\r20%\r").as_deref(), Some("20%"));
        assert_eq!(last_line(b"\n \n"), None);
        assert_eq!(last_line("é".repeat(5000).as_bytes()).map(|line| line.chars().count()), Some(120));
    }
}
