"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

  // Light and dark: the system's choice until the reader makes one.
  one("#theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Which section is being read.
  const links = new Map(all(".side a").map((link) => [link.hash.slice(1), link]));
  const reading = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const [id, link] of links) link.classList.toggle("here", id === entry.target.id);
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) reading.observe(document.getElementById(id));

  // Samples and truths play in step. Only what is on the screen plays.
  const triples = all(".triple");
  const fps = Number(one(".triples")?.dataset.fps ?? 8);
  let playing = !still;
  let speed = 1;
  const visible = new Set();
  const videosOf = (triple) => all("video", triple);

  const restart = (triple) => {
    for (const video of videosOf(triple)) {
      video.currentTime = 0;
      video.playbackRate = speed;
      if (playing && visible.has(triple)) video.play().catch(() => {});
    }
  };
  const refresh = (triple) => {
    for (const video of videosOf(triple)) {
      video.playbackRate = speed;
      if (playing && visible.has(triple)) video.play().catch(() => {}); else video.pause();
    }
  };
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) visible.add(target); else visible.delete(target);
      refresh(target);
    }
  }, { rootMargin: "80px" });
  for (const triple of triples) {
    const videos = videosOf(triple);
    for (const video of videos) {
      video.addEventListener("ended", () => { if (videos.every((each) => each.ended)) restart(triple); });
      video.addEventListener("timeupdate", () => {
        const drift = video.currentTime - videos[0].currentTime;
        if (video !== videos[0] && Math.abs(drift) > 1.5 / fps) video.currentTime = videos[0].currentTime;
      });
    }
    watch.observe(triple);
  }
  const setPlaying = (value) => {
    playing = value;
    const button = one("#play");
    if (button) {
      button.textContent = playing ? "Pause" : "Play";
      button.setAttribute("aria-pressed", String(playing));
    }
    triples.forEach(refresh);
    for (const video of all(".mosaic video")) { if (playing) video.play().catch(() => {}); else video.pause(); }
  };
  one("#play")?.addEventListener("click", () => setPlaying(!playing));
  one("#step")?.addEventListener("click", () => {
    setPlaying(false);
    for (const triple of visible) {
      for (const video of videosOf(triple)) {
        const next = Math.floor(video.currentTime * fps + 1.5) / fps;
        video.currentTime = next >= video.duration ? 0 : next + 0.25 / fps;
      }
    }
  });
  one("#speed")?.addEventListener("change", (event) => { speed = Number(event.target.value); triples.forEach(refresh); });
  one("#order")?.addEventListener("change", (event) => {
    const keys = {
      id: (a, b) => a.dataset.id.localeCompare(b.dataset.id),
      best: (a, b) => b.dataset.psnr - a.dataset.psnr,
      worst: (a, b) => a.dataset.psnr - b.dataset.psnr,
      rank: (a, b) => b.dataset.rank - a.dataset.rank || a.dataset.psnr - b.dataset.psnr,
    };
    one(".triples").append(...triples.toSorted(keys[event.target.value]));
  });
  one("#missesonly")?.addEventListener("change", (event) => {
    for (const triple of triples) triple.hidden = event.target.checked && triple.dataset.rank === "1";
  });
  one("#recon")?.addEventListener("change", (event) => one(".triples").classList.toggle("through", event.target.checked));
  setPlaying(playing);

  // One reason of rejection at a time.
  const chips = all(".chip");
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      for (const other of chips) other.classList.toggle("on", other === chip);
      for (const thumb of all("#rejected .thumb")) {
        thumb.hidden = chip.dataset.rule !== "" && !thumb.dataset.rules.split("|").includes(chip.dataset.rule);
      }
    });
  }
})();
