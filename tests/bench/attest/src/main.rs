//! Verified documents per second, one thread: ours cold, ours with remembered CA links, and
//! attestation-doc-validation. Prints one line of JSON. The peer asks the system's clock, so
//! `scripts/bench` runs this under faketime at the document's time.

use attestation::{Conditions, Pcr, Policy, Time, TrustAnchor, Verifier, verify};
use attestation_doc_validation::validate_and_parse_attestation_doc;
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(500);

/// Runs `work` for one round; in runs per second.
fn rate(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut runs = 0.0;
    while start.elapsed() < ROUND {
        work();
        runs += 1.0;
    }
    runs / start.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() {
    let path = std::env::args().nth(1).expect("the path of a document");
    let document = std::fs::read(&path).expect("a document");
    let theirs = validate_and_parse_attestation_doc(&document).expect("the peer accepts it");
    let pcr0 = Pcr::try_from(theirs.pcrs[&0].as_slice()).expect("48 bytes");
    let conditions = Conditions {
        pcrs: [(0, [pcr0].into())].into(),
        ..Conditions::default()
    };
    let policy = Policy::new(conditions).expect("a policy");
    let now = || Time::from(SystemTime::now());
    let (anchor, verifier) = (TrustAnchor::aws(), Verifier::new(TrustAnchor::aws()));

    let (mut cold, mut cached, mut peer) = (vec![], vec![], vec![]);
    // In turns, so that a busy machine slows all of them down alike.
    for _ in 0..ROUNDS {
        peer.push(rate(|| {
            drop(black_box(
                validate_and_parse_attestation_doc(&document).expect("accepted"),
            ))
        }));
        cold.push(rate(|| {
            drop(black_box(
                verify(&document, &anchor, now(), &policy).expect("trusted"),
            ))
        }));
        cached.push(rate(|| {
            drop(black_box(
                verifier.verify(&document, now(), &policy).expect("trusted"),
            ))
        }));
    }
    let (cold, cached, peer) = (median(cold), median(cached), median(peer));
    println!(
        "{{\"cold\": {cold:.0}, \"cached\": {cached:.0}, \"peer\": {peer:.0}, \"cold_ratio\": {:.2}, \"cached_ratio\": {:.2}}}",
        cold / peer,
        cached / peer
    );
}
