//! Ways around a rule. None leads out, and none makes a program wait.

use super::{image, said};
use std::sync::atomic::Ordering;
use tests::tcp::outside;

/// What is tried, and in which words of `tries.py`. `A` is the port of the rules, `B` another one
/// that answers outside.
const TRIES: [(&str, &str); 46] = [
    ("a name without a rule", "tcp('evil.test', A)"),
    (
        "a name without a rule, on another port",
        "tcp('evil.test', B)",
    ),
    ("a name on a port without a rule", "tcp('allowed.test', B)"),
    (
        "its address on a port without a rule",
        "tcp(address('allowed.test'), B)",
    ),
    (
        "a name of a wildcard on another port",
        "tcp('a.wild.test', B)",
    ),
    ("the domain of a wildcard", "tcp('wild.test', A)"),
    ("a name that ends like a wildcard's", "tcp('xwild.test', A)"),
    (
        "a name that begins like a rule's",
        "tcp('allowed.test.evil.test', A)",
    ),
    ("a name below a rule's", "tcp('a.allowed.test', A)"),
    ("a name with a last dot", "tcp('evil.test.', A)"),
    ("a name in capitals", "tcp('EVIL.TEST', A)"),
    (
        "a dot inside of a label",
        "question([b'allowed.test', b'wild', b'test'])",
    ),
    (
        "a NUL inside of a label",
        "question([b'evil.test\\0', b'wild', b'test'])",
    ),
    ("a question of text", "question([b'evil', b'test'], 16)"),
    (
        "a question for everything",
        "question([b'evil', b'test'], 255)",
    ),
    ("a zone", "question([b'evil', b'test'], 252)"),
    ("another class", "question([b'allowed', b'test'], 1, 3)"),
    (
        "an address as a name",
        "question([b'127', b'0', b'0', b'1'])",
    ),
    (
        "the name of an address",
        "question([b'1', b'0', b'18', b'198', b'in-addr', b'arpa'], 12)",
    ),
    (
        "a resolver outside",
        "question([b'evil', b'test'], server='8.8.8.8')",
    ),
    ("loopback", "tcp('127.0.0.1', B)"),
    ("loopback, in short", "tcp('127.1', B)"),
    ("loopback of IPv6", "tcp('::1', B)"),
    ("loopback inside of IPv6", "tcp('::ffff:127.0.0.1', B)"),
    ("the unspecified address", "tcp('0.0.0.0', B)"),
    ("the metadata service", "tcp('169.254.169.254', 80)"),
    (
        "the metadata service on the rules' port",
        "tcp('169.254.169.254', A)",
    ),
    ("the metadata service of IPv6", "tcp('fd00:ec2::254', A)"),
    ("a private address", "tcp('192.168.0.1', A)"),
    ("a public address", "tcp('8.8.8.8', A)"),
    ("a public address of IPv6", "tcp('2001:db8::1', A)"),
    ("an address by NAT64", "tcp('64:ff9b::7f00:1', A)"),
    ("a network's address on another port", "tcp('10.9.0.1', B)"),
    ("the address before a network", "tcp('10.8.255.255', A)"),
    ("the address after a network", "tcp('10.10.0.0', A)"),
    (
        "a network's address that the host refuses",
        "tcp('10.9.0.1', A)",
    ),
    ("the agent", "tcp('198.18.0.1', A)"),
    ("the agent of IPv6", "tcp('fd00:18::2', A)"),
    (
        "an address that stands for no name",
        "tcp('198.19.255.255', A)",
    ),
    ("one of IPv6", "tcp('fd00:18:0:1::ffff', A)"),
    ("the link of IPv6", "tcp('fe80::1%eth0', A)"),
    ("everyone on the link", "tcp('255.255.255.255', A)"),
    ("a datagram to a name", "udp('allowed.test', A)"),
    ("a datagram to the agent", "udp('198.18.0.1', 123)"),
    ("a datagram out", "udp('8.8.8.8', 443)"),
    ("an echo", "echo('8.8.8.8')"),
];

/// Each line of output is one try: what the program got, or that it had to wait.
const PROGRAM: &str = r#"
import socket, struct, time

def tcp(host, port):
    with socket.create_connection((host, port), 10) as s:
        s.sendall(b"x")
        return s.recv(100)

def udp(host, port):
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.connect(where)
        s.send(b"x")
        return s.recv(100)

def address(name):
    return socket.gethostbyname(name)

def question(labels, kind=1, klass=1, server="198.18.0.1"):
    name = b"".join(bytes([len(l)]) + l for l in labels) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.connect((server, 53))
        s.send(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", kind, klass))
        answer = s.recv(600)
    _, flags, _, answers, _, _ = struct.unpack("!6H", answer[:12])
    return b"from outside" if answers else b"code %d" % (flags & 15)

def echo(host):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) as s:
        s.settimeout(10)
        s.sendto(struct.pack("!BBHHH", 8, 0, 0xf7fd, 1, 1), (host, 0))
        return b"from outside" if s.recv(100) else b""

def attempt(what, how):
    began = time.monotonic()
    try:
        got = how()
        outcome = "through" if b"from outside" in got else "nothing: %r" % got
    except Exception as error:
        outcome = "refused: %r" % error
    if time.monotonic() - began > 8:
        outcome = "waited for ever: " + outcome
    print(f"{what} = {outcome}", flush=True)
"#;

#[test]
#[cfg_attr(not(programs), ignore = "needs the programs: run scripts/test")]
fn none_of_46_ways_around_a_rule_leads_out() {
    let ((allowed, asked), (forbidden, never)) = (outside(), outside());
    let mut program = format!("{PROGRAM}\nA, B = {allowed}, {forbidden}\n");
    let control = [
        ("a name of a rule", "tcp('allowed.test', A)"),
        ("a name below a wildcard", "tcp('a.wild.test', A)"),
    ];
    for (what, how) in control.iter().chain(&TRIES) {
        program.push_str(&format!("attempt({what:?}, lambda: {how})\n"));
    }
    let image = image(&[("tries.py", &program)], "python3 tries.py");
    let names = [
        "allowed.test",
        "a.allowed.test",
        "allowed.test.evil.test",
        "evil.test",
        "wild.test",
        "a.wild.test",
        "xwild.test",
    ];
    let egress = [
        format!("allowed.test:{allowed}"),
        format!("*.wild.test:{allowed}"),
        format!("10.9.0.0/16:{allowed}"),
    ];
    let said = said(&image, &names, &egress, 180);
    for (what, _) in &control {
        assert!(said.contains(&format!("{what} = through\n")), "{said}");
    }
    for (what, _) in &TRIES {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("{what} = ")));
        let line = line.unwrap_or_else(|| panic!("{what} was not tried:\n{said}"));
        assert!(
            !line.contains(" = through") && !line.contains("waited"),
            "{line}"
        );
    }
    assert_eq!(asked.load(Ordering::Relaxed), control.len());
    assert_eq!(never.load(Ordering::Relaxed), 0);
    assert!(said.contains("enclave-agent: refused: network.egress does not name 'evil.test'"));
}
