//! What a room reads of a chat bot's model: one plain sentence for each way in which a provider fails, never its own words;
//! thoughts apart from the answer, and in no later question.

use std::{sync::Arc, time::Duration};

use matrix_agent::{
    bots::{
        Bot, Neighbours, People, Places, Policy, Thoughts,
        chat::{ChatBot, Fixed, Means, Settings, Thinking},
    },
    hub::{Ending, Features, Live, Outbound},
    llm::{Model, ModelLimits, ModelSettings},
    store::Ceilings,
};
use serde_json::{Value, json};

use super::{
    protocol::{Desk, NO_FEATURES},
    support::{
        replies::{End, Reply},
        rig::free_port,
        scripted_llm::{ScriptedLlm, user_texts},
    },
};

const KEY: &str = "sk-of-the-provider";
/// What providers say, and no room may read.
const WORDS: &str = "quota of organisation acme";
/// A protocol whose messages can be changed, so that answers are shown as they come.
const EDITS: Features = Features { edits: true, ..NO_FEATURES };

/// A chat bot in a room, and its model.
struct Talk {
    desk: Desk,
    llm: ScriptedLlm,
    asked: usize,
    features: Features,
    settings: Settings,
    model: ModelSettings,
    folder: tempfile::TempDir,
}

/// How a question was answered.
#[derive(Debug)]
struct Answer {
    text: String,
    footer: String,
    ending: Ending,
    thoughts: Option<Thoughts>,
    /// What the room saw of it before.
    drafts: Vec<String>,
}

impl Talk {
    async fn begin(features: Features, set: impl FnOnce(&mut Settings, &mut ModelSettings)) -> Self {
        let (folder, llm) = (tempfile::tempdir().unwrap(), ScriptedLlm::start().await);
        let mut settings = Settings::new("chat", Policy::new(People::Everybody, Places::Anywhere), "llamabot");
        let mut model = ModelSettings {
            base_url: Some(llm.base_url().to_owned()),
            // Like a cloud bot's: asked once, and not for long.
            limits: ModelLimits { attempts: 1, first_token: Duration::from_secs(5), ..ModelLimits::default() },
            ..ModelSettings::new("openai/scripted", KEY.into())
        };
        set(&mut settings, &mut model);
        let desk = desk(&folder, features, settings.clone(), model.clone()).await;
        Self { desk, llm, asked: 0, features, settings, model, folder }
    }

    /// Ends the program, and begins it anew.
    async fn restart(self) -> Self {
        let Self { desk: old, folder, features, settings, model, .. } = self;
        old.end().await;
        let desk = desk(&folder, features, settings.clone(), model.clone()).await;
        Self { desk, features, settings, model, folder, ..self }
    }

    async fn ask(&mut self, words: &str) -> Answer {
        self.ask_in(None, "anna", words).await
    }

    /// Says something to the bot.
    async fn say_in(&mut self, thread: Option<&str>, person: &str, words: &str) {
        self.asked += 1;
        self.desk.say_in(thread, person, &format!("e{}", self.asked), &format!("llamabot: {words}")).await;
    }

    async fn ask_in(&mut self, thread: Option<&str>, person: &str, words: &str) -> Answer {
        let mut seen = self.desk.hub.watch();
        self.say_in(thread, person, words).await;
        let sent = self.desk.next().await;
        let whole = format!("{sent:?}");
        assert!(!whole.contains(KEY) && !whole.contains(WORDS), "{words}: {whole}");
        let Outbound::Answer { text, footer, ending, thoughts, asked, .. } = sent else { panic!("{words}: {whole}") };
        assert_eq!(asked.as_str(), format!("e{}", self.asked), "{words}");
        let mut drafts = vec![];
        while let Ok(seen) = seen.try_recv() {
            if let Live::Draft { text } = seen.live {
                assert!(!text.contains(KEY) && !text.contains(WORDS), "{words}: {text}");
                drafts.push(text);
            }
        }
        Answer { text, footer, ending, thoughts, drafts }
    }

    /// Ends it; nothing more was to be sent.
    async fn end(mut self) {
        assert!(self.desk.inbox.deliveries.try_recv().is_err(), "each question has one answer");
        self.desk.end().await;
    }
}

/// A desk with one chat bot.
async fn desk(folder: &tempfile::TempDir, features: Features, settings: Settings, model: ModelSettings) -> Desk {
    let source = Arc::new(Fixed::new(Model::new(model).unwrap(), "scripted/model"));
    let bots = |store, gallery| -> Vec<Arc<dyn Bot>> {
        vec![Arc::new(ChatBot::new(settings, source, Means { store, gallery, neighbours: Neighbours::default() }))]
    };
    Desk::with(folder, features, bots).await
}

/// A stream of these deltas, which ends in this way.
fn deltas(deltas: &[Value], finish: &str) -> Reply {
    let choice = |delta: &Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", json!({"choices": [choice]}))
    };
    let mut events: Vec<_> = deltas.iter().map(|delta| choice(delta, None)).collect();
    events.push(choice(&json!({}), Some(finish)));
    events.push("data: [DONE]\n\n".to_owned());
    Reply::Stream(events, End::Closed)
}

fn status(status: u16, headers: &[(&'static str, &str)]) -> Reply {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let body = json!({"error": {"message": format!("{WORDS}, key {KEY}"), "code": status}});
    Reply::Status(status, headers, body.to_string())
}

/// Pieces of 64 KiB that come to 10 MiB.
fn endless(field: &str) -> Reply {
    deltas(&vec![json!({field: "x".repeat(64 << 10)}); 160], "stop")
}

/// All the ways in which a provider fails, with what the room reads.
fn failures() -> Vec<(&'static str, Reply, &'static str)> {
    let page = format!("<html><title>{WORDS}</title></html>");
    vec![
        (
            "the key is refused",
            status(401, &[]),
            "The model's provider does not accept me; whoever runs me can see why in my log.",
        ),
        (
            "too often, with a time",
            status(429, &[("retry-after", "17")]),
            "The model's provider takes no more questions just now; please try again in 17 s.",
        ),
        (
            "too often",
            status(429, &[]),
            "The model's provider takes no more questions just now; please try again in 1 min.",
        ),
        ("trouble", status(500, &[]), "The model's provider has trouble (500); please try again in a minute."),
        (
            "not as it likes it",
            status(422, &[]),
            "The model's provider refused the question (422); whoever runs me can see why in my log.",
        ),
        (
            "a page",
            Reply::labelled("text/html", page),
            "What the model's provider sent is no answer. Please try again in a while.",
        ),
        (
            "no JSON",
            Reply::raw(&format!("data: {WORDS}\n\n")),
            "What the model's provider sent is no answer. Please try again in a while.",
        ),
        ("silence", Reply::Hang, "The model took too long to answer. Please try again, or ask for less."),
        ("empty", Reply::text(""), "The model gave an empty answer. Please ask again, perhaps in other words."),
        (
            "withheld",
            deltas(&[], "content_filter"),
            "The model's provider withheld the answer. Please put it in other words.",
        ),
        (
            "ten megabytes",
            endless("content"),
            "The model's answer grew beyond all bounds and was cut off. Please ask for less.",
        ),
        (
            "ten megabytes in one piece",
            Reply::text(&"x".repeat(10 << 20)),
            "The model's answer grew beyond all bounds and was cut off. Please ask for less.",
        ),
        (
            "ten megabytes of a page",
            Reply::labelled("text/html", "x".repeat(10 << 20)),
            "What the model's provider sent is no answer. Please try again in a while.",
        ),
    ]
}

#[tokio::test]
async fn each_failure_is_one_plain_sentence_and_no_part_of_the_conversation() {
    for features in [EDITS, NO_FEATURES] {
        let mut talk = Talk::begin(features, |_, _| {}).await;
        for (name, reply, told) in failures() {
            talk.llm.reply(reply);
            let answer = talk.ask(name).await;
            assert_eq!((&*answer.text, answer.ending), (told, Ending::Failed), "{name}");
            assert_eq!((&*answer.footer, &answer.thoughts), ("", &None), "{name}");
        }
        talk.llm.reply_text("All is well.");
        let answer = talk.ask("and now?").await;
        assert_eq!((&*answer.text, answer.ending), ("All is well.", Ending::Done));
        let request = talk.llm.requests().pop().unwrap();
        assert_eq!(user_texts(&request), ["and now?"], "what came to nothing is not asked again");
        assert_eq!(talk.llm.requests().len(), failures().len() + 1, "each question is asked once");
        talk.end().await;
    }
}

#[tokio::test]
async fn what_had_come_of_an_answer_that_broke_off_stays_and_can_be_gone_on_with() {
    for features in [EDITS, NO_FEATURES] {
        let mut talk = Talk::begin(features, |_, _| {}).await;
        talk.llm.reply(Reply::text("It begins well.").first(1, End::Cut));
        let answer = talk.ask("how does it begin?").await;
        let told = "It be\n\n(The model's answer broke off in the middle. Please ask again.)";
        assert_eq!((&*answer.text, answer.ending), (told, Ending::Failed));
        talk.llm.reply_text("gins well.");
        talk.ask("go on").await;
        let request = talk.llm.requests().pop().unwrap();
        assert_eq!(user_texts(&request), ["how does it begin?", "go on"]);
        assert!(request.to_string().contains("\"It be\""), "{request}");
        talk.end().await;
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_told_as_that() {
    let closed = format!("127.0.0.1:{}", free_port());
    let mut talk = Talk::begin(EDITS, |_, model| model.base_url = Some(format!("http://{closed}/v1"))).await;
    let answer = talk.ask("are you there?").await;
    assert_eq!(answer.text, "I cannot reach the model just now. Please try again in a while.");
    talk.end().await;
}

#[tokio::test]
async fn an_answer_is_shown_as_it_comes_where_messages_can_be_changed() {
    let mut talk = Talk::begin(EDITS, |_, _| {}).await;
    let pieces = ["One, ", "two, ", "three."].map(|piece| json!({"content": piece}));
    let Reply::Stream(events, _) = deltas(&pieces, "stop") else { panic!("it is a stream") };
    let events = events.into_iter().map(String::into_bytes).collect();
    talk.llm.reply(Reply::Bytes("text/event-stream", events, Duration::from_millis(400)));
    let answer = talk.ask("count").await;
    assert_eq!(answer.text, "One, two, three.");
    assert_eq!(answer.drafts.first().map(String::as_str), Some(""), "before the first word it is shown that it thinks");
    assert!(answer.drafts.contains(&"One, ".to_owned()) && answer.drafts.is_sorted_by_key(String::len), "{answer:?}");
    talk.end().await;
}

#[tokio::test]
async fn thoughts_stand_apart_and_in_no_later_question() {
    let content = |text: &str| json!({"content": text});
    let ways = [
        ("tags", deltas(&[content("<thi"), content("nk>a secret thought</th"), content("ink>Four.")], "stop")),
        ("reasoning_content", deltas(&[json!({"reasoning_content": "a secret thought"}), content("Four.")], "stop")),
        ("reasoning", deltas(&[json!({"reasoning": "a secret thought"}), content("Four.")], "stop")),
    ];
    for (thinking, folded) in
        [(Thinking::Spoiler, Some(false)), (Thinking::Folded, Some(true)), (Thinking::Hidden, None)]
    {
        let mut talk = Talk::begin(EDITS, |settings, _| settings.thinking = thinking).await;
        for (way, reply) in &ways {
            talk.llm.reply(reply.clone());
            let answer = talk.ask(way).await;
            let shown = folded.map(|folded| Thoughts { text: "a secret thought".into(), folded });
            assert_eq!((&*answer.text, &answer.thoughts), ("Four.", &shown), "{way}, {thinking:?}");
            assert!(!format!("{:?}", answer.drafts).contains("secret"), "{way}: {:?}", answer.drafts);
        }
        talk.llm.reply_text("Yes.");
        talk.ask("sure?").await;
        let request = talk.llm.requests().pop().unwrap().to_string();
        assert!(request.contains("Four.") && !request.contains("secret") && !request.contains("think>"), "{request}");
        talk.end().await;
    }
}

#[tokio::test]
async fn who_only_thinks_has_not_answered() {
    let mut talk = Talk::begin(EDITS, |_, _| {}).await;
    for (name, finish, told) in [
        (
            "until the end",
            "stop",
            "The model only thought, and gave no answer. Please ask again, perhaps in other words.",
        ),
        (
            "until its limit",
            "length",
            "The model thought until it had used up the longest answer that it may give. Please ask for less at once.",
        ),
    ] {
        talk.llm.reply(deltas(&[json!({"content": "<think>a secret thought without an end"})], finish));
        let answer = talk.ask(name).await;
        let thoughts = Thoughts { text: "a secret thought without an end".into(), folded: false };
        assert_eq!((&*answer.text, answer.thoughts), (told, Some(thoughts)), "{name}");
        assert!(!format!("{:?}", answer.drafts).contains("secret"), "{name}: {:?}", answer.drafts);
    }
    talk.llm.reply(endless("reasoning_content"));
    let answer = talk.ask("ten megabytes of thoughts").await;
    assert!(answer.ending == Ending::Failed && answer.thoughts.is_none_or(|it| it.text.len() <= 32 << 10));
    talk.llm.reply_text("Yes.");
    talk.ask("sure?").await;
    let request = talk.llm.requests().pop().unwrap();
    assert_eq!(user_texts(&request), ["sure?"]);
    talk.end().await;
}

#[tokio::test]
async fn the_footer_says_who_answered_how_fast_and_for_how_much() {
    let mut talk = Talk::begin(EDITS, |_, _| {}).await;
    talk.llm.reply_text("Four.");
    let footer = talk.ask("two and two?").await.footer;
    assert!(
        footer.starts_with("scripted/model · ") && footer.ends_with(" tok/s · 100 prompt, 110 total tokens"),
        "{footer}"
    );
    talk.llm.reply(deltas(&[json!({"content": "Four."})], "stop"));
    assert_eq!(talk.ask("and without counting?").await.footer, "scripted/model");
    talk.end().await;
}

#[tokio::test]
async fn what_fails_does_not_count_for_the_day_and_the_ceiling_is_told() {
    let ceilings = Ceilings { minute: None, day: Some(1) };
    let mut talk = Talk::begin(EDITS, |settings, _| settings.ceilings = ceilings).await;
    talk.llm.reply(status(500, &[])).reply(Reply::text("It is four.").first(1, End::Cut)).reply_text("Four.");
    assert_eq!(talk.ask("two and two?").await.ending, Ending::Failed);
    assert!(talk.ask("two and two?").await.text.contains("broke off in the middle"));
    assert_eq!(talk.ask("two and two?").await.text, "Four.");
    let told = talk.ask("three and three?").await;
    let begins = "I may ask the model once a day, and that is used up; please try again in ";
    assert!(told.ending == Ending::Limit && told.text.starts_with(begins), "{told:?}");
    assert_eq!(talk.llm.requests().len(), 3);
    talk.end().await;
}

#[tokio::test]
async fn a_loop_of_programs_ends_also_over_a_restart_until_a_listed_person_asks() {
    let listed = People::Listed(vec!["anna".into()]);
    let mut talk = Talk::begin(EDITS, |settings, _| settings.listed = listed).await;
    talk.llm.otherwise(|_| Reply::text("And you?"));
    for number in 0..20 {
        assert_eq!(talk.ask_in(None, "relay", "and you?").await.ending, Ending::Done, "{number}");
    }
    let told = talk.ask_in(None, "relay", "and you?").await;
    assert!(
        told.ending == Ending::Limit && told.text.starts_with("I have answered 20 times within a minute"),
        "{told:?}"
    );
    let mut talk = talk.restart().await;
    talk.say_in(None, "relay", "and you?").await;
    assert!(matches!(talk.desk.next().await, Outbound::Closing { .. }), "the room knows why");
    for person in ["anna", "relay"] {
        assert_eq!(talk.ask_in(None, person, "and now?").await.text, "And you?", "{person}");
    }
    assert_eq!(talk.llm.requests().len(), 22);
    talk.end().await;
}

#[tokio::test]
async fn one_person_may_have_a_ceiling_within_that_of_all() {
    let ceilings = Ceilings { minute: Some(1), day: None };
    let mut talk = Talk::begin(EDITS, |settings, _| settings.ceilings_of_person = ceilings).await;
    talk.llm.otherwise(|_| Reply::text("Yes."));
    assert_eq!(talk.ask("one?").await.text, "Yes.");
    let told = talk.ask("two?").await;
    assert!(told.text.starts_with("You may ask me once a minute, and that is used up;"), "{told:?}");
    assert_eq!(talk.ask_in(None, "bert", "and I?").await.text, "Yes.");
    talk.end().await;
}

#[tokio::test]
async fn a_reset_in_a_thread_forgets_that_thread_alone() {
    let mut talk = Talk::begin(EDITS, |_, _| {}).await;
    talk.llm.otherwise(|_| Reply::text("Yes."));
    let asked_last = |talk: &Talk| user_texts(&talk.llm.requests().pop().unwrap());
    talk.ask("one").await;
    talk.ask_in(Some("thread"), "anna", "two").await;
    talk.say_in(Some("thread"), "anna", "reset").await;
    let Outbound::Reply { text, .. } = talk.desk.next().await else { panic!("it is a reply") };
    assert_eq!(text, "I have forgotten what was said here.");
    talk.ask_in(Some("thread"), "anna", "three").await;
    assert_eq!(asked_last(&talk), ["three"]);
    talk.ask("four").await;
    assert_eq!(asked_last(&talk), ["one", "four"]);
    talk.say_in(None, "anna", "reset").await;
    talk.desk.next().await;
    talk.ask_in(Some("thread"), "anna", "five").await;
    assert_eq!(asked_last(&talk), ["three", "five"]);
    talk.end().await;
}
