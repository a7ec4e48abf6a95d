//! The tree keeps the promises that ARCHITECTURE.md makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

const ARCHITECTURE: &str = include_str!("../../../ARCHITECTURE.md");

/// Which crates of the workspace a crate may use in what it ships.
const EDGES: [(&str, &[&str]); 7] = [
    ("choir-protocol", &[]),
    ("choir-websocket", &[]),
    ("choir-core", &["choir-protocol"]),
    ("choir-log", &["choir-core", "choir-protocol"]),
    (
        "choir-server",
        &["choir-core", "choir-log", "choir-protocol", "choir-websocket"],
    ),
    ("choir-client", &["choir-core", "choir-protocol", "choir-websocket"]),
    (
        "choir-cli",
        &[
            "choir-client",
            "choir-core",
            "choir-log",
            "choir-protocol",
            "choir-server",
        ],
    ),
];

/// Crates beside the product: they may use everything and are used by nothing.
const BESIDE: [&str; 1] = ["choir-bench"];

struct Package {
    name: String,
    /// What it ships with, and, apart, what only its tests use.
    dependencies: BTreeSet<String>,
    dev_dependencies: BTreeSet<String>,
    manifest: String,
}

fn workspace() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo speaks JSON");
    let packages = metadata["packages"].as_array().expect("a list").iter();
    packages
        .map(|package| {
            let names = |dev: bool| {
                let dependencies = package["dependencies"].as_array().expect("a list").iter();
                dependencies
                    .filter(|dependency| (dependency["kind"] == "dev") == dev)
                    .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
                    .collect()
            };
            Package {
                name: package["name"].as_str().expect("a name").to_owned(),
                dependencies: names(false),
                dev_dependencies: names(true),
                manifest: package["manifest_path"].as_str().expect("a path").to_owned(),
            }
        })
        .collect()
}

#[test]
fn dependencies_between_crates_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    for package in workspace() {
        if BESIDE.contains(&package.name.as_str()) {
            continue;
        }
        let allowed = allowed
            .get(package.name.as_str())
            .unwrap_or_else(|| panic!("{} has no place in the tree yet", package.name));
        for dependency in package.dependencies {
            assert!(
                !dependency.starts_with("choir-") || allowed.contains(&dependency.as_str()),
                "{} must not use {dependency}",
                package.name
            );
        }
    }
}

#[test]
fn every_direct_dependency_has_its_reason_and_no_reason_outlives_its_dependency() {
    let (_, table) = ARCHITECTURE
        .split_once("## Direct dependencies, and why")
        .expect("the table stands in ARCHITECTURE.md");
    let reasoned: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split_once(" | "))
        .flat_map(|(names, _)| names.split(", "))
        .filter(|name| *name != "crate" && !name.starts_with("---"))
        .map(str::to_owned)
        .collect();
    let used: BTreeSet<String> = workspace()
        .into_iter()
        .flat_map(|package| package.dependencies.into_iter().chain(package.dev_dependencies))
        .filter(|name| !name.starts_with("choir-"))
        .collect();
    assert_eq!(reasoned, used);
}

#[test]
fn every_crate_follows_the_one_table_of_lints() {
    for package in workspace() {
        let manifest = std::fs::read_to_string(&package.manifest).expect("its manifest is there");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} has lints of its own",
            package.name
        );
    }
}

#[test]
fn nothing_switches_on_a_feature_that_would_change_what_is_accepted() {
    // Features are united over the whole build: one crate that asks for these changes how numbers are read or signatures are judged everywhere.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--offline", "--edges=features", "--prefix=none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    for forbidden in [
        "serde_json feature \"arbitrary_precision\"",
        "ed25519-dalek feature \"legacy_compatibility\"",
    ] {
        assert!(!tree.contains(forbidden), "{forbidden} is on");
    }
}
