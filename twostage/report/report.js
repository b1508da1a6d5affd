"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  const shown = viewer.querySelector("img");
  const caption = viewer.querySelector("figcaption");
  let current = null;
  document.documentElement.classList.add("enlargeable");

  const show = (picture) => {
    if (!picture) return;
    current = picture;
    shown.src = picture.src;
    shown.alt = picture.alt;
    caption.textContent = picture.alt;
    if (!viewer.open) viewer.showModal();
  };

  const visible = (selector, root) => [...root.querySelectorAll(selector)].filter((found) => found.checkVisibility());

  // Left and right stay with the image; up and down keep to the same kind of picture.
  const step = (key) => {
    const example = current.closest(".example");
    const pictures = [...example.querySelectorAll("img")];
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const next = pictures.indexOf(current) + (key === "ArrowRight" ? 1 : -1);
      show(pictures[(next + pictures.length) % pictures.length]);
      return;
    }
    const examples = visible(".example", document);
    const other = examples[examples.indexOf(example) + (key === "ArrowDown" ? 1 : -1)];
    if (!other) return;
    const name = current.alt.split(":")[0];
    const match = [...other.querySelectorAll("img")].find((picture) => picture.alt.startsWith(name + ":"));
    show(match || other.querySelector("img"));
  };

  document.addEventListener("click", (event) => {
    const zoom = event.target.closest(".zoom");
    const stepper = event.target.closest("[data-step]");
    if (zoom) show(zoom.querySelector("img"));
    else if (stepper && stepper.dataset.step !== "close") step(stepper.dataset.step);
    else if (viewer.open) viewer.close();
  });
  viewer.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    step(event.key);
  });
  viewer.addEventListener("close", () => {
    const zoom = current.closest(".zoom");
    zoom.scrollIntoView({ block: "nearest" });
    zoom.focus({ preventScroll: true });
  });
})();
