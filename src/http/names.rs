//! The names by which the HTTP server may be asked, and the paths that each of them opens. Pure.

use std::net::IpAddr;

/// The longest name, in bytes, as DNS has it.
const LONGEST: usize = 253;

/// An entry of `HTTP_NAMES` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no public name: write `agent.example.org`, or `agent.example.org/webhook` where it opens that path alone, without \
     `https://` and without a port"
)]
pub struct BadName(pub String);

/// The public names, each with the path below which it opens everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    entries: Vec<Entry>,
    /// Whether every name opens all paths.
    any: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    /// Empty if it opens all paths.
    path: String,
}

/// What a name opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opens {
    /// The path.
    Path,
    /// Other paths.
    Others,
    /// Nothing: it is none of the server's names.
    Nothing,
}

impl Names {
    /// Reads entries: a host's name, with the path behind it below which it opens everything. A name may have several.
    ///
    /// # Errors
    ///
    /// The first entry that is none.
    pub fn parse<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self, BadName> {
        let entry = |text: &str| {
            let (name, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
            let path = path.trim_end_matches('/');
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
            let parts_fit = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
            let fits = is_name(name) && path.bytes().all(plain) && parts_fit;
            fits.then(|| Entry { name: name.to_ascii_lowercase(), path: path.to_owned() })
        };
        let entries = entries.into_iter().map(|text| {
            let text = text.as_ref().trim();
            entry(text).ok_or_else(|| BadName(text.to_owned()))
        });
        Ok(Self { entries: entries.collect::<Result<_, _>>()?, any: false })
    }

    /// Returns what lets a server be asked by every name. Only for pages that take nothing but what carries a signature: a
    /// browser that was led to them by a stranger's name has none.
    pub fn every() -> Self {
        Self { entries: Vec::new(), any: true }
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.any
    }

    /// Returns the names that open a private path, each once.
    pub fn opening(&self, path: &str) -> Vec<String> {
        let opens = |entry: &&Entry| !entry.path.is_empty() && is_below(path, &entry.path);
        let mut names: Vec<String> = Vec::new();
        for Entry { name, .. } in self.entries.iter().filter(opens) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Returns what a name opens that stands in a request, as [`name_of`] returns it.
    /// A `private` path is opened by a name alone that names it, or a path above it.
    pub(super) fn opens(&self, name: &str, path: &str, private: bool) -> Opens {
        if self.any && !private {
            return Opens::Path;
        }
        let mut own = self.entries.iter().filter(|entry| entry.name == name).peekable();
        if own.peek().is_none() {
            return Opens::Nothing;
        }
        let opens = |entry: &Entry| is_below(path, &entry.path) && !(private && entry.path.is_empty());
        if own.any(opens) { Opens::Path } else { Opens::Others }
    }
}

/// Returns whether a request's path is `above` or stands below it.
pub(super) fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the name in the `Host` of a request: in lower case, without a port and a final dot.
pub(super) fn name_of(host: &str) -> Option<String> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        // The colons of an address in brackets.
        Some(_) if !host.ends_with(']') => return None,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    is_name(name).then(|| name.to_ascii_lowercase())
}

/// Returns whether a name means the machine on which it is used.
pub(super) fn is_local(name: &str) -> bool {
    name == "localhost" || address_of(name).is_some_and(|address| address.is_loopback())
}

/// Returns the address that a name is.
fn address_of(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_name(text: &str) -> bool {
    if text.starts_with('[') {
        return text.ends_with(']') && address_of(text).is_some_and(|address| address.is_ipv6());
    }
    (1..=LONGEST).contains(&text.len())
        && text.split('.').all(|part| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-'))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_opens_what_stands_behind_it_and_no_more() {
        let names = Names::parse(["Agent.example.org/webhook/github", "dash.example.org", "agent.example.org/talk/"]);
        let names = names.unwrap();
        for (name, path, opens) in [
            ("agent.example.org", "/webhook/github", Opens::Path),
            ("agent.example.org", "/webhook/github/x", Opens::Path),
            ("agent.example.org", "/talk", Opens::Path),
            ("agent.example.org", "/webhook/github2", Opens::Others),
            ("agent.example.org", "/webhook", Opens::Others),
            ("agent.example.org", "/", Opens::Others),
            ("dash.example.org", "/", Opens::Path),
            ("dash.example.org", "/any/thing", Opens::Path),
            ("dash.example.org", "*", Opens::Others),
            ("evil.example.org", "/webhook/github", Opens::Nothing),
        ] {
            assert_eq!(names.opens(name, path, false), opens, "{name} {path}");
        }
        assert_eq!(Names::default().opens("agent.example.org", "/", false), Opens::Nothing);
        assert_eq!(Names::every().opens("agent.example.org", "/", false), Opens::Path);
        assert_eq!(names.opens("dash.example.org", "/metrics", true), Opens::Others, "it names no path");
        assert_eq!(names.opens("agent.example.org", "/talk", true), Opens::Path, "it names this one");
        assert_eq!(Names::every().opens("agent.example.org", "/", true), Opens::Nothing);
    }

    #[test]
    fn a_request_names_its_host_with_or_without_a_port() {
        for (host, name) in [
            ("Agent.Example.org", Some("agent.example.org")),
            ("agent.example.org:8443", Some("agent.example.org")),
            ("agent.example.org.", Some("agent.example.org")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("", None),
            ("a b", None),
            ("a@b", None),
            ("a:b", None),
            ("::1", None),
            ("[a]", None),
            ("ä.org", None),
        ] {
            assert_eq!(name_of(host).as_deref(), name, "{host}");
        }
        assert!(is_local("localhost") && is_local("127.0.0.9") && is_local("[::1]"));
        assert!(!is_local("localhost.example.org") && !is_local("10.0.0.1") && !is_local("[2001:db8::1]"));
    }

    #[test]
    fn what_is_no_name_is_told() {
        for bad in [
            "",
            "https://a.org",
            "a.org:80",
            "a..org",
            "-a.org",
            "a.org/../x",
            "a.org//x",
            "a.org/?x",
            "a b",
            "/x",
            "*.a.org",
        ] {
            assert_eq!(Names::parse([bad]), Err(BadName(bad.to_owned())), "{bad}");
        }
    }
}
