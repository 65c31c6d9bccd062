"""The page in a real browser, served by the real command."""

import re
import shutil
import time

import chromium
import commands
import pytest

pytest.importorskip("fastapi", reason="needs fastapi: pip install -e '.[demo]'")
if chromium.find() is None:
    pytest.skip("needs Chromium: apt-get install chromium", allow_module_level=True)

from tiny_index import MODEL, draw

from mmjax.embedder import open_embedder
from mmjax.search import build
from mmjax.search.index import Writer, create

NASTY = "<img src=x onerror=document.body.dataset.hacked=1>.png"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for i in range(8):
        draw(root / f"{i}.png", i)
    draw(root / NASTY, 100)
    shutil.copy(root / "3.png", root / "copy_of_3.png")
    return root


@pytest.fixture(scope="module")
def address(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    embedder = open_embedder(MODEL)
    create(folder, pictures, str(MODEL), embedder.fingerprint, 16, "float16")
    build.update(Writer(folder), embedder)
    process = commands.start("-m", "mmjax.serve", folder, "--port=0")
    while not (found := re.search(r"^(http://\S+)\n", process.said(), re.MULTILINE)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    yield found[1]
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def page(address):
    with chromium.Page() as page:
        yield page


def tiles(page):
    return page.run("[...document.querySelectorAll('.tile b')].map(b => b.textContent)")


def test_before_the_first_search_there_are_some_images(page, address):
    page.go(address)
    assert page.wait("document.querySelectorAll('.tile').length") == 9
    assert page.run("document.querySelectorAll('.tile em').length") == 0  # no scores
    assert "Type what you are looking for" in page.run("said.textContent")


def test_a_search_by_words_from_the_address_bar_and_from_the_box(page, address):
    page.go(address + "/#words=red")
    assert page.wait("document.querySelectorAll('.tile').length") == 9  # the copy is no tenth
    assert "“red”" in page.run("document.querySelector('#said').textContent")
    assert NASTY[: -len(".png")].replace("_", " ") in tiles(page)  # shown, as text
    page.wait("[...document.querySelectorAll('.tile img')].every(i => i.naturalWidth === 32)")
    first = tiles(page)
    page.run("words.value = 'zzz blue 7'; document.querySelector('.go').click()")
    page.wait("document.querySelector('#said').textContent.includes('zzz')")
    assert sorted(tiles(page)) == sorted(first)
    assert "words=zzz" in page.run("location.hash")


def test_a_picture_opens_with_its_maps_and_labels(page, address):
    page.go(address + "/#words=red&labels=cat,dog")
    page.wait("document.querySelectorAll('.tile').length")
    page.run("document.querySelectorAll('.tile')[2].click()")
    assert page.wait("document.querySelectorAll('#shares .share').length") == 2
    assert page.wait("document.querySelectorAll('#heads canvas').length") == 2
    assert page.run("document.querySelector('#wordmaps button').textContent").startswith("red")
    drawn = """(() => { const c = document.querySelector('#frame canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return !c.hidden && new Set(d).size > 10; })()"""
    assert page.run(drawn)
    page.run("layer.value = 1; layer.oninput(); document.querySelector('#heads button').click()")
    assert "head 1 of layer 1" in page.run("note.textContent")
    page.run("rollout.click()")
    assert "rollout" in page.run("note.textContent") and page.run(drawn)


def test_every_visible_result_shows_what_matches(page, address):
    page.go(address + "/#words=red")
    page.wait("document.querySelectorAll('.tile').length")
    assert page.run("maps.hidden") is False
    page.run("maps.click()")
    mapped = "document.querySelectorAll('.tile[data-mapped=\"1\"] canvas:not([hidden])').length"
    assert page.wait(f"{mapped} === 9")
    assert "maps=1" in page.run("location.hash")
    page.run("maps.click()")
    assert page.run("document.querySelectorAll('.tile canvas:not([hidden])').length") == 0


def press(page, key):
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **KEYS[key])


KEYS = {
    name: {"windowsVirtualKeyCode": code}
    for name, code in (("ArrowDown", 40), ("ArrowRight", 39), ("Escape", 27), ("End", 35))
} | {"Enter": {"windowsVirtualKeyCode": 13, "text": "\r"}}


def test_the_keys_move_open_and_close(page, address):
    focused = "[...document.querySelectorAll('.tile')].indexOf(document.activeElement)"
    page.go(address + "/#words=red")
    page.wait("document.querySelectorAll('.tile').length === 9 && document.activeElement === words")
    press(page, "ArrowDown")
    assert page.run(focused) == 0
    press(page, "ArrowRight")
    press(page, "ArrowRight")
    assert page.run(focused) == 2
    assert page.run("document.querySelectorAll('.tile[tabindex=\"0\"]').length") == 1
    press(page, "Enter")
    assert page.wait("!panel.hidden && document.querySelectorAll('#heads canvas').length")
    press(page, "ArrowRight")  # the panel follows
    assert page.run(focused) == 3
    third = "document.querySelectorAll('.tile')[3].dataset.name"
    assert page.run("document.querySelector('#name').textContent") == page.run(third)
    press(page, "Escape")
    assert page.run("panel.hidden") and page.run(focused) == 3
    press(page, "End")
    assert page.run(focused) == 8
    press(page, "Escape")  # back to the sample
    assert page.wait("said.textContent.includes('Type what') && words.value === ''")


def test_before_the_first_search_there_are_examples_of_queries(page, address):
    page.go(address)
    page.wait("!tries.hidden")
    page.run("document.querySelector('#tries button').click()")
    assert page.wait("said.textContent.startsWith('The best 9')")
    assert page.run("tries.hidden") and page.run("words.value") in page.run("said.textContent")


def test_on_a_phone_the_panel_covers_the_page_and_gives_it_back(page, address):
    size = {"height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", width=400, **size)
    try:
        page.go(address + "/#words=red")
        page.wait("document.querySelectorAll('.tile').length === 9")
        page.run("document.querySelectorAll('.tile')[1].click()")
        assert page.run("panel.getBoundingClientRect().width") == 400
        assert page.run("results.inert && document.activeElement.className") == "close"
        press(page, "Escape")
        assert page.run("panel.hidden && !results.inert")
    finally:
        page.call("Emulation.setDeviceMetricsOverride", width=1280, **size)


def test_a_dropped_picture_is_searched_by(page, address):
    page.go(address)
    page.wait("document.querySelector('#about').textContent.includes('9 images')")
    page.run("""(async () => {
        const hits = await (await fetch('/api/search?words=a&k=9')).json();
        const hit = hits.find((h) => h.paths.includes('3.png'));
        const blob = await (await fetch('/api/image/' + hit.image + '?size=64')).blob();
        const data = new DataTransfer();
        data.items.add(new File([blob], 'mine.webp', { type: 'image/webp' }));
        document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true }));
    })()""")
    page.wait("said.textContent.includes('this image')")
    assert tiles(page)[0] == "3"  # lossy WebP, and yet the nearest
    assert page.run("chip.hidden") is False
    page.wait("document.querySelectorAll('#heads canvas').length")


def test_what_is_no_picture_is_said(page, address):
    page.go(address)
    page.wait("document.querySelectorAll('.tile').length")
    page.run("take([new File(['hello'], 'notes.txt', { type: 'text/plain' })])")
    said = page.wait("said.className === 'wrong' && said.textContent")
    assert "are no image" in said
    page.run("new Promise((done) => setTimeout(done, 500))")
    assert page.run("document.body.innerText.split('are no image').length") == 2  # said once
    assert page.run("document.querySelectorAll('.tile').length") == 9  # what was there stays
    assert page.run("chip.hidden")


def test_nothing_was_run_or_blocked_that_should_not(page):
    assert page.run("document.body.dataset.hacked") is None
    assert [p for p in page.problems if "400 (Bad Request)" not in p] == []
