//! Every table and key of the file but the routes' and the credentials'.

use super::route_keys::ROUTE;
use super::{Choice, Key, Kind, TableFormat};

pub(super) const TEXT: Kind = Kind::Text("…");
pub(super) const TEXTS: Kind = Kind::List(&TEXT);
const FILE: Kind = Kind::Text("/etc/ssl/private-ca.pem");
const PIN: Kind = Kind::Text("sha256/BASE64");
/// A user or a group. The last number means none at all to the system.
const WHO: Kind = Kind::AnyOf(&[Kind::Text("sidekey"), Kind::Integer { min: 0, max: 4_294_967_294 }]);
const ADDRESS: Kind = Kind::Text("127.0.0.1:7600");
pub(super) const PATH: Kind = Kind::Text("/aura");
pub(super) const TOKEN_PATH: Kind = Kind::Text("/oauth/token");
pub(super) const HOST: Kind = Kind::Text("aura.localhost");
pub(super) const PEERS: Kind = Kind::List(&Kind::Text("api.example.com"));
pub(super) const POSITIVE: Kind = Kind::Integer { min: 1, max: 1_000_000 };
const SOME_SIZE: Kind = Kind::Size { zero: false };
pub(super) const SOME_TIME: Kind = Kind::Duration { zero: false };
pub(super) const ANY_TIME: Kind = Kind::Duration { zero: true };
/// A user or a group of the machine, by number.
const ID: Kind = Kind::Integer { min: 0, max: 4_294_967_294 };
const PROXY: Kind = Kind::AnyOf(&[PROXY_URL, Kind::Table(&EGRESS_PROXY), Kind::Off]);
pub(super) const LISTEN: Kind = Kind::AnyOf(&[
    ADDRESS,
    Kind::Table(&LISTEN_ITEM),
    Kind::List(&Kind::AnyOf(&[ADDRESS, Kind::Table(&LISTEN_ITEM)])),
]);
const PROXY_URL: Kind = Kind::Text("http://proxy.example.com:3128");
pub(super) const TLS_TABLE: Kind = Kind::Table(&TLS);
const RULES: Kind = Kind::List(&Kind::Text("GET /v1/instances/*"));
/// What a route's or a caller's requests may be.
pub(super) const ALLOW: Key = Key::new(
    "allow",
    RULES,
    "The only requests that pass, as method and path below the route: `GET /v1/instances/*`.",
)
.default("all that `deny` lets pass");
pub(super) const DENY: Key = Key::new("deny", RULES, "Requests that do not pass, whatever `allow` says.");
/// A table's own `egress_proxy`, and what it is for there.
pub(super) const fn egress_proxy(doc: &'static str) -> Key {
    Key::new("egress_proxy", PROXY, doc)
}
pub(super) const CLEARTEXT: Key =
    Key::new("allow_cleartext", Kind::Flag, "Allows `http://` to a peer that is not on this machine.")
        .default("false");
pub(super) const LINK_LOCAL: Key = Key::new(
    "allow_link_local",
    Kind::Flag,
    "Allows link-local addresses, and those of clouds' metadata services.",
)
.default("false");

/// The whole file.
pub(crate) static ROOT: TableFormat = TableFormat {
    name: "file",
    heading: "the file",
    doc: "sidekey's configuration",
    keys: &[&[
        Key::new("server", Kind::Table(&SERVER), "The listeners and what holds for all callers."),
        Key::new("route", Kind::Named(&ROUTE), "Where requests go and what they carry."),
        Key::new("credential", Kind::Credentials, "Named recipes for the header that authenticates."),
        Key::new("tls", TLS_TABLE, "TLS towards every upstream and token endpoint."),
        Key::new(
            "caller",
            Kind::Named(&CALLER),
            "Who may use the proxy, and how far. Once there is one, nobody else gets in on any of its listeners.",
        ),
        Key::new("store", Kind::Table(&STORE), "Where grants and tokens are kept."),
    ]],
    later: None,
};

static SERVER: TableFormat = TableFormat {
    name: "server",
    heading: "[server]",
    doc: "The listeners and what holds for all callers.",
    keys: &[&[
        Key::new(
            "listen",
            LISTEN,
            "Where callers connect: one address or a list; `unix:PATH` is a Unix socket, `systemd:NAME` one that was handed over.",
        )
        .default("\"127.0.0.1:7600\""),
        Key::new(
            "admin",
            Kind::AnyOf(&[Kind::Off, Kind::Text("127.0.0.1:7601")]),
            "The admin listener, on loopback: probes, status, stopping; false turns it off.",
        )
        .default("\"127.0.0.1:7601\""),
        Key::new(
            "workers",
            Kind::AnyOf(&[Kind::Integer { min: 1, max: 64 }, Kind::OneOf(&[Choice::new("auto")])]),
            "Threads that serve requests; \"auto\": as many as CPUs, at most 4.",
        )
        .default("1"),
        Key::new(
            "hosts",
            Kind::List(&HOST),
            "Host names that callers may use, besides loopback's and the routes'.",
        ),
        Key::new("header_timeout", SOME_TIME, "How long a caller may take for a request's header.")
            .default("\"10s\""),
        Key::new(
            "idle_timeout",
            SOME_TIME,
            "How long a caller's connection may be silent, between requests and within a body.",
        )
        .default("\"5m\""),
        Key::new(
            "drain_delay",
            ANY_TIME,
            "How long new connections are still served after the signal to stop.",
        )
        .default("\"0s\""),
        Key::new("drain_timeout", ANY_TIME, "How long running requests may take to finish after that.")
            .default("\"25s\""),
        Key::new(
            "health",
            Kind::Text("0.0.0.0:7602"),
            "A listener for probes and metrics alone, whatever the Host: `GET /livez`, `/readyz` and `/metrics`.",
        ),
        Key::new("admin_token", Kind::Secret, "What the admin listener's POSTs need.")
            .default("made at each start, in a runtime file that the commands read"),
        Key::new(
            "quitquitquit",
            Kind::OneOf(&[Choice::new("open")]),
            "\"open\": whoever reaches the admin listener may stop the instance, for pods.",
        ),
        egress_proxy(
            "The HTTP proxy that leads out of the network, for every route and token endpoint; false: none.",
        )
        .default("`https_proxy`, `http_proxy` and `no_proxy` of the environment"),
        Key::new(
            "sandbox",
            Kind::Flag,
            "Confines the process to the files and TCP ports that the configuration needs, as far as the kernel can \
             (Landlock).",
        )
        .default("false"),
        Key::new(
            "access_log",
            Kind::OneOf(&[Choice::new("stdout"), Choice::new("off")]),
            "A line of JSON for each request, on standard output.",
        )
        .default("\"off\""),
        Key::new(
            "request_id",
            Kind::Flag,
            "Gives each request an `X-Request-Id`, upstream and in its answer, where it has none.",
        )
        .default("false: only sidekey's own errors get one"),
        Key::new(
            "max_connections",
            POSITIVE,
            "Callers' connections at once; one more is answered with 503 and closed.",
        )
        .default("16384, and at most half of the files that the process may open"),
        Key::new("max_requests", POSITIVE, "Requests at once; one more is answered with 503.")
            .default("8192"),
        Key::new("max_header_size", SOME_SIZE, "The most that a request's header may hold, else 431.")
            .default("\"64KiB\""),
        Key::new(
            "max_headers",
            Kind::Integer { min: 1, max: 1000 },
            "The most lines that a request's header may have, else 431.",
        )
        .default("100"),
        Key::new("max_target", SOME_SIZE, "The longest path and query of a request, else 414.")
            .default("\"16KiB\""),
        Key::new(
            "max_streams",
            Kind::Integer { min: 1, max: 10_000 },
            "HTTP/2: a caller's requests at once on one connection.",
        )
        .default("100"),
        Key::new(
            "max_resets",
            POSITIVE,
            "HTTP/2: requests that a caller may take back before they are answered, beyond those that it lets be \
             answered, until its connection is closed.",
        )
        .default("200"),
    ]],
    later: None,
};

static LISTEN_ITEM: TableFormat = TableFormat {
    name: "listen",
    heading: "listen = { bind = \"…\", … }",
    doc: "An address with more to say about it; it stands wherever an address may.",
    keys: &[&[
        Key::new(
            "bind",
            ADDRESS,
            "`127.0.0.1:7600`, `[::1]:7600`, `unix:PATH` or `systemd:NAME`; port 0 lets the system choose.",
        )
        .required(),
        Key::new("mode", Kind::Text("0660"), "Permission bits of the Unix socket's file.")
            .default("\"0600\"; with `group` \"0660\""),
        Key::new("owner", WHO, "The user that the Unix socket's file is given to: a name or a number.")
            .default("who runs sidekey"),
        Key::new("group", WHO, "The group that the Unix socket's file is given to: a name or a number.")
            .default("the group of who runs sidekey"),
        Key::new(
            "allow_unauthenticated_remote",
            Kind::Flag,
            "Allows a TCP address that other machines reach, though there is no `[caller.NAME]`.",
        )
        .default("false"),
        Key::new("tls", Kind::Table(&LISTEN_TLS), "TLS towards callers, who then write `https://`."),
    ]],
    later: None,
};

static LISTEN_TLS: TableFormat = TableFormat {
    name: "listen_tls",
    heading: "listen = { bind = \"…\", tls = { … } }",
    doc: "TLS towards callers, on a TCP address. Nothing of `[tls]` holds here: that is for what sidekey connects to.",
    keys: &[&[
        Key::new(
            "cert",
            Kind::Text("/etc/sidekey/listener.pem"),
            "PEM file with our certificate, and those between it and its root.",
        )
        .required(),
        Key::new("key", Kind::Text("/etc/sidekey/listener.key"), "PEM file with its private key.").required(),
        Key::new(
            "ca",
            Kind::AnyOf(&[
                Kind::Text("/etc/sidekey/callers.pem"),
                Kind::List(&Kind::Text("/etc/sidekey/callers.pem")),
            ]),
            "PEM files with roots; one or a list. Only callers with a certificate of one of them get in; the system's \
             roots do not count.",
        ),
    ]],
    later: None,
};

static EGRESS_PROXY: TableFormat = TableFormat {
    name: "egress_proxy",
    heading: "egress_proxy = { url = \"…\", … }",
    doc: "An HTTP proxy that opens tunnels with CONNECT, and a login for it; it stands wherever the proxy's URL alone may.",
    keys: &[&[
        Key::new(
            "url",
            PROXY_URL,
            "Its host and port; sidekey speaks to it in clear text, and to the upstream in TLS through it.",
        )
        .required(),
        Key::new("username", TEXT, "What it knows sidekey by (Basic)."),
        Key::new("password", Kind::Secret, "The password for it; no command."),
        LINK_LOCAL,
    ]],
    later: None,
};

static TLS: TableFormat = TableFormat {
    name: "tls",
    heading: "[tls], or tls = { … } on a route or credential",
    doc: "`ca` verifies the peer, besides the system's roots, or `pin` does, in their place; `cert` and `key` are ours. At \
          the top level, it holds for every upstream and token endpoint; a `ca` or `pin` of one's own comes before a `pin` \
          there.",
    keys: &[&[
        Key::new(
            "ca",
            Kind::AnyOf(&[FILE, Kind::List(&FILE)]),
            "PEM files with roots to trust; one or a list.",
        ),
        Key::new(
            "pin",
            Kind::AnyOf(&[PIN, Kind::List(&PIN)]),
            "Public keys in the place of roots, as `sha256/BASE64`; one or a list. The peer must have one of them; \
             nothing else of its certificate counts then, neither who signed it nor names and dates.",
        ),
        Key::new("cert", Kind::Text("/etc/sidekey/client.pem"), "PEM file with our certificate chain."),
        Key::new("key", Kind::Text("/etc/sidekey/client.key"), "PEM file with its private key."),
    ]],
    later: None,
};

static CALLER: TableFormat = TableFormat {
    name: "caller",
    heading: "[caller.NAME]",
    doc: "A program that may use the proxy. It shows its token in `Sidekey-Token`, as a Bearer, or as the password of a \
          Basic, whatever the user's name; or it is known by its process, on a Unix socket.",
    keys: &[&[
        Key::new(
            "token",
            Kind::AnyOf(&[Kind::Secret, Kind::List(&Kind::Secret)]),
            "What it shows; one or, while one replaces another, a list: each counts. Files are read again when they \
             change.",
        ),
        Key::new(
            "uid",
            Kind::AnyOf(&[ID, Kind::List(&ID)]),
            "Without `token`: the user that its process runs as, when it connects to a Unix socket; one or a list.",
        ),
        Key::new(
            "gid",
            Kind::AnyOf(&[ID, Kind::List(&ID)]),
            "The same for the process's group; with `uid`, both must be right.",
        ),
        Key::new("routes", Kind::List(&Kind::Text("aura")), "The routes that it may use.").default("all"),
        Key::new(
            "accounts",
            Kind::List(&Kind::Text("alice")),
            "The accounts that it may use, where a credential has several.",
        )
        .default("all"),
        ALLOW,
        DENY,
    ]],
    later: None,
};

static STORE: TableFormat = TableFormat {
    name: "store",
    heading: "[store]",
    doc: "Where the grants of logins are kept, and tokens that several instances share. `type` decides the other keys.",
    keys: &[&[
        Key::new(
            "type",
            Kind::OneOf(&[Choice::new("memory"), Choice::new("file"), Choice::new("redis")]),
            "What kind of store: this process's memory, a directory, or a Redis or Valkey server.",
        )
        .default("\"file\" if people log in to any credential, else \"memory\""),
        Key::new("path", Kind::Text("/var/lib/sidekey"), "file: the directory.")
            .default("`$XDG_STATE_HOME/sidekey`, else `$HOME/.local/state/sidekey`"),
        Key::new(
            "url",
            Kind::Text("rediss://cache.example.com:6379"),
            "redis: the server; `rediss://` with TLS; may end in the number of the database.",
        ),
        Key::new("username", TEXT, "redis: who asks.").default("the server's default user"),
        Key::new("password", Kind::Secret, "redis: the password."),
        Key::new("prefix", Kind::Text("sidekey"), "redis: stands before every key.").default("\"sidekey\""),
        Key::new("tls", TLS_TABLE, "redis: TLS towards the server."),
        CLEARTEXT,
        LINK_LOCAL,
        Key::new("timeout", SOME_TIME, "redis: how long one command may take.").default("\"2s\""),
        Key::new(
            "encryption_key",
            Kind::AnyOf(&[Kind::Secret, Kind::List(&Kind::Secret)]),
            "file, redis: seals what is kept: 32 random bytes as base64 or hexadecimal; of a list, the first seals \
             and all open. Required with redis.",
        ),
    ]],
    later: None,
};
