//! The demo model over its real endpoint, asked by the real client.

use matrix_agent::llm::{Chunk, Completion, DemoModel, Finish, Message, Meter, Model, ModelSettings, Part};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Demo {
    model: Model,
    endpoint: DemoModel,
    cancel: CancellationToken,
    messages: Vec<Message>,
}

impl Demo {
    async fn start() -> Self {
        let cancel = CancellationToken::new();
        let endpoint = DemoModel::start(cancel.clone()).await.expect("an endpoint");
        let mut settings = ModelSettings::new(DemoModel::MODEL, String::new().into());
        settings.base_url = Some(endpoint.base_url().to_owned());
        let model = Model::new(settings).expect("a model");
        Self { model, endpoint, cancel, messages: vec![Message::System { text: "You are an agent.".to_owned() }] }
    }

    /// Says something, answers the calls with `results` in turn, returns all completions.
    async fn say(&mut self, text: &str, results: &[&str]) -> Vec<Completion> {
        self.messages.push(Message::User { parts: vec![Part::Text { text: format!("@anna:example.org: {text}") }] });
        let mut results = results.iter();
        let mut all = Vec::new();
        loop {
            let mut streamed = String::new();
            let mut show = |chunk| {
                if let Chunk::Text(text) = chunk {
                    streamed.push_str(&text);
                }
            };
            let completion =
                self.model.complete(&self.messages, &[], None, &Meter::new(0), &mut show).await.expect("an answer");
            assert_eq!(streamed, completion.message.text);
            assert!(completion.usage.is_some_and(|usage| usage.input > 0 && usage.output > 0));
            let calls = completion.message.calls.clone();
            self.messages.push(Message::Assistant(completion.message.clone()));
            all.push(completion);
            if calls.is_empty() {
                return all;
            }
            for call in calls {
                let text = (*results.next().expect("no more calls than results")).to_owned();
                self.messages.push(Message::Tool { call_id: call.id, text });
            }
        }
    }
}

#[tokio::test]
async fn an_order_becomes_a_call_and_a_sentence() {
    let mut demo = Demo::start().await;
    let about = demo.say("hello", &[]).await;
    assert!(about[0].message.text.contains("no real model"), "{}", about[0].message.text);

    let ran = demo.say("run: ls", &["exit code: 0\na.txt"]).await;
    let call = &ran[0].message.calls[0];
    let arguments: Value = serde_json::from_str(&call.arguments).expect("JSON");
    assert_eq!(
        (call.name.as_str(), arguments, ran[0].finish),
        ("run_command", json!({"command": "ls"}), Finish::ToolCalls)
    );
    assert_eq!(ran[1].message.text, "`ls` gave:\n```\nexit code: 0\na.txt\n```");

    // The next word is answered by itself, whatever went before.
    let about = demo.say("thanks", &[]).await;
    assert!(about[0].message.text.contains("no real model"));
}

#[tokio::test]
async fn the_demo_job_runs_to_its_end() {
    let mut demo = Demo::start().await;
    let results = [
        "Created",
        "Created",
        "Created",
        "[FAIL] tests failed (exit code 1)\ntest_prices.py::test_discount FAILED",
        "done: Qwen Code",
        "done: Qwen Code\n1 file +1 −1 changed:\ndemo/prices.py +1 −1",
        "[PASS] lint passed, tests passed",
        "done: Qwen Code\nVerdict: ready",
        "Running in the background as job-12ab34cd. Its output so far:\nServing http://127.0.0.1:40123/",
        "http://127.0.0.1:40123/ “The shop's tests pass”, 1280×800 pixels",
        "job-12ab34cd has ended.",
    ];
    let steps = demo.say("demo", &results).await;
    let names: Vec<_> = steps.iter().flat_map(|step| &step.message.calls).map(|call| call.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "write_file",
            "write_file",
            "write_file",
            "run_tests",
            "plan",
            "implement",
            "run_tests",
            "review",
            "run_command",
            "take_screenshot",
            "run_command"
        ]
    );
    assert!(steps.iter().all(|step| !step.message.text.is_empty()));
    assert!(steps.last().is_some_and(|last| last.message.text.starts_with("Demo finished:")));

    let again = demo.say("demo", &["x", "x", "x", "the sandbox is gone"]).await;
    assert!(again.last().is_some_and(|last| last.message.text.contains("the sandbox is gone")));
}

#[tokio::test]
async fn it_ends_when_told() {
    let demo = Demo::start().await;
    demo.model.probe().await.expect("an answer");
    demo.cancel.cancel();
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(10), demo.endpoint.stopped()).await;
    assert!(stopped.is_ok(), "the endpoint outlived its cancellation");
}
