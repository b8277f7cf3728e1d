"""A recorded folder is read back unchanged by results.py."""

from pathlib import Path

from quarterdeck.load.analysis import results
from quarterdeck.load.analysis.samples import Gaps, Sample
from quarterdeck.load.run import recording
from quarterdeck.load.run.monitoring import ProcessSample
from quarterdeck.load.run.profile import make
from quarterdeck.load.run.recording import Recording
from quarterdeck.load.run.target import Target

TARGET = Target("http://127.0.0.1:8000/v1", "sk-secret", "llm", None, "quarterdeck")


def test_a_recorded_run_is_read_as_it_was(tmp_path: Path) -> None:
    profile = make({"scenarios": {"stream": {}}, "warmup": 1, "slo": {"ttft_ms": 500}, "seed": 7}, "test")
    sample = Sample("stream", 1000.0, 1000.25, rate=10.0, status=200, request_id="req_1", cost=0.5)
    for at in (1000.5, 1000.51):
        sample.add_piece(at)
    sample.ended, sample.input_tokens, sample.output_tokens = 1000.6, 60, 2
    gaps = Gaps()
    gaps.add("stream", sample.gaps_ms)
    kept = Recording(tmp_path / "run")
    kept.add({"rows": [sample.row("main")], "gaps": gaps.counts})
    kept.processes([ProcessSample(1001.0, "gateway", 42, 1 << 20, 1.5, 3)])
    kept.metrics(1001.0, {'quarterdeck_tokens_total{kind="output",model="llm"}': 2.0})
    kept.note("Something to know.")
    kept.close(recording.about(profile, TARGET, 999.0, 1059.0, "2.0", workers=2))

    run = results.read(tmp_path / "run")
    (request,) = run.requests
    assert (request.intended, request.lag_ms, request.ttft_ms) == (1.0, 250.0, 500.0)
    assert (request.output_tokens, request.request_id, request.cost, request.rate) == (2, "req_1", 0.5, 10.0)
    assert run.gaps["main", "stream"].total == 1
    assert run.run.slo == {"ttft_ms": 500.0}
    assert (run.run.seed, run.run.warmup_seconds, run.run.about["notes"]) == (7, 1.0, ["Something to know."])
    assert run.processes["gateway", 42][0].rss_bytes == 1 << 20
    assert run.series['quarterdeck_tokens_total{kind="output",model="llm"}'] == ((2.0, 2.0),)


def test_the_key_is_nowhere_in_the_folder(tmp_path: Path) -> None:
    profile = make({"scenarios": {"stream": {}}}, "test")
    kept = Recording(tmp_path)
    kept.close(recording.about(profile, TARGET, 0.0, 1.0, "2.0", workers=0))
    assert not any("sk-secret" in file.read_text() for file in tmp_path.iterdir())
