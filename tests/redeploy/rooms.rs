//! The same over a real homeserver: who may ask in a room, what the room is told by which server, what other rooms notice, and a new
//! version whose fault shows over Matrix alone.

use std::fs;

use matrix_sdk::ruma::OwnedRoomId;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::block_in_place};

use crate::{
    asked::is_offered,
    machine::{GOOD, Machine},
    support::{
        person::Person,
        proxy::{Asked, Fault, Proxy},
        rig::{BARE, Rig, wait},
        scripted_llm::{Reply, ScriptedLlm, results, user_texts},
        seen::Seen,
        synapse::{Limits, Synapse, password},
    },
};

/// What people say to have a command wait, or the server replaced.
const WAIT: &str = "Please wait.";
const UPDATE: &str = "Update yourself, please.";

/// A model that does what it is asked for last, whether it may or not, and says what came of it.
fn obeys(request: &Value) -> Reply {
    let last = request["messages"].as_array().unwrap().last().unwrap();
    if last["role"] == "tool" {
        return Reply::text(&format!("It came to this: {}", results(request).last().unwrap()));
    }
    match user_texts(request).last() {
        Some(said) if said.contains(WAIT) => {
            Reply::command("echo before; while [ ! -e /workspace/go ]; do sleep 0.05; done; echo after")
        }
        Some(said) if said.contains(UPDATE) => Reply::calls(&[("self_update", json!({"reason": "Somebody asked."}))]),
        _ => Reply::text("Here I am."),
    }
}

/// A machine that serves a homeserver's rooms: Anna administers it, Bert may only ask for work.
struct Town {
    machine: Machine,
    llm: ScriptedLlm,
    anna: Person,
    bert: Person,
    bot: String,
    /// The last one to go, for the others speak to it.
    synapse: Synapse,
}

impl Town {
    async fn new() -> Self {
        // Boxed because it is large, as those below.
        Box::pin(Self::prepared(|_| {})).await
    }

    async fn prepared(prepare: impl FnOnce(&mut Rig)) -> Self {
        let (synapse, llm) = tokio::join!(Synapse::start(Limits::Relaxed), ScriptedLlm::start());
        llm.otherwise(obeys);
        let bot = synapse.account("bot").await;
        synapse.exempt(&bot).await;
        let (anna, bert) = tokio::join!(Person::new(&synapse, "anna"), Person::new(&synapse, "bert"));
        let mut rig = Rig::new(BARE, llm.base_url());
        for (key, value) in [
            ("MATRIX_HOMESERVER", synapse.url()),
            ("MATRIX_USER", &bot),
            ("MATRIX_PASSWORD", &password("bot")),
            ("ALLOWED_USERS", &format!("{},{}", anna.id, bert.id)),
            ("ADMIN_USERS", &anna.id),
        ] {
            rig.set(key, value);
        }
        prepare(&mut rig);
        let machine = block_in_place(|| {
            // Without it no service is set up, and nobody is offered the tool.
            fs::create_dir_all(rig.path().join("s/redeploy")).unwrap();
            Machine::new(rig)
        });
        Self { machine, llm, anna, bert, bot, synapse }
    }

    /// A room of somebody's, in which the bot has greeted.
    async fn room(&self, of: &Person, encrypted: bool) -> OwnedRoomId {
        let room = of.create_room(encrypted, &[&self.bot]).await;
        let greets = |seen: &Seen| seen.room == room && seen.sender == self.bot && seen.body().starts_with("Hello");
        of.wait_for("the greeting", greets).await;
        room
    }

    /// What the bot has said in a room as messages of their own; `of` is in it.
    fn said(&self, of: &Person, room: &OwnedRoomId) -> Vec<Seen> {
        let here = of.events().into_iter().filter(|seen| seen.room == *room && seen.sender == self.bot);
        here.filter(Seen::is_message).collect()
    }

    /// Waits for words of the bot's in a room.
    async fn says(&self, of: &Person, room: &OwnedRoomId, words: &str) -> Seen {
        let says = |seen: &Seen| {
            seen.room == *room && seen.sender == self.bot && seen.is_message() && seen.body().contains(words)
        };
        of.wait_for(words, says).await
    }

    /// How often the bot has said words with this in a room.
    fn times(&self, of: &Person, room: &OwnedRoomId, words: &str) -> usize {
        self.said(of, room).iter().filter(|seen| seen.body().contains(words)).count()
    }

    /// Asks in a room, and sees that exactly one answer comes.
    async fn serves(&self, of: &Person, room: &OwnedRoomId) {
        let asked = of.say(room, "Are you there?").await;
        self.answered_once(of, room, &asked).await;
    }

    /// Waits for the answer to a question, and for that to the next one, which shows that no second one came between.
    async fn answered_once(&self, of: &Person, room: &OwnedRoomId, asked: &str) -> Seen {
        let answer = of.answer_to(asked).await;
        let next = of.say(room, "And now?").await;
        of.answer_to(&next).await;
        let answers = |seen: &Seen| seen.reply_to() == asked && seen.msgtype() == "m.text";
        let all: Vec<_> = self.said(of, room).into_iter().filter(answers).collect();
        assert_eq!(all.len(), 1, "{all:#?}");
        answer
    }
}

fn code(card: &Seen) -> String {
    let (_, behind) = card.body().split_once("!yes ").expect("a code");
    behind.chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_has_it_replaced_in_a_thread_and_other_rooms_lose_nothing() {
    let mut town = Town::new().await;
    let commit = block_in_place(|| {
        // Until the file is there nobody serves.
        town.machine.publish(
            "",
            r#"case "$*" in *"null run") touch @HERE@/begun; until [ -e @HERE@/go ]; do sleep 0.05; done ;; esac"#,
        )
    });
    let Town { machine, llm, anna, bert, .. } = &town;
    let room = town.room(anna, true).await;
    anna.invite(&room, &bert.id).await;
    bert.accept(&room).await;
    anna.joined(&room, &bert.id).await;
    let (other, third) = (town.room(bert, false).await, town.room(bert, true).await);
    let waits = bert.say(&other, WAIT).await;
    bert.wait_for("its command", |seen| seen.room == other && seen.body().contains("before")).await;

    let _watched = machine.watched();
    let root = anna.say(&room, "Good morning.").await;
    anna.answer_to(&root).await;
    let asked = anna.say_in_thread(&room, &root, UPDATE).await;
    let in_thread = |seen: &Seen| seen.relation() == "m.thread" && seen.target() == root;
    let card = town.says(anna, &room, "replace this server's own program").await;
    assert!(in_thread(&card), "{card:?}");
    assert!(card.body().contains(&commit[..10]) && card.body().contains("Version 2"), "{card:?}");
    // What Bert says to it counts for nothing.
    let tried = bert.say_in_thread(&room, &root, &format!("!yes {}", code(&card))).await;
    let told = bert.wait_after(&tried, "that it is not his", |seen| seen.reply_to() == tried).await;
    assert!(told.body().contains("can answer that"), "{told:?}");
    assert!(machine.installed() == "1" && !machine.path("build-env").exists(), "nothing has begun");

    anna.say_in_thread(&room, &root, &format!("!yes {}", code(&card))).await;
    let built = town.says(anna, &room, "🔧 I have built").await;
    assert!(in_thread(&built) && built.body().contains(&commit[..10]), "{built:?}");
    block_in_place(|| wait("the new one's start", || machine.path("begun").exists()));
    let meanwhile = bert.say(&third, "Are you there?").await;
    assert_eq!(town.times(anna, &room, "✅ I run as"), 0, "nobody serves who could say it");
    fs::write(machine.path("go"), "").unwrap();

    town.answered_once(bert, &third, &meanwhile).await;
    // The answer quotes it, and may come first.
    let is_done = |seen: &Seen| seen.room == room && seen.is_message() && seen.body().starts_with("✅ I run as");
    let done = anna.wait_for("the new one's word", is_done).await;
    assert!(in_thread(&done) && done.body().contains(&commit[..10]), "{done:?}");
    let answer = anna.answer_to(&asked).await;
    assert!(in_thread(&answer) && answer.body().contains("It came to this: ✅ I run as"), "{answer:?}");
    assert_eq!((machine.installed().as_str(), machine.starts()), ("2", 2));
    let go = machine.rig.run(&["sandbox", "exec", other.as_str(), "--", "touch", "/workspace/go"]);
    assert!(go.status.success(), "{go:?}");
    let answer = town.answered_once(bert, &other, &waits).await;
    assert!(answer.body().contains("before") && answer.body().contains("after"), "{answer:?}");
    for words in ["🔧 I have built", "It came to this", "May I?"] {
        assert_eq!(town.times(anna, &room, words), 1, "{words}");
    }
    assert_eq!(town.times(anna, &room, "✅ I run as"), 2, "the server's word, and the answer that quotes it");
    let of_update = |request: &&Value| user_texts(request).last().is_some_and(|said| said.contains(UPDATE));
    let requests = llm.requests();
    let asked: Vec<_> = requests.iter().filter(of_update).collect();
    assert!(asked.len() == 2 && is_offered(asked[0]), "nothing was asked twice: {}", asked.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_offered_it_and_who_calls_it_all_the_same_is_refused() {
    let mut town = Town::new().await;
    block_in_place(|| town.machine.publish("", GOOD));
    let Town { machine, llm, anna, bert, .. } = &town;
    let watched = machine.watched();
    let room = town.room(bert, false).await;
    let asked = bert.say(&room, UPDATE).await;
    let answer = bert.answer_to(&asked).await;
    assert!(answer.body().contains("only administrators may ask for that"), "{answer:?}");
    // Nor where an administrator is, for whoever has spoken counts.
    bert.invite(&room, &anna.id).await;
    anna.accept(&room).await;
    let again = bert.say(&room, UPDATE).await;
    bert.answer_to(&again).await;
    assert!(!llm.requests().iter().any(is_offered), "it was offered");
    let left: Vec<_> =
        fs::read_dir(machine.path("s/redeploy")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty() && machine.installed() == "1", "{left:?}");
    drop(watched);

    // From the command line a room is told, too, if there is one.
    for check in [&["--check"][..], &[]] {
        let nowhere = block_in_place(|| machine.redeploy(&[check, &["--room", "nowhere"]].concat()));
        assert!(nowhere.code == 1 && nowhere.err.contains("There is no room `nowhere`"), "{nowhere:?}");
    }
    assert_eq!(machine.installed(), "1");
    let ran = block_in_place(|| machine.redeploy(&["--room", room.as_str()]));
    assert_eq!((ran.code, machine.installed().as_str()), (0, "2"), "{ran:?}");
    town.says(bert, &room, "✅ I run as").await;
    town.serves(bert, &room).await;
    for words in ["🔧 I have built", "✅ I run as"] {
        assert_eq!(town.times(bert, &room, words), 1, "{words}");
    }
}

/// A new version that becomes ready, and whose requests to the homeserver meet this: it has to give the place back, and what people
/// say meanwhile is answered once.
async fn broken_over_matrix(rule: impl FnMut(&Asked) -> Option<Fault> + Send + 'static, says: &str) {
    let mut proxy = None;
    let prepared = Town::prepared(|rig| {
        let direct = rig.get("MATRIX_HOMESERVER").unwrap();
        proxy = Some((Proxy::before(rig), rig.get("MATRIX_HOMESERVER").unwrap()));
        rig.set("MATRIX_HOMESERVER", &direct);
    });
    let mut town = Box::pin(prepared).await;
    let (proxy, address) = proxy.unwrap();
    proxy.rule(rule);
    block_in_place(|| {
        let lines =
            format!(r#"case "$*" in *"null run") touch @HERE@/begun; export MATRIX_HOMESERVER={address} ;; esac"#);
        town.machine.publish("", &lines)
    });
    let Town { machine, bert, .. } = &town;
    let room = town.room(bert, true).await;
    let running = block_in_place(|| machine.redeploying(&["--room", room.as_str()]).spawn().unwrap());
    let mut running = Ended(running);
    block_in_place(|| wait("the new one's start", || machine.path("begun").exists()));
    let meanwhile = bert.say(&room, "Are you there?").await;
    let status = block_in_place(|| running.0.wait().unwrap());
    assert_eq!((status.code(), machine.installed().as_str()), (Some(1), "1"));
    town.answered_once(bert, &room, &meanwhile).await;
    let told = town.says(bert, &room, "❌ I was replaced by").await;
    assert!(told.body().contains("not over Matrix") && told.body().contains(says), "{told:?}");
    assert_eq!(town.times(bert, &room, "❌"), 1);
    assert_eq!(machine.starts(), 3);
}

/// A process that does not outlive its test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_reads_nothing_over_matrix_gives_the_place_back() {
    let never = std::sync::Arc::new(Notify::new());
    let holds = move |asked: &Asked| asked.is_sync().then(|| Fault::Held(never.clone()));
    Box::pin(broken_over_matrix(holds, "did not come back")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_sends_nothing_over_matrix_gives_the_place_back() {
    let refuses = |asked: &Asked| {
        let sends = asked.path.contains("/send/") || asked.path.contains("/sendToDevice/");
        sends.then(|| Fault::Answer(403, r#"{"errcode": "M_FORBIDDEN", "error": "Not you."}"#.to_owned()))
    };
    Box::pin(broken_over_matrix(refuses, "it can send nothing")).await;
}

/// What the old one cannot do is not asked of the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_is_away_does_not_keep_a_new_version_away() {
    let mut town = Town::new().await;
    block_in_place(|| town.machine.publish("", GOOD));
    let Town { machine, bert, synapse, .. } = &town;
    let room = town.room(bert, false).await;
    synapse.stop().await;
    let ran = block_in_place(|| machine.redeploy(&["--room", room.as_str()]));
    assert_eq!((ran.code, machine.installed().as_str()), (0, "2"), "{ran:?}");
    synapse.restart().await;
    town.says(bert, &room, "✅ I run as").await;
    town.serves(bert, &room).await;
}
