//! A card: a question that a room is shown, with all that is needed to answer it. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Answerer, Question,
    act::{Act, Subject},
    repository::Repository,
    role::Role,
};
use crate::{
    ids::{self, Address, TurnId},
    store::StoredCard,
    strings::rights,
    text,
};

/// Letters of codes: none that is taken for another.
const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Letters of a code.
const CODE: usize = 5;
/// Characters of a line that comes from a sandbox.
const LINE: usize = 300;
/// Bytes of a question's details.
pub(crate) const DETAILS: usize = 12_000;

/// A question that a room is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) code: String,
    /// Names the question: it is asked once.
    pub(super) question: String,
    pub(super) at: Address,
    pub(super) turn: TurnId,
    pub(super) body: Body,
    /// When it ends, by the time that never goes back.
    pub(super) until: i64,
}

/// What is asked, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Body {
    what: String,
    why: String,
    /// Who spoke in the turn.
    asks: Vec<String>,
    /// What a yes is about, in more lines.
    #[serde(default)]
    details: String,
    /// Whether an administrator has to answer.
    admin: bool,
    /// Who of those that may answer may do so here.
    #[serde(default)]
    answerer: Answerer,
    host: Option<String>,
    repository: Option<String>,
    writes: bool,
    /// The thread of the turn.
    thread: Option<String>,
}

impl Card {
    /// Returns the card of a question, to be answered by somebody of a role.
    pub(super) fn new(
        at: &Address,
        turn: &TurnId,
        question: &Question,
        needed: Role,
        asks: Vec<String>,
        thread: Option<String>,
        until: i64,
    ) -> Self {
        let (host, repository) = match question.act.subject() {
            Some(Subject::Host(host)) => (Some(host), None),
            Some(Subject::Repository(repository)) => (None, Some(repository.to_string())),
            None => (None, None),
        };
        let body = Body {
            what: text::one_line(&question.what, LINE),
            why: text::one_line(&question.why, LINE),
            asks,
            details: text::cut_middle(text::strip(&question.details).trim(), DETAILS),
            answerer: question.answerer,
            admin: needed == Role::Admin,
            host,
            repository,
            writes: question.act.writes(),
            thread,
        };
        let name = name(at, turn, question);
        Self { code: code(), question: name, at: at.clone(), turn: turn.clone(), body, until }
    }

    /// Reads a stored card; `None` if a newer version has written what this one does not know.
    pub(super) fn stored(card: StoredCard) -> Option<Self> {
        let StoredCard { code, question, at, turn, body, until, .. } = card;
        Some(Self { code, question, at, turn, body: serde_json::from_value(body).ok()?, until })
    }

    /// Returns the least role that may answer.
    pub(super) fn needed(&self) -> Role {
        if self.body.admin { Role::Admin } else { Role::User }
    }

    /// Returns whom the question excludes, if it is this person.
    pub(super) fn excludes(&self, person: &str) -> Option<Answerer> {
        let asks = self.body.asks.iter().any(|asks| asks == person);
        let fits = match self.body.answerer {
            Answerer::Anybody => true,
            Answerer::Asker => asks,
            Answerer::Another => !asks,
        };
        (!fits).then_some(self.body.answerer)
    }

    /// Returns what a grant in its place is about, and whether it changes something there.
    pub(super) fn subject(&self) -> Option<(Subject, bool)> {
        let host = self.body.host.clone().map(Subject::Host);
        let repository = || Repository::parse(self.body.repository.as_deref()?).map(Subject::Repository);
        host.or_else(repository).map(|subject| (subject, self.body.writes))
    }

    /// Returns whether a yes opens something to a program that will use it again: one that says no more counts until the turn ends.
    pub(super) fn opens(&self) -> bool {
        self.subject().is_some_and(|(_, writes)| !writes)
    }

    pub(super) fn thread(&self) -> Option<&str> {
        self.body.thread.as_deref()
    }

    pub(super) fn what(&self) -> &str {
        &self.body.what
    }

    /// Returns the transaction id of its row, and of the row that ends it.
    pub(super) fn txn(&self, part: &str) -> String {
        ids::digest(&[&self.at.account, self.at.room.as_str(), &self.question, part], 16)
    }

    /// Returns what the room reads.
    pub(super) fn text(&self, admins: &[String], reactions: bool, left: Duration) -> String {
        let Body { what, why, asks, details, admin, answerer, .. } = &self.body;
        let who = match answerer {
            _ if *admin => rights::admins(admins),
            Answerer::Anybody => rights::ANY_USER.to_owned(),
            Answerer::Asker => rights::ASKER.to_owned(),
            Answerer::Another => rights::ANOTHER.to_owned(),
        };
        let lasting = self.subject().is_some();
        rights::card(what, why, asks, details, &self.code, &who, reactions, lasting, &text::human_duration(left))
    }
}

/// Returns the name of a question: whoever asks the same in the same turn gets the same answer.
pub(super) fn name(at: &Address, turn: &TurnId, question: &Question) -> String {
    let act = match &question.act {
        Act::Read(_) => "read",
        Act::Push(_) => "push",
        Act::PullRequest(_) => "pull request",
        Act::Comment(_) => "comment",
        Act::Host(_) => "host",
        Act::Grant => "grant",
        Act::Implement => "implement",
        Act::SelfUpdate => "self_update",
    };
    let subject = question.act.subject().map(|subject| subject.to_string()).unwrap_or_default();
    let Question { key, what, .. } = question;
    ids::digest(&[&at.account, at.room.as_str(), turn.as_str(), key, act, &subject, what], 16)
}

fn code() -> String {
    let random = ids::random(CODE);
    let bytes = (0..CODE).map(|at| u8::from_str_radix(&random[2 * at..2 * at + 2], 16).unwrap_or_default());
    bytes.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}
