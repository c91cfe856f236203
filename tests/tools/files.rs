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

#[tokio::test(flavor = "multi_thread")]
async fn line_ends_marks_and_encodings_are_told_and_kept() {
    let bench = Bench::open(PLAIN).await;
    let write = |path: &str, content: &str| bench.call("write_file", json!({"path": path, "content": content}));
    let read = |path: &str| bench.call("read_file", json!({"path": path}));
    // Each with one changed line, and then as many lines differ.
    for (name, bytes, told, changed) in [
        ("crlf", "a\\r\\nb\\r\\nc\\r\\n", "CRLF line ends", "a\\r\\nB\\r\\nc\\r\\n"),
        ("mixed", "a\\r\\nb\\nc\\r\\n", "mixed line ends", "a\\r\\nB\\nc\\r\\n"),
        ("cr", "a\\rb\\rc\\r", "CR line ends", "a\\rB\\rc\\r"),
        ("bom", "\\357\\273\\277a\\nb\\nc\\n", "a byte order mark", "\\357\\273\\277a\\nB\\nc\\n"),
        (
            "wide",
            "\\377\\376a\\0\\r\\0\\n\\0b\\0\\r\\0\\n\\0c\\0\\r\\0\\n\\0",
            "UTF-16 and CRLF line ends",
            "\\377\\376a\\0\\r\\0\\n\\0B\\0\\r\\0\\n\\0c\\0\\r\\0\\n\\0",
        ),
    ] {
        let has = async |bytes: &str| {
            assert_eq!(bench.sh(&format!("printf '{bytes}' | cmp - {name} && echo same")).await, "same", "{name}");
        };
        bench.sh(&format!("printf '{bytes}' > {name}")).await;
        let shown = read(name).await;
        assert!(shown.text.starts_with("a\nb\nc\n[") && shown.text.contains(told), "{name}: {}", shown.text);
        let written = write(name, "a\nB\nc\n").await;
        good(&written, &["(+1 −1)", told]);
        has(changed).await;
        let edit = json!({"path": name, "old_text": "a\nB\n", "new_text": "a\nb\n"});
        good(&bench.call("edit_file", edit).await, &["(+1 −1)"]);
        has(bytes).await;
    }
    bench.call("write_file", json!({"path": "crlf", "content": "d\n", "append": true})).await;
    assert_eq!(bench.sh("tail -c 5 crlf | od -An -c | tr -d ' '").await, "\\r\\nd\\r\\n");
    // A new file is written as it is given, and so is one that becomes another.
    good(&write("new", "a\r\nb\n").await, &["Created"]);
    assert_eq!(bench.sh("od -An -c new | tr -d ' '").await, "a\\r\\nb\\n");
    bench.sh("printf 'caf\\351\\n' > latin; printf 'a\\nb' > open").await;
    good(&read("latin").await, &["bytes that are not UTF-8"]);
    good(&write("latin", "café\n").await, &["It was bytes that are not UTF-8 before and is UTF-8 with LF now"]);
    good(&read("open").await, &["a\nb\n[the last line has no line end]"]);
    good(&write("open", "A\nb\n").await, &["(+1 −1)"]);
    assert_eq!(bench.sh("od -An -c open | tr -d ' '").await, "A\\nb");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_diff_of_one_changed_line_in_a_crlf_file_is_one_line() {
    let bench = Bench::open(crate::bench::FULL).await;
    bench.sh("git init -q . && printf 'a\\r\\nb\\r\\nc\\r\\n' > f.txt && git add . && git commit -qm one").await;
    bench.call("write_file", json!({"path": "f.txt", "content": "a\nchanged\nc\n"})).await;
    assert_eq!(bench.sh("git diff --numstat").await, "1\t1\tf.txt");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_found_by_a_name_that_looks_the_same() {
    let bench = Bench::open(PLAIN).await;
    let (typed, real) = ("shots Müller/Bild 3 PM.txt", "shots Mu\u{308}ller/Bild\u{a0}3\u{202f}PM.txt");
    bench.sh(&format!("mkdir -p 'shots Mu\u{308}ller'; echo text > '{real}'")).await;
    good(&bench.call("read_file", json!({"path": typed})).await, &["whose name looks the same", real, "text"]);
    let edit = json!({"path": typed, "old_text": "text", "new_text": "more"});
    good(&bench.call("edit_file", edit).await, &["whose name looks the same", "Edited"]);
    let sent = bench.call("send_file", json!({"path": typed})).await;
    good(&sent, &["whose name looks the same", "goes to the room as Bild 3 PM.txt"]);
    let write = json!({"path": typed, "content": "more and more\n"});
    good(&bench.call("write_file", write).await, &["whose name looks the same", "Replaced"]);
    let new = json!({"path": "shots Müller/new.txt", "content": "new\n"});
    good(&bench.call("write_file", new).await, &["whose name looks the same", "Created"]);
    assert_eq!(bench.sh("ls | grep -c shots; ls shots*").await.lines().count(), 3, "neither is there twice");
    // Of two that look the same none is taken, and one that is there is itself.
    bench.sh(&format!("echo two > '{}'", real.replace('\u{a0}', " "))).await;
    bad(&bench.call("read_file", json!({"path": typed})).await, &["no such file"]);
    good(&bench.call("read_file", json!({"path": real})).await, &["more"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_a_link_says_where_it_went() {
    let bench = Bench::open(PLAIN).await;
    bench.sh("ln -s real/new.txt dangling; echo old > there; ln -s there link").await;
    let write = |path: &str| bench.call("write_file", json!({"path": path, "content": "content\n"}));
    good(&write("dangling").await, &["dangling is a link", "/workspace/real/new.txt", "It led to nothing before"]);
    good(&write("link").await, &["link is a link", "/workspace/there"]);
    let edit = json!({"path": "link", "old_text": "content", "new_text": "edited"});
    good(&bench.call("edit_file", edit).await, &["link is a link"]);
    assert_eq!(
        bench.sh("cat real/new.txt there; readlink dangling link").await,
        "content\nedited\nreal/new.txt\nthere"
    );
    assert!(!write("plain").await.text.contains("link"));
    bench.close().await;
}
