"use strict";

const find = (id) => document.getElementById(id);
const [said, form, question, mode, stop, send, standing] = ["said", "ask", "question", "mode", "stop", "send", "standing"].map(find);
// What was said, as pairs of question and answer. It lives as long as the page.
const before = [];
let asking = null;

function show(kind, text) {
  const article = document.createElement("article");
  article.className = kind;
  article.textContent = text;
  said.append(article);
  article.scrollIntoView({ block: "end" });
  return article;
}

function seconds(millis) {
  return millis < 9950 ? `${(millis / 1000).toFixed(1)} s` : `${Math.round(millis / 1000)} s`;
}

async function look() {
  if (document.hidden || asking) return;
  try {
    const told = await (await fetch("status")).json();
    const takes = told.expected_ms ? ` (waking takes about ${seconds(told.expected_ms)})` : "";
    standing.dataset.status = told.status;
    standing.textContent = {
      up: `${told.model} is awake`,
      asleep: `${told.model} sleeps${takes}`,
      starting: `${told.model} is waking up${takes}`,
      failed: told.why,
    }[told.status];
  } catch {
    standing.textContent = "The server is away";
  }
}

// Reads the events of a stream one by one.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const lines = rest.slice(0, end).split("\n");
      rest = rest.slice(end + 2);
      const field = (name) => lines.find((line) => line.startsWith(name))?.slice(name.length);
      if (field("data: ")) yield [field("event: "), JSON.parse(field("data: "))];
    }
  }
}

async function ask(words) {
  show("asked", words);
  const article = show("answer", "");
  const fail = (text) => {
    article.classList.add("failed");
    article.textContent = text;
  };
  let answer = "";
  let ended = false;
  asking = new AbortController();
  send.disabled = true;
  stop.hidden = false;
  article.setAttribute("aria-busy", "true");
  try {
    const response = await fetch("chat", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ mode: mode.value, question: words, before: before.slice(-2) }),
      signal: asking.signal,
    });
    if (!response.ok) {
      ended = true;
      fail(await response.text());
      return;
    }
    for await (const [event, told] of events(response)) {
      if (event === "state") {
        standing.dataset.status = "starting";
        standing.textContent = told.text;
      } else if (event === "awake") {
        standing.dataset.status = "up";
        standing.textContent = "Awake";
      } else if (event === "thinking") {
        standing.textContent = "Thinking…";
      } else if (event === "restart") {
        answer = "";
      } else if (event === "delta") {
        answer += told.text;
        article.textContent = answer;
        article.scrollIntoView({ block: "end" });
      } else if (event === "done") {
        ended = true;
        answer = told.text || answer;
        article.textContent = answer || "(The model had nothing to say.)";
        const footer = document.createElement("small");
        footer.textContent = told.footer;
        article.append(footer);
        before.push([words, answer]);
      } else if (event === "failed") {
        ended = true;
        fail(answer ? `${answer}\n\n(${told.text})` : told.text);
      }
    }
    if (!ended) fail(`${answer}\n\n(The answer broke off. Please ask again.)`.trim());
  } catch (error) {
    fail(error.name === "AbortError" ? `${answer}\n\n(Stopped.)`.trim() : "The server cannot be reached.");
  } finally {
    asking = null;
    send.disabled = false;
    stop.hidden = true;
    article.removeAttribute("aria-busy");
    question.focus();
    look();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const words = question.value.trim();
  if (!words || asking) return;
  question.value = "";
  ask(words);
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") asking?.abort();
});
stop.addEventListener("click", () => asking?.abort());
document.addEventListener("visibilitychange", look);
setInterval(look, 5000);
look();
