//! Makes each event one line of bounded length, whatever its fields contain: an error may quote a megabyte, and a
//! line break in it would let a stranger forge log lines.

use std::io::{self, Write};

use tracing_subscriber::fmt::{MakeWriter, writer::BoxMakeWriter};

use crate::ops::recent;

/// The longest line, in bytes.
pub(super) const LONGEST: usize = 8 * 1024;

/// Bounds the lines on their way to a writer.
pub(super) struct Lines(pub(super) BoxMakeWriter);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<Box<dyn Write + 'a>>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

/// Takes one event at a time as `tracing_subscriber` writes it: whole, with a line break at its end.
pub(super) struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
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
        self.0.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
