"""The images: what each is made of, and what changes its hash."""

import shutil
from pathlib import Path

import pytest
from images.catalogue import IMAGES, PYTHON, files_of, in_build_order, input_hash, selected

CHECKOUT = Path(__file__).resolve().parents[2]


def hash_of(name: str, checkout: Path = CHECKOUT) -> str:
    image = IMAGES[name]
    return input_hash(checkout, image, dict.fromkeys(image.on, "parent"))


def test_an_image_is_built_after_what_it_is_built_on() -> None:
    assert in_build_order(["worker", "gateway"]) == ["base", "worker", "gateway"]
    assert PYTHON not in in_build_order(list(IMAGES))


def test_groups_are_expanded_and_unknown_names_are_refused() -> None:
    assert selected(["test", "gateway"]) == ["gateway", "worker", "operator", "simulator", "redis", "postgres"]
    with pytest.raises(ValueError, match="no image 'gatewy'"):
        selected(["gatewy"])


@pytest.mark.parametrize("name", IMAGES)
def test_every_file_that_a_dockerfile_copies_is_an_input_of_its_image(name: str) -> None:
    image = IMAGES[name]
    copied = []
    for line in (CHECKOUT / image.dockerfile).read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied += line.split()[1:-1]
    for path in copied:
        assert any(path == each or path.startswith(f"{each}/") for each in image.inputs), path
        assert (CHECKOUT / path).exists(), path


@pytest.mark.parametrize("name", IMAGES)
def test_no_image_runs_as_root(name: str) -> None:
    lines = (CHECKOUT / IMAGES[name].dockerfile).read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    inherits = any(parent != PYTHON for parent in IMAGES[name].on.values())
    assert (users[-1] if users else "inherited") in (["inherited"] if inherits else ["65532:65532", "65532", "999"])


def test_a_hash_changes_with_each_input_and_with_nothing_else(tmp_path: Path) -> None:
    for path in (IMAGES["gateway"].dockerfile, *IMAGES["gateway"].inputs):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / path, tmp_path / path)
    first = hash_of("gateway", tmp_path)
    assert first == hash_of("gateway") != hash_of("worker")
    (tmp_path / "services/gateway/README.md").write_text("not an input")
    assert hash_of("gateway", tmp_path) == first
    main = tmp_path / IMAGES["gateway"].inputs[0]
    main.write_text(main.read_text() + "# changed\n")
    assert hash_of("gateway", tmp_path) != first
    image = IMAGES["gateway"]
    assert input_hash(tmp_path, image, {"RUNTIME": "one"}) != input_hash(tmp_path, image, {"RUNTIME": "other"})


def test_byte_code_and_metadata_of_an_editable_install_are_not_inputs(tmp_path: Path) -> None:
    for path in ("src/quarterdeck/a.py", "src/quarterdeck/__pycache__/a.pyc", "src/quarterdeck.egg-info/PKG-INFO"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    assert files_of(tmp_path, IMAGES["base"])[-1:] == [tmp_path / "src/quarterdeck/a.py"]
