//! Imports run `cli -> report -> engine -> plan -> manifest -> stages -> artifacts -> kernels`; `cache` depends on
//! none of them, and neither stages nor lower layers see the cache. Files beside the folders (`digest.rs`,
//! `error_chain.rs`, `text.rs`) are leaves: every layer may import them, and they import no layer.

use std::path::Path;

const ORDER: [&str; 8] = ["kernels", "artifacts", "stages", "manifest", "plan", "engine", "report", "cli"];

/// Files that every layer may import and that import none.
const LEAVES: [&str; 3] = ["digest.rs", "error_chain.rs", "text.rs"];

fn rank(layer: &str) -> Option<usize> {
    ORDER.iter().position(|&known| known == layer)
}

fn may_import(from: &str, to: &str) -> bool {
    if LEAVES.contains(&from) {
        return false;
    }
    match (rank(from), rank(to)) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(from), None) => from >= rank("plan").unwrap(),
        (Some(from), Some(to)) => to <= from,
    }
}

#[test]
fn imports_point_downwards() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in walkdir::WalkDir::new(&source).into_iter().map(Result::unwrap) {
        let inside = entry.path().strip_prefix(&source).unwrap();
        let layer = inside.iter().next().and_then(|first| first.to_str()).unwrap_or_default();
        let is_bound = rank(layer).is_some() || layer == "cache" || LEAVES.contains(&layer);
        if !is_bound || entry.path().extension().is_none_or(|end| end != "rs") {
            continue;
        }
        for line in std::fs::read_to_string(entry.path()).unwrap().lines() {
            for used in line.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                let is_layer = rank(&used).is_some() || used == "cache";
                seen += usize::from(is_layer);
                if is_layer && !may_import(layer, &used) {
                    wrong.push(format!("{}: {}", inside.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 100, "only {seen} imports were seen: the test looks past them");
}

#[test]
fn the_rule_itself_holds() {
    assert!(may_import("cli", "cache") && may_import("plan", "stages") && !may_import("stages", "plan"));
    assert!(
        !may_import("stages", "cache")
            && !may_import("cache", "artifacts")
            && !may_import("manifest", "cache")
            && !may_import("digest.rs", "cache")
    );
}
