//! Files, written, edited and read.

use serde_json::{Value, json};

use crate::bench::{Bench, PLAIN, bad, good, run};

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_and_edited() {
    let bench = Bench::open(PLAIN).await;
    let write = |path: &str, content: &str| bench.call("write_file", json!({"path": path, "content": content}));
    let edit = |path: &str, old: &str, new: &str| {
        bench.call("edit_file", json!({"path": path, "old_text": old, "new_text": new}))
    };

    let created = write("src/deep/grüße 世界.txt", "one\ntwo\n").await;
    good(&created, &["Created /workspace/src/deep/grüße 世界.txt: 2 lines, 8 B"]);
    assert_eq!(created.summary, "created src/deep/grüße 世界.txt (+2 −0)");
    assert_eq!(created.facts.edits.len(), 1);
    good(&write("src/deep/grüße 世界.txt", "one\n2\n3\n").await, &["Replaced", "2 lines before, 3 now (+2 −1)"]);
    let same = write("src/deep/grüße 世界.txt", "one\n2\n3\n").await;
    good(&same, &["Unchanged"]);
    assert!(same.facts.edits.is_empty());
    let more =
        bench.call("write_file", json!({"path": "src/deep/grüße 世界.txt", "content": "4\n", "append": true})).await;
    good(&more, &["Added to", "4 lines"]);
    assert_eq!(bench.sh("cat src/deep/*; stat -c %U src/deep/*").await, "one\n2\n3\n4\nagent");

    bench.sh("mkfifo pipe; printf '#!/bin/sh\\r\\necho 1\\r\\n' > run.sh; chmod 750 run.sh; ln -s run.sh link; mkdir dir").await;
    let edited = edit("run.sh", "echo 1", "echo 2\necho 3").await;
    good(&edited, &["Edited /workspace/run.sh (+2 −1).", "Lines 1–3 of 3 now:"]);
    assert_eq!(edited.summary, "edited run.sh (+2 −1)");
    assert_eq!(
        bench.sh("od -c run.sh | grep -c '\\\\r'; stat -c %a run.sh; tail -n 1 run.sh | tr -d '\\r'").await,
        "2\n750\necho 3"
    );
    good(&edit("run.sh", "#!/bin/sh\necho 2\n", "#!/bin/sh\necho 4\n").await, &["inexact (line ends)"]);
    bad(&edit("run.sh", "echo", "x").await, &["2 times", "lines 2, 3"]);
    bad(&edit("run.sh", "echo 5", "x").await, &["is not in", "The nearest lines, from line"]);
    bad(&edit("run.sh", "", "x").await, &["old_text is empty"]);
    bad(&edit("run.sh", "a", "a").await, &["nothing to change"]);

    for path in ["dir", "pipe", "not/there", "/proc/version", "/dev/zero", "/dev/full"] {
        bad(&edit(path, "x", "y").await, &[path]);
    }
    for path in ["dir", "pipe", "/etc/passwd", "/proc/version", "dir/", "run.sh/x"] {
        bad(&write(path, "x").await, &[path]);
    }
    bad(&write("big", &"x".repeat(3 << 20)).await, &["3 MiB", "2 MiB is the limit"]);
    bench.sh("truncate -s 10G huge; printf 'caf\\351' > latin").await;
    bad(&edit("huge", "x", "y").await, &["10 GiB"]);
    bad(&edit("latin", "caf", "y").await, &["not UTF-8"]);
    good(&write("huge", "small\n").await, &["Replaced /workspace/huge: 10 GiB before, 1 lines"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_within_bounds() {
    let bench = Bench::open(PLAIN).await;
    let read = |arguments: Value| bench.call("read_file", arguments);
    bench
        .sh("seq 1 5000 > numbers; : > empty; mkfifo pipe; mkdir dir; truncate -s 10G sparse; ln -s /etc/passwd out")
        .await;
    bench
        .sh("head -c 300000 /dev/zero | tr '\\0' y > long; cp /bin/ls elf; seq 1 200000 > many; ln -s loop loop")
        .await;

    let first = read(json!({"path": "numbers"})).await;
    good(&first, &["1\n2\n3\n", "\n2000\n[lines 1–2000 of 5000 lines; go on with offset=2001]"]);
    let range = read(json!({"path": "numbers", "offset": 4999, "limit": 10})).await;
    assert_eq!(range.text, "4999\n5000\n[lines 4999–5000 of 5000 lines: the end]");
    bad(&read(json!({"path": "numbers", "offset": 9999})).await, &["behind the end", "5000 lines"]);
    let far = read(json!({"path": "many", "offset": 150_000, "limit": 1})).await;
    good(&far, &["150000\n[lines 150000–150000 of 1.2 MiB; go on with offset=150001]"]);
    let long = read(json!({"path": "long"})).await;
    good(&long, &["yyyy", "[line of 300000 bytes cut]", "1 lines were cut at 2000 characters"]);
    assert!(long.text.len() < 2200);
    good(&read(json!({"path": "empty"})).await, &["/workspace/empty is empty"]);
    good(&read(json!({"path": "elf"})).await, &["an ELF program", "not shown"]);
    good(&read(json!({"path": "out"})).await, &["root:x:0:0"]);
    good(&read(json!({"path": "/proc/version"})).await, &["Linux"]);
    good(&read(json!({"path": "sparse"})).await, &["binary data, 10 GiB"]);
    bench.sh("printf 'text\\n' | dd of=sparse conv=notrunc status=none").await;
    for (path, says) in [
        ("dir", "is a directory"),
        ("pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("not/there", "no such file"),
        ("loop", "loop"),
        ("/etc/shadow", "may not"),
        ("a\0b", "NUL"),
        ("", "path is empty"),
    ] {
        bad(&read(json!({"path": path})).await, &[says]);
    }

    // The smallest PNG.
    bench.sh("echo iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg== | base64 -d > dot.png").await;
    let picture = read(json!({"path": "dot.png"})).await;
    good(&picture, &["is a picture (image/png, 70 B); it follows"]);
    assert_eq!((picture.images.len(), picture.images[0].mime.as_str()), (1, "image/png"));
    let (mut context, _progress) = bench.context();
    context.vision = false;
    let unseen = run(&context, "read_file", &json!({"path": "dot.png"})).await;
    good(&unseen, &["You cannot see pictures"]);
    assert!(unseen.images.is_empty());
    bench.sh("cp dot.png big.png; truncate -s 4M big.png; cp dot.png huge.png; truncate -s 33M huge.png").await;
    let big = read(json!({"path": "big.png"})).await;
    good(&big, &["is a picture (image/png, 4 MiB); it follows"]);
    assert!(big.images[0].data.len() < 1000, "made anew without what lies behind it");
    bad(&read(json!({"path": "huge.png"})).await, &["33 MiB, and 32 MiB is the limit"]);
    bench.sh("head -c 40 dot.png > cut.png").await;
    bad(&read(json!({"path": "cut.png"})).await, &["it cannot be shown: it is broken"]);

    let sent = bench.call("send_file", json!({"path": "dot.png"})).await;
    good(&sent, &["goes to the room as dot.png"]);
    assert_eq!((sent.attachments[0].name.as_str(), sent.attachments[0].data.len()), ("dot.png", 70));
    bench.sh("truncate -s 19M fits; echo x >> fits; truncate -s 30M large").await;
    assert_eq!(bench.call("send_file", json!({"path": "fits"})).await.attachments[0].data.len(), (19 << 20) + 2);
    for (path, says) in [
        ("large", "30 MiB"),
        ("sparse", "10 GiB"),
        ("empty", "is empty"),
        ("dir", "is a directory"),
        ("pipe", "not a regular"),
        ("x", "no such file"),
    ] {
        bad(&bench.call("send_file", json!({"path": path})).await, &[says]);
    }
    bench.close().await;
}
