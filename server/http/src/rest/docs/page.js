"use strict";
// Whatever comes from the broker is shown as text and never as HTML.

const METHODS = ["get", "post", "put", "patch", "delete"];

function make(name, text, attributes) {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    return element;
}

// An example of a schema: what is required, with what the schema gives as an example.
function example(api, schema, depth) {
    if (!schema || depth > 6) return null;
    if (schema.$ref) return example(api, api.components.schemas[schema.$ref.split("/").pop()], depth + 1);
    if (schema.example !== undefined) return schema.example;
    if (schema.oneOf) return example(api, schema.oneOf.find((one) => one.type !== "null"), depth + 1);
    const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== "null") : schema.type;
    if (type === "object") {
        const made = {};
        for (const [name, property] of Object.entries(schema.properties || {})) {
            const wanted = (schema.required || []).includes(name) || ["value", "key"].includes(name);
            if (wanted) made[name] = example(api, property, depth + 1);
        }
        return made;
    }
    if (type === "array") return [example(api, schema.items, depth + 1)];
    if (type === "string") return "text";
    if (type === "boolean") return false;
    return schema.minimum || 0;
}

async function send(method, path, operation, fields, body, shown) {
    const query = new URLSearchParams();
    const headers = {};
    for (const [parameter, input] of fields) {
        if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
        else if (input.value === "") continue;
        else if (parameter.in === "query") query.append(parameter.name, input.value);
        else headers[parameter.name] = input.value;
    }
    const text = query.toString();
    if (body) headers["Content-Type"] = "application/json";
    shown.textContent = "…";
    try {
        const answer = await fetch(text ? `${path}?${text}` : path, {
            method: method.toUpperCase(), headers, body: body ? body.value : undefined,
        });
        let content = await answer.text();
        try { content = JSON.stringify(JSON.parse(content), null, 2); } catch { /* it is shown as it came */ }
        shown.textContent = `${answer.status} ${answer.statusText}\n${content}`;
    } catch (error) {
        shown.textContent = String(error);
    }
}

function show(api, path, method, operation) {
    const details = make("details");
    const summary = make("summary");
    summary.append(make("span", method.toUpperCase(), { class: `method ${method}` }), make("code", path));
    if (operation.summary) summary.append(` ${operation.summary}`);
    details.append(summary);
    if (operation.description) details.append(make("p", operation.description, { class: "note" }));
    const fields = [];
    for (const parameter of operation.parameters || []) {
        const label = make("label", `${parameter.name}${parameter.required ? " *" : ""} — ${parameter.description || parameter.in}`);
        const input = make("input", undefined, { autocomplete: "off" });
        label.append(input);
        details.append(label);
        fields.push([parameter, input]);
    }
    let body = null;
    const content = operation.requestBody && operation.requestBody.content["application/json"];
    if (content) {
        body = make("textarea", undefined, { spellcheck: "false", "aria-label": "Body" });
        body.value = JSON.stringify(example(api, content.schema, 0), null, 2);
        details.append(body);
    }
    const button = make("button", "Send");
    const shown = make("pre", "", { "aria-live": "polite" });
    button.addEventListener("click", () => send(method, path, operation, fields, body, shown));
    details.append(button, shown);
    return details;
}

async function begin() {
    const main = document.getElementById("operations");
    const api = await (await fetch("/openapi.json")).json();
    const all = [];
    for (const tag of api.tags) {
        const section = make("section");
        section.append(make("h2", tag.name), make("p", tag.description, { class: "note" }));
        for (const [path, item] of Object.entries(api.paths)) {
            for (const method of METHODS) {
                const operation = item[method];
                if (!operation || !operation.tags.includes(tag.name)) continue;
                const shown = show(api, path, method, operation);
                all.push([shown, `${method} ${path} ${operation.summary}`.toLowerCase()]);
                section.append(shown);
            }
        }
        main.append(section);
    }
    const find = document.getElementById("find");
    find.addEventListener("input", () => {
        for (const [shown, text] of all) shown.hidden = !text.includes(find.value.toLowerCase());
    });
}

begin().catch((error) => { document.getElementById("operations").textContent = String(error); });
