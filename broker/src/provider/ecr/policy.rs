//! What an assumed session may do, and its name.

use super::config::EcrConfig;
use crate::provider::error::ProviderError;
use api::credentials::Action;
use api::credentials::project::{Project, Repository};

/// STS's limit for an inline session policy, in characters (STS API reference, AssumeRole).
const MAX_POLICY: usize = 2048;
/// STS's limit for a session name, in characters; these are `[\w+=,.@-]`.
const MAX_SESSION_NAME: usize = 64;
const PULL: [&str; 2] = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
const PUSH: [&str; 5] = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
];

/// The session policy for one repository (ECR user guide, "Pushing an image", "Repository
/// policies").
pub(super) fn session_policy(
    config: &EcrConfig,
    repository: &Repository,
    action: Action,
) -> Result<String, ProviderError> {
    let actions: Vec<&str> = match action {
        Action::Pull => PULL.to_vec(),
        Action::Push => [PULL.as_slice(), PUSH.as_slice()].concat(),
    };
    let EcrConfig {
        region, account_id, ..
    } = config;
    let (partition, _) = config.partition();
    let arn = format!(
        "arn:{partition}:ecr:{region}:{account_id}:repository/{}",
        repository.as_str()
    );
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*" },
        { "Effect": "Allow", "Action": actions, "Resource": arn },
    ] })
    .to_string();
    if policy.len() > MAX_POLICY {
        return Err(ProviderError::denied(format!(
            "the session policy is longer than {MAX_POLICY} characters"
        )));
    }
    Ok(policy)
}

/// What CloudTrail shows of the session.
pub(super) fn session_name(project: &Project) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "+=,.@-_".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = format!("redoubt-{}", project.as_str())
        .chars()
        .map(allowed)
        .collect();
    name.chars().take(MAX_SESSION_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::config;
    use super::*;

    fn project(name: &str) -> Project {
        Project::parse(name).unwrap()
    }

    #[test]
    fn arns_follow_the_partition() {
        for (region, partition) in [
            ("us-east-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
        ] {
            let config = config(region, false, false);
            let repository = config.repo_prefix.join(&project("my-app")).unwrap();
            let policy = session_policy(&config, &repository, Action::Push).unwrap();
            let arn =
                format!("\"arn:{partition}:ecr:{region}:123456789012:repository/rise/my-app\"");
            assert!(policy.contains(&arn), "{policy}");
        }
    }

    #[test]
    fn a_session_may_push_or_pull_one_repository_and_nothing_else() {
        let config = config("us-east-1", false, false);
        let statements = |action| {
            let repository = config.repo_prefix.join(&project("my-app")).unwrap();
            let policy = session_policy(&config, &repository, action).unwrap();
            serde_json::from_str::<serde_json::Value>(&policy).unwrap()["Statement"].clone()
        };
        let pull = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
        let push = [
            "ecr:BatchCheckLayerAvailability",
            "ecr:InitiateLayerUpload",
            "ecr:UploadLayerPart",
            "ecr:CompleteLayerUpload",
            "ecr:PutImage",
        ];
        for (action, actions) in [
            (Action::Pull, pull.to_vec()),
            (Action::Push, [&pull[..], &push].concat()),
        ] {
            let expected = serde_json::json!([
                { "Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*" },
                { "Effect": "Allow", "Action": actions, "Resource": "arn:aws:ecr:us-east-1:123456789012:repository/rise/my-app" },
            ]);
            assert_eq!(statements(action), expected);
        }
        let endless = EcrConfig {
            region: "r".repeat(MAX_POLICY),
            ..config.clone()
        };
        let repository = config.repo_prefix.join(&project("my-app")).unwrap();
        assert!(matches!(
            session_policy(&endless, &repository, Action::Pull),
            Err(ProviderError::Denied { .. })
        ));
        // The longest name that there is still fits.
        let longest = config.repo_prefix.join(&project(&"a".repeat(251))).unwrap();
        assert!(
            session_policy(&config, &longest, Action::Push)
                .unwrap()
                .len()
                <= MAX_POLICY
        );
    }

    #[test]
    fn session_names_are_what_sts_takes() {
        assert_eq!(session_name(&project("team/my-app")), "redoubt-team-my-app");
        assert_eq!(session_name(&project(&"a".repeat(200))).len(), 64);
    }
}
