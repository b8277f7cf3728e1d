"""Stands in for the Python of the load environment in tests of `quarterdeck bench`: records its arguments and prints a
few lines. Its behaviour is set in `fake.json` beside it."""

import json
import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    words = sys.argv[1:]
    if words[:3] == ["-m", "quarterdeck.load", "report"]:
        print(f"a table\n\n{words[3]}/report.html")
        return 0
    with (HERE / "calls.jsonl").open("a", encoding="utf-8") as calls:
        calls.write(json.dumps({"words": words, "key": os.environ.get("QUARTERDECK_LOAD_KEY")}) + "\n")
    values = json.loads((HERE / "fake.json").read_text(encoding="utf-8"))
    if "error" in values and values["error"] in words:
        print("error: it refuses connections", file=sys.stderr)
        return 2
    if values.get("waits"):
        signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
        print("it waits", flush=True)
        signal.pause()
    folder = Path(words[words.index("--out") + 1])
    folder.mkdir(parents=True)
    print("9 s  answered 5/s\n\nscenario  requests\nstream  45", flush=True)
    return int(values.get("status", 0))


if __name__ == "__main__":
    sys.exit(main())
