//! `edit_file`: one unique piece of text in a file, replaced.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Access, Edit, Tool, ToolContext, ToolLimits, ToolResult, changed_lines,
    error::ToolError,
    exec,
    files::{self, Named, Whole},
    form::Form,
    lines,
    matching::{self, Mismatch},
    nearest::nearest,
    write_file::resume_write,
};
use crate::text;

/// The most bytes of a file that is edited.
const LIMIT: u64 = 2 * 1024 * 1024;
/// The most bytes of the nearest lines that a refusal shows.
const NEAREST_BYTES: usize = 3000;

pub(super) struct EditFile;

/// The arguments. What their comments say is what models read.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    #[serde(alias = "file_path")]
    path: String,
    /// Exact; must be there once.
    #[serde(alias = "old_string")]
    old_text: String,
    /// Empty deletes.
    #[serde(alias = "new_string")]
    new_text: String,
}

impl Tool for EditFile {
    const NAME: &'static str = "edit_file";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"path":"src/a.py","old_text":"x = 1\n","new_text":"x = 2\n"}"#;
    type Arguments = Arguments;

    fn description(_limits: &ToolLimits, _vision: bool) -> String {
        "Replace one piece of text in a file (at most 2 MB).".to_owned()
    }

    fn label(arguments: &Arguments) -> String {
        format!("edit {}", files::shown(&files::absolute(&arguments.path)))
    }

    async fn run(context: &ToolContext, arguments: Arguments) -> Result<ToolResult, ToolError> {
        let mut named = Named::as_given(files::named(&arguments.path)?);
        if arguments.old_text.is_empty() {
            return Err(ToolError::Refused(
                "old_text is empty. Copy the text to be replaced from the file, or write a new file with write_file."
                    .into(),
            ));
        }
        if arguments.old_text == arguments.new_text {
            return Err(ToolError::Refused("old_text and new_text are the same: there is nothing to change.".into()));
        }
        let sandbox = context.sandbox().await?;
        let read = named.read_whole(context, &sandbox, LIMIT).await?;
        let Named { path, note, .. } = named;
        let content = match read {
            Whole::Content(content) => content,
            Whole::Missing => return Err(files::missing(&path)),
            Whole::TooLarge(size) => {
                let size = text::human_bytes(size);
                let why =
                    format!("{path} has {size}, and 2 MiB is the limit. Edit it with run_command (sed, python3).");
                return Err(ToolError::Refused(why));
            }
        };
        let form = Form::of(&content);
        let Some(file) = form.read(&content) else {
            let why = format!("{path} is not UTF-8 text. Edit it with run_command (sed, python3).");
            return Err(ToolError::Refused(why));
        };
        let file = file.as_str();
        let splice = matching::locate(file, &arguments.old_text, &arguments.new_text)
            .map_err(|mismatch| ToolError::Refused(refusal(&path, file, &arguments, &mismatch)))?;
        let edited = splice.apply(file);
        if edited == file {
            return Err(ToolError::Refused(format!("{path} already reads like this: there is nothing to change.")));
        }
        let there = exec::write(context, &sandbox, &path, Bytes::from(form.write(&edited))).await?;

        let (added, removed) = changed_lines(file, &edited);
        let shown = files::shown(&path);
        let inexact = splice
            .tier
            .difference()
            .map(|what| format!(" The match was inexact ({what}): check that it is what you meant."))
            .unwrap_or_default();
        let around = lines::snippet(&edited, splice.range.start, splice.range.start + splice.replacement.len());
        let link = there.map(|there| files::through_link(&path, &there)).unwrap_or_default();
        let text = format!("{note}Edited {path} (+{added} −{removed}).{link}{inexact}\n{around}");
        let mut result = ToolResult::good(format!("edited {shown} (+{added} −{removed})"), text);
        result.facts.edits.push(Edit { path: shown, added, removed });
        Ok(result)
    }

    async fn resume(context: &ToolContext, arguments: Arguments, boot_id: &str) -> Result<ToolResult, ToolError> {
        let path = files::absolute(&arguments.path);
        let (added, removed) = changed_lines(&arguments.old_text, &arguments.new_text);
        let edit = Edit { path: files::shown(&path), added, removed };
        resume_write(context, &path, "edited", edit, boot_id).await
    }
}

/// Returns why there was no edit, and what the model needs to make the next one right.
fn refusal(path: &str, file: &str, arguments: &Arguments, mismatch: &Mismatch) -> String {
    match mismatch {
        Mismatch::Ambiguous { count, lines, tier } => {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            let more = if *count > lines.len() { " …" } else { "" };
            let but = tier.difference().map(|what| format!(" (but for {what})")).unwrap_or_default();
            format!(
                "old_text is in {path} {count} times{but}: lines {}{more}. Nothing was changed. Give more lines around the \
                 one that you mean, so that it is the only such place.",
                lines.join(", ")
            )
        }
        Mismatch::Missing => {
            let already = matching::already_there(file, &arguments.new_text)
                .map(|line| format!(" new_text is already there, on line {line}: perhaps this edit was made before."))
                .unwrap_or_default();
            let next = match nearest(file, &arguments.old_text) {
                Some(nearest) => {
                    let lines = text::cut_middle(&nearest.text, NEAREST_BYTES);
                    let tabs = if nearest.text.contains('\t') && !arguments.old_text.contains('\t') {
                        " (they are indented with tabs)"
                    } else {
                        ""
                    };
                    format!(
                        "The nearest lines, from line {}{tabs}:\n{lines}\n[copy old_text from them exactly]",
                        nearest.line
                    )
                }
                None => "No lines are like it: read the file with read_file first.".to_owned(),
            };
            format!("old_text is not in {path}. Nothing was changed.{already} {next}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(file: &str, old: &str, new: &str) -> String {
        let arguments = Arguments { path: "a".into(), old_text: old.into(), new_text: new.into() };
        let mismatch = matching::locate(file, old, new).expect_err("must not match");
        refusal("/workspace/a", file, &arguments, &mismatch)
    }

    #[test]
    fn a_refusal_shows_what_the_next_call_needs() {
        let file = "fn one() {\n\tlet total = 1;\n}\nfn two() {\n\tlet total = 2;\n}\n";
        insta::assert_snapshot!(refused(file, "    let totals = 2;", "x"), @r#"
        old_text is not in /workspace/a. Nothing was changed. The nearest lines, from line 5 (they are indented with tabs):
        	let total = 2;
        [copy old_text from them exactly]
        "#);
        insta::assert_snapshot!(refused(file, "let total", "x"), @r#"
        old_text is in /workspace/a 2 times: lines 2, 5. Nothing was changed. Give more lines around the one that you mean, so that it is the only such place.
        "#);
        insta::assert_snapshot!(refused(file, "import os", "let total = 2;"), @r#"
        old_text is not in /workspace/a. Nothing was changed. new_text is already there, on line 5: perhaps this edit was made before. No lines are like it: read the file with read_file first.
        "#);
        insta::assert_snapshot!(refused("x \ny\nx  \n", "x\t", "z"), @r#"
        old_text is in /workspace/a 2 times (but for blanks at the end of lines): lines 1, 3. Nothing was changed. Give more lines around the one that you mean, so that it is the only such place.
        "#);
    }
}
