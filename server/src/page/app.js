// Live events by what every client has: EventSource on /sub/task, WebSocket on /sub/livesys, and the HTTP API.

const ROWS_MAX = 300;
const $ = (id) => document.getElementById(id);
const rows = $("events");
const machines = new Map();
let paused = false;
let held = [];

const element = (name, text, kind) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

function show(title, value) {
  $("detail-text").textContent = title + "\n\n" + JSON.stringify(value, null, 2);
  $("detail").showModal();
}

function state(id, value) {
  $(id).dataset.state = value;
  $(id).title = { live: "connected", wait: "connecting", down: "lost, trying again" }[value];
}

function matches(row) {
  return row.dataset.text.includes($("filter").value.trim().toLowerCase());
}

function outcome(event) {
  const job = event.data;
  const cell = element("td", undefined, "wide");
  if (job.state === "failed" && job.error) {
    cell.append(job.error);
  } else if (job.state === "finished" && job.result !== null) {
    cell.append(JSON.stringify(job.result));
  } else if (job.progress) {
    const bar = element("progress");
    bar.max = 100;
    bar.value = job.progress.percent;
    cell.append(bar, job.progress.text ?? Math.round(job.progress.percent) + " %");
  } else {
    const notes = Object.entries(job.notes ?? {}).map(([name, value]) => name + "=" + JSON.stringify(value));
    cell.append(notes.join(" "));
  }
  return cell;
}

function add(event) {
  // A stream that begins anew repeats the last events.
  if ($(event.id)) return;
  const job = event.data;
  const row = element("tr");
  row.id = event.id;
  row.tabIndex = 0;
  row.append(
    element("td", clock(event.time), "time"),
    element("td", "#" + job.id),
    element("td", job.task),
    element("td", event.type.replace(/^task\./, ""), "kind"),
    element("td", job.state, job.state),
    outcome(event),
  );
  row.dataset.text = [job.id, job.task, event.type, job.state, job.queue].join(" ").toLowerCase();
  row.hidden = !matches(row);
  const open = () => show(event.type + "  " + event.epoch + ":" + Number(event.sequence), event);
  row.addEventListener("click", open);
  row.addEventListener("keydown", (key) => key.key === "Enter" && open());
  rows.prepend(row);
  while (rows.children.length > ROWS_MAX) rows.lastChild.remove();
  $("no-events").hidden = true;
  // What a machine said before this page was there.
  if (event.type === "task.finished" && job.result?.type === "inventory") machine(job.result.host, job.result);
}

// Task events: SSE. The browser comes back by itself and resumes by Last-Event-ID.
function tasks() {
  const source = new EventSource("/sub/task?last=50");
  source.onopen = () => state("state-task", "live");
  source.onerror = () => {
    state("state-task", source.readyState === EventSource.CLOSED ? "down" : "wait");
    if (source.readyState === EventSource.CLOSED) setTimeout(tasks, 2000 + Math.random() * 1000);
  };
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (paused) {
      held.push(event);
      if (held.length > ROWS_MAX) held.shift();
      $("pause").textContent = "Go on (" + held.length + ")";
    } else {
      add(event);
    }
    soon();
  };
}

const bytes = (count) => {
  if (typeof count !== "number") return undefined;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return (count >= 100 || unit === 0 ? Math.round(count) : count.toFixed(1)) + " " + units[unit];
};

// A few lines about a machine: what the inventory knows, else the first plain members.
function summary(report) {
  if (report === null || typeof report !== "object") return [["message", String(report)]];
  const lines = [];
  const put = (name, value) => value !== undefined && value !== null && value !== "" && lines.push([name, String(value)]);
  const cpu = report.cpu ?? {};
  put("cpu", [cpu.model, cpu.threads && cpu.threads + " threads"].filter(Boolean).join(", "));
  put("memory", bytes(report.memory?.total_bytes));
  const named = (list, more) => (Array.isArray(list) ? list : []).map((d) => [d.name, more(d)].filter(Boolean).join(" ")).join(", ");
  put("disks", named(report.block, (d) => bytes(d.size_bytes)));
  put("network", named(report.network, (l) => l.state));
  put("board", [report.dmi?.vendor, report.dmi?.product].filter(Boolean).join(" "));
  for (const [name, value] of Object.entries(report)) {
    if (lines.length >= 6) break;
    if (typeof value !== "object" && !["host", "type", "time", "job"].includes(name)) put(name, value);
  }
  return lines;
}

function machine(name, report) {
  let card = machines.get(name);
  if (!card) {
    card = element("button", undefined, "machine");
    card.type = "button";
    machines.set(name, card);
    $("machines").append(card);
    $("no-machines").hidden = true;
  }
  card.onclick = () => show(name, report);
  const head = element("h3", name);
  head.append(element("time", clock(report?.time ?? Date.now())));
  const list = element("dl");
  for (const [key, value] of summary(report)) list.append(element("dt", key), element("dd", value));
  card.replaceChildren(head, list);
}

// Machines: WebSocket, in CloudEvents mode since that names the topic of each message. Ephemeral, so there is nothing
// to resume; it comes back with a growing, jittered pause.
function livesys(tries = 0) {
  const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/sub/livesys", "cloudevents.json");
  socket.onopen = () => { tries = 0; state("state-livesys", "live"); };
  socket.onclose = () => {
    state("state-livesys", "down");
    setTimeout(() => livesys(tries + 1), Math.min(30000, 500 * 2 ** tries) * (0.5 + Math.random()));
  };
  socket.onmessage = (message) => {
    const event = JSON.parse(message.data);
    const name = event.data?.host ?? (event.subject ?? "livesys").replace(/^livesys\//, "");
    machine(name, event.data);
  };
}

// Figures: asked again after events, at most twice a second, and not while nobody looks.
let timer;
function soon() {
  timer ??= setTimeout(figures, 500);
}
async function figures() {
  timer = undefined;
  if (document.hidden) return;
  try {
    const answer = await fetch("/api/v1/stats");
    if (!answer.ok) return;
    for (const [name, value] of Object.entries(await answer.json())) {
      const place = $("n-" + name);
      if (place) place.textContent = Number(value).toLocaleString();
    }
  } catch { /* the dots at the top say that the node is gone */ }
}

$("filter").addEventListener("input", () => { for (const row of rows.children) row.hidden = !matches(row); });
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) { held.forEach(add); held = []; }
});
document.addEventListener("visibilitychange", () => document.hidden || soon());
setInterval(figures, 5000);
figures();
tasks();
livesys();
