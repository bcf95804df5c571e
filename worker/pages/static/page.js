// What HTML cannot do alone: times and numbers in the browser's language, streams that end while a tab is hidden,
// and a button that is disabled once what it acts on has changed.
"use strict";
(function () {
  const ZONE = "deviceops-zone";
  const RETRY = 2000; // milliseconds until a part that could not be fetched is asked for again

  // Times, and numbers

  function zone() {
    try { return localStorage.getItem(ZONE) === "local" ? "local" : "UTC"; } catch { return "UTC"; }
  }

  function localize(root) {
    const options = { dateStyle: "medium", timeStyle: "medium" };
    if (zone() === "UTC") { options.timeZone = "UTC"; }
    const times = new Intl.DateTimeFormat(undefined, options);
    const suffix = zone() === "UTC" ? " UTC" : "";
    for (const each of root.querySelectorAll("time.when")) {
      const moment = new Date(each.dateTime);
      if (!isNaN(moment)) { each.textContent = times.format(moment) + suffix; }
    }
    const numbers = new Intl.NumberFormat();
    const rounded = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
    for (const each of root.querySelectorAll("data.number")) {
      const value = Number(each.value);
      each.textContent = value >= 1000 ? numbers.format(Math.round(value)) : rounded.format(value);
    }
  }

  function showZone(button) {
    button.hidden = false;
    button.textContent = zone() === "UTC" ? "UTC" : "Local time";
    button.title = zone() === "UTC" ? "Times are in UTC; switch to your zone" : "Times are in your zone; switch to UTC";
  }

  // Live parts

  let isPaused = false;
  let renewing;

  // Ends its connection while the tab is hidden: browsers open no more than six to a host over HTTP/1.1.
  class PausedSource {
    constructor(url) {
      this.url = url;
      this.listeners = [];
      this.isClosed = false;
      this.follow = () => (document.hidden ? this.stop() : this.open());
      document.addEventListener("visibilitychange", this.follow);
      this.follow();
    }
    open() {
      if (this.isClosed || this.source) { return; }
      this.source = new EventSource(this.url);
      this.source.onopen = (event) => this.onopen && this.onopen(event);
      this.source.onerror = (event) => this.onerror && this.onerror(event);
      for (const [name, listener] of this.listeners) { this.source.addEventListener(name, listener); }
    }
    stop() {
      if (this.source) { this.source.close(); }
      this.source = null;
    }
    addEventListener(name, listener) {
      this.listeners.push([name, listener]);
      if (this.source) { this.source.addEventListener(name, listener); }
    }
    removeEventListener(name, listener) {
      this.listeners = this.listeners.filter((each) => each[0] !== name || each[1] !== listener);
      if (this.source) { this.source.removeEventListener(name, listener); }
    }
    close() {
      this.isClosed = true;
      this.stop();
      document.removeEventListener("visibilitychange", this.follow);
    }
    get readyState() {
      return this.source ? this.source.readyState : EventSource.CONNECTING;
    }
  }

  function again(part) {
    setTimeout(() => part.isConnected && !isPaused && htmx.trigger(part, "again"), RETRY);
  }

  function clearNotice() {
    const notice = document.getElementById("notice");
    if (notice.hasChildNodes()) { notice.replaceChildren(); }
  }

  function renewAll() {
    for (const part of document.querySelectorAll("[data-live]")) { htmx.trigger(part, "again"); }
  }

  // The server sends the parts of this page that are named here.
  function withParts(url) {
    const found = new URL(url, location.href);
    for (const part of document.querySelectorAll("[data-live]")) {
      found.searchParams.append("part", `${part.id} ${part.dataset.live} ${part.getAttribute("hx-get")}`);
    }
    return found.href;
  }

  // Whether a person is at work in a part, which must not be taken from under the hands.
  function isInUse(part) {
    return part.querySelector("details[open] form, input:focus, textarea:focus, select:focus") !== null;
  }

  // What a person has opened in a part stays open when the part is replaced.
  const opened = new WeakMap();

  function noteOpened(part) {
    opened.set(part, Array.from(part.querySelectorAll("details[id][open]"), (each) => each.id));
  }

  function openAgain(part) {
    for (const id of opened.get(part) || []) {
      const found = document.getElementById(id);
      if (found) { found.open = true; }
    }
  }

  htmx.createEventSource = (url) => new PausedSource(withParts(url));

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (isPaused && event.detail.elt.hasAttribute("data-live")) { event.preventDefault(); }
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { elt, isError } = event.detail;
    if (isError || !elt.hasAttribute("data-live")) { return; }
    if (isInUse(elt)) { event.detail.shouldSwap = false; } else { noteOpened(elt); }
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const { target } = event.detail;
    if (!target) { return; }
    openAgain(target);
    localize(target);
  });
  document.addEventListener("htmx:sseBeforeMessage", (event) => {
    if (isPaused || isInUse(event.target)) { event.preventDefault(); } else { noteOpened(event.target); }
  });
  document.addEventListener("htmx:sseMessage", (event) => {
    if (event.detail.type !== `part-${event.target.id}`) { return; }
    openAgain(event.target);
    localize(event.target);
    clearNotice();
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { elt, successful } = event.detail;
    if (!elt.hasAttribute("data-live")) { return; }
    if (successful) { clearNotice(); } else { again(elt); }
  });
  document.addEventListener("htmx:sendError", () => {
    const text = document.createElement("p");
    text.className = "flash bad";
    text.textContent = "The server does not answer. This page tries again by itself.";
    document.getElementById("notice").replaceChildren(text);
  });
  document.addEventListener("htmx:sseError", () => {
    // Refused, as after the end of the session, or the server is away: the parts find out which.
    clearTimeout(renewing);
    renewing = setTimeout(renewAll, RETRY);
  });

  // A form that acts on what was counted, by a form whose fields have changed since

  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-counts]");
    const button = form && document.querySelector(`#${form.dataset.counts} button`);
    if (button) {
      button.disabled = true;
      button.textContent = "Count again first";
    }
  });

  // The buttons at the top

  const zoneButton = document.getElementById("zone");
  showZone(zoneButton);
  zoneButton.addEventListener("click", () => {
    try { localStorage.setItem(ZONE, zone() === "UTC" ? "local" : "UTC"); } catch { return; }
    showZone(zoneButton);
    localize(document);
  });

  const pauseButton = document.getElementById("pause");
  pauseButton.hidden = !document.querySelector("[data-live]");
  pauseButton.addEventListener("click", () => {
    isPaused = !isPaused;
    pauseButton.setAttribute("aria-pressed", String(isPaused));
    pauseButton.title = isPaused ? "Updates are paused" : "Updates are shown as they come";
    if (!isPaused) { renewAll(); }
  });

  localize(document);
})();
