// Takes a picture of a web page with Debian's Chromium. Runs inside the sandbox, as the sandbox's user: the server's
// `take_screenshot` calls it, and so may anybody in there.
//
//   node screenshot.mjs URL OUT.png [--width N] [--height N] [--full-page] [--timeout SECONDS]
//
// Prints one line of JSON: {"title", "url", "status", "width", "height"} (the picture's size in pixels; status is null
// for a file). Exit codes: 0 the picture is written; 2 the call is wrong; 3 the page did not load; 4 the browser did
// not start; 5 the picture could not be taken or written. Each error is one line that says what to do.
import { rename, rm, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const REFUSAL = "matrix-agent-refusal"; // the header of what the sandbox's gateway refuses
const CALL = 2, LOAD = 3, START = 4, PICTURE = 5;
const LARGEST_VIEW = 4096;
const TALLEST_PAGE = 16384; // pixels; Chromium draws no taller surface
const QUIET_MS = 2000; // a page that never falls silent (polling, sockets) is taken as it is

class Failure extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const firstLine = (error) => String(error?.message ?? error).split("\n")[0];

function readCall() {
  let parsed;
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        width: { type: "string", default: "1280" },
        height: { type: "string", default: "800" },
        timeout: { type: "string", default: "30" },
        "full-page": { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw new Failure(CALL, firstLine(error));
  }
  const [address, out, ...rest] = parsed.positionals;
  if (!address || !out || rest.length > 0) {
    throw new Failure(CALL, "usage: screenshot.mjs URL OUT.png [--width N] [--height N] [--full-page] [--timeout SECONDS]");
  }
  const number = (name, least, most) => {
    const value = Number(parsed.values[name]);
    if (!Number.isInteger(value) || value < least || value > most) {
      throw new Failure(CALL, `--${name} is ${parsed.values[name]}; give a whole number from ${least} to ${most}`);
    }
    return value;
  };
  let url;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(address) ? address : `http://${address}`);
  } catch {
    throw new Failure(CALL, `"${address}" is no address; give one such as http://localhost:3000/`);
  }
  if (!["http:", "https:", "file:"].includes(url.protocol)) {
    throw new Failure(CALL, `${url.protocol} addresses are not opened; give an http, https or file address`);
  }
  return {
    url: url.href,
    out,
    view: { width: number("width", 64, LARGEST_VIEW), height: number("height", 64, LARGEST_VIEW) },
    timeout: number("timeout", 1, 120) * 1000,
    fullPage: parsed.values["full-page"],
  };
}

// Loopback is reached directly, as Chromium does by itself; Playwright's own proxy option would send it to the proxy.
function proxyFlags(env) {
  const proxy = env.HTTPS_PROXY || env.https_proxy || env.HTTP_PROXY || env.http_proxy;
  if (!proxy) return ["--no-proxy-server"];
  const except = (env.NO_PROXY || env.no_proxy || "").split(",").map((host) => host.trim()).filter(Boolean);
  return [`--proxy-server=${proxy}`, ...(except.length > 0 ? [`--proxy-bypass-list=${except.join(";")}`] : [])];
}

async function start() {
  const options = {
    executablePath: process.env.CHROME_BIN || "/usr/bin/chromium",
    timeout: 20_000,
    args: [
      ...proxyFlags(process.env),
      "--disable-gpu",
      "--allow-insecure-localhost", // a server in the sandbox has a certificate of its own making; no other host may
      "--disable-quic",
      "--disable-domain-reliability",
      "--no-pings",
      "--dns-prefetch-disable",
    ],
  };
  try {
    // Chromium's own sandbox is made of namespaces, which nobody may make in here.
    return await chromium.launch({ ...options, chromiumSandbox: false });
  } catch (error) {
    const cause = /ENOENT|doesn't exist/.test(error.message) ? `${options.executablePath} is missing` : firstLine(error);
    throw new Failure(START, `the browser did not start: ${cause}; check that the sandbox has memory and processes left`);
  }
}

function explain(error, call) {
  const text = firstLine(error);
  const reason = /net::(ERR_[A-Z0-9_]+)/.exec(text)?.[1];
  const known = {
    ERR_CONNECTION_REFUSED: "nothing listens there; start the server first and wait until it answers",
    ERR_NAME_NOT_RESOLVED: "the name is not known; check its spelling",
    ERR_TUNNEL_CONNECTION_FAILED: "the sandbox's gateway does not allow that host",
    ERR_PROXY_CONNECTION_FAILED: "the sandbox's gateway does not answer; try again",
    ERR_EMPTY_RESPONSE: "the server closed the connection without an answer; read its log",
    ERR_FILE_NOT_FOUND: "there is no such file",
    ERR_CERT_AUTHORITY_INVALID: "its certificate is not signed by an authority the browser knows",
    ERR_CERT_COMMON_NAME_INVALID: "its certificate is for another host",
    ERR_CERT_DATE_INVALID: "its certificate is not valid today",
    ERR_ABORTED: "the address is a download or was cancelled, not a page",
  };
  if (reason) return `${call.url} did not load (${reason}): ${known[reason] ?? "check the address"}`;
  if (error?.name === "TimeoutError") {
    return `${call.url} did not answer within ${call.timeout / 1000} s; read the server's log`;
  }
  return `${call.url} did not load: ${text}`;
}

async function open(browser, call) {
  const page = await browser.newPage({ viewport: call.view, deviceScaleFactor: 1 });
  // A page may go on to another one by itself: what counts is where it ends.
  let last, failed;
  const isPage = (request) => request.isNavigationRequest() && request.frame() === page.mainFrame();
  page.on("response", (response) => {
    if (isPage(response.request())) [last, failed] = [response, undefined];
  });
  page.on("requestfailed", (request) => {
    if (isPage(request)) failed = request.failure()?.errorText;
  });
  try {
    await page.goto(call.url, { waitUntil: "domcontentloaded", timeout: call.timeout });
  } catch (error) {
    throw new Failure(LOAD, explain(error, call));
  }
  // What the page still loads is awaited within limits, and its picture taken even if it never ends.
  await page.waitForLoadState("load", { timeout: call.timeout }).catch(() => {});
  await page.waitForLoadState("networkidle", { timeout: QUIET_MS }).catch(() => {});
  if (page.url().startsWith("chrome-error:")) throw new Failure(LOAD, explain(failed ?? "net::ERR_FAILED", call));
  if (last?.headers()[REFUSAL]) {
    const words = (await last.text().catch(() => "")).trim().replace(/\.$/, "");
    throw new Failure(LOAD, `${call.url} did not load: ${words || "the sandbox's gateway refuses it"}`);
  }
  return { page, status: last?.status() || null };
}

async function take(page, call) {
  try {
    const options = { type: "png", timeout: 20_000, animations: "disabled" };
    if (call.fullPage) {
      const tall = await page.evaluate(() => document.documentElement.scrollHeight);
      options.fullPage = true;
      if (tall > TALLEST_PAGE) options.clip = { x: 0, y: 0, width: call.view.width, height: TALLEST_PAGE };
    }
    const picture = await page.screenshot(options);
    const half = `${call.out}.part`;
    try {
      await writeFile(half, picture);
      await rename(half, call.out);
    } catch (error) {
      await rm(half, { force: true });
      throw error;
    }
    return { width: picture.readUInt32BE(16), height: picture.readUInt32BE(20) }; // a PNG's IHDR
  } catch (error) {
    throw new Failure(PICTURE, `no picture of ${call.url}: ${firstLine(error)}`);
  }
}

async function main() {
  const call = readCall();
  const browser = await start();
  try {
    const { page, status } = await open(browser, call);
    const size = await take(page, call);
    const title = (await page.title().catch(() => "")).replace(/\s+/g, " ").trim().slice(0, 200);
    return { title, url: page.url().slice(0, 2000), status, ...size };
  } finally {
    await browser.close().catch(() => {});
  }
}

try {
  process.stdout.write(`${JSON.stringify(await main())}\n`);
} catch (error) {
  process.stderr.write(`screenshot: ${error.message}\n`);
  process.exitCode = error instanceof Failure ? error.code : PICTURE;
}
