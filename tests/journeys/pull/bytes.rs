//! Bytes that are cut off, altered, late or too many.

use super::{MANIFEST, Parts, fetch, parts};
use oci::{ContentError, Digest, PullError};
use std::sync::atomic::{AtomicBool, Ordering};
use tests::hostile::{Asked, FakeRegistry, HttpAnswer, answer};

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let image = parts();
    let len = image.layer.len();
    let registry = FakeRegistry::start(move |asked| {
        if !image.is_layer(asked) {
            return image.serve(asked);
        }
        // 30,000 bytes at a time, whatever was asked for.
        let start: usize = asked.range.as_deref().map_or(0, |range| {
            range
                .strip_prefix("bytes=")
                .unwrap()
                .trim_end_matches('-')
                .parse()
                .unwrap()
        });
        let end = (start + 30_000).min(len);
        let range = format!("bytes {start}-{}/{len}", end - 1);
        let status = if start == 0 { 200 } else { 206 };
        answer(
            status,
            &[("content-range", range.as_str())],
            image.layer[start..end].to_vec(),
        )
    })
    .await;
    fetch(&registry, &[]).await.unwrap();
    let ranges: Vec<_> = registry
        .asked()
        .into_iter()
        .filter_map(|asked| asked.range)
        .collect();
    assert_eq!(ranges, ["bytes=30000-", "bytes=60000-", "bytes=90000-"]);
}

#[tokio::test]
async fn a_partial_answer_from_the_wrong_place_is_refused() {
    let image = parts();
    let registry = FakeRegistry::start(move |asked| match (image.is_layer(asked), &asked.range) {
        (true, None) => answer(200, &[], image.layer[..1000].to_vec()),
        (true, Some(_)) => answer(206, &[("content-range", "bytes 5-9/10")], "xxxxx"),
        (false, _) => image.serve(asked),
    })
    .await;
    let error = fetch(&registry, &[]).await.unwrap_err();
    assert!(
        matches!(
            &error,
            PullError::Invalid {
                problem: ContentError::Range { asked: 1000, .. },
                ..
            }
        ),
        "{error}"
    );
}

/// What a registry makes of a good answer.
type Change = fn(&Parts, &Asked, HttpAnswer) -> HttpAnswer;

fn swap_a_byte(parts: &Parts, asked: &Asked, original: HttpAnswer) -> HttpAnswer {
    if !parts.is_layer(asked) {
        return original;
    }
    let mut layer = parts.layer.clone();
    layer[50_000] ^= 1;
    answer(200, &[], layer)
}

fn append_zeros(parts: &Parts, asked: &Asked, original: HttpAnswer) -> HttpAnswer {
    if !parts.is_layer(asked) {
        return original;
    }
    answer(200, &[], [parts.layer.clone(), vec![0; 1_000_000]].concat())
}

fn change_the_config(parts: &Parts, asked: &Asked, original: HttpAnswer) -> HttpAnswer {
    if !asked.path.ends_with(&Digest::of(&parts.config).to_string()) {
        return original;
    }
    let config = String::from_utf8(parts.config.clone()).unwrap();
    answer(200, &[], config.replace("amd64", "amd65"))
}

async fn assert_refused(change: Change, wanted: &str) {
    let image = parts();
    let registry =
        FakeRegistry::start(move |asked| change(&image, asked, image.serve(asked))).await;
    let error = fetch(&registry, &[]).await.unwrap_err().to_string();
    assert!(error.contains(wanted), "{error}");
}

#[tokio::test]
async fn a_layer_with_a_swapped_byte_is_refused() {
    assert_refused(swap_a_byte, "digest").await;
}

#[tokio::test]
async fn a_layer_without_end_is_refused() {
    assert_refused(append_zeros, "longer than").await;
}

#[tokio::test]
async fn an_altered_config_is_refused() {
    assert_refused(change_the_config, "digest").await;
}

#[tokio::test]
async fn a_manifest_without_end_or_of_two_kinds_is_refused() {
    let endless = FakeRegistry::start(|_| {
        answer(
            200,
            &[("content-type", MANIFEST)],
            vec![b' '; 5 * 1024 * 1024],
        )
    })
    .await;
    let error = fetch(&endless, &[]).await.unwrap_err();
    assert!(
        matches!(
            error,
            PullError::TooLong {
                limit: 4_194_304,
                ..
            }
        ),
        "{error}"
    );
    let html = FakeRegistry::start(|_| {
        answer(
            200,
            &[("content-type", "text/html")],
            "<html>log in here</html>",
        )
    })
    .await;
    assert!(matches!(
        fetch(&html, &[]).await.unwrap_err(),
        PullError::Invalid { .. }
    ));
}

#[tokio::test]
async fn waits_when_it_is_told_to_and_tries_again() {
    let image = parts();
    let busy = AtomicBool::new(true);
    let registry = FakeRegistry::start(move |asked| {
        if busy.swap(false, Ordering::Relaxed) {
            answer(429, &[("retry-after", "0")], "slow down")
        } else {
            image.serve(asked)
        }
    })
    .await;
    fetch(&registry, &[]).await.unwrap();
}
