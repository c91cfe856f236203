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

/// Why a question was not answered as it should be.
#[derive(Debug)]
pub struct Failure {
    /// What was said, or what went wrong.
    pub words: String,
    /// Whether the server has taken the question.
    pub is_taken: bool,
    /// Whether nothing comes from this connection any more.
    pub is_lost: bool,
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
        self.next_answer().unwrap()
    }

    /// Asks and waits for the answer; returns how long that took.
    pub fn ask(&mut self, text: &str) -> Duration {
        self.try_ask(text).unwrap()
    }

    /// The same, for who goes on after a failure.
    pub fn try_ask(&mut self, text: &str) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let id = self.say(text);
        loop {
            let answered = self.next_answer()?;
            if answered.asked != id {
                // The late answer to one that was given up.
                continue;
            }
            if answered.ending == "done" {
                return Ok(begun.elapsed());
            }
            let words = format!("{}: {}", answered.ending, answered.text);
            return Err(Failure { words, is_taken: true, is_lost: false });
        }
    }

    fn next_answer(&mut self) -> Result<Answered, Failure> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let frame = self.next_frame()?;
            let of = |field: &str| frame[field].as_str().unwrap_or_default().to_owned();
            match frame["event"].as_str() {
                Some("answer") => {
                    self.send(&json!({"do": "shown", "txn": frame["txn"]}));
                    return Ok(Answered { asked: of("asked"), ending: of("ending"), text: of("text") });
                }
                Some("refused" | "unknown") => {
                    return Err(Failure { words: frame.to_string(), is_taken: false, is_lost: false });
                }
                _ => {}
            }
        }
        Err(Failure { words: "no answer came".to_owned(), is_taken: true, is_lost: false })
    }

    /// Waits for a frame that fits.
    pub fn until(&mut self, fits: impl Fn(&Value) -> bool) {
        while !fits(&self.frame()) {}
    }

    fn frame(&mut self) -> Value {
        self.next_frame().unwrap()
    }

    fn next_frame(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        let words = match self.read.read_line(&mut line) {
            Ok(0) => "the server has closed the connection".to_owned(),
            Ok(_) => return Ok(serde_json::from_str(&line).unwrap()),
            Err(error) => format!("no frame came in time: {error}"),
        };
        Err(Failure { words, is_taken: true, is_lost: true })
    }

    fn send(&mut self, frame: &Value) {
        self.write.write_all(format!("{frame}\n").as_bytes()).unwrap();
    }
}
