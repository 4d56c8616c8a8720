// @ts-check
// A form out of a JSON Schema: which fields it has, and the document that they make. Pure. What a form cannot show
// (alternatives, patterns of names) is left to the box of JSON, which the server judges like the form.

/**
 * @typedef {object} Field
 * @property {(string | number)[]} path
 * @property {"text" | "number" | "integer" | "boolean" | "choice" | "json" | "secret"} kind
 * @property {string} label
 * @property {string} help
 * @property {boolean} required
 * @property {any[]} [choices]
 * @property {number} [min]
 * @property {number} [max]
 * @property {any} [initial]
 */

const DEPTH = 3;
const FIELDS_MAX = 60;

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

/** Can a form be made of it? @param {any} schema @returns {Field[] | null} */
export function fields(schema) {
  const root = resolved(schema, schema);
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
 * The kinds of document that a schema tells apart by one member's value (`if` with a `const`, `then`), each as a schema of
 * its own.
 * @param {any} schema @returns {{name: string, schema: any}[]}
 */
export function variants(schema) {
  const root = resolved(schema, schema);
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
  const schema = resolved(root, unresolved);
  if (schema === false) return;
  if (schema?.properties && depth > 1 && schema.type !== "array") {
    // members of what may be left out may be left out, too
    const inner = required ? schema : { ...schema, required: [] };
    return walk(root, inner, path, found, depth - 1);
  }
  const types = (Array.isArray(schema?.type) ? schema.type : [schema?.type]).filter((/** @type {string} */ t) => t !== "null");
  const label = path.length > 1 ? path.join(".") : (schema?.title ?? name);
  /** @type {Field} */
  const field = { path, kind: "json", label, help: schema?.description ?? "", required, initial: schema?.default };
  if (schema?.const !== undefined) [field.kind, field.choices, field.initial] = ["choice", [schema.const], schema.const];
  else if (Array.isArray(schema?.enum)) [field.kind, field.choices] = ["choice", schema.enum];
  else if (types.length === 1 && types[0] === "string") field.kind = schema.writeOnly ? "secret" : "text";
  else if (types.length === 1 && (types[0] === "integer" || types[0] === "number")) field.kind = types[0];
  else if (types.length === 1 && types[0] === "boolean") field.kind = "boolean";
  if (schema?.minimum !== undefined) field.min = schema.minimum;
  if (schema?.maximum !== undefined) field.max = schema.maximum;
  found.push(field);
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
    else set(document, field.path, value);
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
    case "integer": {
      const number = Number(said);
      if (!Number.isFinite(number)) return { error: "This is no number." };
      if (field.kind === "integer" && !Number.isInteger(number)) return { error: "This is no whole number." };
      return { value: number };
    }
    case "json":
      try {
        return { value: JSON.parse(String(said)) };
      } catch {
        return { error: "This is no JSON; texts stand in quotation marks." };
      }
    default:
      return { value: String(said) };
  }
}

/** @param {any} document @param {(string | number)[]} path @param {any} value */
function set(document, path, value) {
  let at = document;
  path.forEach((step, i) => {
    if (i === path.length - 1) at[step] = value;
    else at = at[step] ??= {};
  });
}
