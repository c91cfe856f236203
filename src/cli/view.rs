//! What `chat` and `demo` print: for people a stream of text with a progress line, for programs one frame a line.

use std::{
    io::{self, IsTerminal, Write},
    time::Instant,
};

use crate::{
    chat::terminal::ServerFrame,
    hub::{Ending, Live},
    strings::commands::HELD,
    text,
};

/// Printed for a question that the server does not know.
pub(super) const UNKNOWN: &str = "The server does not know what was asked: it was started with another state directory, or has forgotten it. Ask again.";

/// The most characters of a progress line.
const WIDTH: usize = 100;

/// Prints the events of a room.
pub(super) struct View {
    /// Whether frames are printed as JSON, for programs.
    json: bool,
    /// Whether there is a terminal, on which a progress line can be overwritten.
    live: bool,
    /// Whether text is printed as it comes, on a terminal. A file or a program gets it when it is final, since it may
    /// be voided.
    stream: bool,
    /// The text since the last tool call; an answer that repeats it is not printed again.
    streamed: String,
    /// Whether a progress line is on the screen and must be erased first.
    line: bool,
    started: Instant,
    tools: u32,
}

impl View {
    pub(super) fn new(json: bool) -> Self {
        let live = !json && io::stderr().is_terminal();
        let stream = io::stdout().is_terminal();
        Self { json, live, stream, streamed: String::new(), line: false, started: Instant::now(), tools: 0 }
    }

    /// Prints a frame.
    pub(super) fn show(&mut self, frame: &ServerFrame) -> io::Result<()> {
        if self.json {
            let mut out = io::stdout().lock();
            serde_json::to_writer(&mut out, frame)?;
            writeln!(out)?;
            return out.flush();
        }
        match frame {
            ServerFrame::Admitted { .. } | ServerFrame::Noted { .. } | ServerFrame::Open { .. } => Ok(()),
            ServerFrame::Live { live } => self.live(live),
            ServerFrame::Answer { text, footer, ending, .. } => self.answer(text, footer, *ending),
            ServerFrame::Reply { text, .. } => self.print(text),
            ServerFrame::File { name, data, .. } => {
                self.note(&format!("📎 {name}: {}", data.as_deref().unwrap_or_default()))
            }
            ServerFrame::Unknown { .. } => self.note(UNKNOWN),
            ServerFrame::Refused { text, .. } => self.note(text),
        }
    }

    /// Prints a note about the conversation.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        self.wipe()?;
        if self.stream {
            self.end_stream()?;
        }
        writeln!(io::stderr().lock(), "{text}")
    }

    fn live(&mut self, live: &Live) -> io::Result<()> {
        match live {
            Live::Started { .. } => {
                (self.started, self.tools) = (Instant::now(), 0);
                self.progress("working")
            }
            Live::Queued { held: true, .. } => self.progress(&format!("waiting: {HELD}")),
            Live::Queued { before, .. } => self.progress(&format!("waiting: {before} before this one")),
            // Of a draft the answer follows whole.
            Live::Heard { .. } | Live::Draft { .. } => Ok(()),
            Live::Seen { .. } => self.note("(taken into the work)"),
            Live::Thinking => {
                self.take_back()?;
                self.progress("thinking")
            }
            Live::Text { delta } => {
                let delta = text::strip(delta);
                self.streamed.push_str(&delta);
                if !self.stream {
                    return Ok(());
                }
                self.wipe()?;
                let mut out = io::stdout().lock();
                out.write_all(delta.as_bytes())?;
                out.flush()
            }
            Live::ToolStarted { name, detail, .. } => {
                self.end_stream()?;
                self.tools += 1;
                self.progress(&format!("{name}: {detail}"))
            }
            Live::ToolOutput { line, .. } | Live::Told { line } => self.progress(line),
            Live::ToolEnded { summary, ok, .. } => {
                self.note(&format!("{} {}", if *ok { "✓" } else { "✗" }, text::one_line(summary, WIDTH)))
            }
            Live::Notice { text } => self.note(text),
            Live::Ended { .. } => self.wipe(),
        }
    }

    fn answer(&mut self, text: &str, footer: &str, ending: Ending) -> io::Result<()> {
        self.wipe()?;
        if self.streamed.trim() == text.trim() {
            self.end_stream()?;
        } else {
            self.take_back()?;
            writeln!(io::stdout().lock(), "{}", text::strip(text))?;
        }
        let mark = match ending {
            Ending::Done => "✓ done",
            Ending::Stopped => "■ stopped",
            Ending::Failed => "✗ failed",
            Ending::Limit => "◐ limit",
        };
        writeln!(io::stderr().lock(), "{mark} · {footer}")
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        self.wipe()?;
        writeln!(io::stdout().lock(), "{}", text::strip(text))
    }

    /// Writes the progress line over the last one.
    fn progress(&mut self, now: &str) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        if self.stream {
            self.end_stream()?;
        }
        let elapsed = text::human_duration(self.started.elapsed());
        let line = text::one_line(&format!("⚙️ {now}"), WIDTH - 24);
        self.line = true;
        write!(io::stderr().lock(), "\r\x1b[2K{line} · {} tools · {elapsed}", self.tools)
    }

    fn wipe(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.line) {
            write!(io::stderr().lock(), "\r\x1b[2K")?;
        }
        Ok(())
    }

    /// Marks streamed text as void, since it was not the answer.
    fn take_back(&mut self) -> io::Result<()> {
        if self.stream && !self.streamed.trim().is_empty() {
            return self.note("(that was not the whole answer)");
        }
        self.streamed.clear();
        Ok(())
    }

    /// Ends a line of streamed text, so that what follows begins a new one.
    fn end_stream(&mut self) -> io::Result<()> {
        let streamed = std::mem::take(&mut self.streamed);
        let mut out = io::stdout().lock();
        if !self.stream {
            write!(out, "{streamed}")?;
        }
        if !streamed.is_empty() && !streamed.ends_with('\n') {
            writeln!(out)?;
        }
        Ok(())
    }
}
