//! Commands that do their worst: each is ended at its limit, the model is told so plainly, and the next command of the
//! same turn finds a sandbox that works and that nothing was left in.

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    rig::{BARE, FULL, RUNTIME, Rig, answers, block_on, wait},
    scripted_llm::{ScriptedLlm, results},
};

/// Names what lives beside PID 1, the shell that asks and whatever started it; a warden may be about to go.
const LEFT: &str = "for p in /proc/[0-9]*; do case ${p#/proc/} in 1|$$|$PPID) continue;; esac; \
    read -r name < $p/comm || continue; [ $name = sandboxd ] || echo left: $name; done 2> /dev/null; echo usable";

/// Has the model run `hostile` in a sandbox with little of everything, and then look; returns what it was told of both.
fn run(hostile: &Value, look: &str) -> [String; 2] {
    run_in(BARE, hostile, look)
}

fn run_in(image: &str, hostile: &Value, look: &str) -> [String; 2] {
    let llm = block_on(ScriptedLlm::start());
    let mut rig = Rig::new(image, llm.base_url());
    rig.set("SANDBOX_MEMORY", "128m");
    rig.set("SANDBOX_PIDS", "64");
    rig.set("SANDBOX_DISK", "64m");
    llm.reply_calls(&[("run_command", hostile.clone())]);
    llm.reply_calls(&[("run_command", json!({"command": look}))]).reply_text("Survived.");
    let (code, frames) = rig.ask("hostile", "go").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(&requests[2]);
    assert_eq!(told.len(), 2, "{told:?}");
    [told[0].to_owned(), told[1].to_owned()]
}

/// What the model is told in place of that where gVisor runs the sandbox: who uses up its memory there ends all of it, as does
/// root who kills PID 1, and segments that nobody has attached stay. The next command finds it started anew. A path that is too long
/// is told the C library by another error, on which it ends the shell.
fn under_gvisor(name: &str) -> Option<&'static [&'static str]> {
    if std::env::var(RUNTIME).ok()? != "runsc" {
        return None;
    }
    match name {
        "one_that_fills_the_memory"
        | "one_that_fills_the_memory_as_root"
        | "one_that_leaves_segments_of_shared_memory" => Some(&["the sandbox was restarted meanwhile"]),
        // Its own end may be told before that of PID 1 is noticed.
        "one_that_kills_all_it_can_as_root" => Some(&["the sandbox was restarted meanwhile|ended by signal 9"]),
        "one_that_nests_folders_without_end" => Some(&["ended by signal 6"]),
        _ => None,
    }
}

macro_rules! hostile {
    ($($name:ident: $arguments:tt => $words:expr)*) => {$(
        #[test]
        fn $name() {
            let [told, after] = run(&json!($arguments), LEFT);
            let words = $words;
            for word in under_gvisor(stringify!($name)).unwrap_or(&words) {
                assert!(word.split('|').any(|word| told.contains(word)), "{word}: {told}");
            }
            assert!(told.len() < 11 * 1024, "{}", told.len());
            let first = told.lines().next();
            assert_eq!(after, "exit code: 0\nusable", "after: {first:?}");
        }
    )*};
}

hostile! {
    one_that_prints_without_end: {"command": "yes 'no end'", "timeout_seconds": 1} => ["timed out", "no end", "bytes cut"]
    one_that_prints_a_line_without_end: {"command": "tr '\\0' x < /dev/zero", "timeout_seconds": 1} => ["timed out", "xxx"]
    one_that_forks_without_end: {"command": "bomb() { bomb | bomb & }; bomb; sleep 1000", "timeout_seconds": 2}
        => ["timed out", "everything it had started"]
    one_that_forks_without_end_as_root:
        {"command": "bomb() { bomb | bomb & }; bomb; sleep 1000", "timeout_seconds": 2, "as_root": true} => ["timed out"]
    one_that_starts_threads_of_its_own_session_for_ever:
        {"command": "while :; do setsid sleep 1000 & done 2> /dev/null", "timeout_seconds": 2} => ["timed out"]
    one_that_ignores_every_signal_it_can:
        {"command": "trap '' TERM INT HUP QUIT; echo deaf; while :; do sleep 1; done", "timeout_seconds": 1}
        => ["timed out", "deaf"]
    one_that_stops_itself: {"command": "echo halt; kill -STOP $$", "timeout_seconds": 1} => ["timed out", "halt"]
    one_that_becomes_a_daemon_and_goes: {"command": "(trap '' TERM HUP; setsid setsid sleep 1000 &) & echo gone"}
        => ["exit code: 0", "gone", "left running were ended"]
    one_that_becomes_a_daemon_and_stays:
        {"command": "(setsid sh -c 'trap \"\" TERM; setsid sleep 1000 & sleep 1000' &) ; exec sleep 1000",
         "timeout_seconds": 1} => ["timed out"]
    one_that_fills_the_memory: {"command": "head -c 1G /dev/zero | tail", "timeout_seconds": 30} => ["out of memory"]
    one_that_fills_the_memory_as_root:
        {"command": "head -c 1G /dev/zero | tail", "timeout_seconds": 30, "as_root": true} => ["out of memory"]
    one_that_fills_the_shared_memory_and_leaves_it_full: {"command": "head -c 1G /dev/zero > /dev/shm/big"}
        => ["exit code: 1", "No space left on device"]
    one_that_leaves_segments_of_shared_memory: {"command": "for i in {1..40}; do perl -e \
        '$id = shmget(0, 4 << 20, 0600 | 512) // die $!; shmwrite($id, \"x\" x (4 << 20), 0, 4 << 20) || die $!' || break; \
        done; echo $i"} => ["exit code: 0\n40"]
    one_that_kills_all_it_can: {"command": "kill -9 -1; kill -9 $$", "timeout_seconds": 5} => ["ended by signal 9"]
    one_that_kills_all_it_can_as_root: {"command": "kill -9 -1; kill -9 1; kill -9 $$", "as_root": true}
        => ["ended by signal 9"]
    one_that_wants_a_namespace_of_its_own:
        {"command": "for what in --user --mount --net --pid; do unshare --map-root-user $what true && echo nested; done; \
            mount -t tmpfs none /mnt"}
        => ["unshare failed: Operation not permitted", "mount: /mnt: must be superuser"]
    one_that_wants_a_namespace_of_its_own_as_root:
        {"command": "unshare --user true || unshare --mount true || chroot / true", "as_root": true}
        => ["unshare failed: Operation not permitted", "chroot: cannot change root directory"]
    // The shell passes on no path of where it is, which would soon be too long to start anything.
    one_that_nests_folders_without_end:
        {"command": "export -n PWD OLDPWD; d=$(printf 'd%.0s' {1..200}); while mkdir $d && cd $d; do :; done; sleep 1000",
         "timeout_seconds": 2}
        => ["timed out"]
}

/// In the workspace writing fails by itself; in the container's own layer it is ended, also with a file without a name.
#[test]
fn one_that_fills_the_disk_is_ended_and_what_it_wrote_can_be_deleted() {
    for (place, gone) in
        [("/workspace/big", false), ("/var/tmp/big", false), ("/workspace/big", true), ("/var/tmp/big", true)]
    {
        let unlink = if gone { "rm $0;" } else { "" };
        // In steps, so that a machine under load is not filled up before anybody looks.
        let fill = format!(
            "exec bash -c 'exec 3> $0; {unlink} for i in {{1..400}}; do head -c 8M /dev/zero >&3 || exit; sleep 0.05; \
             done' {place}"
        );
        let look = format!("rm -f {place}; head -c 8M /dev/zero > /workspace/small && echo usable");
        let [told, after] = run(&json!({"command": fill, "timeout_seconds": 60}), &look);
        if place.starts_with("/workspace") {
            assert!(told.contains("exit code: 1") && told.contains("No space left on device"), "{place}: {told}");
        } else {
            assert!(told.contains("disk full") && told.contains("Delete what is not needed"), "{place}: {told}");
        }
        assert_eq!(after, "exit code: 0\nusable", "{}", Path::new(place).display());
    }
}

/// Whoever is not sandboxd is turned away at the room's socket, which is a line of the log: a loop of it fills no disk.
#[test]
fn one_that_knocks_at_the_servers_socket_without_end_fills_no_log() {
    let knock = "from=$EPOCHREALTIME; perl -MSocket -e 'while (1) { socket(my $s, PF_UNIX, SOCK_STREAM, 0); \
                 connect($s, sockaddr_un(\"/run/matrix-agent/sock\")) or next; $n++ == 7000 and exit }'; \
                 echo knocked for $(( (${EPOCHREALTIME/./} - ${from/./}) / 1000 )) ms";
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    llm.reply_calls(&[("run_command", json!({"command": knock, "timeout_seconds": 60}))]).reply_text("Survived.");
    let (code, frames) = rig.ask("hostile", "go").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(&requests[1])[0];
    let took = told.strip_prefix("exit code: 0\nknocked for ").and_then(|told| told.strip_suffix(" ms"));
    // 7000 at some hundred in a second; the first 4096 wait in the kernel, and hold up nobody.
    assert!(took.is_some_and(|took| took.parse::<u64>().unwrap() > 2500), "{told}");
    let lines = server.log().matches("not its PID 1 connected and was turned away").count();
    // As many as are let through in a minute, and it may have been at work in two.
    assert!((1..=40).contains(&lines), "{lines} lines");
    let log = server.stop();
    let sum = log.lines().find(|line| line.contains("lines were left out of the log")).expect("a sum at the end");
    assert!(sum.contains("room=terminal:hostile") && sum.contains("turned away"), "{sum}");
}

/// The most memory that a process has had, in MiB.
fn most_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// A model under somebody's spell sends what it can: 48 files of 20 MB, sixteen at a time.
#[test]
fn one_that_sends_files_without_end_fills_neither_memory_nor_database() {
    let llm = block_on(ScriptedLlm::start());
    llm.when("others").reply_text("Still here.");
    llm.reply_calls(&[("run_command", json!({"command": "head -c 20000000 /dev/urandom > big"}))]);
    let send: Vec<_> = (0..16).map(|_| ("send_file", json!({"path": "big"}))).collect();
    llm.reply_calls(&send).reply_calls(&send).reply_calls(&send).reply_text("All sent.");
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    let mut chat = rig.ask("hostile", "send it all");
    chat.until("the first file", |frame| frame["event"] == "file");
    // Another room is answered meanwhile.
    assert_eq!(rig.ask("calm", "others?").finish().0, 0);
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1));
    let files = frames.iter().filter(|frame| frame["event"] == "file").count();
    assert_eq!(files, 5, "a hundred megabytes a turn");
    let requests = llm.requests();
    let told = results(requests.last().unwrap());
    let refused = told.iter().filter(|told| told.contains("100 MiB is the limit of a turn")).count();
    assert_eq!((told.len(), refused), (1 + 48, 43));

    // Two files at a time, each in some copies on its way, and not the 960 MB of all.
    let memory = most_memory(server.pid());
    assert!(memory < 480, "{memory} MiB");
    let state = rig.database().parent().unwrap().to_owned();
    let size = |name: &str| std::fs::metadata(state.join(name)).map_or(0, |file| file.len());
    assert!(size("matrix-agent.db") < 4 << 20, "{}", size("matrix-agent.db"));
    assert!(size("matrix-agent.db-wal") < 17 << 20, "{}", size("matrix-agent.db-wal"));
    wait("the sent files to be gone", || std::fs::read_dir(state.join("outgoing")).unwrap().next().is_none());
}

/// Files that no walk over directories finds, in the container's own layer, which nothing limits by itself.
#[test]
fn one_that_hides_files_on_the_disk_is_ended() {
    let make = "import mmap, os, socket, time\n\
        a, b = socket.socketpair()\n\
        kept = []\n\
        for i in range(200):\n\
        \x20   fd = os.open(f'/var/tmp/{i}', os.O_RDWR | os.O_CREAT)\n\
        \x20   os.unlink(f'/var/tmp/{i}')\n\
        \x20   os.write(fd, b'x' * (4 << 20))\n\
        \x20   HIDE\n\
        \x20   os.close(fd)\n\
        \x20   time.sleep(0.1)\n";
    for (how, hide) in [
        ("mapped and closed", "kept.append(mmap.mmap(fd, 4 << 20))"),
        ("on its way between processes", "socket.send_fds(a, [b'x'], [fd])"),
    ] {
        let script = format!("python3 -c \"{}\"", make.replace("HIDE", hide));
        let [told, after] = run_in(FULL, &json!({"command": script, "timeout_seconds": 60}), "echo usable");
        assert!(told.contains("disk full"), "{how}: {told}");
        assert_eq!(after, "exit code: 0\nusable", "{how}");
    }
}

/// Empty files take no bytes, but the host's inodes.
#[test]
fn one_that_makes_files_without_end_is_ended() {
    let make = "mkdir /var/tmp/many; cd /var/tmp/many; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); : > $i; \
        [ $((i % 1000)) = 0 ] && sleep 0.2; done";
    let look = "rm -r /var/tmp/many && echo usable";
    let [told, after] = run(&json!({"command": make, "timeout_seconds": 60}), look);
    assert!(told.contains("disk full"), "{told}");
    assert_eq!(after, "exit code: 0\nusable");
}

/// How long the second room's command takes, at the median, while `hostile` runs in the first.
fn beside(rig: &Rig, llm: &ScriptedLlm, hostile: &str) -> Duration {
    llm.reply_calls(&[("run_command", json!({"command": hostile, "timeout_seconds": 12}))]).reply_text("Over.");
    let mut hog = rig.ask("hog", "go");
    hog.until("the command", |frame| frame.to_string().contains("run_command"));
    let mut times: Vec<_> = (0..41)
        .map(|_| {
            let started = Instant::now();
            let done = rig.run(&["sandbox", "exec", "other", "--", "sh", "-c", "echo on > file && cat file"]);
            assert_eq!(String::from_utf8_lossy(&done.stdout), "on\n", "{done:?}");
            started.elapsed()
        })
        .collect();
    hog.finish();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn one_that_fills_the_disk_costs_the_next_room_no_more_than_one_that_spins() {
    let llm = block_on(ScriptedLlm::start());
    let mut rig = Rig::new(BARE, llm.base_url());
    rig.set("SANDBOX_DISK", "64m");
    let _server = rig.serve();
    for room in ["hog", "other"] {
        llm.reply_calls(&[("run_command", json!({"command": "true"}))]).reply_text("Ready.");
        rig.ask(room, "begin").finish();
    }
    let mut spins = beside(&rig, &llm, "while :; do :; done");
    for hostile in [
        "while :; do head -c 4M /dev/zero >> /var/tmp/big; done",
        "while :; do head -c 4M /dev/zero >> /workspace/big; done",
        "mkdir -p /var/tmp/many; cd /var/tmp/many; i=0; while :; do i=$((i+1)); : > $i; done",
    ] {
        // What else this machine does comes and goes, and may fall on one of the two alone: what is so by itself is so
        // each time, and both are measured anew for that.
        let mut fills = beside(&rig, &llm, hostile);
        for _ in 0..2 {
            if fills > spins.mul_f64(1.5) {
                spins = beside(&rig, &llm, "while :; do :; done");
                fills = beside(&rig, &llm, hostile);
            }
        }
        assert!(fills <= spins.mul_f64(1.5), "{hostile}: {fills:?} beside {spins:?}");
    }
}
