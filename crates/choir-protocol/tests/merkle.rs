//! The Merkle tree (L7) against RFC 9162 word for word.

use choir_protocol::hash::Hash;
use choir_protocol::merkle::{
    Nodes, PathError, Peaks, consistency_path, inclusion_path, leaf_hash, peaks_at, root_at, verify_consistency,
    verify_inclusion,
};
use proptest::prelude::*;

mod naive;

/// A log that keeps with each entry the nodes that it completed, and counts what is looked up.
struct Log {
    completed: Vec<Vec<Hash>>,
    look_ups: usize,
}

impl Log {
    fn of(leaves: &[Hash]) -> Log {
        let mut peaks = Peaks::new();
        Log {
            completed: leaves.iter().map(|leaf| peaks.push(*leaf)).collect(),
            look_ups: 0,
        }
    }
}

/// A node that no leaf completes.
#[derive(Debug, PartialEq)]
struct Missing(u64, u32);

impl Nodes for Log {
    type Error = Missing;

    fn node(&mut self, completed_by: u64, height: u32) -> Result<Hash, Missing> {
        self.look_ups += 1;
        let nodes = self.completed.get(completed_by as usize - 1);
        nodes
            .and_then(|nodes| nodes.get(height as usize))
            .copied()
            .ok_or(Missing(completed_by, height))
    }
}

fn leaves(n: usize) -> Vec<Hash> {
    (0..n).map(|n| leaf_hash(n.to_string().as_bytes())).collect()
}

#[test]
fn l7_the_root_of_no_leaves_is_the_hash_of_nothing() {
    assert_eq!(Peaks::new().root(), Hash::EMPTY);
    assert_eq!(root_at(0, &mut Log::of(&[])), Ok(Hash::EMPTY));
}

#[test]
fn l7_roots_and_peaks_are_the_rfc_s_up_to_200_leaves() {
    let leaves = leaves(200);
    let mut log = Log::of(&leaves);
    let mut peaks = Peaks::new();
    for n in 0..=200 {
        assert_eq!(peaks.size(), n as u64);
        assert_eq!(peaks.root(), naive::root(&leaves[..n]), "{n}");
        assert_eq!(peaks_at(n as u64, &mut log).as_ref(), Ok(&peaks), "{n}");
        if let Some(leaf) = leaves.get(n) {
            peaks.push(*leaf);
        }
    }
}

#[test]
fn a_leaf_completes_one_node_for_each_trailing_zero_of_its_number() {
    let leaves = leaves(64);
    let mut peaks = Peaks::new();
    for (at, leaf) in leaves.iter().enumerate() {
        let n = at + 1;
        let completed = peaks.push(*leaf);
        let subtrees: Vec<Hash> = (0..=n.trailing_zeros())
            .map(|height| naive::root(&leaves[n - (1 << height)..n]))
            .collect();
        assert_eq!(completed, subtrees, "{n}");
    }
}

#[test]
fn peaks_from_elsewhere_must_be_as_many_as_the_size_has_bits() {
    let leaves = leaves(3);
    assert_eq!(
        Peaks::from_parts(5, leaves[..2].to_vec()).unwrap().as_slice(),
        &leaves[..2]
    );
    assert_eq!(Peaks::from_parts(0, vec![]), Some(Peaks::new()));
    assert_eq!(Peaks::from_parts(5, leaves.clone()), None);
    assert_eq!(Peaks::from_parts(4, vec![]), None);
    assert_eq!(Peaks::from_parts(1 << 53, leaves[..1].to_vec()), None);
    assert_eq!(Peaks::from_parts(u64::MAX, vec![leaves[0]; 64]), None);
}

#[test]
fn peaks_go_on_from_any_size() {
    let leaves = leaves(40);
    for n in 0..40 {
        let mut log = Log::of(&leaves[..n]);
        let there = peaks_at(n as u64, &mut log).unwrap();
        let mut here = Peaks::from_parts(n as u64, there.as_slice().to_vec()).unwrap();
        for leaf in &leaves[n..] {
            here.push(*leaf);
        }
        assert_eq!(here.root(), naive::root(&leaves), "{n}");
    }
}

#[test]
fn k7_inclusion_paths_are_the_rfc_s_and_hold() {
    let leaves = leaves(70);
    let mut log = Log::of(&leaves);
    for size in 1..=70 {
        let root = naive::root(&leaves[..size]);
        for index in 0..size {
            let path = inclusion_path(index as u64, size as u64, &mut log).unwrap();
            assert_eq!(path, naive::inclusion(index, &leaves[..size]), "{index} of {size}");
            assert!(verify_inclusion(
                &leaves[index],
                index as u64,
                size as u64,
                &path,
                &root
            ));
        }
    }
}

#[test]
fn l7_consistency_paths_are_the_rfc_s_and_hold() {
    let leaves = leaves(70);
    let mut log = Log::of(&leaves);
    for n in 1..=70 {
        let root_n = naive::root(&leaves[..n]);
        for m in 0..=n {
            let path = consistency_path(m as u64, n as u64, &mut log).unwrap();
            if m != 0 && m != n {
                assert_eq!(path, naive::consistency(m, &leaves[..n]), "{m} to {n}");
            } else {
                assert!(path.is_empty());
            }
            let root_m = naive::root(&leaves[..m]);
            assert!(
                verify_consistency(m as u64, n as u64, &root_m, &root_n, &path),
                "{m} to {n}"
            );
        }
    }
}

#[test]
fn paths_of_what_is_not_there_are_errors() {
    let mut log = Log::of(&leaves(5));
    assert_eq!(inclusion_path(5, 5, &mut log), Err(PathError::OutOfRange));
    assert_eq!(inclusion_path(0, 0, &mut log), Err(PathError::OutOfRange));
    assert_eq!(consistency_path(6, 5, &mut log), Err(PathError::OutOfRange));
    assert_eq!(inclusion_path(0, 6, &mut log), Err(PathError::Nodes(Missing(6, 1))));
    assert_eq!(root_at(8, &mut log), Err(Missing(8, 3)));
}

#[test]
fn a_path_takes_few_look_ups() {
    let n = 100_000;
    let mut log = Log::of(&leaves(n));
    let bits = 17;
    for (from, to) in [(1, n), (65_535, 65_536), (65_536, n), (99_998, 99_999), (54_321, n)] {
        log.look_ups = 0;
        inclusion_path(from as u64 - 1, to as u64, &mut log).unwrap();
        assert!(log.look_ups <= 2 * bits, "{}", log.look_ups);
        log.look_ups = 0;
        consistency_path(from as u64, to as u64, &mut log).unwrap();
        assert!(log.look_ups <= 2 * bits, "{}", log.look_ups);
        log.look_ups = 0;
        root_at(to as u64, &mut log).unwrap();
        assert!(log.look_ups <= bits);
    }
}

proptest! {
    #[test]
    fn k7_no_other_inclusion_holds(size in 1..200usize, index: prop::sample::Index, change in 0..6usize, other: [u8; 32], at: prop::sample::Index) {
        let leaves = leaves(size);
        let index = index.index(size);
        let path = inclusion_path(index as u64, size as u64, &mut Log::of(&leaves)).unwrap();
        let other = Hash::from_bytes(other);
        let (mut leaf, mut changed, mut root) = (leaves[index], path.clone(), naive::root(&leaves));
        let mut claimed = index;
        match change {
            0 => leaf = other,
            1 => root = other,
            2 => changed.push(other),
            3 if !path.is_empty() => changed[at.index(path.len())] = other,
            4 if !path.is_empty() => { changed.remove(at.index(path.len())); }
            _ if size > 1 => claimed = (index + 1 + at.index(size - 1)) % size,
            _ => leaf = other,
        }
        prop_assert!(!verify_inclusion(&leaf, claimed as u64, size as u64, &changed, &root));
    }

    #[test]
    fn l7_no_other_consistency_holds(n in 2..200usize, m: prop::sample::Index, change in 0..5usize, other: [u8; 32], at: prop::sample::Index) {
        let leaves = leaves(n);
        let m = 1 + m.index(n - 1);
        let path = consistency_path(m as u64, n as u64, &mut Log::of(&leaves)).unwrap();
        let other = Hash::from_bytes(other);
        let (mut root_m, mut root_n, mut changed) = (naive::root(&leaves[..m]), naive::root(&leaves), path.clone());
        match change {
            0 => root_m = other,
            1 => root_n = other,
            2 => changed.push(other),
            3 => changed[at.index(path.len())] = other,
            _ => { changed.remove(at.index(path.len())); }
        }
        prop_assert!(!verify_consistency(m as u64, n as u64, &root_m, &root_n, &changed));
    }

    #[test]
    fn arbitrary_proofs_never_panic(a: u64, b: u64, hash: [u8; 32], length in 0..70usize) {
        let hash = Hash::from_bytes(hash);
        let path = vec![hash; length];
        let _ = verify_inclusion(&hash, a, b, &path, &hash);
        let _ = verify_consistency(a, b, &hash, &hash, &path);
    }
}
