//! The operator's file with what setups are given (`SETUP_SECRETS`), and the search for these values in what is kept.
//!
//! The search holds back accidents (a token in `~/.npmrc`, in a URL, in a log): each value as it is and in its usual
//! encodings. Who can write to the repository's default branch can hide one from it; such scripts are whom the operator has
//! trusted with it.

use std::{
    fmt::Write as _,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use memchr::memmem::Finder;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

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

/// Why the file cannot be used: a clause, which holds no word of it.
#[derive(Debug, Error)]
pub enum BadSecrets {
    /// It is not there.
    #[error("there is no such file")]
    Missing,
    /// It is a folder, or something else that is no file.
    #[error("it is no file")]
    NoFile,
    /// Others may read it.
    #[error("other users of this machine may read it")]
    Open,
    /// It is longer than any list of secrets.
    #[error("it has more than {} KiB", FILE / 1024)]
    TooLong,
    /// It cannot be read; holds the reason.
    #[error("it cannot be read ({0})")]
    Unreadable(#[from] io::Error),
    /// A line is no secret; holds its number and what is wrong.
    #[error("line {0} {1}")]
    Line(usize, &'static str),
}

impl BadSecrets {
    /// Returns what to do about it, in a sentence without its full stop.
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Missing => "Make the file, or unset SETUP_SECRETS",
            Self::NoFile => "Name the file itself",
            Self::Open => "Run `chmod 600` on it",
            Self::TooLong => "Keep only lines `owner/name NAME=value` in it",
            Self::Unreadable(_) => "Let the server's user read it, as UTF-8 text",
            Self::Line(..) => "Write `owner/name NAME=value` there",
        }
    }
}

/// Looks whether there is such a file, without reading it.
pub(super) fn exists(file: &Path) -> Result<Metadata, BadSecrets> {
    match fs::metadata(file) {
        Ok(about) if about.is_file() => Ok(about),
        Ok(_) => Err(BadSecrets::NoFile),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BadSecrets::Missing),
        Err(error) => Err(error.into()),
    }
}

/// Reads what a repository's setup is given.
pub(super) fn of(file: &Path, repository: &str) -> Result<Vec<Secret>, BadSecrets> {
    let all = all(file)?.into_iter().filter(|(named, _)| named.eq_ignore_ascii_case(repository));
    Ok(all.map(|(_, secret)| secret).collect())
}

/// Reads the whole file: repositories, and what their setups are given. One that others may read is refused.
pub(super) fn all(file: &Path) -> Result<Vec<(String, Secret)>, BadSecrets> {
    let about = exists(file)?;
    if about.mode() & 0o077 != 0 {
        return Err(BadSecrets::Open);
    }
    if about.len() > FILE {
        return Err(BadSecrets::TooLong);
    }
    let text = SecretString::from(fs::read_to_string(file)?);
    let lines = text.expose_secret().lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| read(line).map_err(|why| BadSecrets::Line(number + 1, why)))
        .collect()
}

/// Reads `owner/name NAME=value`. No error holds a part of the line.
fn read(line: &str) -> Result<(String, Secret), &'static str> {
    let form = || "is none of `owner/name NAME=value`";
    let (repository, rest) = line.split_once(char::is_whitespace).ok_or_else(form)?;
    let (name, value) = rest.trim_start().split_once('=').ok_or_else(form)?;
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.as_bytes()[0].is_ascii_digit();
    if !is_name || !repository.contains('/') {
        return Err(form());
    }
    if !(SHORTEST..=LONGEST).contains(&value.len()) {
        return Err("has a value of fewer than 8 or more than 4096 bytes");
    }
    Ok((repository.to_owned(), Secret { name: name.to_owned(), value: value.into() }))
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
        assert!(matches!(of(&file, "acme/site"), Err(BadSecrets::Open)));
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
