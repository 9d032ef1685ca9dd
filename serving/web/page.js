// The page for people: what `/` offers, over the same API that programs use.

import { elements } from "./markdown.js";

const element = (id) => document.getElementById(id);
const VERDICTS = {
  real: "Real",
  synthetic: "Synthetic",
  uncertain: "Uncertain",
  out_of_scope: "Out of scope: unlike the images this model knows",
};
const KEY = "verisynth-key";
let models = [];

// With the key, where there is one: this tab's own storage, which no other page and no later visit reads.
function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  return fetch(path, { ...options, headers });
}

async function problem(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The service answered ${response.status}.`;
  }
}

function show(id, text) {
  element(id).textContent = text;
  element(id).hidden = !text;
}

function explained(error) {
  return error instanceof TypeError ? "The service cannot be reached. Is it still running?" : error.message;
}

async function busy(form, errorId, work) {
  const buttons = [...form.querySelectorAll("button")];
  show(errorId, "");
  buttons.forEach((button) => (button.disabled = true));
  form.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    show(errorId, explained(error));
  } finally {
    buttons.forEach((button) => (button.disabled = false));
    form.removeAttribute("aria-busy");
  }
}

async function loadModels() {
  const response = await ask("/v1/models");
  const key = sessionStorage.getItem(KEY);
  element("access").hidden = response.status !== 401 && !key;
  element("forget").hidden = !key;
  if (!response.ok) throw new Error(await problem(response));
  const answer = await response.json();
  models = answer.models;
  const refused = Object.entries(answer.refused).map(([name, reason]) => `${name} is not served: ${reason}`);
  if (models.length === 0) {
    const ready = await fetch("/readyz");
    return show("obstacle", ready.ok ? "No model is served." : await problem(ready));
  }
  show("obstacle", refused.join(" "));
  element("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  element("model").disabled = false;
  element("judge").replaceChildren(
    new Option("any model: the one that knows such images", ""),
    ...models.map((model) => new Option(model.name, model.name)),
  );
  element("judge-field").hidden = models.length === 1;
  enable(true);
  describe();
  element("generate").requestSubmit();
  await loadCollections();
}

// Shown where there are any, and to whom they may be shown.
async function loadCollections() {
  const response = await ask("/v1/collections");
  const collections = response.ok ? (await response.json()).collections : [];
  element("collections").hidden = collections.length === 0;
  element("thumbnails").replaceChildren();
  const option = ({ name, version }) => new Option(`${name} ${version}`, `/v1/collections/${encodeURIComponent(name)}/${encodeURIComponent(version)}`);
  element("collection").replaceChildren(...collections.map(option));
  element("collection").onchange = () => {
    const { name, version, images_kept, licence, bytes } = collections[element("collection").selectedIndex];
    element("collection-note").textContent =
      `${images_kept} images, ${(bytes / 2 ** 20).toFixed(1)} MiB. Licence: ${licence}. ` +
      `To fetch them: verisynth collection fetch ${name} FOLDER --version ${version}`;
    element("more").hidden = true;
  };
  if (collections.length > 0) element("collection").onchange();
}

const THUMBNAILS = 12;

// Some records of a page from `first` on; the button for more goes on from there, through all pages.
function browse(base, page, first) {
  return busy(element("browse"), "browse-error", async () => {
    const response = await ask(`${base}/records?page=${page}`);
    if (!response.ok) throw new Error(await problem(response));
    const { records, pages } = await response.json();
    const shown = await Promise.all(records.slice(first, first + THUMBNAILS).map(thumbnail));
    element("thumbnails").replaceChildren(...shown);
    const end = first + THUMBNAILS >= records.length;
    element("more").hidden = end && page + 1 === pages;
    element("more").onclick = () => (end ? browse(base, page + 1, 0) : browse(base, page, first + THUMBNAILS));
  });
}

async function thumbnail({ file, label, index, image_url, mask_url }) {
  const figure = document.createElement("figure");
  for (const address of [image_url, mask_url].filter((url) => url !== null)) {
    const response = await ask(address);
    if (!response.ok) throw new Error(await problem(response));
    const picture = new Image();
    picture.src = URL.createObjectURL(await response.blob());
    picture.alt = address === mask_url ? `mask of ${file}` : file;
    await picture.decode();
    URL.revokeObjectURL(picture.src);
    figure.append(picture);
  }
  const caption = document.createElement("figcaption");
  caption.textContent = label === null ? `${index}` : `${index}, ${label}`;
  figure.append(caption);
  return figure;
}

function enable(usable) {
  document.querySelectorAll("main form:not(#access) button").forEach((button) => (button.disabled = !usable));
}

async function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  element("key").value = "";
  enable(false);
  await loadModels().catch((error) => show("obstacle", explained(error)));
}

// A link cannot send a key: what it leads to is fetched, and then opened.
async function follow(event) {
  if (!sessionStorage.getItem(KEY)) return;
  event.preventDefault();
  try {
    const response = await ask(event.currentTarget.href);
    if (!response.ok) throw new Error(await problem(response));
    window.location.assign(URL.createObjectURL(await response.blob()));
  } catch (error) {
    show("obstacle", explained(error));
  }
}

function chosen() {
  return models.find((model) => model.name === element("model").value);
}

function describe() {
  const { manifest, version } = chosen();
  const { size, channels } = manifest.image;
  const { title, origin, source, licence } = manifest.data;
  const kind = channels === 3 ? "colour" : "grey";
  element("card").textContent =
    `Version ${version}. ${size}×${size} pixels, ${kind}. Trained on: ${title ?? source}. ` +
    `${origin ? `Origin: ${origin.replaceAll("`", "")}. ` : ""}Licence: ${licence}. ` +
    `For: ${manifest.intended_use}. ${manifest.limitations.join(" ")}`.replaceAll("..", ".");
  const failed = manifest.privacy.checks.filter((check) => !check.passed).map((check) => check.name);
  const warning =
    `This model failed its privacy checks (${failed.join(", ")}): ` +
    "its images may give away training images. Its model card says more.";
  show("privacy", manifest.privacy.passed ? "" : warning);
  element("model-card").hidden = false;
  element("model-card").open = false;
  element("model-card-file").href = `/v1/models/${chosen().name}/card`;
  describeLabels(manifest.generator.labels);
  describePainter(manifest);
}

function describePainter({ painter, image: { size } }) {
  element("painting").hidden = painter === undefined;
  element("painted").hidden = true;
  element("mask").width = size;
  element("mask").height = size;
  element("mask-note").textContent = `${size}×${size} pixels: white is what the photograph is painted on.`;
  clearMask();
}

// The value of each choice is what it adds to a request.
function describeLabels(labels) {
  const choice = (text, fields) => new Option(text, JSON.stringify(fields));
  const all = [choice("all in turn", { balance: "equal" }), choice("all as in training", { balance: "training" })];
  element("label-field").hidden = labels.length === 0;
  element("label").replaceChildren(
    ...(labels.length === 0 ? [choice("", {})] : [...all, ...labels.map((label) => choice(label, { label }))]),
  );
}

async function showCard() {
  const { name } = chosen();
  element("model-card-text").replaceChildren();
  show("model-card-error", "");
  try {
    const response = await ask(`/v1/models/${name}/card`);
    if (!response.ok) throw new Error(await problem(response));
    const text = await response.text();
    if (chosen().name === name) element("model-card-text").replaceChildren(...elements(text));
  } catch (error) {
    show("model-card-error", explained(error));
  }
}

async function requestImages(format) {
  const body = {
    model: chosen().name,
    count: element("count").valueAsNumber,
    truncation: element("truncation").valueAsNumber,
    format,
    ...JSON.parse(element("label").value),
  };
  if (element("seed").value !== "") body.seed = element("seed").valueAsNumber;
  const response = await ask("/v1/generate", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(await problem(response));
  return { response, url: URL.createObjectURL(await response.blob()) };
}

function generate() {
  return busy(element("generate"), "generate-error", async () => {
    const { response, url } = await requestImages("png");
    await present(element("samples"), response, url, `${element("count").value} synthetic images`);
  });
}

// An answer's picture and where it comes from, in a figure.
async function present(figure, response, url, what) {
  const told = (name) => response.headers.get(`X-Verisynth-${name}`);
  const caption = `${what} of ${told("Model")}, version ${told("Version")}, seed ${told("Seed")}.`;
  const picture = figure.querySelector("img");
  URL.revokeObjectURL(picture.src);
  picture.src = url;
  picture.alt = caption;
  await picture.decode();
  picture.classList.toggle("small", picture.naturalWidth < 640);
  figure.querySelector("figcaption").textContent = caption;
  figure.hidden = false;
}

function paint() {
  return busy(element("paint"), "paint-error", async () => {
    const body = new FormData();
    const drawn = () => new Promise((resolve) => element("mask").toBlob(resolve));
    body.append("mask", element("mask-file").files[0] ?? (await drawn()), "mask.png");
    body.append("model", chosen().name);
    body.append("format", "png");
    body.append("count", element("paint-count").value);
    if (element("paint-seed").value !== "") body.append("seed", element("paint-seed").value);
    const response = await ask("/v1/paint", { method: "POST", body });
    if (!response.ok) throw new Error(await problem(response));
    const url = URL.createObjectURL(await response.blob());
    await present(element("painted"), response, url, `${element("paint-count").value} images painted on your mask by the painter`);
  });
}

function clearMask() {
  const { width, height } = element("mask");
  const context = element("mask").getContext("2d");
  context.fillStyle = "black";
  context.fillRect(0, 0, width, height);
  element("mask-file").value = "";
}

// A file is sent as it is, and shown only: what it holds is the service's to judge.
async function showMaskFile() {
  const file = element("mask-file").files[0];
  const picture = file && (await createImageBitmap(file).catch(() => null));
  if (!picture) return;
  const { width, height } = element("mask");
  element("mask").getContext("2d").drawImage(picture, 0, 0, width, height);
}

// Whole pixels of black or white: a smooth line would be no mask.
function draw(event) {
  if (event.buttons !== 1) return;
  const canvas = element("mask");
  const box = canvas.getBoundingClientRect();
  const place = (x, y) => [((x - box.left) * canvas.width) / box.width, ((y - box.top) * canvas.height) / box.height];
  const [column, row] = place(event.clientX, event.clientY);
  const moved = event.type === "pointermove";
  const [lastColumn, lastRow] = moved ? place(event.clientX - event.movementX, event.clientY - event.movementY) : [column, row];
  if (element("mask-file").value !== "") clearMask();
  const context = canvas.getContext("2d");
  const brush = Number(element("brush").value);
  const side = Math.abs(brush);
  context.fillStyle = brush > 0 ? "white" : "black";
  const steps = Math.ceil(Math.max(Math.abs(column - lastColumn), Math.abs(row - lastRow), 1));
  for (let step = 0; step <= steps; step += 1) {
    const left = lastColumn + ((column - lastColumn) * step) / steps;
    const top = lastRow + ((row - lastRow) * step) / steps;
    context.fillRect(Math.floor(left) - (side - 1) / 2, Math.floor(top) - (side - 1) / 2, side, side);
  }
}

function download(format) {
  return busy(element("generate"), "generate-error", async () => {
    const { response, url } = await requestImages(format);
    const link = document.createElement("a");
    link.href = url;
    link.download = response.headers.get("Content-Disposition").match(/filename="(.+)"/)[1];
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  });
}

function check() {
  return busy(element("check"), "check-error", async () => {
    element("result").hidden = true;
    const body = new FormData();
    body.append("image", element("image").files[0]);
    if (element("judge").value !== "") body.append("model", element("judge").value);
    const response = await ask("/v1/authenticity", { method: "POST", body });
    if (!response.ok) throw new Error(await problem(response));
    showVerdict(withSeedsAsText(await response.text()));
  });
}

// Seeds go beyond what a number holds here to the last digit: up to 2 ** 63 - 1, not 2 ** 53 - 1.
function withSeedsAsText(json) {
  return JSON.parse(json.replace(/"seed":\s*(\d+)/g, '"seed":"$1"'));
}

function showVerdict(answer) {
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  element("verdict").textContent = VERDICTS[answer.verdict];
  element("verdict").dataset.verdict = answer.verdict;
  element("zone-real").style.width = `${100 * answer.thresholds.real}%`;
  element("zone-synthetic").style.width = `${100 - 100 * answer.thresholds.synthetic}%`;
  element("marker").style.left = `${100 * answer.synthetic_probability}%`;
  const { detector, typicality, typicalities, provenance } = answer.evidence;
  const others = Object.entries(typicalities).filter(([name]) => name !== answer.model);
  const rows = [
    ["Probability of synthetic", percent(answer.synthetic_probability)],
    ["Called real", `at or below ${percent(answer.thresholds.real)}`],
    ["Called synthetic", `at or above ${percent(answer.thresholds.synthetic)}`],
    ["Typicality", `${typicality.toFixed(3)} (out of scope below ${answer.thresholds.typicality})`],
    ...(others.length === 0 ? [] : [["For other models", others.map(([name, found]) => `${name}: ${found.toFixed(3)}`).join(", ")]]),
    ["Detector", `${detector.kind}, ${detector.tiles} ${detector.tiles === 1 ? "tile" : "tiles"} judged`],
    ["Detector says", VERDICTS[detector.verdict]],
    ["Mark of origin", markOfOrigin(provenance)],
    ...(provenance.claim === null ? [] : [["It claims", source(provenance.claim)]]),
    ...(provenance.match === null ? [] : [["Like a generated image", likeness(provenance.match)]]),
    ["Image", `${answer.image.format}, ${answer.image.width}×${answer.image.height}`],
    ["SHA-256", answer.image.sha256],
    ["Model", `${answer.model}, version ${answer.model_version}`],
  ];
  element("evidence").replaceChildren(
    ...rows.flatMap(([term, text]) => {
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = term;
      dd.textContent = text;
      return [dt, dd];
    }),
  );
  drawHeatmap(detector.heatmap);
  element("result").hidden = false;
}

const MARKS = {
  valid: "signed, and the pixels are those that were signed",
  broken: "broken: unreadable, wrongly signed, or on other pixels; it proves nothing",
  unsigned: "there, without a signature",
  unknown_key: "there, signed with a key that is not trusted here",
  absent: "none; that never means real",
};

function markOfOrigin({ status, key_id, reproduced }) {
  const again = {
    true: "Made again here: the same image.",
    false: "Made again here: another image.",
    null: "",
  }[reproduced];
  return `${MARKS[status]}${key_id === null ? "" : ` (key ${key_id})`}. ${again}`.trim();
}

function source({ model, version, seed, index, kind, label }) {
  return `${kind ?? "image"} ${index} of seed ${seed}${label === null ? "" : `, label ${label}`}, drawn by ${model}, version ${version}`;
}

function likeness(match) {
  const made = match.similarity === null ? "it cannot be made again here, so this is a hint" : `similarity ${match.similarity.toFixed(3)} to it made again`;
  return `${source(match)}: ${match.distance} of 128 signs differ; ${made}`;
}

function drawHeatmap(rows) {
  element("heatmap-figure").hidden = rows === null;
  if (rows === null) return;
  const canvas = element("heatmap");
  canvas.height = rows.length;
  canvas.width = rows[0].length;
  const values = rows.flat();
  const low = Math.min(...values);
  const range = Math.max(...values) - low || 1;
  const context = canvas.getContext("2d");
  values.forEach((value, index) => {
    context.fillStyle = `hsl(35 85% ${10 + (80 * (value - low)) / range}%)`;
    context.fillRect(index % canvas.width, Math.floor(index / canvas.width), 1, 1);
  });
}

element("model").addEventListener("change", () => {
  describe();
  element("result").hidden = true;
  element("generate").requestSubmit();
});
element("model-card").addEventListener("toggle", () => element("model-card").open && showCard());
element("truncation").addEventListener("input", () => (element("truncation-value").textContent = element("truncation").value));
element("generate").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
document.querySelectorAll("[data-format]").forEach((button) =>
  button.addEventListener("click", () => element("generate").reportValidity() && download(button.dataset.format)),
);
element("paint").addEventListener("submit", (event) => {
  event.preventDefault();
  paint();
});
element("browse").addEventListener("submit", (event) => {
  event.preventDefault();
  browse(element("collection").value, 0, 0);
});
element("clear-mask").addEventListener("click", clearMask);
element("mask-file").addEventListener("change", showMaskFile);
["pointerdown", "pointermove"].forEach((kind) => element("mask").addEventListener(kind, draw));
element("check").addEventListener("submit", (event) => {
  event.preventDefault();
  check();
});
element("access").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(element("key").value.trim());
});
element("forget").addEventListener("click", () => useKey(""));
document.querySelectorAll("a[data-keyed]").forEach((link) => link.addEventListener("click", follow));
loadModels().catch((error) => show("obstacle", explained(error)));
