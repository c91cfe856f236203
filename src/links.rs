//! Links to the dashboard: where it is, and *passes*, short texts by which this server knows that it has let somebody in, to what, and
//! until when.
//!
//! A pass stands behind the `#` of a link, so that no browser sends it to anybody but the dashboard's own page, and no server that looks
//! at a link for a preview gets it. Must not know what is shown.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use crate::{
    clock::Lasting,
    ids::{self, TurnId},
};

/// Where the dashboard is.
pub(crate) const DASHBOARD: &str = "/dashboard";
/// The file with the key by which passes are known, in the folder of secrets: what a backup without secrets holds opens nothing.
const FILE: &str = "dashboard-key";
/// The key's length, in bytes.
const KEY: usize = 32;
/// How far a clock may have gone back since a pass was made.
const BACK: Duration = Duration::from_mins(1);

/// What a pass opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opens {
    /// The dashboard, once somebody comes with it from the command line.
    Entrance,
    /// The dashboard, to the browser that has come in.
    All,
    /// The log of one turn.
    Turn,
}

impl Opens {
    /// Returns how long a pass is good.
    pub(crate) fn lasts(self) -> Duration {
        match self {
            Self::Entrance => Duration::from_mins(10),
            Self::All => Duration::from_hours(7 * 24),
            Self::Turn => Duration::from_hours(24),
        }
    }

    fn letter(self) -> &'static str {
        match self {
            Self::Entrance => "e",
            Self::All => "a",
            Self::Turn => "t",
        }
    }
}

/// Makes links and passes, and knows its own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Links {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    key: RwLock<hmac::Key>,
    file: PathBuf,
    /// A clock that is set back lengthens no pass.
    time: Lasting,
    /// Where the dashboard is, as people reach it, without a slash at the end: the best one first.
    places: Vec<String>,
}

impl Links {
    /// Returns what makes links to the server at `address`, which has these public names for its dashboard. The key lies in the folder
    /// `secrets`, and is made if it is not there.
    ///
    /// # Errors
    ///
    /// The key cannot be read or written.
    pub(crate) fn open(secrets: &Path, time: Lasting, address: SocketAddr, names: &[String]) -> io::Result<Self> {
        let file = secrets.join(FILE);
        let key = match fs::read(&file) {
            // Whatever else lies there is no key that anybody has drawn.
            Ok(text) if text.len() == 2 * KEY && text.iter().all(u8::is_ascii_hexdigit) => key_of(&text),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => make_key(&file)?,
        };
        let here = match address.ip() {
            ip if ip.is_unspecified() => format!("http://127.0.0.1:{}", address.port()),
            _ => format!("http://{address}"),
        };
        // A proxy with TLS is before a name; an address is asked itself.
        let named = names.iter().map(|name| match name.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            Ok(ip) => format!("http://{}", SocketAddr::new(ip, address.port())),
            Err(_) => format!("https://{name}"),
        });
        let places = named.chain([here]).map(|place| place + DASHBOARD).collect();
        Ok(Self { inner: Arc::new(Inner { key: RwLock::new(key), file, time, places }) })
    }

    /// Returns the link by which an operator comes in, for each address of the dashboard.
    pub(crate) fn entrances(&self) -> Vec<String> {
        let pass = self.pass(Opens::Entrance, "");
        self.inner.places.iter().map(|place| format!("{place}#{pass}")).collect()
    }

    /// Returns the link to one turn's log.
    pub(crate) fn to_turn(&self, turn: &TurnId) -> String {
        let place = self.inner.places.first().map_or(DASHBOARD, String::as_str);
        format!("{place}#{}", self.pass(Opens::Turn, turn.as_str()))
    }

    /// Makes another key: whoever is in has to come in again, and no link that was given opens anything.
    ///
    /// # Errors
    ///
    /// It cannot be written; the old one counts then.
    pub(crate) fn sign_out(&self) -> io::Result<()> {
        let key = make_key(&self.inner.file)?;
        *self.inner.key.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    fn key(&self) -> hmac::Key {
        self.inner.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a pass for what `about` names, if it opens one thing of several.
    pub(crate) fn pass(&self, opens: Opens, about: &str) -> String {
        let claim = format!("{}.{:x}.{}", opens.letter(), self.inner.time.now(), BASE64.encode(about));
        let tag = hmac::sign(&self.key(), claim.as_bytes());
        format!("{claim}.{}", BASE64.encode(tag))
    }

    /// Returns what a pass is about; `None` if it is none of ours, opens something else, or is too old.
    pub(crate) fn check(&self, opens: Opens, pass: &str) -> Option<String> {
        let (claim, tag) = pass.rsplit_once('.')?;
        let tag = BASE64.decode(tag).ok()?;
        hmac::verify(&self.key(), claim.as_bytes(), &tag).ok()?;
        let mut parts = claim.split('.');
        let (letter, made, about) = (parts.next()?, parts.next()?, parts.next()?);
        let age = self.inner.time.now().checked_sub(i64::from_str_radix(made, 16).ok()?)?;
        let good = age >= -(BACK.as_millis() as i64) && age < opens.lasts().as_millis() as i64;
        let about = String::from_utf8(BASE64.decode(about).ok()?).ok()?;
        (letter == opens.letter() && good).then_some(about)
    }
}

fn key_of(text: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, text)
}

/// Makes a key in this file, which nobody but its owner can read; it is the old one or the new one, whatever happens.
fn make_key(file: &Path) -> io::Result<hmac::Key> {
    let (text, fresh) = (ids::random(KEY), file.with_added_extension("new"));
    let mut new = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&fresh, file)?;
    File::open(file.parent().unwrap_or(file))?.sync_all()?;
    Ok(key_of(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::clock::Clock;

    fn links(secrets: &TempDir, clock: &Clock) -> Links {
        let names = ["dash.example.org".to_owned()];
        Links::open(secrets.path(), Lasting::new(clock.clone()), "0.0.0.0:8090".parse().unwrap(), &names).unwrap()
    }

    fn folder() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_pass_opens_its_own_thing_for_its_own_time() {
        let clock = Clock::fixed_at(1_700_000_000_000);
        let secrets = folder();
        let ours = links(&secrets, &clock);
        let pass = ours.pass(Opens::Turn, "t1");
        assert_eq!(ours.check(Opens::Turn, &pass).as_deref(), Some("t1"));
        assert_eq!(ours.check(Opens::All, &pass), None, "it opens one turn");
        assert_eq!(links(&folder(), &clock).check(Opens::Turn, &pass), None, "another server's");
        clock.advance(Opens::Turn.lasts().as_millis() as i64 - 60_000);
        assert!(ours.check(Opens::Turn, &pass).is_some());
        // Far enough for the moments that had gone by when the pass was made.
        clock.advance(120_000);
        assert_eq!(ours.check(Opens::Turn, &pass), None, "it is too old");
        clock.advance(-2 * Opens::Turn.lasts().as_millis() as i64);
        assert_eq!(ours.check(Opens::Turn, &pass), None, "a clock that is set back brings nothing back");
        let before = links(&secrets, &Clock::fixed_at(1_600_000_000_000));
        assert_eq!(before.check(Opens::Turn, &pass), None, "it was made in the future");
    }

    #[test]
    fn the_key_lasts_over_a_restart_until_everybody_is_signed_out() {
        let (secrets, clock) = (folder(), Clock::fixed_at(1_700_000_000_000));
        let first = links(&secrets, &clock);
        let pass = first.pass(Opens::All, "");
        let again = links(&secrets, &clock);
        assert!(again.check(Opens::All, &pass).is_some(), "the same after a restart");
        again.sign_out().unwrap();
        assert_eq!(again.check(Opens::All, &pass), None);
        let after = links(&secrets, &clock);
        assert_eq!(after.check(Opens::All, &pass), None, "also after a restart");
        assert!(after.check(Opens::All, &again.pass(Opens::All, "")).is_some());
        // A key that was cut off is none.
        fs::write(secrets.path().join(FILE), "x").unwrap();
        let cut = links(&secrets, &clock);
        assert_ne!(fs::read(secrets.path().join(FILE)).unwrap(), b"x");
        assert_eq!(cut.check(Opens::All, &again.pass(Opens::All, "")), None);
        fs::write(secrets.path().join(FILE), [0; 64]).unwrap();
        links(&secrets, &clock);
        assert_ne!(fs::read(secrets.path().join(FILE)).unwrap(), [0; 64], "what a broken disk leaves is no key");
    }

    #[test]
    fn no_byte_of_a_pass_can_be_changed() {
        let clock = Clock::fixed_at(1_700_000_000_000);
        let links = links(&folder(), &clock);
        let pass = links.pass(Opens::Turn, "t1");
        for at in 0..pass.len() {
            for other in ["A", ".", "z", "0"] {
                let mut changed = pass.clone();
                changed.replace_range(at..=at, other);
                // The last letter of a base64 text has bits that stand for nothing; they must be zero.
                assert!(changed == pass || links.check(Opens::Turn, &changed).is_none(), "{changed}");
            }
        }
        for bad in ["", ".", "...", "t", "t.0..", "ä.ö.ü.ß"] {
            assert_eq!(links.check(Opens::Turn, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_link_leads_to_the_public_name_and_the_operator_is_told_of_all() {
        let links = links(&folder(), &Clock::fixed_at(0));
        assert!(links.to_turn(&"t1".into()).starts_with("https://dash.example.org/dashboard#t."));
        let entrances = links.entrances();
        assert!(entrances[1].starts_with("http://127.0.0.1:8090/dashboard#e."), "{entrances:?}");
    }
}
