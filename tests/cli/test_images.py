"""`quarterdeck images`: which images, and what a registry calls them. Saved and loaded for real in tests/cluster."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from tests.helm import render

from quarterdeck.cli.__main__ import cli
from quarterdeck.cli.image_tools import pushed_name
from quarterdeck.cli.images import chart_images, selected


def test_the_list_has_every_image_that_the_chart_renders_by_default() -> None:
    found = set()
    for manifest in render():
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {}) if "spec" in manifest else {}
        pod = pod or (manifest["spec"] if manifest["kind"] == "Pod" else {})
        found |= {one["image"] for one in (*pod.get("containers", ()), *pod.get("initContainers", ()))}
    assert found
    assert found <= set(chart_images().values())


def test_a_name_is_a_place_in_the_values_or_an_image() -> None:
    assert selected(("redis", "docker.io/library/busybox:1"), None) == [
        chart_images()["redis"],
        "docker.io/library/busybox:1",
    ]
    assert len(selected((), None)) == len(set(chart_images().values()))
    with pytest.raises(click.ClickException, match="no image 'gatewy'"):
        selected(("gatewy",), None)


def test_a_registry_replaces_localhost_and_nothing_else() -> None:
    assert selected(("gateway", "redis"), "registry.internal:5000/qd") == [
        "registry.internal:5000/qd/" + chart_images()["gateway"].removeprefix("localhost/"),
        chart_images()["redis"],
    ]


def test_a_pushed_image_has_the_name_that_the_charts_global_registry_expects() -> None:
    values = {"global": {"imageRegistry": "registry.internal/qd"}}
    rendered = str(render(values=values))
    for place in ("gateway", "worker", "operator", "redis", "engines.simulator"):
        assert pushed_name(chart_images()[place], "registry.internal/qd/") in rendered, place


def test_load_needs_a_place_and_a_whole_archive(tmp_path: Path) -> None:
    (tmp_path / "images.tar").write_text("no archive")
    both = CliRunner().invoke(cli, ["images", "load", str(tmp_path / "images.tar")])
    assert (both.exit_code, "one of --registry and --into" in both.stderr) == (2, True)
    bad = CliRunner().invoke(cli, ["images", "load", str(tmp_path / "images.tar"), "--into", "docker"])
    assert bad.exit_code == 1
    assert bad.stderr.startswith("Error: ")
    assert "images.tar" in bad.stderr


def test_without_any_program_save_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = CliRunner().invoke(cli, ["images", "save", str(tmp_path / "images.tar"), "redis"])
    assert (done.exit_code, done.stderr) == (1, "Error: none of skopeo, docker, podman, buildah is on PATH\n")
