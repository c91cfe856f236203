//! `take_screenshot`: a picture of a page, for the model and for the room.
//!
//! `screenshot.mjs`, which is in the sandbox's image, drives the browser there.

use std::{fmt::Write, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Access, Attachment, Image, Tool, ToolContext, ToolLimits, ToolResult,
    error::ToolError,
    exec,
    files::{self, Whole},
    media, output, page,
};
use crate::{
    ids::digest,
    pictures,
    sandbox::{Ended, Exit, Sandbox},
    text,
};

const SCRIPT: &str = "/usr/local/lib/matrix-agent/screenshot.mjs";
/// How long the browser and the page may take together; the script has limits of its own below this.
const LIMIT: Duration = Duration::from_secs(100);
/// The most bytes of a picture that the room gets.
const ROOM_LIMIT: u64 = 20 * 1024 * 1024;

pub(super) struct TakeScreenshot;

/// The arguments. What their comments say is what models read.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// A URL, a port of the sandbox, or a file.
    #[serde(alias = "port", alias = "path")]
    url: String,
    /// Not just its top.
    #[serde(default)]
    full_page: bool,
    width: Option<u64>,
    height: Option<u64>,
}

impl Tool for TakeScreenshot {
    const NAME: &'static str = "take_screenshot";
    const ACCESS: Access = Access::Shared;
    const EXAMPLE: &'static str = r#"{"url":"http://localhost:3000/"}"#;
    type Arguments = Arguments;

    fn description(_limits: &ToolLimits, vision: bool) -> String {
        let who = if vision { "you and the room" } else { "the room" };
        format!("Show a web page to {who}. Start its server first.")
    }

    fn label(arguments: &Arguments) -> String {
        format!("screenshot of {}", text::one_line(&arguments.url, 80))
    }

    async fn run(context: &ToolContext, arguments: Arguments) -> Result<ToolResult, ToolError> {
        let meant = page::read(&arguments.url)?;
        let sandbox = context.sandbox().await?;
        let url = page::locate(context, &sandbox, meant).await?;
        let (width, height) = (arguments.width.unwrap_or(1280), arguments.height.unwrap_or(800));
        let (width, height) = (width.clamp(64, 4096).to_string(), height.clamp(64, 4096).to_string());
        let out = out_of(context);
        let mut argv = vec!["node", SCRIPT, "--width", &width, "--height", &height];
        if arguments.full_page {
            argv.push("--full-page");
        }
        argv.extend(["--", &url, &out]);
        let ended = exec::run(context, &sandbox, context.command(&argv, LIMIT)).await?;
        picture(context, &sandbox, &arguments, &ended).await
    }

    async fn resume(context: &ToolContext, arguments: Arguments, boot_id: &str) -> Result<ToolResult, ToolError> {
        let (sandbox, ended) = exec::resume(context, context.call.as_str(), boot_id).await?;
        picture(context, &sandbox, &arguments, &ended).await
    }
}

fn out_of(context: &ToolContext) -> String {
    format!("/tmp/screenshot-{}.png", digest(&[context.call.as_str()], 4))
}

/// What the script says about the picture.
#[derive(Debug, Deserialize)]
struct About {
    #[serde(default)]
    title: String,
    #[serde(default)]
    url: String,
    status: Option<u16>,
    width: u32,
    height: u32,
}

/// Returns the picture that the script took, or why there is none.
async fn picture(
    context: &ToolContext,
    sandbox: &Sandbox,
    arguments: &Arguments,
    ended: &Ended,
) -> Result<ToolResult, ToolError> {
    let about = about(ended)?;
    let path = out_of(context);
    let permit = context.large_file_permit().await?;
    let data = match files::read_whole(context, sandbox, &path, ROOM_LIMIT).await? {
        Whole::Content(data) if media::picture(&data) == Some("image/png") => data,
        Whole::TooLarge(size) => {
            let size = text::human_bytes(size);
            return Err(ToolError::Refused(format!(
                "The picture has {size}, and 20 MiB is the limit. Take a smaller one: without full_page, or less wide."
            )));
        }
        Whole::Content(_) | Whole::Missing => {
            return Err(ToolError::Refused("The browser left no picture. Try again.".into()));
        }
    };
    let (url, title) = (text::one_line(&about.url, 200), text::one_line(&about.title, 100));
    let status = about.status.filter(|status| *status >= 400);
    let status = status.map(|status| format!(" The server answered with status {status}.")).unwrap_or_default();
    let mut text = format!(
        "{url} \u{201c}{title}\u{201d}, {}×{} pixels, saved as {path}.{status} The room gets the picture.",
        about.width, about.height
    );
    let titled = if title.is_empty() { String::new() } else { format!(": {title}") };
    let mut result = ToolResult::good(format!("{}{titled}", TakeScreenshot::label(arguments)), String::new());
    if context.vision {
        match pictures::prepare(data.clone()).await {
            Ok(picture) => {
                _ = write!(text, " It follows{}.", picture.note());
                result.images.push(Image { mime: picture.mime.to_owned(), data: picture.data });
            }
            Err(why) => _ = write!(text, " It cannot be shown to you: {why}."),
        }
    } else {
        text.push_str(" You cannot see pictures: check the page's text instead, e.g. with curl.");
    }
    result.text = text;
    result.large = Some(permit);
    result.attachments.push(Attachment { name: "screenshot.png".into(), mime: "image/png".into(), data });
    Ok(result)
}

/// Returns what the script said, or its error as the model needs it.
fn about(ended: &Ended) -> Result<About, ToolError> {
    let output = text::strip([&ended.output.head[..], &ended.output.tail[..]].concat());
    let refused = |why: String| Err(ToolError::Refused(why));
    match &ended.exit {
        Exit::Code(0) => {}
        Exit::Code(code @ 2..=5) => {
            let why = output.lines().rev().find_map(|line| line.trim().strip_prefix("screenshot: "));
            let why = why.map_or_else(|| format!("the script ended with code {code}"), |why| text::one_line(why, 500));
            return refused(format!("No picture: {why}."));
        }
        Exit::Code(1) if output.contains("MODULE_NOT_FOUND") || output.contains("Cannot find module") => {
            return refused(missing_browser());
        }
        Exit::NotStarted(_) => return refused(missing_browser()),
        exit => {
            let (ending, _) = output::ending(exit);
            let last = output::last_line(output.as_bytes()).unwrap_or_default();
            return refused(format!("No picture: the browser's script ended badly ({ending}). {last}"));
        }
    }
    let line = output.lines().rev().find(|line| line.trim_start().starts_with('{')).unwrap_or_default();
    serde_json::from_str(line)
        .or_else(|_| refused("The browser's script said nothing that can be read. Try again.".into()))
}

fn missing_browser() -> String {
    "This sandbox's image has no browser for screenshots. Tell the person; check the page with curl instead.".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Captured;

    fn said(exit: Exit, output: &'static str) -> Result<About, ToolError> {
        about(&Ended { exit, output: Captured { head: output.into(), ..Captured::default() } })
    }

    #[test]
    fn the_scripts_word_is_passed_on() {
        let line = "(node:1) warning\n{\"title\":\"Hi\",\"url\":\"http://localhost/\",\"status\":404,\"width\":1280,\"height\":800}\n";
        let about = said(Exit::Code(0), line).expect("is good");
        assert_eq!((about.title.as_str(), about.status, about.width), ("Hi", Some(404), 1280));
        let refused = said(Exit::Code(3), "screenshot: http://localhost:1/ did not load\n").expect_err("is bad");
        assert_eq!(refused.to_string(), "No picture: http://localhost:1/ did not load.");
        let missing = said(Exit::NotStarted("node: no such file".into()), "").expect_err("is bad");
        assert!(missing.to_string().contains("no browser"));
        assert!(said(Exit::Code(0), "garbage").is_err());
        assert!(said(Exit::TimedOut, "").expect_err("is bad").to_string().contains("timed out"));
    }
}
