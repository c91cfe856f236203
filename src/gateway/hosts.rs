//! Host names as a sandbox writes them, and the list of allowed ones.
//!
//! Pure: it must not resolve or dial anything. `head` parses hosts with it, `web` asks the list, and `ops` parses the
//! operator's patterns.

use std::{collections::HashSet, fmt, net::IpAddr};

/// The longest name in DNS.
const MAX_NAME: usize = 253;

/// What a sandbox may reach by default: the registries of Debian, PyPI, npm, crates and Go, and the hosts from which
/// GitHub serves downloads. Hosts for uploads (upload.pypi.org, crates.io) are left out. But npm's registry takes
/// uploads at the same name, and storage.googleapis.com, to which Go's proxy redirects, holds everybody's buckets.
const DEFAULT: &[&str] = &[
    // Debian
    "deb.debian.org",
    "security.debian.org",
    "ftp.debian.org",
    "snapshot.debian.org",
    // Python
    "pypi.org",
    "files.pythonhosted.org",
    // npm
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    // Rust
    "index.crates.io",
    "static.crates.io",
    "static.rust-lang.org",
    // Go
    "proxy.golang.org",
    "sum.golang.org",
    "storage.googleapis.com",
    // GitHub's downloads; the repositories themselves come by git's own route
    "codeload.github.com",
    "objects.githubusercontent.com",
    "raw.githubusercontent.com",
    "release-assets.githubusercontent.com",
    "media.githubusercontent.com",
];

/// Hosts that Chromium contacts by itself. They are refused like any other, but the refusals are not worth a line in
/// the log.
const CHROMIUM: &[&str] = &[
    "accounts.google.com",
    "android.clients.google.com",
    "clients1.google.com",
    "clients2.google.com",
    "clients2.googleusercontent.com",
    "clientservices.googleapis.com",
    "content-autofill.googleapis.com",
    "edgedl.me.gvt1.com",
    "mtalk.google.com",
    "ogads-pa.clients6.google.com",
    "optimizationguide-pa.googleapis.com",
    "passwordsleakcheck-pa.googleapis.com",
    "redirector.gvt1.com",
    "safebrowsing.googleapis.com",
    "safebrowsingohttpgateway.googleapis.com",
    "translate.googleapis.com",
    "update.googleapis.com",
    "www.google.com",
];

/// Last parts of names that are nobody's on the Internet.
const INNER: &[&str] = &[
    "local",
    "localhost",
    "localdomain",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "test",
    "invalid",
    "onion",
];

/// A host in the spelling in which hosts are compared: lower case, no final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name, which has to be resolved.
    Name(String),
    /// A literal address.
    Address(IpAddr),
}

impl Host {
    /// Parses a host without port; IPv6 addresses are in brackets.
    ///
    /// What a resolver could take for an address (`127.1`, `0x7f.0.0.1`, `2130706433`) is refused.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return Some(Self::Address(IpAddr::V6(inner.strip_suffix(']')?.parse().ok()?)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() || name.len() > MAX_NAME || !name.split('.').all(is_label) {
            return None;
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
            return name.parse().ok().map(|address| Self::Address(IpAddr::V4(address)));
        }
        Some(Self::Name(name))
    }

    /// Returns whether it is a name that may be somebody's on the Internet: not an address, and none of the names that mean a
    /// network of one's own.
    pub fn may_be_public(&self) -> bool {
        let Self::Name(name) = self else { return false };
        name.rsplit_once('.').is_some_and(|(_, last)| !INNER.contains(&last)) && !name.ends_with(".home.arpa")
    }

    /// Returns whether Chromium contacts this host by itself.
    pub(super) fn is_browser_noise(&self) -> bool {
        matches!(self, Self::Name(name) if CHROMIUM.contains(&name.as_str()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// A pattern in `SANDBOX_ALLOWED_HOSTS` that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{pattern}` is no host pattern: write a name (`example.org`), a suffix (`*.example.org`), a public address, \
     `default` for the built-in list, or `*` for every public host"
)]
pub struct BadPattern {
    /// The pattern as it was written.
    pub pattern: String,
}

/// The hosts that sandboxes may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    /// `*` is in the list: every name is allowed. Literal addresses must still be listed.
    all: bool,
    /// Hosts that are listed by their full name or address.
    exact: HashSet<Host>,
    /// `.example.org` for the pattern `*.example.org`.
    suffixes: Vec<String>,
}

impl AllowedHosts {
    /// Parses patterns: names, `*.suffix` (any depth below it, not the suffix itself), addresses, `default`, `*`.
    pub fn parse<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, BadPattern> {
        let mut hosts = Self::default();
        for pattern in patterns {
            hosts.add(pattern.as_ref().trim())?;
        }
        Ok(hosts)
    }

    /// Returns the default list.
    pub fn standard() -> Self {
        let exact = DEFAULT.iter().map(|name| Host::Name((*name).to_owned())).collect();
        Self { all: false, exact, suffixes: Vec::new() }
    }

    fn add(&mut self, pattern: &str) -> Result<(), BadPattern> {
        let bad = || BadPattern { pattern: pattern.to_owned() };
        if pattern == "*" {
            self.all = true;
        } else if pattern == "default" {
            self.exact.extend(Self::standard().exact);
        } else if let Some(suffix) = pattern.strip_prefix("*.") {
            let Some(Host::Name(name)) = Host::parse(suffix) else { return Err(bad()) };
            self.suffixes.push(format!(".{name}"));
        } else if let Ok(address) = pattern.parse::<IpAddr>() {
            self.exact.insert(Host::Address(address));
        } else {
            self.exact.insert(Host::parse(pattern).ok_or_else(bad)?);
        }
        Ok(())
    }

    /// Returns whether every public host is allowed; `doctor` warns of that.
    pub fn is_open(&self) -> bool {
        self.all
    }

    /// Returns whether the list has `host`. The addresses to which it resolves are always checked separately.
    pub fn allows(&self, host: &Host) -> bool {
        if self.exact.contains(host) {
            return true;
        }
        match host {
            // A name without a dot belongs to the host's own network and is never public.
            Host::Name(name) => {
                (self.all && name.contains('.')) || self.suffixes.iter().any(|suffix| name.ends_with(suffix.as_str()))
            }
            Host::Address(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn hosts_have_one_spelling() {
        assert_eq!(name("PyPI.org."), Host::Name("pypi.org".into()));
        assert_eq!(name("93.184.216.34"), Host::Address("93.184.216.34".parse().unwrap()));
        assert_eq!(name("[2606:4700::1]"), Host::Address("2606:4700::1".parse().unwrap()));
        assert_eq!(name("[2606:4700::1]").to_string(), "[2606:4700::1]");
    }

    #[test]
    fn disguised_addresses_and_nonsense_are_no_hosts() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0x7f000001",
            "1.2.3.4.5",
            "256.1.1.1",
            "010.0.0.0x1",
            "01.2.3.4",
            "[::1",
            "[fe80::1%eth0]",
            "::1",
            "ex ample.org",
            "ex\tample",
            "exämple.org",
            "a@b",
            "a/b",
            "a:80",
            "a\0b",
            "foo.1",
            "foo.0x1",
        ] {
            assert_eq!(Host::parse(text), None, "{text:?}");
        }
        assert_eq!(Host::parse(&"a".repeat(64)), None);
        assert_eq!(Host::parse(&["a"; 128].join(".")), None);
    }

    #[test]
    fn patterns_mean_what_they_say() {
        let hosts = AllowedHosts::parse(["example.org", " *.Example.net", "203.0.113.9", "2606:4700::1"]).unwrap();
        for (host, allowed) in [
            ("example.org", true),
            ("EXAMPLE.org.", true),
            ("www.example.org", false),
            ("example.net", false),
            ("a.example.net", true),
            ("a.b.example.net", true),
            ("badexample.net", false),
            ("a.example.net.evil.org", false),
            ("203.0.113.9", true),
            ("203.0.113.8", false),
            ("[2606:4700::1]", true),
        ] {
            assert_eq!(hosts.allows(&name(host)), allowed, "{host}");
        }
        assert!(!hosts.is_open());
    }

    #[test]
    fn star_opens_public_names_only() {
        let hosts = AllowedHosts::parse(["*"]).unwrap();
        assert!(hosts.is_open());
        assert!(hosts.allows(&name("anything.example")));
        assert!(!hosts.allows(&name("localhost")));
        assert!(!hosts.allows(&name("1.1.1.1")));
    }

    #[test]
    fn default_is_a_word_of_the_list_and_the_list_is_sound() {
        assert_eq!(AllowedHosts::parse(["default"]).unwrap(), AllowedHosts::standard());
        let both = AllowedHosts::parse(["default", "example.org"]).unwrap();
        assert!(both.allows(&name("pypi.org")) && both.allows(&name("example.org")));
        assert_eq!(AllowedHosts::parse(DEFAULT).unwrap(), AllowedHosts::standard());
        assert!(!AllowedHosts::standard().allows(&name("github.com")), "pushes would go there unseen");
    }

    #[test]
    fn bad_patterns_are_named() {
        for pattern in ["", "*.", "**", "*.*", "a.*.b", "http://example.org", "example.org:443", "*.1", "*.[::1]"] {
            assert_eq!(AllowedHosts::parse([pattern]), Err(BadPattern { pattern: pattern.into() }), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_is_stable(text in "\\PC{0,80}") {
            if let Some(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Some(host));
            }
        }

        #[test]
        fn a_suffix_never_opens_more_than_what_is_below_it(host in "[a-z]{1,5}(\\.[a-z]{1,5}){0,4}") {
            let hosts = AllowedHosts::parse(["*.ab.cd"]).unwrap();
            let labels: Vec<&str> = host.split('.').collect();
            prop_assert_eq!(hosts.allows(&name(&host)), labels.len() > 2 && labels.ends_with(&["ab", "cd"]));
        }
    }
}
