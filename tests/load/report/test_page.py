"""The page: self-contained, with unique ids and escaped text."""

from pathlib import Path

from tests.load.folders import request, rich, write_run
from tests.load.report.reader import read

from quarterdeck.load.report import run_report


def test_the_page_needs_nothing_from_anywhere(tmp_path: Path) -> None:
    file = run_report.write(rich(tmp_path))
    page = read(file)
    assert "script" not in page.tags and "link" not in page.tags and "img" not in page.tags
    assert not [source for source in page.sources if "://" in source]
    assert "url(" not in file.read_text(encoding="utf-8") and "@import" not in file.read_text(encoding="utf-8")


def test_every_id_is_its_own_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    page = read(run_report.write(rich(tmp_path)))
    assert len(page.ids) == len(set(page.ids))
    for source in page.sources:
        assert source.removeprefix("#") in page.ids if source.startswith("#") else (tmp_path / source).exists()
    assert {"run.json", "requests.csv", "itl.json", "processes.csv", "metrics.csv"} <= set(page.sources)


def test_every_plot_has_its_numbers_as_a_table_and_a_caption(tmp_path: Path) -> None:
    page = read(run_report.write(rich(tmp_path)))
    assert page.tags.count("figure") == page.tags.count("svg") == page.tags.count("figcaption") == 9
    assert page.tags.count("desc") == page.tags.count("details") == 9


def test_nothing_that_a_server_says_becomes_markup(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    write_run(
        tmp_path,
        [request(0), request(1, outcome=evil, request_id=evil, scenario=evil)],
        processes=[(0, evil, 1, 1, 1, 1), (1, evil, 1, 1, 1, 1)],
        target={"url": evil, "model": evil},
        profile=evil,
        notes=[evil],
    )
    page = read(run_report.write(tmp_path))
    assert "script" not in page.tags
    assert page.words.count(evil) >= 6
