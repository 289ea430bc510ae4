"""The page of the report, as its user decides on suspected label errors."""

import json
import time


class Page:
    """A page in a browser, and what a user does there."""

    def __init__(self, chrome, downloads):
        self.chrome, self.downloads = chrome, downloads
        folder = {"behavior": "allow", "downloadPath": str(downloads)}
        chrome.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
        self.to_label_errors()

    def to_label_errors(self):
        self.js("document.querySelectorAll('#lists button')[1].click()")

    def js(self, script, *args):
        return self.chrome.execute_script(script, *args)

    def actions(self):
        from selenium.webdriver.common.action_chains import ActionChains

        return ActionChains(self.chrome, duration=20)

    def keys(self, keys):
        self.actions().send_keys(keys).perform()

    def find(self, css, number=0):
        return self.chrome.find_elements("css selector", css)[number]

    def texts(self, css):
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css
        )

    def text(self, css):
        return " ".join(self.texts(css))

    def verdicts(self):
        """Of the cards, in the order of the list."""
        return self.js(
            "return [...document.querySelectorAll('figure')].map(e => e.dataset.verdict ?? '')"
        )

    def current(self):
        return self.js("return document.querySelector('figure[aria-current] b')?.textContent")

    def box(self):
        """That which is drawn, in pixels of the image."""
        names = "['x', 'y', 'width', 'height'].map(n => Number(e.getAttribute(n)))"
        return self.js(f"const e = document.getElementById('box'); return {names}")

    def drag(self, start, end):
        """From a pixel of the image to another: where these are is computed from the picture."""
        self.js("document.getElementById('view').scrollIntoView({block: 'end'})")
        left, top, per_pixel = self.js(
            "const r = document.getElementById('picture').getBoundingClientRect();"
            "return [r.left, r.top, r.width / Number("
            "document.getElementById('picture').getAttribute('width'))]"
        )
        view = self.js(
            "const r = document.getElementById('view').getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2]"
        )
        to_screen = [
            [round(left + x * per_pixel - view[0]), round(top + y * per_pixel - view[1])]
            for x, y in (start, end)
        ]
        actions, (a, b) = self.actions(), to_screen
        actions.move_to_element_with_offset(self.find("#view"), *a).click_and_hold()
        actions.move_by_offset(b[0] - a[0], b[1] - a[1]).release().perform()
        return (
            1 / per_pixel
        )  # pixels of the image in one of the screen, which the mouse cannot part

    def saved(self):
        """What the file has that the page saves."""
        file = self.downloads / "decisions.json"
        file.unlink(missing_ok=True)
        self.find("#save").click()
        deadline = time.monotonic() + 30
        # A browser reserves the name by an empty file, which the whole one replaces.
        while not (file.exists() and file.stat().st_size):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return json.loads(file.read_text(encoding="utf-8"))

    def load(self, file):
        self.js("document.getElementById('message').textContent = ''")
        self.js("document.getElementById('problem').textContent = ''")
        self.find("#loaded-file").send_keys(str(file))
        deadline = time.monotonic() + 30
        while not self.text("#message") + self.text("#problem"):
            assert time.monotonic() < deadline
