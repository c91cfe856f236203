//! Who looks after a server from the command line: what it is told, and that nothing makes it wait for ever.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use support::{
    rig::{BARE, Rig, Server, answers, block_on, wait},
    scripted_llm::ScriptedLlm,
};

/// A server whose rooms of these names have asked something.
fn serving(rooms: &[&str]) -> (ScriptedLlm, Rig, Server) {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    for room in rooms {
        llm.reply_text("Here it is.");
        let (code, frames) = rig.ask(room, "say something").finish();
        assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    }
    (llm, rig, server)
}

fn told(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Starts it with its output kept.
fn begun(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for its end; returns its exit code and what it said.
fn ended(mut child: Child, what: &str) -> (i32, String) {
    let mut status = None;
    wait(what, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), told(&[output.stdout, output.stderr].concat()))
}

#[test]
fn what_a_room_used_is_counted_once_and_each_room_is_listed_once() {
    let (_llm, rig, _server) = serving(&["one", "one", "two"]);
    let rooms = json(&rig.run(&["admin", "budget", "--json"]));
    let used: Vec<_> = rooms.as_array().unwrap().iter().map(|room| room["used"].as_u64().unwrap()).collect();
    assert_eq!(used.len(), 2, "{rooms:#}");
    let status = json(&rig.run(&["admin", "status", "--json"]));
    assert_eq!(status["tokens_today"], used.iter().sum::<u64>(), "{status:#} {rooms:#}");
    assert_eq!(told(&rig.run(&["admin", "budget"]).stdout).lines().count(), 2);
}

#[test]
fn it_is_told_what_could_be_typed_next_and_no_name_deceives_it() {
    let long = "x".repeat(3000);
    let (_llm, rig, server) = serving(&["\u{202e}toor\u{200b}", &long]);
    let drained = told(&rig.run(&["admin", "drain", "--wait", "1"]).stdout);
    assert!(drained.contains("`matrix-agent admin drain --off`") && !drained.contains("!admin"), "{drained}");
    let unknown = told(&rig.run(&["admin", "stop", "nowhere"]).stderr);
    assert!(unknown.contains("`matrix-agent admin rooms` lists them"), "{unknown}");
    let several = told(&rig.run(&["admin", "stop", "terminal"]).stderr);
    assert!(several.contains("as `matrix-agent admin rooms` shows it"), "{several}");
    for refused in ["1.5", "1,5M", "lots"] {
        let refused = rig.run(&["admin", "budget", "toor", refused]);
        assert!(!refused.status.success() && told(&refused.stderr).contains("as `500k` or `1.5M`"), "{refused:?}");
    }

    let rooms = told(&rig.run(&["admin", "rooms"]).stdout);
    assert!(rooms.contains("- terminal:toor: sandbox"), "{rooms}");
    let cut = rooms.lines().find(|line| line.contains("xxx")).unwrap();
    assert!(cut.chars().count() < 400, "{cut}");
    let name = cut.trim_start_matches("- ").split(": ").next().unwrap();
    for shown in [name, "terminal:toor"] {
        let stopped = told(&rig.run(&["admin", "stop", shown]).stdout);
        assert!(stopped.contains("Nothing runs in terminal:"), "{shown}: {stopped}");
    }
    let budgets = told(&rig.run(&["admin", "budget"]).stdout);
    for shown in [rooms, budgets, told(&rig.run(&["admin", "logs"]).stdout), server.log()] {
        assert!(!shown.contains('\u{202e}') && shown.contains("toor"), "{shown}");
    }
}

#[test]
fn a_server_that_hangs_and_one_that_ends_are_told_as_such() {
    let (_llm, rig, server) = serving(&[]);
    let mut follows = rig.command(&["admin", "logs", "--follow"]);
    follows.env("RUST_LOG", "error");
    let (left, pid) = (begun(follows), Pid::from_raw(server.pid().cast_signed()));
    kill(pid, Signal::SIGSTOP).unwrap();
    let asked: [&[&str]; 6] = [
        &["admin", "status"],
        &["admin", "logs", "--follow"],
        &["dashboard"],
        &["cloud-bot", "restart", "none"],
        &["sandbox", "list"],
        &["chat", "-p", "hello"],
    ];
    let asked: Vec<_> = asked.iter().map(|arguments| (*arguments, begun(rig.command(arguments)))).collect();
    for (arguments, child) in asked {
        let (code, said) = ended(child, "the end of the wait for a server that hangs");
        assert!(code == 1 && said.contains("does not answer"), "{arguments:?}: {code} {said}");
    }
    let (code, said) = ended(left, "the end of the log of a server that hangs");
    assert!(code == 1 && said.contains("does not answer"), "{code} {said}");

    let (what, status) = doctor(&rig, "server");
    assert!(status == "bad" && what.contains("does not answer"), "{what}");

    kill(pid, Signal::SIGCONT).unwrap();
    let (what, status) = doctor(&rig, "server");
    assert!(status == "good" && what.contains(&format!("runs as process {pid}")), "{what}");
    let mut left = begun(rig.command(&["admin", "logs", "--follow"]));
    let mut shown = BufReader::new(left.stdout.take().unwrap());
    shown.read_line(&mut String::new()).unwrap();
    server.stop();
    let (code, said) = ended(left, "the end of the log of a server that ended");
    assert!(code == 1 && said.contains("No server runs here") | said.contains("The server has ended"), "{code} {said}");
}

#[test]
fn a_mistake_in_another_setting_keeps_nobody_from_a_server_that_runs() {
    let (_llm, mut rig, _server) = serving(&["one"]);
    rig.run(&["chat", "--room", "one", "-p", "!status"]);
    rig.set("HOST_DISK_RESERVE", "1k");
    rig.set("LLM_MODEL", "no/such/provider");
    for arguments in [&["admin", "status"][..], &["admin", "drain"], &["audit", "verify"], &["sandbox", "list"]] {
        let output = rig.run(arguments);
        let warned = told(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(warned.contains("warning: ") && warned.contains("`matrix-agent config`"), "{arguments:?}: {warned}");
    }
    let dashboard = told(&rig.run(&["dashboard"]).stderr);
    assert!(dashboard.contains("This server has no dashboard"), "{dashboard}");

    // Where the server is must be known.
    let state = rig.get("STATE_DIR").unwrap();
    let file = rig.path().join("settings");
    let asked = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_matrix-agent"));
        let named = file.to_str().unwrap();
        command.args(["--env-file", named, "--config-file", "/dev/null", "admin", "status"]).env_remove("STATE_DIR");
        command.output().unwrap()
    };
    assert!(asked(&format!("STATE_DIR = {state}\nno setting\n")).status.success());
    for unsure in [
        format!("STATE_DIR {state}"),
        format!("STATE_DRI = {state}"),
        format!("STATE_DIR = {state}/{}", "x".repeat(200)),
    ] {
        let refused = asked(&unsure);
        assert!(
            refused.status.code() == Some(2) && told(&refused.stderr).contains("is wrong"),
            "{unsure}: {refused:?}"
        );
    }
}

#[test]
fn another_user_is_told_that_the_server_is_not_theirs() {
    let (_llm, rig, _server) = serving(&[]);
    for arguments in [&["admin", "status"][..], &["dashboard"], &["admin", "logs", "-f"], &["sandbox", "list"]] {
        let mut command = rig.command(arguments);
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        } else {
            fs::set_permissions(rig.path().join("s"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        }
        let output = command.output().unwrap();
        let said = told(&output.stderr);
        assert!(!output.status.success() && said.contains("This user may not ask the server"), "{arguments:?}: {said}");
        assert!(said.contains("sudo") && !said.contains("No server runs"), "{said}");
    }
    fs::set_permissions(rig.path().join("s"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

/// The orders that the audit log has.
fn orders(rig: &Rig) -> Vec<Value> {
    let files = fs::read_dir(rig.path().join("s/audit")).into_iter().flatten().map(|file| file.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|it| it == "jsonl"));
    let text: String = logs.map(|log| fs::read_to_string(log).unwrap()).collect();
    let deeds = text.lines().map(|line| serde_json::from_str(line).unwrap());
    deeds.filter(|deed: &Value| deed["kind"] == "order").collect()
}

#[test]
fn each_order_is_noted_with_which_it_is_who_gave_it_and_what_came_of_it() {
    let (_llm, rig, _server) = serving(&["one", "one-more"]);
    let said = [
        "!admin status",
        "!admin drain off",
        "!admin frobnicate-secret",
        "!grant example.org -1h",
        "!grant example.org 1h",
    ];
    for said in said {
        assert_eq!(rig.ask("one", said).finish().0, 0, "{said}");
    }
    for arguments in [
        &["admin", "drain"][..],
        &["admin", "drain", "--off"],
        &["admin", "budget", "one", "500k"],
        &["admin", "stop", "one-m"],
        &["admin", "stop", "nowhere"],
        &["dashboard"],
        &["admin", "status"],
    ] {
        rig.run(arguments);
    }
    let noted = [
        ("!admin status", "done"),
        ("!admin drain", "done"),
        ("!admin", "refused"),
        ("!grant", "refused"),
        ("!grant", "done"),
        ("admin drain", "done"),
        ("admin drain", "done"),
        ("admin budget", "done"),
        ("admin stop", "done"),
        ("admin stop", "refused"),
        ("dashboard", "refused"),
    ];
    wait("the orders' lines", || orders(&rig).len() >= noted.len());
    let orders = orders(&rig);
    let text = format!("{orders:#?}");
    let found: Vec<_> =
        orders.iter().map(|deed| (deed["about"].as_str().unwrap(), deed["outcome"].as_str().unwrap())).collect();
    assert_eq!(found, noted, "{text}");
    let rooms: Vec<_> = orders[7..10].iter().map(|deed| deed["room"].as_str().unwrap()).collect();
    assert_eq!(rooms, ["terminal:one", "terminal:one-more", "nowhere"], "the room that it was about: {text}");
    assert!(
        !text.contains("secret") && orders.iter().all(|deed| deed["digest"].as_str().unwrap().len() == 32),
        "{text}"
    );
    assert!(orders[5]["digest"] != orders[6]["digest"] && orders[7]["room"] == "terminal:one", "{text}");
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    assert!(orders.iter().all(|deed| deed["who"] == serde_json::json!([me])), "{text}");
}

/// Returns what `doctor` finds of one thing, and how well it is.
fn doctor(rig: &Rig, id: &str) -> (String, String) {
    let found: Value = serde_json::from_slice(&rig.run(&["doctor", "--json"]).stdout).unwrap();
    let check = found["checks"].as_array().unwrap().iter().find(|check| check["id"] == id);
    let check = check.unwrap_or_else(|| panic!("no {id} in {found:#}"));
    (check["what"].as_str().unwrap().to_owned(), check["status"].as_str().unwrap().to_owned())
}

/// Runs `audit verify` on a file; returns whether it found all as it was written, and what it said.
fn verified(rig: &Rig, file: &Path, more: &[&str]) -> (bool, String) {
    let (code, said) =
        ended(begun(rig.command(&[&["audit", "verify", file.to_str().unwrap()], more].concat())), "the check");
    (code == 0, said)
}

#[test]
fn a_log_whose_end_nobody_knows_is_not_called_whole_and_what_is_no_log_is_refused() {
    let (_llm, rig, server) = serving(&["one"]);
    for said in ["!grants", "!grants"] {
        assert_eq!(rig.ask("one", said).finish().0, 0);
    }
    wait("the orders' lines", || orders(&rig).len() == 2);
    server.stop();
    let folder = rig.path().join("s/audit");
    let log = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let log = log.into_iter().find(|path| path.extension().is_some_and(|it| it == "jsonl")).unwrap();
    let (is_whole, said) = verified(&rig, &log, &[]);
    assert!(is_whole, "{said}");
    let head = said.trim().rsplit(": ").next().unwrap().to_owned();
    let (what, status) = doctor(&rig, "audit-log");
    assert!(status == "good" && what.contains("as they were written"), "{what}");

    let text = fs::read_to_string(&log).unwrap();
    let cut = rig.path().join("cut");
    fs::create_dir(&cut).unwrap();
    let (cut, beside) = (cut.join(log.file_name().unwrap()), cut.join("head"));
    let shorter: Vec<_> = text.split_inclusive('\n').collect();
    fs::write(&cut, shorter[..shorter.len() - 1].concat()).unwrap();
    for says in [None, Some(""), Some("garbage"), Some("17 ab12")] {
        match says {
            Some(says) => fs::write(&beside, says).unwrap(),
            None => assert!(!beside.exists()),
        }
        let (is_whole, said) = verified(&rig, &cut, &[]);
        assert!(
            !is_whole && said.contains("whether lines were cut off behind them cannot be told"),
            "{says:?}: {said}"
        );
        assert!(said.contains("--head") && said.contains("head"), "{said}");
        let (is_whole, said) = verified(&rig, &cut, &["--head", &head]);
        assert!(!is_whole && said.contains("it was cut"), "{says:?}: {said}");
        let (is_whole, said) = verified(&rig, &log, &["--head", &head]);
        assert!(is_whole, "{said}");
    }
    fs::copy(&cut, &log).unwrap();
    let (what, status) = doctor(&rig, "audit-log");
    assert!(status == "bad" && what.contains("was cut"), "{what}");

    // Also where none of it is left, or a new month's file has begun behind it.
    fs::write(&log, "").unwrap();
    assert_eq!(doctor(&rig, "audit-log").1, "bad");
    fs::write(&log, &text).unwrap();
    let next = folder.join("9999-01.jsonl");
    fs::write(&next, "").unwrap();
    assert_eq!(doctor(&rig, "audit-log").1, "good");
    fs::copy(&cut, &log).unwrap();
    assert_eq!(doctor(&rig, "audit-log").1, "bad");
    fs::remove_file(&next).unwrap();

    fs::write(&log, &text).unwrap();
    fs::write(&cut, &text).unwrap();
    let (is_whole, said) = verified(&rig, &cut, &["--head", &head]);
    assert!(is_whole, "it holds what it must: {said}");

    fs::remove_file(&log).unwrap();
    let gone = rig.run(&["audit", "verify"]);
    let why = told(&gone.stderr);
    assert!(!gone.status.success() && why.contains("is gone") && why.contains("line "), "{why}");
    assert_eq!(doctor(&rig, "audit-log").1, "bad");

    fs::write(&cut, "").unwrap();
    let (is_whole, said) = verified(&rig, &cut, &[]);
    assert!(!is_whole && said.contains("is empty"), "{said}");
    let pipe = rig.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for other in [&pipe, Path::new("/dev/zero"), rig.path()] {
        let (is_whole, said) = verified(&rig, other, &[]);
        assert!(!is_whole && said.contains("no regular file"), "{said}");
    }
    let endless = fs::File::create(&cut).unwrap();
    endless.set_len(8 << 30).unwrap();
    let (is_whole, said) = verified(&rig, &cut, &[]);
    assert!(!is_whole && said.contains("is longer than any line"), "{said}");
}
