//! Uploads files to a room and downloads files from one.

use std::{
    io::{Cursor, Read},
    time::Duration,
};

use matrix_sdk::{
    Client, Room,
    reqwest::{self, Response, StatusCode},
    ruma::{OwnedMxcUri, events::room::EncryptedFile},
};
use matrix_sdk_crypto::AttachmentDecryptor;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Adapter, render, send::to_content, trouble::Trouble};
use crate::{
    crash,
    hub::{FetchFile, NotFetched},
    strings, text,
};

/// How long a download may take.
const DOWNLOAD: Duration = Duration::from_secs(100);
/// The most characters of a file's name in a sentence.
const NAME: usize = 100;

/// Uploads a file for a room, once: its address at the homeserver is noted before an event names it. Returns the
/// event's content.
pub(super) async fn upload(
    adapter: &Adapter,
    room: &Room,
    txn: &str,
    name: &str,
    mime: &str,
    data: &[u8],
) -> Result<Value, Trouble> {
    let client = room.client();
    let noted = format!("media:{txn}");
    let known = adapter.hub.noted(&noted).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "an upload may be made a second time");
        None
    });
    let source = if let Some(source) = known.and_then(|known| serde_json::from_str(&known).ok()) {
        source
    } else {
        let limit = u64::from(client.load_or_fetch_max_upload_size().await?);
        let size = data.len() as u64;
        if size > limit {
            let (name, size, limit) = (text::one_line(name, NAME), text::human_bytes(size), text::human_bytes(limit));
            let sentence = strings::files::too_large_to_send(&name, &size, &limit);
            return Ok(to_content("m.notice", &render::markdown(&sentence)));
        }
        let source = send(&client, room, mime, data).await?;
        if let Err(error) = adapter.hub.note(&noted, &source.to_string()).await {
            tracing::warn!(%error, "an upload could not be noted");
        }
        crash::point("uploaded");
        source
    };
    let mut content = content(name, mime, data);
    if let (Some(content), Some(source)) = (content.as_object_mut(), source.as_object()) {
        content.extend(source.clone());
    }
    Ok(content)
}

/// Returns the content of a file's event, except for the file's address.
fn content(name: &str, mime: &str, data: &[u8]) -> Value {
    let kind = match mime.split('/').next() {
        Some("image") => "m.image",
        Some("video") => "m.video",
        Some("audio") => "m.audio",
        _ => "m.file",
    };
    // Body and file name must be equal, or clients take the body for a caption.
    let name = render::name(name);
    let mut content = json!({
        "msgtype": kind, "body": name, "filename": name, "info": { "mimetype": mime, "size": data.len() },
        // Without `m.mentions`, clients and servers look for names in the body.
        "m.mentions": {},
    });
    if let Some((width, height)) = png_size(data).filter(|_| mime == "image/png") {
        content["info"]["w"] = width.into();
        content["info"]["h"] = height.into();
    }
    content
}

/// Returns the width and height that a PNG states. With them clients reserve the place of a screenshot, so that the
/// text does not jump when it is loaded.
fn png_size(data: &[u8]) -> Option<(u32, u32)> {
    let sizes = data.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")?;
    let (width, sizes) = sizes.split_first_chunk()?;
    let (width, height) = (u32::from_be_bytes(*width), u32::from_be_bytes(*sizes.first_chunk()?));
    (width > 0 && height > 0).then_some((width, height))
}

async fn send(client: &Client, room: &Room, mime: &str, data: &[u8]) -> Result<Value, Trouble> {
    if room.latest_encryption_state().await?.is_encrypted() {
        let file = client.upload_encrypted_file(&mut Cursor::new(data)).await?;
        return Ok(json!({ "file": file }));
    }
    let mime = mime.parse().unwrap_or(mime::APPLICATION_OCTET_STREAM);
    let uploaded = client.media().upload(&mime, data.to_vec(), None).await?;
    Ok(json!({ "url": uploaded.content_uri }))
}

/// Downloads a file for the hub.
pub(super) async fn fetch(client: Option<Client>, wanted: FetchFile) {
    let FetchFile { source, limit, done } = wanted;
    let got = match client {
        None => Err(NotFetched::Failed(strings::files::HOMESERVER_AWAY.to_owned())),
        Some(client) => timeout(DOWNLOAD, download(&client, &source, limit))
            .await
            .unwrap_or_else(|_| Err(NotFetched::Failed(strings::files::DOWNLOAD_SLOW.to_owned()))),
    };
    // The receiver may be gone, if the turn was stopped.
    let _ = done.send(got);
}

/// Downloads a file and decrypts it if need be. The SDK would download it whole whatever its size, which only the
/// homeserver knows for sure, not its sender.
async fn download(client: &Client, source: &Value, limit: u64) -> Result<Vec<u8>, NotFetched> {
    let encrypted: Option<EncryptedFile> = match &source["file"] {
        Value::Null => None,
        file => Some(serde_json::from_value(file.clone()).map_err(|_| failed(strings::files::UNNAMED))?),
    };
    let at = encrypted.as_ref().map_or_else(|| source["url"].as_str().unwrap_or_default().into(), |it| it.url.clone());
    let bytes = get(client, &at, limit).await?;
    let Some(file) = encrypted else { return Ok(bytes) };
    let mut sealed = Cursor::new(bytes);
    let mut opened = Vec::new();
    let mut reader = AttachmentDecryptor::new(&mut sealed, file.into()).map_err(|error| failed(&error.to_string()))?;
    // The last read fails if the hash of the encrypted file does not match.
    reader.read_to_end(&mut opened).map_err(|error| failed(&error.to_string()))?;
    Ok(opened)
}

/// Downloads a file from the homeserver, up to a limit.
async fn get(client: &Client, at: &OwnedMxcUri, limit: u64) -> Result<Vec<u8>, NotFetched> {
    let (server, media) = at.parts().map_err(|_| failed(strings::files::UNNAMED))?;
    let mut answer = ask(client, &format!("_matrix/client/v1/media/download/{server}/{media}")).await?;
    if answer.status() == StatusCode::NOT_FOUND {
        // Older homeservers have only this path.
        answer = ask(client, &format!("_matrix/media/v3/download/{server}/{media}")).await?;
    }
    if !answer.status().is_success() {
        return Err(failed(&format!("the homeserver answers {}", answer.status())));
    }
    if let Some(size) = answer.content_length().filter(|size| *size > limit) {
        return Err(NotFetched::TooLarge(size));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(broken_off)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > limit {
            return Err(NotFetched::TooLarge(bytes.len() as u64));
        }
    }
    Ok(bytes)
}

async fn ask(client: &Client, path: &str) -> Result<Response, NotFetched> {
    let address = client.homeserver().join(path).map_err(|error| failed(&error.to_string()))?;
    let request = client.http_client().get(address).bearer_auth(client.access_token().unwrap_or_default());
    request.send().await.map_err(broken_off)
}

fn broken_off(error: reqwest::Error) -> NotFetched {
    failed(&error.without_url().to_string())
}

fn failed(cause: &str) -> NotFetched {
    NotFetched::Failed(strings::files::download_failed(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_calls_nobody() {
        let plain = content("report.pdf", "application/pdf", b"x");
        assert_eq!((plain["body"].as_str(), plain["filename"].as_str()), (Some("report.pdf"), Some("report.pdf")));
        for name in ["@room", "@room.png", "for @room now.txt"] {
            let content = content(name, "image/png", b"x");
            let body = content["body"].as_str().expect("is text");
            assert!(!body.contains("@room") && body.contains("room"), "{body}");
            assert_eq!(content["filename"], content["body"], "or it is a caption");
        }
    }

    #[test]
    fn a_png_says_how_large_it_is() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x06";
        assert_eq!(png_size(png), Some((640, 480)));
        assert_eq!(png_size(&png[..23]), None, "cut");
        assert_eq!(png_size(&[&png[..16], &[0; 8]].concat()), None, "nothing has no width");
        assert_eq!(png_size(b"GIF89a"), None);
    }
}
