//! The dashboard as somebody asks for it who is no browser: who may see what, and that nothing hostile becomes markup.

use std::time::Duration;

use reqwest::{Response, StatusCode};

use super::{
    client, said,
    support::{
        replies::Reply,
        rig::{Rig, block_on, wait},
        scripted,
    },
    with_port,
};

/// The most bytes of all that the page is made of.
const LARGEST: usize = 50 << 10;
/// How long what has to come may take.
const LIMIT: Duration = Duration::from_secs(30);
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&\u{202e}</main><script>alert(2)</script>";

/// The pass in the link that a command has printed, or a bot has written.
fn pass(told: &str) -> String {
    let at = told.find("/dashboard#").unwrap_or_else(|| panic!("no link in {told}"));
    told[at + "/dashboard#".len()..].split_whitespace().next().unwrap().to_owned()
}

fn entrance(rig: &Rig) -> String {
    let told = rig.run(&["dashboard"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    pass(&String::from_utf8(told.stdout).unwrap())
}

async fn enter(address: &str, pass: &str, origin: Option<&str>) -> Response {
    let request = client().post(format!("{address}/dashboard/enter")).body(format!("pass={pass}\r\n"));
    let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
    request.send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

/// The cookie that a browser would send back.
fn cookie(response: &Response) -> String {
    header(response, "set-cookie").split(';').next().unwrap().to_owned()
}

async fn see(address: &str, path: &str, cookie: &str) -> (StatusCode, String) {
    let response = client().get(format!("{address}{path}")).header("cookie", cookie).send().await.unwrap();
    let policy = header(&response, "content-security-policy").to_owned();
    assert!(response.status() != 200 || policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    (response.status(), response.text().await.unwrap())
}

#[test]
fn whoever_has_a_link_sees_all_and_who_has_none_sees_nothing() {
    let (llm, mut rig) = scripted();
    let address = with_port(&mut rig);
    llm.reply(Reply::calls(&[(
        "run_command",
        serde_json::json!({"command": format!("echo '{HOSTILE}' | head -c 5")}),
    )]))
    .reply_text(HOSTILE);
    llm.when("in vain").reply(Reply::Status(401, vec![], String::new()));
    let server = rig.serve();
    rig.ask("one", HOSTILE).finish();
    rig.ask("two", &format!("in vain {HOSTILE}")).finish();

    block_on(async {
        for path in ["/dashboard", "/dashboard/turn/x", "/dashboard/live"] {
            let (status, text) = see(&address, path, "matrix_agent_session=a.1.x.y").await;
            assert!(status == 401 && !text.contains("terminal:one"), "{path} {status} {text}");
        }
        assert_eq!(enter(&address, "e.1.x.y", None).await.status(), 403);
    });
    let pass = entrance(&rig);
    let session = block_on(async {
        assert_eq!(enter(&address, &pass, Some("http://evil.example.org")).await.status(), 403);
        let entered = enter(&address, &pass, Some(&address)).await;
        assert_eq!((entered.status().as_u16(), header(&entered, "location")), (303, "/dashboard"));
        let set = header(&entered, "set-cookie");
        assert!(set.contains("; Path=/dashboard; ") && set.ends_with("; HttpOnly; SameSite=Strict"), "{set}");
        cookie(&entered)
    });

    let mut page = String::new();
    // A server that needs more than a moment to tell whether it is ready says that instead.
    wait("that it serves", || {
        let (status, shown) = block_on(see(&address, "/dashboard", &session));
        assert_eq!(status, 200);
        page = shown;
        page.contains("It serves.")
    });
    for shown in ["terminal:one", "terminal:two", "in vain", "failed", "Tokens today"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let of_one = page
        .split("id=\"rooms\"")
        .nth(1)
        .unwrap()
        .split("terminal:one</td>")
        .nth(1)
        .unwrap()
        .split("href=\"")
        .nth(1)
        .unwrap();
    let of_one = of_one.split('"').next().unwrap();
    assert!(!page.contains("<img") && !page.contains("alert(2)</script>") && page.contains("&lt;img src=x"), "{page}");
    let files = ["page.css", "page.js", "icon.svg"].map(|file| {
        let (status, text) = block_on(see(&address, &format!("/dashboard/{file}"), ""));
        assert_eq!(status, 200, "{file}");
        text.len()
    });
    let size = page.len() + files.iter().sum::<usize>();
    assert!(size <= LARGEST, "{size} bytes");

    let (status, log) = block_on(see(&address, of_one, &session));
    assert_eq!(status, 200, "{log}");
    assert!(log.contains("run_command") && log.contains("Answer") && log.contains("ended: done"), "{log}");
    assert!(!log.contains("<img") && !log.contains("<script>alert") && !log.contains('\u{202e}'), "{log}");
    assert_eq!(block_on(see(&address, "/dashboard/turn/none", &session)).0, 404);
    let said = server.log();
    assert!(!said.contains(&pass) && !said.contains(session.split('=').nth(1).unwrap()), "a pass is in the log");
}

#[test]
fn a_link_to_a_turn_opens_its_log_alone() {
    let (llm, mut rig) = scripted();
    let address = with_port(&mut rig);
    llm.when("first").reply_text("Number one.");
    llm.when("second").reply_text("Number two.");
    let _server = rig.serve();
    let ask = |room: &str, text: &str| {
        let (_, frames) = rig.ask(room, text).finish();
        said(&frames)
    };
    let none = ask("one", "!link");
    assert!(none.contains("nothing in this room"), "{none}");
    ask("one", "first");
    ask("two", "second");
    let told = ask("one", "!link");
    assert!(told.contains("for 1 d: http://"), "{told}");
    block_on(async {
        let entered = enter(&address, &pass(&told), None).await;
        let to = header(&entered, "location").to_owned();
        assert!(entered.status() == 303 && to.starts_with("/dashboard/turn/"), "{to}");
        assert!(header(&entered, "set-cookie").contains(&format!("; Path={to}; ")));
        let cookie = cookie(&entered);
        let (status, log) = see(&address, &to, &cookie).await;
        assert!(status == 200 && log.contains("Number one.") && !log.contains("Number two."), "{log}");
        assert!(!log.contains("href=\"/dashboard\""), "it leads nowhere else");
        assert_eq!(see(&address, "/dashboard", &cookie).await.0, 401);
        assert_eq!(see(&address, "/dashboard/live", &cookie).await.0, 401);
        assert_eq!(see(&address, &format!("{to}0"), &cookie).await.0, 401);
        // The pass of a turn is no session, whatever it is called.
        let renamed = cookie.replace("matrix_agent_turn", "matrix_agent_session");
        assert_eq!(see(&address, "/dashboard", &renamed).await.0, 401);
    });
}

#[test]
fn signing_out_ends_what_is_open_and_no_earlier_link_opens_anything() {
    let (llm, mut rig) = scripted();
    let address = with_port(&mut rig);
    llm.otherwise(|_| Reply::text("Here."));
    let server = rig.serve();
    rig.ask("one", "please").finish();
    let before = entrance(&rig);
    let session = block_on(async { cookie(&enter(&address, &before, None).await) });
    block_on(async {
        let request = client().get(format!("{address}/dashboard/live")).header("cookie", &session);
        let mut open = request.send().await.unwrap();
        assert!(open.chunk().await.unwrap().is_some(), "the page is told what there is");
        let told = rig.run(&["dashboard", "--sign-out"]);
        let after = pass(&String::from_utf8(told.stdout).unwrap());
        let ended = async { while open.chunk().await.unwrap().is_some() {} };
        tokio::time::timeout(LIMIT, ended).await.expect("the open page is let go");
        assert_eq!(see(&address, "/dashboard", &session).await.0, 401);
        assert_eq!(enter(&address, &before, None).await.status(), 403);
        assert_eq!(enter(&address, &after, None).await.status(), 303);
    });
    // What a backup without secrets holds opens nothing: the key is not in the database.
    let key = std::fs::read_to_string(rig.database().with_file_name("secrets/dashboard-key")).unwrap();
    let database = std::fs::read(rig.database()).unwrap();
    assert!(!database.windows(key.len()).any(|part| part == key.as_bytes()));
    drop(server);
}

#[test]
fn a_server_without_http_says_what_to_set() {
    let (_llm, rig) = scripted();
    let _server = rig.serve();
    let told = rig.run(&["dashboard"]);
    assert!(!told.status.success());
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("HTTP_LISTEN"), "{told}");
}
