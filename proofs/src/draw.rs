//! Which nodes are drawn for a task: computed by anyone from the registry and the opening header.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::vote::{NodeKey, Place};

/// The nodes of a registry that were drawn for one task so far.
///
/// The registry itself is handed in each time, so that thousands of tasks can share one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// Indexes into the registry, ascending.
    indexes: Vec<usize>,
}

impl Drawn {
    /// How many were drawn, in all rounds.
    #[must_use]
    pub fn count(&self) -> usize {
        self.indexes.len()
    }

    /// Draws `count` nodes for the round at `place` from those of `registry` not drawn before; `None` if
    /// fewer are left. `registry` is in strictly ascending order and the same at each call.
    ///
    /// A Fisher-Yates shuffle of the candidates in key order, stopped after `count` steps, by words of
    /// BLAKE3's extended output; words that would make one candidate likelier than another are passed over.
    ///
    /// # Cost
    /// `count` times the logarithm of the registry, and one pass over those drawn before.
    pub fn draw(
        &mut self,
        place: &Place,
        registry: &[NodeKey],
        count: usize,
    ) -> Option<Vec<NodeKey>> {
        let left = registry.len().checked_sub(self.indexes.len())?;
        if count > left {
            return None;
        }
        let mut words = place.draw_seed();
        // The shuffled list, where it differs from the list of candidates in order.
        let mut moved = BTreeMap::new();
        let mut drawn = Vec::with_capacity(count);
        for at in 0..count {
            let span = left - at;
            let other = at + below(span, || words.next_word());
            let here = moved.remove(&at).unwrap_or(at);
            let taken = if other == at { here } else { moved.insert(other, here).unwrap_or(other) };
            drawn.push(self.candidate(taken));
        }
        let nodes = drawn.iter().map(|index| registry[*index]).collect();
        self.indexes.extend(drawn);
        self.indexes.sort_unstable();
        Some(nodes)
    }

    /// The index in the registry of the candidate at `place` among those not drawn before this round.
    fn candidate(&self, place: usize) -> usize {
        // The n-th drawn index has `index - n` candidates before it.
        let (mut low, mut high) = (0, self.indexes.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.indexes[middle] - middle <= place {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        place + low
    }
}

/// A number below `span`, each equally likely if the words are random.
fn below(span: usize, mut word: impl FnMut() -> u64) -> usize {
    let span = span as u64;
    // The largest multiple of span that words reach: 2^64 / span * span, less one.
    let last = u64::MAX - ((u64::MAX % span) + 1) % span;
    loop {
        let word = word();
        if word <= last {
            return usize::try_from(word % span).expect("less than a length");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_beyond_the_last_multiple_are_passed_over() {
        for span in [1_u64, 2, 3, 5, 7, 1 << 32, (1 << 63) + 1, u64::MAX] {
            let end = (1_u128 << 64) / u128::from(span) * u128::from(span);
            let last = u64::try_from(end - 1).unwrap();
            let place = usize::try_from(span).unwrap();
            assert_eq!(below(place, || last) as u64, last % span, "{span}");
            if let Some(beyond) = last.checked_add(1) {
                let mut words = [beyond, u64::MAX, 0].into_iter();
                assert_eq!(below(place, || words.next().unwrap()), 0, "{span}");
                assert_eq!(words.next(), None, "{span}");
            }
        }
    }
}
