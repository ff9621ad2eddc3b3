"""The page in a real browser, fed by an in-memory log: what it shows and what its buttons do."""

import shutil
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = pytest.mark.browser

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        # `make test` installs it, or says how and stops: only a bare pytest comes here without it
        pytest.skip("no Chromium on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, site):
    """The page with seven parts judged, one of them with a late capture.

    At its end: nothing was written to the console, and nothing was asked of any other host.
    """
    for number in range(6):
        site.plant.run_part(number)
    site.plant.run_part(6, late=True)
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    noise, hosts = [], set()
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto(site.url)
    expect(page.locator("#card")).to_be_visible()
    expect(page.locator("#verdict-count")).to_have_text("8")
    yield page
    page.close()
    assert noise == []
    assert hosts == {urlsplit(site.url).netloc}


def test_counters_are_zero_and_green_until_they_are_not(page: Page, site) -> None:
    """A verdict committed twice turns its counter red, with a sign beside the colour."""
    duplicate = page.locator("#duplicate")
    expect(page.locator("#part-count")).to_have_text("7")
    expect(page.locator("#verdict-count")).to_have_text("8")
    for name in ("lost", "duplicate", "conflicting"):
        expect(page.locator(f"#{name} b")).to_have_text("0")
    expect(duplicate).not_to_have_class("zero bad")
    verdict = site.plant.run_part(7)
    site.plant.publish("verdicts", verdict.part, verdict.to_bytes())
    expect(duplicate.locator("b")).to_have_text("1")
    expect(duplicate).to_have_class("zero bad")
    expect(duplicate.locator("span")).to_have_text("\u26a0 duplicate")


def test_each_part_has_a_tile_with_words_and_its_revision(page: Page) -> None:
    """Disposition is said in words and by a sign, not by colour alone; revisions are marked."""
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(7)
    expect(tiles.first).to_contain_text("rev 2")
    for tile in tiles.all():
        assert any(word in tile.inner_text() for word in ("accept", "reject"))
        assert tile.locator(".icon").inner_text() in ("\u2713", "\u2715")


def test_a_click_pins_a_part_with_its_pictures(page: Page, site) -> None:
    """Captures, hallucinated features and heat map are shown, and stay when others come."""
    gone = next(v for n in range(8, 60) if (v := site.plant.run_part(n)).evidence.missing)
    tile = page.locator(".tile", has_text=gone.part.part_id)
    tile.click()
    expect(page.locator("#part h2.id")).to_have_text(gone.part.part_id)
    missing = page.locator(f'[data-modality="{gone.evidence.missing[0]}"]')
    expect(missing).to_contain_text("not captured")
    expect(missing.locator(".halluc figcaption")).to_have_text("features, hallucinated")
    pictures = page.locator("#part img")
    for picture in pictures.all():
        expect(picture).to_have_js_property("complete", value=True)
        assert picture.evaluate("node => node.naturalWidth") > 0
    site.plant.run_part(100)
    expect(page.locator(".tile").first).to_contain_text("00100")
    expect(page.locator("#part h2.id")).to_have_text(gone.part.part_id)
    expect(page.locator("#follow")).to_have_text("Follow again")


def test_the_verdict_is_explained(page: Page) -> None:
    """Disposition, p-value, promise, truth, evidence and digests are all on the card."""
    card = page.locator("#card")
    for text in ("p-value", "promise", "truth:", "Reasons", "judged because"):
        expect(card).to_contain_text(text)
    card.get_by_text("Digests and timings").click()
    expect(card).to_contain_text("verdict id")


def test_every_sensor_can_be_unplugged_and_plugged_in(page: Page, site) -> None:
    """Each button gives its own command; the line shows the sensor as unplugged and goes on."""
    stations = ("camera-1", "scanner-1", "thermo-1")
    for station in stations:
        node = page.locator(f'.node[data-station="{station}"]')
        node.get_by_role("button", name="Unplug").click()
        expect(node.get_by_text("unplugged")).to_be_visible()
    site.plant.run_part(20)
    expect(page.locator("#part-count")).to_have_text("8")
    for station in stations:
        node = page.locator(f'.node[data-station="{station}"]')
        node.get_by_role("button", name="Plug in").click()
        expect(node.get_by_text("unplugged")).to_be_hidden()
    assert site.commands == [f"{verb}/{s}" for verb in ("unplug", "plug") for s in stations]


@pytest.mark.parametrize(
    ("label", "command"), [("Kill a scorer", "kill-scorer"), ("Kill the worker", "kill-worker")]
)
def test_a_kill_is_done_and_told(page: Page, site, label: str, command: str) -> None:
    """The list says what was done, what the line answered and that verdicts went on since."""
    page.get_by_role("button", name=label).click()
    entry = page.locator("#actions li").first
    expect(entry).to_contain_text("pid 4711")
    assert site.commands == [command]
    site.plant.run_part(30)
    expect(entry).to_contain_text("1 verdicts since, nothing lost or doubled")


def test_the_keyboard_reaches_parts_and_buttons(page: Page) -> None:
    """Tiles take focus, arrows move it, Enter pins the part."""
    first, second = page.locator(".tile").nth(0), page.locator(".tile").nth(1)
    first.focus()
    page.keyboard.press("ArrowDown")
    expect(second).to_be_focused()
    page.keyboard.press("Enter")
    expect(second).to_have_attribute("aria-current", "true")
