//! Client authentication at the token endpoint (RFC 6749 §2.3, RFC 7523 §2.2): the configured method, never another
//! one in its place.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::byte_serialize;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::assertion;
use super::error::OAuthError;
use crate::clock::Clock;
use crate::config::{ApiClient, AuthMethod, BasicEncoding, Endpoint};
use crate::header::{AuthHeader, IllegalCharacter};
use crate::secret::reader::SecretReader;
use crate::secret::{Secret, SecretSource};

/// `client_assertion_type` of a JWT (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client, and how it shows who it is.
#[derive(Debug)]
pub(super) struct ClientAuthentication {
    pub(super) client: Arc<ApiClient>,
    pub(super) method: AuthMethod,
    pub(super) encoding: BasicEncoding,
}

/// What shows, within one request, who the client is. Without `Debug`: it is all secret.
#[derive(Default)]
pub(super) struct Proof {
    /// For the Authorization header.
    pub(super) authorization: Option<HeaderValue>,
    /// For the form.
    pub(super) fields: Vec<(&'static str, Secret)>,
    /// The secrets in it, in every form in which they travel.
    pub(super) secrets: Vec<Secret>,
}

impl ClientAuthentication {
    /// A proof for one request. `audience`: the token endpoint, whatever endpoint is asked (RFC 7523 §3).
    pub(super) async fn prove(
        &self,
        audience: &Endpoint,
        reader: &SecretReader,
        clock: &Clock,
    ) -> Result<Proof, OAuthError> {
        let id = &self.client.client_id;
        match self.method {
            AuthMethod::Basic => Ok(basic(id, &self.read(reader).await?, self.encoding)?),
            AuthMethod::Post => Ok(post(id, &self.read(reader).await?)),
            AuthMethod::None => {
                Ok(Proof { fields: vec![("client_id", Secret::new(id))], ..Proof::default() })
            }
            AuthMethod::PrivateKeyJwt => {
                let key = self.client.signing_key.as_ref();
                let key =
                    key.ok_or(OAuthError::Setup("auth_method = \"private_key_jwt\" needs private_key"))?;
                let pem = reader.read_text(&key.key).await?;
                let audience = audience.to_string();
                let assertion =
                    assertion::sign(id, &audience, &pem, key.id.as_deref(), key.algorithm, clock.wall())?;
                Ok(signed(id, assertion))
            }
        }
    }

    async fn read(&self, reader: &SecretReader) -> Result<Secret, OAuthError> {
        let source = self.client.client_secret.as_ref();
        let source = source.ok_or(OAuthError::Setup("this auth_method needs a client_secret"))?;
        Ok(reader.read(source).await?)
    }

    /// Where the secret is that a proof needs.
    pub(super) fn secret(&self) -> Option<&SecretSource> {
        match self.method {
            AuthMethod::Basic | AuthMethod::Post => self.client.client_secret.as_ref(),
            AuthMethod::PrivateKeyJwt => self.client.signing_key.as_ref().map(|key| &key.key),
            AuthMethod::None => None,
        }
    }

    /// Files that hold it.
    pub(super) fn watched_files(&self) -> Vec<PathBuf> {
        self.secret().and_then(SecretSource::file).map(ToOwned::to_owned).into_iter().collect()
    }
}

fn basic(id: &str, secret: &Secret, encoding: BasicEncoding) -> Result<Proof, IllegalCharacter> {
    let header = match encoding {
        BasicEncoding::Raw => AuthHeader::basic(id, secret)?,
        BasicEncoding::Form => AuthHeader::basic(encoded(id).expose(), &encoded(secret.expose()))?,
    };
    Ok(Proof { authorization: Some(header.value().clone()), secrets: forms(id, secret), ..Proof::default() })
}

fn post(id: &str, secret: &Secret) -> Proof {
    let fields = vec![("client_id", Secret::new(id)), ("client_secret", secret.clone())];
    Proof { fields, secrets: forms(id, secret), ..Proof::default() }
}

fn signed(id: &str, assertion: Secret) -> Proof {
    // A server may repeat the signature alone; the rest of an assertion is worth nothing.
    let signature = assertion.expose().rsplit('.').next().map(Secret::new);
    let secrets = signature.into_iter().chain([assertion.clone()]).collect();
    let fields = vec![
        // Optional by RFC 7521 §4.2, and asked for by some servers.
        ("client_id", Secret::new(id)),
        ("client_assertion_type", Secret::new(JWT_BEARER)),
        ("client_assertion", assertion),
    ];
    Proof { fields, secrets, ..Proof::default() }
}

/// The forms in which a client's secret travels, or comes back: within Basic, form-encoded, and as it is.
fn forms(id: &str, secret: &Secret) -> Vec<Secret> {
    let basic = |id: &str, secret: &Secret| {
        let plain = Zeroizing::new(format!("{id}:{}", secret.expose()));
        Secret::new(STANDARD.encode(plain.as_bytes()))
    };
    let mut forms = vec![basic(id, secret), basic(encoded(id).expose(), &encoded(secret.expose()))];
    forms.extend(plain_forms(secret));
    forms
}

/// The forms in which a secret of the form's fields travels, or comes back.
pub(super) fn plain_forms(secret: &Secret) -> [Secret; 3] {
    let form = encoded(secret.expose());
    let lower = Secret::new(form.expose().to_ascii_lowercase());
    [form, lower, secret.clone()]
}

/// As in a form (`application/x-www-form-urlencoded`).
fn encoded(text: &str) -> Secret {
    Secret::new(byte_serialize(text.as_bytes()).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authentication(
        method: AuthMethod,
        encoding: BasicEncoding,
        secret: Option<&str>,
    ) -> ClientAuthentication {
        let client = ApiClient {
            name: "c".into(),
            client_id: "id with space".into(),
            client_secret: secret.map(|text| SecretSource::Value(Secret::new(text))),
            signing_key: None,
        };
        ClientAuthentication { client: client.into(), method, encoding }
    }

    async fn proof(authentication: &ClientAuthentication) -> Result<Proof, OAuthError> {
        let origin = crate::config::Upstream {
            tls: false,
            host: "127.0.0.1".into(),
            port: 1,
            base_path: String::new(),
            host_header: HeaderValue::from_static("127.0.0.1:1"),
            via: None,
            allow_link_local: false,
        };
        let endpoint = Endpoint { origin, path_and_query: "/token".into() };
        authentication.prove(&endpoint, &SecretReader::new([]), &Clock::system()).await
    }

    #[tokio::test]
    async fn client_authentication_follows_the_rfc_and_the_provider() {
        use AuthMethod::{Basic, None as Nothing, Post};
        use BasicEncoding::{Form, Raw};
        type Case =
            (AuthMethod, BasicEncoding, Option<&'static str>, &'static [(&'static str, &'static str)]);
        let cases: [Case; 4] = [
            (Basic, Raw, Some("id with space:s:e%c+r£t"), &[]),
            (Basic, Form, Some("id+with+space:s%3Ae%25c%2Br%C2%A3t"), &[]),
            (Post, Form, None, &[("client_id", "id with space"), ("client_secret", "s:e%c+r£t")]),
            (Nothing, Form, None, &[("client_id", "id with space")]),
        ];
        for (method, encoding, header, fields) in cases {
            let proof = proof(&authentication(method, encoding, Some("s:e%c+r£t"))).await.ok().unwrap();
            let plain = proof.authorization.map(|value| {
                assert!(value.is_sensitive());
                let text = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
                String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
            });
            assert_eq!(plain.as_deref(), header, "{method:?} {encoding:?}");
            let got: Vec<_> = proof.fields.iter().map(|(name, value)| (*name, value.expose())).collect();
            assert_eq!(got, fields, "{method:?} {encoding:?}");
        }
    }

    #[tokio::test]
    async fn no_method_stands_in_for_another_that_lacks_its_secret() {
        for method in [AuthMethod::Basic, AuthMethod::Post, AuthMethod::PrivateKeyJwt] {
            let error = proof(&authentication(method, BasicEncoding::Form, None)).await.err().unwrap();
            assert!(matches!(error, OAuthError::Setup(_)), "{method:?}: {error}");
        }
    }

    #[test]
    fn every_form_in_which_a_secret_travels_is_known() {
        let secret = Secret::new("s/+=");
        let known = forms("id", &secret);
        for form in ["s/+=", "s%2F%2B%3D", "s%2f%2b%3d", "aWQ6cy8rPQ==", "aWQ6cyUyRiUyQiUzRA=="] {
            assert!(known.iter().any(|secret| secret.expose() == form), "{form}");
        }
    }

    #[test]
    fn only_what_the_method_needs_is_watched() {
        let mut of_file = authentication(AuthMethod::Basic, BasicEncoding::Form, None);
        Arc::make_mut(&mut of_file.client).client_secret = Some(SecretSource::File("/secret".into()));
        assert_eq!(of_file.watched_files(), [PathBuf::from("/secret")]);
        of_file.method = AuthMethod::None;
        assert!(of_file.watched_files().is_empty());
    }
}
