//! Drives every fuzz target with a few thousand inputs from a seed, and with the corpus: a check
//! that the targets work and that nothing obvious is wrong, on stable and without a fuzzer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, longest: u64) -> Vec<u8> {
        let len = self.next() % (longest + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn drive(name: &str, target: fn(&[u8]), inputs: u64, longest: u64) {
    let run = |input: &[u8], what: &dyn Fn() -> String| {
        if std::panic::catch_unwind(|| target(input)).is_err() {
            panic!("{name} found something with {}: {input:?}", what());
        }
    };
    for seed in 0..inputs {
        run(&Rng(seed).bytes(longest), &|| format!("seed {seed}"));
    }
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    for entry in std::fs::read_dir(corpus).into_iter().flatten() {
        let path = entry.unwrap().path();
        run(&std::fs::read(&path).unwrap(), &|| {
            path.display().to_string()
        });
    }
}

#[test]
fn frame() {
    drive("frame", highwater_fuzz::frame, 3000, 33);
}

#[test]
fn cursor() {
    drive("cursor", highwater_fuzz::cursor, 5000, 40);
    // A text that is a cursor, and everything one character away from it.
    let text = b"AQAAAAAAAAAAAQAAAAAAAAAAAAAAAAA";
    for at in 0..text.len() {
        for byte in 0..=255 {
            let mut text = *text;
            text[at] = byte;
            highwater_fuzz::cursor(&text);
        }
    }
}

#[test]
fn store() {
    drive("store", highwater_fuzz::store, 2000, 25);
}

#[test]
fn ops() {
    drive("ops", highwater_fuzz::ops, 500, 400);
}

#[test]
fn packed() {
    drive("packed", highwater_fuzz::packed, 1000, 25);
}

#[test]
fn values() {
    drive("values", highwater_fuzz::values, 20_000, 120);
}

/// Bytes are hardly ever JSON, so these are put together of what JSON consists of.
fn pieces(rng: &mut Rng, between: &str) -> Vec<u8> {
    const PIECES: [&str; 24] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"id\"",
        "\"a\"",
        "\"\\u0061\"",
        "\"b\"",
        "1",
        "-0",
        "1.0",
        "10e-1",
        "0.1",
        "1e400",
        "9007199254740993",
        "null",
        "true",
        " ",
        "{\"id\":1}",
        "{\"a\":1}",
        "{\"id\":\"x\",\"a\":",
        "\"\\ud800\"",
    ];
    let mut text = String::new();
    for _ in 0..rng.next() % 24 {
        text += match rng.next() % 8 {
            0 => between,
            _ => PIECES[(rng.next() % PIECES.len() as u64) as usize],
        };
    }
    text.into_bytes()
}

#[test]
fn json() {
    drive("json", highwater_fuzz::json, 5000, 12);
    for seed in 0..20_000 {
        highwater_fuzz::json(&pieces(&mut Rng(seed), "\0"));
    }
    // Some are objects, or no two would ever be merged.
    for seed in 0..20_000 {
        let mut rng = Rng(seed);
        let [a, b] = [0, 1].map(|_| pieces(&mut rng, " "));
        let object = |value: &[u8]| [b"{\"a\":", value, b",\"b\":2}"].concat();
        highwater_fuzz::json(&[object(&a), object(&b)].join(&0));
    }
}

#[test]
fn import() {
    drive("import", highwater_fuzz::import, 300, 60);
    for seed in 0..3000 {
        highwater_fuzz::import(&pieces(&mut Rng(seed), "\n"));
    }
}
