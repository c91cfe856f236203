//! Commands, their trees, their output across a restart of the server, files and proxied connections.

use std::time::{Duration, Instant};

use bytes::Bytes;
use matrix_agent::sandbox::{
    Command, Exit, FileProblem, KillCause, LinkState, Lookup, Process, ProxyKind, SandboxError, Stdin, User,
};
use sandboxd::protocol;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::room::{KEY, LIMIT, Room, command, count, is_gvisor, output, run, shell, text};

/// Reads a process's output until `wanted` is in it.
pub(crate) async fn read_until(process: &mut Process, wanted: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        while let Some(chunk) = process.next().await {
            all.extend_from_slice(&chunk);
            if String::from_utf8_lossy(&all).contains(wanted) {
                break;
            }
        }
    };
    timeout(LIMIT, read).await.unwrap();
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(all.contains(wanted), "{all}");
    all
}

pub(crate) async fn all_output(process: &mut Process) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = timeout(LIMIT, process.next()).await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_as_the_agent_with_its_output_in_order() {
    let (_room, sandbox) = Room::start().await;

    let ended = run(&sandbox, shell("echo one; echo two >&2; echo three; exit 3")).await;
    assert_eq!((ended.exit, text(&ended.output).as_str()), (Exit::Code(3), "one\ntwo\nthree\n"));

    let facts = "id -u; id -un; id -Gn; pwd; umask; tty; grep -E 'Cap(Eff|Prm|Inh|Amb)|NoNewPrivs' /proc/self/status | tr '\\t' ' '
        cat /proc/self/oom_score_adj; echo $HOME $TERM $CI $https_proxy; echo ok > /dev/stderr; ls -l /proc/self/fd | wc -l";
    let facts = output(&sandbox, shell(facts)).await;
    let none = "0000000000000000";
    // gVisor does not tell of these; tests/runtimes.rs tries it.
    let more = if is_gvisor() { String::new() } else { format!("CapAmb: {none}\nNoNewPrivs: 1\n") };
    let expected = format!(
        "1000\nagent\nagent\n/workspace\n0022\nnot a tty\nCapInh: {none}\nCapPrm: {none}\nCapEff: {none}\n{more}\
         500\n/home/agent dumb http://127.0.0.1:3128\nok\n"
    );
    // Standard input, output and error, and the directory that `ls` reads, after a line with the total.
    assert_eq!(facts, expected + "5\n");

    let mut custom = shell("echo $CI $X; pwd");
    custom.env = vec![("CI".into(), "no".into()), ("X".into(), "a b".into())];
    custom.cwd = "/usr".into();
    assert_eq!(output(&sandbox, custom).await, "no a b\n/usr\n");

    // Neither PID 1 nor the command's warden is its to touch, or to look into; where their memory lies, gVisor tells everybody.
    let look = if is_gvisor() { "head -c 1 /proc/$p/mem" } else { "cat /proc/$p/maps /proc/$p/environ" };
    let touch = format!("for p in 1 $PPID; do kill -9 $p 2>/dev/null || {look} 2>/dev/null || echo no; done");
    assert_eq!(output(&sandbox, shell(&touch)).await, "no\nno\n");

    for (argv, cwd, expected) in [
        (&["nothing-like-this"][..], "", "the program nothing-like-this was not found"),
        (&["/etc/passwd"], "", "/etc/passwd is not executable"),
        (&["true"], "/nowhere", "the directory /nowhere does not exist"),
        (&["true"], "/root", "the directory /root cannot be entered"),
        (&[], "", "it names no program"),
    ] {
        let ended = run(&sandbox, Command { cwd: cwd.into(), ..command(argv) }).await;
        assert!(matches!(&ended.exit, Exit::NotStarted(why) if why.starts_with(expected)), "{:?}", ended.exit);
    }
    assert_eq!(run(&sandbox, shell("kill -SEGV $$")).await.exit, Exit::Signal(11));
    assert!(sandbox.ping().await.unwrap() < LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_comes_whole_and_ends() {
    let (_room, sandbox) = Room::start().await;
    let content = Bytes::from((0..3_000_000_u32).map(|place| (place % 251) as u8).collect::<Vec<_>>());

    let mut process =
        sandbox.spawn(Command { stdin: Stdin::Bytes(content.clone()), ..command(&["cat"]) }).await.unwrap();
    assert!(all_output(&mut process).await == content);
    assert_eq!(process.wait().await.unwrap().exit, Exit::Code(0));

    let unread = Command { stdin: Stdin::Bytes(content), ..shell("head -c 3 | wc -c") };
    assert_eq!(output(&sandbox, unread).await, "3\n");

    let mut process = sandbox.spawn(Command { stdin: Stdin::Stream, ..command(&["cat"]) }).await.unwrap();
    for word in ["one\n", "two\n"] {
        process.write(word.as_bytes()).await.unwrap();
        read_until(&mut process, word).await;
    }
    process.close_stdin().await.unwrap();
    assert_eq!(timeout(LIMIT, process.wait()).await.unwrap().unwrap().exit, Exit::Code(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_output_keeps_its_ends_and_goes_whole_to_a_log() {
    let (_room, sandbox) = Room::start().await;
    let ended = run(&sandbox, shell("seq 1 20000")).await;
    let whole = (1..=20_000).map(|number| number.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    let kept = &ended.output;
    assert_eq!(&kept.head[..], &whole.as_bytes()[..16 * 1024]);
    assert_eq!(&kept.tail[..], &whole.as_bytes()[whole.len() - 16 * 1024..]);
    assert_eq!(kept.omitted as usize, whole.len() - 32 * 1024);
    let log = kept.log.as_deref().unwrap();
    assert_eq!(output(&sandbox, shell(&format!("stat -c '%U %a' {log}; tail -n 1 {log}"))).await, "agent 644\n20000\n");
    assert!(sandbox.read_file(log, 0, 1 << 20).await.unwrap().bytes == whole);

    // No link of the agent's leads it, or what a spool keeps, to where the agent may not write.
    output(&sandbox, shell("rm -r ~/.cache/matrix-agent && ln -s /etc ~/.cache/matrix-agent")).await;
    assert_eq!(run(&sandbox, shell("seq 1 20000")).await.output.log, None);
    let spooled = run(&sandbox, Command { spooled: true, ..shell("seq 1 20000") }).await;
    assert_eq!(spooled.output.spooled.unwrap().files, []);
    assert_eq!(output(&sandbox, shell("find /etc -name '*.log*'; rm ~/.cache/matrix-agent")).await, "");

    // All of it goes to who reads along.
    let mut process = sandbox.spawn(shell("seq 1 20000")).await.unwrap();
    assert!(all_output(&mut process).await == whole.as_bytes());

    // 100 MB that nobody reads do not hold up a kill, nor another command.
    let flood = Command { id: "flood".into(), ..shell("exec cat /dev/zero") };
    let mut process = sandbox.spawn(flood).await.unwrap();
    assert!(process.next().await.is_some());
    assert_eq!(output(&sandbox, command(&["echo", "there"])).await, "there\n");
    let asked = Instant::now();
    sandbox.kill("flood").await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(process.wait().await.unwrap().exit, Exit::Killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_ends_the_whole_tree_whatever_it_does_against_it() {
    let (_room, sandbox) = Room::start().await;
    // Ignores SIGTERM; its child too; and a daemon by a double fork, in a session of its own, with no open output.
    let stubborn = "trap '' TERM; sleep 4711 & (setsid setsid sleep 4711 < /dev/null > /dev/null 2>&1 &) ; echo ready; sleep 4711; sleep 4711";
    for cause in [KillCause::Killed, KillCause::DiskFull] {
        let command = Command { id: format!("stubborn-{cause:?}"), ..shell(stubborn) };
        let mut process = sandbox.spawn(command.clone()).await.unwrap();
        read_until(&mut process, "ready").await;
        assert_eq!(sandbox.running().await.unwrap().len(), 1);
        let asked = Instant::now();
        sandbox.end(&command.id, cause).await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        let expected = if cause == KillCause::Killed { Exit::Killed } else { Exit::DiskFull };
        assert_eq!(process.wait().await.unwrap().exit, expected);
        assert_eq!(count(&sandbox, "4711").await, 0);
        // Again, when it has ended, and when it never was.
        sandbox.kill(&command.id).await.unwrap();
        sandbox.kill("never").await.unwrap();
    }

    let late = Command { timeout: Some(Duration::from_millis(300)), ..shell(stubborn) };
    let asked = Instant::now();
    assert_eq!(run(&sandbox, late).await.exit, Exit::TimedOut);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert_eq!(count(&sandbox, "4711").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_is_ended_and_the_sandbox_usable_after() {
    let (_room, sandbox) = Room::start().await;
    // Each of its processes forks as fast as it can, and none hears SIGTERM.
    let bomb = r#"$SIG{TERM} = "IGNORE"; $| = 1; print "lit"; while (1) { fork }"#;
    let bomb = Command { id: "bomb".into(), ..command(&["perl", "-e", bomb]) };
    let mut process = sandbox.spawn(bomb).await.unwrap();
    read_until(&mut process, "lit").await;
    // It has hit the limit of processes when another command finds no room; in gVisor sandboxd's own have a limit of theirs.
    let full = async { while !matches!(run(&sandbox, command(&["true"])).await.exit, Exit::NotStarted(_)) {} };
    if !is_gvisor() {
        timeout(LIMIT, full).await.unwrap();
    }
    // On a machine with nothing else to do this takes a tenth of a second. If it takes more than one, the server asks
    // for the container's end, which is the fleet's to do: here only the tree's end counts.
    let (_confirmed, ended) = tokio::join!(sandbox.kill("bomb"), process.wait());
    assert_eq!(ended.unwrap().exit, Exit::Killed);
    let left = output(&sandbox, shell("echo /proc/[0-9]* | wc -w")).await;
    assert!(left.trim().parse::<u32>().unwrap() <= 6, "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_behind_ends_with_it_unless_it_is_a_background_one() {
    let (_room, sandbox) = Room::start().await;
    let leaving = "sleep 4712 & sleep 4712 > /dev/null 2>&1 & echo left";
    let asked = Instant::now();
    let ended = run(&sandbox, shell(leaving)).await;
    assert_eq!((ended.exit, ended.output.ended_leftovers), (Exit::Code(0), 2));
    assert_eq!(&ended.output.head[..], b"left\n");
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(count(&sandbox, "4712").await, 0);

    let background = Command { id: "server".into(), background: true, ..shell(leaving) };
    let mut process = sandbox.spawn(background).await.unwrap();
    read_until(&mut process, "left").await;
    let running = sandbox.running().await.unwrap();
    assert!(running.len() == 1 && running[0].id == "server" && running[0].background);
    // The shell goes on before what it forked has become `sleep`.
    timeout(LIMIT, async { while count(&sandbox, "4712").await != 2 {} }).await.unwrap();
    sandbox.kill("server").await.unwrap();
    assert_eq!(count(&sandbox, "4712").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_finds_every_command_again() {
    let (mut room, sandbox) = Room::start().await;
    let boot = sandbox.boot_id().to_owned();
    // Writes far more than is kept while nobody listens, then waits for its input file.
    let script = "echo first; until [ -e /tmp/go ]; do sleep 0.05; done; seq 1 100000; echo middle; echo > /tmp/written
        until [ -e /tmp/end ]; do sleep 0.05; done; echo last";
    let mut process = sandbox.spawn(Command { id: "long".into(), ..shell(script) }).await.unwrap();
    read_until(&mut process, "first").await;
    let waiting = sandbox.spawn(Command {
        id: "timed".into(),
        timeout: Some(Duration::from_millis(500)),
        ..shell("echo a; sleep 60")
    });
    drop(waiting.await.unwrap());
    room.drop_link();
    assert!(matches!(timeout(LIMIT, process.wait()).await.unwrap(), Err(SandboxError::Disconnected)));
    assert!(!sandbox.is_connected());

    // Meanwhile it goes on, in spite of 600 KB that nobody reads.
    room.podman(&["container", "exists"]);
    let go = |room: &Room, file: &str| {
        room.aside(&format!("touch {file}; until [ -e /tmp/written ]; do sleep 0.05; done"));
    };
    go(&room, "/tmp/go");

    let sandbox = room.relink().await;
    assert_eq!(sandbox.boot_id(), boot);
    let Lookup::Running(mut process) = sandbox.lookup("long").await.unwrap() else { panic!("it does not run") };
    let kept = read_until(&mut process, "middle\n").await;
    assert!(kept.starts_with("first\n1\n2\n") && kept.contains("bytes of earlier output were not kept"), "{kept:.200}");
    go(&room, "/tmp/end");
    assert_eq!(all_output(&mut process).await, b"last\n");
    let ended = process.wait().await.unwrap();
    assert_eq!(ended.exit, Exit::Code(0));
    assert!(ended.output.omitted > 500_000 && ended.output.tail.ends_with(b"middle\nlast\n"));

    // Its time was enforced with no server there, and its result waited.
    let timed = async {
        loop {
            match sandbox.lookup("timed").await.unwrap() {
                Lookup::Running(process) => drop(process.wait().await.unwrap()),
                Lookup::Ended(ended) => break ended,
                Lookup::Forgotten | Lookup::Unknown => panic!("it was forgotten"),
            }
        }
    };
    let timed = timeout(LIMIT, timed).await.unwrap();
    assert_eq!((timed.exit, &timed.output.head[..]), (Exit::TimedOut, &b"a\n"[..]));
    assert!(matches!(sandbox.lookup("long").await.unwrap(), Lookup::Ended(again) if again == ended));
    assert!(matches!(sandbox.lookup("never").await.unwrap(), Lookup::Unknown));
    // Nothing runs twice.
    let twice = sandbox.spawn(Command { id: "long".into(), ..shell("true") }).await.unwrap();
    assert!(matches!(twice.wait().await, Err(SandboxError::Declined(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_runs_out_ends_the_command_and_is_named() {
    let (_room, sandbox) = Room::start().await;
    // A SIGKILL that it sent itself is told from the kernel's.
    assert_eq!(run(&sandbox, shell("kill -9 $$")).await.exit, Exit::Signal(9));
    if is_gvisor() {
        // That ends as a whole.
        let ended = sandbox.spawn(shell("exec tail /dev/zero")).await.unwrap().wait();
        assert!(matches!(timeout(LIMIT, ended).await.unwrap(), Err(SandboxError::Disconnected)));
        return;
    }
    assert_eq!(run(&sandbox, shell("exec tail /dev/zero")).await.exit, Exit::OutOfMemory);
    assert_eq!(run(&sandbox, shell("tail /dev/zero; exit $?")).await.exit, Exit::OutOfMemory);
    assert_eq!(output(&sandbox, command(&["echo", "there"])).await, "there\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_of_the_container_can_do_what_installing_needs() {
    let (room, sandbox) = Room::start().await;
    let mut agents = sandbox.spawn(Command { id: "agents".into(), ..shell("echo up; exec sleep 4713") }).await.unwrap();
    read_until(&mut agents, "up").await;
    timeout(LIMIT, async { while count(&sandbox, "4713").await != 1 {} }).await.unwrap();
    let script =
        "id -u; echo $HOME; install -o 7 -g 8 -m 600 /etc/passwd /usr/local/x && stat -c '%u %g %a' /usr/local/x
        kill -KILL $(grep -lx 'sleep.4713.' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | head -1) && echo killed
        KILL";
    // In gVisor root can kill PID 1, and read its environment, from which it has wiped what is nobody's business.
    let more = if is_gvisor() {
        format!("grep -a {}={KEY} /proc/1/environ || echo hidden", protocol::PROOF)
    } else {
        "kill -KILL 1; cat /proc/1/environ || echo hidden".to_owned()
    };
    let script = script.replace("        KILL", &more);
    let script = script.replace("grep -lx 'sleep.4713.'", "grep -lazE '^4713$'");
    let root = Command { user: User::Root, ..shell(&script) };
    let told = output(&sandbox, root).await;
    assert!(told.starts_with("0\n/root\n7 8 600\nkilled\n") && told.ends_with("hidden\n"), "{told}");
    assert_eq!(agents.wait().await.unwrap().exit, Exit::Signal(9));

    // Whoever kills a warden loses its command, and nothing else.
    let mut watched = sandbox
        .spawn(Command { id: "watched".into(), ..shell("echo up; (setsid sleep 4714 &); sleep 4714") })
        .await
        .unwrap();
    read_until(&mut watched, "up").await;
    let wardens = "w=; for s in /proc/[0-9]*/stat; do read -r pid _ _ parent _ < $s; [ $parent = 1 ] && [ $pid != $PPID ] && w=\"$w $pid\"; done; kill -9 $w";
    assert_eq!(run(&sandbox, Command { user: User::Root, ..shell(wardens) }).await.exit, Exit::Code(0));
    assert_eq!(timeout(LIMIT, watched.wait()).await.unwrap().unwrap().exit, Exit::Signal(9));
    timeout(LIMIT, async { while count(&sandbox, "4714").await > 0 {} }).await.unwrap();

    // And it stops at once when asked to.
    let _running = sandbox.spawn(shell("trap '' TERM; sleep 60; sleep 60")).await.unwrap();
    let asked = Instant::now();
    room.podman(&["stop", "--time=5"]);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let exit = room.podman(&["inspect", "--format", "{{.State.ExitCode}}"]);
    assert_eq!(String::from_utf8_lossy(&exit.stdout).trim(), "0");
    let mut states = room.link().watch();
    timeout(LIMIT, states.wait_for(|state| matches!(state, LinkState::Waiting))).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_and_written_as_the_agent() {
    let (_room, sandbox) = Room::start().await;
    let content = Bytes::from((0..2_500_000_u32).map(|place| (place % 253) as u8).collect::<Vec<_>>());
    sandbox.write_file("w1", "src/deep/a file.bin", content.clone()).await.unwrap();
    let slice = sandbox.read_file("/workspace/src/deep/a file.bin", 0, u64::MAX).await.unwrap();
    assert!(slice.size == 2_500_000 && slice.bytes == content);
    let slice = sandbox.read_file("src/deep/a file.bin", 2_499_990, 100).await.unwrap();
    assert_eq!((slice.size, slice.bytes), (2_500_000, content.slice(2_499_990..)));
    assert_eq!(output(&sandbox, shell("stat -c '%U %a' src/deep/*; ls -A src/deep")).await, "agent 644\na file.bin\n");
    assert!(matches!(sandbox.lookup("w1").await.unwrap(), Lookup::Ended(ended) if ended.exit == Exit::Code(0)));

    sandbox.write_file("w2", "empty", Bytes::new()).await.unwrap();
    assert_eq!(sandbox.read_file("empty", 0, 10).await.unwrap().bytes, Bytes::new());
    for (path, expected) in [
        ("missing", FileProblem::NotFound),
        ("src", FileProblem::IsDirectory),
        ("/dev/zero", FileProblem::NotRegular),
        ("/etc/shadow", FileProblem::Denied),
    ] {
        let error = sandbox.read_file(path, 0, 10).await.unwrap_err();
        assert!(matches!(&error, SandboxError::File { problem, .. } if *problem == expected), "{error}");
    }
    let error = sandbox.write_file("w3", "/etc/passwd", content).await.unwrap_err();
    assert!(matches!(&error, SandboxError::File { problem: FileProblem::Denied, .. }), "{error}");
}

async fn serve(room: &mut Room, kind: ProxyKind) {
    let mut proxied = timeout(LIMIT, room.proxies.recv()).await.unwrap().unwrap();
    assert_eq!(proxied.kind, kind);
    let mut hello = [0; 5];
    proxied.stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    proxied.stream.write_all(b"there").await.unwrap();
    proxied.stream.write_all(&vec![b'x'; 3_000_000]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_go_to_the_gateway_and_wait_for_it() {
    let (mut room, sandbox) = Room::start().await;
    // Says hello, ends its direction, and prints what comes back.
    let client = |port: u16| {
        shell(&format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; printf hello >&3; head -c 5 <&3; echo; head -c 3000000 <&3 | md5sum"
        ))
    };
    let digest = output(&sandbox, shell("head -c 3000000 /dev/zero | tr '\\0' x | md5sum")).await;
    for (port, kind) in [(3128, ProxyKind::Web), (3129, ProxyKind::Git), (3130, ProxyKind::Models)] {
        let (told, ()) = tokio::join!(output(&sandbox, client(port)), serve(&mut room, kind));
        assert_eq!(told, format!("there\n{digest}"));
    }

    let held = Command { id: "held".into(), ..client(3128) };
    let held = shell_after(&held, "until [ -e /tmp/away ]; do sleep 0.02; done");
    drop(sandbox.spawn(held).await.unwrap());
    room.drop_link();
    room.aside("touch /tmp/away");
    let sandbox = room.relink().await;
    serve(&mut room, ProxyKind::Web).await;
    let ended = match sandbox.lookup("held").await.unwrap() {
        Lookup::Running(process) => process.wait().await.unwrap(),
        Lookup::Ended(ended) => ended,
        Lookup::Forgotten | Lookup::Unknown => panic!("it was forgotten"),
    };
    assert_eq!(text(&ended.output), format!("there\n{digest}"));
}

fn shell_after(command: &Command, wait: &str) -> Command {
    let mut command = command.clone();
    command.argv[2] = format!("{wait}; {}", command.argv[2]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxd_stays_small() {
    let (_room, sandbox) = Room::start().await;
    for _ in 0..50 {
        output(&sandbox, shell("seq 1 5000 | tail -1")).await;
    }
    let rss = output(&sandbox, shell("grep VmRSS: /proc/1/status")).await;
    let rss = rss.trim_start_matches("VmRSS:").trim();
    let kilobytes: u64 = rss.trim_end_matches(" kB").parse().unwrap();
    // gVisor counts its whole binary, also what was never read of it.
    let bound = if is_gvisor() { 4096 } else { 2048 };
    assert!(kilobytes <= bound, "{rss}");
}
