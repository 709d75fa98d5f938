"""A person at a browser, without the browser: cookies, redirects, forms, and the headers that browsers add."""

import contextlib
import html.parser
import http.client
import http.cookiejar
import re
import urllib.parse
import urllib.request

REDIRECTS = 20


class Form(html.parser.HTMLParser):
    """The first form of a page: where it goes, and what it would send untouched."""

    def __init__(self, page):
        super().__init__()
        self.action, self.fields, self.open = None, {}, False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form" and self.action is None:
            self.action, self.open = attributes.get("action") or "", True
            self.method = (attributes.get("method") or "get").lower()
        elif tag == "input" and self.open and "name" in attributes:
            self.fields[attributes["name"]] = attributes.get("value") or ""

    def handle_endtag(self, tag):
        self.open = self.open and tag != "form"


class Page:
    """What an address led to. `status` is None where the person did not go."""

    def __init__(self, url, status=None, headers=None, body=""):
        self.url, self.status, self.headers, self.body = url, status, headers, body

    @property
    def text(self):
        """What there is to read."""
        body = re.sub(r"(?s)<(style|script|head)\b.*?</\1>", " ", self.body)
        return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body))).strip()

    def __str__(self):
        # Queries hold codes and states.
        return f"{self.status} {self.url.partition('?')[0]}: {self.text[:300]}"


class Person:
    """Keeps cookies, follows redirects, fills in forms."""

    def __init__(self):
        self.jar = http.cookiejar.CookieJar()
        self.cookies = set()

    def open(self, url, until=None):
        """Types an address. Stops before an address that begins with `until`."""
        return self._go("GET", url, None, None, until)

    def submit(self, page, until=None, **fields):
        """Fills the page's form in and sends it."""
        form = Form(page.body)
        if form.action is None:
            raise RuntimeError(f"there is no form: {page}")
        url = urllib.parse.urljoin(page.url, form.action)
        body = urllib.parse.urlencode({**form.fields, **fields})
        return self._go(form.method.upper(), url, body, page.url, until)

    def log_in(self, page, name, until=None):
        """The authorization server's own pages: who it is, and consent. Ends where they lead."""
        if 'name="login"' not in page.body:
            raise RuntimeError(f"this is not the page to log in: {page}")
        page = self.submit(page, until, login=name, password="any")
        if page.status is not None and "Continue" in page.body:
            page = self.submit(page, until)
        return page

    def _go(self, method, url, body, referrer, until):
        site = "none" if referrer is None else "same-origin"
        origin = origin_of(referrer) if referrer else None
        came_from = referrer
        for _ in range(REDIRECTS):
            if until and url.startswith(until):
                return Page(url)
            if came_from:
                site = worse(site, relation(came_from, url))
            page = self._fetch(method, url, body, site, origin)
            onward = re.search(r'<meta http-equiv="refresh" content="0; ?url=([^"]*)"', page.body)
            if page.status == 200 and onward:
                # A page that goes on by itself begins a new chain.
                method, body, origin, site, came_from = "GET", None, None, "same-origin", url
                url = urllib.parse.urljoin(url, html.unescape(onward[1]))
                continue
            if page.status not in (301, 302, 303, 307, 308):
                return page
            if method != "GET" and page.status < 307:
                method, body, origin = "GET", None, None
            came_from = url if site != "none" else None
            url = urllib.parse.urljoin(url, page.headers["location"])
        raise RuntimeError(f"more than {REDIRECTS} redirects, the last to {url.partition('?')[0]}")

    def _fetch(self, method, url, body, site, origin):
        parts = urllib.parse.urlsplit(url)
        headers = {
            "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
            "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1",
        }
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            headers["Origin"] = origin or "null"
        request = urllib.request.Request(url, headers=headers)
        self.jar.add_cookie_header(request)
        if cookie := request.get_header("Cookie"):
            headers["Cookie"] = cookie
        with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)) as connection:
            target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        self.jar.extract_cookies(response, request)
        self.cookies.update(cookie.value for cookie in self.jar)
        return Page(url, response.status, response.headers, text)


def origin_of(url):
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def relation(one, other):
    """As browsers judge it: ports make another origin, but not another site."""
    if origin_of(one) == origin_of(other):
        return "same-origin"
    same = urllib.parse.urlsplit(one).hostname == urllib.parse.urlsplit(other).hostname
    return "same-site" if same else "cross-site"


def worse(one, other):
    """A chain of redirects counts as its farthest member; what a person typed has no site at all."""
    ranks = ["none", "same-origin", "same-site", "cross-site"]
    return "none" if one == "none" else max(one, other, key=ranks.index)
