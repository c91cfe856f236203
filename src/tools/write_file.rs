//! `write_file`: a whole file, new or in the place of the old one.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Access, Edit, Tool, ToolContext, ToolLimits, ToolResult,
    error::ToolError,
    exec,
    files::{self, Named, Whole},
    form::Form,
    output,
};
use crate::text;

/// The most bytes of one file.
const LIMIT: u64 = 2 * 1024 * 1024;

pub(super) struct WriteFile;

/// The arguments. What their comments say is what models read.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    #[serde(alias = "file_path")]
    path: String,
    content: String,
    /// To its end: a long file in pieces.
    #[serde(default)]
    append: bool,
}

impl Tool for WriteFile {
    const NAME: &'static str = "write_file";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"path":"src/hello.py","content":"print(\"hello\")\n"}"#;
    type Arguments = Arguments;

    fn description(_limits: &ToolLimits, _vision: bool) -> String {
        "Create a file with its folders, or replace it (at most 2 MB). To change parts use edit_file.".to_owned()
    }

    fn label(arguments: &Arguments) -> String {
        format!("write {}", files::shown(&files::absolute(&arguments.path)))
    }

    async fn run(context: &ToolContext, arguments: Arguments) -> Result<ToolResult, ToolError> {
        let mut named = Named::for_writing(files::named(&arguments.path)?);
        if named.path.ends_with('/') {
            return Err(ToolError::Refused(format!(
                "{} names a folder: give the path of a file. Nothing was written.",
                named.path
            )));
        }
        let sandbox = context.sandbox().await?;
        // A second file whose name only looks the same could not be told from the first, so the first is written.
        let old = named.read_whole(context, &sandbox, LIMIT).await?;
        let Named { path, note, .. } = named;
        let content = match (&old, arguments.append) {
            (Whole::Content(old), append) => over(old, &arguments.content, append),
            (Whole::TooLarge(size), true) => return Err(too_large(&path, *size)),
            _ => arguments.content.into_bytes(),
        };
        if content.len() as u64 > LIMIT {
            return Err(too_large(&path, content.len() as u64));
        }
        if matches!(&old, Whole::Content(old) if old[..] == content[..]) {
            return Ok(ToolResult::good(
                format!("{} unchanged", files::shown(&path)),
                format!("{note}Unchanged: {path} already has exactly this content."),
            ));
        }
        let content = Bytes::from(content);
        let there = exec::write(context, &sandbox, &path, content.clone()).await?;
        let mut result = done(&path, &old, &content, arguments.append);
        result.text.insert_str(0, &note);
        if let Some(there) = there {
            let new = if matches!(old, Whole::Missing) { " It led to nothing before." } else { "" };
            result.text.extend([files::through_link(&path, &there).as_str(), new]);
        }
        Ok(result)
    }

    async fn resume(context: &ToolContext, arguments: Arguments, boot_id: &str) -> Result<ToolResult, ToolError> {
        let path = files::absolute(&arguments.path);
        let edit = Edit { path: files::shown(&path), added: lines(arguments.content.as_bytes()), removed: 0 };
        resume_write(context, &path, "wrote", edit, boot_id).await
    }
}

/// Returns what is written over `old`, or behind it, so that only what the model changed is changed: line ends, byte order
/// mark and encoding stay.
fn over(old: &[u8], content: &str, append: bool) -> Vec<u8> {
    let form = Form::of(old);
    let Some(text) = form.read(old) else {
        return if append { [old, content.as_bytes()].concat() } else { content.as_bytes().to_vec() };
    };
    if append {
        return form.write(&[text.as_str(), &form.ended(content)].concat());
    }
    form.write(&form.fit(&text, content))
}

/// Says what was kept of the old file that the model did not write, and what was not.
fn kept(old: &[u8], content: &[u8]) -> String {
    let (before, now) = (Form::of(old).told(), Form::of(content).told());
    let words = |told: &[&str]| if told.is_empty() { "UTF-8 with LF".to_owned() } else { told.join(" and ") };
    if before == now {
        if now.is_empty() { String::new() } else { format!(" It keeps its {}.", words(&now)) }
    } else {
        format!(" It was {} before and is {} now.", words(&before), words(&now))
    }
}

/// Takes the outcome of a write that was under way when the server crashed.
pub(super) async fn resume_write(
    context: &ToolContext,
    path: &str,
    verb: &str,
    edit: Edit,
    boot_id: &str,
) -> Result<ToolResult, ToolError> {
    let (_, ended) = exec::resume(context, context.call.as_str(), boot_id).await?;
    if !output::succeeded(&ended.exit) {
        let (ending, _) = output::ending(&ended.exit);
        return Err(ToolError::Refused(format!("{path} was not written ({ending}). Make the call again.")));
    }
    let mut result = ToolResult::good(
        format!("{verb} {}", files::shown(path)),
        format!("Done: {path} was written before the server was restarted. Read it if you need to see it."),
    );
    result.facts.edits.push(edit);
    Ok(result)
}

fn too_large(path: &str, size: u64) -> ToolError {
    let size = text::human_bytes(size);
    ToolError::Refused(format!(
        "{path} would have {size}, and 2 MiB is the limit. Nothing was written. Make it with run_command instead."
    ))
}

fn lines(content: &[u8]) -> u32 {
    u32::try_from(readable(content).split_inclusive('\n').count()).unwrap_or(u32::MAX)
}

/// Returns a file as text, however it is written.
fn readable(content: &[u8]) -> String {
    Form::of(content).read(content).unwrap_or_else(|| String::from_utf8_lossy(content).into_owned())
}

fn done(path: &str, old: &Whole, content: &[u8], append: bool) -> ToolResult {
    let now = lines(content);
    let size = text::human_bytes(content.len() as u64);
    let (added, removed, said) = match old {
        Whole::Missing => (now, 0, format!("Created {path}: {now} lines, {size}.")),
        Whole::Content(old) if append => {
            let added = now - lines(old).min(now);
            (added, 0, format!("Added to {path}: it has {now} lines now, {size}.{}", kept(old, content)))
        }
        Whole::Content(old) => {
            let (added, removed) = super::changed_lines(&readable(old), &readable(content));
            let (before, kept) = (lines(old), kept(old, content));
            (added, removed, format!("Replaced {path}: {before} lines before, {now} now (+{added} −{removed}).{kept}"))
        }
        Whole::TooLarge(before) => {
            (now, 0, format!("Replaced {path}: {} before, {now} lines and {size} now.", text::human_bytes(*before)))
        }
    };
    let shown = files::shown(path);
    let verb = if matches!(old, Whole::Missing) { "created" } else { "wrote" };
    let mut result = ToolResult::good(format!("{verb} {shown} (+{added} −{removed})"), said);
    result.facts.edits.push(Edit { path: shown, added, removed });
    result
}
