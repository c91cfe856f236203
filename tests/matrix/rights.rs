//! What people allow in a room: by a reaction where it is not encrypted, by words of a signed device where it is, and only
//! those who may.

use matrix_sdk::ruma::OwnedRoomId;
use serde_json::json;

use crate::support::{bot::Town, person::Person, scripted_llm::results, seen::Seen, synapse::Limits};

/// Asks the sandbox's way out for a host that is nobody's.
const FETCH: &str = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/3128; \
    printf \"CONNECT nowhere.example.com:443 HTTP/1.1\\r\\n\\r\\n\" >&3; cat <&3'";
/// What it is told of a host that may not be reached, and of one that may.
const CLOSED: &str = "not among the allowed hosts";
const OPEN: &str = "could not be resolved";

/// A town in which Anna administers, and Bert may give work, too; it asks before it opens a host.
async fn town() -> (Town, Person) {
    let town = Town::prepared(Limits::Relaxed, |rig| {
        let listed = format!("{},@bert:localhost", rig.get("ALLOWED_USERS").unwrap());
        rig.set("ALLOWED_USERS", &listed);
        rig.set("SANDBOX_ALLOWED_HOSTS", "none");
        rig.set("HOST_ASK_SECONDS", "60");
    })
    .await;
    let bert = Person::new(&town.synapse, "bert").await;
    (town, bert)
}

impl Town {
    /// Lets somebody ask for work that wants a host; returns the question and the card.
    async fn card(&self, room: &OwnedRoomId, who: &Person, words: &str) -> (String, Seen) {
        self.llm.when(words).reply_calls(&[("run_command", json!({"command": FETCH}))]).reply_text("It is done.");
        let asked = who.say(room, words).await;
        let is_card = |event: &Seen| event.sender == self.bot && event.body().contains("May I?");
        let card = self.anna.wait_after(&asked, "the card", is_card).await;
        // A reaction counts from then on.
        self.has_noted();
        (asked, card)
    }

    /// Returns what the last command was told, once the question is answered.
    async fn outcome(&self, asked: &str) -> String {
        self.anna.answer_to(asked).await;
        results(self.llm.requests().last().unwrap()).last().unwrap().to_string()
    }

    /// Waits until a card says how it ended.
    async fn ended(&self, room: &OwnedRoomId, card: &Seen, how: &str) {
        let ended = |event: &Seen| {
            event.room == *room
                && event.relation() == "m.replace"
                && event.target() == card.id
                && event.body().contains(how)
        };
        self.anna.wait_for(how, ended).await;
    }
}

fn code(card: &Seen) -> String {
    let (_, behind) = card.body().split_once("!yes ").expect("a code");
    behind.chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_host_is_opened_by_the_reaction_of_an_administrator_and_of_nobody_else() {
    let (town, bert) = town().await;
    let room = town.room(false).await;
    town.anna.invite(&room, &bert.id).await;
    bert.accept(&room).await;

    let (asked, card) = town.card(&room, &bert, "the first work").await;
    assert!(card.body().contains("nowhere.example.com") && card.body().contains(&bert.id), "{card:?}");
    assert_eq!(card.msgtype(), "m.text", "phones ring for it");
    // Who asks, and may not grant, answers nothing, nor does the bot itself.
    let reaction = bert.react(&room, &card.id, "👍").await;
    let told = |event: &Seen| event.sender == town.bot && event.body().contains("can answer that");
    town.anna.wait_after(&reaction, "that it is not his to answer", told).await;
    let tried = bert.say(&room, &format!("!yes {}", code(&card))).await;
    assert!(town.replies(&tried).await.body().contains("can answer that"));
    town.anna.react(&room, &card.id, "👍").await;
    assert!(town.outcome(&asked).await.contains(OPEN));
    town.ended(&room, &card, "Allowed by").await;

    let (asked, card) = town.card(&room, &bert, "the second work").await;
    town.anna.react(&room, &card.id, "👎").await;
    assert!(town.outcome(&asked).await.contains(CLOSED));
    town.ended(&room, &card, "Refused by").await;
    let again = town.anna.say(&room, &format!("!yes {}", code(&card))).await;
    assert!(town.replies(&again).await.body().contains("No question with the code"));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_encrypted_room_only_words_answer() {
    let (town, _) = town().await;
    let room = town.room(true).await;
    let (asked, card) = town.card(&room, &town.anna, "the work").await;
    assert!(!card.body().contains("👍"), "{card:?}");
    let reaction = town.anna.react(&room, &card.id, "👍").await;
    let plain = json!({"msgtype": "m.text", "body": format!("!yes {}", code(&card))});
    let plain = town.anna.send_plain(&room, "m.room.message", plain).await;
    let yes = town.anna.say(&room, &format!("!yes {} 1h", code(&card))).await;
    assert!(town.replies(&yes).await.body().contains("for another"));
    assert!(town.outcome(&asked).await.contains(OPEN));
    town.ended(&room, &card, "Allowed by").await;
    let replied = |to: &str| town.anna.events().iter().any(|event| event.sender == town.bot && event.reply_to() == to);
    assert!(!replied(&reaction) && !replied(&plain), "nothing in the clear is taken there");
    let grants = town.anna.say(&room, "!grants").await;
    assert!(town.replies(&grants).await.body().contains("nowhere.example.com"));
}
