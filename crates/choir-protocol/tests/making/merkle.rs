//! The Merkle tree (L7): roots, peaks and nodes, inclusion and consistency, and proofs that don't
//! hold.

use std::convert::Infallible;

use choir_protocol::hash::Hash;
use choir_protocol::json::{Number, Value};
use choir_protocol::merkle::{
    self, Nodes, Peaks, consistency_path, inclusion_path, verify_consistency, verify_inclusion,
};
use choir_protocol::object;

use super::Case;

/// What the leaves hold, in hex. The first eight are those of Certificate Transparency's reference
/// trees.
pub(crate) const CONTENTS: &[&str] = &[
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
    "70",
    "71",
    "72",
    "73",
    "74",
    "75",
    "76",
    "77",
    "78",
    "79",
    "7a",
    "7b",
    "7c",
];

/// The nodes of a tree that is held in memory: for each leaf, what it completed.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) peaks: Peaks,
    nodes: Vec<Vec<Hash>>,
}

impl Tree {
    pub(crate) fn of(leaves: impl IntoIterator<Item = Hash>) -> Tree {
        let mut tree = Tree::default();
        for leaf in leaves {
            tree.nodes.push(tree.peaks.push(leaf));
        }
        tree
    }
}

impl Nodes for Tree {
    type Error = Infallible;

    fn node(&mut self, completed_by: u64, height: u32) -> Result<Hash, Infallible> {
        Ok(self.nodes[completed_by as usize - 1][height as usize])
    }
}

pub(crate) fn leaves() -> Vec<Hash> {
    let contents = CONTENTS
        .iter()
        .map(|hex| choir_protocol::encoding::hex_decode(hex).unwrap_or_default());
    contents.map(|content| merkle::leaf_hash(&content)).collect()
}

pub(crate) fn cases() -> Vec<Case> {
    let leaves = leaves();
    let mut tree = Tree::of(leaves.clone());
    let mut cases = Vec::new();
    for n in 0..=leaves.len() {
        cases.push(tree_case(n));
    }
    for size in 1..=9 {
        for index in 0..size {
            cases.push(inclusion_case(index, size, &leaves, &mut tree));
        }
    }
    for index in [0, 7, 8, 15, 16, 19, 20] {
        cases.push(inclusion_case(index, 21, &leaves, &mut tree));
    }
    for n in 0..=9 {
        for m in 0..=n {
            cases.push(consistency_case(m, n, &mut tree));
        }
    }
    for (m, n) in [(1, 21), (4, 21), (6, 17), (13, 21), (16, 21), (20, 21)] {
        cases.push(consistency_case(m, n, &mut tree));
    }
    cases.extend(bad_inclusion(&leaves, &mut tree));
    cases.extend(bad_consistency(&mut tree));
    cases
}

fn tree_case(n: usize) -> Case {
    let contents = CONTENTS.iter().take(n).copied().collect::<Value>();
    let mut peaks = Peaks::new();
    let mut completed = Vec::new();
    for leaf in leaves().into_iter().take(n) {
        completed = peaks.push(leaf);
    }
    Case::new(
        format!("a tree of {n}"),
        &["L7"],
        object! { "contents": contents },
        object! { "root": peaks.root().to_hex(), "peaks": hashes(peaks.as_slice()), "completed_by_the_last": hashes(&completed) },
    )
}

fn inclusion_case(index: u64, size: u64, leaves: &[Hash], tree: &mut Tree) -> Case {
    let proof = Inclusion::of(index, size, leaves, tree);
    proof.case(format!("leaf {index} of {size}"))
}

fn consistency_case(m: u64, n: u64, tree: &mut Tree) -> Case {
    Consistency::of(m, n, tree).case(format!("from {m} to {n}"))
}

/// What a verifier of an inclusion is handed.
#[derive(Clone)]
pub(crate) struct Inclusion {
    pub(crate) leaf: Hash,
    pub(crate) index: u64,
    pub(crate) size: u64,
    pub(crate) path: Vec<Hash>,
    pub(crate) root: Hash,
}

impl Inclusion {
    pub(crate) fn of(index: u64, size: u64, leaves: &[Hash], tree: &mut Tree) -> Inclusion {
        let path = inclusion_path(index, size, tree).unwrap_or_default();
        Inclusion {
            leaf: leaves[index as usize],
            index,
            size,
            path,
            root: root(size, tree),
        }
    }

    pub(crate) fn holds(&self) -> bool {
        verify_inclusion(&self.leaf, self.index, self.size, &self.path, &self.root)
    }

    fn case(&self, name: String) -> Case {
        let input = object! {
            "leaf": self.leaf.to_hex(),
            "index": Number::saturating(self.index),
            "size": Number::saturating(self.size),
            "path": hashes(&self.path),
            "root": self.root.to_hex(),
        };
        Case::new(
            format!("inclusion: {name}"),
            &["K7"],
            input,
            object! { "holds": self.holds() },
        )
    }
}

/// What a verifier of a consistency is handed.
#[derive(Clone)]
pub(crate) struct Consistency {
    pub(crate) m: u64,
    pub(crate) n: u64,
    pub(crate) root_m: Hash,
    pub(crate) root_n: Hash,
    pub(crate) path: Vec<Hash>,
}

impl Consistency {
    pub(crate) fn of(m: u64, n: u64, tree: &mut Tree) -> Consistency {
        let path = consistency_path(m, n, tree).unwrap_or_default();
        Consistency {
            m,
            n,
            root_m: root(m, tree),
            root_n: root(n, tree),
            path,
        }
    }

    pub(crate) fn holds(&self) -> bool {
        verify_consistency(self.m, self.n, &self.root_m, &self.root_n, &self.path)
    }

    fn case(&self, name: String) -> Case {
        let input = object! {
            "m": Number::saturating(self.m),
            "n": Number::saturating(self.n),
            "root_m": self.root_m.to_hex(),
            "root_n": self.root_n.to_hex(),
            "path": hashes(&self.path),
        };
        Case::new(
            format!("consistency: {name}"),
            &["L7"],
            input,
            object! { "holds": self.holds() },
        )
    }
}

/// Proofs of leaf 2 in the tree of 7, each with one thing wrong.
fn bad_inclusion(leaves: &[Hash], tree: &mut Tree) -> Vec<Case> {
    let good = Inclusion::of(2, 7, leaves, tree);
    let other = leaves[20];
    let mut shorter = good.path.clone();
    shorter.pop();
    let mut longer = good.path.clone();
    longer.push(other);
    let mut altered = good.path.clone();
    altered[1] = other;
    let mut swapped = good.path.clone();
    swapped.swap(0, 1);
    let root_of_8 = root(8, tree);
    [
        (
            "another leaf",
            Inclusion {
                leaf: other,
                ..good.clone()
            },
        ),
        (
            "another index",
            Inclusion {
                index: 3,
                ..good.clone()
            },
        ),
        (
            "an index beyond the tree",
            Inclusion {
                index: 7,
                ..good.clone()
            },
        ),
        (
            "another size",
            Inclusion {
                size: 4,
                ..good.clone()
            },
        ),
        (
            "an empty tree",
            Inclusion {
                index: 0,
                size: 0,
                path: vec![],
                root: Hash::EMPTY,
                ..good.clone()
            },
        ),
        (
            "another root",
            Inclusion {
                root: root_of_8,
                ..good.clone()
            },
        ),
        (
            "no path",
            Inclusion {
                path: vec![],
                ..good.clone()
            },
        ),
        (
            "a path that is too short",
            Inclusion {
                path: shorter,
                ..good.clone()
            },
        ),
        (
            "a path that is too long",
            Inclusion {
                path: longer,
                ..good.clone()
            },
        ),
        (
            "an altered path",
            Inclusion {
                path: altered,
                ..good.clone()
            },
        ),
        ("a path in another order", Inclusion { path: swapped, ..good }),
    ]
    .into_iter()
    .map(|(name, proof)| proof.case(format!("bad: {name}")))
    .collect()
}

/// Proofs from 3 to 7 and others, each with one thing wrong.
fn bad_consistency(tree: &mut Tree) -> Vec<Case> {
    let good = Consistency::of(3, 7, tree);
    let power = Consistency::of(4, 7, tree);
    let other = root(20, tree);
    let mut shorter = good.path.clone();
    shorter.pop();
    let mut longer = good.path.clone();
    longer.push(other);
    let mut altered = good.path.clone();
    altered[0] = other;
    let same = Consistency {
        m: 7,
        root_m: good.root_n,
        path: vec![],
        ..good.clone()
    };
    let empty = Consistency {
        m: 0,
        root_m: Hash::EMPTY,
        path: vec![],
        ..good.clone()
    };
    [
        (
            "another first root",
            Consistency {
                root_m: other,
                ..good.clone()
            },
        ),
        (
            "another second root",
            Consistency {
                root_n: other,
                ..good.clone()
            },
        ),
        (
            "another first root, from a power of two",
            Consistency {
                root_m: other,
                ..power.clone()
            },
        ),
        (
            "another second root, from a power of two",
            Consistency { root_n: other, ..power },
        ),
        ("another first size", Consistency { m: 2, ..good.clone() }),
        ("another second size", Consistency { n: 9, ..good.clone() }),
        (
            "the sizes the wrong way round",
            Consistency {
                m: 7,
                n: 3,
                ..good.clone()
            },
        ),
        (
            "no path",
            Consistency {
                path: vec![],
                ..good.clone()
            },
        ),
        (
            "a path that is too short",
            Consistency {
                path: shorter,
                ..good.clone()
            },
        ),
        (
            "a path that is too long",
            Consistency {
                path: longer,
                ..good.clone()
            },
        ),
        ("an altered path", Consistency { path: altered, ..good }),
        (
            "two roots of one size",
            Consistency {
                root_m: other,
                ..same.clone()
            },
        ),
        (
            "a path between equal sizes",
            Consistency {
                path: vec![other],
                ..same
            },
        ),
        (
            "the empty tree with a root of its own",
            Consistency {
                root_m: other,
                ..empty.clone()
            },
        ),
        (
            "a path from the empty tree",
            Consistency {
                path: vec![other],
                ..empty
            },
        ),
    ]
    .into_iter()
    .map(|(name, proof)| proof.case(format!("bad: {name}")))
    .collect()
}

pub(crate) fn root(n: u64, tree: &mut Tree) -> Hash {
    let Ok(root) = merkle::root_at(n, tree);
    root
}

fn hashes(hashes: &[Hash]) -> Value {
    hashes.iter().map(Hash::to_hex).collect()
}
