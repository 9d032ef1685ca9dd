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
  await generate();
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
    const grid = element("grid");
    const caption =
      `${element("count").value} synthetic images of ${response.headers.get("X-Verisynth-Model")}, ` +
      `version ${response.headers.get("X-Verisynth-Version")}, seed ${response.headers.get("X-Verisynth-Seed")}.`;
    URL.revokeObjectURL(grid.src);
    grid.src = url;
    grid.alt = caption;
    await grid.decode();
    grid.classList.toggle("small", grid.naturalWidth < 640);
    element("grid-caption").textContent = caption;
    element("samples").hidden = false;
  });
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
    showVerdict(await response.json());
  });
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
  generate();
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
