//! Links to the dashboard: where it is, and *passes*, short texts by which this server knows that it has let somebody in, to what, and
//! until when.
//!
//! A pass stands behind the `#` of a link, so that no browser sends it to anybody but the dashboard's own page, and no server that looks
//! at a link for a preview gets it. Must not know what is shown.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use crate::{clock::Clock, ids::TurnId};

/// Where the dashboard is.
pub(crate) const DASHBOARD: &str = "/dashboard";
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
    key: hmac::Key,
    clock: Clock,
    /// Where the dashboard is, as people reach it, without a slash at the end: the best one first.
    places: Vec<String>,
}

impl Links {
    /// Returns what makes links to the server at `address`, which has these public names for its dashboard; `secret` is this
    /// installation's.
    pub(crate) fn new(secret: &str, clock: Clock, address: SocketAddr, names: &[String]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, format!("dashboard {secret}").as_bytes());
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
        Self { inner: Arc::new(Inner { key, clock, places }) }
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

    /// Makes a pass for what `about` names, if it opens one thing of several.
    pub(crate) fn pass(&self, opens: Opens, about: &str) -> String {
        let claim = format!("{}.{:x}.{}", opens.letter(), self.inner.clock.millis(), BASE64.encode(about));
        let tag = hmac::sign(&self.inner.key, claim.as_bytes());
        format!("{claim}.{}", BASE64.encode(tag))
    }

    /// Returns what a pass is about; `None` if it is none of ours, opens something else, or is too old.
    pub(crate) fn check(&self, opens: Opens, pass: &str) -> Option<String> {
        let (claim, tag) = pass.rsplit_once('.')?;
        let tag = BASE64.decode(tag).ok()?;
        hmac::verify(&self.inner.key, claim.as_bytes(), &tag).ok()?;
        let mut parts = claim.split('.');
        let (letter, made, about) = (parts.next()?, parts.next()?, parts.next()?);
        let age = self.inner.clock.millis().checked_sub(i64::from_str_radix(made, 16).ok()?)?;
        let good = age >= -(BACK.as_millis() as i64) && age < opens.lasts().as_millis() as i64;
        let about = String::from_utf8(BASE64.decode(about).ok()?).ok()?;
        (letter == opens.letter() && good).then_some(about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(secret: &str, clock: &Clock) -> Links {
        Links::new(secret, clock.clone(), "0.0.0.0:8090".parse().unwrap(), &["dash.example.org".to_owned()])
    }

    #[test]
    fn a_pass_opens_its_own_thing_for_its_own_time() {
        let clock = Clock::fixed_at(1_700_000_000_000);
        let ours = links("secret", &clock);
        let pass = ours.pass(Opens::Turn, "t1");
        assert_eq!(ours.check(Opens::Turn, &pass).as_deref(), Some("t1"));
        assert_eq!(ours.check(Opens::All, &pass), None, "it opens one turn");
        assert_eq!(links("another", &clock).check(Opens::Turn, &pass), None, "another server's");
        clock.advance(Opens::Turn.lasts().as_millis() as i64 - 1);
        assert!(ours.check(Opens::Turn, &pass).is_some());
        clock.advance(1);
        assert_eq!(ours.check(Opens::Turn, &pass), None, "it is too old");
        clock.advance(-2 * Opens::Turn.lasts().as_millis() as i64);
        assert_eq!(ours.check(Opens::Turn, &pass), None, "it was made in the future");
    }

    #[test]
    fn no_byte_of_a_pass_can_be_changed() {
        let clock = Clock::fixed_at(1_700_000_000_000);
        let links = links("secret", &clock);
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
        let links = links("secret", &Clock::fixed_at(0));
        assert!(links.to_turn(&"t1".into()).starts_with("https://dash.example.org/dashboard#t."));
        let entrances = links.entrances();
        assert!(entrances[1].starts_with("http://127.0.0.1:8090/dashboard#e."), "{entrances:?}");
    }
}
