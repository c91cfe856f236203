//! Finds the page that a model means: a URL, a port of the sandbox, or a file in it, by its path as all other tools
//! take it.
//!
//! If a file has the name that was given, it is meant; only if none has does a name that looks like a host count as
//! one. Called by `take_screenshot`.

use std::fmt::Write as _;

use super::{
    context::ToolContext,
    error::ToolError,
    files::{self, Named},
};
use crate::sandbox::{FileProblem, Sandbox};

/// Extensions of files that a browser shows: such a file's name, without a folder, looks like a host's.
const PAGES: [&str; 14] =
    ["html", "htm", "xhtml", "xml", "svg", "pdf", "png", "jpg", "jpeg", "gif", "webp", "txt", "md", "json"];

/// What a model means by an address, as far as its words tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// This URL.
    Url(String),
    /// The file with this path; if there is none, the URL behind it.
    File { path: String, otherwise: Option<String> },
}

/// Reads an address.
pub(super) fn read(given: &str) -> Result<Meant, ToolError> {
    let given = given.trim();
    let refused = |why: &str| {
        Err(ToolError::Refused(format!(
            "{why}. Give a URL, a port or the path of a file, e.g. {{\"url\":\"http://localhost:3000/\"}} or \
             {{\"url\":\"site/index.html\"}}."
        )))
    };
    if given.is_empty() || given.contains('\0') {
        return refused("url is empty or no address");
    }
    if let Ok(port) = given.trim_start_matches(':').parse::<u16>() {
        return Ok(Meant::Url(format!("http://localhost:{port}/")));
    }
    let lower = given.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return Ok(Meant::Url(reachable(given)));
    }
    if lower.starts_with("file:") {
        let rest = &given["file:".len()..];
        let local = rest.strip_prefix("//localhost").filter(|path| path.starts_with('/'));
        let path = local.or_else(|| rest.strip_prefix("//")).unwrap_or(rest);
        return Ok(Meant::File { path: files::absolute(path), otherwise: None });
    }
    if let Some((scheme, _)) = lower.split_once("://") {
        return refused(&format!("{} addresses are not opened", crate::text::one_line(scheme, 30)));
    }
    let otherwise = is_host(&lower).then(|| reachable(&format!("http://{given}")));
    Ok(Meant::File { path: files::absolute(given), otherwise })
}

/// Returns the URL to open.
pub(super) async fn locate(context: &ToolContext, sandbox: &Sandbox, meant: Meant) -> Result<String, ToolError> {
    let (path, otherwise) = match meant {
        Meant::Url(url) => return Ok(url),
        Meant::File { path, otherwise } => (path, otherwise),
    };
    // A `?` or `#` may belong to the name, or begin what the page itself reads.
    let ends = [path.len()].into_iter().chain(path.rfind('#')).chain(path.find('?')).chain(path.find('#'));
    for end in ends {
        let (file, rest) = path.split_at(end);
        if let Some(found) = find(context, sandbox, file).await? {
            return Ok(format!("{}{rest}", url_of(&found)));
        }
    }
    let decoded = decode(&path).filter(|decoded| *decoded != path);
    if let Some(decoded) = decoded
        && let Some(found) = find(context, sandbox, &decoded).await?
    {
        return Ok(url_of(&found));
    }
    otherwise.ok_or_else(|| files::missing(&path))
}

/// Returns the file at a path, or the page of the folder there; `None` if there is nothing.
async fn find(context: &ToolContext, sandbox: &Sandbox, path: &str) -> Result<Option<String>, ToolError> {
    let mut named = Named::as_given(path.to_owned());
    match named.check_readable(context, sandbox).await? {
        None => Ok(Some(named.path)),
        Some(FileProblem::IsDirectory) => {
            let mut index = Named::as_given(format!("{}/index.html", named.path.trim_end_matches('/')));
            let page = index.check_readable(context, sandbox).await?.is_none();
            Ok(Some(if page { index.path } else { named.path }))
        }
        Some(FileProblem::NotFound) => Ok(None),
        Some(problem) => Err(files::refused(path, &problem)),
    }
}

/// Returns a URL that a browser can open: a server that listens on every address tells `0.0.0.0` or `[::]`, which are
/// none.
fn reachable(url: &str) -> String {
    url.replacen("://0.0.0.0", "://localhost", 1).replacen("://[::]", "://localhost", 1)
}

/// Returns whether `given` begins as a host: `localhost`, an address, a name with a port, or one with a domain.
fn is_host(given: &str) -> bool {
    let authority = given.split(['/', '?', '#']).next().unwrap_or_default();
    let alone = authority.len() == given.len();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, true),
        _ => (authority, false),
    };
    if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() || host == "localhost" {
        return true;
    }
    let plain = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
    let mut labels = host.split('.');
    if !labels.all(plain) || host.starts_with('-') {
        return false;
    }
    let Some((_, last)) = host.rsplit_once('.') else { return port };
    let domain = last.chars().count() >= 2 && last.chars().all(char::is_alphabetic);
    port || domain && !(alone && PAGES.contains(&last))
}

/// Returns the `file:` URL of a path, with the characters escaped that mean something in a URL.
fn url_of(path: &str) -> String {
    let mut url = "file://".to_owned();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// Returns a path with its percent-escapes decoded; `None` if one of them is malformed.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'%' {
            let (hex, tail) = rest.split_first_chunk::<2>()?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|path| !path.contains('\0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_taken_as_it_is_meant() {
        for (given, url) in [
            ("3000", "http://localhost:3000/"),
            (":8080", "http://localhost:8080/"),
            (" http://0.0.0.0:3000/ ", "http://localhost:3000/"),
            ("https://example.org/", "https://example.org/"),
            ("HTTP://Example.org", "HTTP://Example.org"),
        ] {
            assert_eq!(read(given).expect(given), Meant::Url(url.into()), "{given}");
        }
        for (given, path, otherwise) in [
            ("site/alert.html", "/workspace/site/alert.html", None),
            ("./alert.html", "/workspace/alert.html", None),
            ("alert.html", "/workspace/alert.html", None),
            ("../etc/x.html", "/workspace/../etc/x.html", None),
            ("/workspace/a b#1.html", "/workspace/a b#1.html", None),
            ("file:///workspace/a.html", "/workspace/a.html", None),
            ("file://localhost/workspace/a.html", "/workspace/a.html", None),
            ("file:a.html", "/workspace/a.html", None),
            ("file://site/a.html", "/workspace/site/a.html", None),
            ("99999", "/workspace/99999", None),
            ("--width", "/workspace/--width", None),
            ("site", "/workspace/site", None),
            ("javascript:alert(1)", "/workspace/javascript:alert(1)", None),
            ("localhost:3000/a", "/workspace/localhost:3000/a", Some("http://localhost:3000/a")),
            ("localhost", "/workspace/localhost", Some("http://localhost")),
            ("127.0.0.1:80?a=b", "/workspace/127.0.0.1:80?a=b", Some("http://127.0.0.1:80?a=b")),
            ("[::1]:3000", "/workspace/[::1]:3000", Some("http://[::1]:3000")),
            ("0.0.0.0:3000/x", "/workspace/0.0.0.0:3000/x", Some("http://localhost:3000/x")),
            ("example.com/a.html", "/workspace/example.com/a.html", Some("http://example.com/a.html")),
            ("example.com", "/workspace/example.com", Some("http://example.com")),
            ("app:8080/", "/workspace/app:8080/", Some("http://app:8080/")),
        ] {
            let otherwise = otherwise.map(str::to_owned);
            assert_eq!(read(given).expect(given), Meant::File { path: path.into(), otherwise }, "{given}");
        }
        for given in ["", " ", "ftp://x/", "chrome://version"] {
            assert!(read(given).is_err(), "{given}");
        }
    }

    #[test]
    fn a_path_is_written_so_that_every_character_means_itself() {
        assert_eq!(url_of("/workspace/a b#1?é%.html"), "file:///workspace/a%20b%231%3F%C3%A9%25.html");
        assert_eq!(decode("/a%20b%C3%A9").as_deref(), Some("/a bé"));
        assert_eq!((decode("/100%"), decode("/%zz"), decode("/%ff"), decode("/%00")), (None, None, None, None));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(path in "/[^\0]{0,30}") {
            prop_assert_eq!(decode(url_of(&path).strip_prefix("file://").unwrap()), Some(path));
        }
    }
}
