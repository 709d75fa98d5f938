//! Logins of a test: an authorization server, an API that takes its tokens, and a person who consents at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sidekey::clock::Clock;
use sidekey::credential::{LoginCredential, Vault, logins_of};
use sidekey::demo::standins::authorization::Registration;
use sidekey::demo::standins::{AuthorizationServer, Neon};
use sidekey::oauth::authorize::{Attempt, Callback};
use sidekey::oauth::{Granted, OAuthError};
use sidekey::tls::TlsFactory;

use super::running::config;
use super::{Reply, bearer, get};

/// Where the person's browser comes back to; nobody listens there.
pub(crate) const BACK: &str = "http://127.0.0.1:9/callback";

/// An authorization server with a client `app`, and an API that takes its tokens.
pub(crate) struct Lab {
    pub(crate) server: AuthorizationServer,
    pub(crate) neon: Neon,
}

impl Lab {
    /// `lifetime`: how long access tokens live.
    pub(crate) async fn start(lifetime: Duration) -> Self {
        let server = AuthorizationServer::builder()
            .client(Registration::post("app", "s:cret").redirect(BACK))
            .access_lifetime(lifetime)
            .start()
            .await
            .expect("start");
        let neon = Neon::builder().tokens(server.tokens().clone()).start().await.expect("start");
        Self { server, neon }
    }

    /// One route that takes everything. `route`, `credential`: further keys. `rest`: further tables.
    pub(crate) fn text(&self, route: &str, credential: &str, rest: &str) -> String {
        let store = if rest.contains("[store]") { "" } else { "[store]\ntype = \"memory\"" };
        let (issuer, upstream) = (self.server.issuer(), self.neon.url());
        let (auth, token, revoke) =
            (self.server.auth_url(), self.server.token_url(), format!("{}/oauth2/revoke", self.server.url()));
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[route.neon]\nprovider = \"neon\"\npath = \"/\"\n\
             upstream = \"{upstream}\"\ncredential = \"neon\"\n{route}\n[credential.neon]\ntype = \"neon_oauth\"\n\
             issuer = \"{issuer}\"\nauth_url = \"{auth}\"\ntoken_url = \"{token}\"\nrevoke_url = \"{revoke}\"\n\
             client_id = \"app\"\nclient_secret = {{ value = \"s:cret\" }}\nredirect_uri = \"{BACK}\"\n\
             scope = [\"openid\", \"offline_access\"]\n{credential}\n{rest}\n{store}\n"
        )
    }

    /// The only login of such a configuration.
    pub(crate) fn login(&self, text: &str) -> LoginCredential {
        let mut logins = logins_of(&config(text), &TlsFactory::default(), &Clock::system()).expect("a login");
        logins.remove(0)
    }

    /// Somebody consents; what the code is good for.
    pub(crate) async fn consent(
        &self,
        login: &LoginCredential,
        subject: &str,
    ) -> Result<Granted, OAuthError> {
        let attempt = Attempt::new().expect("random bytes");
        let endpoints = login.client.endpoints().await.expect("endpoints");
        let url = attempt.url(&endpoints, &login.config);
        let target = url.strip_prefix(&self.server.url()).expect("a page of the server");
        let reply = get(self.server.addr(), &format!("{target}&login_hint={subject}"), &[]).await;
        let location = reply.header("location").unwrap_or_else(|| panic!("{reply:?}"));
        let query = location.split_once('?').expect("a query").1;
        let back = Callback::parse(query).expect("a redirect back");
        assert_eq!(back.state.as_ref(), Some(&attempt.state));
        let code = back.into_code(&endpoints).expect("a code");
        login.client.exchange(&code, &attempt.verifier).await
    }

    /// Somebody consents, and the vault gets the grant.
    pub(crate) async fn log_in(&self, vault: &Arc<Vault>, login: &LoginCredential, account: &str) {
        let granted = self.consent(login, account).await.expect("a grant");
        vault.log_in(&login.key(account), &granted).await.expect("a store that works");
    }

    /// Whose token the API's last request carried.
    pub(crate) fn last_subject(&self) -> Option<String> {
        let seen = self.neon.record().requests().pop()?;
        let token = seen.header("authorization")?.strip_prefix("Bearer ")?.to_owned();
        self.server.tokens().subject_of(&token)
    }

    /// Does the API take this token?
    pub(crate) async fn takes(&self, token: &str) -> bool {
        get(self.neon.addr(), "/api/v2/projects", &[("authorization", &bearer(token))]).await.status == 200
    }
}

/// A request through sidekey.
pub(crate) async fn ask(sidekey: SocketAddr, account: Option<&str>) -> Reply {
    match account {
        None => get(sidekey, "/projects", &[]).await,
        Some(account) => get(sidekey, "/projects", &[("Sidekey-Account", account)]).await,
    }
}
