//! A bounded cache of what was read from scratch files lately.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

/// Parts that are locked one by one, so that workers seldom wait for each other.
const SHARDS: u64 = 16;
/// What an entry costs beside its value, about.
const ENTRY_BYTES: usize = 96;

/// Values by number. What came first goes first; the latest of a shard stays whatever its length.
#[derive(Debug)]
pub(super) struct Cache<V> {
    shards: Vec<Mutex<Shard<V>>>,
    shard_bytes_max: usize,
}

#[derive(Debug)]
struct Shard<V> {
    values: HashMap<u64, (V, usize)>,
    order: VecDeque<u64>,
    bytes: usize,
}

impl<V: Clone> Cache<V> {
    /// A cache of about `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let shard = || Mutex::new(Shard { values: HashMap::new(), order: VecDeque::new(), bytes: 0 });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), shard_bytes_max: bytes_max / SHARDS as usize }
    }

    /// The value of a number; if it is not there it comes from `read`, which says how many bytes it takes.
    pub(super) fn get_or_read<E>(
        &self,
        number: u64,
        read: impl FnOnce() -> Result<(V, usize), E>,
    ) -> Result<V, E> {
        let shard = usize::try_from(number % SHARDS).ok().and_then(|shard| self.shards.get(shard));
        let Some(shard) = shard else { return Ok(read()?.0) };
        let lock = || shard.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((value, _)) = lock().values.get(&number) {
            return Ok(value.clone());
        }
        // Not under the lock: others go on meanwhile, and at worst the same is read twice.
        let (value, bytes) = read()?;
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        let mut held = lock();
        if held.values.insert(number, (value.clone(), bytes)).is_none() {
            held.order.push_back(number);
            held.bytes = held.bytes.saturating_add(bytes);
        }
        while held.bytes > self.shard_bytes_max && held.order.len() > 1 {
            let oldest = held.order.pop_front();
            let gone = oldest.and_then(|oldest| held.values.remove(&oldest));
            held.bytes = held.bytes.saturating_sub(gone.map_or(0, |(_, bytes)| bytes));
        }
        Ok(value)
    }

    /// Bytes held, about.
    pub(super) fn bytes(&self) -> usize {
        let bytes =
            |shard: &Mutex<Shard<V>>| shard.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).bytes;
        self.shards.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_not_read_again_and_what_is_too_much_goes() {
        let cache = Cache::new(SHARDS as usize * 1000);
        let mut reads = 0;
        let mut get = |number| {
            cache.get_or_read::<()>(number, || {
                reads += 1;
                Ok((number, 300))
            })
        };
        for number in [0, 0, 16, 0] {
            assert_eq!(get(number), Ok(number));
        }
        for number in 0..1000 {
            get(number).unwrap();
        }
        assert!(cache.bytes() <= SHARDS as usize * 1000);
        assert_eq!(reads, 1000);
        assert_eq!(cache.get_or_read(2000, || Err("broken")), Err("broken"));
    }
}
