"""The page in a real browser, served by the real command."""

import re
import shutil
import time

import chromium
import commands
import pytest
from parity import GOLDEN

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
    others = (f"--chat={GOLDEN / 'llava'}", "--tools=crop", f"--segment={GOLDEN / 'sam'}")
    process = commands.start("-m", "mmjax.serve", folder, *others, "--port=0")
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
    for name, code in (
        *(("ArrowUp", 38), ("ArrowDown", 40), ("ArrowRight", 39), ("Escape", 27), ("End", 35)),
        *(("Backspace", 8), ("2", 50), ("b", 66), ("x", 88)),
    )
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


# ---- the other tabs ------------------------------------------------------------------------------

# A drawing as a File of the page.
FILE = """await (async () => {
    const canvas = new OffscreenCanvas(60, 40), context = canvas.getContext('2d');
    context.fillStyle = 'red';
    context.fillRect(10, 10, 30, 20);
    return new File([await canvas.convertToBlob()], 'mine.png', { type: 'image/png' });
})()"""


def test_a_question_about_an_image_is_answered(page, address):
    page.go(address + "/#tab=chat")
    page.wait("tab === 'chat' && !chat.hidden && main.hidden")
    assert page.run("document.querySelector('#tab-chat').ariaSelected") == "true"
    page.run(f"(async () => tabs.chat.take([{FILE}]))()")
    page.wait("attached.children.length === 1 && document.activeElement === question")
    page.run("question.value = 'what?'")
    press(page, "Enter")
    answered = "document.querySelectorAll('.assistant:not([aria-busy]) p').length"
    page.wait(f"$('stop').hidden && {answered}", 180)
    assert page.run("talk.querySelector('.user').innerText") == "what?"
    assert page.run("talk.querySelector('.user img').naturalWidth") == 60
    assert page.run("attached.children.length === 0 && question.value === ''")
    page.run("fresh.click()")
    assert page.run("talk.children.length") == 0


def test_the_tools_that_are_called_are_shown_and_errors_give_the_question_back(page, address):
    page.go(address + "/#tab=chat")
    page.wait("tab === 'chat'")
    page.run("""{
        const real = fetch;
        window.sent = [];
        const said = [{ role: 'assistant', text: 'four', images: [] }];
        const events = [{ waiting: 1 }, { text: 'let me <to' }, { text: 'ol sum>2 + 2</tool>' },
            { call: { name: 'sum', arguments: '2 + 2' } }, { result: { text: '<b>4</b>' } },
            { text: 'four' }, { said }];
        window.fetch = async (path, settings) => {
            if (path !== '/api/chat') return real(path, settings);
            sent.push(JSON.parse(settings.body.get('messages')));
            const last = sent.length > 1 ? [{ error: 'It is too long.' }] : events;
            return new Response(last.map((event) => JSON.stringify(event) + '\\n').join(''));
        };
        question.value = 'sum?';
        composer.requestSubmit();
    }""")
    page.wait("talk.querySelector('.assistant:not([aria-busy])') !== null")
    shown = page.run("talk.querySelector('.assistant').innerText").split("\n")
    assert [line for line in shown if line] == ["let me", "Tool sum 2 + 2", "<b>4</b>", "four"]
    page.run("question.value = 'and?'; composer.requestSubmit()")
    page.wait("chatsaid.textContent === 'It is too long.'")
    assert page.run("question.value") == "and?" and page.run("talk.children.length") == 2
    assert [m["text"] for m in page.run("sent[1]")] == ["sum?", "four", "and?"]


def test_clicks_and_keys_show_masks(page, address):
    page.go(address + "/#tab=segment")
    page.wait("tab === 'segment'")
    page.run(f"(async () => tabs.segment.take([{FILE}]))()")
    page.wait("segsaid.textContent === 'Click on an object.'")
    masks = "document.querySelectorAll('#masklist button').length"
    x, y = page.run(
        "(() => { const r = stage.getBoundingClientRect(); "
        "return [r.x + r.width / 3, r.y + r.height / 2]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    page.wait(f"{masks} === 3")
    drawn = """(() => { const c = stage.querySelector('canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return d.filter((v, i) => i % 4 === 3 && v).length / (c.width * c.height); })()"""
    part = "parseFloat(document.querySelector('#masklist [aria-pressed=\"true\"]').innerText) / 100"
    assert abs(page.run(drawn) - page.run(part)) < 0.001
    first = page.run(part)
    press(page, "2")
    assert page.run("document.querySelectorAll('#masklist button')[1].ariaPressed") == "true"
    assert abs(page.run(drawn) - page.run(part)) < 0.001 and page.run(part) != first
    press(page, "ArrowRight")
    press(page, "x")  # a point beside the object
    page.wait(f"{masks} === 1")
    assert page.run("document.querySelectorAll('.dot').length") == 2
    press(page, "Backspace")
    page.wait(f"{masks} === 3")
    press(page, "Escape")
    assert page.run(masks) == 0 and page.run("document.querySelectorAll('.dot').length") == 0
    press(page, "b")
    press(page, "ArrowRight")
    press(page, "ArrowUp")
    press(page, "b")
    page.wait(f"{masks} === 1 && document.querySelector('.edge') !== null")


def test_an_image_that_is_never_kept_is_sent_three_times_and_no_more(page, address):
    page.go(address + "/#tab=segment")
    page.wait("tab === 'segment'")
    page.run(f"(async () => tabs.segment.take([{FILE}]))()")
    page.wait("segsaid.textContent === 'Click on an object.'")
    page.run("""asked = 0; real = fetch;
        fetch = (path, ...more) => path !== '/api/segment' ? real(path, ...more) : (asked++,
            Promise.resolve(new Response('{"error": "It is not kept."}', {status: 410})))""")
    for total in (3, 6):
        press(page, "Enter")
        page.wait(f"asked === {total} && segsaid.textContent === 'It is not kept.'")


def test_an_image_of_the_index_goes_to_the_other_tabs(page, address):
    page.go(address + "/#words=red")
    page.wait("document.querySelectorAll('.tile').length === 9")
    page.run("document.querySelectorAll('.tile')[0].click()")
    page.run("[...further.children].find((b) => b.textContent === 'Segment it').click()")
    page.wait("tab === 'segment' && segsaid.textContent === 'Click on an object.'")
    assert "tab=segment" in page.run("location.hash")
    page.run("document.querySelector('#tab-search').click()")
    assert page.run("!main.hidden && segment.hidden && panel.hidden")


def test_nothing_was_run_or_blocked_that_should_not(page):
    assert page.run("document.body.dataset.hacked") is None
    assert [p for p in page.problems if "400 (Bad Request)" not in p] == []
