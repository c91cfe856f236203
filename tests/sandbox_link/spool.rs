//! Commands whose streams are kept for a server that goes and comes back.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use matrix_agent::sandbox::{Command, Exit, Lookup, Process, Sandbox, SandboxError, Stdin, Word};
use tokio::time::timeout;

use crate::{
    commands::{all_output, read_until},
    room::{LIMIT, Room, shell, text},
};

fn spooled(id: &str, script: &str, stdin: Stdin) -> Command {
    Command { id: id.into(), stdin, spooled: true, ..shell(script) }
}

fn kept(begins: &'static str, idle: Duration) -> Stdin {
    Stdin::Kept { begins: begins.into(), idle }
}

/// Finds a running command from a byte on.
async fn from(sandbox: &Sandbox, id: &str, byte: u64) -> Process {
    match timeout(LIMIT, sandbox.attach(id, Some(byte))).await.unwrap().unwrap() {
        (Lookup::Running(process), true) => process,
        _ => panic!("{id} does not run with a spool"),
    }
}

/// Numbers on lines, which tell their place.
fn numbers(upto: u32) -> String {
    (1..=upto).fold(String::new(), |mut all, n| {
        let _ = writeln!(all, "{n}");
        all
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_comes_once_and_the_input_goes_on_though_the_server_was_away() {
    let (mut room, sandbox) = Room::start().await;
    let script = "while read -r word; do echo got $word; echo err $word >&2; done; seq 1 200000; exit 3";
    let mut process = sandbox.spawn(spooled("a", script, kept("first\n", LIMIT))).await.unwrap();
    let mut seen = read_until(&mut process, "got first\n").await;
    assert_eq!(sandbox.write("a", "1", "one\n".into(), false).await.unwrap(), Word::Taken);
    assert_eq!(sandbox.write("a", "1", "one\n".into(), false).await.unwrap(), Word::Before);
    seen.push_str(&read_until(&mut process, "got one\n").await);
    assert_eq!((seen.as_str(), process.written()), ("got first\ngot one\n", 18));

    room.drop_link();
    drop(process);
    let sandbox = room.relink().await;
    let mut process = from(&sandbox, "a", 18).await;
    assert_eq!(sandbox.write("a", "1", "one\n".into(), false).await.unwrap(), Word::Before, "it knows that still");
    assert_eq!(sandbox.write("a", "2", "two\n".into(), false).await.unwrap(), Word::Taken);
    assert_eq!(read_until(&mut process, "got two\n").await, "got two\n", "nothing comes again");
    let mut whole = from(&sandbox, "a", 0).await;
    assert_eq!(read_until(&mut whole, "two").await, "got first\ngot one\ngot two\n");
    drop(process);

    assert_eq!(sandbox.write("a", "3", "three\n".into(), true).await.unwrap(), Word::Taken);
    let told = format!("got three\n{}", numbers(200_000));
    assert_eq!(all_output(&mut whole).await, told.as_bytes());
    let all = 26 + told.len() as u64;
    assert_eq!(whole.written(), all);
    let ended = timeout(LIMIT, whole.wait()).await.unwrap().unwrap();
    let kept = ended.output.spooled.clone().unwrap();
    assert_eq!((ended.exit, kept.end, ended.output.log.clone()), (Exit::Code(3), all, None));
    assert_eq!(&kept.errors[..], b"err first\nerr one\nerr two\nerr three\n");

    // Once it has ended, it is read from its files.
    let (Lookup::Ended(again), _) = sandbox.attach("a", Some(26)).await.unwrap() else { panic!("it has ended") };
    for (from, rest) in [(26, &told[..]), (26 + 10 + 500_000, &told[10 + 500_000..]), (all - 3, "00\n"), (all, "")] {
        let read = sandbox.rest(&again.output, from).await.unwrap();
        assert_eq!((read.len(), &read[..] == rest.as_bytes()), (rest.len(), true), "from {from}");
    }
    assert_eq!(sandbox.write("a", "4", "late\n".into(), false).await.unwrap(), Word::Closed);
    assert_eq!(sandbox.write("never", "1", "x".into(), false).await.unwrap(), Word::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_loses_its_oldest_and_says_how_much_and_nothing_waits_for_a_server() {
    let (mut room, sandbox) = Room::start().await;
    let script = "until [ -e /tmp/go ]; do sleep 0.02; done; seq 1 1700000; touch /tmp/written
        until [ -e /tmp/end ]; do sleep 0.02; done; echo last";
    drop(sandbox.spawn(spooled("a", script, Stdin::Null)).await.unwrap());
    room.drop_link();
    room.aside("touch /tmp/go; until [ -e /tmp/written ]; do sleep 0.02; done");
    let sandbox = room.relink().await;
    let mut process = from(&sandbox, "a", 0).await;
    room.aside("touch /tmp/end");
    let read = String::from_utf8(all_output(&mut process).await).unwrap();
    let whole = numbers(1_700_000) + "last\n";
    assert_eq!(process.written(), whole.len() as u64);
    let (note, kept) = read.trim_start().split_once("…]\n").unwrap();
    assert!(whole.ends_with(kept), "{kept:.100}");
    let missing = whole.len() - kept.len();
    assert!(note.contains(&format!(" {missing} bytes of earlier output")), "{note}");
    assert!((4..=8).contains(&(kept.len() >> 20)), "{} bytes are kept", kept.len());
    let ended = timeout(LIMIT, process.wait()).await.unwrap().unwrap();
    let rest = sandbox.rest(&ended.output, 20_000).await.unwrap();
    let (note, rest) = str::from_utf8(&rest).unwrap().trim_start().split_once("…]\n").unwrap();
    assert!(note.contains(&format!(" {} bytes of earlier output", missing - 20_000)), "{note}");
    assert!(rest == kept, "the files say the same");
    let disk = Command { id: "du".into(), ..shell("cat ~/.cache/matrix-agent/a*log | wc -c") };
    let size: usize = text(&crate::room::run(&sandbox, disk).await.output).trim().parse().unwrap();
    assert_eq!(size, kept.len());
}

/// A server that listens, and reads slowly, misses nothing: the command waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_a_server_that_listens() {
    let (_room, sandbox) = Room::start().await;
    let mut process = sandbox.spawn(spooled("a", "seq 1 1700000", Stdin::Null)).await.unwrap();
    let first = timeout(LIMIT, process.next()).await.unwrap().unwrap();
    let mut again = from(&sandbox, "a", 0).await;
    // Until now the first one listened; its stream was hung up.
    let read = all_output(&mut again).await;
    assert!(read.starts_with(&first) && read == numbers(1_700_000).as_bytes(), "{} bytes", read.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_declined_and_a_short_command_needs_no_stream() {
    let (_room, sandbox) = Room::start().await;
    for (stdin, spooled) in [(kept("", LIMIT), false), (Stdin::Stream, true)] {
        let command = Command { stdin, spooled, ..shell("true") };
        assert!(matches!(sandbox.spawn(command).await, Err(SandboxError::Declined(_))));
    }
    let long = Stdin::Bytes(vec![0; 513 * 1024].into());
    assert!(matches!(sandbox.spawn(spooled("b", "cat", long)).await, Err(SandboxError::TooLarge(_))));
    assert!(matches!(sandbox.write("b", "1", vec![0; 65 * 1024].into(), false).await, Err(SandboxError::TooLarge(_))));
    let input = Bytes::from("x".repeat(512 * 1024));
    let process = sandbox.spawn(spooled("c", "sleep 0.1; wc -c; echo bad >&2", Stdin::Bytes(input))).await.unwrap();
    let ended = timeout(LIMIT, process.wait()).await.unwrap().unwrap();
    assert_eq!((text(&ended.output).trim(), ended.exit), ("524288", Exit::Code(0)));
    assert_eq!(ended.output.spooled.unwrap().errors, "bad\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_left_alone_ends_and_one_that_is_used_does_not() {
    let (_room, sandbox) = Room::start().await;
    let idle = Duration::from_secs(2);
    // What it writes counts too.
    let script = "for n in 1 2 3; do sleep 1; echo $n; done; read -r word; echo got $word; read -r word || echo ended";
    let mut process = sandbox.spawn(spooled("idle", script, kept("", idle))).await.unwrap();
    read_until(&mut process, "3\n").await;
    assert_eq!(sandbox.write("idle", "1", "one\n".into(), false).await.unwrap(), Word::Taken);
    assert_eq!(all_output(&mut process).await, b"got one\nended\n");
    assert_eq!(sandbox.write("idle", "2", "two\n".into(), false).await.unwrap(), Word::Closed);
}
