// @ts-check
// A dialog to tell a machine something: as work, which is kept until it takes it and has an outcome, or as a message to
// whoever listens now.

import { ask } from "../lib/api.js";
import { count } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { ALL, TOPIC } from "../lib/images.js";
import { each } from "../lib/many.js";
import { useMay } from "../lib/may.js";
import { Failure } from "./bits.js";
import { Dialog } from "./dialog.js";
import { say } from "./toast.js";

/** So many machines are told at once, when all are. */
const AT_ONCE = 8;

/** @typedef {{command: string, args?: any}} Words */

/** @param {string} way @param {string} name @param {any} said */
const send = (way, name, said) => ask("POST", `/${way}/${TOPIC}/${encodeURIComponent(name)}`, JSON.stringify(said), { raw: true, headers: { "content-type": "text/plain" } });

/**
 * Gives it to each as work.
 * @param {string[]} names @param {Words} words @param {(name: string, job: number, words: Words) => void} told
 */
async function push(names, words, told) {
  /** @type {number[]} */
  const jobs = [];
  /** @type {string[]} */
  const without = [];
  const errors = await each(names, AT_ONCE, async (name) => {
    const answer = await send("push", name, words).catch((error) => {
      without.push(name);
      throw error;
    });
    if (!answer?.job) return;
    jobs.push(answer.job);
    told(name, answer.job, words);
  });
  if (errors.length > 0) throw new Error(names.length === 1 ? errors[0].message : `${without.slice(0, 5).join(", ")}${without.length > 5 ? ` and ${without.length - 5} more` : ""} were not told: ${errors[0].message}`);
  const whom = names.length === 1 ? names[0] : `${count(names.length)} machines`;
  // where work is not kept somebody has it now, and no more is known
  if (jobs.length === 0) say(`${words.command} was handed to ${whom}. What becomes of it is not kept.`);
  else say(`${words.command} waits for ${whom}${jobs.length === 1 ? ` as job ${jobs[0]}` : ""}.`);
}

/** Says it to whoever listens. @param {string} name @param {Words} words @param {number | null} ears */
async function publish(name, words, ears) {
  const id = [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");
  await send("pub", name, { type: "command", ...words, id });
  const whom = name === ALL ? "all who listen" : name;
  say(`${words.command} was said to ${whom}${ears === 0 ? "; no session was there for it" : ""}.`);
}

/** Who listens, in words. @param {string} name @param {number | null} ears */
function hearing(name, ears) {
  if (ears === null) return "Whether anybody listens is not known.";
  const whom = name === ALL ? "for one machine" : `for ${name} alone`;
  return ears === 0 ? `No session listens ${whom}: perhaps nobody hears it.` : `${ears === 1 ? "One session listens" : `${count(ears)} sessions listen`} ${whom}.`;
}

/**
 * @param {{to: string, images: import("../lib/images.js").Image[], there: {hearing: ReadonlySet<string>, pulling: ReadonlySet<string>, known: boolean},
 *   told: (name: string, job: number, words: Words) => void, close: () => void}} props
 */
export function Command({ to, images, there, told, close }) {
  const [name, setName] = useState(to);
  const [chosen, choose] = useState(/** @type {"push" | "pub" | null} */ (null));
  const [command, setCommand] = useState("");
  const [args, setArgs] = useState("");
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const [mayPush, mayPub] = [useMay("push"), useMay("pub")];
  const workers = images.filter((i) => i.works && (name === ALL || i.name === name)).map((i) => i.name);
  const usual = mayPush && (workers.length > 0 || !mayPub) ? "push" : "pub";
  const way = chosen ?? usual;
  const ears = there.known ? (name === ALL ? there.hearing.size : Number(there.hearing.has(name))) : null;
  const targets = name === ALL ? workers : [name];
  const about = way === "pub" ? hearing(name, ears) : name !== ALL ? "It is kept until the machine takes it, and its card shows what becomes of it." : `One job for each of the ${count(workers.length)} that take work.`;
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const words = { command: command.trim(), ...(args.trim() ? { args: JSON.parse(args) } : {}) };
      await (way === "push" ? push(targets, words, told) : publish(name, words, ears));
      close();
    } catch (e) {
      setError(e instanceof SyntaxError ? new Error("The arguments are no JSON.") : e);
      setBusy(false);
    }
  };
  const names = [...new Set([to, ...images.map((i) => i.name), ALL])];
  return html`<${Dialog} title="Send a command" close=${close}><form onSubmit=${submit}>
    <div class="field"><label for="to">Machine</label><select id="to" value=${name} onChange=${(/** @type {any} */ e) => setName(e.target.value)}>
      ${names.map((n) => html`<option value=${n}>${n === ALL ? "all of them" : n}</option>`)}</select></div>
    <div class="field"><label for="way">How</label><select id="way" aria-describedby="way-about" value=${way} onChange=${(/** @type {any} */ e) => choose(e.target.value)}>
      <option value="push" disabled=${!mayPush}>as work that it takes</option><option value="pub" disabled=${!mayPub}>as a message to who listens</option></select>
      <small id="way-about">${about}</small></div>
    <div class="field"><label for="command">Command</label>
      <input id="command" required autofocus autocomplete="off" spellcheck="false" placeholder="burn-in, reboot" value=${command} onInput=${(/** @type {any} */ e) => setCommand(e.target.value)} /></div>
    <div class="field"><label for="args">Arguments</label>
      <textarea id="args" class="mono" rows="3" placeholder="JSON; may be left empty" spellcheck="false" value=${args} onInput=${(/** @type {any} */ e) => setArgs(e.target.value)}></textarea></div>
    <${Failure} error=${error} what="Not sent." /><footer><button type="button" onClick=${close}>Leave it</button>
      <button type="submit" class="main" disabled=${busy || (way === "push" && targets.length === 0)}>Send</button></footer></form></${Dialog}>`;
}
