"""Prometheus, as Debian has it, against a real sidekey: what it scrapes, and which alerts fire and resolve."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from support import (ROOT, Process, Sidekey, Standins, all_well, check, command, debian, figure, free_port, load, say)

MONITORING = ROOT / "deploy" / "monitoring"
# Refreshed after three quarters of it; what is left is the time in which a failure can be seen coming.
TOKEN_LIFETIME = 30
PATIENCE = 90
REQUESTS = int(os.environ.get("MONITORED_REQUESTS", "60000"))


def configuration(urls, admin, health, directory):
    return f"""
[server]
listen = "127.0.0.1:0"
admin = "{admin}"
health = "{health}"
workers = 2
[route.aura]
provider = "aura"
path = "/aura"
upstream = "{urls['aura']}"
credential = "aura"
[credential.aura]
type = "aura"
token_url = "{urls['aura']}/oauth/token"
client_id = "client-1"
client_secret = {{ value = "secret-1" }}
[route.neon]
provider = "neon"
path = "/neon"
upstream = "{urls['neon']}"
credential = {{ type = "bearer", token = {{ value = "neon-key" }} }}
[route.wiki]
path = "/wiki"
upstream = "{urls['neon']}"
credential = "wiki"
[credential.wiki]
type = "authorization_code"
auth_url = "{urls['aura']}/authorize"
token_url = "{urls['aura']}/oauth/token"
client_id = "client-2"
client_secret = {{ value = "secret-2" }}
redirect_uri = "http://{admin}/callback"
scope = ["read"]
[store]
type = "file"
path = "{directory}/store"
"""


class Prometheus(Process):
    """A Prometheus that scrapes twice a second and evaluates the alerts as often."""

    def __init__(self, directory, target):
        self.address = f"127.0.0.1:{free_port()}"
        home = pathlib.Path(directory) / "prometheus"
        home.mkdir()
        (home / "alerts.yaml").write_text(hurried((MONITORING / "alerts.yaml").read_text()))
        config = (MONITORING / "prometheus.yaml").read_text()
        config = config.replace("15s", "500ms").replace("127.0.0.1:7601", target)
        (home / "prometheus.yaml").write_text(config)
        command("promtool", "check", "config", home / "prometheus.yaml", check=True, stdout=subprocess.DEVNULL)
        super().__init__("prometheus", f"--config.file={home}/prometheus.yaml", f"--storage.tsdb.path={home}/data",
                         f"--web.listen-address={self.address}", "--log.level=warn")
        until("Prometheus is ready", lambda: fetch(f"http://{self.address}/-/ready")[0] == 200)

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        status, body = fetch(f"http://{self.address}/api/v1/{path}?{query}")
        found = json.loads(body)
        if status != 200 or found["status"] != "success":
            raise RuntimeError(f"{path} {parameters}: {status} {body}")
        return found["data"]

    def query(self, expr):
        """The series that an expression has now."""
        return [(series["metric"], float(series["value"][1])) for series in self.ask("query", query=expr)["result"]]

    def firing(self):
        """The alerts that fire, each with what it is about."""
        alerts = [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        label = lambda labels: next((labels[key] for key in ("credential", "route", "reason") if key in labels), "")
        return {(alert["labels"]["alertname"], label(alert["labels"])) for alert in alerts}


def hurried(rules):
    """The alerts with spans of a test: a second where they wait for minutes, rates over ten seconds."""
    rules = re.sub(r"for: \d+[sm]\n", "for: 1s\n", rules)
    return re.sub(r"\[\d+m\]", "[10s]", rules)


def fetch(url, headers=()):
    """Status and body; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def until(what, is_so, patience=PATIENCE, meanwhile=lambda: None):
    """Asks again and again until it is so; a check of its own."""
    began = time.monotonic()
    while not (so := is_so()) and time.monotonic() - began < patience:
        meanwhile()
        time.sleep(0.1)
    check(what, so, f"not within {patience} s")
    figure(f"after {time.monotonic() - began:.1f} s")
    return so


def counted(page):
    """Requests by route and code."""
    found = re.findall(r'^sidekey_requests_total\{route="([^"]+)",code="([^"]+)"\} (\d+)$', page, re.M)
    return {(route, code): int(count) for route, code, count in found}


def rules_and_page(page):
    """What promtool says of the rules, of their tests and of a live page."""
    for name, words, stdin in [
        ("promtool checks the rules", ["check", "rules", MONITORING / "alerts.yaml"], None),
        ("promtool tests the rules", ["test", "rules", MONITORING / "alerts_test.yaml"], None),
        ("promtool checks the live page", ["check", "metrics"], page),
    ]:
        ran = command("promtool", *words, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        check(name, ran.returncode == 0 and (stdin is None or not ran.stdout.strip()), ran.stdout)


def exactness(sidekey, health):
    """As many are counted as were made, by many connections at once."""
    page = lambda: fetch(f"http://{health}/metrics")[1]
    before = counted(page())
    made = {}
    for route, path in [("neon", "neon/small"), ("aura", "aura/small"), ("(none)", "nowhere")]:
        found = load("--connections", 32, "--requests", REQUESTS // 3, f"{sidekey.url}/{path}")
        check(f"{route}: the load broke nothing", not found["broken"], found["broken"])
        made.update({(route, code): count for code, count in found["statuses"].items()})
    gained = lambda: {key: count - before.get(key, 0) for key, count in counted(page()).items()
                      if count != before.get(key, 0)}
    until(f"{sum(made.values())} requests are counted as what they were", lambda: gained() == made, 5)
    if gained() != made:
        say(f"        {gained()} ≠ {made}")
    histogram = {route: int(count) for route, count in re.findall(
        r'^sidekey_request_duration_seconds_count\{route="([^"]+)"\} (\d+)$', page(), re.M)}
    totals = {}
    for (route, _), count in counted(page()).items():
        totals[route] = totals.get(route, 0) + count
    check("the histogram has as many", {route: count for route, count in histogram.items() if count} == totals,
          f"{histogram} {totals}")


def dashboard(prometheus):
    """The panels of the dashboard that have nothing to show."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    empty = []
    for panel in panels:
        for target in panel.get("targets", []):
            expr = target["expr"].replace("$__rate_interval", "1m")
            expr = re.sub(r"\$(job|instance|route|credential)", ".*", expr)
            if not prometheus.query(expr):
                empty.append((panel["title"], expr))
    return empty


def suite_monitoring(directory, _):
    """Prometheus scrapes; a token endpoint goes away and comes back, and alerts fire and resolve."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        debian("prometheus")
    admin, health = (f"127.0.0.1:{free_port()}" for _ in range(2))
    environment = {name: value for name, value in os.environ.items() if name != "SIDEKEY_ADMIN"}
    environment["XDG_RUNTIME_DIR"] = str(directory)
    with Standins("--token-lifetime", str(TOKEN_LIFETIME * 1000)) as standins:
        config = configuration(standins.urls, admin, health, directory)
        with Prometheus(directory, health) as prometheus:
            with Sidekey(directory, config, env=environment) as sidekey:
                watch(prometheus, sidekey, standins, admin, health, directory)
            until("without sidekey: SidekeyDown fires", lambda: ("SidekeyDown", "") in prometheus.firing())
            with Sidekey(directory, config, env=environment) as sidekey:
                until("with it again: SidekeyDown resolves", lambda: ("SidekeyDown", "") not in prometheus.firing())


def watch(prometheus, sidekey, standins, admin, health, directory):
    firing = prometheus.firing
    until("it is scraped and ready", lambda: prometheus.query("sidekey_ready == 1"))
    until("nobody has logged in: SidekeyLoginRequired fires, and nothing else",
          lambda: firing() == {("SidekeyLoginRequired", "wiki")})
    exactness(sidekey, health)
    standins.tell("revoke")
    check("a revoked token is replaced", fetch(f"{sidekey.url}/aura/small")[0] == 200)
    check("a foreign host is refused", fetch(f"{sidekey.url}/neon/small", [("Host", "evil.example")])[0] == 403)
    check("an upstream's page that is not there", fetch(f"{sidekey.url}/neon/nothing/there")[0] == 404)
    rules_and_page(fetch(f"http://{admin}/metrics")[1])
    check("nobody asked for a login", fetch(f"{sidekey.url}/wiki/x")[0] == 503)
    until("the replay is scraped", lambda: prometheus.query('sidekey_token_rejections_total{outcome="replayed"} == 1'))
    if not until("every panel of the dashboard shows something", lambda: not dashboard(prometheus), 20):
        say(f"        {dashboard(prometheus)}")
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    wrong = [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
    check(f"Prometheus evaluates all {len(rules)} rules", rules and not wrong, wrong)
    whole = lambda: sum(value for _, value in prometheus.query("sidekey_requests_total"))
    until("Prometheus has as many requests as the page", lambda: whole() == sum(
        counted(fetch(f"http://{health}/metrics")[1]).values()), 10)

    check("nothing else fires", until("the errors of before are forgotten", lambda: firing() == {
        ("SidekeyLoginRequired", "wiki")}), firing())
    figure("the store goes away")
    store = pathlib.Path(directory) / "store"
    store.rename(store.with_name("elsewhere"))
    store.write_text("no directory")
    until("SidekeyStoreUnwritable fires", lambda: ("SidekeyStoreUnwritable", "") in firing())
    store.unlink()
    store.with_name("elsewhere").rename(store)
    until("SidekeyStoreUnwritable resolves", lambda: firing() == {("SidekeyLoginRequired", "wiki")})
    figure("the token endpoint goes away")
    standins.tell("fault hangup")
    until("SidekeyTokenExpiring fires while the token still serves",
          lambda: ("SidekeyTokenExpiring", "aura") in firing() and fetch(f"{sidekey.url}/aura/small")[0] == 200)
    ask = lambda: fetch(f"{sidekey.url}/aura/small")
    for alert in [("SidekeyNoToken", "aura"), ("SidekeyNotReady", ""), ("SidekeyUpstreamErrors", "aura")]:
        until(f"{alert[0]} fires", lambda: alert in firing(), meanwhile=ask)
    until("SidekeyTokenExpiring is over: it has expired", lambda: ("SidekeyTokenExpiring", "aura") not in firing())
    refuse = lambda: [fetch(f"{sidekey.url}/neon/small", [("Host", "evil.example")]) for _ in range(10)]
    until("SidekeyManyRefusals fires", lambda: ("SidekeyManyRefusals", "forbidden_host") in firing(), meanwhile=refuse)
    check("the other routes serve on", all_well(load("--connections", 4, "--requests", 1000, f"{sidekey.url}/neon/small")))
    figure("the token endpoint comes back")
    standins.tell("fault none")
    until("all that had fired resolves", lambda: firing() == {("SidekeyLoginRequired", "wiki")})
    check("and requests succeed", fetch(f"{sidekey.url}/aura/small")[0] == 200)


SUITES = {"monitoring": suite_monitoring}
