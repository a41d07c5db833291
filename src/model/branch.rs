//! Many questions in one pass: the branches share their common beginnings and cannot see each other.

/// What a masked attention score gets added: far below any real score, and within the range of `f16`.
pub(crate) const NEVER: f32 = -3.0e4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    token: u32,
    parent: Option<usize>,
    depth: usize,
}

/// A tree of tokens behind a cached conversation; each branch is a path from a root.
///
/// Nodes are numbered in the order in which they were added, so every parent comes before its children.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    children: std::collections::HashMap<(Option<usize>, u32), usize>,
}

impl Tree {
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds `tokens` behind the cache, sharing what is there; the last token's node, `None` where there is none.
    pub(crate) fn extend(&mut self, tokens: &[u32]) -> Option<usize> {
        tokens.iter().fold(None, |parent, &token| {
            let depth = parent.map_or(0, |p| self.nodes[p].depth + 1);
            let next = self.nodes.len();
            let node = *self.children.entry((parent, token)).or_insert(next);
            if node == next {
                self.nodes.push(Node { token, parent, depth });
            }
            Some(node)
        })
    }

    /// Adds `token` below `parent`, shared with nothing; its node.
    pub(crate) fn push(&mut self, parent: usize, token: u32) -> usize {
        let depth = self.nodes[parent].depth + 1;
        self.nodes.push(Node { token, parent: Some(parent), depth });
        self.nodes.len() - 1
    }

    /// The token of a node.
    pub(crate) fn token(&self, node: usize) -> u32 {
        self.nodes[node].token
    }

    /// How many nodes stand above a node.
    pub(crate) fn depth(&self, node: usize) -> usize {
        self.nodes[node].depth
    }

    /// Forgets all nodes but `leaves` and their ancestors; the others move up. The new number of each old node, `None`
    /// for one that is gone. What is added later is shared with nothing that was there.
    pub(crate) fn keep(&mut self, leaves: impl Iterator<Item = usize>) -> Vec<Option<usize>> {
        let mut alive = vec![false; self.nodes.len()];
        for leaf in leaves {
            let mut at = Some(leaf);
            while let Some(i) = at.filter(|i| !alive[*i]) {
                alive[i] = true;
                at = self.nodes[i].parent;
            }
        }
        let mut next = 0;
        let places: Vec<Option<usize>> = alive
            .iter()
            .map(|alive| {
                next += usize::from(*alive);
                alive.then(|| next - 1)
            })
            .collect();
        let nodes = std::mem::take(&mut self.nodes).into_iter().zip(&alive);
        self.nodes = nodes
            .filter(|(_, alive)| **alive)
            .map(|(node, _)| Node { parent: node.parent.and_then(|p| places[p]), ..node })
            .collect();
        self.children.clear();
        places
    }

    /// How many nodes [`Tree::extend`] from the root would add.
    pub(crate) fn missing(&self, tokens: &[u32]) -> usize {
        let mut parent = None;
        for (i, token) in tokens.iter().enumerate() {
            match self.children.get(&(parent, *token)) {
                Some(node) => parent = Some(*node),
                None => return tokens.len() - i,
            }
        }
        0
    }

    /// The tokens of the nodes from `first` on.
    pub(crate) fn tokens(&self, first: usize) -> Vec<u32> {
        self.nodes[first..].iter().map(|n| n.token).collect()
    }

    /// The positions of the nodes from `first` on, behind `cached` tokens.
    pub(crate) fn positions(&self, first: usize, cached: usize) -> Vec<i32> {
        self.nodes[first..].iter().map(|n| (cached + n.depth) as i32).collect()
    }

    /// The attention bias of the nodes from `first` on: `f32[len - first, cached + len]`, row-major. Each sees all
    /// of the cache, its ancestors and itself.
    pub(crate) fn bias(&self, first: usize, cached: usize) -> Vec<f32> {
        let width = cached + self.nodes.len();
        let mut bias = vec![NEVER; (self.nodes.len() - first) * width];
        for (row, node) in bias.chunks_exact_mut(width).zip(first..) {
            row[..cached].fill(0.0);
            let mut at = Some(node);
            while let Some(i) = at {
                row[cached + i] = 0.0;
                at = self.nodes[i].parent;
            }
        }
        bias
    }
}

/// The attention bias of `count` consecutive tokens behind `cached` ones: `f32[count, cached + count]`.
pub(crate) fn causal_bias(count: usize, cached: usize) -> Vec<f32> {
    let width = cached + count;
    let mut bias = vec![0.0; count * width];
    for (i, row) in bias.chunks_exact_mut(width).enumerate() {
        row[cached + i + 1..].fill(NEVER);
    }
    bias
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_share_their_beginnings() {
        let mut tree = Tree::default();
        let leaves: Vec<_> =
            [[7, 8, 1], [7, 8, 2], [7, 9, 1], [7, 8, 1]].iter().map(|b| tree.extend(b).expect("not empty")).collect();
        assert_eq!(tree.tokens(0), [7, 8, 1, 2, 9, 1]);
        assert_eq!(leaves, [2, 3, 5, 2]);
        assert_eq!(tree.positions(0, 10), [10, 11, 12, 12, 11, 12]);
        assert_eq!((tree.missing(&[7, 8, 3, 4]), tree.missing(&[7, 9]), tree.missing(&[1])), (2, 0, 1));
    }

    #[test]
    fn a_branch_sees_the_cache_its_ancestors_and_itself() {
        let mut tree = Tree::default();
        for branch in [[7, 8, 1], [7, 8, 2], [7, 9, 1]] {
            tree.extend(&branch);
        }
        let seen: Vec<Vec<usize>> = tree
            .bias(2, 2)
            .chunks(8)
            .map(|row| row.iter().enumerate().filter(|(_, b)| **b == 0.0).map(|(i, _)| i).collect())
            .collect();
        // Columns 0 and 1 are the cache; node i is column 2 + i.
        assert_eq!(seen, [vec![0, 1, 2, 3, 4], vec![0, 1, 2, 3, 5], vec![0, 1, 2, 6], vec![0, 1, 2, 6, 7]]);
    }

    #[test]
    fn kept_branches_are_as_they_were_with_new_numbers() {
        let mut tree = Tree::default();
        for branch in [[7, 8, 1], [7, 8, 2], [7, 9, 1]] {
            tree.extend(&branch);
        }
        let places = tree.keep([5, 3].into_iter());
        assert_eq!(places, [Some(0), Some(1), None, Some(2), Some(3), Some(4)]);
        assert_eq!(tree.tokens(0), [7, 8, 2, 9, 1]);
        assert_eq!(tree.positions(0, 10), [10, 11, 12, 11, 12]);
        let new = tree.push(2, 6);
        assert_eq!((tree.token(new), tree.depth(new)), (6, 3));
        let row = tree.bias(new, 0);
        assert_eq!(row.iter().map(|b| *b == 0.0).collect::<Vec<_>>(), [true, true, true, false, false, true]);
        assert_eq!(tree.keep(std::iter::empty()), [None; 6]);
        assert_eq!(tree.len(), 0);
    }

    #[test]
    fn a_single_branch_is_causal() {
        let mut tree = Tree::default();
        tree.extend(&[3, 4, 5]);
        assert_eq!(tree.bias(0, 2), causal_bias(3, 2));
    }
}
