// Vercel AI SDK: a model with a tool. `npm install ai @ai-sdk/openai zod`, `eval "$(quarterdeck env)"`.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, tool } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY });
const weather = tool({
  description: "The weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `It rains in ${city}.`,
});

const result = await generateText({
  model: openai.responses(process.env.MODEL ?? "smollm2-135m-instruct"),
  prompt: "What is the weather in Oslo?",
  tools: { weather },
  stopWhen: stepCountIs(5),
});
console.log("tools:", result.steps.flatMap((step) => step.toolCalls.map((call) => call.toolName)));
console.log("answer:", result.text);
