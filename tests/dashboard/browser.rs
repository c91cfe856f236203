//! The dashboard in a browser: headless Chromium in the sandbox image, driven by `browser.mjs`. With `MATRIX_AGENT_PICTURES=DIR` its
//! pictures are copied there.

use std::{fs, path::Path, process::Command};

use super::{
    said,
    support::{replies::Reply, rig::FULL, scripted},
    with_port,
};

/// What the whole may take, in seconds.
const LIMIT: &str = "400";

#[test]
fn an_operator_looks_on_while_a_turn_runs_by_keyboard_on_a_phone_and_in_the_dark() {
    let (llm, mut rig) = scripted();
    let address = with_port(&mut rig);
    rig.set("ROOM_DAILY_TOKENS", "200000");
    llm.when("checkout")
        .reply(Reply::command("echo 12 passed"))
        .reply_text("The checkout adds VAT now; its tests pass.");
    llm.when("parser").reply(Reply::Status(401, vec![], String::new()));
    llm.when("long").reply(Reply::command("echo building; sleep 1000")).reply_text("Built.");
    let _server = rig.serve();
    rig.ask("shop", "Add VAT to the checkout").finish();
    rig.ask("compiler", "Why is the parser slow?").finish();
    let mut chat = rig.ask("firmware", "A long build <img src=x onerror=\"window.hacked=1\">");
    chat.until("the command", |frame| frame["kind"] == "tool_output" && frame["line"] == "building");

    let printed = rig.run(&["dashboard"]);
    let link = String::from_utf8(printed.stdout).unwrap().trim().to_owned();
    assert!(link.starts_with(&format!("{address}/dashboard#e.")), "{link}");
    let (_, frames) = rig.ask("shop", "!link").finish();
    let told = said(&frames);
    let to_turn = told.split_whitespace().last().unwrap();

    let out = tempfile::tempdir().unwrap();
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dashboard");
    let image = std::env::var("SANDBOX_IMAGE").unwrap_or_else(|_| FULL.to_owned());
    let mut browser = Command::new("podman");
    browser.args(["run", "--rm", "--pull=never", "--network=host", "--security-opt=label=disable", "--cap-drop=all"]);
    browser.args(["--timeout", LIMIT, "--tmpfs=/tmp:size=1g"]);
    browser.arg(format!("--volume={here}:/here:ro")).arg(format!("--volume={}:/out", out.path().display()));
    browser.args([image.as_str(), "node", "/here/browser.mjs", link.as_str(), to_turn, "/out"]);
    let output = browser.output().unwrap();
    if let Some(folder) = std::env::var_os("MATRIX_AGENT_PICTURES") {
        for picture in fs::read_dir(out.path()).unwrap().flatten() {
            let name = format!("dashboard-{}", picture.file_name().to_string_lossy());
            fs::copy(picture.path(), Path::new(&folder).join(name)).unwrap();
        }
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    #[expect(clippy::print_stdout, reason = "the figures, for whoever looks at them")]
    {
        println!("{said}");
    }
    rig.ask("firmware", "!stop").finish();
}
