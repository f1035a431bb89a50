//! What many tasks need and one of them has verified: asked for once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// The most that is kept; the oldest goes.
const KEPT_MAX: usize = 16;

/// Values by key, each made once, also if several threads ask for it together.
pub(crate) struct Shared<K, V>(Mutex<VecDeque<(K, Slot<V>)>>);

/// Locked while the value is made: whoever needs it waits.
type Slot<V> = Arc<Mutex<Option<Arc<V>>>>;

impl<K: PartialEq, V> Shared<K, V> {
    pub(crate) fn new() -> Self {
        Shared(Mutex::default())
    }

    /// The value of `key`, made now if it was not before. A failure to make it is not kept.
    pub(crate) fn get<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        let slot = self.slot(key);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*slot {
            return Ok(value.clone());
        }
        let value = Arc::new(make()?);
        *slot = Some(value.clone());
        Ok(value)
    }

    /// Keeps only the values whose keys `wanted` wants.
    pub(crate) fn retain(&self, wanted: impl Fn(&K) -> bool) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|(key, _)| wanted(key));
    }

    fn slot(&self, key: K) -> Slot<V> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, slot)) = slots.iter().find(|(other, _)| *other == key) {
            return slot.clone();
        }
        if slots.len() >= KEPT_MAX {
            slots.pop_front();
        }
        slots.push_back((key, Slot::default()));
        slots.back().expect("it was just put there").1.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn a_value_is_made_once_for_all_who_wait() {
        let shared = Shared::new();
        let count = AtomicUsize::new(0);
        let make = || -> Result<usize, ()> {
            thread::sleep(Duration::from_millis(20));
            Ok(count.fetch_add(1, Ordering::SeqCst))
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(*shared.get(1, make).unwrap(), 0));
            }
        });
        assert_eq!(*shared.get(2, make).unwrap(), 1);
        shared.retain(|key| *key == 2);
        assert_eq!(*shared.get(2, make).unwrap(), 1);
        assert_eq!(*shared.get(1, make).unwrap(), 2);
    }

    #[test]
    fn a_failure_is_not_kept_and_the_oldest_value_goes() {
        let shared = Shared::new();
        assert_eq!(shared.get(0, || Err::<usize, _>("no")), Err("no"));
        for key in 0..=KEPT_MAX {
            let own = || Ok::<_, ()>(key);
            assert_eq!(*shared.get(key, own).unwrap(), key);
        }
        assert_eq!(*shared.get(KEPT_MAX, || Err(())).unwrap(), KEPT_MAX);
        assert_eq!(shared.get(0, || Err("gone")), Err("gone"));
    }
}
