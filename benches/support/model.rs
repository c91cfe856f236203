//! A model on a plain socket, so that it costs little beside what is measured: each connection has a thread, each request an answer.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
};

use matrix_agent::ids::random;
use serde_json::{Value, json};

/// Serves a model; `answer` gets each request and a place to write its answer to. Returns the address for `LLM_BASE_URL`.
pub fn serve(answer: impl Fn(&[u8], &mut Answer) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || connected(connection, &*answer));
        }
    });
    base_url
}

/// An answer that is being written. What the client does not wait for is lost, as it is with a real one.
pub struct Answer(TcpStream);

impl Answer {
    /// Writes the head and a piece of the message.
    pub fn begin(&mut self, delta: &Value) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let piece = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        let _ = self.0.write_all(head.as_bytes()).and_then(|()| self.0.write_all(&chunk(&event(&piece))));
    }

    /// Returns the bytes that end it: why it ends, and the tokens that were used.
    pub fn last(reason: &str, prompt_tokens: usize) -> Vec<u8> {
        let mut last = event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}));
        let usage = json!({"prompt_tokens": prompt_tokens, "completion_tokens": 10});
        last.push_str(&event(&json!({"choices": [], "usage": usage})));
        last += "data: [DONE]\n\n";
        let mut last = chunk(&last);
        last.extend_from_slice(b"0\r\n\r\n");
        last
    }

    /// Writes these bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }
}

fn connected(connection: TcpStream, answer: &impl Fn(&[u8], &mut Answer)) {
    connection.set_nodelay(true).unwrap();
    let mut writer = Answer(connection.try_clone().unwrap());
    let mut reader = BufReader::new(connection);
    while let Some(length) = read_head(&mut reader) {
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        if body.is_empty() {
            // Whoever asks for the list of models.
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        } else {
            answer(&body, &mut writer);
        }
    }
}

/// Reads a request's head and returns how long its body is; `None`: the connection has ended.
pub fn read_head(reader: &mut impl BufRead) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            None if line.trim_end().is_empty() => return Some(length),
            _ => {}
        }
    }
}

/// A call that runs a command.
pub fn command(line: &str) -> Value {
    let arguments = json!({"command": line}).to_string();
    let id = format!("call_{}", random(6));
    json!({"role": "assistant", "content": null,
        "tool_calls": [{"index": 0, "id": id, "type": "function", "function": {"name": "run_command", "arguments": arguments}}]})
}

/// A text.
pub fn text(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
