//! Saves files that people send: in the room's sandbox, under a name that is safe there, and pictures also for the
//! model.
//!
//! Name and type come from outside: the name becomes one plain path component, the type is detected from the bytes.
//! Called by the coding bot with bytes that the chat protocol has fetched.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

use crate::{
    ids::{self, Address, EventId},
    llm::Part,
    pictures::{self, Gallery, NotShown},
    sandbox::{FileProblem, Sandbox, SandboxError},
    store::Store,
    strings, text, tools,
};

/// The directory for uploads.
const FOLDER: &str = "/workspace/uploads";
/// The longest name in bytes.
const LONGEST: usize = 100;
/// Numbered names that are tried before a random one is used.
const TRIES: u32 = 20;

/// A file as somebody sent it.
#[derive(Clone, Debug)]
pub struct SentFile {
    /// The event that sent it: saved again, the same event's file gets the same name.
    pub event: EventId,
    /// Its name, which is not trusted.
    pub name: String,
    /// Its media type, which is not trusted.
    pub mime: String,
    /// Whether it was sent earlier: what the sandbox has of it may have been edited, and is not overwritten.
    pub again: bool,
}

/// A file that was saved in the sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// Its path.
    pub path: String,
    /// What the model is told about it.
    pub text: String,
    /// What the model is shown, if it is a picture.
    pub picture: Option<Part>,
    /// Why the model is not shown a picture.
    pub unshown: Option<String>,
}

/// Writes a file into a room's sandbox.
pub(super) async fn save(
    store: &Store,
    sandbox: &Sandbox,
    address: &Address,
    sent: &SentFile,
    bytes: Bytes,
) -> Result<Upload, String> {
    let key = format!("upload:{}", sent.event);
    let noted = store.noted(&address.account, &key).await.map_err(|error| error.to_string())?;
    let mut stays = false;
    let path = if let Some(path) = noted {
        stays = sent.again && sandbox.read_file(&path, 0, 1).await.is_ok();
        path
    } else {
        let path = free_path(sandbox, sent).await.map_err(|error| error.to_string())?;
        // Noted before the file is written, so that after a crash it is written to the same place.
        store.note(&address.account, &key, &path).await.map_err(|error| error.to_string())?;
        path
    };
    if !stays {
        let written = sandbox.write_file(&format!("upload-{}", ids::random(8)), &path, bytes.clone()).await;
        written.map_err(|error| error.to_string())?;
    }
    let mime = tools::picture(&bytes).map_or_else(|| text::one_line(&sent.mime, 60), str::to_owned);
    let size = text::human_bytes(bytes.len() as u64);
    let name = text::one_line(&sent.name, LONGEST);
    Ok(Upload { text: strings::told::upload(&name, &path, &mime, &size), path, picture: None, unshown: None })
}

impl Upload {
    /// Shows the model the file if it is a picture or was sent as one; if it cannot be shown, or only smaller, the
    /// model is told so.
    pub(super) async fn show(&mut self, gallery: &Gallery, address: &Address, sent_as: &str, file: Bytes) {
        // An SVG is text.
        let as_picture = sent_as.starts_with("image/") && !sent_as.starts_with("image/svg");
        if tools::picture(&file).is_none() {
            if as_picture {
                self.stays_unseen(NotShown::Unknown.to_string());
            }
            return;
        }
        let picture = match pictures::prepare(file).await {
            Ok(picture) => picture,
            Err(why) => return self.stays_unseen(why.to_string()),
        };
        let base64 = BASE64_STANDARD.encode(&picture.data).into();
        match gallery.keep(address, picture.data.clone()).await {
            Ok(name) => {
                let note = picture.note();
                if !note.is_empty() {
                    self.text.push_str(&strings::told::picture_shown(&note));
                }
                self.picture = Some(Part::Picture { name, mime: picture.mime.to_owned(), data: Some(base64) });
            }
            Err(error) => {
                tracing::error!(%error, "a picture is not kept");
                self.stays_unseen(strings::files::PICTURE_NOT_STORED.to_owned());
            }
        }
    }

    fn stays_unseen(&mut self, why: String) {
        self.text.push_str(&strings::told::picture_not_shown(&why));
        self.unshown = Some(why);
    }
}

/// Returns a path at which there is no file yet.
async fn free_path(sandbox: &Sandbox, sent: &SentFile) -> Result<String, SandboxError> {
    let name = safe_name(&sent.name);
    for number in 1..=TRIES {
        let path =
            format!("{FOLDER}/{}", numbered(&name, &if number == 1 { String::new() } else { format!("-{number}") }));
        match sandbox.read_file(&path, 0, 1).await {
            Err(SandboxError::File { problem: FileProblem::NotFound, .. }) => return Ok(path),
            Ok(_) | Err(SandboxError::File { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let suffix = format!("-{}", ids::digest(&[sent.event.as_str()], 4));
    Ok(format!("{FOLDER}/{}", numbered(&name, &suffix)))
}

/// Returns one path component that has no special meaning to shells, terminals or programs.
fn safe_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).find(|part| !part.trim().is_empty()).unwrap_or_default();
    let clean = text::typeable(&text::strip(last)).replace('`', "'");
    let clean = clean.trim().trim_start_matches(['.', '-', ' ']).trim_end_matches(['.', ' ']);
    if clean.is_empty() { "file".to_owned() } else { numbered(clean, "") }
}

/// Inserts a suffix before the name's extension, within the longest name.
fn numbered(name: &str, suffix: &str) -> String {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && extension.len() <= 16 => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    let room = LONGEST - suffix.len() - extension.len();
    let stem = stem[..stem.floor_char_boundary(room)].trim_end();
    format!("{stem}{suffix}{extension}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn what_was_sent_as_a_picture_and_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let gallery = Gallery::new(folder.path().to_owned());
        let address = Address { account: "coder".into(), room: "!a:example.org".into() };
        for (mime, bytes, unshown) in [
            ("image/png", &b"\0\0\0\0rest of it"[..], true),
            ("image/heic", b"\0\0\0\x18ftypheic", true),
            ("image/svg+xml", b"<svg/>", false),
            ("text/plain", b"hello", false),
        ] {
            let mut upload = Upload { path: "a".into(), text: "saved".into(), picture: None, unshown: None };
            upload.show(&gallery, &address, mime, Bytes::from_static(bytes)).await;
            assert_eq!((upload.unshown.is_some(), upload.text.contains("no PNG, JPEG")), (unshown, unshown), "{mime}");
            assert_eq!(upload.picture, None);
        }
    }

    #[test]
    fn names_are_plain_and_keep_their_extension() {
        for (given, safe) in [
            ("photo.png", "photo.png"),
            ("../../etc/passwd", "passwd"),
            ("C:\\temp\\a b.txt", "a b.txt"),
            (".bashrc", "bashrc"),
            ("-rf", "rf"),
            ("a\nb\u{1b}[31m.txt", "a b.txt"),
            ("Bildschirmfoto um 3.04.05\u{202f}PM.png", "Bildschirmfoto um 3.04.05 PM.png"),
            ("Cafe\u{301}\u{a0}Mu\u{308}ller\u{200b}.pdf", "Café Müller.pdf"),
            ("\u{202e}gnp.exe", "gnp.exe"),
            ("\u{a0}.\u{202f}hidden", "hidden"),
            ("a`b.txt", "a'b.txt"),
            ("..", "file"),
            ("", "file"),
            ("dir/", "dir"),
        ] {
            assert_eq!(safe_name(given), safe, "{given:?}");
        }
        let long = safe_name(&format!("{}.tar", "ü".repeat(200)));
        assert!(long.len() <= LONGEST && long.ends_with("ü.tar"), "{long}");
        assert_eq!(numbered("photo.png", "-2"), "photo-2.png");
        assert!((LONGEST - 1..=LONGEST).contains(&numbered(&long, "-12345678").len()));
    }

    proptest! {
        #[test]
        fn every_name_is_one_component(given in any::<String>()) {
            let name = safe_name(&given);
            prop_assert!(!name.is_empty() && name.len() <= LONGEST);
            prop_assert!(!name.starts_with(['.', '-']) && !name.contains('/') && !name.chars().any(char::is_control));
            prop_assert_eq!(text::typeable(&name), name);
        }
    }
}
