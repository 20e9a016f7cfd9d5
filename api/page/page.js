"use strict";

const $ = (id) => document.getElementById(id);
const api = "/api/v1";

/** An element with children; strings become text, so that nothing from a document is ever parsed as HTML. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") element.addEventListener("click", value);
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

async function call(path, options = {}) {
  const response = await fetch(api + path, options);
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) throw new Error("The session is over. Load the page again.");
  throw new Error(problem.detail || problem.title || `The server answered ${response.status}.`);
}

// Asking

let current = null; // { id, events, text, sources, final }

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = $("question").value.trim();
  if (query) ask(query);
});

$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});

$("question").addEventListener("input", grow);

function grow() {
  const box = $("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

$("stop").addEventListener("click", () => {
  if (current?.id) call(`/queries/${current.id}`, { method: "DELETE" }).catch((error) => notify(error.message, true));
});

async function ask(query) {
  current?.events?.close();
  const mine = (current = { id: null, events: null, text: "", sources: [], final: false });
  $("welcome").hidden = true;
  $("result").hidden = false;
  $("asked").textContent = query;
  $("facts").textContent = "";
  notify("");
  showSources([]);
  render();
  busy(true);
  history.replaceState(null, "", `#${new URLSearchParams({ q: query })}`);
  try {
    const body = JSON.stringify({ query, background: false });
    const headers = { "Content-Type": "application/json" };
    const accepted = await call("/queries", { method: "POST", headers, body });
    if (current !== mine) return;
    mine.id = accepted.query_id;
    follow(mine, accepted.stream_url);
  } catch (error) {
    if (current === mine) finish(mine, error.message);
  }
}

/** EventSource reconnects by itself and says where it was: no token is lost or doubled. */
function follow(mine, url) {
  const events = (mine.events = new EventSource(url));
  const on = (name, handle) =>
    events.addEventListener(name, (event) => current === mine && handle(JSON.parse(event.data)));
  on("sources", (data) => {
    mine.sources = data.sources;
    showSources(data.sources);
  });
  on("token", (data) => {
    mine.text += data.text;
    render();
  });
  on("restart", () => {
    mine.text = "";
    render();
    notify("Another worker has taken over and begins again.");
  });
  on("resync", (data) => {
    if (data.answer) done(mine, data.answer);
    else notify("The connection to the answer was lost; it will be shown when it is finished.");
  });
  on("done", (answer) => done(mine, answer));
  on("failed", (data) => finish(mine, data.reason === "stopped" ? "Stopped." : data.detail));
  events.onopen = () => current === mine && notify("");
  events.onerror = () => {
    if (current !== mine || mine.final) return;
    if (events.readyState === EventSource.CLOSED) finish(mine, "The stream ended early. Ask again.");
    else notify("Connecting again …");
  };
}

function done(mine, answer) {
  mine.text = answer.answer;
  mine.sources = answer.sources;
  showSources(answer.answered ? answer.sources : []);
  draw();
  const facts = [`${Math.round(answer.took_ms)} ms`];
  if (typeof answer.confidence === "number") facts.push(`confidence ${Math.round(answer.confidence * 100)} %`);
  facts.push(answer.generator === "extractive" ? "quoted from the documents" : `written by ${answer.generator}`);
  if (answer.behind_ms > 1000) facts.push(`index ${(answer.behind_ms / 1000).toFixed(1)} s behind the log`);
  $("facts").textContent = facts.join(" · ");
  if (answer.degraded) notify(`Answered with less than everything: ${answer.degraded_reason}.`);
  finish(mine);
}

function finish(mine, problem) {
  mine.final = true;
  mine.events?.close();
  busy(false);
  if (problem) notify(problem, true);
}

function busy(is) {
  $("answer").setAttribute("aria-busy", String(is));
  $("stop").hidden = !is;
  $("send").hidden = is;
}

function notify(text, bad = false) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
  $("notice").classList.toggle("bad", bad);
}

// Showing an answer

let scheduled = false;

function render() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

/** At once, whole: a page that is not looked at gets no frames, and an answer is not over before it is shown. */
function draw() {
  $("answer").replaceChildren(...blocks(current.text));
}

/** Paragraphs and lists; what a plain answer needs, no more. */
function blocks(text) {
  const out = [];
  for (const part of text.split(/\n{2,}/)) {
    const lines = part.split("\n").filter((line) => line.trim());
    if (!lines.length) continue;
    if (lines.every((line) => /^\s*[-*•] /.test(line))) {
      out.push(el("ul", {}, ...lines.map((line) => el("li", {}, ...inline(line.replace(/^\s*[-*•] /, ""))))));
    } else {
      const paragraph = el("p");
      lines.forEach((line, n) => paragraph.append(...(n ? [el("br")] : []), ...inline(line)));
      out.push(paragraph);
    }
  }
  return out;
}

function inline(text) {
  return text.split(/(\[\d+\]|`[^`]+`|\*\*[^*]+\*\*)/).map((piece) => {
    const cited = /^\[(\d+)\]$/.exec(piece);
    if (cited) return citation(Number(cited[1]), piece);
    if (/^`[^`]+`$/.test(piece)) return el("code", {}, piece.slice(1, -1));
    if (/^\*\*[^*]+\*\*$/.test(piece)) return el("strong", {}, piece.slice(2, -2));
    return piece;
  });
}

function citation(number, text) {
  const source = current.sources.find((one) => one.citation === number);
  if (!source) return text;
  const button = el("button", { class: "cite", type: "button", "aria-label": `Source ${number}: ${source.title}` }, String(number));
  button.addEventListener("click", () => openSource(source));
  for (const [event, lit] of [["mouseenter", true], ["mouseleave", false], ["focus", true], ["blur", false]]) {
    button.addEventListener(event, () => $(`source-${number}`)?.classList.toggle("lit", lit));
  }
  return button;
}

function showSources(sources) {
  $("sources-box").hidden = !sources.length;
  $("sources").replaceChildren(
    ...sources.map((source) =>
      el("li", { id: `source-${source.citation}` },
        el("button", { type: "button", onclick: () => openSource(source) },
          el("b", {}, String(source.citation)),
          el("span", {},
            el("strong", {}, source.title || source.document_id),
            el("span", { class: "path" }, [source.document_id, ...source.heading_path].join(" › ") + (source.page ? ` · page ${source.page}` : "")),
            el("span", { class: "text" }, ...highlighted(source.text, source.quote)))))),
  );
}

/** A quote may join several places of a passage with an ellipsis. */
function highlighted(text, quote, kind) {
  const out = [];
  let rest = text;
  for (const part of quote ? quote.split(" … ") : []) {
    const at = rest.indexOf(part);
    if (at < 0) continue;
    out.push(rest.slice(0, at), el("mark", { class: kind }, part));
    rest = rest.slice(at + part.length);
  }
  return [...out, rest];
}

// Opening a citation in its document

const CITED_THEN = "This is the text that was cited. The document has changed since.";
const CITED_ELSEWHERE =
  "This is the document's present text: it has changed since it was cited, and what it said then is not kept any more. The marked place may say something else.";

async function openSource(source) {
  $("reader-title").textContent = source.title || source.document_id;
  $("reader-path").textContent = [source.document_id, ...source.heading_path].join(" › ");
  $("reader-note").hidden = true;
  $("reader-text").replaceChildren("Opening …");
  if (!$("reader").open) $("reader").showModal();
  const { collection, document_id, revision, start, end } = source;
  try {
    const place = new URLSearchParams({ collection, document_id, start, end });
    // A larger number has been rounded on its way here: better no revision than a wrong one.
    if (Number.isSafeInteger(revision)) place.set("revision", revision);
    const found = await call(`/sources?${place}`);
    // Offsets count code points, strings here count UTF-16 units.
    const points = Array.from(found.text);
    const [from, to] = [found.start - found.text_start, found.end - found.text_start];
    const mark = el("mark", {}, ...highlighted(points.slice(from, to).join(""), source.quote, "quote"));
    $("reader-text").replaceChildren(points.slice(0, from).join(""), mark, points.slice(to).join(""));
    if (!found.current) readerNote(found.revision === revision ? CITED_THEN : CITED_ELSEWHERE);
    mark.scrollIntoView({ block: "center" });
  } catch (error) {
    readerNote(`${error.message} This is the text that was cited.`);
    $("reader-text").replaceChildren(el("mark", {}, source.text));
  }
}

function readerNote(text) {
  $("reader-note").textContent = text;
  $("reader-note").hidden = false;
}

$("close").addEventListener("click", () => $("reader").close());
$("reader").addEventListener("click", (event) => event.target === $("reader") && $("reader").close());

// What is happening

const count = new Intl.NumberFormat();
const duration = (ms) => (ms === null || ms === undefined ? "–" : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

async function look() {
  try {
    const [status, page] = await Promise.all([call("/status"), call("/collections/default/documents?order=newest&limit=8")]);
    health(status.ready ? "ok" : "bad", status.ready ? "ready" : "not everything answers");
    showStatus(status);
    showRecent(page.documents);
  } catch (error) {
    health("bad", error instanceof TypeError ? "not reachable" : error.message);
  }
}

function health(kind, text) {
  $("health").className = kind;
  $("health").lastElementChild.textContent = text;
}

function showStatus(status) {
  for (const cell of document.querySelectorAll("[data-count]")) {
    const value = status.documents[cell.dataset.count];
    cell.textContent = count.format(value);
    cell.classList.toggle("bad", value > 0 && ["failed", "withheld"].includes(cell.dataset.count));
  }
  for (const bar of document.querySelectorAll("[data-bar]")) {
    bar.value = status.documents.received ? status.documents[bar.dataset.bar] / status.documents.received : 0;
  }
  $("passages").textContent = count.format(status.passages);
  $("lag").textContent = status.lag ? count.format(Object.values(status.lag).reduce((sum, lag) => sum + lag, 0)) : "–";
  $("freshness").textContent = duration(status.freshness_ms?.searchable?.p50);
}

function showRecent(documents) {
  if (!documents.length) return;
  $("recent").replaceChildren(
    ...documents.map((one) =>
      el("li", {},
        el("span", { class: "name", title: one.document_id }, one.document_id),
        el("span", { class: `state ${one.state}` }, one.state),
        one.failure ? el("span", { class: "why" }, one.failure.detail || one.failure.reason) : null)),
  );
}

async function keepLooking() {
  if (document.visibilityState === "visible") await look();
  setTimeout(keepLooking, 2000);
}

document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
keepLooking();

const asked = new URLSearchParams(location.hash.slice(1)).get("q");
if (asked) {
  $("question").value = asked;
  grow();
  ask(asked);
}
