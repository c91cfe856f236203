//! What people build with, at work in a room's sandbox: under its profile of system calls, through its gateway, as its
//! agent. Each does a small job; `docs/threats.md` names this list.

mod support;

use serde_json::json;
use support::{
    rig::{FULL, Rig, Server, answers, block_on},
    scripted_llm::ScriptedLlm,
};

const ROOM: &str = "tools";

/// Each tool with its job. What fails says so by its exit code.
const TOOLS: [(&str, &str); 11] = [
    (
        "git",
        "git init -q one && cd one && git commit -q --allow-empty -m first && git gc -q && git worktree add -q ../two && \
         git clone -q . ../three && git -C ../three log --oneline | grep first",
    ),
    (
        "gcc with the address sanitizer",
        "echo 'int main() { return 0; }' > a.c && gcc -fsanitize=address a.c && ./a.out",
    ),
    (
        "cargo",
        "cargo new -q c && cd c && echo 'itoa = \"1\"' >> Cargo.toml && cargo build -q && cargo run -q | grep Hello",
    ),
    ("pip", "python3 -m venv v && v/bin/pip install -q numpy && v/bin/python -c 'import numpy; print(numpy.ones(3))'"),
    ("pytest", "printf 'def test_it():\\n    assert 1\\n' > test_it.py && pytest -q test_it.py"),
    ("uv", "uv venv -q u && uv pip install -q --python u/bin/python six && u/bin/python -c 'import six'"),
    (
        "npm and esbuild",
        "mkdir n && cd n && npm init -y > /dev/null && npm install --silent is-number@7 esbuild && \
         echo 'console.log(require(\"is-number\")(7))' > in.js && npx esbuild in.js --bundle --outfile=out.js && node out.js",
    ),
    (
        "Node's workers",
        "echo 'const { Worker } = require(\"worker_threads\"); new Worker(\"process.exit(0)\", { eval: true })' > w.js && \
         node w.js",
    ),
    (
        "Chromium",
        "echo '<h1>hi</h1>' > p.html && chromium --headless --no-sandbox --screenshot=p.png p.html && test -s p.png",
    ),
    (
        "Playwright",
        "cat > p.js <<'END'\n\
         const { chromium } = require('playwright-core');\n\
         (async () => {\n\
           const browser = await chromium.launch({ executablePath: process.env.CHROME_BIN, args: ['--no-sandbox'] });\n\
           const page = await browser.newPage();\n\
           await page.setContent('<h1>hi</h1>');\n\
           await page.screenshot({ path: 'q.png' });\n\
           await browser.close();\n\
         })();\n\
         END\n\
         node p.js && test -s q.png",
    ),
    ("ripgrep, tmux and gh", "echo found > f && rg found f && tmux new -d -s x && tmux kill-server && gh --version"),
];

/// A model that has the CLI run a command, and is content with what it prints. It speaks as OpenAI does and as Gemini does.
const MODEL: &str = r#"
import http.server, json

def command(cli):
    return {"command": f"echo by {cli} > {cli}.txt; id -u", "description": "write", "is_background": False}

class Model(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "enerateContent" in self.path:
            parts = [part for content in asked["contents"] for part in content["parts"]]
            done = "tools" not in asked or any("functionResponse" in part for part in parts)
            call = {"functionCall": {"name": "run_shell_command", "args": command("gemini")}}
            part = {"text": "All done."} if done else call
            said = [{"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}]}]
        else:
            done = "tools" not in asked or any(message["role"] == "tool" for message in asked["messages"])
            call = {"name": "run_shell_command", "arguments": json.dumps(command("qwen"))}
            delta = {"role": "assistant", "content": "All done."} if done else \
                {"role": "assistant", "tool_calls": [{"index": 0, "id": "one", "type": "function", "function": call}]}
            reason = "stop" if done else "tool_calls"
            said = [{"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
                     "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}]
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in said)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", 8123), Model).serve_forever()
"#;

/// Lets Gemini CLI and Qwen Code each run a command for its model, with no settings but the image's.
const CLIS: &str = r"
set -e
mkdir cli && cd cli
python3 ../model.py 2> /dev/null & model=$!
until bash -c '> /dev/tcp/127.0.0.1/8123' 2> /dev/null; do sleep 0.1; done
export GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8123 GEMINI_API_KEY=none GEMINI_CLI_TRUST_WORKSPACE=true
export GEMINI_CLI_NO_RELAUNCH=true QWEN_CODE_NO_RELAUNCH=true
export OPENAI_BASE_URL=http://127.0.0.1:8123/v1 OPENAI_API_KEY=none OPENAI_MODEL=scripted
echo 'write it' | gemini -m gemini-2.5-pro --yolo -o stream-json
echo 'write it' | qwen --yolo -o stream-json
cat gemini.txt qwen.txt
kill $model
";

/// A server with a room that has a sandbox.
fn room() -> (Rig, Server) {
    let llm = block_on(ScriptedLlm::start());
    let mut rig = Rig::new(FULL, llm.base_url());
    rig.trust_what_this_machine_trusts();
    let server = rig.serve();
    let named = "git config --global user.name Agent; git config --global user.email agent@localhost";
    llm.reply_calls(&[("run_command", json!({"command": named}))]).reply_text("Ready.");
    let (code, frames) = rig.ask(ROOM, "begin").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    (rig, server)
}

/// Runs a script in the sandbox; returns what it prints, as an error if it failed.
fn works(rig: &Rig, script: &str) -> Result<String, String> {
    let run = rig.run(&["sandbox", "exec", ROOM, "--", "sh", "-c", script]);
    let told = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    if run.status.success() { Ok(told) } else { Err(told) }
}

#[test]
fn the_tools_of_the_image_do_their_work() {
    let (rig, _server) = room();
    let failed: Vec<_> = TOOLS.iter().filter_map(|(tool, job)| Some((tool, works(&rig, job).err()?))).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_coding_clis_do_what_their_model_says() {
    let (rig, _server) = room();
    let script = format!("cat > model.py <<'END_OF_MODEL'\n{MODEL}\nEND_OF_MODEL\n{CLIS}");
    let told = works(&rig, &script).unwrap_or_else(|told| panic!("{told}"));
    assert!(told.ends_with("by gemini\nby qwen\n"), "{told}");
}
