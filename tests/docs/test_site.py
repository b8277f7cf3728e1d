"""The documentation's static site: complete navigation, links that lead somewhere, and a strict build."""

import re
import subprocess
from pathlib import Path

import docs_site
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_every_page_is_in_the_navigation_and_every_link_leads_to_a_file() -> None:
    config = yaml.safe_load(docs_site.NAVIGATION.read_text())
    assert docs_site.problems(config["nav"], docs_site.sources(ROOT)) == []


def test_a_page_that_is_not_in_the_navigation_and_a_link_to_nothing_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs/adr").mkdir(parents=True)
    (tmp_path / "README.md").write_text("# R\n[a](docs/a.md) [gone](docs/gone.md)\n```\n[code](nothing)\n```\n")
    for name in ("a", "b", "adr/0001", "adr/0002"):
        (tmp_path / f"docs/{name}.md").write_text(f"# Page {name}\n[web](https://example.com) [here](#page)\n")
    pages = docs_site.sources(tmp_path)
    nav = [{"Start": "index.md"}, {"Pages": ["a.md", "c.md", "a.md"]}, {"Decisions": ["adr/*.md"]}]
    assert sorted(docs_site.problems(nav, pages)) == [
        "index.md: no file docs/gone.md",
        "mkdocs.yml: a.md is in the navigation twice",
        "mkdocs.yml: c.md is in the navigation and does not exist",
        "mkdocs.yml: docs/b.md is not in the navigation",
    ]
    assert docs_site.navigation(nav[2:], pages) == [
        {"Decisions": [{"Page adr/0001": "adr/0001.md"}, {"Page adr/0002": "adr/0002.md"}]}
    ]


def test_the_site_has_its_own_first_page_and_no_link_into_the_source() -> None:
    pages = docs_site.sources(ROOT)
    text = docs_site.on_site("index.md", ROOT / "README.md", pages)
    assert "](operations/README.md)" in text
    assert "](docs/" not in text
    for page, file in pages.items():
        for _, target in docs_site.links(docs_site.on_site(page, file, pages)):
            assert not re.search(r"\.(py|yaml|toml)(#|$)", target), f"{page}: {target}"


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_site_is_built_without_a_warning_and_needs_no_other_server() -> None:
    done = subprocess.run(["make", "docs-site"], cwd=ROOT, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    site = ROOT / "build/site"
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert not [url for url in loaded if "canonical" not in url], page
