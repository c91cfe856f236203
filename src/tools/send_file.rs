//! `send_file`: a file of the sandbox, to the people in the room.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Access, Attachment, Tool, ToolContext, ToolLimits, ToolResult,
    error::ToolError,
    files::{self, Named, Whole},
    media,
};
use crate::text;

/// The most bytes of one file.
const LIMIT: u64 = 20 * 1024 * 1024;

pub(super) struct SendFile;

/// The arguments. What their comments say is what models read.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    #[serde(alias = "file_path")]
    path: String,
}

impl Tool for SendFile {
    const NAME: &'static str = "send_file";
    const ACCESS: Access = Access::Shared;
    const EXAMPLE: &'static str = r#"{"path":"report.pdf"}"#;
    type Arguments = Arguments;

    fn description(_limits: &ToolLimits, _vision: bool) -> String {
        "Send a file to the room (at most 20 MB); pack a folder first.".to_owned()
    }

    fn label(arguments: &Arguments) -> String {
        format!("send {}", files::shown(&files::absolute(&arguments.path)))
    }

    async fn run(context: &ToolContext, arguments: Arguments) -> Result<ToolResult, ToolError> {
        let mut file = Named::as_given(files::named(&arguments.path)?);
        let sandbox = context.sandbox().await?;
        let permit = context.large_file_permit().await?;
        let read = file.read_whole(context, &sandbox, LIMIT).await?;
        let Named { path, note, .. } = file;
        let data = match read {
            Whole::Content(data) => data,
            Whole::Missing => return Err(files::missing(&path)),
            Whole::TooLarge(size) => {
                let size = text::human_bytes(size);
                return Err(ToolError::Refused(format!(
                    "{path} has {size}, and 20 MiB is the limit. Send a part of it, or pack it smaller."
                )));
            }
        };
        if data.is_empty() {
            return Err(ToolError::Refused(format!("{path} is empty: there is nothing to send.")));
        }
        let name = files::name_of(&path);
        let size = text::human_bytes(data.len() as u64);
        let mut result = ToolResult::good(
            format!("sent {name} ({size})"),
            format!("{note}{path} ({size}) goes to the room as {name}."),
        );
        let mime = media::mime(&name, &data).to_owned();
        result.large = Some(permit);
        result.attachments.push(Attachment { name, mime, data });
        Ok(result)
    }

    async fn resume(context: &ToolContext, arguments: Arguments, _boot_id: &str) -> Result<ToolResult, ToolError> {
        // A call's file reaches the room once, however often it is handed over.
        Self::run(context, arguments).await
    }
}
