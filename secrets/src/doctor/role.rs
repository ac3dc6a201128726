//! Whether the role that signs enclaves' requests can be assumed.

use super::access::{Access, access, transport};
use api::Finding;
use aws_config::SdkConfig;

const WHAT: &str = "role for enclaves";
/// The session of this check may do nothing.
const NOTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}"#;

/// Assumes the role as for a launch, for a session without rights, and drops it.
pub(super) async fn assume(shared: &SdkConfig, role: &str) -> Access {
    let client = aws_sdk_sts::Client::new(shared);
    let asked = client
        .assume_role()
        .role_arn(role)
        .role_session_name("redoubt-doctor")
        .duration_seconds(900)
        .policy(NOTHING);
    match asked.send().await {
        Ok(_) => Access::Granted(String::new()),
        Err(error) => access(&error, &[]),
    }
}

pub(super) fn of_role(found: &Access, role: &str) -> Finding {
    match found {
        Access::Granted(_) => Finding::passed(WHAT, format!("{role} may be assumed")),
        Access::Denied(reason) | Access::Refused(reason) => Finding::wrong(
            WHAT,
            format!("{role} cannot be assumed: {reason}"),
            "Allow the daemon's role sts:AssumeRole on it, and name the daemon's role in its trust policy.",
        ),
        other => transport(WHAT, other),
    }
}
