//! `read_file`: lines of a text file, or a picture.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Access, Image, Tool, ToolContext, ToolLimits, ToolResult,
    error::ToolError,
    files::{self, Named, Whole},
    form::{Encoding, Ends, Form},
    lines::{LINE_CHARS, LineReader, MOST_LINES, Taken},
    media, output,
};
use crate::{
    pictures,
    sandbox::{FileSlice, Sandbox},
    text,
};

/// The most bytes that are read at once.
const PIECE: u64 = 256 * 1024;
/// The most bytes of a text in UTF-16 that is shown.
const WIDE_LIMIT: u64 = 2 * 1024 * 1024;
/// The byte order mark with which a text in UTF-8 may begin.
const BOM: &[u8] = b"\xef\xbb\xbf";
/// How far into a file lines are looked for, in bytes.
const REACH: u64 = 64 * 1024 * 1024;

pub(super) struct ReadFile;

/// The arguments. What their comments say is what models read.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// In /workspace, or absolute.
    #[serde(alias = "file_path")]
    path: String,
    /// First line, from 1.
    offset: Option<u64>,
    limit: Option<u64>,
}

impl Tool for ReadFile {
    const NAME: &'static str = "read_file";
    const ACCESS: Access = Access::Shared;
    const EXAMPLE: &'static str = r#"{"path":"src/a.py","offset":1,"limit":200}"#;
    type Arguments = Arguments;

    fn description(_limits: &ToolLimits, vision: bool) -> String {
        let pictures = if vision { ", or look at a picture" } else { "" };
        format!("Read a text file, at most 2000 lines or 50 KB a call{pictures}.")
    }

    fn label(arguments: &Arguments) -> String {
        format!("read {}", files::shown(&files::absolute(&arguments.path)))
    }

    async fn run(context: &ToolContext, arguments: Arguments) -> Result<ToolResult, ToolError> {
        let mut named = Named::as_given(files::named(&arguments.path)?);
        let sandbox = context.sandbox().await?;
        let first = named.read_piece(context, &sandbox, 0, PIECE).await?;
        let Named { path, note, .. } = named;
        if let Some(mime) = media::picture(&first.bytes) {
            return picture(context, &sandbox, &path, mime).await.map(|result| with_note(result, &note));
        }
        let summary = format!("read {}", files::shown(&path));
        if first.bytes.is_empty() {
            return Ok(ToolResult::good(summary, format!("{note}[{path} is empty]")));
        }
        let form = Form::of(&first.bytes);
        let first = if matches!(form.encoding, Encoding::Utf16Le | Encoding::Utf16Be) {
            decoded(context, &sandbox, &path, form).await?.unwrap_or(first)
        } else {
            first
        };
        if output::is_binary(&first.bytes[..first.bytes.len().min(8192)]) {
            let (kind, size) = (media::kind(&first.bytes), text::human_bytes(first.size));
            let text = format!(
                "{note}[{path} is {kind}, {size}: not shown; look into it with run_command (file, strings, xxd | head)]"
            );
            return Ok(ToolResult::good(summary, text));
        }
        let offset = arguments.offset.unwrap_or(1).max(1);
        let limit = arguments.limit.filter(|limit| *limit > 0).unwrap_or(MOST_LINES);
        let text = read_lines(context, &sandbox, &path, first, form, (offset, limit)).await?;
        Ok(with_note(ToolResult::good(summary, text), &note))
    }

    async fn resume(context: &ToolContext, arguments: Arguments, _boot_id: &str) -> Result<ToolResult, ToolError> {
        // Reading changes nothing, so it is done again.
        Self::run(context, arguments).await
    }
}

fn with_note(mut result: ToolResult, note: &str) -> ToolResult {
    result.text.insert_str(0, note);
    result
}

/// Returns a file in UTF-16 as one in UTF-8, if it is not too large.
async fn decoded(
    context: &ToolContext,
    sandbox: &Sandbox,
    path: &str,
    form: Form,
) -> Result<Option<FileSlice>, ToolError> {
    let Whole::Content(bytes) = files::read_whole(context, sandbox, path, WIDE_LIMIT).await? else { return Ok(None) };
    Ok(form.read(&bytes).map(|text| FileSlice { size: text.len() as u64, bytes: text.into() }))
}

async fn read_lines(
    context: &ToolContext,
    sandbox: &Sandbox,
    path: &str,
    first: FileSlice,
    form: Form,
    (offset, limit): (u64, u64),
) -> Result<String, ToolError> {
    let mut reader = LineReader::new(offset, limit, form.ends == Ends::Cr);
    let mut at = first.bytes.len() as u64;
    let mut size = first.size.max(at);
    reader.feed(first.bytes.strip_prefix(BOM).unwrap_or(&first.bytes));
    let mut ended = at >= size;
    while reader.wants_more() && !ended && at < REACH {
        let piece = files::read_piece(context, sandbox, path, at, PIECE).await?;
        reader.feed(&piece.bytes);
        at += piece.bytes.len() as u64;
        size = piece.size.max(at);
        ended = piece.bytes.is_empty() || at >= size;
    }
    // The lines of a file that is at hand as a whole can be counted; of a larger one its size is told.
    let whole = first.size <= first.bytes.len() as u64;
    let total = whole.then(|| total_lines(&first.bytes, if form.ends == Ends::Cr { b'\r' } else { b'\n' }));
    let stuck = reader.wants_more() && !ended;
    let taken = reader.finish();
    if stuck {
        return Err(ToolError::Refused(format!(
            "{path} has {}, and line {offset} is not in its first {}. Use run_command, e.g. `tail -n 100`, `rg -n`, `sed -n`.",
            text::human_bytes(size),
            text::human_bytes(REACH)
        )));
    }
    if taken.lines == 0 {
        return Err(ToolError::Refused(format!(
            "offset {offset} is behind the end of {path}, which has {} lines.",
            taken.seen
        )));
    }
    Ok(format!("{}{}", taken.text, notice(&taken, offset, total, size, form)))
}

fn total_lines(bytes: &[u8], end: u8) -> u64 {
    bytes.split_inclusive(|byte| *byte == end).count() as u64
}

/// Returns what the model needs to know about what it does not see; nothing if it sees all.
fn notice(taken: &Taken, offset: u64, total: Option<u64>, size: u64, form: Form) -> String {
    let last = offset + taken.lines - 1;
    let whole = total.map_or_else(|| text::human_bytes(size), |total| format!("{total} lines"));
    let mut notes = Vec::new();
    if total.is_none_or(|total| last < total) {
        notes.push(format!("lines {offset}–{last} of {whole}; go on with offset={}", last + 1));
    } else if offset > 1 {
        notes.push(format!("lines {offset}–{last} of {whole}: the end"));
    }
    if taken.cut_lines > 0 {
        notes.push(format!("{} lines were cut at {LINE_CHARS} characters; `cut -c` shows the rest", taken.cut_lines));
    }
    let told = form.told();
    if !told.is_empty() {
        notes.push(format!("the file has {}: not shown, and kept by write_file and edit_file", told.join(" and ")));
    }
    if taken.unended {
        notes.push("the last line has no line end".to_owned());
    }
    if notes.is_empty() { String::new() } else { format!("[{}]", notes.join("; ")) }
}

async fn picture(context: &ToolContext, sandbox: &Sandbox, path: &str, mime: &str) -> Result<ToolResult, ToolError> {
    let summary = format!("looked at {}", files::shown(path));
    let data = match files::read_whole(context, sandbox, path, pictures::FILE_LIMIT).await? {
        Whole::Content(data) => data,
        Whole::Missing => return Err(files::missing(path)),
        Whole::TooLarge(size) => {
            let size = text::human_bytes(size);
            return Err(ToolError::Refused(format!(
                "{path} is a picture of {size}, and 32 MiB is the limit. Make a smaller copy and read that (for example \
                 with Pillow: pip install pillow)."
            )));
        }
    };
    let about = format!("{path} is a picture ({mime}, {})", text::human_bytes(data.len() as u64));
    if !context.vision {
        return Ok(ToolResult::good(
            summary,
            format!("[{about}. You cannot see pictures; send_file shows it to the people.]"),
        ));
    }
    let picture = pictures::prepare(data).await.map_err(|why| {
        ToolError::Refused(format!(
            "{about}, but it cannot be shown: {why}. Look into it with run_command (file, xxd)."
        ))
    })?;
    let mut result = ToolResult::good(summary, format!("[{about}; it follows{}.]", picture.note()));
    result.images.push(Image { mime: picture.mime.to_owned(), data: picture.data });
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(offset: u64, lines: u64, total: Option<u64>, cut_lines: u64) -> String {
        let taken = Taken { lines, cut_lines, ..Taken::default() };
        notice(&taken, offset, total, 3 * 1024 * 1024, Form::default())
    }

    #[test]
    fn the_notice_says_where_to_go_on() {
        assert_eq!(told(1, 10, Some(10), 0), "");
        assert_eq!(told(1, 2000, Some(2500), 0), "[lines 1–2000 of 2500 lines; go on with offset=2001]");
        assert_eq!(told(2001, 500, Some(2500), 0), "[lines 2001–2500 of 2500 lines: the end]");
        assert_eq!(told(5, 10, None, 0), "[lines 5–14 of 3 MiB; go on with offset=15]");
        let taken = Taken { lines: 1, unended: true, ..Taken::default() };
        let form = Form::of(b"\xef\xbb\xbfa\r\nb");
        assert_eq!(
            notice(&taken, 1, Some(1), 1, form),
            "[the file has a byte order mark and CRLF line ends: not shown, and kept by write_file and edit_file; the last \
             line has no line end]"
        );
        assert_eq!(told(1, 1, Some(1), 1), "[1 lines were cut at 2000 characters; `cut -c` shows the rest]");
    }
}
