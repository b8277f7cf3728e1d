import assert from "node:assert";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, Output, streamText, tool } from "ai";
import { z } from "zod";
import { CHAT_MODEL, EMBEDDING_MODEL, LONG, report } from "./reporting.mjs";

const quarterdeck = createOpenAICompatible({
  name: "quarterdeck",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
  supportsStructuredOutputs: true,
});
const model = quarterdeck(CHAT_MODEL);

await report("ai", {
  async chat() {
    assert((await generateText({ model, prompt: "Hello!", temperature: 0 })).text);
  },
  async stream() {
    let pieces = 0;
    for await (const _ of streamText({ model, prompt: "Hello!" }).textStream) pieces += 1;
    assert(pieces > 1);
  },
  async tools() {
    const weather = tool({ description: "The weather", inputSchema: z.object({ city: z.string() }) });
    const answer = await generateText({ model, prompt: "Hello!", tools: { weather }, toolChoice: "required" });
    assert("city" in answer.toolCalls[0].input);
  },
  async json_schema() {
    const output = Output.object({ schema: z.object({ name: z.string(), population: z.number().int() }) });
    const answer = await generateText({ model, prompt: "Paris", output });
    assert(Number.isInteger(answer.output.population));
  },
  async embeddings() {
    const made = await embedMany({ model: quarterdeck.embeddingModel(EMBEDDING_MODEL), values: ["a", "b"] });
    assert(made.embeddings.length === 2);
  },
  async errors() {
    await assert.rejects(generateText({ model: quarterdeck("nope"), prompt: "Hello!", maxRetries: 0 }), /does not exist/);
  },
  async cancel() {
    const stop = new AbortController();
    const answer = streamText({ model, prompt: LONG, maxOutputTokens: 1000, abortSignal: stop.signal });
    let pieces = 0;
    for await (const _ of answer.textStream) if (++pieces === 3) stop.abort();
  },
});
