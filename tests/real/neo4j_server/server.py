"""A Neo4j server, Community edition, from Maven Central: fetched, started, restarted; and what talks to it directly."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import secrets
import shutil
import ssl
import subprocess
import time

from support import Process, Tools, debian, figure, free_port, say
from traffic.lab import accepts, until

# The newest one that a Java here can run is taken, unless $NEO4J_VERSION says otherwise: the version, the Java that it
# needs, and its main class. Both hold some 150 MB; Maven keeps them where it keeps everything (~/.m2).
VERSIONS = [("2026.08.1", 21, "org.neo4j.server.Neo4jCommunity"), ("5.26.30", 17, "org.neo4j.server.CommunityEntryPoint")]
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>sidekey</groupId><artifactId>neo4j-peer</artifactId><version>1</version><dependencies>
<dependency><groupId>org.neo4j</groupId><artifactId>neo4j</artifactId><version>{version}</version></dependency>
</dependencies></project>
"""
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
JAVA_OPTIONS = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                *[f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ["java.nio", "java.io", "sun.nio.ch"]]]
USER = "neo4j"
# What a header must not be made from carelessly: a colon, a blank, a letter outside ASCII.
PASSWORD = "pass: word ä " + secrets.token_hex(4)
OTHER = "other"
# Failures in a row after which a user waits, and how long, in seconds: what the server does by itself.
FAILURES, LOCKED_FOR = 3, 5
STARTS_WITHIN, ENDS_WITHIN = 120, 30


def javas():
    """Every Java here: its version and its program."""
    found = {}
    homes = [os.environ.get("JAVA_HOME"), *pathlib.Path("/usr/lib/jvm").glob("*")]
    programs = [shutil.which("java"), *[pathlib.Path(home) / "bin" / "java" for home in homes if home]]
    for program in programs:
        if program and os.access(program, os.X_OK):
            said = subprocess.run([str(program), "-version"], capture_output=True, text=True, check=False).stderr
            if version := re.search(r'version "(\d+)', said):
                found[int(version[1])] = program
    return found


class Artifacts:
    """A version of the server, and the Java that runs it."""

    def __init__(self, directory):
        maven = Tools.program("mvn", "maven")
        if not javas():
            debian("default-jdk-headless")
        versions, wanted = javas(), os.environ.get("NEO4J_VERSION")
        for self.version, needs, self.main in VERSIONS:
            self.java = max(((number, java) for number, java in versions.items() if number >= needs), default=None)
            if self.java and wanted in (None, self.version):
                break
        else:
            raise RuntimeError(f"no Java here ({sorted(versions)}) runs any of {VERSIONS}, or none that is {wanted}")
        project = pathlib.Path(directory) / "maven"
        project.mkdir()
        (project / "pom.xml").write_text(POM.format(version=self.version))
        began = time.monotonic()
        words = [maven, "-q", "-B", PLUGIN, "-Dmdep.outputFile=classpath", "-DincludeScope=runtime"]
        say("$ " + " ".join(map(str, words)))
        subprocess.run(list(map(str, words)), cwd=project, check=True, stdout=subprocess.DEVNULL)
        self.classpath = (project / "classpath").read_text().strip()
        size = sum(os.path.getsize(jar) for jar in self.classpath.split(os.pathsep))
        figure(f"Neo4j {self.version} on Java {self.java[0]}: {size >> 20} MiB, resolved in {time.monotonic() - began:.0f} s")

    def run(self, source, *arguments):
        """Runs one file of Java with the server's own classes; what it printed."""
        words = [self.java[1], "-XX:TieredStopAtLevel=1", "-cp", self.classpath, source, *arguments]
        return subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=True).stdout


class Server:
    """A running server. Its ports and its data stay when it is started again."""

    def __init__(self, directory, artifacts, certificates):
        self.artifacts, self.home = artifacts, pathlib.Path(directory) / "neo4j"
        self.port, self.tls_port, bolt = free_port(), free_port(), free_port()
        (self.home / "conf").mkdir(parents=True)
        (self.home / "logs").mkdir()
        policy = self.home / "certificates"
        policy.mkdir()
        shutil.copy(certificates.cert, policy / "public.crt")
        # Its key must be in PKCS #8, which is how openssl writes it.
        shutil.copy(certificates.key, policy / "private.key")
        # The Query API runs its queries over Bolt within the process, and does not without a Bolt connector.
        (self.home / "conf" / "neo4j.conf").write_text(f"""
server.bolt.enabled=true
server.bolt.listen_address=127.0.0.1:{bolt}
server.http.enabled=true
server.http.listen_address=127.0.0.1:{self.port}
server.https.enabled=true
server.https.listen_address=127.0.0.1:{self.tls_port}
dbms.ssl.policy.https.enabled=true
dbms.ssl.policy.https.base_directory={policy}
dbms.ssl.policy.https.client_auth=NONE
server.memory.pagecache.size=16m
dbms.usage_report.enabled=false
db.shutdown_transaction_end_timeout=0s
""")
        self.url, self.tls_url = f"http://127.0.0.1:{self.port}", f"https://127.0.0.1:{self.tls_port}"
        self.ca, self.process = certificates.root, None

    def __enter__(self):
        self.start()
        self.first_steps()
        return self

    def start(self):
        """Starts it; returns when it answers."""
        began, log = time.monotonic(), (self.home / "out.log").open("w")
        words = [*JAVA_OPTIONS, "-cp", self.artifacts.classpath, self.artifacts.main, f"--home-dir={self.home}",
                 f"--config-dir={self.home / 'conf'}"]
        self.process = Process(self.artifacts.java[1], *words, quiet=True, stdout=log, stderr=log)
        log.close()
        if not until(self.answers, seconds=STARTS_WITHIN, pause=0.1):
            self.stop()
            raise RuntimeError("Neo4j does not start: " + "".join(
                (self.home / name).read_text()[-3000:] for name in ["logs/neo4j.log", "out.log"]))
        figure(f"Neo4j {self.artifacts.version} answers after {time.monotonic() - began:.1f} s")

    def answers(self):
        if self.process.child.poll() is not None:
            raise RuntimeError(f"Neo4j has ended: {(self.home / 'out.log').read_text()[-3000:]}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return Connection(self.url).ask("GET", "/").status == 200
        return False

    def stop(self, kill=False):
        """Ends it, in order or by the axe. What it does in order after its ports are closed takes ten seconds more."""
        child = self.process.child
        if not kill:
            child.terminate()
            until(lambda: not accepts(self.port), seconds=ENDS_WITHIN, pause=0.05)
        child.kill()
        child.wait()

    def first_steps(self):
        """The password that it comes with can do nothing but be changed; and there is a second user."""
        change = {"statement": "ALTER CURRENT USER SET PASSWORD FROM $old TO $new",
                  "parameters": {"old": "neo4j", "new": PASSWORD}}
        create = {"statement": f"CREATE USER {OTHER} SET PASSWORD $new CHANGE NOT REQUIRED",
                  "parameters": {"new": PASSWORD}}
        for body, password in [(change, "neo4j"), (create, PASSWORD)]:
            answer = self.ask("POST", "/db/system/query/v2", body, user=USER, password=password)
            if answer.status != 202:
                raise RuntimeError(f"{body['statement']}: {answer}")

    def ask(self, method, path, body=None, user=USER, password=PASSWORD, headers=None):
        """One request straight to the server, not by way of sidekey."""
        headers = dict(headers or {})
        if user is not None:
            headers.setdefault("Authorization", basic(user, password))
        return Connection(self.url).ask(method, path, body, headers)

    def __exit__(self, *_):
        self.stop(kill=True)


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Answer:
    """An answer, whole."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def code(self):
        """The first error's, in Neo4j's shape."""
        errors = self.json.get("errors") or [{}]
        return errors[0].get("code")

    @property
    def message(self):
        errors = self.json.get("errors") or [{}]
        return errors[0].get("message")

    @property
    def own(self):
        """sidekey's own code, if it made the answer."""
        return self.headers.get("Sidekey-Error")

    @property
    def values(self):
        return self.json.get("data", {}).get("values")

    def __str__(self):
        return f"{self.status} {dict(self.headers)} {self.body[:600]}"


class Connection:
    """A connection of a caller."""

    def __init__(self, url, ca=None, timeout=60):
        scheme, _, authority = url.partition("://")
        if scheme == "https":
            context = ssl.create_default_context(cafile=ca)
            self.connection = http.client.HTTPSConnection(authority, timeout=timeout, context=context)
        else:
            self.connection = http.client.HTTPConnection(authority, timeout=timeout)

    def begin(self, method, path, body=None, headers=None):
        """Asks; the answer's header has come, its body not yet."""
        text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        headers = {"Accept": "application/json", **(headers or {})}
        if text is not None:
            headers.setdefault("Content-Type", "application/json")
        self.connection.request(method, path, text.encode() if isinstance(text, str) else text, headers)
        return self.connection.getresponse()

    def ask(self, method, path, body=None, headers=None):
        response = self.begin(method, path, body, headers)
        return Answer(response.status, response.headers, response.read().decode())

    def close(self):
        self.connection.close()
