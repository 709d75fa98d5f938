//! Every type of credential and its keys.

use super::keys::{CLEARTEXT, PEERS, POSITIVE, SOME_TIME, TEXT, TEXTS, TLS_TABLE};
use super::{Choice, Key, Kind, TableFormat};

/// The keys that every type has.
pub(crate) const COMMON: &[Key] = &[
    Key::new("required", Kind::Flag, "Does readiness wait for it?").default("true"),
    Key::new("hosts", PEERS, "The only upstream hosts that it may go to: exact, or `*.suffix`.")
        .default("any; aura: `api.neo4j.io`"),
    Key::new("lease_timeout", SOME_TIME, "How long a request may wait for a token.").default("\"10s\""),
    Key::new("lease_queue", POSITIVE, "How many requests may wait for a token at once.").default("1024"),
    Key::new("margin", SOME_TIME, "How long before its expiry a token is refreshed at the latest.")
        .default("chosen by its lifetime"),
    Key::new(
        "idle_account",
        SOME_TIME,
        "How long an account may be unused before its token is let go; the next request fetches a new one.",
    )
    .default("for ever"),
    Key::new("account_header", TEXT, "The header that names the account.")
        .later("several accounts of a credential"),
];
const ENCODING: &[Key] = &[Key::new(
    "encoding",
    Kind::OneOf(&[Choice::now("plain"), Choice::now("base64")]),
    "How the token stands in the header.",
)
.default("\"plain\"")];
const CLIENT_ID: Key = Key::new("client_id", TEXT, "The client's id; required without `clients`.");
const CLIENT_SECRET: Key =
    Key::new("client_secret", Kind::Secret, "Its secret; required unless `auth_method` is \"none\".");
const CLIENT_TABLE: Kind = Kind::Table(&API_CLIENT);
const API_CLIENTS: Kind = Kind::List(&CLIENT_TABLE);
const CLIENT: &[Key] = &[
    CLIENT_ID,
    CLIENT_SECRET,
    Key::new("clients", API_CLIENTS, "Several API clients behind one credential."),
    Key::new(
        "strategy",
        Kind::OneOf(&[Choice::now("failover"), Choice::now("spread")]),
        "How several clients are used: the first that works, or each in turn.",
    )
    .default("\"failover\""),
    Key::new("scope", Kind::AnyOf(&[TEXT, TEXTS]), "Scopes to ask for; one text or a list."),
    Key::new("audience", TEXT, "Audience to ask for."),
    Key::new("tls", TLS_TABLE, "TLS towards the token endpoint."),
    CLEARTEXT,
    Key::new("fetch_timeout", SOME_TIME, "How long one fetch may take.").default("\"10s\""),
    Key::new("params", Kind::Table(&PARAMS), "More form fields for the token endpoint.")
        .later("more form fields for the token endpoint"),
];
const AUTH_METHODS: Kind = Kind::OneOf(&[
    Choice::now("basic"),
    Choice::now("post"),
    Choice::now("none"),
    Choice::later("private_key_jwt", "client authentication by a signed JWT"),
]);
const AUTH_METHOD: Key =
    Key::new("auth_method", AUTH_METHODS, "How the client shows who it is.").default("\"basic\"");
const LOGIN: &[Key] = &[
    CLIENT_ID,
    CLIENT_SECRET,
    AUTH_METHOD,
    Key::new("redirect_uri", TEXT, "Where the browser returns to."),
    Key::new("scope", Kind::AnyOf(&[TEXT, TEXTS]), "Scopes to ask for."),
    Key::new("tls", TLS_TABLE, "TLS towards the token endpoint."),
    CLEARTEXT,
    Key::new("fetch_timeout", SOME_TIME, "How long one fetch may take."),
    Key::new("params", Kind::Table(&PARAMS), "More form fields for the token endpoint."),
];

static PARAMS: TableFormat = TableFormat {
    name: "params",
    heading: "params = { … }",
    doc: "More form fields for the token endpoint.",
    keys: &[],
    later: Some("more form fields for the token endpoint"),
};

static API_CLIENT: TableFormat = TableFormat {
    name: "client",
    heading: "clients = [{ … }]",
    doc: "One of several API clients behind one credential.",
    keys: &[&[
        Key::new("name", Kind::Text("first"), "Its name for logs and metrics.").required(),
        Key::new("client_id", TEXT, "The client's id.").required(),
        Key::new("client_secret", Kind::Secret, "Its secret; required unless `auth_method` is \"none\"."),
    ]],
    later: None,
};

/// Every type of credential, by its `type`.
pub(crate) static CREDENTIALS: &[TableFormat] = &[
    TableFormat {
        name: "basic",
        heading: "type = \"basic\"",
        doc: "`Authorization: Basic`.",
        keys: &[
            &[
                Key::new("username", Kind::Text("neo4j"), "Without a colon.").required(),
                Key::new("password", Kind::Secret, "The password.").required(),
            ],
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "bearer",
        heading: "type = \"bearer\"",
        doc: "`Authorization: Bearer` with a token or API key that does not change by itself.",
        keys: &[&[Key::new("token", Kind::Secret, "The token.").required()], ENCODING, COMMON],
        later: None,
    },
    TableFormat {
        name: "client_credentials",
        heading: "type = \"client_credentials\"",
        doc: "OAuth 2.0 client credentials (RFC 6749 §4.4).",
        keys: &[
            &[
                Key::new("token_url", Kind::Url, "Where tokens are asked for.").required(),
                AUTH_METHOD,
                Key::new(
                    "basic_encoding",
                    Kind::OneOf(&[Choice::now("form"), Choice::now("raw")]),
                    "Are id and secret form-encoded before they go into Basic (RFC 6749 §2.3.1)?",
                )
                .default("\"form\""),
            ],
            CLIENT,
            ENCODING,
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "aura",
        heading: "type = \"aura\"",
        doc: "Client credentials as the Aura API takes them: HTTP Basic, raw.",
        keys: &[
            &[Key::new("token_url", Kind::Url, "Where tokens are asked for.")
                .default("\"https://api.neo4j.io/oauth/token\"")],
            CLIENT,
            ENCODING,
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "exec",
        heading: "type = \"exec\"",
        doc: "A command that prints `{\"access_token\", \"expires_in\" or \"expires_at\"}`, run without a shell.",
        keys: &[
            &[
                Key::new("command", Kind::List(&Kind::Text("helper")), "Program and arguments.").required(),
                Key::new("timeout", SOME_TIME, "How long it may run.").default("\"10s\""),
            ],
            ENCODING,
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "header",
        heading: "type = \"header\"",
        doc: "A header of any name, for keys that do not travel in Authorization.",
        keys: &[
            &[
                Key::new("name", Kind::Text("Neon-Connection-String"), "The header's name.").required(),
                Key::new("value", Kind::Secret, "Its whole value.").required(),
            ],
            COMMON,
        ],
        later: None,
    },
    TableFormat {
        name: "authorization_code",
        heading: "type = \"authorization_code\"",
        doc: "A login in the browser (RFC 6749 §4.1, with PKCE).",
        keys: &[
            &[
                Key::new("auth_url", Kind::Url, "Where the browser logs in."),
                Key::new("token_url", Kind::Url, "Where tokens are asked for."),
                Key::new("issuer", Kind::Url, "Where both are looked up."),
            ],
            LOGIN,
            ENCODING,
            COMMON,
        ],
        later: Some("logging in with a browser"),
    },
    TableFormat {
        name: "neon_oauth",
        heading: "type = \"neon_oauth\"",
        doc: "The login as Neon takes it.",
        keys: &[LOGIN, ENCODING, COMMON],
        later: Some("logging in with a browser"),
    },
];
