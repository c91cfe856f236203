//! Talk's signatures: HMAC-SHA256 over a random text and what is signed, by the secret that bot and Nextcloud share. Pure, but
//! for the random text.

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use secrecy::{ExposeSecret, SecretString};

use crate::ids;

/// The longest random text that is taken, in bytes.
const LONGEST_RANDOM: usize = 128;

/// Signs for the bot, and checks what Nextcloud has signed.
pub(super) struct Secret(hmac::Key);

/// A signature with the random text over which it goes.
pub(super) struct Signed {
    /// 64 hex digits.
    pub(super) random: String,
    /// 64 hex digits.
    pub(super) signature: String,
}

impl Secret {
    pub(super) fn new(secret: &SecretString) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()))
    }

    /// Signs a text.
    pub(super) fn sign(&self, text: &str) -> Signed {
        let random = ids::random(32);
        let signature = ids::hex(self.tag(random.as_bytes(), text.as_bytes()).as_ref());
        Signed { random, signature }
    }

    /// Returns whether this is the signature of these bytes; how long that takes tells nothing.
    pub(super) fn has_signed(&self, random: &[u8], body: &[u8], signature: &str) -> bool {
        // Both are signed as one text, so none of the body may pass for a part of the random text.
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/\\=".contains(byte);
        if random.is_empty() || random.len() > LONGEST_RANDOM || !random.iter().all(plain) {
            return false;
        }
        let told = ids::of_hex(signature);
        told.is_some_and(|told| verify_slices_are_equal(self.tag(random, body).as_ref(), &told).is_ok())
    }

    fn tag(&self, random: &[u8], body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(random);
        context.update(body);
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(&SecretString::from(text))
    }

    #[test]
    fn only_what_the_secret_has_signed_is_taken() {
        let (secret, other) = (secret("one secret"), secret("another one"));
        let Signed { random, signature } = secret.sign("{\"type\":\"Create\"}");
        assert_eq!((random.len(), signature.len()), (64, 64));
        let has = |secret: &Secret, random: &str, body: &str, signature: &str| {
            secret.has_signed(random.as_bytes(), body.as_bytes(), signature)
        };
        let body = "{\"type\":\"Create\"}";
        assert!(has(&secret, &random, body, &signature));
        assert!(has(&secret, &random, body, &signature.to_uppercase()));
        assert!(!has(&other, &random, body, &signature));
        assert!(!has(&secret, &random, "{\"type\":\"create\"}", &signature));
        assert!(!has(&secret, &random[1..], body, &signature));
        for forged in ["", "zz", &signature[2..], &signature[1..], &format!("{signature}00"), &"0".repeat(64)] {
            assert!(!has(&secret, &random, body, forged), "{forged}");
        }
    }

    #[test]
    fn a_part_of_the_body_does_not_pass_for_the_random_text() {
        let secret = secret("one secret");
        let Signed { random, signature } = secret.sign("{}{\"type\":\"Create\"}");
        let longer = format!("{random}{{}}");
        assert!(!secret.has_signed(longer.as_bytes(), b"{\"type\":\"Create\"}", &signature));
        assert!(!secret.has_signed(b"", format!("{random}{{}}").as_bytes(), &signature));
    }

    #[test]
    fn it_signs_as_the_documentation_says() {
        // printf 'abc{"x":1}' | openssl dgst -sha256 -hmac key
        let tag = secret("key").tag(b"abc", b"{\"x\":1}");
        assert_eq!(ids::hex(tag.as_ref()), "5e79da25b48b45ea8ae1f262e0e3f739757c04b0344b3ac03178af91086538f3");
    }
}
