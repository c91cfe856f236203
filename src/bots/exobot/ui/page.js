"use strict";

const find = (id) => document.getElementById(id);
const [said, form, question, mode, stop, send, standing] = ["said", "ask", "question", "mode", "stop", "send", "standing"].map(find);
const LOOK_MS = 5000;
const LOOK_SOON_MS = 500;
// What was said, as pairs of question and answer. It lives as long as the page.
const before = [];
let asking = null;
let looking = null;

// Keeps the end in view, unless somebody has scrolled away from it.
function following(change) {
  const isAtEnd = said.scrollHeight - said.scrollTop - said.clientHeight < 40;
  change();
  if (isAtEnd) said.scrollTop = said.scrollHeight;
}

function show(kind, text) {
  const article = document.createElement("article");
  article.className = kind;
  article.textContent = text;
  said.append(article);
  said.scrollTop = said.scrollHeight;
  return article;
}

function stand(status, text) {
  standing.dataset.status = status;
  standing.textContent = text;
}

function seconds(millis) {
  return millis < 9950 ? `${(millis / 1000).toFixed(1)} s` : `${Math.round(millis / 1000)} s`;
}

function tell(told) {
  const takes = told.expected_ms ? ` (that takes about ${seconds(told.expected_ms)})` : "";
  const texts = {
    up: `${told.model} is awake`,
    asleep: `${told.model} sleeps until you ask`,
    starting: `${told.model} is waking up${takes}`,
    failed: told.why,
  };
  stand(told.status, texts[told.status]);
}

// Asks how the model stands, again and again.
async function look(request) {
  clearTimeout(looking);
  if (!document.hidden && !asking) {
    try {
      const told = await (await fetch(request ?? "status")).json();
      if (!asking) tell(told);
    } catch {
      if (!asking) stand("away", "The server is away");
    }
  }
  clearTimeout(looking);
  looking = setTimeout(look, standing.dataset.status === "starting" ? LOOK_SOON_MS : LOOK_MS);
}

// Whoever begins to write will ask soon.
function wake() {
  if (standing.dataset.status !== "asleep" || asking) return;
  stand("starting", "…");
  look(new Request("wake", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }));
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
  let answer = "";
  let ended = false;
  const fail = (text) => {
    ended = true;
    article.classList.add("failed");
    following(() => (article.textContent = answer ? `${answer}\n\n(${text})` : text));
  };
  asking = new AbortController();
  [send.hidden, stop.hidden] = [true, false];
  article.setAttribute("aria-busy", "true");
  try {
    const response = await fetch("chat", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ mode: mode.value, question: words, before: before.slice(-2) }),
      signal: asking.signal,
    });
    if (!response.ok) {
      fail((await response.text()).trim());
      return;
    }
    for await (const [event, told] of events(response)) {
      if (event === "state") {
        stand("starting", told.text);
      } else if (event === "awake") {
        stand("up", "Awake");
      } else if (event === "thinking") {
        stand("up", "Thinking…");
      } else if (event === "restart") {
        answer = "";
      } else if (event === "delta") {
        answer += told.text;
        following(() => (article.textContent = answer));
      } else if (event === "done") {
        ended = true;
        answer = told.text || answer;
        const footer = document.createElement("small");
        footer.textContent = told.footer;
        following(() => article.replaceChildren(answer || "(The model had nothing to say.)", footer));
        if (answer) before.push([words, answer]);
      } else if (event === "failed") {
        fail(told.text);
      }
    }
    if (!ended) fail("The answer broke off. Please ask again.");
  } catch (error) {
    fail(error.name === "AbortError" ? "Stopped." : "The server cannot be reached.");
  } finally {
    asking = null;
    [send.hidden, stop.hidden] = [false, true];
    article.removeAttribute("aria-busy");
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
question.addEventListener("input", wake);
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
function abort() {
  asking?.abort();
  question.focus();
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") abort();
});
stop.addEventListener("click", abort);
document.addEventListener("visibilitychange", () => look());
look();
