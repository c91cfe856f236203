//! What people read of files that they send or are sent.

/// Why a file cannot be fetched while there is no connection.
pub(crate) const HOMESERVER_AWAY: &str = "the homeserver cannot be reached now";

/// Why a file was not fetched.
pub(crate) const UNNAMED: &str = "the message does not say where the file is";

/// Why a file was not fetched.
pub(crate) const DOWNLOAD_SLOW: &str = "the download took too long";

/// Why a file was not fetched.
pub(crate) fn download_failed(cause: &str) -> String {
    format!("it could not be downloaded: {cause}")
}

/// What the room reads in place of a file that is no longer there to be sent.
pub(crate) fn gone(name: &str) -> String {
    format!("The file `{name}` could not be sent: it is no longer on the server. Ask for it again.")
}

/// Stands in a room in place of a file that the homeserver would not take.
pub(crate) fn too_large_to_send(name: &str, size: &str, limit: &str) -> String {
    format!("`{name}` has {size}, and the homeserver takes {limit}. It stays in the sandbox: ask me for a part of it.")
}

/// The reply to a file that came without words.
pub(crate) fn saved(path: &str, unshown: Option<&str>) -> String {
    let unshown = unshown.map(|why| format!(" As a picture it cannot be shown: {why}.")).unwrap_or_default();
    format!("Saved as `{path}`.{unshown} Tell me what to do with it.")
}

/// The reply to a file that is too large.
pub(crate) fn too_large(name: &str, size: &str, limit: &str) -> String {
    format!(
        "`{name}` was not saved: it has {size}, and I take files of up to {limit}. Send it in parts, or tell me where to download it."
    )
}

/// The reply to a file that the chat server did not hand out.
pub(crate) fn not_fetched(name: &str) -> String {
    format!("`{name}` was not saved: it could not be fetched from the chat server. Please send it again.")
}

/// The reply to a file that could not be written.
pub(crate) fn not_saved(name: &str, cause: &str) -> String {
    let cause = cause.trim_end_matches('.');
    format!("`{name}` was not saved: {cause}. Please send it again later.")
}

/// Why a picture cannot be shown: it is none of the known formats.
pub(crate) const PICTURE_UNKNOWN: &str = "it is no PNG, JPEG, GIF or WebP picture";

/// Why a picture cannot be shown: the header or the data make no sense.
pub(crate) const PICTURE_BROKEN: &str = "it is broken, for its data cannot be decoded";

/// Why a picture cannot be shown: unpacked, it would take too much memory.
pub(crate) fn picture_too_large(width: u32, height: u32) -> String {
    format!("it has {width}×{height} pixels, which are too many; make a smaller copy")
}

/// Why a picture cannot be shown: so many bytes are more than are looked at.
pub(crate) const PICTURE_TOO_MANY_BYTES: &str = "its file is larger than 32 MiB; make a smaller copy";

/// Why a picture cannot be shown: other pictures are in the way.
pub(crate) const PICTURE_BUSY: &str = "other pictures take too long just now; try again in a minute";

/// Why a picture cannot be shown: it could not be stored.
pub(crate) const PICTURE_NOT_STORED: &str = "the server could not store it";
