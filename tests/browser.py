"""A real browser without a window, if there is one on this machine."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--window-size=1300,1000",
)


@contextmanager
def opened(page: Path, profile: Path) -> Iterator:
    """Open a page from disk; skip the test where there is no Chromium, or no driver for it."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        load(chrome, page.as_uri())
        yield chrome
    finally:
        chrome.quit()


def load(chrome, address: str) -> None:
    """Open a page, or open it again, and wait until all of its scripts ran: on a busy machine the
    driver comes back between two of them, or still in the page that is left."""
    from selenium.webdriver.support.ui import WebDriverWait

    chrome.execute_script("window.isLeft = true")
    chrome.get(address)
    is_loaded = "return !window.isLeft && document.readyState === 'complete'"
    WebDriverWait(chrome, 60).until(lambda _: chrome.execute_script(is_loaded))


def requested(chrome) -> set[str]:
    """The schemes of all addresses that a page from disk asked for."""
    messages = [json.loads(x["message"])["message"] for x in chrome.get_log("performance")]
    sent = [x["params"] for x in messages if x["method"] == "Network.requestWillBeSent"]
    # The browser's own first page asks for things as well.
    urls = [x["request"]["url"] for x in sent if x["documentURL"].startswith("file:")]
    return {url.partition(":")[0] for url in urls}
