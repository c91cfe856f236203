//! A bot that only chats, as those see it who look on.

use super::{
    place::Place,
    said,
    support::{
        looker::{Looker, part, with_port},
        rig::block_on,
        scripted_llm::Reply,
    },
};

#[test]
fn the_dashboard_names_its_conversations_and_shows_what_its_turns_do_and_its_tokens_are_counted() {
    let mut place = Place::new();
    let address = with_port(&mut place.rig);
    place.llm.reply_text("A short story.").hang_after(2, Reply::text("A story that has no end."));
    let _server = place.serve();
    let mut hello = said("abc1", 1, "users/ada", "@Halo tell me a story");
    hello["target"]["name"] = "Ops <b>& co</b>\u{202e}".into();
    assert_eq!(place.webhook.tell(&hello), 202);
    place.posted(1);
    assert_eq!(place.webhook.tell(&said("abc2", 2, "users/ada", "@Halo a longer one")), 202);
    block_on(async {
        let looker = Looker::come_in(&place.rig, &address).await;
        let page = looker.until("the room", |page| page.contains("Ops &lt;b&gt;&amp; co&lt;/b&gt;")).await;
        let rooms = part(&page, "rooms");
        assert!(rooms.contains("Ops &lt;b&gt;&amp; co&lt;/b&gt;<p class=\"where\">talk/talk:abc1</p>"), "{rooms}");
        assert!(!page.contains("<b>") && !page.contains('\u{202e}'), "{page}");
        let page = looker.until("what the turn does", |page| part(page, "running").contains("writes")).await;
        let running = part(&page, "running");
        assert!(
            running.contains("a longer one") && running.contains("title=\"talk/talk:abc2\">world</span>"),
            "{running}"
        );
        let metrics = looker.see("/metrics").await;
        for (kind, count) in [("input", 1), ("output", 1)] {
            let sample = format!(
                "gen_ai_client_token_usage_count{{gen_ai_token_type=\"{kind}\",gen_ai_request_model=\"openai/tiny\",gen_ai_agent_name=\"talk\"}} {count}"
            );
            assert!(metrics.contains(&sample), "no {sample} in {metrics}");
        }
    });
}
