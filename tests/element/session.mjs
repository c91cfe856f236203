// One person at Element: a browser context with one page. drive.mjs gives the orders; each has a limit in milliseconds.
// The classes are those of matrix-react-sdk 3.114.0.

const COMPOSER = ".mx_SendMessageComposer .mx_BasicMessageComposer_input";

export class Session {
  #context;
  #page;
  #said = []; // the page's last errors, for whoever reads a failure

  /** Opens an empty context, with a window of this size (pixels). */
  static async open(browser, { width = 1100, height = 760 } = {}) {
    const session = new Session();
    session.#context = await browser.newContext({ viewport: { width, height }, locale: "en-GB", reducedMotion: "reduce" });
    session.#page = await session.#context.newPage();
    const say = (text) => session.#said.push(text.slice(0, 300)) > 10 && session.#said.shift();
    session.#page.on("pageerror", (error) => say(String(error.stack ?? error)));
    session.#page.on("console", (message) => {
      // A 404 is how it learns that something was never set; the other answers come below.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) say(message.text());
    });
    session.#page.on("response", (response) => {
      if (response.status() >= 400 && response.status() !== 404) say(`${response.status()} ${response.url()}`);
    });
    return session;
  }

  /** Logs in through Element's own form, and waits until its rooms are synced. */
  async login(address, { homeserver, user, password }, limit) {
    const page = this.#page;
    page.setDefaultTimeout(limit);
    await page.goto(`${address}/?homeserver=${encodeURIComponent(homeserver)}`);
    await page.fill("input[name=username]", user);
    await page.fill("input[name=password]", password);
    await page.click(".mx_Login_submit");
    // Wrong password: the form says so. Another device of the account: it asks to be verified, which comes later.
    const wrong = page.locator(".mx_Login_error, .mx_ErrorMessage");
    const skip = page.locator(".mx_CompleteSecurity_skip");
    const inside = page.locator(".mx_LeftPanel");
    await inside.or(wrong).or(skip).first().waitFor();
    if (await wrong.count()) throw new Error(`Element says: ${await wrong.first().innerText()}`);
    if (await skip.count()) {
      await skip.click();
      await page.click(".mx_CompleteSecurity_actionRow .mx_AccessibleButton_kind_danger_outline");
      await inside.waitFor();
    }
    const who = await page.waitForFunction(() => {
      const client = window.mxMatrixClientPeg.get();
      return ["PREPARED", "SYNCING"].includes(client?.getSyncState()) && {
        user_id: client.getUserId(), device_id: client.getDeviceId(), token: client.getAccessToken(),
      };
    }, undefined, { timeout: limit }).then((handle) => handle.jsonValue());
    // What Element's service worker does, which the shell lacks: media are asked for with the token.
    await this.#context.route(/\/_matrix\/media\/v3\/(download|thumbnail)\//, (route) =>
      route.continue({
        url: route.request().url().replace("/_matrix/media/v3/", "/_matrix/client/v1/media/"),
        headers: { ...route.request().headers(), authorization: `Bearer ${who.token}` },
      }));
    // The room gets most of the window, and all of one that is as narrow as a phone: so it is in the apps for phones.
    await page.addStyleTag({ content: `
      .mx_LeftPanel_wrapper--user { width: 240px !important }
      @media (max-width: 500px) { .mx_LeftPanel_outerWrapper, .mx_ResizeHandle { display: none } }` });
    return { user_id: who.user_id, device_id: who.device_id };
  }

  /** Makes a room, invites, and shows it. */
  async createRoom({ name, encrypted = false, invite = [] }, limit) {
    const room = await this.#page.evaluate(([name, encryption, invite]) =>
      window.createRoom(window.mxMatrixClientPeg.get(), {
        encryption, spinner: false, inlineErrors: true, guestAccess: false, createOpts: { name, invite },
      }), [name, encrypted, invite]);
    if (!room) throw new Error("Element made no room");
    await this.openRoom({ room }, limit);
    return { room };
  }

  /** Shows a room, once it is known here, and takes an invite to it. */
  async openRoom({ room }, limit) {
    const page = this.#page;
    await this.#until(limit, `room ${room} is not known here`, (id) => {
      const membership = window.mxMatrixClientPeg.get().getRoom(id)?.getMyMembership();
      return membership === "join" || membership === "invite";
    }, room);
    await page.evaluate((id) => { location.hash = `#/room/${id}`; }, room);
    const composer = page.locator(COMPOSER);
    const invited = page.locator(".mx_RoomPreviewBar_actions .mx_AccessibleButton_kind_primary");
    await this.#until(limit, `room ${room} is not shown`, (id) => location.hash.includes(id), room);
    await composer.or(invited).first().waitFor({ timeout: limit });
    if (await invited.count()) await invited.click({ timeout: limit });
    await composer.waitFor({ timeout: limit });
    return {};
  }

  /** Types a message and sends it; waits for the server's event id. Lines are kept together with Shift and Enter. */
  async send({ text }, limit) {
    const page = this.#page;
    const before = await page.evaluate(lastOwn);
    await page.click(COMPOSER);
    for (const [at, line] of text.split("\n").entries()) {
      if (at) await page.keyboard.press("Shift+Enter");
      await page.keyboard.insertText(line);
    }
    // A list of people or rooms that the text called up would take the Enter.
    if (await page.locator(".mx_Autocomplete").count()) await page.keyboard.press("Escape");
    await page.keyboard.press("Enter");
    await page.waitForFunction(`(${lastOwn})() !== ${JSON.stringify(before)}`, undefined, { timeout: limit })
      .catch(() => { throw new Error("the message was not sent"); });
    return { event_id: await page.evaluate(lastOwn) };
  }

  /** Waits for a tile with this text; `edited`, `notice`, `sender` and `images`, where given, must hold for it too. */
  async waitText({ nonce, edited, notice, sender, images }, limit) {
    const wanted = Object.entries({ edited, notice, sender, images }).filter(([, value]) => value !== undefined);
    const found = await this.#page.waitForFunction(`((nonce, wanted) => (${tiles})().findLast((tile) =>
        tile.text.includes(nonce) && wanted.every(([name, value]) => tile[name] === value)))(
        ${JSON.stringify(nonce)}, ${JSON.stringify(wanted)})`, undefined, { timeout: limit, polling: 100 })
      .catch(() => { throw new Error(`no such message came: ${JSON.stringify({ nonce, ...Object.fromEntries(wanted) })}`); });
    const seen = await found.jsonValue();
    return { tile: (await this.#settled(limit)).find((tile) => tile.event_id === seen.event_id) ?? seen };
  }

  /** What the timeline of the open room shows. */
  async timeline(limit) {
    return { tiles: await this.#settled(limit) };
  }

  /** Reacts to the message with this text, with the emoji that Element's picker finds first for `search`. */
  async react({ nonce, search }, limit) {
    const page = this.#page;
    const tile = page.locator(".mx_EventTile", { hasText: nonce }).last();
    const until = Date.now() + limit;
    for (;;) {
      await tile.hover({ timeout: limit });
      try {
        await tile.getByRole("button", { name: "React", exact: true }).click({ timeout: 2000 });
        break;
      } catch (error) {
        // What comes meanwhile moves the message away from under the mouse; then it is pointed at again.
        if (Date.now() > until) throw error;
      }
    }
    await page.fill(".mx_EmojiPicker_search input", search, { timeout: limit });
    await page.click(".mx_EmojiPicker .mx_EmojiPicker_item_wrapper", { timeout: limit });
    await tile.locator(".mx_ReactionsRowButton_selected").first().waitFor({ timeout: limit });
    return {};
  }

  /** Makes the window as large as this. */
  async resize({ width, height }) {
    await this.#page.setViewportSize({ width, height });
    return {};
  }

  /** Takes a picture of the window, once its fonts and images are there. */
  async screenshot({ path }, limit) {
    // Element's hints in the corner ("Set up Secure Backup") are no part of what a test looks at.
    await this.#page.addStyleTag({ content: ".mx_ToastContainer { display: none }" });
    // Somebody who is there has read it, and who moves the mouse is there: one that stays where it was does not count.
    await this.#page.mouse.move(9, 9);
    await this.#page.mouse.move(0, 0);
    await this.#until(limit, "the room stays unread", () => !document.querySelector(".mx_RoomTile_selected .mx_NotificationBadge"));
    await this.#until(limit, "images of the page do not load", () =>
      document.fonts.status === "loaded" && [...document.images].every((image) => image.complete));
    await this.#page.screenshot({ path, timeout: limit });
    return { path };
  }

  /** The page's last errors. */
  said() {
    return this.#said;
  }

  /** Keeps what the page shows, for whoever reads a failure. */
  async keep(path) {
    await this.#page.screenshot({ path, timeout: 3_000 });
    return path;
  }

  async close() {
    await this.#context.close();
    return {};
  }

  // The tiles, once each shield is what the encryption says of its event: Element asks for that after it shows a tile.
  async #settled(limit) {
    const end = Date.now() + limit;
    while (Date.now() < end) {
      const all = await this.#page.evaluate(`(async () => {
        const all = (${tiles})();
        const said = await Promise.all(all.map((tile) => (${shieldOf})(tile.event_id)));
        return all.every((tile, at) => said[at] === null || said[at] === tile.shield) && all;
      })()`);
      if (all) return all;
      await this.#page.waitForTimeout(50);
    }
    throw new Error("the shields do not settle");
  }

  async #until(limit, otherwise, condition, given) {
    await this.#page.waitForFunction(condition, given, { timeout: limit, polling: 50 })
      .catch((error) => { throw error.name === "TimeoutError" ? new Error(otherwise) : error; });
  }
}

// The id of the last message that the person sent into the open room and the server took. Runs in the page.
function lastOwn() {
  const client = window.mxMatrixClientPeg.get();
  const [, id] = /#\/room\/([^/?]+)/.exec(decodeURIComponent(location.hash)) ?? [];
  return client.getRoom(id)?.getLiveTimeline().getEvents()
    .findLast((event) => event.getSender() === client.getUserId() && !event.isState() && event.status === null)?.getId();
}

// Which shield the encryption asks for at an event, or null if it has no say. Runs in the page.
async function shieldOf(event_id) {
  const client = window.mxMatrixClientPeg.get();
  const [, id] = /#\/room\/([^/?]+)/.exec(decodeURIComponent(location.hash)) ?? [];
  const event = client.getRoom(id)?.findEventById(event_id);
  const newest = event?.replacingEvent() ?? event;
  if (!newest?.isEncrypted() || newest.isDecryptionFailure()) return null;
  const info = await client.getCrypto().getEncryptionInfoForEvent(newest);
  return info && ["none", "grey", "red"][info.shieldColour];
}

// The timeline as a person sees it, a tile each, without those that tell of members and settings. Runs in the page.
function tiles() {
  const client = window.mxMatrixClientPeg.get();
  const [, id] = /#\/room\/([^/?]+)/.exec(decodeURIComponent(location.hash)) ?? [];
  const room = client.getRoom(id);
  const text = (content) => {
    const copy = content.cloneNode(true);
    copy.querySelectorAll(".mx_EventTile_edited, .mx_EventTile_lineNumbers, svg").forEach((part) => part.remove());
    return copy.textContent.trim();
  };
  return [...document.querySelectorAll(".mx_RoomView_MessageList .mx_EventTile")].flatMap((tile) => {
    const content = tile.querySelector(".mx_EventTile_line > .mx_EventTile_content, .mx_EventTile_line > [class*=Body]");
    const event_id = tile.getAttribute("data-event-id");
    const event = room?.findEventById(event_id);
    if (!content || event?.isState()) return [];
    const shield = tile.querySelector(".mx_EventTile_e2eIcon");
    const count = (selector) => content.querySelectorAll(selector).length;
    return [{
      event_id,
      sender: event?.getSender() ?? null,
      text: text(content),
      notice: content.matches(".mx_MNoticeBody"),
      edited: count(".mx_EventTile_edited") > 0,
      shield: !shield ? "none" : shield.matches(".mx_EventTile_e2eIcon_normal") ? "grey" : "red",
      images: count(".mx_MImageBody img"),
      code: [...content.querySelectorAll("pre code")].map((code) => /language-(\S+)/.exec(code.className)?.[1] ?? ""),
      pills: [...content.querySelectorAll(".mx_UserPill .mx_Pill_text")].map((name) => name.textContent),
      lists: count("ul, ol"),
      tables: count("table"),
      details: count("details"),
      reactions: [...tile.querySelectorAll(".mx_ReactionsRowButton")].map((one) => one.textContent),
    }];
  });
}
