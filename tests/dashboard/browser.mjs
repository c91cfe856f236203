// The dashboard as an operator uses it. Called by browser.rs, inside the sandbox image; its Chromium speaks with this machine alone.
//
//   node browser.mjs LINK LINK_TO_TURN OUT
//
// Ends with 0 if all was as it should be, else with one line on stderr. Pictures go below OUT; figures to stdout.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire("/usr/local/lib/node_modules/_")("playwright-core");
const [link, toTurn, out] = process.argv.slice(2);
const LIMIT_MS = 90_000;
const MOST_BYTES = 50 * 1024;

const browser = await chromium.launch({
  executablePath: process.env.CHROME_BIN ?? "/usr/bin/chromium",
  timeout: LIMIT_MS,
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});
const faults = [];

async function context(options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(LIMIT_MS);
  return context;
}

async function open(context, url) {
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (said) => said.type() === "error" && !said.text().includes("401") && faults.push(said.text()));
  await page.goto(url);
  return page;
}

const isLive = (page) => page.locator("#link.good").waitFor();
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);

async function onADesk() {
  const desk = await context({ viewport: { width: 1440, height: 900 }, colorScheme: "light" });
  const page = await open(desk, link);
  await page.waitForURL(/\/dashboard$/);
  await isLive(page);
  const [cookie] = await desk.cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict" && cookie.path === "/dashboard");

  // What runs is there, goes on by itself, and what people wrote is text.
  const running = page.locator("#running");
  await running.getByText("A long build <img src=x").waitFor();
  await running.getByText("building").waitFor();
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.equal(await page.locator("main img, main script").count(), 0);
  assert.ok(await fits(page));
  await page.screenshot({ path: join(out, "wide.png") });

  // Each link is reached by Tab, and seen to be; what has the focus keeps it while the page changes.
  await page.keyboard.press("Tab");
  const focused = () => page.evaluate(() => [document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]);
  assert.deepEqual(await focused(), ["A", "solid"]);
  await page.evaluate(() => { document.getElementById("health").innerHTML = "old"; });
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/dashboard\/turn\//);
  await page.getByRole("heading", { name: "A turn’s log" }).waitFor();
  await page.goBack();

  // How much comes, and how soon it is painted: the best of several, since other work shares the machine.
  const paints = [];
  let bytes = 0;
  for (let at = 0; at < 5; at++) {
    const loads = [];
    // What Chromium has let go of already counts nothing; another of the five has it.
    const note = (response) => response.url().includes("/live") || loads.push(response.body().then((body) => body.length, () => 0));
    page.on("response", note);
    await page.reload();
    await isLive(page);
    page.off("response", note);
    bytes = Math.max(bytes, (await Promise.all(loads)).reduce((sum, more) => sum + more, 0));
    const paint = await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
    paints.push(await paint.jsonValue());
  }
  console.log(`first paint ${paints.map(Math.round).sort((a, b) => a - b)} ms, ${bytes} bytes`);
  assert.ok(bytes > 0 && bytes <= MOST_BYTES, `${bytes} bytes`);
  const state = await desk.storageState();
  await desk.close();
  return state;
}

async function inTheDark(state) {
  const dark = await context({ viewport: { width: 1440, height: 900 }, colorScheme: "dark", storageState: state });
  const page = await open(dark, link.split("#")[0]);
  await isLive(page);
  const [ink, paper] = await page.evaluate(() => {
    const { color, backgroundColor } = getComputedStyle(document.body);
    return [color, backgroundColor];
  });
  assert.deepEqual([ink, paper], ["rgb(255, 255, 255)", "rgb(18, 18, 18)"]);
  await page.screenshot({ path: join(out, "dark.png") });
  await dark.close();
}

async function onAPhone(state) {
  const options = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };
  const phone = await context({ ...options, storageState: state });
  const page = await open(phone, link.split("#")[0]);
  await isLive(page);
  assert.ok(await fits(page), "it is wider than a phone");
  await page.screenshot({ path: join(out, "phone.png") });
  await phone.close();

  // Somebody who has the link to one turn, and nothing else.
  const guest = await context(options);
  const log = await open(guest, toTurn);
  await log.waitForURL(/\/dashboard\/turn\//);
  await log.getByText("The checkout adds VAT now").waitFor();
  assert.ok(await fits(log), "the log is wider than a phone");
  await log.locator("summary").first().tap();
  await log.locator(".result", { hasText: "12 passed" }).waitFor();
  await log.screenshot({ path: join(out, "turn.png") });
  await log.goto(link.split("#")[0]);
  await log.getByText("Ask for a link on the server").waitFor();
  await guest.close();
}

try {
  const state = await onADesk();
  await inTheDark(state);
  await onAPhone(state);
  assert.deepEqual(faults, []);
} catch (error) {
  console.error(String(error.message).split("\n").slice(0, 12).join(" | "), ...faults);
  process.exitCode = 1;
}
await browser.close();
