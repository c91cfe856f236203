// A person at Element, for programs: orders come as JSON on stdin, one a line, answers go to stdout in the same way.
// Called by run.sh, inside the sandbox image; tests/support/element.rs speaks with it. README.md lists the orders.
//
//   node drive.mjs BUNDLE OUT
//
// `{"id": 1, "order": "login", "as": "anna", …}` → `{"id": 1, "ok": true, …}` or `{"id": 1, "ok": false, "error": "…",
// "picture": "OUT/failed-anna.png", "said": ["…"]}`: the page as it was and its last errors. One order at a time. It ends
// when stdin does.
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { serve } from "./serve.mjs";
import { Session } from "./session.mjs";

// The image's own, made for its Chromium.
const { chromium } = createRequire("/usr/local/lib/node_modules/_")("playwright-core");

const PERSON = "person";
const LIMIT_MS = 30_000;
const LONGEST_MS = 300_000;
const GRACE_MS = 2_000; // for an order's own, better error to come first

const [bundle, out] = process.argv.slice(2);
if (!out) {
  console.error("Usage: node drive.mjs BUNDLE OUT");
  process.exit(2);
}

const sessions = new Map();
const answer = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const firstLines = (error) => String(error?.message ?? error).replace(/\x1b\[[0-9;]*m/g, "").split("\n").slice(0, 3).join(" ");

function within(limit, work) {
  let timer;
  const late = new Promise((_, failed) => {
    timer = setTimeout(() => failed(new Error(`not done within ${limit} ms`)), limit + GRACE_MS);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

const server = await serve(bundle);
const browser = await chromium.launch({
  executablePath: process.env.CHROME_BIN ?? "/usr/bin/chromium",
  timeout: LIMIT_MS,
  // A container is around it already, and its /dev/shm is small. It speaks with this machine alone.
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});

async function obey({ order, as, ...given }, limit) {
  const session = sessions.get(as);
  if (order === "login") {
    if (session) throw new Error(`${as} is logged in already`);
    const opened = await Session.open(browser, given);
    sessions.set(as, opened);
    return opened.login(server.address, given, limit);
  }
  if (!session) throw new Error(`${as} is not logged in`);
  switch (order) {
    case "create_room": return session.createRoom(given, limit);
    case "open_room": return session.openRoom(given, limit);
    case "send": return session.send(given, limit);
    case "wait_text": return session.waitText(given, limit);
    case "timeline": return session.timeline(limit);
    case "react": return session.react(given, limit);
    case "resize": return session.resize(given);
    case "screenshot": return session.screenshot(given, limit);
    case "close":
      sessions.delete(as);
      return session.close();
    default: throw new Error(`no such order: ${order}`);
  }
}

answer({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  let id = null, as;
  try {
    const order = JSON.parse(line);
    as = order.as ?? PERSON;
    id = order.id ?? null;
    const limit = Math.min(order.timeout ?? LIMIT_MS, LONGEST_MS);
    answer({ id, ok: true, ...(await within(limit, obey({ ...order, as }, limit))) });
  } catch (error) {
    const session = sessions.get(as);
    const picture = await within(GRACE_MS, session?.keep(join(out, `failed-${as}.png`))).catch(() => undefined);
    answer({ id, ok: false, error: firstLines(error), picture, said: session?.said() });
  }
}
await within(GRACE_MS, browser.close()).catch(() => {});
server.end();
process.exit(0);
