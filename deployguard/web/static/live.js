// Keeps what is at work up to date; without it the page is as it was when it was opened.
"use strict";

const EVERY = 5000;

async function renew() {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(part.id);
        if (answer.ok && !fresh) {
          // It is over, and has another page now.
          location.reload();
          return;
        }
        if (answer.ok && fresh && fresh.innerHTML !== part.innerHTML) {
          part.replaceChildren(...fresh.childNodes);
        }
      }
    } catch {
      // It is asked again: serve may be on its way back.
    }
  }
  setTimeout(renew, EVERY);
}

setTimeout(renew, EVERY);
