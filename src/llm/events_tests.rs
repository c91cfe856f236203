//! Tests with bodies of all shapes, cut at any place.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

async fn read(pieces: Vec<Vec<u8>>) -> (Vec<String>, Watch) {
    let watch = Arc::new(Watch::default());
    let body = stream::iter(pieces).map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
    let events: Vec<_> = events(body, watch.clone())
        .map(|event| match event {
            Ok(event) => {
                let text = String::from_utf8(event.to_vec()).expect("UTF-8");
                let data = text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).expect("one event");
                assert!(!data.contains('\n'), "{data}");
                serde_json::from_str::<Value>(data).expect("JSON").to_string()
            }
            Err(_) => "broken".to_owned(),
        })
        .collect()
        .await;
    (events, Arc::try_unwrap(watch).expect("the stream is gone"))
}

async fn whole(body: &[u8]) -> (Vec<String>, Watch) {
    read(vec![body.to_vec()]).await
}

const TWO: [&str; 2] = [r#"{"a":1}"#, r#"{"b":"x"}"#];

#[tokio::test]
async fn events_come_whole_wherever_they_are_cut() {
    let text: &[u8] = b": hello\n\nevent: x\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid: 3\ndata:{\"b\":\"x\"}\n\ndata: [DONE]\n\ndata: late";
    for cut in 0..text.len() {
        let (events, watch) = read(vec![text[..cut].to_vec(), text[cut..].to_vec()]).await;
        assert_eq!(events, TWO, "cut at {cut}");
        assert!(watch.is_done());
    }
}

#[tokio::test]
async fn two_events_in_every_form_that_servers_send_them() {
    let forms: [&[u8]; 17] = [
        b"data: {\"a\":1}\n\ndata: {\"b\":\"x\"}\n\n",
        b"data: {\"a\":1}\r\n\r\ndata: {\"b\":\"x\"}\r\n\r\n",
        b"data: {\"a\":1}\r\rdata: {\"b\":\"x\"}\r\r",
        b"data: {\"a\":1}\ndata: {\"b\":\"x\"}\n",
        b"data: {\"a\":1}\rdata: {\"b\":\"x\"}",
        b"data: {\"a\":1}data: {\"b\":\"x\"}",
        b"\xef\xbb\xbfdata: {\"a\":1}\n\ndata: {\"b\":\"x\"}\n\n",
        b"\n \n\xef\xbb\xbf{\"a\":1}{\"b\":\"x\"}",
        b"{\"a\":1}\n{\"b\":\"x\"}",
        b"{\r\n  \"a\": 1\r\n}\r\n\r\n{\r\n\r\n  \"b\": \"x\"\r\n}",
        b"data: {\n  \"a\": 1\n}\n\ndata: {\n\"b\":\n\"x\"}\n\n",
        b"data: {\"a\":\ndata: 1}\n\ndata: {\"b\":\ndata: \"x\"}\n\n",
        b"data: data: {\"a\":1}\n\ndata:data:{\"b\":\"x\"}\n\n",
        b"  data: {\"a\":1}\n\n\tdata: {\"b\":\"x\"}\n\n",
        b"event: a\nid: 1\nretry: 3\ndata: {\"a\":1}\n\n: ping\n\nevent: b\ndata: {\"b\":\"x\"}\n\n",
        b"data: {\"a\":1}\n\n{\"b\":\"x\"}\n\n",
        b"nonsense\ndata: {\"a\":1}\n\ndata\nmore of it\ndata: {\"b\":\"x\"}\n\n",
    ];
    for form in forms {
        for cut in 0..form.len() {
            let (events, watch) = read(vec![form[..cut].to_vec(), form[cut..].to_vec()]).await;
            assert_eq!(
                (events, watch.fault()),
                (TWO.map(str::to_owned).to_vec(), None),
                "{} cut at {cut}",
                String::from_utf8_lossy(form)
            );
        }
    }
}

#[tokio::test]
async fn what_strict_readers_refuse_is_mended_and_what_is_cut_off_is_not() {
    let (events, watch) =
        whole(b"data: {\"a\":\"\\ud83d\"}\n\ndata: {\"a\":\"\xff\"}\n\ndata: {\"a\":\"\t\"}\n\n").await;
    assert_eq!(events, [r#"{"a":"�"}"#, r#"{"a":"�"}"#, r#"{"a":"\t"}"#]);
    assert_eq!(watch.fault(), None);
    // Line breaks in a string that are not escaped.
    for body in ["data: {\"a\":\"b\n\n  c\"}\n\n", "{\"a\":\"b\n\n  c\"}", "data: {\"a\":\"b\r\n\r\n  c\"}\r\n\r\n"] {
        let (events, watch) = whole(body.as_bytes()).await;
        assert_eq!((events, watch.fault()), (vec![r#"{"a":"b\n\n  c"}"#.to_owned()], None), "{body:?}");
    }
    for cut_off in ["data: {\"a\":\"b", "data: {\"a\":1", "{\"a\":1", "data: {oops\n\ndata: {}\n\n", "data: {'a':1}"] {
        let (events, watch) = whole(cut_off.as_bytes()).await;
        assert_eq!((events, watch.fault()), (vec!["broken".to_owned()], Some(Fault::Garbled)), "{cut_off}");
    }
}

#[tokio::test]
async fn words_in_place_of_events_are_kept() {
    let (events, watch) = whole(b"upstream connect error\nor disconnect").await;
    assert_eq!((events.len(), watch.words(), watch.is_done()), (0, Some("upstream connect error"), false));
    let (events, _) = whole(b"event: error\ndata: the model \"x\" is\noverloaded\n\n").await;
    assert_eq!(events, [r#"{"error":{"message":"the model \"x\" is"}}"#]);
    let (_, watch) = whole(b"\n <!doctype html>\n<title>Log in</title>").await;
    assert_eq!(watch.fault(), Some(Fault::WebPage));
}

#[tokio::test]
async fn the_end_is_told_from_a_lost_connection() {
    for (body, done) in [
        ("data: {}\n\ndata: [DONE]\n\n", true),
        ("data: {}\n\n[DONE]", true),
        ("{\"choices\":[]}", true),
        ("data: {}\n\n", false),
        ("", false),
    ] {
        assert_eq!(whole(body.as_bytes()).await.1.is_done(), done, "{body}");
    }
}

#[tokio::test]
async fn the_body_is_read_to_its_end_so_that_the_connection_can_be_used_again() {
    let (watch, end) = (Arc::new(Watch::default()), Arc::new(AtomicBool::new(false)));
    let reached = end.clone();
    let late = stream::once(async move {
        tokio::task::yield_now().await;
        reached.store(true, Ordering::Release);
        Ok::<_, std::io::Error>(Bytes::new())
    });
    let body = stream::once(async { Ok(Bytes::from_static(b"data: {}\n\ndata: [DONE]\n\n")) }).chain(late);
    assert_eq!(events(body, watch).count().await, 1);
    assert!(end.load(Ordering::Acquire));
}

#[tokio::test]
async fn endless_lines_break_the_stream_and_a_line_of_many_events_is_read_fast() {
    let (events, watch) = read(vec![vec![b'x'; 16 * 1024]; MAX_EVENT / (16 * 1024) + 1]).await;
    assert_eq!((events, watch.fault()), (vec!["broken".to_owned()], Some(Fault::TooMuch)));
    let (events, watch) = whole(&b"{}".repeat(100_000)).await;
    assert_eq!((events.len(), watch.fault()), (100_000, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// For any texts, line ends and cuts by the network the events are the same.
    #[test]
    fn line_ends_blank_lines_and_cuts_change_nothing(
        texts in prop::collection::vec(any::<String>(), 0..5),
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        blank in any::<bool>(),
        marked in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let events: Vec<String> = texts.iter().map(|text| json!({"t": text, "l": [text]}).to_string()).collect();
        let mut body = Vec::new();
        for event in &events {
            let mark = if marked { "data: " } else { "" };
            body.extend([mark, event, end, if blank { end } else { "" }].concat().into_bytes());
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).chain([0, body.len()]).collect();
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| body[pair[0]..pair[1]].to_vec()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (read, watch) = runtime.block_on(read(pieces));
        prop_assert_eq!((read, watch.fault()), (events, None));
    }

    #[test]
    fn any_bytes_end_in_events_or_a_fault(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6), mark in any::<bool>()) {
        let pieces = pieces.into_iter().map(|piece| [if mark { &b"\ndata: {"[..] } else { b"" }, &piece].concat()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(read(pieces));
    }
}
