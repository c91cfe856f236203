//! Makes each event one line of bounded length, whatever its fields contain: an error may quote a megabyte, and a
//! line break in it would let a stranger forge log lines.

use std::io::{self, Write};

use serde_json::{Value, json};
use tracing_subscriber::fmt::{MakeWriter, writer::BoxMakeWriter};

use crate::{config::LogFormat, ops::recent, text};

/// The longest line, in bytes.
pub(super) const LONGEST: usize = 8 * 1024;

/// The most bytes of a field in a JSON line that would be too long, and how many fields it keeps.
const FIELD: usize = 600;
const FIELDS: usize = 5;

/// Bounds the lines on their way to a writer.
pub(super) struct Lines {
    pub(super) writer: BoxMakeWriter,
    pub(super) format: LogFormat,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<Box<dyn Write + 'a>>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { writer: self.writer.make_writer(), format: self.format }
    }
}

/// Takes one event at a time as `tracing_subscriber` writes it: whole, with a line break at its end.
pub(super) struct Line<W> {
    writer: W,
    format: LogFormat,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        // A room's name must not make its line read as something else.
        let honest = (!text.is_ascii()).then(|| text::undeceiving(&String::from_utf8_lossy(text)));
        let text = honest.as_ref().map_or(text, |honest| honest.as_bytes());
        // JSON has no line breaks, and half an object is none.
        let shorter = (self.format == LogFormat::Json && text.len() > LONGEST).then(|| shortened(text));
        let text = shorter.as_deref().unwrap_or(text);
        let mut line = Vec::with_capacity(text.len().min(LONGEST) + 1);
        for byte in &text[..text.len().min(LONGEST)] {
            match byte {
                b'\n' => line.extend(b"\\n"),
                b'\r' => line.extend(b"\\r"),
                other => line.push(*other),
            }
        }
        if text.len() > LONGEST {
            // The cut may have split a character.
            line.truncate(line.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len()));
            write!(line, " … {} bytes cut", text.len() - LONGEST)?;
        }
        line.push(b'\n');
        recent::note(&line);
        self.writer.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Returns a JSON line with fewer and shorter fields.
fn shortened(line: &[u8]) -> Vec<u8> {
    let mut event: Value = serde_json::from_slice(line).unwrap_or_default();
    if let Some(fields) = event.get_mut("fields").and_then(Value::as_object_mut) {
        let short =
            |value: &Value| json!(text::cut_middle(&text::strip(value.as_str().unwrap_or(&value.to_string())), FIELD));
        // What happened comes first.
        let message = fields.remove("message").map(|message| ("message".to_owned(), message));
        let others = std::mem::take(fields);
        let kept = message.into_iter().chain(others).take(FIELDS);
        *fields = kept.map(|(name, value)| (name, short(&value))).collect();
    }
    event.to_string().into_bytes()
}
