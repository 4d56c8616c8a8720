// @ts-check
// A form out of a JSON Schema: which fields it has, and the document that they make. Pure. What a form cannot show
// (lists of objects, alternatives inside, patterns of names) is left to a box of JSON, which the server judges like the form.

/**
 * @typedef {object} Field
 * @property {(string | number)[]} path
 * @property {"text" | "number" | "integer" | "boolean" | "choice" | "json" | "secret" | "time" | "date" | "list"} kind
 * @property {string} label
 * @property {string} help
 * @property {boolean} required
 * @property {any[]} [choices]
 * @property {number} [min]
 * @property {number} [max]
 * @property {any} [initial]
 * @property {string} [hint] What it may look like.
 * @property {any} [rules] The schema's own words on bounds, judged here too, so that one need not send to be told.
 * @property {Field} [each] Of a list: what stands in each line.
 */

const DEPTH = 3;
const FIELDS_MAX = 60;
/** A longer pattern is left to the server. */
const PATTERN_MAX = 200;

/** @param {any} root @param {any} schema @returns {any} */
function resolved(root, schema) {
  let now = schema;
  for (let i = 0; i < 8 && typeof now?.$ref === "string" && now.$ref.startsWith("#"); i += 1) {
    const { $ref, ...beside } = now;
    const parts = $ref.slice(1).split("/").filter(Boolean);
    const target = parts.reduce((/** @type {any} */ at, /** @type {string} */ p) => at?.[p.replace(/~1/g, "/").replace(/~0/g, "~")], root);
    now = { ...target, ...beside };
  }
  return now;
}

/**
 * As `resolved`, and what only says that it may be left out, or names one value after another, is said simply: programs
 * that make schemas of types write `anyOf` with null, `allOf` with one, and `oneOf` with a value each.
 * @param {any} root @param {any} schema @param {number} [depth] @returns {any}
 */
function simple(root, schema, depth = DEPTH * 2) {
  const now = resolved(root, schema);
  const many = now?.anyOf ?? now?.oneOf ?? (now?.allOf?.length === 1 ? now.allOf : null);
  if (!Array.isArray(many) || now.properties || depth === 0) return now;
  const { anyOf, oneOf, allOf, ...beside } = now;
  const left = many.map((/** @type {any} */ one) => simple(root, one, depth - 1)).filter((/** @type {any} */ one) => one?.type !== "null");
  if (left.length === 1) return { ...left[0], ...beside };
  const values = left.flatMap((/** @type {any} */ one) => (one?.const !== undefined ? [one.const] : (one?.enum ?? [undefined])));
  return values.length > 0 && !values.includes(undefined) ? { ...beside, enum: values } : now;
}

/** Can a form be made of it? @param {any} schema @returns {Field[] | null} */
export function fields(schema) {
  const root = simple(schema, schema);
  if (!root || typeof root !== "object") return null;
  /** @type {Field[]} */
  const found = [];
  if (root.properties && !Array.isArray(root)) walk(schema, root, [], found, DEPTH);
  else if (Array.isArray(root.prefixItems)) {
    root.prefixItems.forEach((/** @type {any} */ item, /** @type {number} */ i) => put(schema, item, [i], i < (root.minItems ?? 0), found, DEPTH, String(i)));
  } else return null;
  return found.length > 0 && found.length <= FIELDS_MAX ? found : null;
}

/**
 * The kinds of document that a schema tells apart, each as a schema of its own: alternatives, or those that one member's
 * value decides (`if` with a `const`, `then`).
 * @param {any} schema @returns {{name: string, schema: any}[]}
 */
export function variants(schema) {
  const root = resolved(schema, schema);
  const some = root?.oneOf ?? root?.anyOf;
  if (Array.isArray(some)) return alternatives(schema, root, some);
  if (!root?.properties || !Array.isArray(root.allOf)) return [];
  /** @type {{name: string, schema: any}[]} */
  const found = [];
  for (const { if: when, then } of root.allOf) {
    const [[name, is] = ["", null], ...more] = Object.entries(when?.properties ?? {});
    if (more.length > 0 || !then || is?.const === undefined) continue;
    const branch = resolved(schema, then);
    const required = [...new Set([...(root.required ?? []), ...(branch?.required ?? []), name])];
    const properties = { [name]: { const: is.const }, ...without(root.properties, name), ...without(branch?.properties, name) };
    found.push({ name: String(is.const), schema: { $defs: schema.$defs, type: "object", required, properties } });
  }
  return found;
}

/** @param {any} schema @param {any} root @param {any[]} some @returns {{name: string, schema: any}[]} */
function alternatives(schema, root, some) {
  const all = some.map((one) => resolved(schema, one));
  if (all.length < 2 || all.some((one) => !one?.properties)) return [];
  return all.map((one, i) => {
    const marked = Object.values(one.properties).map((p) => resolved(schema, p)?.const).find((c) => typeof c === "string");
    const required = [...new Set([...(root.required ?? []), ...(one.required ?? [])])];
    const properties = { ...root.properties, ...one.properties };
    return { name: one.title ?? marked ?? String(i + 1), schema: { $defs: schema.$defs, definitions: schema.definitions, type: "object", required, properties } };
  });
}

/** @param {any} object @param {string} name */
function without(object, name) {
  const { [name]: _, ...rest } = object ?? {};
  return rest;
}

/** @param {any} root @param {any} object @param {(string | number)[]} path @param {Field[]} found @param {number} depth */
function walk(root, object, path, found, depth) {
  for (const [name, schema] of Object.entries(object.properties ?? {})) {
    put(root, schema, [...path, name], (object.required ?? []).includes(name), found, depth, name);
  }
}

/** @param {any} root @param {any} unresolved @param {(string | number)[]} path @param {boolean} required @param {Field[]} found @param {number} depth @param {string} name */
function put(root, unresolved, path, required, found, depth, name) {
  const schema = simple(root, unresolved);
  if (schema === false) return;
  if (schema?.properties && depth > 1 && schema.type !== "array") {
    // members of what may be left out may be left out, too
    const inner = required ? schema : { ...schema, required: [] };
    return walk(root, inner, path, found, depth - 1);
  }
  found.push(field(root, schema, path, required, path.length > 1 ? path.join(".") : (schema?.title ?? name)));
}

/** @param {any} root @param {any} schema @param {(string | number)[]} path @param {boolean} required @param {string} label @returns {Field} */
function field(root, schema, path, required, label) {
  const types = (Array.isArray(schema?.type) ? schema.type : [schema?.type]).filter((/** @type {string} */ t) => t !== "null");
  const type = types.length === 1 ? types[0] : null;
  const example = schema?.examples?.[0];
  /** @type {Field} */
  const made = { path, kind: "json", label, help: schema?.description ?? "", required, initial: schema?.default, rules: schema };
  if (example !== undefined) made.hint = typeof example === "string" ? example : JSON.stringify(example);
  if (schema?.const !== undefined) [made.kind, made.choices, made.initial] = ["choice", [schema.const], schema.const];
  else if (Array.isArray(schema?.enum)) [made.kind, made.choices] = ["choice", schema.enum];
  else if (type === "string") made.kind = schema.writeOnly ? "secret" : schema.format === "date-time" ? "time" : schema.format === "date" ? "date" : "text";
  else if (type === "integer" || type === "number" || type === "boolean") made.kind = type;
  else if (type === "array" && schema.items && !schema.prefixItems) {
    const each = field(root, simple(root, schema.items), [], true, label);
    if (["text", "number", "integer", "choice"].includes(each.kind)) [made.kind, made.each] = ["list", each];
  }
  if (made.kind === "json") made.hint ??= JSON.stringify(sketch(root, schema, DEPTH)) ?? "JSON";
  if (schema?.minimum !== undefined) made.min = schema.minimum;
  if (schema?.maximum !== undefined) made.max = schema.maximum;
  return made;
}

/** What a document of that kind looks like, with nothing in it. @param {any} root @param {any} unresolved @param {number} depth @returns {any} */
function sketch(root, unresolved, depth) {
  const schema = simple(root, unresolved);
  const type = Array.isArray(schema?.type) ? schema.type[0] : schema?.type;
  if (schema?.default !== undefined) return schema.default;
  if (Array.isArray(schema?.enum)) return schema.enum[0];
  if (type === "array") return depth > 0 && schema.items ? [sketch(root, schema.items, depth - 1)] : [];
  if (schema?.properties) return depth > 0 ? Object.fromEntries(Object.entries(schema.properties).map(([name, of]) => [name, sketch(root, of, depth - 1)])) : {};
  return /** @type {Record<string, any>} */ ({ string: "", integer: 0, number: 0, boolean: false, object: {} })[type] ?? (type === undefined ? undefined : null);
}

/**
 * The document of what was filled in; what is empty is left out.
 * @param {Field[]} all @param {Record<string, string | boolean | undefined>} filled By `key(field)`.
 * @returns {{document: any, wrong: Record<string, string>}}
 */
export function assemble(all, filled) {
  /** @type {Record<string, string>} */
  const wrong = {};
  /** @type {any} */
  let document = all.length > 0 && typeof all[0].path[0] === "number" ? [] : {};
  for (const field of all) {
    const said = filled[key(field)];
    if (said === undefined || said === "") {
      if (field.required && said === undefined && field.kind === "boolean") set(document, field.path, false);
      else if (field.required) wrong[key(field)] = "This is needed.";
      continue;
    }
    const { value, error } = valued(field, said);
    if (error) wrong[key(field)] = error;
    // what is beyond its bounds is a document all the same, for who wants to hear the server's judgement
    if (value !== undefined) set(document, field.path, value);
  }
  if (Array.isArray(document)) document = Array.from(document, (v) => (v === undefined ? null : v));
  return { document, wrong };
}

/** @param {Field} field */
export const key = (field) => "/" + field.path.map((p) => String(p).replace(/~/g, "~0").replace(/\//g, "~1")).join("/");

/** @param {Field} field @param {string | boolean} said @returns {{value?: any, error?: string}} */
function valued(field, said) {
  switch (field.kind) {
    case "boolean":
      return { value: said === true || said === "true" };
    case "choice":
      return { value: (field.choices ?? [])[Number(said)] };
    case "number":
    case "integer":
      return numbered(field, Number(said));
    case "time": {
      const time = new Date(String(said));
      return Number.isNaN(time.getTime()) ? { error: "This is no time." } : { value: time.toISOString() };
    }
    case "list":
      return listed(field, String(said));
    case "json":
      try {
        return { value: JSON.parse(String(said)) };
      } catch {
        return { error: "This is no JSON; texts stand in quotation marks." };
      }
    default:
      return worded(field.rules ?? {}, String(said));
  }
}

/** @param {Field} field @param {number} number @returns {{value?: any, error?: string}} */
function numbered({ kind, rules = {} }, number) {
  if (!Number.isFinite(number)) return { error: "This is no number." };
  if (kind === "integer" && !Number.isInteger(number)) return { error: "This is no whole number." };
  if (number < rules.minimum) return { value: number, error: `It is at least ${rules.minimum}.` };
  if (number > rules.maximum) return { value: number, error: `It is at most ${rules.maximum}.` };
  if (number <= rules.exclusiveMinimum) return { value: number, error: `It is more than ${rules.exclusiveMinimum}.` };
  if (number >= rules.exclusiveMaximum) return { value: number, error: `It is less than ${rules.exclusiveMaximum}.` };
  return { value: number };
}

/** @param {any} rules @param {string} text @returns {{value?: any, error?: string}} */
function worded(rules, text) {
  const long = [...text].length;
  if (long < rules.minLength) return { value: text, error: `It has at least ${rules.minLength} characters.` };
  if (long > rules.maxLength) return { value: text, error: `It has at most ${rules.maxLength} characters.` };
  return matches(rules.pattern, text) ? { value: text } : { value: text, error: `It looks like ${rules.pattern}.` };
}

/** The server judges by other rules of patterns: one that is not understood here is left to it. @param {any} pattern @param {string} text */
function matches(pattern, text) {
  try {
    return typeof pattern !== "string" || pattern.length > PATTERN_MAX || new RegExp(pattern, "u").test(text);
  } catch {
    return true;
  }
}

/** One in each line. @param {Field} field @param {string} said @returns {{value?: any, error?: string}} */
function listed({ each, rules = {} }, said) {
  const lines = said.split("\n").map((l) => l.trim()).filter(Boolean);
  const values = [];
  for (const [i, line] of lines.entries()) {
    const of = /** @type {Field} */ (each);
    const choice = of.kind === "choice" ? (of.choices ?? []).findIndex((c) => (typeof c === "string" ? c : JSON.stringify(c)) === line) : -1;
    if (of.kind === "choice" && choice < 0) return { error: `Line ${i + 1}: one of ${(of.choices ?? []).map((c) => (typeof c === "string" ? c : JSON.stringify(c))).join(", ")}.` };
    const { value, error } = valued(of, choice < 0 ? line : String(choice));
    if (error) return { error: `Line ${i + 1}: ${error}` };
    values.push(value);
  }
  if (values.length < rules.minItems) return { value: values, error: `There are at least ${rules.minItems}.` };
  if (values.length > rules.maxItems) return { value: values, error: `There are at most ${rules.maxItems}.` };
  if (rules.uniqueItems && new Set(values).size < values.length) return { value: values, error: "No two are the same." };
  return { value: values };
}

/** @param {any} document @param {(string | number)[]} path @param {any} value */
function set(document, path, value) {
  let at = document;
  path.forEach((step, i) => {
    if (i === path.length - 1) at[step] = value;
    else at = at[step] ??= {};
  });
}
