// Shows what is new without loading the page again: asks for the same address, and changes only what differs, so that
// focus, selection, open parts, pictures and what somebody is typing stay as they are.
"use strict";

(() => {
  const EVERY = 2000;
  const LONGEST = 30000;
  const root = document.querySelector("[data-live]");
  const freshness = document.getElementById("freshness");
  const connection = document.getElementById("connection");
  const button = document.getElementById("pause");
  if (!root || !freshness || !connection || !button) return;

  let pause = EVERY;
  let timer = 0;
  let asking = false;
  let paused = false;

  const key = (node) =>
    node.nodeType !== Node.ELEMENT_NODE ? "" :
      node.id || ["study", "run", "dead", "delivery", "object", "series", "destination", "check", "role", "moment", "lesion"]
        .filter((name) => node.dataset[name]).map((name) => name + " " + node.dataset[name])[0] || "";

  const alike = (one, other) =>
    one.nodeType === other.nodeType && one.nodeName === other.nodeName && key(one) === key(other);

  // What a person has set and the server does not know of: whether something is open, what is typed or chosen.
  const ours = (node, name) => node.nodeName === "DETAILS" && name === "open";

  function changeAttributes(node, wanted) {
    for (const { name } of [...node.attributes]) {
      if (!wanted.hasAttribute(name) && !ours(node, name)) node.removeAttribute(name);
    }
    for (const { name, value } of [...wanted.attributes]) {
      if (node.getAttribute(name) !== value && !ours(node, name)) node.setAttribute(name, value);
    }
  }

  function change(node, wanted) {
    if (node.nodeType !== Node.ELEMENT_NODE) {
      if (node.nodeValue !== wanted.nodeValue) node.nodeValue = wanted.nodeValue;
      return;
    }
    changeAttributes(node, wanted);
    if (node.nodeName === "SELECT" || node.nodeName === "TEXTAREA") return;
    let here = node.firstChild;
    for (const child of [...wanted.childNodes]) {
      let found = here;
      if (found && !alike(found, child)) {
        // Something came before it, or went: what is the same further on is kept, and moved here.
        const name = key(child);
        for (found = name ? here.nextSibling : null; found && !alike(found, child); ) found = found.nextSibling;
      }
      if (!found) {
        node.insertBefore(document.importNode(child, true), here);
        continue;
      }
      if (found === here) here = here.nextSibling;
      else node.insertBefore(found, here);
      change(found, child);
    }
    while (here) {
      const next = here.nextSibling;
      here.remove();
      here = next;
    }
  }

  function say(text) {
    if (connection.textContent !== text) connection.textContent = text;
  }

  async function ask() {
    if (asking || paused || document.hidden) return;
    asking = true;
    try {
      const answer = await fetch(location.href, {
        headers: { "X-Live": "1", Accept: "text/html" },
        cache: "no-store",
        credentials: "same-origin",
        redirect: "error",
        signal: AbortSignal.timeout(15000),
      });
      if (answer.status === 401) {
        location.reload();
        return;
      }
      if (!answer.ok) {
        say("The node cannot show what is new (" + answer.status + ").");
        pause = Math.min(2 * pause, LONGEST);
        return;
      }
      const wanted = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (paused) return;
      const live = wanted.querySelector("[data-live]");
      const fresh = wanted.getElementById("freshness");
      if (live) change(root, live);
      if (fresh) change(freshness, fresh);
      say("");
      pause = EVERY;
    } catch {
      say("The node does not answer; what is shown may be old.");
      pause = Math.min(2 * pause, LONGEST);
    } finally {
      asking = false;
      later();
    }
  }

  function later() {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(ask, pause);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else ask();
  });
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    clearTimeout(timer);
    ask();
  });
  button.hidden = false;
  later();
})();
