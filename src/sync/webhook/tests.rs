//! Signatures against published vectors, and what each answer of a receiver leads to.

use proptest::prelude::*;

use super::*;
use crate::sync::http::Method;
use crate::sync::http::fake::Scripted;

const BODY: &[u8] = br#"{"added":1}"#;
const TOLERANCE: Duration = Duration::from_secs(300);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn now() -> Timestamp {
    at(1_700_000_000)
}

fn secret() -> Secret {
    Secret::new("whsec").expect("a secret")
}

fn webhook() -> Webhook {
    Webhook::new("https://hooks.example/sync", secret())
}

#[test]
fn hmac_sha256_is_that_of_rfc_4231() {
    let cases: [(Vec<u8>, Vec<u8>, &str); 6] = [
        (
            vec![0x0b; 20],
            b"Hi There".to_vec(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            vec![0xaa; 20],
            vec![0xdd; 50],
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            (1..=25).collect(),
            vec![0xcd; 50],
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            vec![0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than block-size data. \
              The key needs to be hashed before being used by the HMAC algorithm."
                .to_vec(),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ];
    for (key, data, expected) in cases {
        let mac = Secret::new(key).expect("a key").hmac().chain_update(data);
        assert_eq!(HEXLOWER.encode(&mac.finalize().into_bytes()), expected);
    }
}

#[test]
fn a_signature_is_as_documented() {
    // Made with another implementation, over `1700000000.{"added":1}`.
    let expected =
        "t=1700000000,v1=74cacd811aedb3703f14a61e1291ff8870b811f14ea28ff99b430a70bc1b3998";
    assert_eq!(signature(&secret(), now(), BODY), expected);
    let verified = |header: &str, now| verify(&secret(), header, BODY, now, TOLERANCE);
    assert_eq!(verified(expected, now()), Ok(()));
    let rotated = format!("v0=x, {},v1=00", expected.replace("v1=", "v1=11,v1="));
    assert_eq!(verified(&rotated, now()), Ok(()));
}

#[test]
fn a_signature_of_something_else_is_refused() {
    let header = signature(&secret(), now(), BODY);
    let verified = |header: &str, body: &[u8], now| verify(&secret(), header, body, now, TOLERANCE);
    for second in [1_699_999_700, 1_700_000_300] {
        assert_eq!(verified(&header, BODY, at(second)), Ok(()));
    }
    for second in [0, 1_699_999_699, 1_700_000_301] {
        assert_eq!(
            verified(&header, BODY, at(second)),
            Err(VerifyError::OutOfTime)
        );
    }
    assert_eq!(verified(&header, b"{}", now()), Err(VerifyError::Mismatch));
    let later = header.replace("1700000000", "1700000001");
    assert_eq!(verified(&later, BODY, now()), Err(VerifyError::Mismatch));
    let other = Secret::new("other").expect("a secret");
    let by_other = verify(&other, &header, BODY, now(), TOLERANCE);
    assert_eq!(by_other, Err(VerifyError::Mismatch));
    let cut = &header[..header.len() - 2];
    for mismatch in [cut, "t=1700000000", "t=1,v1=", "t=1,v1=zz", "t=x,v1=00"] {
        assert_eq!(
            verified(mismatch, BODY, now()),
            Err(VerifyError::Mismatch),
            "{mismatch}"
        );
    }
    for malformed in ["", "v1=00", "1700000000"] {
        assert_eq!(
            verified(malformed, BODY, now()),
            Err(VerifyError::Malformed)
        );
    }
    assert_eq!(Secret::new("").map(|_| ()), Err(EmptySecret));
    assert!(!format!("{:?}", webhook()).contains("whsec"));
}

#[test]
fn a_delivery_is_one_signed_post() {
    let client = Scripted::new([Ok(HttpResponse::new(204, []))]);
    let webhook = webhook()
        .header("X-Gateway", "g")
        .header(SIGNATURE_HEADER, "forged")
        .timeout(Duration::from_secs(3));
    let delivered = webhook.deliver(&client, &Attempt::first(now()), now(), BODY);
    delivered.expect("delivered");
    let [request] = &client.requests()[..] else {
        panic!("one request");
    };
    assert_eq!(
        (request.method, request.body.as_slice()),
        (Method::Post, BODY)
    );
    assert_eq!(request.timeout, Duration::from_secs(3));
    assert_eq!(
        request.headers.get("content-type"),
        Some("application/json")
    );
    assert_eq!(request.headers.get("x-gateway"), Some("g"));
    let signatures: Vec<_> = request.headers.get_all(SIGNATURE_HEADER).collect();
    assert_eq!(signatures, [signature(&secret(), now(), BODY)]);
}

#[test]
fn an_answer_decides_whether_to_try_again() {
    let first = Attempt::first(now());
    let deliver = |attempt: &Attempt, answer| {
        let client = Scripted::new([answer]);
        let result = webhook().deliver(&client, attempt, now(), BODY);
        result.expect_err("not delivered")
    };
    let status = |status: u16| Ok(HttpResponse::new(status, "because"));
    let later = |seconds: u64| Attempt {
        number: 2,
        not_before: at(1_700_000_000 + seconds),
    };
    for code in [408, 425, 429, 500, 503, 599] {
        let error = deliver(&first, status(code));
        assert!(
            matches!(error, DeliveryError::Retry { next, .. } if next == later(15)),
            "{error}"
        );
    }
    for code in [301, 400, 401, 404, 410] {
        let error = deliver(&first, status(code));
        assert!(matches!(error, DeliveryError::GiveUp { .. }), "{error}");
    }
    for transient in [
        HttpError::Timeout,
        HttpError::transport("reset"),
        HttpError::Cancelled,
    ] {
        let error = deliver(&first, Err(transient));
        assert!(matches!(error, DeliveryError::Retry { .. }), "{error}");
    }
    let error = deliver(&first, Err(HttpError::invalid_request("no URL")));
    assert!(matches!(error, DeliveryError::GiveUp { .. }), "{error}");
    let last = Attempt {
        number: ATTEMPTS,
        ..first
    };
    assert!(matches!(
        deliver(&last, status(503)),
        DeliveryError::GiveUp { .. }
    ));
    for (asked, wait) in [("90", 90), ("3", 15), ("9999999", 6 * 3600)] {
        let answer = Ok(HttpResponse::new(503, []).header("Retry-After", asked));
        let error = deliver(&first, answer);
        assert!(
            matches!(error, DeliveryError::Retry { next, .. } if next == later(wait)),
            "{error}"
        );
    }
}

#[test]
fn the_schedule_spans_half_a_day() {
    let mut attempt = Attempt::first(at(0));
    let mut waits = Vec::new();
    while let Some(next) = webhook().next_attempt(&attempt, attempt.not_before) {
        let wait = next.not_before.as_micros() - attempt.not_before.as_micros();
        waits.push(wait / 1_000_000);
        attempt = next;
    }
    assert_eq!(waits, [15, 60, 240, 960, 3_840, 15_360, 21_600]);
    assert_eq!(attempt.number, 8);
    assert_eq!(
        webhook()
            .attempts(0)
            .next_attempt(&Attempt::first(now()), now()),
        None
    );
}

#[test]
fn an_attempt_is_kept_as_json_and_waits_for_its_time() {
    let attempt = Attempt {
        number: 3,
        not_before: now(),
    };
    let json = serde_json::to_string(&attempt).expect("JSON");
    assert_eq!(json, r#"{"number":3,"not_before":1700000000000000}"#);
    assert_eq!(
        serde_json::from_str::<Attempt>(&json).expect("an attempt"),
        attempt
    );
    assert!(attempt.is_due(now()) && !attempt.is_due(at(1_699_999_999)));
    // The clock was years ahead when the attempt was set.
    assert!(attempt.is_due(at(1_600_000_000)));
}

proptest! {
    #[test]
    fn the_backoff_never_overflows(number: u32, attempts: u32, micros: u64) {
        let now = Timestamp::from_micros(micros);
        let attempt = Attempt { number, not_before: now };
        let next = webhook().attempts(attempts).next_attempt(&attempt, now);
        prop_assert_eq!(next.is_some(), number < attempts);
        prop_assert!(next.is_none_or(|next| next.not_before >= now && next.number > number));
    }
}
