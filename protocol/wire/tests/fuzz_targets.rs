//! Runs the fuzz targets, with the ordinary toolchain, over their corpus, over damaged copies of it and over noise.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod targets;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 7] = [
    ("header", targets::header),
    ("request", targets::request),
    ("response", targets::response),
    ("batches", targets::batches),
    ("decompress", targets::decompress),
    ("consumer_protocol", targets::consumer_protocol),
    ("mesh", targets::mesh),
];

/// The corpus of each target, in the order of [`TARGETS`].
static CORPUS: LazyLock<[Vec<Vec<u8>>; 7]> = LazyLock::new(|| TARGETS.map(|(name, _)| corpus(name)));

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = directory
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn every_target_has_a_corpus_and_stands_it() {
    for ((name, target), corpus) in TARGETS.iter().zip(&*CORPUS) {
        assert!(!corpus.is_empty(), "{name}");
        corpus.iter().for_each(|input| target(input));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_breaks_no_target(input in prop::collection::vec(any::<u8>(), 0..400)) {
        TARGETS.iter().for_each(|(_, target)| target(&input));
    }

    #[test]
    fn damage_breaks_no_target(
        entry in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        for ((_, target), corpus) in TARGETS.iter().zip(&*CORPUS) {
            let mut input = entry.get(corpus).clone();
            input.truncate(cut.index(input.len() + 1));
            let length = input.len();
            if length > 0 {
                changes.iter().for_each(|(at, byte)| input[at.index(length)] = *byte);
            }
            target(&input);
        }
    }
}
