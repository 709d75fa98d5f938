//! The token endpoint and the revocation endpoint.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use http::request::Parts;
use http::{Method, Request};
use hyper::body::Incoming;
use serde_json::Value;

use super::super::body;
use super::super::oauth::{self, Fault};
use super::super::serve::{Answer, Exchange};
use super::switches::{Switches, When};
use super::{AuthorizationSite, Refusal};

/// The parameters of a request; an empty one is as good as none (RFC 6749 §3.2).
pub(super) struct Form(HashMap<String, String>);

impl Form {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or(Refusal(400, "invalid_request", "A parameter is missing."))
    }

    fn read(head: &Parts, body: &[u8]) -> Result<Self, Refusal> {
        if head.method != Method::POST || !oauth::is_form(&head.headers) {
            return Err(Refusal(400, "invalid_request", "Use POST with a form."));
        }
        let mut form = HashMap::new();
        for (name, value) in form_urlencoded::parse(body).into_owned() {
            if !value.is_empty() && form.insert(name, value).is_some() {
                return Err(Refusal(400, "invalid_request", "A parameter is there twice."));
            }
        }
        Ok(Self(form))
    }
}

impl AuthorizationSite {
    /// A token request (RFC 6749 §3.2).
    pub(super) async fn token(&self, request: Request<Incoming>, exchange: &Exchange) -> io::Result<Answer> {
        let (head, form) = receive(request, exchange).await?;
        let form = match form {
            Ok(form) => form,
            Err(refusal) => return Ok(refusal.answer()),
        };
        let switches = self.switches.for_token_request();
        let presented = form.get("refresh_token").map(|token| self.grants.present(token, &switches));
        let _under_way = match presented.transpose() {
            Ok(under_way) => under_way.flatten(),
            Err(refusal) => return Ok(refusal.answer()),
        };
        let (when, fault) = &switches.fault;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(switches.delay_before).await;
        if *when == When::Before
            && let Some(answer) = oauth::instead(fault, turn).await?
        {
            return Ok(answer);
        }
        let decided = self.decide(&head, &form, exchange.addr, &switches);
        tokio::time::sleep(switches.delay_after).await;
        if *when == When::After
            && let Some(answer) = oauth::instead(fault, turn).await?
        {
            return Ok(answer);
        }
        Ok(match decided {
            Ok(grant) => oauth::granted(fault, grant),
            Err(refusal) => refusal.answer(),
        })
    }

    fn decide(
        &self,
        head: &Parts,
        form: &Form,
        addr: SocketAddr,
        switches: &Switches,
    ) -> Result<Value, Refusal> {
        let client = self.clients.authenticate(&head.headers, form, addr)?;
        match form.need("grant_type")? {
            "authorization_code" => self.grants.exchange(
                form.need("code")?,
                &client,
                form.need("redirect_uri")?,
                form.need("code_verifier")?,
                switches,
            ),
            "refresh_token" => self.grants.refresh(form.need("refresh_token")?, &client, switches),
            "client_credentials" => Ok(self.grants.for_client(&client, switches)),
            _ => Err(Refusal(400, "unsupported_grant_type", "The grant type is not supported.")),
        }
    }

    /// A revocation request (RFC 7009 §2).
    pub(super) async fn revoke(&self, request: Request<Incoming>, exchange: &Exchange) -> io::Result<Answer> {
        let (head, form) = receive(request, exchange).await?;
        let fault: Fault = self.switches.now().revocation_fault;
        if let Some(answer) = oauth::instead(&fault, self.turn.fetch_add(1, Ordering::Relaxed)).await? {
            return Ok(answer);
        }
        let done = form.and_then(|form| {
            let client = self.clients.authenticate(&head.headers, &form, exchange.addr)?;
            self.grants.revoke(form.need("token")?, &client)
        });
        Ok(match done {
            Ok(()) => Answer::new(body::full("")),
            Err(refusal) => refusal.answer(),
        })
    }
}

async fn receive(
    request: Request<Incoming>,
    exchange: &Exchange,
) -> io::Result<(Parts, Result<Form, Refusal>)> {
    let (head, incoming) = request.into_parts();
    let bytes = body::read(incoming).await?;
    exchange.keep_body(&bytes);
    let form = Form::read(&head, &bytes);
    Ok((head, form))
}
