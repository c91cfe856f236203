//! What ends the program with a sentence that says what to do.

use std::fs;

use super::{SESSION, STORE, rig_at, state};
use crate::support::{
    bot::Town,
    rig::Rig,
    scripted_llm::ScriptedLlm,
    synapse::{Limits, Synapse},
};

/// Starts a server that shall end by itself with exit code 1 and one sentence; returns that.
fn fails(rig: &Rig) -> String {
    let output = tokio::task::block_in_place(|| rig.run(&["run"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let told: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(told.len(), 1, "{said}");
    told[0].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_session_and_another_accounts_store_are_refused_with_a_sentence() {
    let mut town = Town::start().await;
    town.kill();
    let file = state(&town.rig).join(SESSION);
    let whole = fs::read(&file).unwrap();

    fs::write(&file, &whole[..20]).unwrap();
    let said = fails(&town.rig);
    assert!(said.contains(SESSION) && said.contains("is damaged") && said.contains("Remove it"), "{said}");
    fs::write(&file, &whole).unwrap();

    let other = town.synapse.account("other").await;
    town.rig.set("MATRIX_USER", &other);
    let said = fails(&town.rig);
    assert!(said.contains("holds the keys of @bot:localhost") && said.contains("MATRIX_USER"), "{said}");
    town.rig.set("MATRIX_USER", &town.bot);

    for database in fs::read_dir(state(&town.rig).join(STORE)).unwrap() {
        fs::write(database.unwrap().path(), "this is no database".repeat(500)).unwrap();
    }
    let said = fails(&town.rig);
    assert!(
        said.contains(STORE) && said.contains("cannot be used") && said.contains("Move that folder away"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_cannot_work_ends_with_a_sentence() {
    let (synapse, llm) = tokio::join!(Synapse::start(Limits::Relaxed), ScriptedLlm::start());
    synapse.account("bot").await;
    let mut rig = rig_at(synapse.url(), &llm);
    for (key, wrong, right, words) in [
        ("MATRIX_PASSWORD", "guess-work", "", "does not take the password of @bot:localhost"),
        ("MATRIX_PASSWORD", "", "bot-password", "@bot:localhost has to log in, and MATRIX_PASSWORD is not set"),
        ("MATRIX_USER", "@BOT:localhost", "@bot:localhost", "calls this account @bot:localhost"),
    ] {
        rig.set(key, wrong);
        let said = fails(&rig);
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("guess-work"), "{said}");
        assert!(!state(&rig).join(SESSION).exists());
        assert!(examined(&rig).contains(words), "`doctor` knows it too");
        rig.set(key, right);
    }
    // Once it is served, nothing of that is left.
    let _server = tokio::task::block_in_place(|| rig.serve());
    let found = examined(&rig);
    assert!(found.contains("is signed") && !found.contains("last try"), "{found}");
    rig.set("MATRIX_PASSWORD", "guess-work");
    assert!(examined(&rig).contains("is signed"), "a session needs no password");
}

/// What `doctor` finds of the account.
fn examined(rig: &Rig) -> String {
    let output = tokio::task::block_in_place(|| rig.run(&["doctor", "--json"]));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let account = found["checks"].as_array().unwrap().iter().find(|check| check["name"] == "account");
    account.unwrap_or_else(|| panic!("{found:#}")).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_than_a_homeserver_is_named_as_such() {
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};
    let llm = ScriptedLlm::start().await;
    for (status, mends) in [(404, true), (200, true), (403, true)] {
        let server = MockServer::start().await;
        let page = ResponseTemplate::new(status).set_body_raw("<html>Welcome to nginx!</html>", "text/html");
        Mock::given(any()).respond_with(page).mount(&server).await;
        let said = fails(&rig_at(&server.uri(), &llm));
        assert_eq!(said.contains("does not answer like a Matrix homeserver"), mends, "{said}");
        assert!(said.contains("MATRIX_HOMESERVER"), "{said}");
    }
    let port = untrusted().await;
    let said = fails(&rig_at(&format!("https://localhost:{port}"), &llm));
    assert!(said.contains("certificate is not trusted") && said.contains("MATRIX_HOMESERVER"), "{said}");
}

/// A server with a certificate that it has signed itself; returns its port.
async fn untrusted() -> u16 {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Nobody gets beyond the handshake.
            let _ = acceptor.accept(stream).await;
        }
    });
    port
}
