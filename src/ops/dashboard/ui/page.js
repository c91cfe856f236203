// Comes in with the pass behind the address's #, and keeps the parts of the page as they are now.
"use strict";

const entrance = document.getElementById("enter");
const pass = location.hash.slice(1);
if (pass) history.replaceState(null, "", location.pathname);
if (pass && entrance) {
  document.getElementById("pass").value = pass;
  entrance.submit();
} else if (pass) {
  // Whoever has come in already may still have a link to one turn.
  const form = document.createElement("form");
  Object.assign(form, { method: "post", action: "/dashboard/enter", enctype: "text/plain", hidden: true });
  const field = Object.assign(document.createElement("input"), { name: "pass", value: pass });
  form.append(field);
  document.body.append(form);
  form.submit();
}

const link = document.getElementById("link");
if (link && !pass) {
  const news = new EventSource("/dashboard/live");
  const say = (text, good) => {
    link.textContent = text;
    link.className = good ? "good" : "bad";
  };
  news.addEventListener("open", () => say("live", true));
  news.addEventListener("error", () => {
    const over = news.readyState === EventSource.CLOSED;
    say(over ? "not live: load the page again" : "the server does not answer; it is tried again", false);
  });
  news.addEventListener("news", ({ data }) => {
    for (const [id, markup] of Object.entries(JSON.parse(data))) {
      const part = document.getElementById(id);
      if (!part) continue;
      // The keyboard stays where it was.
      const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      // The server has escaped all that is not its own.
      part.innerHTML = markup;
      if (focused) [...part.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused)?.focus();
    }
  });
}
