//! What kind of file some bytes are: by their first bytes for pictures and the like, by the name for the rest.
//!
//! Pure; called by the tools that read or send files, and by the bots for what people send.

/// Returns the media type of a picture that models can see; `None` for any other file.
pub(crate) fn picture(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Returns in words what kind of file it is, for one that is no text.
pub(super) fn kind(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x7f, b'E', b'L', b'F', ..] => "an ELF program or library",
        [b'P', b'K', 3 | 5, 4 | 6, ..] => "a zip archive (also jar, docx, xlsx …)",
        [0x1f, 0x8b, ..] => "gzip data",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz data",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd data",
        [b'B', b'Z', b'h', ..] => "bzip2 data",
        [b'%', b'P', b'D', b'F', ..] => "a PDF",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "text in UTF-16",
        _ if bytes.starts_with(b"SQLite format 3\0") => "an SQLite database",
        _ => "binary data",
    }
}

/// Returns the media type under which a room gets a file.
pub(super) fn mime(name: &str, bytes: &[u8]) -> &'static str {
    if let Some(picture) = picture(bytes) {
        return picture;
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "tar" => "application/x-tar",
        "json" => "application/json",
        "csv" => "text/csv",
        "md" => "text/markdown",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        // Never `text/html` or `image/svg+xml`: some clients would run the scripts in them.
        _ if std::str::from_utf8(bytes).is_ok() => "text/plain",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_their_bytes_and_not_by_their_names() {
        assert_eq!(picture(b"\x89PNG\r\n\x1a\n...."), Some("image/png"));
        assert_eq!(picture(b"RIFF\0\0\0\0WEBPVP8 "), Some("image/webp"));
        assert_eq!(picture(b"RIFF\0\0\0\0WAVE"), None);
        assert_eq!(mime("a.png", b"hello"), "text/plain");
        assert_eq!(mime("a", b"GIF89a"), "image/gif");
    }

    #[test]
    fn nothing_is_sent_as_a_page_that_runs() {
        assert_eq!(mime("a.html", b"<script>"), "text/plain");
        assert_eq!(mime("a.svg", b"<svg onload>"), "text/plain");
        assert_eq!(mime("a.pdf", b"%PDF"), "application/pdf");
        assert_eq!(mime("a.bin", b"\xff\x00"), "application/octet-stream");
    }
}
