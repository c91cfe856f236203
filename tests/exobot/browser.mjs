// exobot's page as a person uses it, by keyboard and on a phone. Called by browser.rs, inside the sandbox image; its Chromium
// speaks with this machine alone.
//
//   node browser.mjs URL OUT
//
// Ends with 0 if all was as it should be, else with one line on stderr. Pictures go below OUT.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire("/usr/local/lib/node_modules/_")("playwright-core");
const [url, out] = process.argv.slice(2);
const LIMIT_MS = 30_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROME_BIN ?? "/usr/bin/chromium",
  timeout: LIMIT_MS,
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});
const faults = [];

async function open(options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT_MS);
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (said) => said.type() === "error" && faults.push(said.text()));
  await page.goto(url);
  return page;
}

const stands = (page, status) => page.locator(`#standing[data-status="${status}"]`).waitFor();
const focused = (page) => page.evaluate(() => document.activeElement.id);
const text = (page, selector) => page.locator(selector).last().innerText();

async function byKeyboard() {
  const page = await open({ viewport: { width: 800, height: 640 } });
  await stands(page, "asleep");
  assert.equal(await focused(page), "question");

  // Each part is reached by Tab, and seen to be.
  const order = [];
  for (let at = 0; at < 3; at++) {
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, "solid", await focused(page));
    order.push(await focused(page));
    await page.keyboard.press("Tab");
  }
  assert.deepEqual(order, ["question", "mode", "send"]);
  await page.locator("#question").focus();

  await page.keyboard.type("Why do");
  await stands(page, "starting");
  assert.match(await text(page, "#standing"), /is waking up|…/);
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("rainbows have colours?");
  await page.screenshot({ path: join(out, "waking.png") });
  await page.keyboard.press("Enter");
  assert.equal(await text(page, "article.asked"), "Why do\nrainbows have colours?");

  // The answer comes in pieces, and the model is awake meanwhile.
  const lengths = await page.evaluate(
    () =>
      new Promise((done) => {
        const [article, lengths] = [document.querySelector("article.answer"), []];
        const watch = () => {
          lengths.push(article.textContent.length);
          if (article.querySelector("small")) done(lengths);
        };
        new MutationObserver(watch).observe(article, { childList: true, characterData: true, subtree: true });
      }),
  );
  assert.ok(lengths.length > 3, `pieces of ${lengths}`);
  await stands(page, "up");
  assert.match(await text(page, "article.answer"), /^Sunlight .* red\.\s+tiny-model · /s);
  assert.equal(await focused(page), "question");
  await page.screenshot({ path: join(out, "awake.png") });

  await page.keyboard.type("And at night?");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => [...document.querySelectorAll("article.answer")].at(-1).textContent.length > 5);
  await page.keyboard.press("Escape");
  await page.locator("article.failed").waitFor();
  assert.match(await text(page, "article.failed"), /\(Stopped\.\)$/);
  assert.equal(await focused(page), "question");

  await stands(page, "asleep");
  assert.match(await text(page, "#standing"), /sleeps until you ask/);
  await page.close();
}

async function onAPhone() {
  const page = await open({ viewport: { width: 360, height: 640 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true });
  await page.locator("#question").fill("Why do rainbows have colours?");
  await page.locator("#mode").selectOption("fast");
  await page.locator("#send").tap();
  await page.locator("#stop").waitFor();
  const ends = await page.evaluate(() => document.getElementById("stop").getBoundingClientRect().right);
  assert.ok(ends <= 360, `${ends}`);
  await page.screenshot({ path: join(out, "phone-waking.png") });
  await page.locator("article.answer small").waitFor();
  const long = "w".repeat(300);
  await page.locator("#question").fill(`${long} ${"one line after another ".repeat(60)}`);
  await page.locator("#send").tap();
  await page.locator("article.answer small").nth(1).waitFor();
  await page.screenshot({ path: join(out, "phone.png") });
  const sizes = await page.evaluate(() => {
    const box = (id) => document.getElementById(id).getBoundingClientRect();
    const { scrollWidth, scrollHeight } = document.documentElement;
    const said = document.getElementById("said");
    return {
      fits: scrollWidth <= innerWidth && scrollHeight <= innerHeight + 1,
      inView: box("send").bottom <= innerHeight && box("standing").top >= 0,
      touchable: ["send", "mode"].every((id) => box(id).height >= 44),
      atEnd: said.scrollTop + said.clientHeight >= said.scrollHeight - 2,
    };
  });
  assert.deepEqual(sizes, { fits: true, inView: true, touchable: true, atEnd: true });
  await page.close();
}

try {
  await byKeyboard();
  await onAPhone();
  assert.deepEqual(faults, []);
} catch (error) {
  console.error(String(error.message).split("\n").slice(0, 12).join(" | "), ...faults);
  process.exitCode = 1;
}
await browser.close();
