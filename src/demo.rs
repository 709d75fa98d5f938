//! The demo: stand-ins of every provider, the configuration that puts sidekey in front of them, and a tour.

pub mod standins;

use std::io;
use std::time::Duration;

use self::standins::{Aura, Neo4j, Neon, Record};

/// The stand-ins of the demo. Their credentials are made up and worth nothing.
pub struct Lab {
    aura: Aura,
    neo4j: Neo4j,
    neon: Neon,
}

/// Tokens of the demo live this long, so that a visitor sees them refreshed.
const TOKEN_LIFETIME: Duration = Duration::from_secs(20);

/// One request of the tour: what a caller sends, and to whom it goes.
pub struct Stop<'a> {
    /// What it shows.
    pub title: &'static str,
    /// Method.
    pub method: &'static str,
    /// Path on sidekey's listener.
    pub path: &'static str,
    /// A JSON body, for a POST.
    pub body: Option<&'static str>,
    /// What the upstream that it goes to has received.
    pub record: &'a Record,
}

impl Lab {
    /// Starts the stand-ins on free ports of 127.0.0.1, on the current runtime.
    pub async fn start() -> io::Result<Self> {
        let aura = Aura::builder().client("demo-client", "demo-secret").token_lifetime(TOKEN_LIFETIME);
        let neo4j = Neo4j::builder().basic("neo4j", "verysecret").bearer("demo-sso-token");
        let neon = Neon::builder().key("demo-neon-key");
        Ok(Self { aura: aura.start().await?, neo4j: neo4j.start().await?, neon: neon.start().await? })
    }

    /// The configuration file of the demo, for a listener at `listen`.
    pub fn configuration(&self, listen: &str) -> String {
        let (aura, neo4j, neon) = (self.aura.url(), self.neo4j.url(), self.neon.url());
        format!(
            r#"[server]
listen = "{listen}"

[route.aura]
provider = "aura"
path = "/aura"
upstream = "{aura}"
credential = "aura"

[credential.aura]
type = "aura"
token_url = "{aura}/oauth/token"
client_id = "demo-client"
client_secret = {{ value = "demo-secret" }}

[route.neo4j]
provider = "neo4j"
path = "/neo4j"
host = "neo4j.localhost"
upstream = "{neo4j}"
credential = {{ type = "basic", username = "neo4j", password = {{ value = "verysecret" }} }}

[route.neo4j-sso]
provider = "neo4j"
path = "/neo4j-sso"
host = "neo4j-sso.localhost"
upstream = "{neo4j}"
credential = {{ type = "bearer", token = {{ value = "demo-sso-token" }} }}

[route.neon]
provider = "neon"
path = "/neon"
upstream = "{neon}"
credential = {{ type = "bearer", token = {{ value = "demo-neon-key" }} }}
"#
        )
    }

    /// The stops of the tour, one for each kind of credential.
    pub fn tour(&self) -> [Stop<'_>; 4] {
        let query = Some(r#"{"statement":"RETURN 1 AS n"}"#);
        let (neo4j, path) = (self.neo4j.record(), "/neo4j/db/neo4j/query/v2");
        [
            Stop {
                title: "Aura: a token by client credentials",
                method: "GET",
                path: "/aura/v1/instances",
                body: None,
                record: self.aura.record(),
            },
            Stop {
                title: "Neo4j: user and password (Basic)",
                method: "POST",
                path,
                body: query,
                record: neo4j,
            },
            Stop {
                title: "Neo4j: a single sign-on token (Bearer)",
                method: "POST",
                path: "/neo4j-sso/db/neo4j/query/v2",
                body: query,
                record: neo4j,
            },
            Stop {
                title: "Neon: an API key (Bearer)",
                method: "GET",
                path: "/neon/projects",
                body: None,
                record: self.neon.record(),
            },
        ]
    }
}
