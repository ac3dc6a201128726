//! Harbor's robots.

use serde_json::{Value, json};
use tests::broker::{Broker, SECRET, token};
use tests::services::{HARBOR_LIFE, HARBOR_USER, Harbor};
use tests::wait_for;

const ROBOT: &str = "robot$my-app+redoubt-1";
const PASSWORD: &str = "Robot-secret-of-test-1";
const PROJECTS: [&str; 6] = [
    "my-app",
    "not-mine",
    "down",
    "endless",
    "unknown",
    "my-app/part",
];

/// Harbor, a broker for it, and a token that may ask it for all projects.
struct Shop {
    harbor: Harbor,
    broker: Broker,
    token: String,
}

impl Shop {
    async fn open() -> Shop {
        let harbor = Harbor::start((ROBOT, PASSWORD)).await;
        // A test asks until something holds.
        let rate = [("HOST_PROXY_BROKER__RATE_PER_MINUTE", "100000")];
        Shop {
            broker: Broker::start(&[&harbor.settings()[..], &rate].concat()),
            token: token("ci", &PROJECTS, SECRET),
            harbor,
        }
    }

    fn ask(&self, query: &str) -> (u16, Value) {
        self.broker.ask(query, Some(&self.token))
    }

    /// How many robots were made, and not only listed.
    fn robots(&self) -> usize {
        let made = self.harbor.made.lock().unwrap();
        made.iter()
            .filter(|robot| robot.get("permissions").is_some())
            .count()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
async fn harbor_makes_a_robot_for_one_project() {
    let shop = Shop::open().await;
    let over = |id: u8, name: &str| json!({ "id": id, "name": name, "expires_at": 1_600_000_000 });
    shop.harbor.made.lock().unwrap().extend([
        over(100, "robot$my-app+redoubt-0a"),
        over(101, "robot$my-app+nightly"),
    ]);
    let expires_in = grants_the_robot(&shop);
    ages_in_the_cache_and_is_audited(&shop, expires_in);
    let host = shop.harbor.host();
    let image = format!("?image={host}/my-app/web--x/y:v1&action=pull");
    assert_eq!(shop.ask(&image).1["repository"], "my-app");
    robots_are_few_and_tidied_away(&shop.harbor.made.lock().unwrap());
    a_forgotten_robot_is_made_anew(&shop);
    let before = shop.harbor.made.lock().unwrap().len();
    refusals_become_what_they_are(&shop);
    let after = shop.harbor.made.lock().unwrap().len();
    assert_eq!(after, before, "nothing is left behind");
    a_wrong_password_is_the_operators_matter(&shop);
}

/// Its remaining life, in seconds.
fn grants_the_robot(shop: &Shop) -> u64 {
    let (status, told) = shop.ask("?project=my-app");
    assert_eq!(status, 200, "{told}\n{}", shop.broker.daemon.log());
    let granted = &told["credentials"];
    assert_eq!(granted["registry_url"], shop.harbor.host());
    let login = (&granted["username"], &granted["password"]);
    assert_eq!(login, (&json!(ROBOT), &json!(PASSWORD)));
    let expires_in = granted["expires_in"].as_u64().unwrap();
    assert!(
        (HARBOR_LIFE - 60..=HARBOR_LIFE).contains(&expires_in),
        "{expires_in}"
    );
    expires_in
}

/// It is shorter-lived than when it was made.
fn ages_in_the_cache_and_is_audited(shop: &Shop, expires_in: u64) {
    let mut head = String::new();
    wait_for("the robot to be a second older", 10, || {
        let (new_head, told) = shop.broker.exchange("?project=my-app", Some(&shop.token));
        head = new_head;
        told["credentials"]["expires_in"].as_u64().unwrap() < expires_in
    });
    let mut lines = head.lines();
    let id = lines.find_map(|line| line.strip_prefix("x-request-id: "));
    let log = shop.broker.daemon.log();
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains(id.unwrap())).unwrap();
    for part in [
        "credentials issued",
        "subject=\"ci\"",
        "project=\"my-app\"",
        "action=\"push\"",
        "expires_at=\"20",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

fn robots_are_few_and_tidied_away(made: &[Value]) {
    let granted: Vec<String> = made
        .iter()
        .filter_map(|robot| Some(robot.get("permissions")?[0]["access"].to_string()))
        .collect();
    let pull = json!({ "resource": "repository", "action": "pull" });
    let push = json!({ "resource": "repository", "action": "push" });
    let expected = [json!([pull, push]), json!([pull])].map(|access| access.to_string());
    assert_eq!(granted, expected);
    let ids: Vec<&Value> = made.iter().map(|robot| &robot["id"]).collect();
    let is_tidy = ids.contains(&&json!(101)) && !ids.contains(&&json!(100));
    assert!(is_tidy, "{ids:?}");
}

/// Revoked by hand: a new one is made once somebody says so.
fn a_forgotten_robot_is_made_anew(shop: &Shop) {
    assert_eq!(shop.ask("?project=my-app").0, 200);
    assert_eq!(shop.robots(), 2);
    let forgotten = shop.broker.daemon.ctl(&["registry", "forget"], "");
    assert_eq!(forgotten.code, 0);
    assert_eq!(shop.ask("?project=my-app").0, 200);
    assert_eq!(shop.robots(), 3);
}

fn refusals_become_what_they_are(shop: &Shop) {
    for (project, expected, words) in [
        ("unknown", 404, "project unknown not found"),
        ("my-app/part", 404, "a project is lower-case"),
        ("not-mine", 502, "forbidden"),
        ("down", 503, "internal server error"),
        ("endless", 503, "never expires"),
    ] {
        let (status, told) = shop.ask(&format!("?project={project}"));
        assert_eq!(status, expected, "{project}: {told}");
        assert!(shop.broker.daemon.log().contains(words), "{words}");
        assert!(!told.to_string().contains(words), "{told}");
    }
}

fn a_wrong_password_is_the_operators_matter(shop: &Shop) {
    shop.harbor.set_password("changed");
    assert_eq!(shop.ask("?project=unknown").0, 502);
    let log = shop.broker.daemon.log();
    assert!(log.contains("unauthorized"), "{log}");
    let is_secret = !log.contains(HARBOR_USER.1) && !log.contains("Robot-secret");
    assert!(is_secret, "{log}");
}
