"""The dashboard's page and files: types, caching, policy, and nothing from another host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.api.web import ASSETS, CONTENT_SECURITY_POLICY, FOLDER, MEDIA_TYPES, Assets
from tests.support.problems import assert_problem
from tests.support.server import Server

FILES = sorted(str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*") if p.is_file())
OWN = [name for name in FILES if not name.startswith("vendor/")]
MODULES = [name for name in OWN if name.endswith(".js") and name != "docs.js"]
PAGES = {"index.html", "docs.html"}


def path_of(name: str) -> str:
    return f"/web/{ASSETS.digest}/{name}"


def test_the_page_is_asked_for_anew_and_allows_no_script_but_its_files(server: Server) -> None:
    page = server.client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    policy = page.headers["content-security-policy"]
    assert policy == CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|<script(?! type=\"module\" src=)|\sstyle=|\son\w+=", page.text)


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_its_type_and_may_be_kept_for_good(server: Server, name: str) -> None:
    response = server.client.get(path_of(name))
    assert response.status_code == 200
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["content-type"] == MEDIA_TYPES[Path(name).suffix]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in response.headers["cache-control"]
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY


def test_what_the_page_asks_for_is_there(server: Server) -> None:
    links = re.findall(r'(?:href|src)="([^"]+)"', server.client.get("/").text)
    assert len(links) > 4
    for link in links:
        assert link.startswith("/"), link
        assert server.client.get(link).status_code == 200, link


def test_a_known_file_is_not_sent_again(server: Server) -> None:
    first = server.client.get(path_of("app.js"))
    again = server.client.get(path_of("app.js"), headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("path", ["/web/app.js", "/web/0123456789abcdef/app.js", "/web/"])
def test_files_are_at_no_other_place(server: Server, path: str) -> None:
    assert_problem(server.client.get(path), 404, "not_found")


def test_nothing_beyond_the_folder_is_served(server: Server) -> None:
    for name in ("../app.py", "..%2fapp.py", "%2e%2e/app.py"):
        assert server.client.get(path_of(name)).status_code == 404


def test_another_byte_is_another_path(tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text("1;")
    before = Assets(tmp_path).digest
    (tmp_path / "app.js").write_text("2;")
    assert Assets(tmp_path).digest != before


@pytest.mark.parametrize("name", OWN)
def test_no_file_of_ours_names_another_host(name: str) -> None:
    text = (FOLDER / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|[\"'(]//\w", text)


@pytest.mark.parametrize("name", MODULES)
def test_modules_import_files_that_are_there(name: str) -> None:
    text = (FOLDER / name).read_text()
    imported = re.findall(r'(?:from|import\()\s*"([^"]+)"', text)
    for target in imported:
        assert target.startswith("."), target
        assert ((FOLDER / name).parent / target).resolve().is_file(), target


def test_every_module_is_used() -> None:
    used = {"app.js"}
    for name in MODULES:
        text = (FOLDER / name).read_text()
        for target in re.findall(r'(?:from|import\()\s*"([^"]+)"', text):
            used.add(str(((FOLDER / name).parent / target).resolve().relative_to(FOLDER)))
    assert used >= set(MODULES)


def test_modules_stay_small() -> None:
    assert all(len((FOLDER / name).read_text().splitlines()) <= 400 for name in OWN)
