//! Frames and base64 as properties: whatever is sent comes back, and whatever comes is taken or refused, never more.

use proptest::prelude::*;
use sandboxd::{
    blob::Blob,
    frame::{self, FrameError},
    protocol::{Ended, Event, Exit, Opening, ProxyKind, Request, Run, Spool, SpoolFile, Spooled, User},
};

fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        any::<i32>().prop_map(Exit::Code),
        any::<i32>().prop_map(Exit::Signal),
        Just(Exit::TimedOut),
        Just(Exit::OutOfMemory),
        any::<String>().prop_map(Exit::NotStarted),
    ]
}

prop_compose! {
    fn run()(
        id in any::<String>(),
        argv in prop::collection::vec(any::<String>(), 0..4),
        env in prop::collection::vec(any::<(String, String)>(), 0..4),
        cwd in any::<String>(),
        root in any::<bool>(),
        timeout_ms in any::<Option<u64>>(),
        background in any::<bool>(),
        stdin in any::<bool>(),
        writable in any::<Option<Vec<String>>>(),
        spool in any::<Option<(Vec<u8>, bool)>>(),
    ) -> Run {
        let user = if root { User::Root } else { User::Agent };
        let spool = spool.map(|(input, open)| Spool { input: Blob(input), open, idle_ms: None });
        Run { id, nonce: "n".into(), argv, env, cwd, user, timeout_ms, background, stdin, writable, spool }
    }
}

prop_compose! {
    fn ended()(
        id in any::<String>(),
        exit in exit(),
        head in any::<Vec<u8>>(),
        tail in any::<Vec<u8>>(),
        omitted in any::<u64>(),
        log in any::<Option<String>>(),
        leftovers in any::<u32>(),
        survivors in any::<u32>(),
        streamed in any::<bool>(),
        spooled in any::<Option<(String, u64, Vec<u8>)>>(),
    ) -> Ended {
        let spooled = spooled.map(|(path, begin, errors)| Spooled {
            files: vec![SpoolFile { path, begin }],
            end: begin,
            errors: Blob(errors),
        });
        Ended { id, exit, head: Blob(head), tail: Blob(tail), omitted, log, leftovers, survivors, streamed, spooled }
    }
}

proptest! {
    #[test]
    fn messages_come_back_in_order_however_they_are_cut(runs in prop::collection::vec(run(), 1..5), cut in any::<prop::sample::Index>()) {
        let requests: Vec<_> = runs.into_iter().map(Request::Run).collect();
        let bytes: Vec<u8> = requests.iter().flat_map(frame::encode).collect();
        let cut = cut.index(bytes.len() + 1);
        let (mut buffer, mut read) = (Vec::new(), Vec::new());
        for part in [&bytes[..cut], &bytes[cut..]] {
            buffer.extend_from_slice(part);
            while let Some((request, length)) = frame::decode::<Request>(&buffer, frame::TO_SANDBOXD).unwrap() {
                read.push(request);
                buffer.drain(..length);
            }
        }
        prop_assert_eq!(read, requests);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn an_end_comes_back(ended in ended()) {
        let event = Event::Ended(ended);
        let bytes = frame::encode(&event);
        prop_assert_eq!(frame::decode(&bytes, frame::TO_SERVER), Ok(Some((event, bytes.len()))));
    }

    #[test]
    fn garbage_is_taken_or_refused_within_what_came(bytes in any::<Vec<u8>>(), limit in 0_usize..100) {
        match frame::decode::<Event>(&bytes, limit) {
            Ok(Some((_, length))) => prop_assert!(length <= bytes.len() && length <= limit + frame::PREFIX),
            Ok(None) => prop_assert!(bytes.len() < limit + frame::PREFIX),
            Err(FrameError::TooLong(length)) => prop_assert!(length as usize > limit),
            Err(FrameError::Malformed) => {}
        }
    }

    #[test]
    fn a_json_of_another_kind_is_refused(kind in "[a-z]{0,8}") {
        prop_assume!(!["web", "git", "models"].contains(&kind.as_str()));
        let opening = format!(r#"{{"proxy":{{"kind":"{kind}"}}}}"#);
        prop_assert_eq!(frame::message::<Opening>(opening.as_bytes()), Err(FrameError::Malformed));
        let known = Opening::Proxy { kind: ProxyKind::Web, proof: None };
        prop_assert_eq!(frame::message::<Opening>(br#"{"proxy":{"kind":"web"}}"#), Ok(known));
    }

    #[test]
    fn base64_comes_back_and_takes_nothing_else(bytes in any::<Vec<u8>>(), text in "[A-Za-z0-9+/=]{0,12}") {
        let blob = Blob(bytes);
        prop_assert_eq!(&serde_json::from_str::<Blob>(&serde_json::to_string(&blob).unwrap()).unwrap(), &blob);
        let text = format!("\"{text}\"");
        if let Ok(blob) = serde_json::from_str::<Blob>(&text) {
            prop_assert_eq!(serde_json::to_string(&blob).unwrap(), text);
        }
    }
}
