"""The leaderboard in a browser, from its files: sorting, filtering, links, width, and nothing in the console."""

import shutil

import pytest

from ufe_bench.leaderboard import build_leaderboard
from ufe_bench.schema import write_result

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page whose complaints and requests are kept."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    page.close()
    assert page.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in page.asked)


@pytest.fixture
def site(build_result, tmp_path):
    """Five methods and a floor; the order by mesh error is not that by gaze. On table3@1 one is not ranked."""
    for k, name in enumerate(["a", "b", "c", "d", "e"]):
        mesh = [0.5 + 0.25 * k, 0.75 + 0.25 * k, 1.0 + 0.25 * k, 1.25 + 0.25 * k]
        values = {"mesh_l2": mesh, "photometric_l1": mesh, "gaze": [10 - v for v in mesh]}
        result = build_result(f"acme/{name}", None, values=values, latency=(4.0 + k, 6.0 + k), suite="main@1")
        write_result(result, tmp_path / "results")
    write_result(build_result("ufe/mean", None, mesh=(2.0, 2.0, 2.0, 2.0), latency=None), tmp_path / "results")
    write_result(build_result(suite="table3@1"), tmp_path / "results")
    write_result(build_result("acme/half", None, failed=2, suite="table3@1"), tmp_path / "results")
    return build_leaderboard([tmp_path / "results"], tmp_path / "out").html.parent


def methods(page):
    return page.locator("#table-1-1-rows tbody tr:visible th[scope=row]").evaluate_all(
        "heads => heads.map(head => head.dataset.v.trim())"
    )


def test_a_click_on_a_heading_sorts_and_another_turns_the_order(page, site):
    page.goto((site / "suites" / "main@1.html").as_uri())
    ranked = ["acme/a", "acme/b", "acme/c", "acme/d", "acme/e", "mean"]
    assert methods(page) == ranked
    gaze = page.get_by_role("columnheader", name="Gaze").first.get_by_role("button")
    gaze.click()
    by_gaze = ["mean", "acme/e", "acme/d", "acme/c", "acme/b", "acme/a"]
    assert methods(page) == by_gaze
    gaze.click()
    assert methods(page) == by_gaze[::-1]
    latency = page.get_by_role("columnheader", name="Latency").first.get_by_role("button")
    latency.click()
    latency.click()
    assert methods(page)[-1] == "mean", "what nobody timed stays last"


def test_typing_filters_rows_by_every_word(page, site):
    page.goto((site / "suites" / "main@1.html").as_uri())
    box = page.get_by_role("searchbox").first
    box.fill("acme/b")
    assert methods(page) == ["acme/b"] and page.locator(".count").first.inner_text() == "1 of 6"
    box.fill("acme b nothing")
    assert methods(page) == []
    box.fill("")
    assert len(methods(page)) == 6


def test_buttons_choose_the_metric_of_a_plot(page, site):
    page.goto((site / "suites" / "main@1.html").as_uri())
    figure = page.locator("figure").first
    figure.get_by_role("button", name="Gaze").click()
    shown = figure.locator(".view:visible svg")
    assert shown.count() == 1 and "Gaze" in shown.get_attribute("aria-label")
    assert figure.get_by_role("button", name="Gaze").get_attribute("aria-pressed") == "true"


def test_links_lead_from_the_index_to_a_run_and_back(page, site):
    page.goto((site / "index.html").as_uri())
    page.get_by_role("link", name="main@1", exact=True).first.click()
    assert page.url.endswith("suites/main@1.html")
    page.get_by_role("link", name="acme/c", exact=True).first.click()
    assert "methods/acme__c.html#run-" in page.url
    page.get_by_text("What it is made of").click()
    assert page.get_by_text("Make it again").is_visible() and page.locator("dt", has_text="Weights").is_visible()
    page.get_by_role("link", name="UFE leaderboard").click()
    assert page.url.endswith("index.html")


#: Of every text that is seen: its words, its colour, and what it stands on. Where that is striped, the stripe.
TEXTS = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const blend = colours => {
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const ground = element => {
    const {backgroundColor, backgroundImage} = getComputedStyle(element);
    const stripes = backgroundImage.match(/(rgba?|color)\\([^)]*\\)/g) ?? [];
    return [...(element.parentElement ? ground(element.parentElement) : ["white"]), backgroundColor, ...stripes];
  };
  return [...document.body.querySelectorAll("*")]
    .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .filter(one => one.checkVisibility() && !one.closest("script, title, .skip"))
    .map(one => {
      const drawn = one.closest("svg"), style = getComputedStyle(one), under = ground(drawn?.parentElement ?? one);
      const circle = drawn && one.matches(".rank") && one.parentElement.querySelector("circle");
      const disc = circle ? [getComputedStyle(circle).fill] : [];
      const words = `${one.className.baseVal ?? one.className}: ${one.textContent.trim().slice(0, 40)}`;
      return [words, blend([...under, ...disc, drawn ? style.fill : style.color]), blend([...under, ...disc])];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path", ["index.html", "suites/main@1.html", "suites/table3@1.html", "methods/acme__a.html", "paper.html"]
)
def test_pages_fit_a_phone_and_can_be_read_in_light_and_dark(page, site, path, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto((site / path).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "wide tables scroll by themselves"
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert contrast(*(map(int, colour[4:-1].split(",")) for colour in (ink, paper))) > 7
    page.set_viewport_size({"width": 1200, "height": 900})  # phones do not show all of it
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    texts = page.evaluate(TEXTS)
    assert len(texts) > 20
    assert [words for words, text, ground in texts if contrast(text, ground) < 4.5] == []


def test_the_names_of_methods_stay_in_sight_on_a_phone(page, site):
    page.set_viewport_size({"width": 390, "height": 800})
    for path in ("index.html", "suites/main@1.html"):
        page.goto((site / path).as_uri())
        stuck = page.locator(".board thead th").evaluate_all(
            "heads => heads.filter(one => getComputedStyle(one).position === 'sticky').map(one => one.innerText.trim())"
        )
        assert stuck == ["Method"], path


def contrast(*colours):
    """WCAG's ratio of the luminances of two colours, each red, green and blue in 0..255."""

    def luminance(colour):
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted(map(luminance, colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)
