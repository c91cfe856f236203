//! The page in a browser: headless Chromium in the sandbox image, driven by `browser.mjs`. With `MATRIX_AGENT_PICTURES=DIR` its
//! pictures are copied there.

use std::{fs, process::Command};

use super::{Lab, support::rig::wait};

const IMAGE: &str = "matrix-agent-sandbox:latest";
/// What the whole may take, in seconds.
const LIMIT: &str = "180";

#[test]
fn somebody_chats_by_keyboard_and_on_a_phone_and_sees_the_model_sleep_and_wake() {
    let mut lab = Lab::new("slow");
    let page = lab.with_page();
    let server = lab.rig.serve();
    let out = tempfile::tempdir().unwrap();
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exobot");
    let image = std::env::var("SANDBOX_IMAGE").unwrap_or_else(|_| IMAGE.to_owned());
    let mut browser = Command::new("podman");
    browser.args(["run", "--rm", "--pull=never", "--network=host", "--security-opt=label=disable", "--cap-drop=all"]);
    browser.args(["--timeout", LIMIT, "--tmpfs=/tmp:size=1g"]);
    browser.arg(format!("--volume={here}:/here:ro")).arg(format!("--volume={}:/out", out.path().display()));
    browser.args([image.as_str(), "node", "/here/browser.mjs", page.as_str(), "/out"]);
    let output = browser.output().unwrap();
    if let Some(folder) = std::env::var_os("MATRIX_AGENT_PICTURES") {
        for picture in fs::read_dir(out.path()).unwrap().flatten() {
            let name = format!("exobot-{}", picture.file_name().to_string_lossy());
            fs::copy(picture.path(), std::path::Path::new(&folder).join(name)).unwrap();
        }
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", lab.events().join("\n"));
    let events = lab.events();
    let started = events.iter().filter(|event| event.starts_with("started ")).count();
    assert_eq!(started, 2, "it slept in between: {events:?}");
    server.stop();
    wait("the child's end", || lab.alive().is_empty());
}
