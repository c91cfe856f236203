//! The server with two bots more than it has by itself: `lb` in front of the coding bot on its account, and `echo`, who
//! hears everybody, on an account of its own.

use std::{path::PathBuf, sync::Arc};

use matrix_agent::{
    bots::{
        Bot, Intent, People, Places, Policy,
        chat::{self, ChatBot, Fixed},
    },
    chat::matrix::Login,
    clock::Clock,
    config::{Config, Sources, load},
    llm::Model,
    ops::{House, Served, matrix_login, model_settings},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{
    small::Small,
    support::{
        bot::Town,
        rig::Rig,
        scripted_llm::ScriptedLlm,
        synapse::{Limits, Synapse, password},
    },
};

/// Where the second account logs in; the process is told by the environment.
const SECOND: &str = "TEST_SECOND_ACCOUNT";
/// Where the chat bot logs in, if there is one; the process is told by the environment.
pub(super) const CHATTING: &str = "TEST_CHATTING_ACCOUNT";
/// Set where the coding bot is not among the bots.
pub(super) const WITHOUT_CODER: &str = "TEST_WITHOUT_CODER";

/// A town in which that house serves, and the name of the second account.
pub(super) async fn town() -> (Town, String) {
    let (synapse, llm) = tokio::join!(Synapse::configured(Limits::Relaxed, ""), ScriptedLlm::start());
    let echo = synapse.account("echo").await;
    let town = Town::on(synapse, llm, |rig| {
        rig.set(SECOND, &echo);
        serve_house(rig);
    });
    (town.await, echo)
}

/// Lets a rig start this house in place of the program.
pub(super) fn serve_house(rig: &mut Rig) {
    let this = std::env::current_exe().unwrap();
    rig.serve_with(this, &["--ignored", "--exact", "house::is_served_by_a_process_of_its_own", "--nocapture"]);
}

/// What the `/lb` commands mean: an order at once, an order between turns, and work.
fn lb(text: &str) -> Option<Intent> {
    match text.split_whitespace().next()? {
        "/lbe" => Some(Intent::Order),
        "/lbnew" => Some(Intent::OrderBetweenTurns),
        "/lbask" => Some(Intent::Work),
        _ => None,
    }
}

/// A bot that chats in the room `#chat` with everybody but `@qwen`, and asks the coding bot's model.
fn chat_bot(config: &Config, house: &House) -> ChatBot {
    let places = Places::Listed(vec!["#chat:localhost".to_owned()]);
    let policy = Policy { ignored: vec!["@qwen:localhost".to_owned()], ..Policy::new(People::Everybody, places) };
    let settings = chat::Settings::new("chat", policy, "llamabot");
    let source = Fixed::new(Model::new(model_settings(config)).unwrap(), "scripted/model");
    ChatBot::new(settings, Arc::new(source), house.means_of_chat())
}

#[test]
#[ignore = "started by the other tests as the process that they kill"]
fn is_served_by_a_process_of_its_own() {
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let none = Some(PathBuf::from("/dev/null"));
        let loaded = load(&Sources::of_process(none.clone(), none).unwrap());
        assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
        let config = &loaded.config;
        let house = if std::env::var(WITHOUT_CODER).is_ok() {
            House::without_sandboxes(config, Clock::default()).unwrap()
        } else {
            House::open(config, Clock::default()).await.unwrap()
        };
        let people = People::Listed(config.people.allowed.clone());
        let mut bots: Vec<Arc<dyn Bot>> = vec![Arc::new(Small::new("lb", people, house.store(), lb))];
        if let Some(coder) = house.coder(config, Model::new(model_settings(config)).unwrap()) {
            bots.push(Arc::new(coder));
        }
        let login = matrix_login(config);
        let first = Served { name: "coder".into(), bots, login: login.clone(), terminals: true };
        let mut served = vec![first];
        if let (Ok(user), Some(login)) = (std::env::var(SECOND), login) {
            // The other account's answers are nothing of its: it would answer them at a time that no test knows.
            let people = People::Listed(["@anna:localhost", "@bert:localhost"].map(str::to_owned).to_vec());
            let echo = Arc::new(Small::new("echo", people, house.store(), |_| Some(Intent::Work)));
            let login = Login { name: "echo".into(), user, password: Some(password("echo").into()), ..login };
            served.push(Served { name: "echo".into(), bots: vec![echo], login: Some(login), terminals: false });
        }
        if let (Ok(user), Some(login)) = (std::env::var(CHATTING), matrix_login(config)) {
            let login = Login { name: "llama".into(), user, password: Some(password("llama").into()), ..login };
            let bots: Vec<Arc<dyn Bot>> = vec![Arc::new(chat_bot(config, &house))];
            served.push(Served { name: "llama".into(), bots, login: Some(login), terminals: false });
        }
        let server = house.serve(served).await.unwrap();
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).unwrap();
        terminate.recv().await;
        server.shutdown().await;
    });
}
