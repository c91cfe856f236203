//! From a version to the next, and to the next that is broken in each way there is.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    machine::{GOOD, Machine},
    support::{
        coding_agents::{Who, answered, aside, steps, who},
        rig::{BARE, FULL, Rig, answers, block_on, wait},
        scripted_llm::{Reply, ScriptedLlm, results},
    },
};

/// A model that has a command wait for a file, and one that answers at once.
fn llm() -> ScriptedLlm {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| {
        let messages = request["messages"].as_array().unwrap();
        let last = messages.last().unwrap();
        if last["role"] == "tool" {
            return Reply::text(&format!("It said: {}", last["content"].as_str().unwrap()));
        }
        if !last["content"].to_string().contains("wait") {
            return Reply::text("Here I am.");
        }
        let command = "echo before; while [ ! -e /workspace/go ]; do sleep 0.05; done; echo after";
        Reply::calls(&[("run_command", json!({"command": command}))])
    });
    llm
}

fn machine(llm: &ScriptedLlm) -> Machine {
    Machine::new(Rig::new(BARE, llm.base_url()))
}

/// Whoever serves now answers.
fn serves(machine: &Machine) {
    let (code, frames) = machine.ask("other", "hello").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
}

#[test]
fn the_next_version_takes_the_place_and_a_turn_goes_on() {
    let llm = llm();
    let mut machine = machine(&llm);
    let mut chat = machine.ask("one", "wait");
    chat.until("its first line", |frame| frame["kind"] == "tool_output");
    let nothing = machine.redeploy(&["--check"]);
    assert!(nothing.code == 0 && nothing.out.contains("there is nothing newer"), "{nothing:?}");
    let commit = machine.publish("", GOOD);
    let check = machine.redeploy(&["--check"]);
    assert!(check.code == 0 && check.out.contains(&commit[..10]) && check.out.contains("Version 2"), "{check:?}");
    assert_eq!((machine.installed().as_str(), machine.starts()), ("1", 1), "looking changes nothing");

    let (completed, page) =
        (machine.path("share/bash-completion/completions/matrix-agent"), machine.path("share/man/man1/matrix-agent.1"));
    for file in [&completed, &page] {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "old").unwrap();
    }
    let ran = machine.redeploy(&["--room", "terminal:one"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(fs::read_to_string(&completed).unwrap().contains("complete -F"), "the shell completes the old words");
    assert!(fs::read_to_string(&page).unwrap().contains(".TH"), "the page is the old one");
    assert!(!machine.path("share/zsh").exists() && !machine.path("share/fish").exists(), "nobody has asked for them");
    assert!(ran.out.contains("trying it on a copy") && ran.out.ends_with("It serves.\n"), "{ran:?}");
    assert_eq!((machine.installed().as_str(), machine.previous().as_str(), machine.starts()), ("2", "1", 2));
    assert_eq!(machine.beside(), ["matrix-agent", "matrix-agent.previous"]);
    assert_eq!(machine.git("clone", &["rev-parse", "HEAD"]), commit, "the clone follows");
    let environment = fs::read_to_string(machine.path("build-env")).unwrap();
    assert!(!environment.contains("secret") && !environment.contains("LLM_"), "{environment}");

    machine.rig.inside("touch /workspace/go");
    let (code, frames) = chat.finish();
    let answer = answers(&frames)[0]["text"].as_str().unwrap().to_owned();
    assert!(code == 0 && answer.contains("before") && answer.contains("after"), "{answer}");
    assert_eq!(llm.requests().len(), 2, "the command was not asked for again");
    wait("the room's news", || machine.told().len() == 2);
    let told = machine.told();
    assert!(told[0].contains("I have built") && told[0].contains("Version 2"), "{told:?}");
    assert!(told[1].contains("I run as") && told[1].contains(&commit[..10]), "{told:?}");

    // And back again, by the same way.
    let back = machine.redeploy(&["--rollback", "--room", "terminal:one"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!((machine.installed().as_str(), machine.previous().as_str()), ("1", "2"));
    serves(&machine);
    wait("the room's news", || machine.told().len() == 4);
    let check = machine.redeploy(&["--check"]);
    assert!(check.code == 0 && check.out.contains("Version 2"), "what was taken back may come again: {check:?}");
}

#[test]
fn a_coding_agent_works_on_while_the_next_version_takes_the_place() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => steps(request, &[("implement", json!({"task": "Wait."}))]),
        Who::Gemini | Who::Qwen if answered(request) > 0 => Reply::text("Came through."),
        Who::Gemini | Who::Qwen => {
            let command = "until [ -e go ]; do sleep 0.05; done; rm go; echo hello > hello.txt";
            let arguments = json!({"command": command, "description": "wait", "is_background": false});
            Reply::calls(&[("run_shell_command", arguments)])
        }
    });
    let mut rig = Rig::new(FULL, llm.base_url());
    rig.set("GEMINI_API_KEY", "gemini-scripted-secret");
    rig.set("GEMINI_BASE_URL", llm.gemini_url());
    // No test makes an image of this machine's its own.
    rig.set("SANDBOX_IMAGE", FULL.trim_end_matches(":latest"));
    let mut machine = Machine::new(rig);
    let mut chat = machine.ask("one", "wait");
    let works = |frame: &Value| frame["line"].as_str().is_some_and(|line| line.contains("run shell command until"));
    chat.until("the agent's command", works);
    machine.publish("", GOOD);
    let ran = machine.redeploy(&[]);
    assert_eq!((ran.code, machine.installed().as_str(), machine.starts()), (0, "2", 2), "{ran:?}");
    machine.rig.inside("touch go");
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap());
    for part in ["done: Qwen Code", "Came through.", "hello.txt +1 −0"] {
        assert!(told[0].contains(part), "{part:?} is not in {}", told[0]);
    }
    assert_eq!(requests.iter().filter(|request| who(request) == Who::Qwen).count(), 2, "nothing was asked twice");
}

/// A broken version: what it does, what the room is told of it, and whether it had the place for a while.
fn broken(file: &str, lines: &str, says: &str, started: bool) {
    let llm = llm();
    let mut machine = machine(&llm);
    let mut chat = machine.ask("one", "wait");
    chat.until("its first line", |frame| frame["kind"] == "tool_output");
    machine.publish(file, lines);
    let began = Instant::now();
    let ran = machine.redeploy(&["--room", "terminal:one"]);
    let took = began.elapsed();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains(says), "{ran:?}");
    assert!(took.as_secs() < 120, "it took {took:?}");
    assert_eq!(machine.installed(), "1");
    // The outcome is told before what was made for it is removed.
    wait("a tidy place", || machine.beside().len() == 1);
    assert_eq!(machine.starts(), if started { 3 } else { 1 });
    serves(&machine);
    let go = machine.rig.run(&["sandbox", "exec", "one", "--", "touch", "/workspace/go"]);
    assert!(go.status.success(), "{go:?}");
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    wait("the room's news", || machine.told().iter().any(|told| told.starts_with('❌') && told.contains(says)));
    assert_eq!(machine.told().len(), if started { 2 } else { 1 }, "{:?}", machine.told());
    // A good one may come then.
    fs::remove_file(machine.path("work/broken")).ok();
    machine.publish("", GOOD);
    let ran = machine.redeploy(&[]);
    assert_eq!((ran.code, machine.installed().as_str()), (0, "3"), "{ran:?}");
    serves(&machine);
}

#[test]
fn one_that_does_not_build_changes_nothing() {
    broken("broken", "", "it does not build: error: mismatched types", false);
}

#[test]
fn one_whose_canary_fails_changes_nothing() {
    let lines =
        r#"case "$*" in *canary*) echo "error: The canary has failed at the stage sandbox" >&2; exit 1 ;; esac"#;
    broken("", lines, "its canary has failed: error: The canary has failed at the stage sandbox", false);
}

#[test]
fn one_that_does_not_start_gives_the_place_back() {
    broken("", r#"case "$*" in *"null run") exit 1 ;; esac"#, "it has ended", true);
}

#[test]
fn one_that_never_becomes_ready_gives_the_place_back() {
    broken(
        "",
        r#"case "$*" in *"null run") trap '' TERM; while :; do sleep 1; done ;; esac"#,
        "it has not become ready",
        true,
    );
}

/// The old one works with the newer tables.
#[test]
fn one_that_migrates_and_dies_gives_the_place_back_and_the_data_is_kept() {
    let lines = r#"case "$*" in
        *"null run") sqlite3 -cmd '.timeout 20000' @HERE@/s/matrix-agent.db "CREATE TABLE IF NOT EXISTS newer (x); PRAGMA user_version = 999;" && exit 1 ;;
    esac"#;
    broken("", lines, "it has ended", true);
}

/// Wherever the oneshot is killed: systemd starts it again, and it ends what it has begun.
fn killed(point: &str, lines: &str, ends: &str) {
    let llm = llm();
    let mut machine = machine(&llm);
    assert_eq!(machine.ask("one", "hello").finish().0, 0, "the room that is told");
    machine.publish("", lines);
    machine.kill_at(point);
    let ran = machine.redeploy(&["--room", "terminal:one"]);
    assert_eq!(machine.kills(), 1, "{ran:?}");
    wait("its end", || !machine.path("s/redeploy/request.json").exists());
    assert_eq!(machine.installed(), ends, "{ran:?}");
    assert!(!machine.beside().contains(&"matrix-agent.redeploying".to_owned()), "{:?}", machine.beside());
    serves(&machine);
    let sign = if ends == "2" { '✅' } else { '❌' };
    wait("the room's news", || machine.told().last().is_some_and(|told| told.starts_with(sign)));
    assert_eq!(machine.told().len(), 2, "each once: {:?}", machine.told());
}

macro_rules! killed {
    ($($name:ident $($point:literal)*;)*) => {$(
        #[test]
        fn $name() {
            for point in [$($point),*] {
                killed(point, GOOD, "2");
            }
        }
    )*};
}

killed! {
    killed_while_it_builds_it_ends_all_the_same "redeploy-build" "redeploy-built";
    killed_while_it_tries_it_ends_all_the_same "redeploy-try" "redeploy-tried";
    killed_while_it_switches_it_ends_all_the_same "redeploy-switch" "redeploy-switched";
    killed_while_it_waits_it_ends_all_the_same "redeploy-await" "redeploy-ready" "redeploy-ended";
}

#[test]
fn killed_on_the_way_back_it_goes_on_with_that() {
    for point in ["redeploy-back", "redeploy-gone-back"] {
        killed(point, r#"case "$*" in *"null run") exit 1 ;; esac"#, "1");
    }
}

#[test]
fn what_must_not_be_done_is_told_before_anything_changes() {
    let llm = llm();
    let mut machine = machine(&llm);
    let commit = machine.publish("", GOOD);
    let refused = |machine: &Machine, arguments: &[&str], says: &str| {
        let ran = machine.redeploy(arguments);
        assert_eq!(ran.code, 1, "{says}: {ran:?}");
        assert!(ran.err.contains("Nothing was changed") && ran.err.contains(says), "{says}: {ran:?}");
        assert!(!machine.path("s/redeploy/request.json").exists(), "{says}: it was asked for");
    };
    fs::write(machine.path("clone/program"), "mine").unwrap();
    refused(&machine, &[], "program is changed and not committed");
    machine.git("clone", &["checkout", "--quiet", "program"]);

    fs::rename(machine.path("remote.git"), machine.path("away.git")).unwrap();
    refused(&machine, &[], "cannot be asked");
    fs::rename(machine.path("away.git"), machine.path("remote.git")).unwrap();

    machine.git("clone", &["config", "core.sshCommand", "echo 'git@x: Permission denied (publickey).' >&2; false"]);
    machine.git("clone", &["remote", "set-url", "origin", "ssh://git@127.0.0.1/x.git"]);
    refused(&machine, &[], "refuses the clone's key");
    let url = format!("file://{}", machine.path("remote.git").display());
    machine.git("clone", &["remote", "set-url", "origin", &url]);

    refused(&machine, &["--ref", "no-such-thing"], "has no commit `no-such-thing`");
    refused(&machine, &["--ref=--upload-pack=x"], "is no name of a commit");
    refused(&machine, &["--rollback"], "nothing is known to go back to");

    fs::write(machine.path("clone/mine"), "").unwrap();
    machine.git("clone", &["add", "mine"]);
    machine.git("clone", &["commit", "--quiet", "-m", "Mine"]);
    refused(&machine, &[], "has diverged");
    machine.git("clone", &["reset", "--quiet", "--hard", "HEAD~1"]);

    machine.systemctl(&["kill", "--signal=SIGKILL", "matrix-agent.service"]);
    refused(&machine, &[], "The server does not run");
    machine.systemctl(&["restart", "--no-block", "matrix-agent.service"]);
    machine.until_ready();

    let config = machine.path("update.env");
    let text = fs::read_to_string(&config).unwrap();
    fs::remove_file(&config).unwrap();
    let ran = machine.redeploy(&[]);
    assert!(ran.code == 1 && ran.err.contains("nobody knows where updates come from"), "{ran:?}");
    fs::write(&config, text).unwrap();

    // Another one is under way.
    fs::create_dir_all(machine.path("s/redeploy")).unwrap();
    let held = fs::File::create(machine.path("s/redeploy/lock")).unwrap();
    held.lock().unwrap();
    let ran = machine.redeploy(&["--carry-out"]);
    assert!(ran.code == 1 && ran.err.contains("carried out at this moment"), "{ran:?}");
    symlink("/dev/null", machine.path("s/redeploy/request.json")).unwrap();
    let ran = machine.redeploy(&[]);
    assert!(ran.code == 1 && ran.err.contains("Another update is under way"), "{ran:?}");
    // It was seen to that the other one goes on.
    wait("the other one's tries", || machine.oneshot().matches("ended badly").count() == 6);
    fs::remove_file(machine.path("s/redeploy/request.json")).unwrap();
    drop(held);
    assert_eq!((machine.installed().as_str(), machine.starts()), ("1", 2));
    // And by its name, what is not on the branch.
    let ran = machine.redeploy(&["--ref", &commit]);
    assert_eq!((ran.code, machine.installed().as_str()), (0, "2"), "{ran:?}");
}

#[test]
fn a_record_that_cannot_be_read_ends_with_the_old_one() {
    let llm = llm();
    let mut machine = machine(&llm);
    assert_eq!(machine.ask("one", "hello").finish().0, 0, "the room that is told");
    machine.publish("", r#"case "$*" in *"null run") exit 1 ;; esac"#);
    machine.kill_at("redeploy-switched");
    // The oneshot is killed behind the switch, and whoever takes it up finds nothing that it could read.
    let mut running = machine.redeploying(&["--room", "terminal:one"]).spawn().unwrap();
    wait("the kill", || machine.kills() == 1);
    fs::write(machine.path("s/redeploy/record.json"), "{").unwrap();
    wait("its end", || !machine.path("s/redeploy/request.json").exists());
    running.kill().ok();
    running.wait().unwrap();
    assert_eq!(machine.installed(), "1");
    assert_eq!(machine.beside(), ["matrix-agent"]);
    serves(&machine);
    wait("the room's news", || machine.told().last().is_some_and(|told| told.starts_with('❌')));
}

/// A service that ends well is started as often as it is asked for, also within the time in which systemd counts.
#[test]
fn the_tenth_update_of_an_hour_is_done_like_the_first() {
    let llm = llm();
    let mut machine = machine(&llm);
    for _ in 0..10 {
        machine.publish("broken", GOOD);
        let ran = machine.redeploy(&[]);
        assert!(ran.code == 1 && ran.out.contains("it does not build"), "{ran:?}");
    }
    assert_eq!(machine.starts(), 1);
}

/// An image of the test's own, under all its names.
struct Image(String);

impl Image {
    fn podman(arguments: &[&str]) -> String {
        let output = Command::new("podman").args(arguments).output().unwrap();
        assert!(output.status.success(), "podman {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn id(&self, tag: &str) -> String {
        Self::podman(&["image", "inspect", "--format", "{{.Id}}", &format!("{}:{tag}", self.0)])
    }

    fn tags(&self) -> Vec<String> {
        let listed = Self::podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let mut tags: Vec<_> = listed
            .lines()
            .filter_map(|name| name.strip_prefix(&self.0)?.strip_prefix(':'))
            .map(str::to_owned)
            .collect();
        tags.sort();
        tags
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for tag in self.tags() {
            let _ = Command::new("podman").args(["image", "rm", &format!("{}:{tag}", self.0)]).output();
        }
    }
}

#[test]
fn the_image_gets_its_name_at_the_switch_and_gives_it_back() {
    let llm = llm();
    let folder = tempfile::tempdir().unwrap();
    let image = Image(format!(
        "localhost/ma-{}",
        folder.path().file_name().unwrap().to_str().unwrap().to_lowercase().replace('.', "")
    ));
    Image::podman(&["tag", BARE, &format!("{}:latest", image.0)]);
    let mut machine = Machine::new(Rig::new(&format!("{}:latest", image.0), llm.base_url()));
    let builds = |machine: &Machine, version: u32| {
        let script = machine.path("work/scripts/build-image.sh");
        fs::create_dir_all(script.parent().unwrap()).unwrap();
        let text = format!(
            "#!/bin/sh\nprintf 'FROM {BARE}\\nLABEL version={version}\\n' | podman build --pull=never --tag \"$SANDBOX_IMAGE\" -\n"
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let first = image.id("latest");
    builds(&machine, 2);
    machine.publish("", GOOD);
    let ran = machine.redeploy(&[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let second = image.id("latest");
    assert_ne!(second, first);
    assert_eq!((image.id("previous"), image.tags()), (first.clone(), vec!["latest".to_owned(), "previous".to_owned()]));

    builds(&machine, 3);
    machine.publish("", r#"case "$*" in *"null run") exit 1 ;; esac"#);
    let ran = machine.redeploy(&[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!((image.id("latest"), image.tags().len()), (second.clone(), 2), "{:?}", image.tags());

    let ran = machine.redeploy(&["--rollback"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!((image.id("latest"), image.id("previous")), (first, second));
    serves(&machine);
}
