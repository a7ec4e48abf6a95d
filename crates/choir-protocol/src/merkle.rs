//! The Merkle tree of a thread's log (L7), as in RFC 9162 §2.1, with its proofs.
//!
//! The log keeps, with entry n, the roots of the perfect subtrees that its leaf completes: the leaf
//! itself (height 0), then one for each height up to the number of trailing zeros of n. These
//! *nodes* never change, so that every root, peak and path, of every size that the log ever had, is
//! a few look-ups.

use alloc::vec::Vec;
use core::fmt;

use crate::hash::Hash;
use crate::json::MAX_INTEGER;

/// The hash of a leaf's content: SHA-256(0x00 ‖ content).
#[must_use]
pub fn leaf_hash(content: &[u8]) -> Hash {
    Hash::of_parts(&[&[0x00], content])
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash::of_parts(&[&[0x01], left.as_bytes(), right.as_bytes()])
}

/// `peaks(n)`: the roots of the perfect subtrees that make up a tree of n leaves, largest first.
/// All that is needed to go on from n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peaks {
    size: u64,
    // Invariant: one for each bit that is set in `size`.
    peaks: Vec<Hash>,
}

impl Peaks {
    /// Those of the empty tree: none.
    #[must_use]
    pub const fn new() -> Peaks {
        Peaks {
            size: 0,
            peaks: Vec::new(),
        }
    }

    /// Those that somebody else holds, largest first. None where there can't be so many in a tree
    /// of this size, or no log is so long (E1). Whether they are the log's shows only in their
    /// [`root`](Peaks::root).
    #[must_use]
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Option<Peaks> {
        let fits = size <= MAX_INTEGER.unsigned_abs() && peaks.len() == size.count_ones() as usize;
        fits.then_some(Peaks { size, peaks })
    }

    /// Appends a leaf, and returns the nodes that it completes: itself (height 0), then the perfect
    /// subtrees that end with it (heights 1, 2, …).
    pub fn push(&mut self, leaf: Hash) -> Vec<Hash> {
        self.size += 1;
        let heights = self.size.trailing_zeros() as usize;
        let mut completed = Vec::with_capacity(heights + 1);
        let mut node = leaf;
        completed.push(node);
        // By the invariant, exactly as many peaks end here as there are trailing zeros.
        for left in self.peaks.drain(self.peaks.len() - heights..).rev() {
            node = node_hash(&left, &node);
            completed.push(node);
        }
        self.peaks.push(node);
        completed
    }

    /// `root(n)`: the Merkle tree hash of all leaves (L7).
    #[must_use]
    pub fn root(&self) -> Hash {
        join(&self.peaks).unwrap_or(Hash::EMPTY)
    }

    /// The number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The peaks, largest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Hash] {
        &self.peaks
    }
}

impl Default for Peaks {
    fn default() -> Peaks {
        Peaks::new()
    }
}

/// Where the nodes of a log are kept.
pub trait Nodes {
    /// What can go wrong when one is fetched.
    type Error;

    /// The root of the perfect subtree of 2^`height` leaves whose last leaf is number
    /// `completed_by`, counted from 1: what [`Peaks::push`] returned at `height` for that leaf.
    /// `height` is at most the number of trailing zeros of `completed_by`.
    ///
    /// # Errors
    /// Where the node can't be read.
    fn node(&mut self, completed_by: u64, height: u32) -> Result<Hash, Self::Error>;
}

/// Why there is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError<E> {
    /// There is no such leaf in a tree of this size, or no such smaller tree in it.
    OutOfRange,
    /// The nodes couldn't be read.
    Nodes(E),
}

impl<E: fmt::Display> fmt::Display for PathError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::OutOfRange => f.write_str("the tree is smaller than that"),
            PathError::Nodes(error) => error.fmt(f),
        }
    }
}

impl<E: core::error::Error> core::error::Error for PathError<E> {}

/// `peaks(n)`, of a log that holds at least n entries.
///
/// # Errors
/// Where a node can't be read.
pub fn peaks_at<N: Nodes>(n: u64, nodes: &mut N) -> Result<Peaks, N::Error> {
    Ok(Peaks {
        size: n,
        peaks: subtrees(0, n, nodes)?,
    })
}

/// `root(n)`, of a log that holds at least n entries.
///
/// # Errors
/// Where a node can't be read.
pub fn root_at<N: Nodes>(n: u64, nodes: &mut N) -> Result<Hash, N::Error> {
    Ok(peaks_at(n, nodes)?.root())
}

/// The inclusion path of the leaf with this index, counted from 0, in the tree of the first `size`
/// leaves (RFC 9162 §2.1.3.1). Nearest sibling first.
///
/// # Errors
/// `index` not below `size`, and where a node can't be read.
pub fn inclusion_path<N: Nodes>(index: u64, size: u64, nodes: &mut N) -> Result<Vec<Hash>, PathError<N::Error>> {
    if index >= size {
        return Err(PathError::OutOfRange);
    }
    // PATH(m, D[n]) from the root down, so that the siblings come out farthest first.
    let mut path = Vec::new();
    let (mut start, mut length) = (0, size);
    while length > 1 {
        let left = split(length);
        if index - start < left {
            path.push(subtree_root(start + left, length - left, nodes)?);
            length = left;
        } else {
            path.push(subtree_root(start, left, nodes)?);
            start += left;
            length -= left;
        }
    }
    path.reverse();
    Ok(path)
}

/// The consistency path from the tree of the first `m` leaves to that of the first `n` (RFC 9162
/// §2.1.4.1).
///
/// The RFC defines it for 0 < m < n. Here it is also empty for m = 0 and for m = n, where the roots
/// speak for themselves.
///
/// # Errors
/// `m` above `n`, and where a node can't be read.
pub fn consistency_path<N: Nodes>(m: u64, n: u64, nodes: &mut N) -> Result<Vec<Hash>, PathError<N::Error>> {
    if m > n {
        return Err(PathError::OutOfRange);
    }
    if m == 0 {
        return Ok(Vec::new());
    }
    // SUBPROOF(m, D[n], b) from the root down. `start` = 0 is the RFC's b = true: there the smaller
    // tree's own root is what the verifier holds.
    let mut path = Vec::new();
    let (mut start, mut length) = (0, n);
    while m - start < length {
        let left = split(length);
        if m - start <= left {
            path.push(subtree_root(start + left, length - left, nodes)?);
            length = left;
        } else {
            path.push(subtree_root(start, left, nodes)?);
            start += left;
            length -= left;
        }
    }
    if start != 0 {
        path.push(subtree_root(start, length, nodes)?);
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` proves that `leaf` is the leaf with this index, counted from 0, of the tree of
/// `size` leaves with this root (RFC 9162 §2.1.3.2).
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            climb_out_of_the_right_edge(&mut node, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` proves that the tree of `n` leaves with `root_n` begins with the tree of `m`
/// leaves with `root_m` (RFC 9162 §2.1.4.2).
///
/// For m = n it holds where the path is empty and the roots are equal; for m = 0 where the path is
/// empty and `root_m` is that of the empty tree.
#[must_use]
pub fn verify_consistency(m: u64, n: u64, root_m: &Hash, root_n: &Hash, path: &[Hash]) -> bool {
    if m > n || (m == 0 && *root_m != Hash::EMPTY) {
        return false;
    }
    if m == n || m == 0 {
        return path.is_empty() && (m != n || root_m == root_n);
    }
    // The RFC prepends the first root to the path where m is a power of two.
    let (first, rest) = match path.split_first() {
        None => return false,
        Some(_) if m.is_power_of_two() => (root_m, path),
        Some(split) => split,
    };
    let (mut node, mut last) = (m - 1, n - 1);
    let shift = node.trailing_ones();
    node >>= shift;
    last >>= shift;
    let (mut hash_m, mut hash_n) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash_m = node_hash(sibling, &hash_m);
            hash_n = node_hash(sibling, &hash_n);
            climb_out_of_the_right_edge(&mut node, &mut last);
        } else {
            hash_n = node_hash(&hash_n, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash_m == *root_m && hash_n == *root_n
}

/// "If LSB(fn) is not set, then right-shift both fn and sn equally until either LSB(fn) is set or
/// fn is 0": levels at which the right edge has no sibling.
fn climb_out_of_the_right_edge(node: &mut u64, last: &mut u64) {
    while *node != 0 && *node & 1 == 0 {
        *node >>= 1;
        *last >>= 1;
    }
}

/// The largest power of two below `length`, which is at least 2: the leaves of the left subtree
/// (RFC 9162 §2.1.1).
const fn split(length: u64) -> u64 {
    1 << (length - 1).ilog2()
}

/// The roots of the perfect subtrees that make up the leaves (start, start + length], largest
/// first. `start` must be a multiple of the largest one's size.
fn subtrees<N: Nodes>(start: u64, length: u64, nodes: &mut N) -> Result<Vec<Hash>, N::Error> {
    let mut roots = Vec::with_capacity(length.count_ones() as usize);
    let (mut end, mut rest) = (start, length);
    while rest != 0 {
        let height = rest.ilog2();
        end += 1 << height;
        rest -= 1 << height;
        roots.push(nodes.node(end, height)?);
    }
    Ok(roots)
}

fn subtree_root<N: Nodes>(start: u64, length: u64, nodes: &mut N) -> Result<Hash, PathError<N::Error>> {
    let roots = subtrees(start, length, nodes).map_err(PathError::Nodes)?;
    Ok(join(&roots).unwrap_or(Hash::EMPTY))
}

/// The root over perfect subtrees, largest first; None without any.
fn join(roots: &[Hash]) -> Option<Hash> {
    roots
        .iter()
        .rev()
        .copied()
        .reduce(|right, left| node_hash(&left, &right))
}
