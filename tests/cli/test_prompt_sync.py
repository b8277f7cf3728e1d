"""`quarterdeck prompts sync`."""

from tests.cli.admin_api import AdminAPI

LINK = {
    "id": "link_1",
    "object": "prompt.link",
    "name": "greet",
    "prompt": "prompt_1",
    "project": "proj_1",
    "state": "conflict",
    "origin": "theirs",
    "labels": {"production": 1},
    "tags": [],
    "conflicts": [{"kind": "label", "subject": "production", "message": "both sides changed it\x1b[2J"}],
    "notes": ["config.language is not used here\x1b[2J"],
    "keep": None,
    "checked": 1_800_000_000,
}
SHOWN = {**LINK, "versions": [{"ours": 1, "theirs": 2}], "unsynchronised_versions": []}
OTHER = {**LINK, "id": "link_2", "name": "other", "state": "synchronised", "conflicts": [], "notes": []}
PATH = "/admin/prompt_links"


def test_synchronised_prompts_are_a_table_with_what_is_wrong(admin: AdminAPI) -> None:
    admin.answers["GET", PATH] = {"object": "list", "data": [LINK, OTHER], "has_more": False}
    head, first, second = admin.run("prompts", "sync").stdout.splitlines()
    assert head.split() == ["NAME", "STATE", "ORIGIN", "CHECKED", "WHY"]
    assert "both sides changed it" in first and "\x1b" not in first
    assert second.split()[:3] == ["other", "synchronised", "theirs"]
    assert len(admin.run("prompts", "sync", "--conflicts").stdout.splitlines()) == 2


def test_one_prompt_is_shown_with_both_numbers_of_its_versions(admin: AdminAPI) -> None:
    admin.answers["GET", PATH] = {"object": "list", "data": [LINK], "has_more": False}
    admin.answers["GET", f"{PATH}/link_1"] = SHOWN
    text = admin.run("prompts", "sync", "greet").stdout
    assert "1=2" in text and "conflict: both sides changed it" in text and "note: config.language" in text
    assert "\x1b" not in text


def test_a_side_is_kept(admin: AdminAPI) -> None:
    admin.answers["GET", PATH] = {"object": "list", "data": [LINK], "has_more": False}
    admin.answers["POST", f"{PATH}/link_1"] = {**SHOWN, "state": "pending", "keep": "ours"}
    assert "keeping ours" in admin.run("prompts", "sync", "greet", "--keep", "ours").stdout
    assert admin.requests[-1] == ("POST", f"{PATH}/link_1", {"keep": "ours"})


def test_keep_needs_a_name_and_a_synchronised_prompt(admin: AdminAPI) -> None:
    done = admin.run("prompts", "sync", "--keep", "ours")
    assert (done.exit_code, "--keep needs the NAME" in done.stderr) == (2, True)
    admin.answers["GET", PATH] = {"object": "list", "data": [], "has_more": False}
    done = admin.run("prompts", "sync", "nope")
    assert done.exit_code == 1
    assert "'nope' is not synchronised with Langfuse" in done.stderr
