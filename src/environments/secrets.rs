//! The operator's file with what setups are given (`SETUP_SECRETS`), and the search for these values in what is kept.
//!
//! The search holds back accidents (a token in `~/.npmrc`, in a URL, in a log): each value as it is and in its usual
//! encodings. Who can write to the repository's default branch can hide one from it; such scripts are whom the operator has
//! trusted with it.

use std::{fmt::Write as _, fs, io, os::unix::fs::MetadataExt, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use memchr::memmem::Finder;
use secrecy::{ExposeSecret, SecretString};

use super::EnvironmentError;

/// The shortest value: a shorter one would be found everywhere.
const SHORTEST: usize = 8;
/// The longest, which also bounds what a search remembers from one piece to the next.
const LONGEST: usize = 4096;
/// The most bytes of the file.
const FILE: u64 = 256 * 1024;

/// A value that a setup is given.
#[derive(Clone, Debug)]
pub(super) struct Secret {
    /// The environment variable.
    pub(super) name: String,
    /// Its value.
    pub(super) value: SecretString,
}

/// Reads what a repository's setup is given. A file that others may read is refused.
pub(super) fn of(file: &Path, repository: &str) -> Result<Vec<Secret>, EnvironmentError> {
    let wrong = |why: String| EnvironmentError::Secrets { file: file.to_owned(), why };
    let about = fs::metadata(file).map_err(|error| wrong(error.to_string()))?;
    if about.mode() & 0o077 != 0 {
        return Err(wrong("others may read it; `chmod 600` it".to_owned()));
    }
    if about.len() > FILE {
        return Err(wrong("it is too long".to_owned()));
    }
    let text = fs::read_to_string(file).map_err(|error: io::Error| wrong(error.to_string()))?;
    let mut secrets = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (named, secret) = read(line).map_err(|why| wrong(format!("line {}: {why}", number + 1)))?;
        if named.eq_ignore_ascii_case(repository) {
            secrets.push(secret);
        }
    }
    Ok(secrets)
}

/// Reads `owner/name NAME=value`. No error holds a part of the line.
fn read(line: &str) -> Result<(&str, Secret), String> {
    let form = || "write `owner/name NAME=value`".to_owned();
    let (repository, rest) = line.split_once(char::is_whitespace).ok_or_else(form)?;
    let (name, value) = rest.trim_start().split_once('=').ok_or_else(form)?;
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.as_bytes()[0].is_ascii_digit();
    if !is_name || !repository.contains('/') {
        return Err(form());
    }
    if !(SHORTEST..=LONGEST).contains(&value.len()) {
        return Err(format!("a value has {SHORTEST} to {LONGEST} bytes"));
    }
    Ok((repository, Secret { name: name.to_owned(), value: value.into() }))
}

/// Looks for secrets in bytes that come in pieces.
pub(super) struct Search {
    finders: Vec<(String, Finder<'static>)>,
    /// The end of what came before, in which one may begin.
    rest: Vec<u8>,
    longest: usize,
}

impl Search {
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let forms = secrets.iter().flat_map(|secret| {
            forms(secret.value.expose_secret().as_bytes()).into_iter().map(|form| (secret.name.clone(), form))
        });
        let forms: Vec<_> = forms.collect();
        let longest = forms.iter().map(|(_, form)| form.len()).max().unwrap_or_default();
        let finders = forms.into_iter().map(|(name, form)| (name, Finder::new(&form).into_owned())).collect();
        Self { finders, rest: Vec::new(), longest }
    }

    /// Returns the name of a secret that stands in this piece, or across its beginning.
    pub(super) fn find(&mut self, piece: &[u8]) -> Option<&str> {
        if self.finders.is_empty() {
            return None;
        }
        let overlap = piece.len().min(self.longest);
        self.rest.extend_from_slice(&piece[..overlap]);
        let found = self
            .finders
            .iter()
            .find(|(_, finder)| finder.find(&self.rest).is_some() || finder.find(piece).is_some())
            .map(|(name, _)| name.as_str());
        if piece.len() >= self.longest {
            self.rest.clear();
            self.rest.extend_from_slice(&piece[piece.len() - self.longest..]);
        } else {
            let from = self.rest.len().saturating_sub(self.longest);
            self.rest.drain(..from);
        }
        found
    }
}

/// Returns a secret as it may stand somewhere: as it is, in base64 wherever in a longer text it begins, in hex, and as in a
/// URL.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    for before in 0..3 {
        // Of the first and the last character some bits belong to what stands around.
        let text = BASE64_STANDARD.encode([&b"\0\0\0"[..before], secret].concat());
        let begin = [0, 2, 3][before];
        let whole = text.trim_end_matches('=');
        let end = whole.len() - usize::from(!(before + secret.len()).is_multiple_of(3));
        let form = whole[begin..end].to_owned();
        forms.push(form.replace('+', "-").replace('/', "_").into_bytes());
        forms.push(form.into_bytes());
    }
    for upper in [false, true] {
        let mut hex = String::new();
        let mut percent = String::new();
        for byte in secret {
            let digits = if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                percent.push(char::from(*byte));
            } else {
                let _ = write!(percent, "%{digits}"); // a String takes all
            }
            hex.push_str(&digits);
        }
        forms.extend([hex.into_bytes(), percent.into_bytes()]);
    }
    forms.sort();
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn search(value: &str) -> Search {
        Search::new(&[Secret { name: "NPM_TOKEN".into(), value: value.into() }])
    }

    #[test]
    fn a_secret_is_found_however_it_is_written_and_cut() {
        let value = "canary/of+the setup~1";
        let encoded = |before: &str| BASE64_STANDARD.encode(format!("{before}{value}: and more"));
        let texts = [
            format!("//registry/:_authToken={value}\n"),
            encoded(""),
            encoded("u:"),
            encoded("user:"),
            encoded("a").replace('+', "-").replace('/', "_"),
            "https://canary%2Fof%2Bthe%20setup~1@example.org".to_owned(),
            value.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")),
        ];
        for text in texts {
            let text = format!("{}{text}{}", "x".repeat(100), "y".repeat(100));
            for cut in [1, 2, 7, 50, 1000] {
                let mut search = search(value);
                let found = text.as_bytes().chunks(cut).any(|piece| search.find(piece) == Some("NPM_TOKEN"));
                assert!(found, "{text} in pieces of {cut}");
            }
        }
        let mut search = search(value);
        assert!("canary of the setup ".repeat(1000).as_bytes().chunks(9).all(|piece| search.find(piece).is_none()));
    }

    #[test]
    fn a_repository_is_given_its_own_and_a_file_that_others_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets");
        fs::write(&file, "# ours\nacme/site NPM_TOKEN=first-value=1\n\nacme/other KEY=second-value\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let secrets = of(&file, "Acme/Site").unwrap();
        let shown: Vec<_> = secrets.iter().map(|it| (it.name.as_str(), it.value.expose_secret())).collect();
        assert_eq!(shown, [("NPM_TOKEN", "first-value=1")]);
        assert!(of(&file, "acme/none").unwrap().is_empty());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(of(&file, "acme/site").unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        for line in [
            "acme/site",
            "acme/site NPM_TOKEN",
            "acme/site 1X=secret-value",
            "site X=secret-value",
            "acme/site X=short",
        ] {
            fs::write(&file, line).unwrap();
            let error = of(&file, "acme/site").unwrap_err().to_string();
            assert!(error.contains("line 1") && !error.contains("secret-value"), "{error}");
        }
    }
}
