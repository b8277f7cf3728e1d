// Runs the checks of one client and prints their results as JSON, as reporting.py does.
import { readFileSync } from "node:fs";

export const CHAT_MODEL = "smollm2-135m-instruct";
export const EMBEDDING_MODEL = "all-minilm-l6-v2";
export const LONG = "Count to a thousand.";

export async function report(name, checks) {
  const file = new URL(`./node_modules/${name}/package.json`, import.meta.url);
  const results = {};
  for (const [check, run] of Object.entries(checks)) {
    try {
      await run();
      results[check] = true;
    } catch (error) {
      console.error(check, error);
      results[check] = false;
    }
  }
  console.log(JSON.stringify({ version: JSON.parse(readFileSync(file)).version, results }));
}
