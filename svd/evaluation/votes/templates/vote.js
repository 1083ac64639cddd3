"use strict";
(() => {
  const one = (id) => document.getElementById(id);
  const left = one("left"), right = one("right"), videos = [left, right];
  const minWatchS = Number(document.body.dataset.minWatchS);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let ballot = null, answers = {}, shownAt = 0, replays = 0, sending = false;

  // Both videos run on one clock: they start together, wait for each other and begin again together.
  const restart = () => { for (const video of videos) { video.currentTime = 0; video.play().catch(() => {}); } };
  for (const video of videos) {
    video.addEventListener("ended", () => { if (videos.every((each) => each.ended)) restart(); });
    video.addEventListener("canplaythrough", () => {
      if (ballot && !shownAt && videos.every((each) => each.readyState >= 3)) {
        shownAt = performance.now();
        setTimeout(refresh, minWatchS * 1000 + 20);
        if (!still) restart();
        refresh();
      }
    });
    video.addEventListener("error", () => { if (ballot) trouble("A video could not be loaded: reload the page."); });
  }
  left.addEventListener("timeupdate", () => {
    if (!right.ended && Math.abs(right.currentTime - left.currentTime) > 0.12) right.currentTime = left.currentTime;
  });
  const replay = () => { replays += 1; restart(); };
  const pauseOrPlay = () => { if (videos.some((video) => !video.paused)) videos.forEach((video) => video.pause()); else videos.forEach((video) => video.play().catch(() => {})); };

  const watched = () => shownAt > 0 && performance.now() - shownAt >= minWatchS * 1000;
  const current = () => ballot?.questions.find((name) => !answers[name]) ?? null;
  const ready = () => ballot !== null && current() === null && watched() && !sending;
  const trouble = (text) => { one("trouble").textContent = text; one("trouble").hidden = !text; };

  function refresh() {
    for (const name of ["quality", "following"]) {
      const field = one(name);
      field.hidden = !ballot?.questions.includes(name);
      field.classList.toggle("now", current() === name);
      for (const button of field.querySelectorAll("button")) button.setAttribute("aria-pressed", String(answers[name] === button.dataset.side));
    }
    one("send").disabled = !ready();
    one("send").textContent = current() === null && !watched() ? "Keep watching ..." : "Send";
  }
  const answer = (name, side) => { if (ballot && name && !sending) { answers[name] = side; refresh(); } };

  async function call(path, body) {
    const options = body ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {};
    const response = await fetch(path, { ...options, cache: "no-store", credentials: "same-origin" });
    if (response.ok) return response.json();
    const said = await response.json().catch(() => ({}));
    const refusal = new Error(typeof said.detail === "string" ? said.detail : `the server answered ${response.status}`);
    refusal.status = response.status;
    throw refusal;
  }

  // A vote that got no answer is sent again with the same ballot; the server counts it once.
  async function persist(path, body) {
    for (let wait = 500; ; wait = Math.min(2 * wait, 15000)) {
      try { const said = await call(path, body); trouble(""); return said; }
      catch (refusal) {
        if (refusal.status && refusal.status < 500) throw refusal;
        trouble("No connection: your answer is kept and sent again by itself.");
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }

  async function next() {
    const given = await persist("api/ballot");
    answers = {}; shownAt = 0; replays = 0; sending = false;
    one("bar").max = Math.max(1, given.total); one("bar").value = given.done; one("count").textContent = `${given.done} of ${given.total}`;
    ballot = given.ballot ? given : null;
    one("ballot").hidden = !ballot; one("done").hidden = Boolean(ballot);
    document.body.dataset.ballot = given.ballot ?? "";
    if (!ballot) return;
    one("prompt").textContent = given.prompt; one("prompt").hidden = !given.prompt;
    one("picture").hidden = !given.picture; if (given.picture) one("picture").src = given.picture;
    left.src = given.left; right.src = given.right;
    refresh();
  }

  async function send() {
    if (!ready()) return;
    sending = true; refresh();
    const vote = { ballot: ballot.ballot, quality: answers.quality, following: answers.following ?? null,
                   watched_ms: Math.round(performance.now() - shownAt), replays };
    try { await persist("api/vote", vote); }
    catch (refusal) { if (refusal.status !== 409) throw refusal; }  // voted on in another tab: go on
    await next();
  }
  const run = (step) => step().catch((refusal) => { sending = false; trouble(`Not taken: ${refusal.message}.`); refresh(); });

  for (const name of ["quality", "following"])
    for (const button of one(name).querySelectorAll("button")) button.addEventListener("click", () => answer(name, button.dataset.side));
  document.addEventListener("click", (event) => { if (event.detail > 0) document.activeElement?.blur(); });  // so that Enter sends
  for (const figure of document.querySelectorAll(".pair figure")) figure.addEventListener("click", () => answer(current(), figure.dataset.side));
  one("send").addEventListener("click", () => run(send));
  one("replay").addEventListener("click", replay);
  const sides = { a: "left", ArrowLeft: "left", b: "right", ArrowRight: "right" };
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const mayTie = one("quality").querySelector("[data-side=tie]") !== null;
    if (sides[key]) answer(current(), sides[key]);
    else if (key === "s" && mayTie) answer(current(), "tie");
    else if (key === "Backspace") { const last = ballot?.questions.filter((name) => answers[name]).at(-1); if (last) delete answers[last]; refresh(); }
    else if (key === "r") replay();
    else if (key === " ") pauseOrPlay();
    else if (key === "Enter") run(send);
    else return;
    event.preventDefault();
  });
  run(next);
})();
