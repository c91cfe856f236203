//! Parses an answer of the homeserver of which a part may be malformed: that part is left out and the rest is read.
//!
//! For one room with a wrong number in it the SDK refuses the whole answer, and with it everybody's messages. Here
//! each part is tried by itself, at any depth. Pure.

use std::collections::BTreeMap;

use bytes::BufMut;
use hyper::http::{Method, Request, Response};
use matrix_sdk::ruma::api::{
    IncomingResponse, Metadata, OutgoingRequest,
    auth_scheme::AuthScheme,
    error::{FromHttpResponseError, IntoHttpError},
    path_builder::PathBuilder,
};
use serde_json::value::{RawValue, to_raw_value};

/// A request whose answer is parsed like this.
#[derive(Clone, Debug)]
pub(super) struct Lenient<R>(pub(super) R);

/// An answer, or the readable part of it.
#[derive(Debug)]
pub(super) struct Readable<A> {
    /// The answer.
    pub(super) answer: A,
    /// Whether parts were left out.
    pub(super) mended: bool,
}

impl<R: Metadata> Metadata for Lenient<R> {
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;

    const METHOD: Method = R::METHOD;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
}

impl<R: OutgoingRequest> OutgoingRequest for Lenient<R> {
    type EndpointError = R::EndpointError;
    type IncomingResponse = Readable<R::IncomingResponse>;

    fn try_into_http_request<T: Default + BufMut + AsRef<[u8]>>(
        self,
        base_url: &str,
        authentication_input: <Self::Authentication as AuthScheme>::Input<'_>,
        path_builder_input: <Self::PathBuilder as PathBuilder>::Input<'_>,
    ) -> Result<Request<T>, IntoHttpError> {
        self.0.try_into_http_request(base_url, authentication_input, path_builder_input)
    }
}

impl<A: IncomingResponse> IncomingResponse for Readable<A> {
    type EndpointError = A::EndpointError;

    fn try_from_http_response<T: AsRef<[u8]>>(
        response: Response<T>,
    ) -> Result<Self, FromHttpResponseError<Self::EndpointError>> {
        let (head, body) = response.into_parts();
        let body = body.as_ref();
        let read = |body: &[u8]| {
            let mut response = Response::new(body.to_vec());
            *response.status_mut() = head.status;
            A::try_from_http_response(response)
        };
        match read(body) {
            Ok(answer) => Ok(Self { answer, mended: false }),
            Err(refused @ FromHttpResponseError::Deserialization(_)) => {
                let reads = |part: &RawValue| read(part.get().as_bytes()).is_ok();
                let Some(mended) = mend(body, &reads) else { return Err(refused) };
                read(mended.get().as_bytes()).map(|answer| Self { answer, mended: true })
            }
            Err(error) => Err(error),
        }
    }
}

/// The fields that every answer needs: each other part is tried together with these.
const NEEDED: [&str; 2] = ["next_batch", "start"];
/// The depth at which parts can be left out: `rooms`, `join`, the room, `timeline`, `events`, the event.
const DEPTH: usize = 6;

type Parts = BTreeMap<String, Box<RawValue>>;

/// Removes from an answer what cannot be parsed; `None` if it is no answer at all.
fn mend(body: &[u8], reads: &dyn Fn(&RawValue) -> bool) -> Option<Box<RawValue>> {
    let body = String::from_utf8_lossy(body);
    let (needed, parts): (Parts, Parts) =
        serde_json::from_str::<Parts>(&body).ok()?.into_iter().partition(|(name, _)| NEEDED.contains(&name.as_str()));
    let beside = |name: &str, part: &RawValue| {
        let mut alone: BTreeMap<_, _> = needed.iter().map(|(name, part)| (name.as_str(), &**part)).collect();
        alone.insert(name, part);
        to_raw_value(&alone).is_ok_and(|alone| reads(&alone))
    };
    let mut mended = prune(parts, DEPTH, &beside);
    mended.extend(needed.clone());
    to_raw_value(&mended).ok()
}

/// Removes from an object what cannot be parsed; `reads` tries one of its parts.
fn prune(parts: Parts, depth: usize, reads: &dyn Fn(&str, &RawValue) -> bool) -> Parts {
    let keep = |(name, part): (String, Box<RawValue>)| {
        let part = salvage(part, depth, &|part| reads(&name, part))?;
        Some((name, part))
    };
    parts.into_iter().filter_map(keep).collect()
}

/// Returns a value unchanged if it can be parsed, else its readable part.
fn salvage(value: Box<RawValue>, depth: usize, reads: &dyn Fn(&RawValue) -> bool) -> Option<Box<RawValue>> {
    if reads(&value) {
        return Some(value);
    }
    let depth = depth.checked_sub(1)?;
    let mended = if let Ok(parts) = serde_json::from_str::<Parts>(value.get()) {
        let alone = |name: &str, part: &RawValue| {
            to_raw_value(&BTreeMap::from([(name, part)])).is_ok_and(|alone| reads(&alone))
        };
        to_raw_value(&prune(parts, depth, &alone))
    } else {
        let items: Vec<Box<RawValue>> = serde_json::from_str(value.get()).ok()?;
        let alone = |item: &RawValue| to_raw_value(&[item]).is_ok_and(|alone| reads(&alone));
        to_raw_value(&items.into_iter().filter_map(|item| salvage(item, depth, &alone)).collect::<Vec<_>>())
    };
    mended.ok().filter(|mended| reads(mended))
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{
        api::client::{message::get_message_events, sync::sync_events},
        room_id,
    };
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    type Sync = sync_events::v3::Response;

    fn read<A: IncomingResponse>(body: impl Into<Vec<u8>>) -> Option<Readable<A>> {
        Readable::try_from_http_response(Response::new(body.into())).ok()
    }

    /// Returns an answer with one message, in which something else was changed.
    fn answer(at: &str, wrong: Value) -> String {
        let event = json!({"type": "m.room.message", "event_id": "$e", "sender": "@anna:a.org", "origin_server_ts": 1,
            "content": {"msgtype": "m.text", "body": "hello"}});
        let mut answer = json!({
            "next_batch": "s2", "account_data": {"events": []}, "presence": {"events": []},
            "to_device": {"events": [{"type": "m.dummy", "sender": "@anna:a.org", "content": {}}]},
            "device_lists": {"changed": ["@anna:a.org"], "left": []},
            "device_one_time_keys_count": {"signed_curve25519": 50},
            "rooms": {"invite": {}, "leave": {}, "join": {
                "!other:a.org": {"timeline": {"events": [], "limited": false, "prev_batch": "p"}},
                "!here:a.org": {
                    "timeline": {"events": [event], "limited": false, "prev_batch": "p"}, "state": {"events": []},
                    "unread_notifications": {"highlight_count": 0, "notification_count": 1}, "summary": {},
                },
            }},
        });
        let (parent, key) = at.rsplit_once('/').unwrap();
        answer.pointer_mut(parent).unwrap()[key] = wrong;
        answer.to_string()
    }

    #[test]
    fn one_malformed_part_of_an_answer_costs_no_message() {
        for (at, wrong) in [
            ("/account_data", json!(7)),
            ("/account_data/events", json!({"no": "list"})),
            ("/presence", json!("online")),
            ("/to_device/events", json!("none")),
            ("/device_lists/changed", json!(["@anna:a.org", "no user", 5, "@bert:a.org"])),
            ("/device_lists", json!(null)),
            ("/device_one_time_keys_count", json!({"signed_curve25519": -1})),
            ("/device_unused_fallback_key_types", json!("signed_curve25519")),
            ("/rooms/invite", json!(["!x:a.org"])),
            ("/rooms/leave", json!({"no room": {}})),
            ("/rooms/knock", json!({"!x:a.org": 5})),
            ("/rooms/join/no room", json!({})),
            ("/rooms/join/!other:a.org", json!("gone")),
            ("/rooms/join/!other:a.org/timeline", json!([1])),
            ("/rooms/join/!here:a.org/ephemeral", json!(false)),
            ("/rooms/join/!here:a.org/unread_notifications/highlight_count", json!(-1)),
            ("/rooms/join/!here:a.org/summary", json!({"m.heroes": "anna", "m.joined_member_count": 2.5})),
            ("/rooms/join/!here:a.org/state", json!(1)),
            ("/rooms/join/!here:a.org/timeline/prev_batch", json!(12)),
            ("/rooms/join/!here:a.org/timeline/limited", json!("yes")),
        ] {
            let read = read::<Sync>(answer(at, wrong)).unwrap_or_else(|| panic!("{at}"));
            assert!(read.mended, "{at} is read as it is");
            assert_eq!(read.answer.next_batch, "s2");
            let here = &read.answer.rooms.join[room_id!("!here:a.org")];
            assert_eq!(here.timeline.events.len(), 1, "{at}");
        }
        let read = read::<Sync>(answer("/device_lists/changed", json!(["@anna:a.org", 5, "@bert:a.org"]))).unwrap();
        assert_eq!(read.answer.device_lists.changed.len(), 2, "what is right beside what is wrong stays");
    }

    #[test]
    fn what_is_right_is_left_alone_and_what_is_no_answer_is_refused() {
        let read_whole = read::<Sync>(answer("/account_data/events", json!([{"content": {}}]))).unwrap();
        assert!(!read_whole.mended && read_whole.answer.account_data.events.len() == 1);
        for body in ["", "{", "[]", "{}", r#"{"next_batch": 5}"#, "<html>"] {
            assert!(read::<Sync>(body).is_none(), "{body}");
        }
        let page = json!({"start": "a", "end": 5, "chunk": [{"type": "m.room.message"}, 3], "state": 1}).to_string();
        let page = read::<get_message_events::v3::Response>(page).unwrap();
        assert_eq!((page.answer.chunk.len(), page.answer.end), (2, None));
    }

    #[test]
    fn bytes_that_are_no_text_and_nests_without_end_cost_no_message() {
        let mut body = answer("/account_data/x", json!("?")).into_bytes();
        let at = body.iter().position(|byte| *byte == b'?').unwrap();
        body[at] = 0xff;
        assert_eq!(read::<Sync>(body).unwrap().answer.rooms.join.len(), 2);
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nest = format!("{}1{}", open.repeat(30_000), close.repeat(30_000));
            let body = answer("/device_lists/left", json!("NEST")).replace("\"NEST\"", &nest);
            assert_eq!(read::<Sync>(body).unwrap().answer.rooms.join.len(), 2);
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_part_the_others_are_read(
            at in prop::sample::select(vec!["/account_data", "/to_device", "/device_lists", "/rooms/leave", "/presence",
                "/rooms/join/!other:a.org", "/rooms/join/!here:a.org/state", "/rooms/join/!here:a.org/summary"]),
            wrong in json_value(),
        ) {
            let read = read::<Sync>(answer(at, wrong)).unwrap();
            prop_assert_eq!(read.answer.rooms.join[room_id!("!here:a.org")].timeline.events.len(), 1);
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z!:.]{0,6}".prop_map(Value::from)
        ];
        let key = prop_oneof!["events", "changed", "timeline", "m\\.heroes", "!x:a\\.org"];
        leaf.prop_recursive(4, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }
}
