//! `!yes CODE` and `!no CODE`: the answer to a card.

use super::{Order, granting, replied::Replied};
use crate::{
    rights::{Answered, Answerer, Lasts, Rights, Role},
    store::StoreError,
    strings::rights,
};

/// Letters of a code.
const CODE: usize = 5;
/// What stands behind the code where the answer is a reaction: the card itself tells what became of it.
pub(crate) const SILENT: &[&str] = &["👍", "👎"];
/// What may stand around a word.
const AROUND: &[char] = &['`', '*', '_', '"', '\'', '“', '”', '(', ')', '<', '>', '.', ',', ';', '!', '?'];

/// An answer to a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answering {
    /// To the card with this code.
    Card {
        /// The code.
        code: String,
        /// Whether it is a yes.
        yes: bool,
        /// How long a yes counts beyond the question, if it does.
        lasts: Option<Lasts>,
        /// Whether nothing is to be replied when it is taken.
        silent: bool,
    },
    /// It has no code, or says something else besides. It is no work all the same: the model must not see an open card's code.
    Unclear,
}

impl Answering {
    /// Reads what follows the mark of a command; `None`: it is another one, or work.
    pub(super) fn of(rest: &str) -> Option<Self> {
        let words = rest.split_whitespace().map(|word| word.trim_matches(AROUND).to_lowercase());
        let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (verb, words) = words.split_first()?;
        let yes = match *verb {
            "yes" => true,
            "no" => false,
            _ => return None,
        };
        Some(Self::with_code(yes, words).unwrap_or(Self::Unclear))
    }

    fn with_code(yes: bool, words: &[&str]) -> Option<Self> {
        let (code, how) = words.split_first().filter(|(code, _)| is_code(code))?;
        let (lasts, silent) = match how {
            [] => (None, false),
            [how] if SILENT.contains(how) => (None, true),
            ["for", how] | [how] if yes => (Some(granting::lasting(how)?), false),
            _ => return None,
        };
        Some(Self::Card { code: code.to_uppercase(), yes, lasts, silent })
    }
}

fn is_code(word: &str) -> bool {
    word.len() == CODE && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Carries it out, and returns the reply; empty if the card says all.
pub(super) async fn carry_out(rights: &Rights, order: &Order, answering: Answering) -> Result<Replied, StoreError> {
    let Answering::Card { code, yes, lasts, silent } = answering else {
        return Ok(Replied::refused(rights::UNREADABLE_ANSWER));
    };
    let at = &order.at.address;
    Ok(match rights.answer(at, &code, &order.sender, yes, lasts).await? {
        Answered::Ended(_) if silent => Replied::done(""),
        Answered::Ended(how) => Replied::done(how),
        Answered::NotOpen => Replied::refused(rights::not_open(&code)),
        Answered::NotYours(Role::Admin) => {
            Replied::refused(rights::not_yours_to_answer(rights.roles().admins(&at.account)))
        }
        Answered::NotFor(answerer) => Replied::refused(rights::not_for_you(answerer == Answerer::Another)),
        Answered::NotYours(_) => Replied::refused(rights::GUESTS_ANSWER_NOTHING),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_begins_like_an_answer_is_one_or_is_told_to_be_unclear() {
        let card = |yes, lasts, silent| Some(Answering::Card { code: "K7QFB".into(), yes, lasts, silent });
        for (text, answer) in [
            ("yes K7QFB", card(true, None, false)),
            ("Yes k7qfb.", card(true, None, false)),
            ("yes `K7QFB` 2h", card(true, Some(Lasts::For(Duration::from_hours(2))), false)),
            ("yes K7QFB for 1h", card(true, Some(Lasts::For(Duration::from_hours(1))), false)),
            ("yes K7QFB room", card(true, Some(Lasts::Room), false)),
            ("yes K7QFB 👍", card(true, None, true)),
            ("no K7QFB", card(false, None, false)),
            ("no K7QFB 👎", card(false, None, true)),
            ("yes", Some(Answering::Unclear)),
            ("no!", Some(Answering::Unclear)),
            ("yes please do it", Some(Answering::Unclear)),
            ("no K7QFB 2h", Some(Answering::Unclear)),
            ("yes K7QFB 0h", Some(Answering::Unclear)),
            ("yes K7QFB -1h", Some(Answering::Unclear)),
            ("yes K7QFB 1y", Some(Answering::Unclear)),
            ("yes K7QFB 99999999999999999999h", Some(Answering::Unclear)),
            ("yes K7QFB room please", Some(Answering::Unclear)),
            ("yes K7QFBB", Some(Answering::Unclear)),
            ("no tests needed", Some(Answering::Unclear)),
            ("yesterday K7QFB", None),
            ("nothing K7QFB", None),
        ] {
            assert_eq!(Answering::of(text), answer, "{text}");
        }
    }
}
