//! What a room reads when a cloud bot's provider fails, and when its model thinks.

use super::*;

const WORDS: &str = "quota of organisation acme";

#[tokio::test(flavor = "multi_thread")]
async fn a_room_reads_one_sentence_for_each_failure_and_thoughts_behind_a_spoiler() {
    let mut place = Place::new().await;
    let room = place.room(false).await;
    let bot = place.bot("llama", &room).await;
    place.serve();
    place.invite(&room, &bot).await;
    let said = format!(r#"{{"error":{{"message":"{WORDS}, key sk-of-the-bot"}}}}"#);
    let status = |status, headers| Reply::Status(status, headers, said.clone());
    let thinking = r#"{"choices":[{"index":0,"delta":{"content":"<think>a <b>secret</b> @room thought</think>Four."},"finish_reason":"stop"}]}"#;
    let cases = [
        (status(401, vec![]), "The model's provider does not accept me; whoever runs me can see why in my log."),
        (
            status(429, vec![("retry-after", "17".to_owned())]),
            "The model's provider takes no more questions just now; please try again in 17 s.",
        ),
        (
            Reply::text("It begins well.").first(1, support::replies::End::Cut),
            "The model's answer broke off in the middle. Please ask again.",
        ),
        (
            Reply::labelled("text/html", format!("<html>{WORDS}</html>")),
            "What the model's provider sent is no answer. Please try again in a while.",
        ),
        (Reply::raw(&format!("data: {thinking}\n\ndata: [DONE]\n\n")), "Four."),
    ];
    let mut asked = vec![];
    for (reply, told) in cases {
        place.llm.reply(reply);
        let question = place.anna.say(&room, &format!("@llama {told}")).await;
        let answer = place.anna.answer_to(&question).await;
        assert!(answer.body().contains(told), "{answer:?}");
        asked.push(question);
    }
    for question in &asked {
        let replies = place.anna.events().into_iter().filter(|it| it.is_message() && it.reply_to() == *question);
        assert_eq!(replies.count(), 1, "one message for each question");
    }
    let all = format!("{:?}", place.anna.events());
    assert!(!all.contains(WORDS) && !all.contains("sk-of-the-bot"), "{all}");
    let shown = place.anna.shown(&room);
    let last = shown.iter().rfind(|it| it.sender == bot).unwrap();
    let spoiler = "<span data-mx-spoiler=\"thinking\">a &lt;b&gt;secret&lt;/b&gt; ";
    assert!(last.html.as_deref().unwrap_or_default().contains(spoiler) && !last.body.contains("secret"), "{last:?}");
    let log = place.log();
    assert!(log.contains(WORDS) && !log.contains("sk-of-the-bot"), "the operator reads why, without the key: {log}");
}
