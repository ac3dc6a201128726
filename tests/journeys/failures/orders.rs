//! Orders that make no sense are refused before anything is stored.

use super::scene;
use tests::daemon::Daemon;
use tests::registry::USER;

/// A `create` that is refused with exit code 64.
struct Refused<'a> {
    arguments: Vec<&'a str>,
    text: &'a str,
}

fn refused<'a>(reference: &'a str) -> [Refused<'a>; 6] {
    let app = |more: &[&'a str]| [&["--name", "app", "--image", reference], more].concat();
    let credentials = ["--registry-username", USER, "--registry-password-stdin"];
    let case = |arguments: Vec<&'a str>, text| Refused { arguments, text };
    [
        case(
            vec!["--name", "a b", "--image", reference],
            "a name is 1 to 63",
        ),
        case(
            vec!["--name", "app", "--image", "UPPER/x"],
            "is not an image reference",
        ),
        case(
            app(&[&["--registry-url", "ghcr.io"], &credentials[..]].concat()),
            "the credentials are for ghcr.io",
        ),
        case(
            app(&["--provider", "firecracker"]),
            "invalid value 'firecracker'",
        ),
        case(vec!["--image", reference], "--name is missing"),
        case(
            app(&["--source-type", "private-registry"]),
            "--registry-username is missing",
        ),
    ]
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn orders_that_make_no_sense_are_refused_before_anything_is_stored() {
    let scene = scene();
    let daemon = scene.start(&[]);
    for Refused { arguments, text } in refused(&scene.reference) {
        let answer = daemon.ctl(&[&["create"], &arguments[..]].concat(), "pw");
        assert_eq!(answer.code, 64, "{answer:?}");
        assert!(
            answer.stderr.contains(text),
            "'{text}' is not in {}",
            answer.stderr
        );
    }
    assert!(daemon.ctl(&["list"], "").stdout.contains("no enclaves"));
    assert_eq!(daemon.ctl(&["show", "app"], "").code, 77);
    assert_eq!(daemon.ctl(&["show", "../../healthz"], "").code, 64);
    password_on_the_command_line_works_with_a_warning(&daemon, &scene.reference);
    let same_name = ["create", "--name", "app", "--image", &scene.reference];
    let taken = daemon.ctl(&same_name, "");
    assert!(
        taken.code == 77 && taken.stderr.contains("exists already"),
        "{taken:?}"
    );
}

fn password_on_the_command_line_works_with_a_warning(daemon: &Daemon, reference: &str) {
    let image = ["create", "--name", "app", "--image", reference, "--no-wait"];
    let credentials = ["--registry-username", USER, "--registry-password", "x"];
    let answer = daemon.ctl(&[&image[..], &credentials].concat(), "");
    let warning = "warning: a password on the command line";
    assert!(answer.stderr.contains(warning), "{}", answer.stderr);
}
