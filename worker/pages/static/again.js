// Loads a page that could not be shown again, once the server has an answer: until then people go on reading why.
"use strict";
setInterval(async () => {
  try {
    if ((await fetch(location.href)).status !== 503) { location.reload(); }
  } catch { /* the server is away */ }
}, 2000);
