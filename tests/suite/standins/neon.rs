//! Neon's keys, cookies, projects and SQL.

use serde_json::json;
use sidekey::demo::standins::Neon;

use crate::support::{get, post};

#[tokio::test]
async fn neon_lets_in_keys_and_also_the_session_cookie_that_it_sets() {
    let neon = Neon::builder().key("napi_key").connection_string("postgres://u:p@h/d").start().await.unwrap();
    let refused = get(neon.addr(), "/api/v2/projects", &[("authorization", "Bearer wrong")]).await;
    assert_eq!(refused.status, 401);
    let error = refused.json();
    assert!(["request_id", "code", "message"].iter().all(|key| error[key].is_string()), "{error}");

    let key = ("authorization", "Bearer napi_key");
    let reply = get(neon.addr(), "/api/v2/projects", &[key]).await;
    assert_eq!((reply.status, reply.json()["projects"].as_array().unwrap().len()), (200, 2));
    let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(cookie, neon.session_cookie());
    let by_cookie = get(neon.addr(), "/api/v2/projects", &[("cookie", &format!("a=b; {cookie}"))]).await;
    assert_eq!(by_cookie.status, 200);

    let project = "/api/v2/projects/quiet-river-12345678";
    assert_eq!(get(neon.addr(), project, &[key]).await.json()["project"]["name"], "Production");
    let renamed = post(neon.addr(), project, &[key], r#"{"project":{"name":"x"}}"#).await;
    assert_eq!((renamed.status, &renamed.json()["project"]["name"]), (200, &json!("x")));
    let branches = format!("{project}/branches");
    assert_eq!(get(neon.addr(), &branches, &[key]).await.json()["branches"][0]["name"], "main");
    assert_eq!(post(neon.addr(), &branches, &[key], "{}").await.status, 201);
    assert_eq!(get(neon.addr(), "/api/v2/projects/none", &[key]).await.status, 404);
    assert_eq!(get(neon.addr(), "/api/v2/echo", &[key]).await.status, 200);

    let query = r#"{"query":"SELECT 1 AS n","params":[]}"#;
    assert_eq!(post(neon.addr(), "/sql", &[], query).await.status, 400);
    let rows = post(neon.addr(), "/sql", &[("neon-connection-string", "postgres://u:p@h/d")], query).await;
    assert_eq!((rows.status, &rows.json()["rowCount"]), (200, &json!(1)));
}
