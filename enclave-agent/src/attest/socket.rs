//! For the workload, on [`AttestationRules::SOCKET`]: documents with what it likes in them, and
//! registers to extend, for the users and registers of the measured spec.
//!
//! | request | answer |
//! |---|---|
//! | `GET /attestation?nonce=HEX&public_key=HEX&user_data=HEX` | a document |
//! | `POST /pcr/N?data=HEX` | what the register became, in hexadecimal |
//! | `POST /pcr/N/lock` | the register is in documents from now on, and cannot change any more |
//!
//! The kernel says which user has connected, by the agent's numbers (unix(7), SO_PEERCRED).

use super::http::{self, Response, text};
use super::query::{self, QueryError};
use crate::boundary::Users;
use crate::error::BootError;
use crate::listen;
use crate::mounts::{Mount, ROOT, SAFE};
use crate::nsm::{AskError, Question, Requester};
use crate::rootfs::is_below_root;
use crate::workload;
use attestation::Origin;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use wire::control::AbortReason;
use wire::spec::AttestationRules;

/// At a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Of users whom the spec does not name: they are told so, and keep no one out.
const MAX_STRANGERS: usize = 8;
/// What the NSM takes, in bytes.
const MAX_PUBLIC_KEY: usize = 1024;
/// To extend with, in bytes: a SHA-512 at least, and whatever is short.
const MAX_DATA: usize = 512;

/// The directory is the agent's: a mount that the workload can neither write to nor take away.
const DIRECTORY: Mount = Mount {
    kind: "tmpfs",
    target: "/run/redoubt",
    flags: SAFE,
    options: "mode=0755,size=4k,nr_inodes=8",
    optional: false,
};

#[derive(Debug)]
struct Rules {
    /// By the agent's numbers.
    users: Vec<u32>,
    extend: Vec<u8>,
}

/// Listens in the image's root, in the background, if the spec names users. The root must be
/// mounted. Must be called within the async runtime.
pub(crate) fn serve(
    rules: &AttestationRules,
    users: &Users,
    nsm: Requester,
) -> Result<(), BootError> {
    if rules.users.is_empty() {
        return Ok(());
    }
    let numbers = rules.users.iter().map(|name| {
        let user = workload::user(name)?;
        Ok::<_, BootError>(users.outside(user.uid))
    });
    let rules = Arc::new(Rules {
        users: numbers.collect::<Result<_, _>>()?,
        extend: rules.extend.clone(),
    });
    let listener = listener(users).map_err(BootError::of(
        AbortReason::RootFs,
        "cannot listen for the workload's requests for attestation",
    ))?;
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    listen::spawn(listener, MAX_CONNECTIONS, move |stream| {
        let (rules, nsm, strangers) = (rules.clone(), nsm.clone(), strangers.clone());
        async move {
            if rules.admit(&stream) {
                http::serve(stream, |request| answer(&rules, &nsm, request)).await;
            } else if let Ok(_place) = strangers.try_acquire() {
                http::serve(stream, |_| async { forbidden() }).await;
            }
        }
    });
    Ok(())
}

fn listener(users: &Users) -> io::Result<UnixListener> {
    if !is_below_root(Path::new(DIRECTORY.target)) {
        let detail = "the image's /run/redoubt is or is below a symbolic link";
        return Err(io::Error::other(detail));
    }
    let run = Path::new(ROOT).join("run");
    if !run.exists() {
        fs::create_dir(&run)?;
        users.give_to_root(&run)?;
    }
    DIRECTORY.mount_below(ROOT)?;
    let path = PathBuf::from(format!("{ROOT}{}", AttestationRules::SOCKET));
    let listener = UnixListener::bind(&path)?;
    // Who it is decides, and not the file's mode, so that a refusal can say why.
    fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

impl Rules {
    fn admit(&self, stream: &UnixStream) -> bool {
        let peer = stream.peer_cred();
        peer.is_ok_and(|peer| self.users.contains(&peer.uid()))
    }
}

fn forbidden() -> Response {
    let reason = "this user is not in [attestation] users of the spec\n";
    text(StatusCode::FORBIDDEN, reason)
}

async fn answer(rules: &Rules, nsm: &Requester, request: Request<Incoming>) -> Response {
    match Wish::of(rules, &request) {
        Ok(Wish::Attest(question)) => http::document(nsm.attest(question).await),
        Ok(Wish::Extend { register, data }) => {
            done(nsm.extend(register, data).await.map(hex::encode))
        }
        Ok(Wish::Lock { register }) => {
            let locked = format!("PCR{register} is locked");
            done(nsm.lock(register).await.map(|()| locked))
        }
        Err(refusal) => text(refusal.status(), format!("{refusal}\n")),
    }
}

fn done(asked: Result<String, AskError>) -> Response {
    match asked {
        Ok(line) => text(StatusCode::OK, format!("{line}\n")),
        Err(error) => http::refusal(&error),
    }
}

/// What a request asks for, within the rules.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Attest(Question),
    Extend { register: u8, data: Vec<u8> },
    Lock { register: u8 },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Query(#[from] QueryError),
    #[error("give data=HEX to extend the register with")]
    NoData,
    #[error("PCR{0} is not in [attestation] extend of the spec")]
    Register(u8),
    #[error("use {0}")]
    Method(Method),
    #[error("not found; there are GET /attestation, POST /pcr/N?data=HEX and POST /pcr/N/lock")]
    Path,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Query(_) | Refusal::NoData => StatusCode::BAD_REQUEST,
            Refusal::Register(_) => StatusCode::FORBIDDEN,
            Refusal::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Path => StatusCode::NOT_FOUND,
        }
    }
}

impl Wish {
    fn of<B>(rules: &Rules, request: &Request<B>) -> Result<Wish, Refusal> {
        let (path, query) = (request.uri().path(), request.uri().query());
        let only = |method: Method| {
            if request.method() == method {
                Ok(())
            } else {
                Err(Refusal::Method(method))
            }
        };
        if path == "/attestation" {
            only(Method::GET)?;
            return Ok(Wish::Attest(question(query)?));
        }
        let (register, locks) = register(path).ok_or(Refusal::Path)?;
        only(Method::POST)?;
        if !rules.extend.contains(&register) {
            return Err(Refusal::Register(register));
        }
        if locks {
            let [] = query::parse(query, [])?;
            return Ok(Wish::Lock { register });
        }
        let [data] = query::parse(query, [("data", MAX_DATA)])?;
        let data = data
            .filter(|data| !data.is_empty())
            .ok_or(Refusal::NoData)?;
        Ok(Wish::Extend { register, data })
    }
}

fn question(query: Option<&str>) -> Result<Question, QueryError> {
    let parameters = [
        ("nonce", wire::MAX_NONCE),
        ("public_key", MAX_PUBLIC_KEY),
        ("user_data", Origin::MAX_USER_DATA),
    ];
    let [nonce, public_key, user_data] = query::parse(query, parameters)?;
    Ok(Question {
        nonce,
        public_key,
        user_data: user_data.unwrap_or_default(),
    })
}

/// `/pcr/N` or `/pcr/N/lock`.
fn register(path: &str) -> Option<(u8, bool)> {
    let rest = path.strip_prefix("/pcr/")?;
    let (digits, locks) = match rest.strip_suffix("/lock") {
        Some(digits) => (digits, true),
        None => (rest, false),
    };
    let register: u8 = digits.parse().ok()?;
    // One name a register: no sign, no zeros in front.
    (register.to_string() == digits).then_some((register, locks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(method: Method, uri: &str) -> Result<Wish, Refusal> {
        let rules = Rules {
            users: vec![],
            extend: vec![17, 20],
        };
        let request = Request::builder().method(method).uri(uri);
        Wish::of(&rules, &request.body(()).unwrap())
    }

    #[test]
    fn a_document_carries_what_is_asked_for() {
        let all = "/attestation?public_key=02&nonce=01&user_data=03";
        let question = Question {
            nonce: Some(vec![1]),
            public_key: Some(vec![2]),
            user_data: vec![3],
        };
        assert_eq!(wish(Method::GET, all), Ok(Wish::Attest(question)));
        let nothing = Wish::Attest(Question::default());
        assert_eq!(wish(Method::GET, "/attestation"), Ok(nothing));
    }

    #[test]
    fn fields_are_no_longer_than_the_nsm_takes() {
        for (name, limit) in [("nonce", 1024), ("public_key", 1024), ("user_data", 1005)] {
            let uri = |len| format!("/attestation?{name}={}", "00".repeat(len));
            assert!(wish(Method::GET, &uri(limit)).is_ok(), "{name}");
            let too_long = QueryError::TooLong { name, limit };
            let refused = Err(Refusal::Query(too_long));
            assert_eq!(wish(Method::GET, &uri(limit + 1)), refused);
        }
    }

    #[test]
    fn registers_of_the_rules_are_extended_and_locked_and_no_others() {
        let extend = Wish::Extend {
            register: 17,
            data: vec![1, 2],
        };
        assert_eq!(wish(Method::POST, "/pcr/17?data=0102"), Ok(extend));
        let lock = Wish::Lock { register: 20 };
        assert_eq!(wish(Method::POST, "/pcr/20/lock"), Ok(lock));
        for register in [0, 16, 18, 255] {
            let refused = Err(Refusal::Register(register));
            let uri = format!("/pcr/{register}?data=00");
            assert_eq!(wish(Method::POST, &uri), refused);
            let uri = format!("/pcr/{register}/lock");
            assert_eq!(wish(Method::POST, &uri), refused);
        }
        let refusals = [
            (Method::POST, "/pcr/17", Refusal::NoData),
            (Method::POST, "/pcr/17?data=", Refusal::NoData),
            (
                Method::GET,
                "/pcr/17?data=00",
                Refusal::Method(Method::POST),
            ),
            (Method::POST, "/attestation", Refusal::Method(Method::GET)),
            (Method::POST, "/pcr/+17?data=00", Refusal::Path),
            (Method::POST, "/pcr/017?data=00", Refusal::Path),
            (Method::POST, "/pcr/256/lock", Refusal::Path),
            (Method::POST, "/pcr/17/unlock", Refusal::Path),
            (Method::GET, "/healthz", Refusal::Path),
        ];
        for (method, uri, refusal) in refusals {
            assert_eq!(wish(method, uri), Err(refusal), "{uri}");
        }
    }
}
