// Continue's command line, which has the core of its extensions for editors, with the configuration of docs/guides.
import assert from "node:assert";
import { execFile } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { CHAT_MODEL, report } from "./reporting.mjs";

const run = promisify(execFile);
const program = new URL("./node_modules/.bin/cn", import.meta.url).pathname;

async function cn(model) {
  const folder = mkdtempSync(join(tmpdir(), "continue-"));
  const file = join(folder, "config.yaml");
  const { OPENAI_BASE_URL: apiBase, OPENAI_API_KEY: apiKey } = process.env;
  const models = [{ name: "quarterdeck", provider: "openai", model, apiBase, apiKey, roles: ["chat"] }];
  writeFileSync(file, JSON.stringify({ name: "quarterdeck", version: "1.0.0", schema: "v1", models })); // JSON is YAML
  const env = { ...process.env, HOME: folder, CONTINUE_TELEMETRY_ENABLED: "0" };
  return await run(program, ["--config", file, "-p", "Hello!"], { cwd: folder, env, timeout: 200_000 });
}

await report("@continuedev/cli", {
  async stream() {
    const { stdout } = await cn(CHAT_MODEL);
    assert(stdout.trim());
  },
  async errors() {
    const error = await cn("nope").then(
      () => assert.fail("it did not fail"),
      (failed) => failed,
    );
    assert.match(error.stderr + error.stdout, /does not exist/);
  },
});
