//! A terminal's client by hand: the lines of its protocol over the control socket, so that it is there, away or asleep at
//! the very moment that a test needs.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

use serde_json::{Value, json};

use super::rig::{LIMIT, Rig};

/// A connection; dropped, it hangs up.
pub struct Wire {
    lines: BufReader<UnixStream>,
    /// All frames so far.
    pub seen: Vec<Value>,
    /// Those that nobody has waited for yet: frames of one moment come in any order.
    passed: Vec<Value>,
}

impl Wire {
    /// Sits down in a terminal's room.
    pub fn join(rig: &Rig, room: &str) -> Self {
        let stream = UnixStream::connect(rig.path().join("s/control.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut wire = Self { lines: BufReader::new(stream), seen: Vec::new(), passed: Vec::new() };
        wire.until("the greeting", |frame| !frame["protocol"].is_null());
        wire.tell(&json!({"ask": "chat", "room": room}));
        // The answer to the first question shows that it is counted among the room's clients.
        wire.tell(&json!({"do": "open", "id": "nobody-said-this"}));
        wire.until("its place", |frame| frame["event"] == "unknown");
        wire
    }

    /// Sends a frame.
    pub fn tell(&mut self, frame: &Value) {
        writeln!(self.lines.get_mut(), "{frame}").unwrap();
    }

    /// Says something under an id, and waits until it is in the journal.
    pub fn say(&mut self, id: &str, text: &str) {
        self.tell(&json!({"do": "say", "id": id, "text": text}));
        self.until("that it is admitted", |frame| frame["event"] == "admitted" && frame["id"] == id);
    }

    /// Confirms that a frame was shown, and waits until that is noted.
    pub fn confirm(&mut self, frame: &Value) {
        self.tell(&json!({"do": "shown", "txn": frame["txn"]}));
        self.until("that it is noted", |noted| noted["event"] == "noted" && noted["txn"] == frame["txn"]);
    }

    /// Waits for a frame that fits, or takes one that came before and was not waited for.
    pub fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.passed.iter().position(&fits) {
            return self.passed.remove(at);
        }
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(read) if read > 0 => {
                    let frame: Value = serde_json::from_str(&line).unwrap();
                    self.seen.push(frame.clone());
                    if fits(&frame) {
                        return frame;
                    }
                    self.passed.push(frame);
                }
                ended => panic!("waited for {what} ({ended:?}), saw {:#?}", self.seen),
            }
        }
    }

    /// Waits for a frame of this event.
    pub fn event(&mut self, name: &str) -> Value {
        self.until(name, |frame| frame["event"] == name)
    }
}
