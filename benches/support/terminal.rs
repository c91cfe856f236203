//! A person at a terminal as the control socket sees one, without a process of its own.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use matrix_agent::ids::random;
use serde_json::{Value, json};

/// The longest wait for a frame.
const LIMIT: Duration = Duration::from_mins(2);

/// A person in a room.
pub struct Terminal {
    read: BufReader<UnixStream>,
    write: UnixStream,
}

/// An answer that has come.
pub struct Answered {
    /// The message that asked.
    pub asked: String,
    /// How the turn ended.
    pub ending: String,
    /// What it says.
    pub text: String,
}

impl Terminal {
    /// Sits down in a room of the server with this state directory.
    pub fn join(state: &Path, room: &str) -> Self {
        let stream = UnixStream::connect(state.join("control.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut terminal = Self { read: BufReader::new(stream.try_clone().unwrap()), write: stream };
        terminal.frame();
        terminal.send(&json!({"ask": "chat", "room": room}));
        terminal
    }

    /// Says something; returns its id.
    pub fn say(&mut self, text: &str) -> String {
        let id = random(16);
        self.send(&json!({"do": "say", "id": id, "text": text}));
        id
    }

    /// Waits for the next answer, and confirms it.
    pub fn answer(&mut self) -> Answered {
        let end = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < end, "no answer came");
            let frame = self.frame();
            let of = |field: &str| frame[field].as_str().unwrap_or_default().to_owned();
            match frame["event"].as_str() {
                Some("answer") => {
                    self.send(&json!({"do": "shown", "txn": frame["txn"]}));
                    return Answered { asked: of("asked"), ending: of("ending"), text: of("text") };
                }
                Some("refused" | "unknown") => panic!("{frame}"),
                _ => {}
            }
        }
    }

    /// Asks and waits for the answer; returns how long that took.
    pub fn ask(&mut self, text: &str) -> Duration {
        let begun = Instant::now();
        let id = self.say(text);
        let answered = self.answer();
        assert_eq!((answered.asked, answered.ending.as_str()), (id, "done"), "{}", answered.text);
        begun.elapsed()
    }

    /// Waits for a frame that fits.
    pub fn until(&mut self, fits: impl Fn(&Value) -> bool) {
        while !fits(&self.frame()) {}
    }

    fn frame(&mut self) -> Value {
        let mut line = String::new();
        let read = self.read.read_line(&mut line).expect("a frame in time");
        assert!(read > 0, "the server has closed the connection");
        serde_json::from_str(&line).unwrap()
    }

    fn send(&mut self, frame: &Value) {
        self.write.write_all(format!("{frame}\n").as_bytes()).unwrap();
    }
}
