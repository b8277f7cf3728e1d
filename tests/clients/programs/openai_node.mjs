import assert from "node:assert";
import OpenAI from "openai";
import { CHAT_MODEL, EMBEDDING_MODEL, LONG, report } from "./reporting.mjs";

const client = new OpenAI({ maxRetries: 0 });
const messages = [{ role: "user", content: "Hello!" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

await report("openai", {
  async chat() {
    const answer = await client.chat.completions.create({ model: CHAT_MODEL, messages, temperature: 0 });
    assert(answer.choices[0].message.content);
  },
  async stream() {
    let pieces = 0;
    for await (const chunk of await client.chat.completions.create({ model: CHAT_MODEL, messages, stream: true }))
      pieces += Boolean(chunk.choices[0]?.delta.content);
    assert(pieces > 1);
  },
  async tools() {
    const tools = [{ type: "function", function: { name: "weather", parameters } }];
    const answer = await client.chat.completions.create({ model: CHAT_MODEL, messages, tools, tool_choice: "required" });
    assert("city" in JSON.parse(answer.choices[0].message.tool_calls[0].function.arguments));
  },
  async json_schema() {
    const response_format = { type: "json_schema", json_schema: { name: "city", schema: parameters } };
    const answer = await client.chat.completions.create({ model: CHAT_MODEL, messages, response_format });
    assert("city" in JSON.parse(answer.choices[0].message.content));
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: EMBEDDING_MODEL, input: ["a", "b"] });
    assert(answer.data.length === 2 && answer.data[0].embedding.length > 10);
  },
  async errors() {
    await assert.rejects(client.chat.completions.create({ model: "nope", messages }), (error) => {
      assert(error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
      return /does not exist/.test(error.message);
    });
  },
  async cancel() {
    const body = { model: CHAT_MODEL, messages: [{ role: "user", content: LONG }], stream: true, max_tokens: 1000 };
    let pieces = 0;
    for await (const _ of await client.chat.completions.create(body)) if (++pieces === 3) break;
  },
});
