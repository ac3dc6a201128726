//! What the documents say is held against the programs: samples parse, commands exist, generated
//! pages are current, promises have tests.
//!
//! `REDOUBT_WRITE_DOCS=1 scripts/test house::pages` writes the generated pages again.

use super::{files_below, root};
use attestation::{Conditions, Policy};
use broker::{Broker, BrokerConfig};
use explain::{Class, Code, Exit};
use oci::https::Https;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use tests::programs::ours;
use wire::spec::{ImageDefaults, Spec};

const PROGRAMS: [&str; 5] = [
    "eif-builder",
    "enclavectl",
    "host-proxy",
    "attest",
    "vsock-switch",
];
const WRITE: &str = "REDOUBT_WRITE_DOCS";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A fenced block of a document.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut files = files_below(&root().join("docs"), "md");
    files.push(root().join("README.md"));
    files.iter().flat_map(|path| blocks_of(path)).collect()
}

fn blocks_of(path: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut found: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (number, line) in text.lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(language) if !is_open => {
                let name = path.strip_prefix(root()).unwrap().display();
                let place = format!("{name}:{}", number + 1);
                let language = language.trim().to_owned();
                found.push(Block {
                    place,
                    language,
                    text: String::new(),
                });
                is_open = true;
            }
            Some(_) => is_open = false,
            None if is_open => {
                let block = found.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    found
}

/// Compares a generated page with what is in the repository, or writes it.
fn assert_page(path: &str, text: &str) {
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(root().join(path), text).unwrap();
    }
    let is_current = read(path) == text;
    assert!(
        is_current,
        "{path} is out of date: run {WRITE}=1 scripts/test house::pages"
    );
}

fn parse_sample(text: &str) -> Result<(), String> {
    let name = text
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches('#')
        .trim();
    let error = |e: &dyn std::fmt::Display| e.to_string();
    match name {
        "enclave.toml" => {
            let spec = Spec::parse(text).map_err(|e| error(&e))?;
            spec.resolve(ImageDefaults::any())
                .map(drop)
                .map_err(|e| error(&e))
        }
        "local.toml" => {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("local.toml"), text).unwrap();
            let loaded = host_proxy::config::load(directory.path(), None, std::iter::empty());
            loaded.map(drop).map_err(|e| error(&e))
        }
        "policy.toml" => {
            let conditions: Conditions = toml::from_str(text).map_err(|e| error(&e))?;
            Policy::new(conditions).map(drop).map_err(|e| error(&e))
        }
        "rules.toml" => parse_rules(text),
        other => Err(format!(
            "its first line is '# {other}', which names no parser"
        )),
    }
}

fn parse_rules(text: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("rules.toml"), text).unwrap();
    std::fs::write(path("secret"), "0".repeat(64)).unwrap();
    let config = BrokerConfig {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        audience: "redoubt".to_owned(),
        jwt_secret_file: path("secret"),
        rules_file: path("rules.toml"),
        rate_per_minute: 60,
        ..BrokerConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let checked = runtime.block_on(async {
        let https = Https::new(Path::new("")).unwrap();
        Broker::check(&config, true, &https).await
    });
    checked.map_err(|e| e.to_string())
}

#[test]
fn every_toml_sample_is_what_its_parser_takes() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for Block { place, text, .. } in blocks().iter().filter(|block| block.language == "toml") {
        count += 1;
        if let Err(error) = parse_sample(text) {
            wrong.push(format!("{place}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 10, "only {count} samples were found");
}

#[test]
fn the_configuration_in_the_package_is_what_its_parser_takes() {
    for name in ["default.toml", "local.toml"] {
        let text = read(&format!("host-proxy/debian/{name}"));
        parse_sample(&format!("# local.toml\n{text}")).unwrap();
    }
}

/// The commands of a block, continuations joined.
fn commands(block: &Block) -> Vec<String> {
    let is_console = block.language == "console";
    let text = block.text.replace("\\\n", " ");
    let lines = text.lines().filter_map(|line| {
        let line = line.trim();
        if is_console {
            line.strip_prefix("$ ")
        } else {
            Some(line)
        }
    });
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What a shell would put in place of `$(…)` is any word.
fn without_substitutions(command: &str) -> String {
    let mut text = command.to_owned();
    while let Some(start) = text.find("$(") {
        let Some(len) = text[start..].find(')') else {
            break;
        };
        text.replace_range(start..=start + len, "X");
    }
    text
}

/// The part of a command line that runs one of our programs, without redirections.
fn our_part(command: &str) -> Option<Vec<String>> {
    let command = without_substitutions(command);
    let start = command.split('|').map(str::trim).find(|part| {
        let first = part.trim_start_matches("sudo ").split_whitespace().next();
        first.is_some_and(|name| PROGRAMS.contains(&name))
    })?;
    let mut words = Vec::new();
    for word in start.trim_start_matches("sudo ").split_whitespace() {
        if word.starts_with('#') || word.starts_with('>') || word.starts_with('<') || word == "&" {
            break;
        }
        words.push(word.trim_matches(['"', '\'']).to_owned());
    }
    Some(words)
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn every_command_line_is_one_that_the_programs_know() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for block in blocks()
        .iter()
        .filter(|b| ["console", "sh"].contains(&b.language.as_str()))
    {
        for command in commands(block) {
            let Some(words) = our_part(&command) else {
                continue;
            };
            count += 1;
            // --help ends the parsing before anything is done, and after what stands before it was
            // understood.
            let output = Command::new(ours(&words[0]))
                .args(&words[1..])
                .arg("--help")
                .output();
            let output = output.unwrap();
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                wrong.push(format!("{}: {command}\n  {said}", block.place));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 20, "only {count} commands were found");
}

/// `--help` of a command and, below it, of its subcommands.
fn help(program: &str, path: &[String], page: &mut String) {
    let output = Command::new(ours(program))
        .args(path)
        .arg("--help")
        .env("COLUMNS", "100")
        .env_remove("HOST_PROXY_CONFIG_DIR")
        .env_remove("REDOUBT_SOCKET")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let title = [&[program.to_owned()], path].concat().join(" ");
    let level = "#".repeat(path.len() + 2);
    writeln!(
        page,
        "{level} {title}\n\n```text\n{}\n```\n",
        text.trim_end()
    )
    .unwrap();
    let mut lines = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().unwrap_or_default();
        let is_command = line.starts_with("  ") && !line.starts_with("   ");
        if is_command && name != "help" {
            help(program, &[path, &[name.to_owned()]].concat(), page);
        }
    }
}

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn the_command_line_reference_is_current() {
    let mut page = "# Command lines\n\nThis page is the `--help` of every command. It is generated, and a test compares it with the programs.\n\n".to_owned();
    for program in PROGRAMS {
        help(program, &[], &mut page);
    }
    let text = format!("{}\n", page.trim_end());
    assert_page("docs/reference/cli.md", &text);
}

#[test]
fn the_error_reference_is_current() {
    let mut page = String::from(
        "# Errors\n\nThis page lists every error code, what it means and what to do, and the exit codes of the commands. It is generated, and a \
         test compares it with the code.\n\n## Codes\n\nThe API answers errors as `{\"error\":{\"code\",\"message\",\"next_step\"}}`. \
         A failed enclave has the same three in its record, in `failure`. The message names the culprit; the next step below is the \
         general advice, and an error that knows more gives better.\n\n| Code | Meaning | Next step | HTTP status | Exit code |\n\
         |---|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let exit = code.class().exit().number();
        let (meaning, next) = (code.meaning(), code.next_step());
        writeln!(
            page,
            "| `{code}` | {meaning} | {next} | {} | {exit} |",
            code.http_status()
        )
        .unwrap();
    }
    page.push_str("\nAn error may end a command with another exit code than its code's, where the command knows better whose turn it is.\n");
    page.push_str("\n## Exit codes\n\n| Exit code | Meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        writeln!(page, "| {} | {} |", exit.number(), exit.meaning()).unwrap();
    }
    assert_page("docs/errors.md", &page);
    // Each class of failure has an exit code of its own.
    let classes = [
        Class::Usage,
        Class::Data,
        Class::Unavailable,
        Class::Refused,
        Class::Config,
        Class::Bug,
    ];
    let exits: BTreeSet<u8> = classes.iter().map(|class| class.exit().number()).collect();
    assert_eq!(exits.len(), classes.len());
}

/// Whether a test that is named `crate::module::function` (or `journeys::…`) is where its name
/// says.
fn exists(name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let [home, modules @ .., function] = parts.as_slice() else {
        return false;
    };
    let directory = if *home == "journeys" {
        root().join("tests/journeys")
    } else {
        root().join(home.replace('_', "-")).join("src")
    };
    let module = modules.iter().fold(directory, |path, name| path.join(name));
    let places = [
        module.with_extension("rs"),
        module.join("mod.rs"),
        module.join("tests.rs"),
    ];
    let function = format!("fn {function}(");
    places
        .iter()
        .any(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&function)))
}

#[test]
fn every_promise_names_tests_that_exist() {
    let text = read("SECURITY.md");
    let named: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.contains("::") && !name.contains(['(', ' ', '/']))
        .collect();
    let gone: Vec<&&str> = named.iter().filter(|name| !exists(name)).collect();
    assert!(
        gone.is_empty(),
        "SECURITY.md names tests that are not there: {gone:#?}"
    );
    assert!(named.len() > 40, "only {} tests are named", named.len());
    assert!(!exists("journeys::pull::bytes::no_such_test"));
}

#[test]
fn the_front_door_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 120, "README.md has {lines} lines");
}

#[test]
fn every_dependency_has_its_sentence() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let contributing = read("CONTRIBUTING.md");
    let table: BTreeSet<&str> = contributing
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split([',', '|', ' ', '(', ')', '`']))
        .collect();
    let dependencies = manifest["workspace"]["dependencies"].as_table().unwrap();
    let missing: Vec<&String> = dependencies
        .iter()
        .filter(|(_, value)| value.get("path").is_none())
        .map(|(name, _)| name)
        .filter(|name| !table.contains(name.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "CONTRIBUTING.md says nothing of {missing:?}"
    );
}
