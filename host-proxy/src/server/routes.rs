//! Which request goes to which handler; the table is in the module above.

use super::respond::{Answer, no_enclave, shown, text};
use super::{handlers, orders, stream};
use crate::daemon::Daemon;
use crate::enclave::Handle;
use api::ApiError;
use audit::{Actor, AuditAction};
use explain::Code;
use hyper::body::Incoming;
use hyper::{Method, Request};
use std::sync::Arc;

pub(super) async fn dispatch(
    daemon: &Arc<Daemon>,
    request: Request<Incoming>,
    by: Actor,
) -> Answer {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let body = request.into_body();
    match parts.as_slice() {
        ["v1", "enclaves", rest @ ..] => enclaves(daemon, by, (&method, rest), &query, body).await,
        ["healthz"] if method == Method::GET => Ok(text("ok\n")),
        ["metrics"] if method == Method::GET => Ok(handlers::metrics(daemon)),
        ["v1", "doctor"] if method == Method::GET => handlers::doctor(daemon).await,
        ["v1", "registry", "credentials"] if method == Method::DELETE => {
            orders::forget_credentials(daemon, by).await
        }
        ["healthz" | "metrics"] | ["v1", "doctor"] | ["v1", "registry", "credentials"] => {
            Err(wrong_method(&method))
        }
        _ => Err(ApiError::new(Code::NotFound, "no such path")),
    }
}

async fn enclaves(
    daemon: &Arc<Daemon>,
    by: Actor,
    (method, parts): (&Method, &[&str]),
    query: &str,
    body: Incoming,
) -> Answer {
    let find = |name: &str| daemon.find(name).ok_or_else(|| no_enclave(name));
    match (method, parts) {
        (&Method::GET, []) => handlers::list(daemon).await,
        (&Method::POST, []) => handlers::create(daemon, by, body).await,
        (&Method::GET, [name]) => handlers::show(daemon, name).await,
        (&Method::DELETE, [name]) => {
            let who = (AuditAction::Terminate, by);
            let order = |handle: Handle| async move { handle.destroy().await };
            orders::to_enclave(daemon, who, find(name)?, order).await
        }
        (&Method::POST, [name, "redeploy"]) => {
            handlers::redeploy(daemon, by, find(name)?, body).await
        }
        (&Method::POST, [name, "rollback"]) => {
            let who = (AuditAction::Rollback, by);
            let order = |handle: Handle| async move { handle.rollback().await };
            orders::to_enclave(daemon, who, find(name)?, order).await
        }
        (&Method::PUT, [name, "config"]) => {
            handlers::replace_config(daemon, by, find(name)?, body).await
        }
        (&Method::GET, [name, what @ ("events" | "logs" | "attestation")]) => {
            watch(daemon, &find(name)?, what, query).await
        }
        _ => Err(wrong_method(method)),
    }
}

async fn watch(daemon: &Daemon, handle: &Handle, what: &str, query: &str) -> Answer {
    match what {
        "events" => stream::events(daemon, handle, query == "follow").await,
        "logs" => Ok(stream::logs(handle, query == "follow")),
        _ => handlers::attestation(handle, query).await,
    }
}

fn wrong_method(method: &Method) -> ApiError {
    let message = format!("this path does not support {}", shown(method.as_str()));
    ApiError::new(Code::MethodNotAllowed, message)
}
