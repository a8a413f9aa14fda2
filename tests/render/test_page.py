"""The page: parsed, with its links followed, and displayed in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from neuroxai.core.errors import OutputError
from neuroxai.render import Figure, Section, Table, write_page

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=http://evil.example/x onerror=alert(1)> & {{ 7*7 }}"
)
VOID = {"meta", "img", "br", "hr", "link", "input"}


def png(path: Path, size: tuple[int, int] = (60, 40)) -> None:
    from matplotlib.image import imsave

    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, np.linspace(0, 1, size[0] * size[1]).reshape(size[1], size[0]))


class Reader(HTMLParser):
    """Parser that collects tags and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


GAPS = Table("Gaps", ("method", "gap (%)"), (("IG", "0.42"), ("GIG", "1.3")), "16 nodes")


def demo(folder: Path, *names: str) -> Path:
    for name in names:
        png(folder / name)
    return write_page(
        folder / "index.html",
        [
            Section(
                "Segmentation",
                ("Seven maps.", "Made by one command."),
                (GAPS,),
                tuple(Figure(name, f"Picture {name}", "By modality") for name in names),
                "neuroxai explain case/ --method all",
            ),
            Section("Classification"),
        ],
        title="NeuroXAI",
        lead=("Both showcases.",),
        footer="Version 0.1.0",
    )


def test_the_page_parses_and_is_complete(tmp_path: Path) -> None:
    page = Reader(demo(tmp_path, "maps.png").read_text("utf-8"))
    words = " ".join(page.words)
    assert words.count("Research use only, not for clinical use") == 2
    for text in ("Seven maps.", "gap (%)", "0.42", "16 nodes", "By modality", "Version 0.1.0"):
        assert text in words
    assert page.all("html") == [{"lang": "en"}]
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} == ids
    assert all(image["alt"] for image in page.all("img"))
    assert page.all("img")[0]["width"] == "60"
    assert page.all("img")[0]["height"] == "40"


def test_the_page_loads_no_external_resources_and_runs_no_scripts(tmp_path: Path) -> None:
    text = demo(tmp_path, "maps.png").read_text("utf-8")
    page = Reader(text)
    assert not {"script", "link", "iframe", "object", "form", "base"} & {t for t, _ in page.tags}
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert not [attributes for _, attributes in page.tags if "style" in attributes]
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset"):
            link = urlsplit(attributes.get(name, ""))
            assert (link.scheme, link.netloc) == ("", "")
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert text.index("Content-Security-Policy") < text.index("<style>")


@pytest.mark.parametrize(
    "name",
    ["a b.png", "50%.png", "a#b?c.png", "sub/ö 患.png", "javascript:x.png", "a&b'.png", "-.png"],
)
def test_every_link_leads_to_its_file(tmp_path: Path, name: str) -> None:
    page = Reader(demo(tmp_path, name).read_text("utf-8"))
    links = [image["src"] for image in page.all("img")]
    links += [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert len(links) == 2
    for link in links:
        split = urlsplit(link)
        assert (split.scheme, split.netloc, split.query, split.fragment) == ("", "", "", "")
        assert (tmp_path / unquote(split.path)).is_file()


def test_text_is_escaped(tmp_path: Path) -> None:
    png(tmp_path / "a.png")
    page = write_page(
        tmp_path / "index.html",
        [
            Section(
                HOSTILE,
                (HOSTILE,),
                (Table(HOSTILE, (HOSTILE, "b"), ((HOSTILE, HOSTILE),), HOSTILE),),
                (Figure("a.png", HOSTILE, HOSTILE),),
                HOSTILE,
            )
        ],
        title=HOSTILE,
        lead=(HOSTILE,),
        footer=HOSTILE,
    )
    read = Reader(page.read_text("utf-8"))
    assert not read.all("script")
    assert [image["src"] for image in read.all("img")] == ["./a.png"]
    assert read.all("img")[0]["alt"] == HOSTILE
    assert "".join(read.words).count(HOSTILE) == 13
    assert not [a for _, attributes in read.tags for a in attributes if a.startswith("on")]


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        (Figure("gone.png", "x"), r"'gone\.png' does not exist; write it first"),
        (Figure("../a.png", "x"), "must be in the folder of the page"),
        (Figure("/etc/hostname", "x"), "must be in the folder of the page"),
        (Figure("sub\\a.png", "x"), "must be in the folder of the page"),
        (Figure("a.png", "  "), "has no alternative text"),
        (Figure("", "x"), "does not exist"),
    ],
)
def test_a_figure_that_cannot_be_shown_is_refused(
    tmp_path: Path, figure: Figure, message: str
) -> None:
    png(tmp_path / "a.png")
    with pytest.raises(OutputError, match=message):
        write_page(tmp_path / "index.html", [Section("s", figures=(figure,))], title="t")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_table_with_missing_cells_is_refused(tmp_path: Path) -> None:
    table = Table("Gaps", ("method", "gap"), (("IG", "1"), ("GIG",)))
    with pytest.raises(OutputError, match="'Gaps' has 1 cells, expected 2"):
        write_page(tmp_path / "index.html", [Section("s", tables=(table,))], title="t")


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    assert demo(tmp_path / "a", "m.png").read_bytes() == demo(tmp_path / "b", "m.png").read_bytes()


class Browser:
    """Headless Chromium, controlled through a pair of pipes (DevTools protocol)."""

    FLAGS = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--remote-debugging-pipe",
    )  # fmt: skip
    # The browser reads file descriptor 3 and writes 4.
    BRIDGE = (
        "import os, sys; r, w = int(sys.argv[1]), int(sys.argv[2]); r, w = os.dup(r), os.dup(w); "
        "a, b = os.dup(r), os.dup(w); os.dup2(a, 3); os.dup2(b, 4); "
        "os.execv(sys.argv[3], sys.argv[3:])"
    )

    def __init__(self, program: str, profile: Path) -> None:
        there, self.out = os.pipe()
        self.back, here = os.pipe()
        command = [program, *self.FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.child = subprocess.Popen(
            [sys.executable, "-c", self.BRIDGE, str(there), str(here), *command],
            pass_fds=(there, here),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(here)
        os.set_blocking(self.back, False)
        self.rest = b""
        self.number = 0
        self.events: list[dict[str, Any]] = []
        page = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session: str | None = None
        self.session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Network", "Runtime"):
            self.ask(f"{domain}.enable")

    session: str | None = None

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self.rest:
            assert time.monotonic() < deadline, "the browser does not answer"
            try:
                self.rest += os.read(self.back, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)
        text, self.rest = self.rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        return message

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        call = {"id": self.number, "method": method, "params": params}
        if self.session:
            call["sessionId"] = self.session
        os.write(self.out, json.dumps(call).encode() + b"\0")
        deadline = time.monotonic() + 60
        while True:
            message = self._message(deadline)
            if message.get("id") == self.number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def visit(self, page: Path) -> None:
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while self.value("document.readyState") != "complete":
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        reply = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.out)
        os.close(self.back)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on PATH")
    started = Browser(program, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def set_width(browser: Browser, width: int) -> None:
    browser.ask(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=800, deviceScaleFactor=1, mobile=width < 500,
    )  # fmt: skip


def test_a_browser_shows_every_picture(browser: Browser, tmp_path: Path) -> None:
    browser.visit(demo(tmp_path, "a b.png", "50%#.png", "sub/ö.png", "data:x.png"))
    shown = browser.value("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert shown == [[True, 60]] * 4
    complaints = [e for e in browser.events if e["method"] == "Log.entryAdded"]
    assert complaints == []
    asked = [
        e["params"]["request"]["url"]
        for e in browser.events
        if e["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert all(url.startswith(tmp_path.as_uri()) for url in asked)


def test_a_browser_runs_no_scripts_and_sends_no_requests(browser: Browser, tmp_path: Path) -> None:
    """A script and an external picture that were inserted into a page are blocked."""
    page = demo(tmp_path, "a.png")
    inside = "<script>document.title = 'ran'</script><img src='https://evil.example/x.png'></body>"
    page.write_text(page.read_text("utf-8").replace("</body>", inside), "utf-8")
    browser.visit(page)
    assert browser.value("document.title") == "NeuroXAI"
    assert browser.value("[...document.images].map(i => i.naturalWidth)") == [60, 0]
    blocked = [e["params"]["entry"]["text"] for e in browser.events if "entry" in e["params"]]
    assert sum("Content Security Policy" in text for text in blocked) == 2


def test_a_sentence_in_a_table_is_read_without_scrolling(browser: Browser, tmp_path: Path) -> None:
    names = ("Case", "Target", "Method", "Time (s)", "Completeness gap (%)", "In the brain (%)",
             "In the tumor (%)", "Notes")  # fmt: skip
    said = "the completeness gap is 52.8 %: the attributions do not add up to the target's change"
    row = ("BraTS20_Training_400007", "LGG", "Guided integrated gradients", "6.1", "52.80",
           "100 (66)", "23 (4)", f"{said}; 54% of this map lies outside the brain")  # fmt: skip
    table = Table("The maps", names, (row, (*row[:-1], "")), "a note")
    page = write_page(tmp_path / "index.html", [Section("One", tables=(table,))], title="Wide")
    set_width(browser, 1440)
    browser.visit(page)
    seen, whole = (
        browser.value(f"document.querySelector('.wide').{name}")
        for name in ("clientWidth", "scrollWidth")
    )
    assert whole <= seen
    heights = browser.value("[...document.querySelectorAll('tbody tr')].map(r => r.clientHeight)")
    assert heights[1] < 40, "a row of numbers stays on one line"


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_desktop_light_and_dark(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.ask("Emulation.setEmulatedMedia", features=media)
    set_width(browser, width)
    png(tmp_path / "wide.png", (2400, 300))
    browser.visit(demo(tmp_path, "wide.png"))
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelector('h1').getBoundingClientRect().right") <= width
    colors = "getComputedStyle(document.body)"
    ground, ink = (
        sum(map(int, re.findall(r"\d+", browser.value(f"{colors}.{name}"))[:3]))
        for name in ("backgroundColor", "color")
    )
    assert (ground > ink) == (scheme == "light")
    assert abs(ground - ink) > 450
    assert browser.value("document.querySelector('.banner').getBoundingClientRect().top") == 0
