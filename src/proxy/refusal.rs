//! Does an upstream's answer refuse the token, and how surely? Pure.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};

use crate::credential::Certainty;

/// How surely an answer refuses the token; none: it does not.
///
/// `statuses` are those that may mean it on this route. What a `Bearer` challenge says of itself counts more
/// (RFC 6750 §3.1): `insufficient_scope` and `invalid_request` are never about the token, `invalid_token` always is.
pub fn of(status: StatusCode, headers: &HeaderMap, statuses: &[u16]) -> Option<Certainty> {
    if !status.is_client_error() {
        return None;
    }
    match bearer_error(headers) {
        Some("invalid_token") => return Some(Certainty::Definite),
        Some("insufficient_scope" | "invalid_request") => return None,
        _ => {}
    }
    if !statuses.contains(&status.as_u16()) {
        return None;
    }
    Some(if status == StatusCode::UNAUTHORIZED { Certainty::Likely } else { Certainty::Possible })
}

/// The `error` of the first Bearer challenge that has one.
fn bearer_error(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).find_map(|challenges| {
        let at = find_scheme(challenges, "bearer")?;
        let rest = &challenges[at + "bearer".len()..];
        rest.split(',').find_map(|parameter| {
            // The first parameter follows the scheme; a word before a name begins the next challenge's.
            let (name, value) = parameter.split_once('=')?;
            let name = name.trim().rsplit(' ').next()?;
            name.eq_ignore_ascii_case("error").then(|| value.trim().trim_matches('"'))
        })
    })
}

fn find_scheme(challenges: &str, scheme: &str) -> Option<usize> {
    let lower = challenges.to_ascii_lowercase();
    lower.match_indices(scheme).map(|(at, _)| at).find(|at| {
        let before = lower[..*at].trim_end().chars().next_back();
        let after = lower[at + scheme.len()..].chars().next();
        before.is_none_or(|c| c == ',') && after.is_none_or(|c| c == ' ' || c == ',')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_challenge_says_counts_more_than_the_status() {
        use Certainty::{Definite, Likely, Possible};
        let (aura, neon): (&'static [u16], &'static [u16]) = (&[401, 403], &[401]);
        type Case = (u16, &'static [&'static str], &'static [u16], Option<Certainty>);
        let cases: [Case; 16] = [
            (401, &[], neon, Some(Likely)),
            (403, &[], neon, None),
            (403, &[], aura, Some(Possible)),
            (400, &[], aura, None),
            (200, &["Bearer error=\"invalid_token\""], aura, None),
            (401, &["Bearer error=\"invalid_token\""], neon, Some(Definite)),
            (
                403,
                &["Bearer realm=\"x\", error=\"invalid_token\", error_description=\"a, b\""],
                neon,
                Some(Definite),
            ),
            (403, &["Bearer error=\"insufficient_scope\", scope=\"a\""], aura, None),
            (401, &["bearer error=insufficient_scope"], neon, None),
            (401, &["Bearer error = \"invalid_request\""], neon, None),
            (401, &["Basic realm=\"Neo4j\", Bearer realm=\"Neo4j\""], neon, Some(Likely)),
            (401, &["Basic realm=\"x\"", "Bearer error=\"insufficient_scope\""], neon, None),
            (401, &["Basic realm=\"error=\", Bearer error=\"invalid_token\""], neon, Some(Definite)),
            (401, &["MyBearer error=\"insufficient_scope\""], neon, Some(Likely)),
            (401, &["Bearer"], neon, Some(Likely)),
            (401, &["Bearer error_description=\"insufficient_scope\""], neon, Some(Likely)),
        ];
        for (status, challenges, statuses, want) in cases {
            let mut headers = HeaderMap::new();
            for challenge in challenges {
                headers.append(WWW_AUTHENTICATE, challenge.parse().unwrap());
            }
            let got = of(StatusCode::from_u16(status).unwrap(), &headers, statuses);
            assert_eq!(got, want, "{status} {challenges:?}");
        }
    }

    mod properties {
        use http::HeaderValue;
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn whatever_the_challenge_says_the_verdict_follows_the_rules(
                status in 100u16..=599,
                challenge in "([Bb]earer|Basic|x)?[ ,=\"a-z]{0,30}(error=\"?(invalid_token|insufficient_scope|x)\"?)?.{0,10}",
                statuses in proptest::collection::vec(400u16..=499, 0..4),
            ) {
                let mut headers = HeaderMap::new();
                if let Ok(value) = HeaderValue::from_bytes(challenge.as_bytes()) {
                    headers.append(WWW_AUTHENTICATE, value);
                }
                let got = of(StatusCode::from_u16(status).unwrap(), &headers, &statuses);
                if !(400..500).contains(&status) {
                    prop_assert_eq!(got, None);
                }
                match got {
                    Some(Certainty::Definite) => prop_assert!(challenge.contains("invalid_token")),
                    Some(_) => prop_assert!(statuses.contains(&status)),
                    None => {}
                }
            }
        }
    }
}
